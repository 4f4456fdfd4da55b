"""Work that other processes do ahead."""

import itertools
import math
import time

import pytest

from lib.ahead import ahead, workers_for


def test_results_come_in_order_and_errors_with_them():
    assert list(ahead(math.factorial, range(7), 0)) == [math.factorial(n) for n in range(7)]
    found = ahead(math.factorial, [3, 4, 5, -1], 2)
    assert [next(found) for _ in range(3)] == [6, 24, 120]
    with pytest.raises(ValueError, match="negative"):
        next(found)


def test_a_caller_may_stop_in_the_middle():
    endless = ahead(math.sqrt, itertools.count(), 1)
    assert next(endless) == 0 and next(endless) == 1
    began = time.time()
    endless.close()  # does not wait for the rest
    assert time.time() - began < 30


def test_cpus_have_no_workers():
    assert workers_for("cpu") == 0 and 1 <= workers_for("cuda") <= 8
