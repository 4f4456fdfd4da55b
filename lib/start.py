"""What a script does first. It is imported before torch, which takes seconds to load, and which
reads how its threads are to wait for each other only then."""

import os
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = [ROOT, *(os.path.join(ROOT, name) for name in ("bench", "experiments", "lib", "tasks"))]
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # the user's, if one is set
# products for shapes that oneDNN has prepared (lib/products.py), in its cache and in PyTorch's;
# the usual 1024 take 200 MiB more and are no faster (results/log.md)
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
# Windows has no SIGHUP
SIGNALS = [getattr(signal, s) for s in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, s)]
told = ""  # what was chosen, for the scripts that say it


def stop(number, frame) -> None:
    """Ctrl-C while modules are loaded or settings are read: there is nothing to save."""
    os.write(2, b"\nstopped\n")
    os._exit(130)


def is_script() -> bool:
    """Whether one of the project's files was started, rather than imported by something else."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return bool(path) and os.path.dirname(os.path.abspath(path)) in FOLDERS


def busy_cores(seconds: float = 0.1) -> float:
    """How many cores are at work while this process sleeps; 0 where the system does not tell."""
    samples = []
    for pause in (seconds, 0):
        try:
            with open("/proc/stat") as f:
                samples.append([int(n) for n in f.readline().split()[1:9]])
        except OSError:
            return 0.0
        time.sleep(pause)
    spent = [after - before for before, after in zip(*samples)]  # user nice system idle iowait ...
    idle = (spent[3] + spent[4]) / sum(spent) if sum(spent) else 1.0  # a sandbox's clock may stand
    return (1 - idle) * (os.cpu_count() or 1)


def choose_waiting() -> str:
    """Threads that spin while they wait for each other take the time of other programs' threads,
    and lose their own: beside programs that use all cores a run takes three times as long as with
    threads that sleep (results/log.md). Where nothing else is at work they spin, but shortly."""
    if any(name in os.environ for name in THREADS):
        return ""
    busy = busy_cores()
    if busy < 0.5:
        os.environ["GOMP_SPINCOUNT"] = "10000"
        return ""
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return f"other programs use {busy:.1f} of {os.cpu_count()} cores: OMP_WAIT_POLICY=passive"


class Stream:
    """stdout or stderr of a long run: it goes on when nobody reads any more, or the disk that the
    text went to is full."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # what follows goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)

    def flush(self) -> None:
        """Each write has done so."""

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def outlive_readers() -> None:
    """For scripts whose work is worth more than what they print."""
    if is_script() and sys.stdout and sys.stderr:
        sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)


if is_script():
    signal.signal(signal.SIGINT, stop)
    for name in CACHES:
        os.environ.setdefault(name, "128")
    told = choose_waiting()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  it may be closed
    for stream in (sys.stdout, sys.stderr):
        if stream:  # a terminal that cannot show a letter shows "?"
            stream.reconfigure(errors="replace")
