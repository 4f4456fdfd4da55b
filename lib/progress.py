"""Progress bars that are readable in a narrow window, in a file and in a pipe."""

import itertools
import os
import statistics
import sys
import time

from tqdm import tqdm
from tqdm.utils import disp_trim

from lib import start

WINDOW = 10  # steps whose times are compared with the first ones'
# the figures stand before the bar: a narrow window cuts a line off at its right end
FORMAT = "{desc}: {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}, {rate_fmt}] {bar}"


class Lines:
    """stderr for a bar that cannot go back to the start of its line: each state is a line."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Progress(tqdm):
    """A bar for `total` units of work (None: unknown), of which some are done. In a terminal it has
    the window's width; elsewhere it prints a line every half minute and one at its end."""

    def __init__(self, total: int | None, name: str, unit: str, done=0, leave=True):
        done = done if total is None else min(done, total)
        settings = {"total": total, "initial": done, "desc": name, "unit": unit, "leave": leave}
        if sys.stderr is None:  # closed
            settings["disable"] = True
        elif sys.stderr.isatty():
            settings |= {"dynamic_ncols": True}
        else:
            settings |= {"file": Lines(), "mininterval": 30, "ncols": 100, "leave": True}
        super().__init__(**settings, unit_scale=unit == "tok", bar_format=FORMAT)
        self.ends, self.usual, self.told = [], 0.0, False  # see _watch

    def update(self, count=1):
        """So much more is done, up to the total: tqdm forgets one that is passed."""
        return super().update(count if self.total is None else min(count, self.total - self.n))

    def advance(self, count: int = 1, **figures: float) -> None:
        """So much more is done, with these figures."""
        self.set_postfix(figures, refresh=False)
        self.update(count)
        self._watch()

    def say(self, text: str) -> None:
        """A line above the bar, cut to the window's width. It may hold a model's words: what is no
        letter, such as the start of a terminal's command, becomes a space."""
        if not self.disable:
            width = (self.format_dict["ncols"] or 100) - 1
            text = "".join(c if c.isprintable() else " " for c in text[:width])
            self.write(disp_trim(text, width), sys.stderr)  # Chinese is two columns wide

    def _watch(self) -> None:
        """Say once if steps take twice as long as at first while other programs are at work: longer
        responses take more time too, and are no fault of the machine."""
        self.ends.append(time.perf_counter())  # the first step's time is not counted
        if len(self.ends) <= WINDOW:
            return
        median = statistics.median(b - a for a, b in itertools.pairwise(self.ends))
        self.ends, self.usual = self.ends[-1:], self.usual or median
        alone = int(os.environ.get("WORLD_SIZE", 1)) == 1  # else the others are processes of ours
        slower = median / self.usual
        if self.told or not alone or slower < 2 or (busy := start.busy_cores()) < 0.5:
            return
        msg = f"a step takes {slower:.1f} times as long as at first; other programs use {busy:.1f}"
        msg = f"{msg} of {os.cpu_count()} cores"
        if "GOMP_SPINCOUNT" in os.environ:  # lib/start.py looks at the machine anew
            msg = f"{msg}: stop and go on with --resume, for threads that wait without spinning"
        self.write(msg, sys.stderr)
        self.told = True
