"""Work done ahead by other processes, so that a GPU does not wait for texts to be made."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from lib import distributed, start


def workers_for(device_type: str) -> int:
    """Processes of each rank: on CPUs none, as they would take the training's cores."""
    if device_type == "cpu":
        return 0
    return max(1, min(8, (os.cpu_count() or 1) // distributed.world_size() - 1))


def _obey() -> None:
    """Signals are the main process's business; where it ends, so does a worker."""
    for number in start.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def ahead(function: Callable, items: Iterable, workers: int) -> Iterator:
    """function(item) of each item, in order. With workers, that many items are computed ahead, in
    processes of their own; function and items have to be such that they can be pickled."""
    if not workers:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pool, waiting = ProcessPoolExecutor(workers, context, initializer=_obey), deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the caller may have had enough
        pool.shutdown(cancel_futures=True)
