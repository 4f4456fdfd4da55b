"""Metrics in the programs that people watch their runs with: --log tensorboard, wandb or trackio.

metrics.jsonl and report.html are written whatever is chosen; these get the same names and numbers,
which are TRL's (lib/metrics.py). tensorboard's files go to the run folder.
"""

import importlib
import os

from lib.distributed import is_main_process
from lib.errors import UserError

NAMES = ("none", "tensorboard", "wandb", "trackio")
chosen = "none"


def choose(name: str) -> None:
    """For all runs of this process. UserError, before any work, if the package is missing."""
    global chosen
    chosen = name
    if name != "none":
        load(name)


def load(name: str):
    """The package, or tensorboard's writer, which comes with PyTorch but needs a package too."""
    try:
        return importlib.import_module({"tensorboard": "torch.utils.tensorboard"}.get(name, name))
    except ImportError:
        told = f"--log {name} needs a package that is not installed"
        raise UserError(f"{told}: pip install {name}, or leave it out") from None


class Tensorboard:
    def __init__(self, folder: str, settings: dict, step: int):
        path = os.path.join(folder, "tensorboard")
        self.writer = load("tensorboard").SummaryWriter(path, purge_step=step + 1)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


class Online:
    """wandb, and trackio, which has its interface."""

    def __init__(self, folder: str, settings: dict, step: int):
        self.module = load(chosen)
        self.module.init(project="pocket-r1", name=folder, config=settings)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.module.log(metrics, step=step)

    def finish(self) -> None:
        self.module.finish()


def start(folder: str, settings: dict, step: int):
    """The logger that was chosen for the run in a folder, which begins after a step; or None."""
    if chosen == "none" or not is_main_process():
        return None
    try:
        return (Tensorboard if chosen == "tensorboard" else Online)(folder, settings, step)
    except Exception as e:  # another program's
        told = f"--log {chosen} does not start ({type(e).__name__}: {e})"
        raise UserError(f"{told}: see to that, or leave it out") from None
