import itertools
import math

import pytest

from lib import stats


def test_pass_at_k_against_all_subsets():
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
                by_hand = sum(map(any, subsets)) / len(subsets)
                assert stats.pass_at_k(n, c, k) == pytest.approx(by_hand)
    assert stats.pass_at_k(1000, 1, 500) == pytest.approx(0.5)
    for bad in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError):
            stats.pass_at_k(*bad)


def test_consensus():
    assert stats.consensus(["7", "8", "7", None]) == "7"
    assert stats.consensus(["8", "7", "7", "8"]) == "8"  # a tie: the one that appeared first
    assert stats.consensus([None, None, "3"]) == "3" and stats.consensus([None]) is None
    assert stats.consensus(["1 + 2", "1+2", "3", "3 "]) == "1 + 2"  # as it was first written


def test_standard_error_by_hand():
    by_hand = math.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 6)
    assert stats.standard_error([0.0, 1.0, 1.0]) == pytest.approx(by_hand)
    assert stats.standard_error([0.3]) == 0.0
    means, contents = [1.0, 0.5, 0.0, 0.0, 0.25], ["a", "b", "a", "b", "c"]
    mean = 0.35
    sums = [1.0 + 0.0 - 2 * mean, 0.5 + 0.0 - 2 * mean, 0.25 - mean]
    clustered = math.sqrt(sum(d * d for d in sums) * 3 / 2) / 5
    assert stats.standard_error(means, contents) == pytest.approx(clustered)
    assert stats.standard_error(means, "vwxyz") == pytest.approx(stats.standard_error(means))
    assert stats.standard_error(means, "aaaaa") == 0.0


def test_students_t_against_published_quantiles():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 29: 2.045}
    for n, t in table.items():
        assert stats.t_within(t, n) == pytest.approx(0.95, abs=1e-4)
    assert stats.t_within(63.657, 1) == pytest.approx(0.99, abs=1e-5)
    assert stats.t_within(4.604, 4) == pytest.approx(0.99, abs=1e-5)
    assert stats.t_within(0.0, 3) == 0 and stats.t_within(1e9, 3) == pytest.approx(1)


def test_intervals_and_p_values_agree():
    values = [0.2, 0.5, 0.1, 0.4]
    mean, sd = 0.3, math.sqrt(sum((v - 0.3) ** 2 for v in values) / 3)
    assert stats.half_width(values) == pytest.approx(3.182 * sd / 2, rel=1e-3)
    assert stats.half_width([3.0]) == math.inf and stats.half_width([3.0, 3.0]) == 0
    edge = [v - mean + stats.half_width(values) for v in values]  # 0 is the interval's end
    assert stats.p_value(edge) == pytest.approx(0.05, abs=1e-6)
    assert stats.p_value([5.0]) == 1 and stats.p_value([2.0, 2.0]) == 0


def test_false_discoveries_are_few():
    """Of Benjamini and Hochberg's own example (15 hypotheses) four are rejected."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert stats.discoveries(p) == [True] * 4 + [False] * 11
    assert stats.discoveries(p[::-1]) == [False] * 11 + [True] * 4
    assert stats.discoveries([0.9, 0.8]) == [False, False]
    # all of them, though each alone is above its own line but the last
    assert stats.discoveries([0.04, 0.05]) == [True, True]
