"""Kill a run of two processes at random moments, resume it, compare the end with a run left alone.

    python bench/check_faults.py --kills 20     # a few minutes; writes results/faults-cpu.json

Alternately one process is killed (-9), both are, and both are while a checkpoint is being written;
one kill in five comes while the run starts. The reward is a function of the letters drawn, so that
every step moves the weights.
"""

import json
import multiprocessing
import os
import pathlib
import random
import socket
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
from common import ROOT, parser, save

import config
import sft
import train_zero
from lib.run import checkpoints
from model import GPT

SAVE_EVERY = 2
SETTINGS = {"model.dim": 32, "model.n_layers": 2, "model.n_heads": 2, "model.hidden_dim": 48}
SETTINGS |= {"model.expert_dim": 16, "model.n_experts": 4, "sft.tokens": 20_000}
SETTINGS |= {"world.tasks": "arithmetic", "grpo.tasks": "arithmetic", "grpo.save_every": SAVE_EVERY}
SETTINGS |= {"grpo.problems_per_step": 4, "grpo.group_size": 4, "grpo.max_new_tokens": 16}
SETTINGS |= {"eval.problems": 2, "eval.k": 1, "eval.max_new_tokens": 4}
KINDS = ("one", "all", "writing")
PRELOAD = ["train_zero", "common", "matplotlib.pyplot", "pytest"]


def score_all(problems, texts, cfg) -> list[dict[str, float]]:
    """Rewards of the letters drawn."""
    totals = [float(len(text) % 3) for text in texts]
    return [{"accuracy": int(x), "format": 0.0, "language": 1.0, "total": x} for x in totals]


def one_of_two(rank: int, port: int, argv: list[str], log: str) -> None:
    """A process of the run, as torchrun starts it; what it prints goes into the file `log`."""
    both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {k: str(v) for k, v in (both | {"RANK": rank, "LOCAL_RANK": rank}).items()}
    sys.argv, out = argv, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    train_zero.grpo.rw.score_all = score_all
    train_zero.main()


def changed(path: str) -> float:
    """When a file or folder last changed; 0 if it is not there."""
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return 0.0


@dataclass
class TwoProcesses:
    """A run of two processes in the folder `out`, from the model in the folder `base`."""

    base: str
    out: str
    steps: int

    def start(self) -> list[multiprocessing.Process]:
        """Begin the run, or resume it."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        settings = SETTINGS | {"grpo.steps": self.steps}
        flags = [x for k, v in settings.items() for x in (f"--{k}", str(v))]
        argv = ["train_zero.py", "--init", self.base, "--out", self.out, "--resume", *flags]
        args = [(rank, port, argv, f"{self.out}-log-{rank}") for rank in range(2)]
        processes = [multiprocessing.Process(target=one_of_two, args=a) for a in args]
        for process in processes:
            process.start()
        return processes

    def finish(self) -> None:
        """Begin or resume the run, and wait for its end."""
        for process in self.start():
            process.join()
            assert process.exitcode == 0, f"status {process.exitcode}"

    def path(self, *names: str) -> str:
        return os.path.join(self.out, *names)

    def progress(self) -> tuple[int, int]:
        """(the newest checkpoint's step, the last step in the log)."""
        found, path = checkpoints(self.out), pathlib.Path(self.path("metrics.jsonl"))
        lines = path.read_text().splitlines() if path.exists() else []
        steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
        return int(found[-1][-8:]) if found else 0, steps[-1] if steps else 0


@dataclass
class Tally:
    """What the kills did."""

    half_written: int = 0  # checkpoints
    starting: int = 0  # kills while the run started
    repeated: int = 0  # steps done again
    most: int = 0  # of them at once

    def again(self, steps: int) -> None:
        self.repeated, self.most = self.repeated + steps, max(self.most, steps)


def wait_for_the_moment(run, processes, kind: str, early: bool, wanted: int, delay: float) -> None:
    """Return `delay` seconds after the run has logged step `wanted` (early: after the start), and,
    if kind is "writing", while it writes a checkpoint."""
    log, unfinished = run.path("metrics.jsonl"), run.path("checkpoint", "unfinished")
    touched, start, there = changed(log), time.time(), None
    while all(p.is_alive() for p in processes):
        if not there and changed(log) != touched and run.progress()[1] >= wanted:
            there = time.time()
        ready = there and time.time() - there > delay
        if ready and (kind != "writing" or changed(unfinished) > start):
            return
        if early and time.time() - start > delay:
            return
        time.sleep(0.002)
    end = pathlib.Path(run.out + "-log-0").read_text()[-2000:]
    sys.exit(f"the run ended by itself, before the next kill: {end}")


def kill(run: TwoProcesses, number: int, rng: random.Random, seconds: tuple, tally: Tally) -> None:
    """Resume the run and kill it. seconds: of its start, and of one step."""
    kind, early = KINDS[(number - 1) % 3], rng.random() < 0.2
    log, unfinished = run.path("metrics.jsonl"), run.path("checkpoint", "unfinished")
    before, touched, start = run.progress(), changed(log), time.time()
    wanted, delay = (
        before[0] + rng.randrange(4),
        rng.uniform(0, seconds[0] if early else seconds[1]),
    )
    processes = run.start()
    wait_for_the_moment(run, processes, kind, early, wanted, delay)
    for p in [rng.choice(processes)] if kind == "one" else processes:
        p.kill()
    for p in processes:  # one that has lost the other ends by itself
        p.join(600)
        assert p.exitcode, "a process that lost the other goes on for ever"
    half = changed(unfinished) > start  # a finished one would have its final name by now
    tally.half_written, tally.starting = tally.half_written + half, tally.starting + early
    saved, logged = run.progress()
    assert saved >= before[0] and logged - saved <= SAVE_EVERY, (before, saved, logged)
    if changed(log) != touched:  # it resumed, and repeated what came after the checkpoint
        tally.again(before[1] - before[0])
    what = f"{kind}{', a checkpoint half written' * half}{', while it started' * early}"
    after = f"after {time.time() - start:.1f} s, at step {logged}; checkpoint of step {saved}"
    print(f"kill {number}: {what}, {after}", flush=True)


def compare(base: str, straight: TwoProcesses, killed: TwoProcesses) -> tuple[float, float]:
    """The largest difference of a weight between the runs' results, and from the base."""
    with open(killed.path("metrics.jsonl")) as f:
        logged = [json.loads(line)["step"] for line in f]
    assert logged == list(range(1, killed.steps + 1))
    folders = (base, straight.path("model"), killed.path("model"))
    start, a, b = (GPT.from_pretrained(folder).state_dict() for folder in folders)
    apart, moved = (max((a[k] - other[k]).abs().max().item() for k in a) for other in (b, start))
    assert apart < 1e-5 and moved > 1e-3, (apart, moved)
    return apart, moved


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--kills", type=int, default=20)
    flags.add_argument("--seed", type=int, default=0)
    args = flags.parse_args()
    rng, steps, tally = random.Random(args.seed), 3 * args.kills, Tally()
    with tempfile.TemporaryDirectory() as work:
        cfg = config.make(train_zero.Config)
        for key, value in SETTINGS.items():
            config.set_key(cfg, key, value)
        base = sft.pretrain(cfg, os.path.join(work, "base"), False)
        names = ("straight", "killed")
        straight, run = (TwoProcesses(base, os.path.join(work, n), steps) for n in names)
        start = time.time()
        straight.finish()
        begun = changed(straight.path("config.json"))
        seconds = (begun - start, (time.time() - begun) / steps)
        for number in range(1, args.kills + 1):
            kill(run, number, rng, seconds, tally)
        saved, logged = run.progress()
        run.finish()
        tally.again(logged - saved)
        apart, moved = compare(base, straight, run)
    counts = {kind: len(range(i, args.kills, 3)) for i, kind in enumerate(KINDS)}
    again = f"{tally.repeated} of {steps} steps were done again, at most {tally.most} at once"
    print(f"{counts}: every resume worked; {again}; largest difference of a weight from the")
    print(f"run left alone: {apart:.1e}, from the start: {moved:.1e}")
    content = {"processes": 2, "seed": args.seed, "kills": counts}
    content |= {"with a checkpoint half written": tally.half_written}
    content |= {"while starting": tally.starting, "steps": steps}
    content |= {"steps between checkpoints": SAVE_EVERY, "steps done again": tally.repeated}
    content |= {"most at once": tally.most, "largest difference of a weight": apart}
    content |= {"largest difference from the start": moved}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = f"python bench/check_faults.py --kills {args.kills} --seed {args.seed}"
    print("figures:", save(f"faults-{device}", content, command))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = ROOT
    # a fork server reads the modules once, not for each of the many processes
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(PRELOAD)
    main()
