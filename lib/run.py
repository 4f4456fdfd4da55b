"""A run folder: how training starts, stops, and resumes.

runs/NAME holds config.json, metrics.jsonl (a line a step), samples.jsonl (a few whole responses now
and then), checkpoint/ (everything needed to resume) and model/ (the result).
"""

import contextlib
import json
import os
import re
import shutil
import signal
import warnings
import zlib

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from tqdm import tqdm

from lib.distributed import barrier, gather, is_main_process, rank, sum_floats, world_size
from lib.files import checksum, load_json, write_json

PATIENCE = 3  # steps in a row whose loss or gradient is not finite, before a run gives up
# lengths of runs, and how much a machine holds at once: a run may resume with other values
ADJUSTABLE = {"grpo.steps", "grpo.rows", "grpo.micro_tokens", "recompute", "eval.rows"}
warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process needs none


class Run:
    """A run folder. As a context manager it lets the current step end after Ctrl-C or SIGTERM."""

    def __init__(self, folder: str, settings: dict, resume: bool, stage: str):
        """stage: the checkpoints' name; settings: what the result depends on. With resume the run
        goes on from its newest checkpoint; without, an existing run is an error."""
        self.folder, self.settings, self.stage = folder, settings, stage
        self.stopped, self.skipped = False, 0
        self.logs = [os.path.join(folder, name) for name in ("metrics.jsonl", "samples.jsonl")]
        self.metrics_path, self.samples_path = self.logs
        self.state, self.metrics, sizes = {}, {}, {}  # state: progress, saved with a checkpoint
        found = checkpoints(folder, stage)
        if not resume and (found or os.path.exists(self.metrics_path)):
            fix = "add --resume to go on with it, or name another with --out"
            raise ValueError(f"'{folder}' already holds a run: {fix}")
        self.checkpoint = found[-1] if found else None
        if found:
            content = read_progress(self.checkpoint)
            check_settings(content["settings"], self.settings, folder)
            self.state, sizes = content["state"], content["sizes"]
        barrier()  # all have looked before one writes
        if is_main_process():
            with self._file_errors():
                for path in filter(os.path.exists, self.logs):  # later steps will be done again
                    size = sizes.get(os.path.basename(path), 0)
                    os.truncate(path, min(size, os.path.getsize(path)))
                os.makedirs(os.path.join(folder, "checkpoint"), exist_ok=True)
                write_json(os.path.join(folder, "config.json"), self.settings)
        barrier()

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
        if self.stopped and exc[0] is None:  # the signal came after the last step
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _file_errors(self):
        """Report whatever goes wrong with a file in one sentence."""
        try:
            yield
        except (OSError, dcp.CheckpointException) as e:
            if isinstance(e, dcp.CheckpointException):  # of any of the processes
                e = next(iter(e.failures.values()))[0]
            while e and not getattr(e, "strerror", None):
                e = e.__context__  # torch.save speaks of positions, only its cause of the disk
            if not os.path.exists(self.folder):
                fix = "restore it and go on with --resume, or start anew"
                raise ValueError(f"the run folder '{self.folder}' has vanished: {fix}") from None
            reason = e.strerror if e else "a file could not be finished"
            found = checkpoints(self.folder, self.stage)
            source = f"the checkpoint {found[-1]}, which is untouched" if found else "the start"
            fix = f"make room or fix the disk, then go on with --resume from {source}"
            raise ValueError(f"cannot write to '{self.folder}' ({reason}): {fix}") from None

    def steps(self, batches, models, optimizers, save_every: int, name: str, show=None):
        """Yield (i, batches[i]), from where the run's checkpoint ends, and save checkpoints. A bar
        `name` shows some of the metrics that each step has logged (show: label -> metric)."""
        if self.checkpoint:
            self.restore(models, optimizers)
        start, show, n = self.state.setdefault("step", 0), show or {"loss": "loss"}, len(batches)
        with tqdm(total=n, initial=start, unit="step", desc=name) as bar:
            for i in range(start, n):
                yield i, batches[i]
                bar.update()
                bar.set_postfix({label: self.metrics.get(k, 0) for label, k in show.items()})
                self.after_step(i + 1, save_every, i + 1 == n, models, optimizers, step=i + 1)

    def restore(self, models: dict[str, nn.Module | None], optimizers: list) -> None:
        """Fill models and optimisers from the checkpoint, however many processes wrote it."""
        known = dcp.FileSystemReader(self.checkpoint).read_metadata().state_dict_metadata
        parameters = trained(models)
        owners = {p: o for o in optimizers for g in o.param_groups for p in g["params"]}
        for key, found in known.items():
            if key.startswith("moments."):
                name, _, moment = key.removeprefix("moments.").rpartition(".")
                p = parameters[name]  # not of its shape: a count of steps
                x = p if found.size == p.shape else torch.empty(found.size, device=p.device)
                owners[p].state[p][moment] = torch.zeros_like(x, dtype=found.properties.dtype)
        state = load_checkpoint(self.checkpoint, tensors(models, optimizers))
        torch.set_rng_state(state.get(f"rng.{rank()}", torch.get_rng_state()))

    def after_step(self, number, save_every, last, models, optimizers, **state) -> None:
        """Save if it is time to, at the last step, or for a stop, then KeyboardInterrupt."""
        stop = sum_floats([self.stopped])[0] > 0
        if number % save_every == 0 or last or stop:
            self.save(number, models, optimizers, **state)
        if stop:
            self.stopped = True
            raise KeyboardInterrupt

    def save(self, number: int, models: dict, optimizers: list, **state) -> None:
        """Write the checkpoint of step `number` atomically; only the newest two stay."""
        self.state |= state
        path = os.path.join(self.folder, "checkpoint", f"{self.stage}-{number:08d}")
        if os.path.exists(path):  # nothing has happened since
            return
        temporary = os.path.join(self.folder, "checkpoint", "unfinished")
        with self._file_errors():
            if is_main_process():
                shutil.rmtree(temporary, ignore_errors=True)
                os.mkdir(temporary)
            barrier()
            dcp.save(tensors(models, optimizers), checkpoint_id=temporary)
            names = sorted(os.listdir(temporary))[rank() :: world_size()]
            sums = gather([(name, checksum(os.path.join(temporary, name))) for name in names])
            if is_main_process():
                shape = vars(getattr(models["model"], "gpt", models["model"]).cfg)
                logs = filter(os.path.exists, self.logs)
                sizes = {os.path.basename(p): os.path.getsize(p) for p in logs}
                content = {"state": self.state, "shape": shape, "settings": self.settings}
                content |= {"sizes": sizes, "files": dict(sums)}
                content["digest"] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
                write_json(os.path.join(temporary, "progress.json"), content)
                os.replace(temporary, path)
                for old in checkpoints(self.folder, self.stage)[:-2]:
                    shutil.rmtree(old)
        barrier()

    def export(self, model, tokenizer) -> str:
        """Write the result as a Hugging Face folder, the run's `model` folder, and return it."""
        path = os.path.join(self.folder, "model")
        with self._file_errors():
            if is_main_process():
                tokenizer.save(path)
            model.save_pretrained(path)
        return path

    def log(self, **metrics) -> None:
        """One line of metrics.jsonl. ValueError once PATIENCE steps in a row were skipped."""
        if torch.cuda.is_initialized():
            metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.metrics = metrics
        short = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in metrics.items()}
        self._append(self.metrics_path, [short])
        self.skipped = self.skipped + 1 if metrics.get("skipped_steps") else 0
        if self.skipped == PATIENCE:
            problem = f"the loss or its gradient was not finite in {PATIENCE} steps in a row"
            fix = "lower the learning rate and start with another --out"
            raise ValueError(f"{problem}: {fix}; the last good checkpoint is in '{self.folder}'")

    def sample(self, step: int, records: list[dict]) -> None:
        self._append(self.samples_path, [{"step": step} | r for r in records])

    def _append(self, path: str, rows: list[dict]) -> None:
        if is_main_process():
            with self._file_errors(), open(path, "a", encoding="utf-8") as f:
                rows = [{"stage": self.stage} | row for row in rows]
                f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def trained(models: dict[str, nn.Module | None]) -> dict[str, nn.Parameter]:
    """Parameters that may have moments: "model"'s by name, the others' as kind.name."""
    named = {k: model.named_parameters() for k, model in models.items() if model is not None}
    return {f"{k}.{name}".removeprefix("model."): p for k, xs in named.items() for name, p in xs}


def tensors(models: dict[str, nn.Module | None], optimizers: list) -> dict[str, Tensor]:
    """What a checkpoint holds: weights (tied ones once), buffers, moments, RNG states."""
    out = {f"rng.{rank()}": torch.get_rng_state()}
    for kind, model in ((kind, m) for kind, m in models.items() if m is not None):
        names = {k for k, _ in (*model.named_parameters(), *model.named_buffers())}
        out |= {f"{kind}.{k}": x for k, x in model.state_dict().items() if k in names}
    names = {p: name for name, p in trained(models).items()}
    for p, moments in (item for optimizer in optimizers for item in optimizer.state.items()):
        out |= {f"moments.{names[p]}.{key}": x for key, x in moments.items()}
    return out


def load_checkpoint(path: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill these tensors; returns those that the checkpoint had: RNG states may be missing."""
    known = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    state = {k: x for k, x in state.items() if k in known or not k.startswith("rng.")}
    if missing := sorted(state.keys() - known.keys()):
        hint = "it is of another kind of model, such as a reward model; give a policy's"
        raise ValueError(f"the checkpoint {path} has no '{missing[0]}': {hint}")
    dcp.load(state, checkpoint_id=path)
    return state


def checkpoints(folder: str, stage: str = r"\w+") -> list[str]:
    """The folders of a run's finished checkpoints, oldest first."""
    inside = os.path.join(folder, "checkpoint")
    names = os.listdir(inside) if os.path.isdir(inside) else []
    return [os.path.join(inside, n) for n in sorted(names) if re.fullmatch(stage + r"-\d{8}", n)]


def read_progress(path: str) -> dict:
    """A checkpoint's progress.json. ValueError if one of its files is not as it was written."""
    try:
        content = load_json(os.path.join(path, "progress.json"))
        intact = content.pop("digest") == zlib.crc32(json.dumps(content, sort_keys=True).encode())
        sums = content["files"] if intact else {}
        names = sorted(sums)[rank() :: world_size()]
        intact &= all(checksum(os.path.join(path, name)) == sums[name] for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if sum_floats([not intact])[0]:
        older = [c for c in checkpoints(os.path.dirname(os.path.dirname(path))) if c < path]
        fix = f"remove it to go on from {older[-1]}" if older else "start anew with another --out"
        raise ValueError(f"the checkpoint {path} is damaged: restore it, or {fix}")
    return content


def fingerprint(content) -> int:
    """A number that tells one content from another."""
    return zlib.crc32(repr(content).encode())


def lock_settings(folder: str, settings: dict) -> None:
    """Keep the settings a folder is made with. ValueError if some differ; new ones are added."""
    path = os.path.join(folder, "settings.json")
    old = load_json(path) if os.path.exists(path) else {}
    check_settings(old, {k: v for k, v in settings.items() if k in old}, folder)
    os.makedirs(folder, exist_ok=True)
    write_json(path, old | settings)


def finished(folder: str, settings: dict) -> str | None:
    """The model folder of a run that has ended, or None. ValueError if its settings differ."""
    model = os.path.join(folder, "model")
    if done := os.path.exists(os.path.join(model, "config.json")):  # the last file written
        check_settings(load_json(os.path.join(folder, "config.json")), settings, folder)
    return model if done else None


def check_settings(old: dict, new: dict, folder: str, prefix: str = "") -> None:
    """ValueError that names the first setting in which `new` differs from the run's, `old`."""
    for key, value in json.loads(json.dumps(new)).items():  # as it would be read back
        before, name = old.get(key), prefix + key
        if isinstance(value, dict) and isinstance(before, dict):
            check_settings(before, value, folder, name + ".")
        elif before != value and name not in ADJUSTABLE:
            fix = "use the same settings, or name another --out"
            raise ValueError(f"'{folder}' was started with --{name} {before}, not {value}: {fix}")
