"""Statistics: pass@k, consensus, errors and intervals of means, many claims at once."""

import math
import statistics
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


# ------------------------------------------------------------------------------ over seeds


def t_within(t: float, n: int) -> float:
    """P(|T| <= t) of Student's t with n degrees of freedom: a finite sum in the angle
    atan(t / sqrt n) [Abramowitz and Stegun, 26.7.3 and 26.7.4].

    >>> round(t_within(2.776, 4), 4)
    0.95
    """
    angle = math.atan(t / math.sqrt(n))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = total = 0.0 if n == 1 else cosine if n % 2 else 1.0
    for i in range(3 if n % 2 else 2, n - 1, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    return sine * total if n % 2 == 0 else 2 / math.pi * (angle + sine * total)


def half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half of the interval of the mean by Student's t; without end for a single value.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)       # 4.303 / sqrt(3)
    2.484
    """
    n = len(values) - 1
    if n < 1:
        return math.inf
    low, high = 0.0, 1e4
    for _ in range(80):  # the t that holds the level, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, n) < level else (low, middle)
    return high * statistics.stdev(values) / math.sqrt(n + 1)


def p_value(values: Sequence[float]) -> float:
    """Of the hypothesis that the mean is 0, two-sided; 1 for a single value."""
    if len(values) < 2:
        return 1.0
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if deviation == 0:
        return float(mean == 0)
    return 1 - t_within(abs(mean) / deviation * math.sqrt(len(values)), len(values) - 1)


def discoveries(p_values: Sequence[float], rate: float = 0.05) -> list[bool]:
    """Which of many hypotheses to reject, if at most that share of the rejected may be true
    [Benjamini and Hochberg 1995]: those up to the largest i-th smallest p <= i / m * rate.

    >>> discoveries([0.04, 0.001, 0.03, 0.5])
    [False, True, False, False]
    """
    found = sorted(p_values)
    within = (p for i, p in enumerate(found, 1) if p <= i / len(found) * rate)
    limit = max(within, default=-1.0)
    return [p <= limit for p in p_values]
