"""Statistics of evaluations: pass@k, the consensus of answers, the standard error of a mean."""

import math
from collections import defaultdict
from collections.abc import Sequence


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


def standard_error(means: list[float], contents: Sequence | None = None) -> float:
    """Of the mean over n questions: sqrt(sum (s_i - mean)^2 / (n (n - 1))); 0 for one question.
    Questions of the same content are not independent: the deviations of each content are added up
    before they are squared [2411.00640, section 2.2], with G / (G - 1) for G contents.

    >>> round(standard_error([1.0, 0.0, 1.0, 0.0]), 3)
    0.289
    >>> round(standard_error([1.0, 1.0, 0.0, 0.0], "aabb"), 3)      # as good as two questions
    0.5
    """
    n, mean = len(means), sum(means) / len(means)
    sums = defaultdict(float)
    for content, s in zip(range(n) if contents is None else contents, means):
        sums[content] += s - mean
    groups = len(sums)
    if groups == 1:
        return 0.0
    return math.sqrt(sum(d * d for d in sums.values()) * groups / (groups - 1)) / n
