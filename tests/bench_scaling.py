"""How the time of a GRPO step grows with what it is asked for: response length, group size, problems, experts, processes.

    python tests/bench_scaling.py

Keep the machine idle meanwhile (a few minutes). A new laptop model that never ends a response; everything but the quantity that varies
stays at 8 problems, 16 responses each, 64 new tokens. Medians of three, with the exponent of growth between the last two points
(1: twice the work, twice the time). Figures and a picture into results/scaling-cpu.json and .png (scaling-gpu on a GPU).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys

import torch
from bench_speed import PROMPT, build, parts  # which finds the project's modules

import config
import experiments
import grpo
import parallel
from model import ModelConfig

SWEEPS = {"response length": (32, 64, 128, 256), "group size": (4, 8, 16, 32), "problems": (4, 8, 16, 32), "experts": (4, 8, 16, 32), "processes": (1, 2)}
ROUNDS = 3


def measure(what: str, value: int) -> dict[str, float]:
    """Median seconds of rollout and update with one quantity changed."""
    asked = {"response length": 64, "group size": 16, "problems": 8, "experts": 8} | {what: value}
    cfg = config.make("tiny")
    cfg.grpo = grpo.GRPOConfig(group_size=asked["group size"], minibatches=1, max_new_tokens=asked["response length"])
    shape = ModelConfig(n_experts=asked["experts"])
    model = build(shape)
    model = parallel.shard(model, model.blocks(), cfg)
    optimizer, times = grpo.make_optimizer(model, cfg.grpo), []
    for number in range(ROUNDS + 1):  # the first is slow
        prompts = torch.randint(3, 1500, (asked["problems"], PROMPT), generator=torch.Generator().manual_seed(number)).tolist()
        times.append(parts(model, optimizer, prompts, cfg.grpo, number)[:2])
    return dict(zip(("rollout_s", "update_s"), map(statistics.median, zip(*times[1:]))))


def of_processes(n: int) -> dict[str, float]:
    """measure() in n processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), __file__, "--one"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def plot(figures: dict, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(figures), figsize=(3.2 * len(figures), 3), layout="constrained")
    for axis, (what, points) in zip(axes, figures.items()):
        for key in ("rollout_s", "update_s"):
            axis.plot(list(map(int, points)), [p[key] for p in points.values()], "o-", label=key[:-2])
        axis.set(xlabel=what, xscale="log", yscale="log", xticks=list(map(int, points)), xticklabels=list(points))
        axis.minorticks_off()
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    fig.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", action="store_true", help="measure the standard step alone, under torchrun")
    args = parser.parse_args()
    if args.one:
        with parallel.started(config.make("tiny")):
            found = measure("problems", 8)
            if parallel.first():
                print(json.dumps(found))
        return
    figures = {}
    for what, values in SWEEPS.items():
        figures[what] = {str(v): of_processes(v) if what == "processes" else measure(what, v) for v in values}
        (a, before), (b, last) = list(figures[what].items())[-2:]
        grown = {k: math.log(last[k] / before[k]) / math.log(int(b) / int(a)) for k in last}
        figures[what][b] |= {f"{k[:-2]}_exponent": g for k, g in grown.items()}
        print(f"{what:16s}" + "  ".join(f"{v}: {p['rollout_s']:.2f} + {p['update_s']:.2f} s" for v, p in figures[what].items())
              + f"   exponents {grown['rollout_s']:.2f}, {grown['update_s']:.2f}", flush=True)
    name = "scaling-gpu" if torch.cuda.is_available() else "scaling-cpu"
    path = experiments.save(name, {"prompt": PROMPT, "sweeps": figures}, "python tests/bench_scaling.py")
    plot(figures, os.path.join("results", f"{name}.png"))
    print(f"figures: {path}, results/{name}.png")


if __name__ == "__main__":
    main()
