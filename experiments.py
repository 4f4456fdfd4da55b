"""Findings of the paper as one-command experiments; each writes its figures to results/.

    python experiments.py list
    python experiments.py zero            # R1-Zero with three seeds: mean and spread (about an hour on two cores)
    python experiments.py zero --quick    # the same path in a quarter of an hour

An experiment runs the recipes as their own commands, so a figure here is what a user gets. A seed whose run is already
there is not run again.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys

import torch

import parallel


def hardware() -> str:
    """Processor, cores and torch of this machine, for the record."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            name = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation over seeds."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0, "values": values}


def seconds(metrics_path: str) -> float:
    """Time spent in the steps of a run, however often it was interrupted."""
    with open(metrics_path, encoding="utf-8") as f:
        return sum(json.loads(line)["step_time"] for line in f)


def save(name: str, content: dict, command: str) -> str:
    os.makedirs("results", exist_ok=True)
    path = os.path.join("results", f"{name}.json")
    parallel.write_json(path, {"command": command, "date": datetime.date.today().isoformat(), "hardware": hardware()} | content)
    return path


def zero(seeds: list[int], flags: list[str]) -> dict:
    """R1-Zero on the world: base and Zero on the same held-out problems, over seeds."""
    runs = []
    for seed in seeds:
        out = "runs/zero" if seed == 0 and not flags else f"runs/zero-{seed}" + "".join(flags).replace("--", "-")
        if not os.path.exists(os.path.join(out, "eval.json")):
            print(f"seed {seed}: {out}", flush=True)
            command = [sys.executable, "train_zero.py", "--seed", str(seed), "--out", out, *flags]
            if os.path.exists(os.path.join(out, "base")):
                command.append("--resume")
            subprocess.run(command, check=True)
        with open(os.path.join(out, "eval.json"), encoding="utf-8") as f:
            runs.append(json.load(f))
        runs[-1]["minutes"] = {stage: seconds(os.path.join(out, folder, "metrics.jsonl")) / 60 for stage, folder in (("base", "base"), ("zero", ""))}
        if seed == seeds[0]:
            os.makedirs("results", exist_ok=True)
            shutil.copy(os.path.join(out, "curves.png"), os.path.join("results", "zero-quick.png" if flags else "zero.png"))
    figures: dict[str, dict] = {}
    for i, row in enumerate(runs[0]["reports"]):
        keys = ("pass1", "cons", "passk", "format", "language_consistency", "mean_length", "reflection_words")
        figures.setdefault(row["task"], {})[row["model"]] = {k: spread([r["reports"][i][k] for r in runs]) for k in keys}
    return {"seeds": seeds, "k": runs[0]["reports"][0]["k"], "training_minutes": {s: spread([r["minutes"][s] for r in runs]) for s in ("base", "zero")}, "figures": figures,
            "pass1_se": {f"{row['task']}/{row['model']}": [r["reports"][i]["pass1_se"] for r in runs] for i, row in enumerate(runs[0]["reports"])}}


def markdown(content: dict) -> str:
    """The table of the README: percentages and tokens as mean ± standard deviation over seeds."""
    lines = [f"| task | model | pass@1 | cons@{content['k']} | pass@{content['k']} | format | language | tokens |", "|---|---|---|---|---|---|---|---|"]
    for task, models in content["figures"].items():
        for model, row in models.items():
            shares = " | ".join(f"{100 * row[k]['mean']:.1f} ± {100 * row[k]['sd']:.1f}" for k in ("pass1", "cons", "passk", "format", "language_consistency"))
            lines.append(f"| {task} | {model} | {shares} | {row['mean_length']['mean']:.0f} ± {row['mean_length']['sd']:.0f} |")
    return "\n".join(lines)


EXPERIMENTS = {"zero": zero}


def main() -> None:
    import config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="an experiment, or 'list'")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default 0,1,2)")
    parser.add_argument("--quick", action="store_true", help="each run in its few-minute form")
    args = parser.parse_args()
    with config.user_errors():
        if args.name == "list":
            print("\n".join(f"{name:12s}{function.__doc__}" for name, function in EXPERIMENTS.items()))
            return
        if args.name not in EXPERIMENTS:
            raise ValueError(f"there is no experiment '{args.name}'; the experiments are {', '.join(EXPERIMENTS)}")
        try:
            seeds = [int(s) for s in args.seeds.split(",")]
        except ValueError:
            raise ValueError(f"--seeds should be numbers with commas between them, not '{args.seeds}'") from None
        try:
            content = EXPERIMENTS[args.name](seeds, ["--quick"] if args.quick else [])
        except subprocess.CalledProcessError as e:
            raise ValueError(f"{' '.join(e.cmd)} ended with status {e.returncode}; run the same command again to go on") from None
        name = args.name + ("-quick" if args.quick else "")
        path = save(name, content, f"python experiments.py {args.name} --seeds {args.seeds}" + (" --quick" if args.quick else ""))
        print(f"{markdown(content)}\n\nfigures: {path}")


if __name__ == "__main__":
    main()
