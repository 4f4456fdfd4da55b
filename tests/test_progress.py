"""Progress bars in a terminal of a few columns, and in a file."""

import io
import sys

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


def test_a_file_gets_whole_lines(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with Progress(3, "zero", "step", 1) as bar:
        steps(bar)
    text = file.getvalue()
    assert "\r" not in text and text.endswith("\n") and text.count("\n") <= 3
    assert "reward=1.25" in text.splitlines()[-1]


def test_a_closed_stderr_is_no_fault(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(3, "zero", "step") as bar:
        steps(bar)
