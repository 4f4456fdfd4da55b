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
        msg = f"--log {name} needs a package that is not installed"
        raise UserError(f"{msg}: pip install {name}, or leave it out") from None


def start(folder: str, settings: dict, step: int):
    """The logger that was chosen for the run in a folder, which begins after a step; or None."""
    if chosen == "none" or not is_main_process():
        return None
    try:
        module = load(chosen)
        if chosen == "tensorboard":
            writer = module.SummaryWriter(os.path.join(folder, "tensorboard"), purge_step=step + 1)
            writer.log = lambda row, step: [writer.add_scalar(*item, step) for item in row.items()]
            writer.finish = writer.close
            return writer
        module.init(project="pocket-r1", name=folder, config=settings)
        return module  # trackio has wandb's interface
    except Exception as e:  # another program's
        msg = f"--log {chosen} does not start ({type(e).__name__}: {e})"
        raise UserError(f"{msg}: see to that, or leave it out") from None
