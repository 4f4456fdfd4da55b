"""Progress bars in a terminal of a few columns, and in a file."""

import io
import sys

import pytest

from lib import progress, start
from lib.progress import Progress


def steps(bar):
    for _ in range(3):
        bar.advance(reward=1.25, length=44.0, accuracy=0.5, format=0.25)


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 2


def test_a_narrow_window_keeps_the_figures_that_matter(monkeypatch):
    for width in (40, 80):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress(3, "zero", "step") as bar:
            bar.ncols, bar.dynamic_ncols = width, None
            steps(bar)
        lines = [line for line in screen.getvalue().replace("\n", "\r").split("\r") if line.strip()]
        assert max(map(len, lines)) <= width
        assert "zero: 3/3, reward=1.25, length=44" in lines[-1]


@pytest.mark.parametrize("width", [20, 80, None])
def test_a_line_above_the_bar_is_cut_to_the_window(monkeypatch, width):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Progress(3, "zero", "step") as bar:
        bar.ncols, bar.dynamic_ncols = width, None
        bar.say("大" * 300)  # each is two columns wide
        bar.say("a\nb\x1b[2J\r" + "c" * 300)
    lines = [line for line in screen.getvalue().replace("\n", "\r").split("\r") if line.strip()]
    told = [line for line in lines if "大" in line or "ccc" in line]
    most = (width or 100) - 1
    assert told == ["大" * (most // 2), ("a b [2J " + "c" * 300)[:most]]
    assert "\x1b[2J" not in screen.getvalue()


def test_a_file_gets_whole_lines(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with Progress(3, "zero", "step", 1) as bar:
        bar.say("step 0: " + "7" * 200)
        steps(bar)
    text = file.getvalue()
    assert "\r" not in text and text.endswith("\n") and text.count("\n") <= 4
    assert "step 0: " + "7" * 91 + "\n" in text
    assert "reward=1.25" in text.splitlines()[-1]


def test_a_closed_stderr_is_no_fault(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(3, "zero", "step") as bar:
        bar.say("step 0")
        steps(bar)


def test_the_total_is_never_passed(monkeypatch):
    """The last step of pretraining may hold more tokens than are missing."""
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with Progress(300_000, "base", "tok", 290_000) as bar:
        bar.advance(9_000, loss=2.5)
        bar.advance(10_000, loss=2.0)
    with Progress(300_000, "base", "tok", 310_000):
        pass
    assert "300k/300k, loss=2" in file.getvalue() and "/?" not in file.getvalue()


@pytest.mark.parametrize(("late", "busy", "told"), [(2.5, 1.4, 1), (2.5, 0.2, 0), (1.5, 1.4, 0)])
def test_steps_that_slow_down_beside_other_programs(monkeypatch, late, busy, told):
    """25 steps of a second each (the first takes a minute), then 25 of `late` seconds."""
    durations = iter([60.0] + [1.0] * 25 + [late] * 25)
    now = 0.0

    def clock():
        nonlocal now
        now += next(durations)
        return now

    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    monkeypatch.setattr(start, "busy_cores", lambda: busy)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    with Progress(51, "zero", "step") as bar:
        for _ in range(51):
            bar.advance()
    assert file.getvalue().count("--resume") == told
    warning = f"a step takes {late} times as long as at first; other programs use {busy} of"
    assert file.getvalue().count(warning) == file.getvalue().count("at first") == told
