"""Statistics of evaluations: pass@k, the consensus of answers, the standard error of a mean."""

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k samples is right, if c of n are: 1 - C(n-c, k) / C(n, k) [2107.03374].

    With fewer than k wrong ones a factor of the product is 0.
    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def same_text(a: str, b: str) -> bool:
    """Whether two answers are the same but for white space."""
    return "".join(a.split()) == "".join(b.split())


def consensus(answers: list[str | None], equal=same_text) -> str | None:
    """The answer that most samples agree on, as it was first written; None if nobody answered.
    Answers that are `equal` vote together. A tie goes to the answer that appeared first.

    >>> consensus(["7", "8", " 7", None])
    '7'
    """
    groups: list[list[str]] = []
    for answer in filter(None, answers):
        group = next((g for g in groups if equal(g[0], answer)), None)
        if group is None:
            groups.append(group := [])
        group.append(answer)
    return max(groups, key=len)[0] if groups else None


def standard_error(means: list[float]) -> float:
    """Of the mean over n questions: sqrt(sum (s_i - mean)^2 / (n (n - 1))); 0 for one question."""
    n, mean = len(means), sum(means) / len(means)
    return math.sqrt(sum((s - mean) ** 2 for s in means) / (n * (n - 1))) if n > 1 else 0.0
