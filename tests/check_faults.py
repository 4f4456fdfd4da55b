"""Kill a run of two processes at random moments, resume it each time, and compare the end with that of a run left alone.

    python tests/check_faults.py --kills 20            # a few minutes; prints what happened and the counts

In turn one process is killed (-9), all are, and all are while a checkpoint is being written.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from conftest import ROOT

import config
import parallel
import sft
from model import GPT

SETTINGS = {"model.dim": 32, "model.n_layers": 2, "model.n_heads": 2, "model.hidden_dim": 48, "model.expert_dim": 16, "model.n_experts": 4, "sft.tokens": 20_000,
            "grpo.tasks": "arithmetic", "grpo.problems_per_step": 4, "grpo.group_size": 4, "grpo.max_new_tokens": 16, "grpo.save_every": 2, "eval.problems": 2,
            "eval.k": 1, "eval.max_new_tokens": 4, "world.tasks": "arithmetic"}


def start(base: str, out: str, steps: int) -> subprocess.Popen:
    flags = [x for k, v in (SETTINGS | {"grpo.steps": steps}).items() for x in (f"--{k}", str(v))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train_zero.py", "--init", base, "--out", out, "--resume", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(x) for x in f.read().split()]
    except FileNotFoundError:
        return []


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
    rng, steps, counts = random.Random(args.seed), 4 * args.kills, {"one": 0, "all": 0, "writing": 0}
    with tempfile.TemporaryDirectory() as work:
        cfg = config.make()
        for key, value in SETTINGS.items():
            config.set_key(cfg, key, value)
        base = sft.pretrain(cfg, os.path.join(work, "base"), False)
        straight, out = os.path.join(work, "straight"), os.path.join(work, "killed")
        t0 = time.time()
        process = start(base, straight, steps)
        _, err = process.communicate()
        assert process.returncode == 0, err
        whole = time.time() - t0
        repeated, kind = 0, None
        while sum(counts.values()) < args.kills:
            kind = ("one", "all", "writing")[sum(counts.values()) % 3]
            log, aside = os.path.join(out, "metrics.jsonl"), os.path.join(out, "checkpoint", "unfinished")
            before, touched, t0 = reached(out), changed(log), time.time()
            process = start(base, out, steps)
            early = rng.random() < 0.2  # while it starts
            moment, going = rng.uniform(0, whole / 10), None
            while process.poll() is None and time.time() - t0 < 120:
                going = going or (changed(log) != touched and time.time())
                ready = going and time.time() - going > moment and (kind != "writing" or changed(aside) > t0)
                if ready or (early and time.time() - t0 > moment):
                    break
                time.sleep(0.005)
            if process.poll() is not None:
                sys.exit(f"the run ended by itself with status {process.returncode}, before kill {sum(counts.values()) + 1}:\n{process.stderr.read()[-3000:]}")
            workers = children(process.pid)
            unfinished = changed(aside) > t0
            for pid in [rng.choice(workers)] if kind == "one" and workers else [process.pid, *workers]:
                os.kill(pid, signal.SIGKILL)
            process.wait()
            for pid in workers:  # torchrun has ended the others, or was killed before it could
                while os.path.exists(f"/proc/{pid}/exe"):
                    time.sleep(0.01)
            counts[kind] += 1
            saved, logged = reached(out)
            assert saved >= before[0] and logged - saved <= SETTINGS["grpo.save_every"], (before, saved, logged)
            if changed(log) != touched:  # it took up the checkpoint, and what had come after it was done again
                repeated += before[1] - before[0]
            print(f"kill {sum(counts.values())}: {kind}{', a checkpoint half written' if unfinished else ''}, after {time.time() - t0:.1f} s, at step {logged}; checkpoint of step {saved}",
                  flush=True)
        saved, logged = reached(out)
        process = start(base, out, steps)
        _, err = process.communicate()
        assert process.returncode == 0, err
        repeated += logged - saved
        a, b = (GPT.from_pretrained(os.path.join(folder, "model")).state_dict() for folder in (straight, out))
        with open(os.path.join(out, "metrics.jsonl")) as f:
            assert [json.loads(line)["step"] for line in f] == list(range(1, steps + 1))
        print(f"{counts}: every resume worked; {repeated} of {steps} steps were done again; "
              f"largest difference of a weight from the run left alone: {max((a[k] - b[k]).abs().max().item() for k in a):.1e}")


if __name__ == "__main__":
    main()
