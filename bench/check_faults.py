"""Nothing that was made is ever lost: kills, two starts at once, a full disk, a read-only folder.

    python bench/check_faults.py      # a quarter of an hour on two cores; results/faults-cpu.json

Recipes with small settings are killed (-9) at random moments and resumed, with one process and with
two. A third of the kills come right before an operation on a file of an unfinished checkpoint or
model. Each run that came to its end has the weights of a run left alone, and what was finished at a
kill (models, checkpoints and logs of runs that have ended, data sets, figures) keeps its checksums.
Rewards are a function of the letters drawn, so that every step moves the weights, and every
response counts as clean.
"""

import glob
import importlib
import json
import multiprocessing
import os
import pathlib
import random
import resource
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field

import torch
from common import ROOT, parser, save
from safetensors.torch import load_file

import config
import distill
import rejection
import sft
import train_r1
import train_zero
from lib import files, report, run

SMALL = """model.dim 32 model.n_layers 2 model.n_heads 2 model.hidden_dim 48 model.expert_dim 16
 model.n_experts 4 sft.tokens 12000 sft.tokens_per_step 2000 sft.save_every 2
 grpo.steps 8 grpo.problems_per_step 4 grpo.group_size 4 grpo.max_new_tokens 16 grpo.save_every 2
 eval.problems 4 eval.k 2 eval.max_new_tokens 16 preference.examples 64 preference.epochs 1
 preference.held_out 8 r1.cold_prompts 8 r1.reject_prompts 8 r1.demonstrations 4 r1.steps 4
 r1.preference_steps 2 r1.tokens_per_step 500 distill.prompts 8 distill.general 4
 r1.pretraining 0.5 distill.rl_steps 4""".split()
SMALL = dict(zip(SMALL[::2], SMALL[1::2]))
PRELOAD = ["distill", "common", "matplotlib.pyplot", "torch._dynamo", "encodings.unicode_escape"]
WRITING = "open os.rename os.remove os.mkdir os.rmdir os.truncate".split()
# files that are whole as soon as they are there
WHOLE = "texts.jsonl teacher.jsonl accuracy.json eval.json".split()
NOBODY = 65534  # a user without rights
# what is written when the disk is full -> the function that writes it
PLACES = {
    "a checkpoint": (run.Run, "save"),
    "metrics.jsonl": (run.Run, "_append"),
    "model/": (run.Run, "export"),
    "eval.json": (report, "save_reports"),
    "texts.jsonl": (rejection.files, "write_lines"),
}


# ---------------------------------------------------------------------------- inside a process


def score_all(problems, texts, cfg) -> list[dict[str, float]]:
    """Rewards of the letters drawn."""
    totals = [float(len(text) % 3) for text in texts]
    return [{"accuracy": int(x), "format": 0.0, "language": 1.0, "total": x} for x in totals]


def kill_before_operation(number: int) -> None:
    """Die right before this operation on files of an unfinished checkpoint or model."""
    left = [number]

    def hook(event: str, args: tuple) -> None:
        if event in WRITING and "unfinished" in str(args[0]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), 9)

    sys.addaudithook(hook)


def fill_disk(place: str) -> None:
    """From the first call of the function that writes there on, no file may grow."""
    owner, name = PLACES[place]
    real = getattr(owner, name)

    def full(*args, **kw):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        return real(*args, **kw)

    setattr(owner, name, full)


def process(script: str, argv: list[str], env: dict, fault: tuple, errors) -> None:
    """Run a script with a fault; what it writes to stderr goes into the pipe `errors`."""
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors.fileno(), 2)
    kind, value = fault
    if kind == "operation":
        kill_before_operation(value)
    elif kind == "full":
        fill_disk(value)
    elif kind == "user" and os.getuid() == 0:
        os.setuid(value)
    train_zero.grpo.rw.score_all = score_all
    rejection.flaw = lambda problem, text, right: ""
    sys.argv = [f"{script}.py", *argv]
    importlib.import_module(script).main()


# -------------------------------------------------------------------------------- recipes, runs


@dataclass
class Recipe:
    """A script with small settings, and further flags."""

    script: str
    cls: type
    processes: int = 1
    flags: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.script}.py" + f" with {self.processes} processes" * (self.processes > 1)

    def command(self, out: str) -> list[str]:
        known = set(config.keys(self.cls()))
        if "--init" in self.flags:
            known.remove("tokenizer")  # that model has one
        told = [x for k, v in SMALL.items() if k in known for x in (f"--{k}", str(v))]
        return ["--out", out, *told, *self.flags]


@dataclass
class Started:
    """The processes of a start, and their pipes for errors."""

    processes: list
    pipes: list

    def wait(self, seconds: float = 600) -> list[int]:
        """The statuses; a process that goes on longer is a fault."""
        for p in self.processes:
            p.join(seconds)
            assert p.exitcode is not None, "a process goes on for ever"
        return [p.exitcode for p in self.processes]

    def errors(self) -> list[str]:
        """What the first process wrote to stderr, without its progress bars."""
        text = os.read(self.pipes[0].fileno(), 2**20).decode()
        return [line for line in text.splitlines() if line and "[" not in line]

    def alive(self) -> bool:
        return all(p.is_alive() for p in self.processes)


class Trial:
    """A run of a recipe in the folder `out`, which is stopped and resumed."""

    def __init__(self, recipe: Recipe, out: str):
        self.recipe, self.out = recipe, out
        self.finished, self.kills = {}, 0  # checksums of all that is finished

    def start(self, fault: tuple = (None, None)) -> Started:
        """Begin the run, or resume it. The fault is the first process's."""
        argv = self.recipe.command(self.out)
        argv += ["--resume"] if os.path.isdir(self.out) else []
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        count, out = self.recipe.processes, Started([], [])
        both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        both |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        for rank in range(count):
            env = both | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            reader, writer = multiprocessing.Pipe(duplex=False)
            its_fault = (None, None) if rank else fault
            told = self.recipe.script, argv, env, its_fault, writer
            out.processes.append(multiprocessing.Process(target=process, args=told))
            out.processes[-1].start()
            writer.close()
            out.pipes.append(reader)
        return out

    def finish(self) -> None:
        """Begin or resume the run, and wait for its end."""
        started = self.start()
        statuses = started.wait()
        assert not any(statuses), (self.out, statuses, started.errors())
        self.check_finished()

    def check_finished(self) -> None:
        """What was finished at the last look is as it was."""
        now = finished_files(self.out)
        changed = [path for path, found in self.finished.items() if now.get(path) != found]
        assert not changed, f"finished files have changed: {changed}"
        self.finished = now


def finished_files(out: str) -> dict[str, int]:
    """path -> checksum of all that is finished: runs that have ended, data sets, figures."""
    paths = []
    for status in glob.glob(f"{out}/**/status.json", recursive=True):
        if files.load_json(status)["finished"]:
            folder = os.path.dirname(status)
            names = ("*.json*", "model/*", "checkpoint/*/*", "checkpoint/*/.metadata")
            paths += [path for name in names for path in glob.glob(f"{folder}/{name}")]
    for path in glob.glob(f"{out}/**/*.json*", recursive=True):
        folder, name = os.path.split(path)
        if name in WHOLE or os.path.basename(folder) == "eval" or name.startswith("eval-"):
            paths.append(path)
    partial = (".tmp", ".stopped.jsonl")
    return {path: files.checksum(path) for path in paths if not path.endswith(partial)}


def models(out: str) -> dict[str, dict[str, torch.Tensor]]:
    """Where -> weights of all models of a recipe."""
    paths = glob.glob(f"{out}/**/model/*.safetensors", recursive=True)
    return {os.path.relpath(path, out): load_file(path) for path in paths}


def difference(a: str, b: str) -> float:
    """The largest difference of a weight between the models of two runs of a recipe."""
    ours, theirs = models(a), models(b)
    assert ours.keys() == theirs.keys() and ours, (ours.keys(), theirs.keys())
    pairs = [(x, theirs[name][key]) for name in ours for key, x in ours[name].items()]
    return max((x - y).abs().max().item() for x, y in pairs)


# --------------------------------------------------------------------------------------- checks


@dataclass
class Tally:
    """What the kills of a recipe did."""

    kills: int = 0
    while_writing: int = 0  # of them before an operation on an unfinished checkpoint or model
    half_written: int = 0  # of them that left an unfinished checkpoint or model
    runs_ended: int = 0
    largest_difference: float = 0.0  # of a weight, from the run left alone
    finished_files: int = 0  # at a kill, all of them unchanged at the next look; a sum over kills


def kill(trial: Trial, seconds: float, rng: random.Random, tally: Tally) -> bool:
    """Resume a run and kill it; False if it came to its end first. seconds: of a whole run."""
    writing = tally.kills % 3 == 2
    fault = ("operation", rng.randrange(1, 120)) if writing else (None, None)
    delay, started = rng.uniform(0, seconds), trial.start(fault)
    start = time.time()
    while started.alive() and (writing or time.time() - start < delay):
        time.sleep(0.002)
    # before the processes have found each other, one would wait for the other, as torchrun sees
    joined = pathlib.Path(f"{trial.out}/.lock")
    joined = joined.exists() and joined.read_text().startswith(f"{started.processes[0].pid} ")
    for p in started.processes[:1] if joined and tally.kills % 2 else started.processes:
        p.kill()
    statuses = started.wait()  # a process that has lost the other ends by itself
    trial.check_finished()
    if statuses[0] == 0:
        return False
    assert statuses[0] == -9, (trial.out, statuses, started.errors())
    left = glob.glob(f"{trial.out}/**/*unfinished", recursive=True)
    half = any(os.path.getmtime(path) > start for path in left)
    tally.kills, tally.while_writing = tally.kills + 1, tally.while_writing + writing
    tally.half_written += half
    tally.finished_files += len(trial.finished)
    what = "while it wrote" if writing else f"after {time.time() - start:.1f} s"
    what += f"{', half written' * half}, {len(trial.finished)} files finished"
    print(f"{trial.recipe}, kill {tally.kills}: {what}", flush=True)
    return True


def kills(recipe: Recipe, work: str, straight: str, count: int, seconds: float, seed) -> Tally:
    """Kill runs of a recipe, resume them to their end, compare them with the one left alone."""
    rng, tally, trial = random.Random(f"{seed} {recipe}"), Tally(), None
    while tally.kills < count or trial:
        if not trial:
            folder = f"{recipe.script}{recipe.processes}-{tally.runs_ended}"
            trial = Trial(recipe, os.path.join(work, folder))
        if tally.kills < count and kill(trial, seconds, rng, tally):
            continue
        trial.finish()
        tally.runs_ended += 1
        apart = difference(straight, trial.out)
        assert apart <= (1e-5 if recipe.processes > 1 else 0), apart
        tally.largest_difference = max(tally.largest_difference, apart)
        trial = None
    return tally


def two_starts(recipe: Recipe, work: str, count: int) -> int:
    """Start a recipe twice at once in one folder, `count` times: one runs, one is refused."""
    for number in range(count):
        trials = [Trial(recipe, f"{work}/twice-{number}") for _ in range(2)]
        both = [trial.start() for trial in trials]
        statuses = [started.wait()[0] for started in both]
        assert sorted(statuses) == [0, 2], (statuses, [started.errors() for started in both])
        winner, loser = both if statuses[0] == 0 else both[::-1]
        (told,) = loser.errors()
        assert f"process {winner.processes[0].pid} on " in told, told
    return count


def refused(trial: Trial, started: Started, reason: str, straight: str) -> str:
    """The one sentence with which a start has ended; a resume then ends as the run left alone."""
    assert started.wait()[0] == 2, started.errors()
    (told,) = started.errors()
    assert reason in told, told
    trial.check_finished()
    os.chmod(trial.out, 0o755)
    print(told, flush=True)
    return told.replace(os.path.dirname(trial.out) + os.sep, "")


def full_disks(work: str, recipes: dict[str, Recipe], straight: dict[str, str]) -> dict[str, str]:
    """place -> what a run says when the disk is full there."""
    out = {}
    for place in PLACES:
        name = "r1" if place == "texts.jsonl" else "zero"
        trial = Trial(recipes[name], f"{work}/full-{len(out)}")
        started = trial.start(("full", place))
        out[place] = refused(trial, started, "File too large", straight[name])
        trial.finish()
        assert difference(straight[name], trial.out) == 0
    return out


def read_only(work: str, recipe: Recipe, straight: str) -> str:
    """What a run says whose folder becomes read-only on the way. Root, who may write everywhere, is
    NOBODY in it."""
    trial = Trial(recipe, f"{work}/read-only")
    started = trial.start(("user", NOBODY))
    folders = [trial.out, f"{trial.out}/checkpoint"]
    while not os.path.exists(f"{trial.out}/metrics.jsonl"):
        time.sleep(0.002)
        assert started.alive(), started.errors()
    for folder in folders:
        os.chmod(folder, 0o555)
    told = refused(trial, started, "Permission denied", straight)
    for folder in folders:
        os.chmod(folder, 0o755)
    trial.finish()
    assert difference(straight, trial.out) == 0
    return told


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--kills", type=int, default=30)
    flags.add_argument("--seed", type=int, default=0)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o777)  # for NOBODY
        SMALL["tokenizer"] = f"{work}/tokenizer"  # training one takes as long as all the rest
        sft.corpus_tokenizer(config.make(train_zero.Config)).save(SMALL["tokenizer"])
        r1 = f"{work}/straight-r1"
        base = ["--init", f"{work}/straight-zero/base/model"]
        taught = ["--teacher", f"{r1}/r1/model", "--students", "llama-s"]
        recipes = {
            "zero": Recipe("train_zero", train_zero.Config),
            "r1": Recipe("train_r1", train_r1.Config, 1, base),
            "distill": Recipe("distill", distill.Config, 1, taught),
            "zero-two": Recipe("train_zero", train_zero.Config, 2),
            "r1-two": Recipe("train_r1", train_r1.Config, 2, base),
        }
        straight, seconds, tallies = {}, {}, {}
        for name, recipe in recipes.items():
            start, straight[name] = time.time(), f"{work}/straight-{name}"
            Trial(recipe, straight[name]).finish()
            seconds[name] = time.time() - start
            print(f"{recipe}: {seconds[name]:.1f} s when left alone", flush=True)
        found = models(straight["zero"])
        base, zero = found["base/model/model.safetensors"], found["model/model.safetensors"]
        assert max((x - zero[key]).abs().max() for key, x in base.items()) > 1e-3, "no weight moved"
        for i, (name, recipe) in enumerate(recipes.items()):
            count = len(range(i, args.kills, len(recipes)))
            found = kills(recipe, work, straight[name], count, seconds[name], args.seed)
            tallies[str(recipe)] = vars(found)
        short = ["--init", f"{straight['zero']}/base/model", "--grpo.steps", "1"]
        starts = two_starts(Recipe("train_zero", train_zero.Config, 1, short), work, 20)
        disks = full_disks(work, recipes, straight)
        rights = read_only(work, recipes["zero"], straight["zero"])
    content = {"seed": args.seed, "kills": args.kills, "recipes": tallies}
    content |= {"two starts at once, one of them refused": starts}
    content |= {"a full disk": disks, "a read-only folder": rights}
    print(json.dumps(content, indent=1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = f"python bench/check_faults.py --kills {args.kills} --seed {args.seed}"
    print("figures:", save(f"faults-{device}", content, command))


if __name__ == "__main__":
    os.environ |= {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    # a fork server reads the modules once, not for each of the many processes
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(PRELOAD)
    main()
