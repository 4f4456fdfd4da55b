"""What a script does first. It is imported before torch, which takes seconds to load."""

import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def stop(number, frame) -> None:
    """Ctrl-C while modules are loaded or settings are read: there is nothing to save."""
    os.write(2, b"\nstopped\n")
    os._exit(130)


def is_script() -> bool:
    """Whether one of the project's files was started, rather than imported by something else."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return bool(path) and os.path.abspath(path).startswith(ROOT + os.sep)


if is_script():
    signal.signal(signal.SIGINT, stop)
