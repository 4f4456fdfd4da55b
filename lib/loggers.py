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
    def __init__(self, folder: str, settings: dict):
        self.writer = load("tensorboard").SummaryWriter(os.path.join(folder, "tensorboard"))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


class Online:
    """wandb, and trackio, which has its interface."""

    def __init__(self, folder: str, settings: dict):
        self.module = load(chosen)
        self.module.init(project="pocket-r1", name=folder, config=settings)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.module.log(metrics, step=step)

    def finish(self) -> None:
        self.module.finish()


def start(folder: str, settings: dict):
    """The logger that was chosen for the run in a folder, or None."""
    if chosen == "none" or not is_main_process():
        return None
    return (Tensorboard if chosen == "tensorboard" else Online)(folder, settings)
