"""A run folder: how training starts, stops, and resumes.

runs/NAME holds config.json, metrics.jsonl (a line a step), samples.jsonl (a few whole responses now
and then), answers.jsonl (to the same problems, again and again), report.html (lib/page.py),
checkpoint/ (everything needed to resume), status.json (how far it is) and model/ (the result). One
process at a time writes in it, and what is finished is never written over.
"""

import contextlib
import gc
import json
import math
import os
import re
import shutil
import signal
import sys
import warnings
import zlib

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from lib import loggers, page, products, report, start
from lib.distributed import barrier, gather, is_main_process, rank, sum_floats, world_size
from lib.errors import UserError, shortened
from lib.files import UTF8, checksum, load_json, lock, to_json, write_json, write_lines
from lib.progress import Progress

PATIENCE = 3  # steps in a row whose loss or gradient is not finite, before a run gives up
# lengths of runs, and how much a machine holds at once: a run may resume with other values
ADJUSTABLE = {"grpo.steps", "grpo.rows", "grpo.micro_tokens", "eval.rows"}
ADJUSTABLE |= {"recompute", "sandbox", "yes", "log"}
CONTENTS = {  # what a run has the checksums of
    "rows": "other texts",
    "data": "other problems",
    "init": "another model (--init)",
    "base": "another base (--init)",
    "zero": "another Zero (--zero)",
    "teacher": "another teacher (--teacher)",
    "reference": "another reference model (--grpo.reference)",
}
# what earlier versions did without a setting for it
UNSAID = {"template": "auto", "template_args": {}, "lora": {"rank": 0}, "sync_every": 1}
UNSAID |= {"botched": 0.0, "own": 0.0}
ONCE_ONE = {"logic": "minor"}  # what an earlier version had as one setting
warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process needs none


class Run:
    """A run folder. As a context manager it lets the current step end after Ctrl-C or SIGTERM."""

    def __init__(self, folder: str, settings: dict, resume: bool, stage: str):
        """stage: the checkpoints' name; settings: what the result depends on. With resume the run
        goes on from its newest checkpoint; without, an existing run is an error. An empty folder
        begins a run either way: a recipe is resumed as a whole, with stages yet to begin."""
        gc.collect()  # sharding keeps an earlier stage's model in reference cycles
        self.folder, self.settings, self.stage = folder, settings, stage
        self.stopped, self.skipped, self.logger = 0, 0, None  # stopped: the signal that did
        names = ("metrics.jsonl", "samples.jsonl", "answers.jsonl")
        self.logs = [os.path.join(folder, name) for name in names]
        self.metrics_path, self.samples_path, self.answers_path = self.logs
        self.state, self.metrics, sizes = {}, {}, {}  # state: progress, saved with a checkpoint
        self.shape: dict = {}  # of the checkpoint's model
        if is_main_process():
            lock(folder)
        barrier()  # who may not write says so before another error is met
        self.status = check_folder(folder, resume, stage) or {}
        if not self.status and os.path.exists(os.path.join(folder, "model", "config.json")):
            raise _no_run(folder)  # all that is left of one: a new run would replace it
        found = checkpoints(folder, stage)
        if self.status and not found:
            print(f"'{folder}' was stopped before its first checkpoint: it begins again")
        self.checkpoint = found[-1] if found else None
        if found:
            content = read_progress(self.checkpoint)
            check_settings(content["settings"], self.settings, folder)
            self.state, sizes = content["state"], content["sizes"]
            self.shape = content["shape"]
        barrier()  # all have looked before one writes
        self.logger = loggers.start(folder, settings, self.state.get("step", 0))
        if is_main_process():
            with self._file_errors():
                for path in filter(os.path.exists, self.logs):  # later steps will be done again
                    size = sizes.get(os.path.basename(path), 0)
                    os.truncate(path, min(size, os.path.getsize(path)))
                os.makedirs(os.path.join(folder, "checkpoint"), exist_ok=True)
                write_json(os.path.join(folder, "config.json"), self.settings)
        about = report.provenance(report.command())
        # on other hardware it may be the slow one
        if self.status.get("hardware") == about.get("hardware"):
            products.keep(self.status.get("products"))
        about["products"] = products.library()
        self.set_status(stage=stage, saved=self.state.get("step", 0), finished=False, **about)
        barrier()

    def __enter__(self) -> "Run":
        def stop(number, frame):
            # a scheduler's signal comes twice: to each process, and passed on by torchrun; which
            # makes a SIGTERM of a second Ctrl-C
            if self.stopped and signal.SIGINT not in (number, self.stopped):
                return
            if self.stopped:
                msg = b"\nstopped at once; --resume goes on from the last checkpoint, if any\n"
                os.write(2, msg)
                os._exit(130)
            self.stopped = number
            if is_main_process():
                msg = b"\nstopping: this step is finished and saved first (Ctrl-C again: at once)\n"
                os.write(2, msg)

        self._handlers = {s: signal.signal(s, stop) for s in start.SIGNALS}
        return self

    def __exit__(self, *exc) -> None:
        for s, handler in self._handlers.items():
            signal.signal(s, handler)
        if self.logger:
            with contextlib.suppress(Exception):  # another program's
                self.logger.finish()
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
                raise UserError(f"the run folder '{self.folder}' has vanished: {fix}") from None
            for name in ("checkpoint/unfinished", "model-unfinished"):  # on a full disk
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
            reason = e.strerror if e else "a file could not be finished"
            found = checkpoints(self.folder, self.stage)
            name = os.path.basename(found[-1]) if found else None
            source = f"the checkpoint {name}, which is untouched" if found else "the start"
            fix = f"make room there or allow writing, then go on with --resume from {source}"
            raise UserError(f"cannot write to '{self.folder}' ({reason}): {fix}") from None

    def steps(self, batches, models, optimizers, save_every: int, name: str, show=None):
        """Yield (i, batches[i]), from where the run's checkpoint ends, and save checkpoints. A bar
        `name` shows some of the metrics that each step has logged (show: label -> metric)."""
        if self.checkpoint:
            self.restore(models, optimizers)
        start, show, n = self.state.setdefault("step", 0), show or {"loss": "loss"}, len(batches)
        if start > n:
            fix = f"resume with {start} steps or more, or name another --out"
            raise UserError(f"'{self.folder}' is at step {start}, beyond {n}: {fix}")
        self.set_status(steps=n)
        with Progress(n, name, "step", start) as bar:
            self.bar = bar
            for i in range(start, n):
                yield i, batches[i]
                bar.advance(
                    **{label: self.metrics[k] for label, k in show.items() if k in self.metrics}
                )
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
                    os.replace(old, temporary)  # half of one would pass for a checkpoint
                    shutil.rmtree(temporary)
            self.set_status(saved=number)
        barrier()

    def export(self, model, tokenizer) -> str:
        """Write the result as a Hugging Face folder, the run's `model` folder, and return it. It is
        written under another name first: an earlier result of a shorter run stays until then."""
        path, before = (os.path.join(self.folder, name) for name in ("model", "model-before"))
        temporary = os.path.join(self.folder, "model-unfinished")
        with self._file_errors():
            if is_main_process():
                shutil.rmtree(temporary, ignore_errors=True)
                tokenizer.save(temporary)
            barrier()
            model.save_pretrained(temporary)
            barrier()
            if is_main_process():
                shutil.rmtree(before, ignore_errors=True)
                if os.path.exists(path):
                    os.replace(path, before)
                os.replace(temporary, path)
                shutil.rmtree(before, ignore_errors=True)
            self.set_status(finished=True)
        barrier()
        return path

    def set_status(self, **status) -> None:
        """Write what a resume has to know of the run besides its checkpoints, and the run's page,
        which shows the rest of it."""
        self.status |= status
        write_json(os.path.join(self.folder, "status.json"), self.status)
        if is_main_process():
            page.write(self.folder)

    def log(self, **metrics) -> None:
        """One line of metrics.jsonl. UserError once PATIENCE steps in a row were skipped."""
        if torch.cuda.is_initialized():
            metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.metrics = metrics
        short = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in metrics.items()}
        self._append(self.metrics_path, [short])
        if self.logger:
            numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
            try:
                self.logger.log(numbers, step=numbers.pop("step"))
            except Exception as e:  # another program's, which does not end the training
                print(f"--log: {type(e).__name__}: {e}; going on without it", flush=True)
                self.logger = None
        # weights that are not finite say rubbish, which is all alike, and are not updated
        lost = metrics.get("skipped_steps") or not math.isfinite(metrics.get("entropy", 0.0))
        self.skipped = self.skipped + 1 if lost else 0
        if self.skipped == PATIENCE:
            problem = f"loss, gradient or entropy was not finite in {PATIENCE} steps in a row"
            fix = "lower the learning rate and start with another --out"
            found = checkpoints(self.folder, self.stage)
            good = (
                "last good" if metrics.get("skipped_steps") else "last"
            )  # others hold such weights
            kept = f"; the {good} checkpoint is {found[-1]}" if found else ""
            raise UserError(f"{problem}: {fix}{kept}")

    def sample(self, step: int, records: list[dict]) -> None:
        self._append(self.samples_path, [{"step": step} | r for r in records])

    def answer(self, step: int, records: list[dict]) -> None:
        """What the model says to the fixed problems after so many steps; to the first of them also
        above the bar."""
        self._append(self.answers_path, [{"step": step} | r for r in records])
        first = records[0]
        if not step:
            self.bar.say(f"asked every ten steps: {first['prompt']}")
        verdict = "right" if first["correct"] else "wrong"
        self.bar.say(f"step {step}, {verdict}: {first['response']}")

    def _append(self, path: str, rows: list[dict]) -> None:
        if is_main_process():
            with self._file_errors(), open(path, "a", **UTF8) as f:
                rows = [{"stage": self.stage} | row for row in rows]
                f.writelines(to_json(row) + "\n" for row in rows)


@contextlib.contextmanager
def resumable(out: str, flags: str = "--resume"):
    """Inside, Ctrl-C ends the script with a sentence that says how to go on, and status 130. Where
    no Run is at work, whatever has been finished is in files, and nothing is waited for."""

    def stop(number, frame):
        signal.signal(signal.SIGINT, start.stop)  # again: at once
        if is_main_process():
            os.write(2, b"\nstopping\n")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, start.stop)
        msg = f"stopped; the work so far is in '{out}': go on with the same command and {flags}"
        print(msg, file=sys.stderr)
        sys.exit(130)
    signal.signal(signal.SIGINT, before)


class Journal:
    """The responses of an evaluation so far, in a JSONL file: the settings, then a line a batch."""

    def __init__(self, result: str, settings: dict, resume: bool | None = None):
        """result: the file that the evaluation will write. resume: whether it was stopped; None: if
        it was, and with these settings, it goes on."""
        self.path, self.batches = os.path.splitext(result)[0] + ".stopped.jsonl", {}
        self.lock = f".{os.path.basename(self.path)}.lock"
        barrier()  # all look before one writes
        there, settings = os.path.exists(self.path), json.loads(to_json(settings))
        if there and is_main_process():  # one that is at work is not called stopped
            lock(os.path.dirname(self.path) or ".", self.lock)
        barrier()
        if resume not in (None, there):
            msg = f"there is no stopped evaluation '{self.path}': start without --resume"
            found = f"'{self.path}' holds a stopped evaluation: add --resume to go on, or remove it"
            raise UserError(msg if resume else found)
        if there:
            before, batches = self._read()
            if resume:
                check_settings(before, settings, self.path)
            self.batches = batches if resume or before == settings else {}
        if is_main_process():
            lock(os.path.dirname(self.path) or ".", self.lock)
        rows = [{"name": name, "samples": samples} for name, samples in self.batches.items()]
        write_lines(self.path, [{"settings": settings}, *rows])

    def _read(self) -> tuple[dict, dict[str, list[tuple]]]:
        """The settings, and the samples of each batch."""
        try:
            with open(self.path, encoding="utf-8") as f:
                lines = [line for line in f if line.endswith("\n")]  # the last may be half written
            first, *rest = map(json.loads, lines)
            batches = {batch["name"]: [tuple(s) for s in batch["samples"]] for batch in rest}
            return dict(first["settings"]), batches
        except (ValueError, KeyError, TypeError):
            fix = "remove it and start without --resume"
            raise UserError(f"'{self.path}' is damaged: {fix}") from None

    def add(self, name: str, samples: list[tuple]) -> None:
        if is_main_process():
            with open(self.path, "a", **UTF8) as f:
                f.write(to_json({"name": name, "samples": samples}) + "\n")

    def remove(self) -> None:
        """The result is written."""
        if is_main_process():
            os.remove(self.path)
            with contextlib.suppress(OSError):
                os.remove(os.path.join(os.path.dirname(self.path), self.lock))


def free_name(resume: bool) -> str:
    """eval.json, or the first of eval-2.json, eval-3.json, ... that is free (to be resumed: the
    first that was stopped). UserError if there is none."""
    for stem in ("eval", *(f"eval-{n}" for n in range(2, 1000))):
        stopped = os.path.exists(f"{stem}.stopped.jsonl")
        if stopped or not (resume or os.path.exists(f"{stem}.json")):
            return f"{stem}.json"
    raise UserError("there is no stopped evaluation here: start without --resume, or name --out")


def trained(models: dict[str, nn.Module | None]) -> dict[str, nn.Parameter]:
    """Parameters that may have moments: "model"'s by name, the others' as kind.name."""
    named = {k: model.named_parameters() for k, model in models.items() if model is not None}
    return {f"{k}.{name}".removeprefix("model."): p for k, xs in named.items() for name, p in xs}


def tensors(models: dict[str, nn.Module | None], optimizers: list) -> dict[str, Tensor]:
    """What a checkpoint holds: weights (tied ones once), buffers, moments, RNG states. Of a model
    with adapters none of the weights that stay as they are in the base's folder."""
    out = {f"rng.{rank()}": torch.get_rng_state()}
    for kind, model in ((kind, m) for kind, m in models.items() if m is not None):
        weights = dict(model.named_parameters())
        moving = [k for k, p in weights.items() if p.requires_grad]
        names = {*(moving or weights), *(k for k, _ in model.named_buffers())}
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
        raise UserError(f"the checkpoint {path} has no '{missing[0]}': {hint}")
    dcp.load(state, checkpoint_id=path)
    return state


def checkpoints(folder: str, stage: str = r"\w+") -> list[str]:
    """The folders of a run's finished checkpoints, oldest first."""
    inside = os.path.join(folder, "checkpoint")
    names = os.listdir(inside) if os.path.isdir(inside) else []
    return [os.path.join(inside, n) for n in sorted(names) if re.fullmatch(stage + r"-\d{8}", n)]


def read_progress(path: str) -> dict:
    """A checkpoint's progress.json. UserError if one of its files is not as it was written."""
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
        raise UserError(f"the checkpoint {path} is damaged: restore it, or {fix}")
    return content


def fingerprint(content) -> int:
    """A number that tells one content from another."""
    return zlib.crc32(repr(content).encode())


def lock_settings(folder: str, settings: dict) -> None:
    """Keep the settings a folder is made with. UserError if some differ; new ones are added."""
    path = os.path.join(folder, "settings.json")
    old = read_settings(path) if os.path.exists(path) else {}
    check_settings(old, {k: v for k, v in settings.items() if k in old}, folder)
    os.makedirs(folder, exist_ok=True)
    write_json(path, old | settings)


def run_status(folder: str) -> dict | None:
    """{stage, saved: the step of the last checkpoint, finished}; None if there is no run here. Runs
    of earlier versions have no status.json: then it is what their files tell."""
    path, metrics = (os.path.join(folder, name) for name in ("status.json", "metrics.jsonl"))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        status = load_json(path)
        more = {key: status[key] for key in ("hardware", "products") if key in status}
        return {key: status[key] for key in ("stage", "saved", "finished")} | more
    found = checkpoints(folder)
    if not found and not os.path.exists(metrics):
        return None
    stage, saved = None, 0
    if found:
        stage, _, saved = os.path.basename(found[-1]).rpartition("-")
    else:
        with open(metrics, encoding="utf-8") as f:
            for line in f:
                with contextlib.suppress(ValueError, KeyError, TypeError):  # torn by a crash
                    row = json.loads(line)
                    stage, saved = row["stage"], row["step"]
    done = os.path.exists(os.path.join(folder, "model", "config.json"))
    return {"stage": stage, "saved": int(saved), "finished": done}


def check_stage(folder: str, status: dict | None, stage: str) -> None:
    """UserError if a folder holds a run of another stage: it is not written over."""
    if status and status["stage"] not in (None, stage):
        msg = f"'{folder}' holds a run of the stage '{status['stage']}', not '{stage}'"
        raise UserError(f"{msg}: name another with --out")


def _no_run(folder: str) -> UserError:
    msg = f"'{folder}' holds a model or something else's settings, and no run"
    return UserError(f"{msg}: name another with --out")


def check_folder(folder: str, resume: bool, stage: str) -> dict | None:
    """The status of the run in a folder. UserError if no run of the stage may go on there."""
    status = run_status(folder)
    check_stage(folder, status, stage)
    # its folder of checkpoints is made first: a run may have been stopped while it began
    begun = os.path.isdir(os.path.join(folder, "checkpoint"))
    if not status and not begun and os.path.exists(os.path.join(folder, "config.json")):
        raise _no_run(folder)
    if status and not status["finished"] and not resume and is_main_process():
        lock(folder)  # one that is at work is named, and not called stopped
    if status and not resume:
        what = "a finished run" if status["finished"] else "a run"
        fix = "add --resume to go on with it, or name another with --out"
        raise UserError(f"'{folder}' already holds {what}: {fix}")
    if status and status["saved"] and not checkpoints(folder, stage):
        msg = f"'{folder}' has lost its checkpoint of step {status['saved']}"
        raise UserError(f"{msg}: restore {folder}/checkpoint, or start with another --out")
    return status


def finished(folder: str, settings: dict, stage: str, steps: int = 0) -> str | None:
    """The model folder of a run that has ended (after `steps` at least), or None. UserError if it
    is another stage's, or its settings differ."""
    model, status = os.path.join(folder, "model"), run_status(folder)
    check_stage(folder, status, stage)
    there = status and os.path.exists(os.path.join(model, "config.json"))
    if not there or not status["finished"] or status["saved"] < steps:
        return None
    check_settings(read_settings(os.path.join(folder, "config.json")), settings, folder)
    return model


def read_settings(path: str) -> dict:
    """A run's config.json or settings.json. UserError if it is missing or damaged."""
    try:
        return dict(load_json(path))
    except (OSError, ValueError, TypeError):
        msg = f"'{path}' is missing or damaged"
        raise UserError(f"{msg}: restore it from a copy, or start with another --out") from None


def check_settings(old: dict, new: dict, folder: str, prefix: str = "") -> None:
    """UserError that names the first setting in which `new` differs from the run's, `old`; one that
    a later version has added counts as unchanged."""
    for key, value in json.loads(json.dumps(new)).items():  # as it would be read back
        before = old.get(key, UNSAID.get(key, old.get(ONCE_ONE.get(key), value)))
        name = prefix + key
        if isinstance(value, dict) and isinstance(before, dict) and key != "template_args":
            check_settings(before, value, folder, name + ".")
        elif before != value and name not in ADJUSTABLE:
            fix = "use the same settings, or name another --out"
            msg = f"'{folder}' was started with --{name} {before}, not {value}"
            if name in CONTENTS:  # of which the number is a checksum
                msg = f"'{folder}' was started with {CONTENTS[name]}"
                fix = "use the same, or name another --out"
            raise UserError(f"{shortened(msg, 140)}: {fix}")
