"""How a run starts, stops and goes on, on one processor or many: processes, sharded weights, run folder, metrics, checkpoints.

    torchrun --nproc-per-node 8 train_zero.py --config big      # eight GPUs, the same script

Without torchrun (and in float32) every call here that concerns other processes does nothing. With it the processes divide the
rows of a global batch among them and add up gradients, expert counts and metrics; random numbers are drawn for the whole batch
on each, so that the result does not depend on how many there are.

Weights, gradients and moments are sharded with FSDP2, block by block. Deviation from its usual way: the weights are gathered
once for a whole phase (all rollouts, or all micro-batches of an optimiser step) and gradients are summed once at its end, so
that within a phase processes never wait for each other, whatever lengths they decode or train on. That takes 2 bytes a
parameter for bf16 weights and 4 for gradients on every GPU, whatever their number; 16 bytes are sharded.

Every training script keeps the same files in runs/NAME: config.json, metrics.jsonl (a line a step), samples.jsonl (a few
whole responses now and then), checkpoint/ (everything needed to go on) and model/ (the result).
"""

import atexit
import contextlib
import datetime
import json
import math
import os
import platform
import re
import shutil
import signal
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

PATIENCE = 3  # steps in a row whose loss or gradient is not finite, before a run gives up


# ---------------------------------------------------------------------------------------------- processes


def device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for in this process. ValueError if it is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is '{name}'; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no usable GPU; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")


def dtype(cfg) -> torch.dtype:
    """Of models that are only asked, never trained."""
    return getattr(torch, cfg.precision)


@contextlib.contextmanager
def started(cfg):
    """Join the processes that torchrun has started; cfg is a config.Config. Inside, only the first one prints.

    bfloat16 needs the sharded weights' machinery too, if only for one process. An error is raised by the first process that meets one:
    the others have the same, or have lost touch with the first.
    """
    if "RANK" not in os.environ and cfg.precision == "float32":
        yield
        return
    here = device(cfg.device)
    if here.type == "cuda":
        if here.index is not None and here.index >= torch.cuda.device_count():
            raise ValueError(f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes, but this machine has {torch.cuda.device_count()} GPUs: "
                             f"use --nproc-per-node {torch.cuda.device_count()}")
        torch.cuda.set_device(here)
    ended: list[bool] = []
    if "RANK" in os.environ:
        atexit.register(leave, ended)
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    # torchrun ends all when one dies; who lives may wait long for the longest rollout, or for a large checkpoint
    dist.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo", timeout=datetime.timedelta(hours=2), **alone)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as silence:
            if not first():
                silence.enter_context(contextlib.redirect_stdout(nowhere))
                silence.enter_context(contextlib.redirect_stderr(nowhere))
            yield
            wait()  # nobody leaves before all have finished
        if "RANK" in os.environ:
            ended.append(True)
        else:
            dist.destroy_process_group()
    except Exception:
        try:
            later = dist.distributed_c10d._get_default_store().add("ended", 1) > 1
        except dist.DistNetworkError:  # without torchrun the first process keeps the count: it has ended
            later = True
        if later:
            sys.exit(2)
        raise


def leave(ended: list[bool]) -> None:
    """If all has gone well, end here: taking gloo's threads down aborts the process now and then, after all work is done."""
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def memory(cfg) -> float:
    """Bytes that this process may use."""
    if (here := device(cfg.device)).type == "cuda":
        return 0.95 * torch.cuda.mem_get_info(here)[1]
    return 0.95 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def matrix_speed(cfg) -> float:
    """Operations a second of a large matrix product on this device: the best of ten."""
    here = device(cfg.device)
    n, best = 8192 if here.type == "cuda" else 1024, 0.0
    x = torch.ones(n, n, dtype=dtype(cfg), device=here)
    for _ in range(10):
        t0 = time.perf_counter()
        (x @ x)[0, 0].item()  # waits for the device
        best = max(best, 2 * n**3 / (time.perf_counter() - t0))
    return best


def provenance(command: str) -> dict[str, str]:
    """What a figure has to say of itself: the command, the date, the machine."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            name = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), name)
    gpus = f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return {"command": command, "date": datetime.date.today().isoformat(), "hardware": f"{name}, {os.cpu_count()} cores{gpus}, torch {torch.__version__}"}


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def wait() -> None:
    """Until all processes are here."""
    total([0.0])


def total(values: list[float]) -> list[float]:
    """Each number's sum over processes."""
    if not dist.is_initialized():
        return values
    x = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(x)
    return x.tolist()


def add_up(x: Tensor) -> Tensor:
    """x, made its sum over processes."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def gather(mine: list) -> list:
    """All processes' lists, one after the other, on each of them."""
    if not dist.is_initialized():
        return mine
    lists: list = [None] * size()
    dist.all_gather_object(lists, mine)
    return [x for part in lists for x in part]


def part(count: int) -> slice:
    """This process's share of `count` things that stand in a row."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def deal(weights: list[int]) -> list[int]:
    """This process's share of things of unlike weights: their indices, in order. Neighbours in weight go to different processes."""
    return sorted(sorted(range(len(weights)), key=weights.__getitem__)[rank() :: size()])


# ---------------------------------------------------------------------------------------------- sharded weights


def shard(model: nn.Module, blocks: Iterable[nn.Module], cfg) -> nn.Module:
    """Move the model to its device and, among processes, shard it: block by block, the rest together.

    Forward and backward are in cfg.precision, while the weights that are kept and the sums over processes are float32.
    """
    here = device(cfg.device)
    blocks = list(blocks)
    for block in blocks:
        block.recompute = cfg.recompute
    if not dist.is_initialized():
        return model.to(here)
    policy = MixedPrecisionPolicy(param_dtype=dtype(cfg), reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(here.type, (size(),))
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        module.set_force_sum_reduction_for_comms(True)  # losses are divided by global counts: the sum is wanted, not the mean
        module.set_gradient_divide_factor(1.0)
    model.set_reshard_after_backward(False)
    model.set_requires_gradient_sync(False)
    return model


@contextlib.contextmanager
def gathered(*models: nn.Module | None):
    """Inside, every process holds the models' whole weights."""
    shards = [m for model in models if model is not None for m in model.modules() if isinstance(m, FSDPModule)]
    try:
        for m in shards:
            m.unshard()
        yield
    finally:
        for m in shards:
            m.reshard()


def sum_gradients(model: nn.Module, example) -> None:
    """Over processes; within gathered(), after the last backward pass. example: the smallest input the model takes.

    FSDP2 sums at the end of a backward pass. This one has no effect but that, and it is the same on all processes, of which some may
    have had more micro-batches than others, or none.
    """
    if not isinstance(model, FSDPModule):
        return
    model.eval()  # the experts do not count this token
    model.set_requires_gradient_sync(True)
    (0 * (model(example).sum() + sum(p.sum() for p in model.parameters()))).backward()
    model.set_requires_gradient_sync(False)
    model.train()


def step(model: nn.Module, optimizers: list, max_norm: float, loss: float) -> tuple[float, bool]:
    """Clip the gradient's norm and step every optimiser: (norm before, whether it was done). Not if loss or norm is not finite.

    loss is the sum over processes, so that all decide alike.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    norm = whole(norm).item()
    sound = math.isfinite(norm) and math.isfinite(loss)
    for optimizer in optimizers if sound else ():
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return norm, sound


def whole(x: Tensor) -> Tensor:
    """x itself, or what all processes' shards of it make together."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def collect(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's whole tensors, in the first process's main memory; nothing in the others'."""
    if not dist.is_initialized():
        return state
    out = {}
    for name, x in state.items():
        full = whole(x)
        if first():
            out[name] = full.cpu()
    return out


def by_matrix(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), which works on each of x's matrices [..., m, n] as a whole; x may be sharded over its first dimension."""
    if not isinstance(x, DTensor):
        return function(x)
    if x.dim() > 2:  # no matrix is cut
        return DTensor.from_local(function(x.to_local()), x.device_mesh, x.placements, shape=x.shape, stride=x.stride())
    return distribute_tensor(function(x.full_tensor()), x.device_mesh, x.placements, src_data_rank=None)


# ---------------------------------------------------------------------------------------------- a run's folder


class Run:
    """A run folder. Use as a context manager: Ctrl-C or a termination signal then lets the current step end first."""

    def __init__(self, folder: str, settings: dict, resume: bool, stage: str):
        """settings are those that the result depends on; stage names the checkpoints. With resume, the newest checkpoint
        is taken up (`self.state`, restore()); without, an existing run is an error. Nothing already there is touched before that."""
        self.folder, self.stage, self.stopped, self.bad = folder, stage, False, 0
        self.settings = json.loads(json.dumps(settings))  # as they will be read back
        self.metrics_path = os.path.join(folder, "metrics.jsonl")
        self.samples_path = os.path.join(folder, "samples.jsonl")
        self.state: dict | None = None
        found = checkpoints(folder, stage)
        if not resume and (found or os.path.exists(self.metrics_path)):
            raise ValueError(f"'{folder}' already holds a run: add --resume to go on with it, or name another with --out")
        sizes = {}
        if found:
            content = read_progress(found[-1])
            check_settings(content["settings"], self.settings, folder)
            self.state, sizes = content["state"], content["sizes"]
        wait()  # all have looked before one writes
        self.checkpoint = found[-1] if found else None
        if first():
            with self._writing():
                for path in (self.metrics_path, self.samples_path):  # what came after the checkpoint will be done again
                    if os.path.exists(path):
                        os.truncate(path, min(sizes.get(os.path.basename(path), 0), os.path.getsize(path)))
                os.makedirs(os.path.join(folder, "checkpoint"), exist_ok=True)
                write_json(os.path.join(folder, "config.json"), self.settings)
        wait()

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

    @contextlib.contextmanager
    def _writing(self):
        """Turn what may go wrong with a file into one sentence."""
        try:
            yield
        except (OSError, CheckpointException) as e:
            if isinstance(e, CheckpointException):  # of any of the processes
                e = next(iter(e.failures.values()))[0]
            while e and not getattr(e, "strerror", None):  # torch.save speaks of positions, and only the cause of the disk
                e = e.__context__
            if not os.path.exists(self.folder):
                raise ValueError(f"the run folder '{self.folder}' has vanished: put it back and go on with --resume, or start anew") from None
            kept = checkpoints(self.folder, self.stage)
            raise ValueError(f"cannot write to '{self.folder}' ({e.strerror if e else 'a file could not be finished'}): make room or mend the disk, then go on with --resume from "
                             + (f"the checkpoint {kept[-1]}, which is untouched" if kept else "the start: there is no checkpoint yet")) from None

    def restore(self, models: dict[str, nn.Module | None], optimizers: list) -> None:
        """Fill models and optimisers from the checkpoint taken up; any number of processes may have written it."""
        known = dcp.FileSystemReader(self.checkpoint).read_metadata().state_dict_metadata
        names = trained(models)
        for key, found in known.items():
            if key.startswith("moments."):
                name, _, moment = key.removeprefix("moments.").rpartition(".")
                p = names[name]
                owner = next(o for o in optimizers if any(p is q for g in o.param_groups for q in g["params"]))
                owner.state[p][moment] = torch.zeros_like(p) if found.size == p.shape else torch.zeros(found.size, dtype=found.properties.dtype, device=p.device)
        state = load(self.checkpoint, tensors(models, optimizers))
        if (own := f"rng.{rank()}") in state:
            torch.set_rng_state(state[own])

    def after_step(self, number: int, save_every: int, last: bool, models: dict[str, nn.Module | None], optimizers: list, **state) -> None:
        """Save if it is time to, if this was the last step, or if a stop was asked for; KeyboardInterrupt in that case."""
        stop = total([self.stopped])[0] > 0
        if number % save_every == 0 or last or stop:
            self.save(number, models, optimizers, **state)
        if stop:
            self.stopped = True
            raise KeyboardInterrupt

    def save(self, number: int, models: dict[str, nn.Module | None], optimizers: list, **state) -> None:
        """Write the checkpoint of step `number` beside the others, then give it its name; the newest two are kept."""
        path = os.path.join(self.folder, "checkpoint", f"{self.stage}-{number:08d}")
        if os.path.exists(path):  # nothing has happened since
            return
        aside = os.path.join(self.folder, "checkpoint", "unfinished")
        with self._writing():
            if first():
                shutil.rmtree(aside, ignore_errors=True)
                os.mkdir(aside)
            wait()
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a single process, that it is one
                dcp.save(tensors(models, optimizers), checkpoint_id=aside, no_dist=not dist.is_initialized())
            sums = dict(gather([(name, checksum(os.path.join(aside, name))) for name in sorted(os.listdir(aside))[rank() :: size()]]))
            if first():
                sizes = {os.path.basename(p): os.path.getsize(p) for p in (self.metrics_path, self.samples_path) if os.path.exists(p)}
                content = {"state": state, "shape": vars(getattr(models["model"], "gpt", models["model"]).cfg), "settings": self.settings, "sizes": sizes, "files": sums}
                write_json(os.path.join(aside, "progress.json"), content | {"digest": digest(content)})
                os.replace(aside, path)
                for old in checkpoints(self.folder, self.stage)[:-2]:
                    shutil.rmtree(old)
        wait()

    def export(self, model, tokenizer) -> str:
        """The result in the layout that transformers opens, into the run's `model` folder, which is returned."""
        path = os.path.join(self.folder, "model")
        with self._writing():
            if first():
                tokenizer.save(path)
            model.save_pretrained(path)
        return path

    def log(self, **metrics) -> None:
        """One line of metrics.jsonl. ValueError once PATIENCE steps in a row had to be skipped."""
        if torch.cuda.is_initialized():
            metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if first():
            with self._writing(), open(self.metrics_path, "a") as f:
                f.write(json.dumps({"stage": self.stage} | {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in metrics.items()}) + "\n")
        self.bad = self.bad + 1 if metrics.get("skipped_steps") else 0
        if self.bad == PATIENCE:
            raise ValueError(f"the loss or its gradient was not finite in {PATIENCE} steps in a row and the weights were left as they were: lower the learning "
                             f"rate and start with another --out; the last good checkpoint is in '{os.path.join(self.folder, 'checkpoint')}'")

    def sample(self, step: int, records: list[dict]) -> None:
        if first():
            with self._writing(), open(self.samples_path, "a", encoding="utf-8") as f:
                for r in records:
                    f.write(json.dumps({"stage": self.stage, "step": step} | r, ensure_ascii=False) + "\n")


def tensors(models: dict[str, nn.Module | None], optimizers: list) -> dict[str, Tensor]:
    """What a checkpoint holds, by name: the models' weights and buffers, the optimisers' moments, the random state of each process."""
    out = {f"rng.{rank()}": torch.get_rng_state()}
    for kind, model in models.items():
        if model is not None:
            own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}  # without the second name of tied weights
            out |= {f"{kind}.{name}": x for name, x in model.state_dict().items() if name in own}
    names = {p: name for name, p in trained(models).items()}
    for optimizer in optimizers:
        out |= {f"moments.{names[p]}.{key}": x for p, moments in optimizer.state.items() for key, x in moments.items()}
    return out


def trained(models: dict[str, nn.Module | None]) -> dict[str, nn.Parameter]:
    """The parameters that may have moments: "model"'s by their names, the other models' with theirs before it."""
    return {name if kind == "model" else f"{kind}.{name}": p for kind, model in models.items() if model is not None for name, p in model.named_parameters()}


def load(path: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill these tensors from a checkpoint; returns those it had. Only random states may be missing: there may be more processes than there were."""
    known = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    state = {k: x for k, x in state.items() if k in known or not k.startswith("rng.")}
    if missing := sorted(state.keys() - known.keys()):
        raise ValueError(f"the checkpoint {path} has no '{missing[0]}': it is of another kind of model, such as a reward model; give a policy's")
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        dcp.load(state, checkpoint_id=path, no_dist=not dist.is_initialized())
    return state


def checkpoints(folder: str, stage: str = r"\w+") -> list[str]:
    """The folders of a run's finished checkpoints, oldest first."""
    inside = os.path.join(folder, "checkpoint")
    names = os.listdir(inside) if os.path.isdir(inside) else []
    return [os.path.join(inside, name) for name in sorted(names) if re.fullmatch(stage + r"-\d{8}", name)]


def read_progress(path: str) -> dict:
    """What a checkpoint says about itself. ValueError if one of its files is not as it was written."""
    try:
        with open(os.path.join(path, "progress.json"), encoding="utf-8") as f:
            content = json.load(f)
        intact = content.pop("digest") == digest(content)
        names = sorted(content["files"]) if intact else []
        intact = intact and all(checksum(os.path.join(path, name)) == content["files"][name] for name in names[rank() :: size()])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if total([not intact])[0]:
        others = [c for c in checkpoints(os.path.dirname(os.path.dirname(path))) if c < path]
        raise ValueError(f"the checkpoint {path} is damaged: restore it, or "
                         + (f"remove it to go on from {others[-1]}" if others else "start anew with another --out"))
    return content


def checksum(path: str) -> int:
    """Of a file's bytes."""
    out = 0
    with open(path, "rb") as f:
        while block := f.read(2**22):
            out = zlib.crc32(block, out)
    return out


def digest(content) -> int:
    """A checksum of JSON content."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


@contextlib.contextmanager
def beside(path: str):
    """The name under which to write a file that then becomes `path`: a reader never sees half of it. OSError that names it and the mend."""
    try:
        yield path + ".tmp"
        os.replace(path + ".tmp", path)
    except (OSError, SafetensorError) as e:
        raise OSError(f"cannot write '{path}' ({getattr(e, 'strerror', None) or e}): see that its folder is there and the disk has room, and try again") from e


def write_json(path: str, content) -> None:
    """The first process alone does."""
    if first():
        with beside(path) as aside, open(aside, "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1, ensure_ascii=False)


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
        with contextlib.suppress(OSError):  # a full disk has been named by what ended the run
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
    """A JSONL file, written by the first process, there for all when this returns."""
    if first():
        with beside(path) as aside, open(aside, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    wait()


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


def fingerprint(content) -> int:
    """A number that tells one content from another."""
    return zlib.crc32(repr(content).encode())


def check_settings(old: dict, new: dict, folder: str) -> None:
    """ValueError that names the first setting in which a run in `folder`, read back as `old`, differs from what is asked for now."""
    if changed := _differences(old, json.loads(json.dumps(new))):
        raise ValueError(f"the run in '{folder}' was started with {changed}: use the same settings, or name another --out")


def _differences(old: dict, new: dict, prefix: str = "") -> str:
    """The first setting that differs, as 'key value, not value'; "" if none. Lengths of runs may differ, and what a machine holds at once."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := _differences(old[key], value, prefix + key + "."):
                return inner
        elif old.get(key) != value and prefix + key not in ("grpo.steps", "grpo.rows", "grpo.micro_tokens", "recompute", "eval.rows"):
            return f"--{prefix}{key} {old.get(key)}, not {value}"
    return ""
