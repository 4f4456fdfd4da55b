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
