"""Work that other processes do ahead."""

import itertools
import math
import time

import pytest

from lib.ahead import ahead, workers_for


def test_results_come_in_order_and_work_is_done_ahead():
    for workers in (0, 2):
        found = ahead(math.factorial, range(7), workers)
        assert list(found) == [math.factorial(n) for n in range(7)]
    endless = ahead(math.sqrt, itertools.count(), 2)
    assert next(endless) == 0 and next(endless) == 1
    began = time.time()
    endless.close()  # does not wait for the rest
    assert time.time() - began < 30
    with pytest.raises(ValueError, match="negative"):
        list(ahead(math.factorial, [-1], 2))


def test_cpus_have_no_workers():
    assert workers_for("cpu") == 0 and 1 <= workers_for("cuda") <= 8
