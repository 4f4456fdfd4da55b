"""How the time of a GRPO step grows: with length, group, problems, experts, processes.

    python bench/bench_scaling.py

Keep the machine idle meanwhile (a few minutes). A new laptop model that never ends a response; all
but the quantity that varies stays at 8 problems, 16 responses each, 64 new tokens. Medians of
three, with the exponent of growth between the last two points (1: twice the work takes twice the
time). Figures and a picture into results/scaling-cpu.json and .png (scaling-gpu on a GPU).
"""

import json
import math
import os
import statistics
import subprocess
import sys

import torch
from bench_speed import PROMPT, build, learner_of, parts
from common import parser, save

import config
import grpo
from lib import distributed, report
from model import ModelConfig

SWEEPS = {
    "response length": (32, 64, 128, 256),
    "group size": (4, 8, 16, 32),
    "problems": (4, 8, 16, 32),
    "experts": (4, 8, 16, 32),
    "processes": (1, 2),
}
STANDARD = {"response length": 64, "group size": 16, "problems": 8, "experts": 8}
ROUNDS = 3


def measure(what: str, value: int) -> dict[str, float]:
    """Median seconds of rollout and update with one quantity changed."""
    sizes = STANDARD | {what: value}
    settings = dict(group_size=sizes["group size"], max_new_tokens=sizes["response length"])
    learner = learner_of(build(ModelConfig(n_experts=sizes["experts"])), **settings)
    times = []
    for number in range(ROUNDS + 1):  # the first is slow
        generator = torch.Generator().manual_seed(number)
        prompts = torch.randint(3, 1500, (sizes["problems"], PROMPT), generator=generator)
        times.append(parts(learner, prompts.tolist(), number)[:2])
    rollout_s, update_s = map(statistics.median, zip(*times[1:]))
    return {"rollout_s": rollout_s, "update_s": update_s}


def with_processes(n: int) -> dict[str, float]:
    """measure() in n processes of one thread each."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command, env = [*torchrun, str(n), __file__, "--one"], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def add_exponents(points: dict[str, dict[str, float]]) -> str:
    """Adds the growth between the last two points to the last; returns all as a line of text."""
    (a, before), (b, last) = list(points.items())[-2:]
    text = "  ".join(
        f"{v}: {p['rollout_s']:.2f} + {p['update_s']:.2f} s" for v, p in points.items()
    )
    grown = [math.log(last[k] / before[k]) / math.log(int(b) / int(a)) for k in last]
    points[b] |= {"rollout_exponent": grown[0], "update_exponent": grown[1]}
    return f"{text}   exponents {grown[0]:.2f}, {grown[1]:.2f}"


def plot(figures: dict[str, dict], path: str) -> None:
    """Seconds against each quantity, both on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(figures), figsize=(3.2 * len(figures), 3))
    for ax, (what, points) in zip(axes, figures.items()):
        x = list(map(int, points))
        for key, label in (("rollout_s", "rollout"), ("update_s", "update")):
            ax.plot(x, [p[key] for p in points.values()], "o-", label=label)
        ax.set(xlabel=what, xscale="log", yscale="log", xticks=x, xticklabels=list(points))
        ax.minorticks_off()
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    report.save_figure(fig, path)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--one", action="store_true", help="the standard step, under torchrun")
    if flags.parse_args().one:
        with distributed.started(config.make(grpo.Config)):
            found = measure("problems", STANDARD["problems"])
            if distributed.is_main_process():
                print(json.dumps(found))
        return
    figures = {}
    for what, values in SWEEPS.items():
        if what == "processes":
            figures[what] = {str(v): with_processes(v) for v in values}
        else:
            figures[what] = {str(v): measure(what, v) for v in values}
        print(f"{what:16s}{add_exponents(figures[what])}", flush=True)
    name = "scaling-gpu" if torch.cuda.is_available() else "scaling-cpu"
    content = {"prompt": PROMPT, "sweeps": figures}
    path = save(name, content, "python bench/bench_scaling.py")
    plot(figures, f"results/{name}.png")
    print(f"figures: {path}, results/{name}.png")


if __name__ == "__main__":
    main()
