"""Progress bars that are readable in a narrow window, in a file and in a pipe."""

import sys

from tqdm import tqdm

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
        settings = {"total": total, "initial": done, "desc": name, "unit": unit, "leave": leave}
        if sys.stderr is None:  # closed
            settings["disable"] = True
        elif sys.stderr.isatty():
            settings |= {"dynamic_ncols": True}
        else:
            settings |= {"file": Lines(), "mininterval": 30, "ncols": 100, "leave": True}
        super().__init__(**settings, unit_scale=unit == "tok", bar_format=FORMAT)

    def advance(self, count: int = 1, **figures: float) -> None:
        """So much more is done, with these figures."""
        self.set_postfix(figures, refresh=False)
        self.update(count)
