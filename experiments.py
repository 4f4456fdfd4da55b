"""Findings of the paper as one-command experiments; each writes its figures to results/.

    python experiments.py list
    python experiments.py zero            # R1-Zero with three seeds: mean and spread (about an hour on two cores)
    python experiments.py zero --quick    # the same path in a quarter of an hour
    python experiments.py r1              # the stage table with three seeds; `language` and `distill` build on it

An experiment runs the recipes as their own commands, so a figure here is what a user gets. A seed whose run is already
there is not run again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

import config
import distill as distill_script
import eval as evaluation
import parallel
import preference
import train_r1


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
    parallel.write_json(path, parallel.provenance(command) | content)
    return path


def run_folder(name: str, seed: int, flags: list[str]) -> str:
    return f"runs/{name}" if seed == 0 and not flags else f"runs/{name}-{seed}" + "".join(flags).replace("--", "-")


def recipe(script: str, seed: int, out: str, result: str, flags: list[str]) -> None:
    """Run a recipe's script as its users do, unless its `result` is already in the folder `out`."""
    if not os.path.exists(os.path.join(out, result)):
        print(f"seed {seed}: {out}", flush=True)
        subprocess.run([sys.executable, script, "--seed", str(seed), "--out", out, *flags, *(["--resume"] if os.path.exists(out) else [])], check=True)


def read(*path: str) -> dict:
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


def over_seeds(runs: list[dict]) -> tuple[dict, dict]:
    """(means, standard deviations) of figures of the same shape: model -> figure -> value."""
    table = {name: {key: spread([r[name][key] for r in runs]) for key in row} for name, row in runs[0].items()}
    return tuple({name: {key: s[part] for key, s in row.items()} for name, row in table.items()} for part in ("mean", "sd"))


def zero(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """R1-Zero on the world: base and Zero on the same held-out problems, over seeds."""
    runs = []
    for seed in seeds:
        out = run_folder("zero", seed, flags)
        recipe("train_zero.py", seed, out, "eval.json", flags)
        runs.append(read(out, "eval.json"))
        runs[-1]["minutes"] = {stage: seconds(os.path.join(out, folder, "metrics.jsonl")) / 60 for stage, folder in (("base", "base"), ("zero", ""))}
    os.makedirs("results", exist_ok=True)
    shutil.copy(os.path.join(run_folder("zero", seeds[0], flags), "curves.png"), os.path.join("results", "zero-quick.png" if flags else "zero.png"))
    figures: dict[str, dict] = {}
    for i, row in enumerate(runs[0]["reports"]):
        keys = ("pass1", "cons", "passk", "format", "language_consistency", "mean_length", "reflection_words")
        figures.setdefault(row["task"], {})[row["model"]] = {k: spread([r["reports"][i][k] for r in runs]) for k in keys}
    content = {"seeds": seeds, "k": runs[0]["reports"][0]["k"], "training_minutes": {s: spread([r["minutes"][s] for r in runs]) for s in runs[0]["minutes"]},
               "figures": figures, "pass1_se": {f"{row['task']}/{row['model']}": [r["reports"][i]["pass1_se"] for r in runs] for i, row in enumerate(runs[0]["reports"])}}
    return content, markdown(content)


def markdown(content: dict) -> str:
    """The table of the README: percentages and tokens as mean ± standard deviation over seeds."""
    lines = [f"| task | model | pass@1 | cons@{content['k']} | pass@{content['k']} | format | language | tokens |", "|---|---|---|---|---|---|---|---|"]
    for task, models in content["figures"].items():
        for model, row in models.items():
            shares = " | ".join(f"{100 * row[k]['mean']:.1f} ± {100 * row[k]['sd']:.1f}" for k in ("pass1", "cons", "passk", "format", "language_consistency"))
            lines.append(f"| {task} | {model} | {shares} | {row['mean_length']['mean']:.0f} ± {row['mean_length']['sd']:.0f} |")
    return "\n".join(lines)


def r1(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """The four stages: base, Zero, Dev1, Dev2, Dev3 and R1 on the same held-out problems and requests, over seeds."""
    runs = []
    for seed in seeds:
        out = run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, out, "stages.json", ["--zero", run_folder("zero", seed, flags), *flags])
        runs.append(read(out, "stages.json") | {kind: read(out, kind, "accuracy.json")["accuracy"] for kind in preference.KINDS})
    means, sds = over_seeds([r["figures"] for r in runs])
    names = {train_r1.NAMES[n]: row for n, row in means.items()}
    os.makedirs("results", exist_ok=True)
    evaluation.plot_stages(names, os.path.join("results", "r1-quick.png" if flags else "r1.png"))
    content = {"seeds": seeds, "minutes": [r["minutes"] for r in runs], "reward_model_accuracy": {k: spread([r[k] for r in runs]) for k in preference.KINDS},
               "mean": means, "sd": sds, "runs": [r["figures"] for r in runs]}
    return content, evaluation.stage_table(names, {train_r1.NAMES[n]: row for n, row in sds.items()})


def language(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """The language reward's price: the reasoning RL of Dev2 from the same Dev1, with the reward and without, over seeds."""
    runs = []
    for seed in seeds:
        out = run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, out, "stages.json", ["--zero", run_folder("zero", seed, flags), *flags])
        cfg = config.make("tiny")
        cfg.seed = seed
        for key, value in (train_r1.QUICK if flags else {}).items():
            config.set_key(cfg, key, value)
        cfg.r1.language = 0.0
        without = run_folder("r1-without-language", seed, flags)
        model = os.path.join(without, "model")
        if not os.path.exists(os.path.join(model, "config.json")):
            train_r1.reinforce(cfg, os.path.join(out, "dev1", "model"), without, os.path.exists(without), "dev2", cfg.r1.dev2_steps, 300_000)
        reports = {"base": train_r1.evaluate_stage(cfg, "base", os.path.join(run_folder("zero", seed, flags), "base", "model"), os.path.join(out, "eval", "base.json")),
                   "Dev1": train_r1.evaluate_stage(cfg, "dev1", os.path.join(out, "dev1", "model"), os.path.join(out, "eval", "dev1.json")),
                   "with": train_r1.evaluate_stage(cfg, "dev2", os.path.join(out, "dev2", "model"), os.path.join(out, "eval", "dev2.json")),
                   "without": train_r1.evaluate_stage(cfg, "without", model, os.path.join(without, "eval.json"))}
        runs.append({name: row for name, row in evaluation.stage_figures(reports).items() if name != "base"})
    means, sds = over_seeds(runs)
    return {"seeds": seeds, "mean": means, "sd": sds, "runs": runs}, evaluation.stage_table(means, sds, evaluation.REASONING_COLUMNS)


def distill(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Distillation against RL: a small dense student of R1, by RL alone, and by both, over seeds; more shapes with the first seed."""
    runs, first = [], next(iter(distill_script.STUDENTS))
    for seed in seeds:
        out, teacher = run_folder("distill", seed, flags), run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, teacher, "stages.json", ["--zero", run_folder("zero", seed, flags), *flags])
        students = [] if seed == seeds[0] else ["--students", first]
        recipe("distill.py", seed, out, "distill.json", ["--teacher", os.path.join(teacher, "r1", "model"), *students, *flags])
        runs.append(read(out, "distill.json"))
    flat = [{f"{first}, {way}": row for way, row in r["figures"][first].items()} for r in runs]
    means, sds = over_seeds(flat)
    others = {f"{name}, {way}": row for name, ways in runs[0]["figures"].items() for way, row in ways.items() if name != first}
    content = {"seeds": seeds, "minutes": [r["minutes"] for r in runs], "examples": [r["examples"] for r in runs], "budget": runs[0]["budget"],
               "parameters": runs[0]["parameters"], "mean": means, "sd": sds, "runs": flat, "others": others}
    more = f"\n\nseed {seeds[0]}:\n\n{evaluation.stage_table(others, columns=evaluation.REASONING_COLUMNS)}" if others else ""
    return content, evaluation.stage_table(means, sds, evaluation.REASONING_COLUMNS) + more


EXPERIMENTS = {"zero": zero, "r1": r1, "language": language, "distill": distill}


def main() -> None:
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
            content, table = EXPERIMENTS[args.name](seeds, ["--quick"] if args.quick else [])
        except subprocess.CalledProcessError as e:
            raise ValueError(f"{' '.join(e.cmd)} ended with status {e.returncode}; run the same command again to go on") from None
        name = args.name + ("-quick" if args.quick else "")
        path = save(name, content, f"python experiments.py {args.name} --seeds {args.seeds}" + (" --quick" if args.quick else ""))
        print(f"{table}\n\nfigures: {path}")


if __name__ == "__main__":
    main()
