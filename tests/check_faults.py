"""Kill a run of two processes at random moments, resume it each time, and compare the end with that of a run left alone.

    python tests/check_faults.py --kills 20            # a few minutes; prints what happened, and writes results/faults-cpu.json

In turn one process is killed (-9), both are, and both are while a checkpoint is being written; one kill in five comes while the run
starts. The reward is a function of the letters drawn, so that every step moves the weights.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import socket
import sys
import tempfile
import time

import torch
from conftest import ROOT

import config
import experiments
import parallel
import sft
import train_zero
from model import GPT

SETTINGS = {"model.dim": 32, "model.n_layers": 2, "model.n_heads": 2, "model.hidden_dim": 48, "model.expert_dim": 16, "model.n_experts": 4, "sft.tokens": 20_000,
            "grpo.tasks": "arithmetic", "grpo.problems_per_step": 4, "grpo.group_size": 4, "grpo.max_new_tokens": 16, "grpo.save_every": 2, "eval.problems": 2,
            "eval.k": 1, "eval.max_new_tokens": 4, "world.tasks": "arithmetic"}


def one_of_two(rank: int, port: int, argv: list[str], said: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    sys.argv, out = argv, os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    train_zero.grpo.rw.score_all = lambda problems, texts, cfg: [{"accuracy": len(t) % 3, "format": 0.0, "language": 1.0, "total": float(len(t) % 3)} for t in texts]
    train_zero.main()


def start(base: str, out: str, steps: int) -> list[multiprocessing.Process]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    flags = [x for k, v in (SETTINGS | {"grpo.steps": steps}).items() for x in (f"--{k}", str(v))]
    argv = ["train_zero.py", "--init", base, "--out", out, "--resume", *flags]
    processes = [multiprocessing.Process(target=one_of_two, args=(rank, port, argv, f"{out}-said-{rank}")) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def end(processes: list[multiprocessing.Process]) -> None:
    """Wait for a run that nobody disturbs."""
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"status {process.exitcode}"


def reached(out: str) -> tuple[int, int]:
    """(the newest checkpoint's step, the last step in the log)."""
    found, path = parallel.checkpoints(out), pathlib.Path(out, "metrics.jsonl")
    lines = path.read_text().splitlines() if path.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return int(found[-1][-8:]) if found else 0, steps[-1] if steps else 0


def changed(path: str) -> float:
    """When it last was; 0 if it is not there."""
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, steps, counts = random.Random(args.seed), 3 * args.kills, {"one": 0, "all": 0, "writing": 0}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as work:
        cfg = config.make()
        for key, value in SETTINGS.items():
            config.set_key(cfg, key, value)
        base = sft.pretrain(cfg, os.path.join(work, "base"), False)
        straight, out = os.path.join(work, "straight"), os.path.join(work, "killed")
        t0 = time.time()
        end(start(base, straight, steps))
        begun = changed(os.path.join(straight, "config.json"))
        starting, running = begun - t0, time.time() - begun
        repeated, most, halves, early_kills = 0, 0, 0, 0
        while sum(counts.values()) < args.kills:
            kind = ("one", "all", "writing")[sum(counts.values()) % 3]
            log, aside = os.path.join(out, "metrics.jsonl"), os.path.join(out, "checkpoint", "unfinished")
            before, touched, t0 = reached(out), changed(log), time.time()
            processes = start(base, out, steps)
            early = rng.random() < 0.2
            wanted, moment, there = before[0] + rng.randrange(4), rng.uniform(0, starting if early else running / steps), None
            while all(p.is_alive() for p in processes):
                there = there or (changed(log) != touched and reached(out)[1] >= wanted and time.time())
                ready = there and time.time() - there > moment and (kind != "writing" or changed(aside) > t0)
                if ready or (early and time.time() - t0 > moment):
                    break
                time.sleep(0.002)
            else:
                sys.exit(f"the run ended by itself, before kill {sum(counts.values()) + 1}: {pathlib.Path(out + '-said-0').read_text()[-2000:]}")
            for p in [rng.choice(processes)] if kind == "one" else processes:
                p.kill()
            for p in processes:  # who has lost the other ends by itself
                p.join(600)
                assert p.exitcode, "a process that lost the other goes on for ever"
            counts[kind] += 1
            half = changed(aside) > t0  # a finished one would have its own name by now
            halves, early_kills = halves + half, early_kills + early
            saved, logged = reached(out)
            assert saved >= before[0] and logged - saved <= SETTINGS["grpo.save_every"], (before, saved, logged)
            if changed(log) != touched:  # it took up the checkpoint, and what had come after it was done again
                repeated, most = repeated + before[1] - before[0], max(most, before[1] - before[0])
            print(f"kill {sum(counts.values())}: {kind}{', a checkpoint half written' if half else ''}{', while it started' if early else ''}, after {time.time() - t0:.1f} s, at step {logged}; checkpoint of step {saved}",
                  flush=True)
        saved, logged = reached(out)
        end(start(base, out, steps))
        repeated, most = repeated + logged - saved, max(most, logged - saved)
        untrained, a, b = (GPT.from_pretrained(folder).state_dict() for folder in (base, os.path.join(straight, "model"), os.path.join(out, "model")))
        with open(os.path.join(out, "metrics.jsonl")) as f:
            assert [json.loads(line)["step"] for line in f] == list(range(1, steps + 1))
        furthest, moved = (max((a[k] - other[k]).abs().max().item() for k in a) for other in (b, untrained))
        assert furthest < 1e-5 and moved > 1e-3, (furthest, moved)
        print(f"{counts}: every resume worked; {repeated} of {steps} steps were done again, at most {most} at once; "
              f"largest difference of a weight from the run left alone: {furthest:.1e}, from the start: {moved:.1e}")
    content = {"processes": 2, "seed": args.seed, "kills": counts, "with a checkpoint half written": halves, "while starting": early_kills, "steps": steps,
               "steps between checkpoints": SETTINGS["grpo.save_every"], "steps done again": repeated, "most at once": most, "largest difference of a weight": furthest,
               "largest difference from the start": moved}
    print("figures:", experiments.save(f"faults-{device}", content, f"python tests/check_faults.py --kills {args.kills} --seed {args.seed}"))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = ROOT
    multiprocessing.set_start_method("forkserver")  # which reads the modules once, not for each of the many processes
    multiprocessing.set_forkserver_preload(["train_zero", "experiments", "matplotlib.pyplot", "pytest"])
    main()
