"""How a run starts, stops and goes on: its folder, its metrics, its checkpoints.

Every training script keeps the same files in runs/NAME: config.json, metrics.jsonl (a line a step), samples.jsonl (a few
whole responses now and then), checkpoint/ (everything needed to go on) and model/ (the result).
"""

import contextlib
import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterable

import torch


def device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for. ValueError if it is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is '{name}'; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no usable GPU; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Run:
    """A run folder. Use as a context manager: Ctrl-C or a termination signal then lets the current step end first."""

    def __init__(self, folder: str, settings: dict, resume: bool, stage: str):
        """settings are those that the result depends on; stage names the checkpoint. With resume, an existing checkpoint
        is taken up (`self.state`); without, an existing run is an error. Nothing already there is touched before that."""
        self.folder, self.stage, self.stopped = folder, stage, False
        self.settings = json.loads(json.dumps(settings))  # as they will be read back
        self.metrics_path = os.path.join(folder, "metrics.jsonl")
        self.samples_path = os.path.join(folder, "samples.jsonl")
        self.checkpoint = os.path.join(folder, "checkpoint", f"{stage}.pt")
        self.state: dict | None = None
        if not resume and (os.path.exists(self.checkpoint) or os.path.exists(self.metrics_path)):
            raise ValueError(f"'{folder}' already holds a run: add --resume to go on with it, or name another with --out")
        if os.path.exists(self.checkpoint):
            self.state = self._load()
            check_settings(self.state["settings"], self.settings, folder)
        for path in (self.metrics_path, self.samples_path):  # what came after the checkpoint will be done again
            if os.path.exists(path):
                size = self.state["sizes"].get(os.path.basename(path), 0) if self.state else 0
                os.truncate(path, min(size, os.path.getsize(path)))
        os.makedirs(os.path.dirname(self.checkpoint), exist_ok=True)
        write_json(os.path.join(folder, "config.json"), self.settings)

    def _load(self) -> dict:
        try:
            return torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as e:
            raise ValueError(f"the checkpoint {self.checkpoint} is damaged ({type(e).__name__}): restore it, or start anew "
                             "with another --out") from None

    def __enter__(self) -> "Run":
        def stop(number, frame):
            if self.stopped:  # a second time: at once
                raise KeyboardInterrupt
            self.stopped = True

        self._handlers = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc) -> None:
        for s, handler in self._handlers.items():
            signal.signal(s, handler)
        if self.stopped and exc[0] is None:  # asked for after the last step
            raise KeyboardInterrupt

    def save(self, **state) -> None:
        """Write the checkpoint beside the old one, then put it in its place."""
        sizes = {os.path.basename(p): os.path.getsize(p) for p in (self.metrics_path, self.samples_path) if os.path.exists(p)}
        torch.save(state | {"settings": self.settings, "sizes": sizes}, self.checkpoint + ".tmp")
        os.replace(self.checkpoint + ".tmp", self.checkpoint)

    def log(self, **metrics) -> None:
        """One line of metrics.jsonl."""
        with open(self.metrics_path, "a") as f:
            f.write(json.dumps({"stage": self.stage} | {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in metrics.items()}) + "\n")

    def sample(self, step: int, records: list[dict]) -> None:
        with open(self.samples_path, "a", encoding="utf-8") as f:
            for r in records:
                f.write(json.dumps({"stage": self.stage, "step": step} | r, ensure_ascii=False) + "\n")


def write_json(path: str, content) -> None:
    """Write beside, then rename: a reader never sees half a file."""
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        json.dump(content, f, indent=1, ensure_ascii=False)
    os.replace(path + ".tmp", path)


def claim(folder: str, settings: dict) -> None:
    """Keep the settings that what is in a recipe's folder is made with; ValueError if it was begun with others."""
    path, old = os.path.join(folder, "settings.json"), {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            old = json.load(f)
        check_settings(old, {k: v for k, v in settings.items() if k in old}, folder)
    os.makedirs(folder, exist_ok=True)
    write_json(path, old | settings)


@contextlib.contextmanager
def stopwatch(folder: str, name: str):
    """Add the time spent inside to minutes.json, also when it is interrupted."""
    t0 = time.time()
    try:
        yield
    finally:
        found = minutes(folder)
        write_json(os.path.join(folder, "minutes.json"), found | {name: found.get(name, 0.0) + (time.time() - t0) / 60})


def minutes(folder: str) -> dict[str, float]:
    """What the stopwatch has shown so far, by name."""
    path = os.path.join(folder, "minutes.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def forget(folder: str, names: Iterable[str]) -> None:
    """Set stopwatches back."""
    write_json(os.path.join(folder, "minutes.json"), {k: v for k, v in minutes(folder).items() if k not in names})


def write_lines(path: str, rows: list[dict]) -> None:
    """A JSONL file, written beside and renamed."""
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(path + ".tmp", path)


def read_lines(path: str, what: str, parse: Callable[[object], object]) -> list:
    """parse(value) of each line of a JSONL file. ValueError that names the file, or the first line that is not `what`: one that is not
    JSON, or in which parse misses something (KeyError, TypeError, ValueError)."""
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.readlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"cannot read '{path}' ({e}): give the path of a JSONL file") from None
    out = []
    for number, line in enumerate(lines, 1):
        try:
            out.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}, line {number}: not {what}: mend or remove it") from None
    if not out:
        raise ValueError(f"'{path}' holds no examples")
    return out


def finished(folder: str, settings: dict) -> str | None:
    """The model folder of a run that has ended, None if it has not. ValueError if it was made with other settings."""
    model = os.path.join(folder, "model")
    if not os.path.exists(os.path.join(model, "config.json")):  # the last file that is written
        return None
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        check_settings(json.load(f), settings, folder)
    return model


def check_settings(old: dict, new: dict, folder: str) -> None:
    """ValueError that names the first setting in which a run in `folder`, read back as `old`, differs from what is asked for now."""
    if changed := _differences(old, json.loads(json.dumps(new))):
        raise ValueError(f"the run in '{folder}' was started with {changed}: use the same settings, or name another --out")


def _differences(old: dict, new: dict, prefix: str = "") -> str:
    """The first setting that differs, as 'key value, not value'; "" if none. Lengths of runs may differ."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := _differences(old[key], value, prefix + key + "."):
                return inner
        elif old.get(key) != value and prefix + key != "grpo.steps":
            return f"--{prefix}{key} {old.get(key)}, not {value}"
    return ""
