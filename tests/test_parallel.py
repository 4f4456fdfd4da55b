"""What recipes keep beside their stages; the run folder itself is tested with the recipe, in test_train_zero.py."""

import os
import signal

import pytest

import parallel


def test_a_folder_is_claimed_by_its_settings(tmp_path):
    out = str(tmp_path / "r")
    parallel.claim(out, {"seed": 0, "world": {"level": 1}})
    parallel.claim(out, {"seed": 0, "world": {"level": 1}, "rows": 5})  # what comes later is added
    parallel.claim(out, {"seed": 0})
    with pytest.raises(ValueError, match=r"--world\.level 1, not 2"):
        parallel.claim(out, {"seed": 0, "world": {"level": 2}})
    with pytest.raises(ValueError, match="--rows 5, not 6"):
        parallel.claim(out, {"rows": 6})


def test_stopwatches_add_up_and_are_set_back(tmp_path, monkeypatch):
    out, clock = str(tmp_path), iter((0, 60, 100, 220, 300, 330))
    monkeypatch.setattr(parallel.time, "time", lambda: next(clock))
    with parallel.stopwatch(out, "a"):
        pass
    with pytest.raises(KeyboardInterrupt), parallel.stopwatch(out, "a"):
        raise KeyboardInterrupt
    with parallel.stopwatch(out, "b"):
        pass
    assert parallel.minutes(out) == {"a": 3.0, "b": 0.5}
    parallel.forget(out, ["a"])
    assert parallel.minutes(out) == {"b": 0.5}


def test_a_stop_after_the_last_step_is_not_forgotten(tmp_path):
    with pytest.raises(KeyboardInterrupt), parallel.Run(str(tmp_path), {}, False, "x"):
        os.kill(os.getpid(), signal.SIGINT)
    with parallel.Run(str(tmp_path), {}, True, "x"):
        pass
