"""What a script does first. It is imported before torch, which takes seconds to load."""

import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = [ROOT, *(os.path.join(ROOT, name) for name in ("bench", "experiments", "lib", "tasks"))]


def stop(number, frame) -> None:
    """Ctrl-C while modules are loaded or settings are read: there is nothing to save."""
    os.write(2, b"\nstopped\n")
    os._exit(130)


def is_script() -> bool:
    """Whether one of the project's files was started, rather than imported by something else."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return bool(path) and os.path.dirname(os.path.abspath(path)) in FOLDERS


if is_script():
    signal.signal(signal.SIGINT, stop)
    for stream in (sys.stdout, sys.stderr):
        if stream:  # a terminal that cannot show a letter shows "?"
            stream.reconfigure(errors="replace")
