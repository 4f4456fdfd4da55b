"""Findings of the paper and of the work around it as one-command experiments; each writes its figures to results/.

    python experiments.py list            # all of them, with what they take
    python experiments.py ppo             # three seeds: results/ppo.json, results/ppo.png
    python experiments.py ppo --quick     # the same path in a few minutes, one seed: results/ppo-quick.json
    python experiments.py table           # claim, paper's figure, ours, verdict: of all results that are there

An experiment runs the recipes as their own commands, or short runs from the base models that they leave (findings.py). A run that is
already there is not made again, so the same command goes on after an interruption.
"""

import os
import shutil
import subprocess

import config
import distill as distill_script
import eval as evaluation
import findings
import parallel
import preference
import train_r1
from findings import bars, compare, draw, figure_path, metrics, of, over_seeds, read, recipe, run_folder, spread


def save(name: str, content: dict, command: str) -> str:
    os.makedirs("results", exist_ok=True)
    path = os.path.join("results", f"{name}.json")
    parallel.write_json(path, parallel.provenance(command) | content)
    return path


# ---------------------------------------------------------------------------------------------- the recipes over seeds


def zero(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """R1-Zero on the world: base and Zero on the same held-out problems (full 45 minutes, quick 4)"""
    runs = []
    for seed in seeds:
        out = run_folder("zero", seed, flags)
        recipe("train_zero.py", seed, out, "eval.json", flags)
        runs.append(read(out, "eval.json"))
        runs[-1]["minutes"] = {stage: sum(r["step_time"] for r in metrics(os.path.join(out, folder))) / 60 for stage, folder in (("base", "base"), ("zero", ""))}
    shutil.copy(os.path.join(run_folder("zero", seeds[0], flags), "curves.png"), figure_path("zero", flags))
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
    """The four stages: base, Zero, Dev1, Dev2, Dev3 and R1 on the same held-out problems and requests (full 45 minutes beside `zero`, quick 6)"""
    runs = []
    for seed in seeds:
        out = run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, out, "stages.json", ["--zero", run_folder("zero", seed, flags), *flags])
        runs.append(read(out, "stages.json") | {kind: read(out, kind, "accuracy.json")["accuracy"] for kind in preference.KINDS})
    means, sds = over_seeds([r["figures"] for r in runs])
    names = {train_r1.NAMES[n]: row for n, row in means.items()}
    evaluation.plot_stages(names, figure_path("r1", flags))
    content = {"seeds": seeds, "minutes": [r["minutes"] for r in runs], "reward_model_accuracy": {k: spread([r[k] for r in runs]) for k in preference.KINDS},
               "mean": means, "sd": sds, "runs": [r["figures"] for r in runs]}
    return content, evaluation.stage_table(names, {train_r1.NAMES[n]: row for n, row in sds.items()})


def language(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """The language reward's price: the reasoning RL of Dev2 from the same Dev1, with the reward and without (full 20 minutes beside `r1`, quick 2)"""
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
    draw(figure_path("language", flags), bars(means, sds, ("reasoning", "language_consistency", "mean_length")))
    return {"seeds": seeds, "mean": means, "sd": sds, "runs": runs}, evaluation.stage_table(means, sds, evaluation.REASONING_COLUMNS)


def distill(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Distillation against RL: a small dense student of R1, by RL alone, and by both; more shapes with the first seed (full 50 minutes beside `r1`, quick 4)"""
    runs, first = [], next(iter(distill_script.STUDENTS))
    for seed in seeds:
        out, teacher = run_folder("distill", seed, flags), run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, teacher, "stages.json", ["--zero", run_folder("zero", seed, flags), *flags])
        students = [] if seed == seeds[0] else ["--students", first]
        recipe("distill.py", seed, out, "distill.json", ["--teacher", os.path.join(teacher, "r1", "model"), *students, *flags])
        runs.append(read(out, "distill.json"))
    flat = [{f"{first}, {way}": row for way, row in r["figures"][first].items()} for r in runs]
    means, sds = over_seeds(flat)
    draw(figure_path("distill", flags), bars(means, sds, ("reasoning", "language_consistency", "mean_length")))
    others = {f"{name}, {way}": row for name, ways in runs[0]["figures"].items() for way, row in ways.items() if name != first}
    content = {"seeds": seeds, "minutes": [r["minutes"] for r in runs], "examples": [r["examples"] for r in runs], "budget": runs[0]["budget"],
               "parameters": runs[0]["parameters"], "mean": means, "sd": sds, "runs": flat, "others": others}
    more = f"\n\nseed {seeds[0]}:\n\n{evaluation.stage_table(others, columns=evaluation.REASONING_COLUMNS)}" if others else ""
    return content, evaluation.stage_table(means, sds, evaluation.REASONING_COLUMNS) + more


# ---------------------------------------------------------------------------------------------- the table


def claims_of(name: str, content: dict) -> list[dict]:
    """The claims of a result: as it has them; those of the recipes are read off its figures."""
    runs = content.get("runs", [])
    if name == "zero":
        f = content["figures"]
        out = []
        for task, models in f.items():
            value = {(model, key): row[key]["values"] for model, row in models.items() for key in ("pass1", "mean_length", "cons")}
            out += [compare(f"{task}: RL alone raises pass@1", "AIME 15.6 to 77.9 [R1 v2]", value["zero", "pass1"], value["base", "pass1"]),
                    compare(f"{task}: responses at least double in length (tokens, against twice the base's)", "from hundreds to ten thousand tokens [R1 v1]",
                            value["zero", "mean_length"], [2 * v for v in value["base", "mean_length"]], unit=1),
                    compare(f"{task}: the majority of {content['k']} beats one answer", "AIME 86.7 with 64 against 71.0 [R1 v1]", value["zero", "cons"], value["zero", "pass1"])]
        return out
    if name == "r1":
        return [compare("Dev1 loses reasoning against Zero", "AIME 77.9 to 59.0 [R1 v2]", of(runs, "zero", "reasoning"), of(runs, "dev1", "reasoning")),
                compare("Dev1 keeps to the language better than Zero", "the cold start makes it readable [R1 v1]", of(runs, "dev1", "language_consistency"), of(runs, "zero", "language_consistency")),
                compare("Dev2 regains reasoning over Dev1", "AIME 59.0 to 74.0 [R1 v2]", of(runs, "dev2", "reasoning"), of(runs, "dev1", "reasoning")),
                compare("Dev3 reasons better than Dev2", "AIME 74.0 to 78.1 [R1 v2]", of(runs, "dev3", "reasoning"), of(runs, "dev2", "reasoning")),
                compare("R1 reasons better than Dev3", "AIME 78.1 to 79.8 [R1 v2]", of(runs, "r1", "reasoning"), of(runs, "dev3", "reasoning")),
                compare("R1 is more helpful than Dev3", "AlpacaEval 62.1 to 87.6 [R1 v2]", of(runs, "r1", "helpfulness"), of(runs, "dev3", "helpfulness"))]
    if name == "language":
        return [compare("the language reward keeps the thinking in the problem's language", "it does [R1 v1]", of(runs, "with", "language_consistency"), of(runs, "without", "language_consistency")),
                compare("and costs reasoning", "slightly [R1 v1]", of(runs, "without", "reasoning"), of(runs, "with", "reasoning"))]
    if name == "distill":
        student = next(iter(distill_script.STUDENTS))
        way = {w: of(runs, f"{student}, {w}", "reasoning") for w in ("distilled", "RL alone", "distilled + RL")}
        return [compare("a distilled small model reasons better than one trained by RL alone", "AIME 72.6 against 47.0 [R1 v1]", way["distilled"], way["RL alone"]),
                compare("RL after distillation helps further", "it does [R1 v1]", way["distilled + RL"], way["distilled"])]
    return content["claims"]


def minutes_of(content: dict) -> str:
    """What the whole command took; of older results, what their runs say of themselves."""
    if "minutes" not in content and "training_minutes" not in content:
        return ""
    found = content.get("minutes") or [sum(values) for values in zip(*(s["values"] for s in content["training_minutes"].values()))]
    return f"{sum(sum(m.values()) if isinstance(m, dict) else m for m in found) if isinstance(found, list) else found:.0f}"


def table() -> str:
    """All claims of results/*.json as Markdown, under the rule of their verdicts; then what is missing."""
    lines = [findings.RULE, "", "| claim | paper | ours | verdict | command | minutes |", "|---|---|---|---|---|---|"]
    missing = []
    for name in EXPERIMENTS:
        path, command = os.path.join("results", f"{name}.json"), f"python experiments.py {name}"
        if not os.path.exists(path):
            missing.append(f"`{command}`")
            continue
        content = read(path)
        lines += [f"| {c['claim']} | {c['paper']} | {c['ours']} | {c['verdict']} | `{command}` | {minutes_of(content)} |" for c in claims_of(name, content)]
    return "\n".join(lines) + (f"\n\nmissing: {', '.join(missing)}" if missing else "")


EXPERIMENTS = {f.__name__: f for f in (
    zero, findings.growth, findings.voting, findings.mixing, r1, language, distill, findings.ppo, findings.algorithms, findings.ablations, findings.share,
    findings.passk, findings.search, findings.journey, findings.countdown, findings.hacking, findings.size, findings.architecture)}


def main() -> None:
    parser = config.Parser(__doc__)
    parser.add_argument("name", help="an experiment, 'list' or 'table'")
    parser.add_argument("--seeds", help="comma-separated (default 0,1,2; with --quick 0)")
    parser.add_argument("--quick", action="store_true", help="each run in its few-minute form")
    args = parser.parse_args()
    with config.user_errors():
        if args.name == "list":
            print("\n".join(f"{name:14s}{function.__doc__}" for name, function in EXPERIMENTS.items()))
            return
        if args.name == "table":
            print(table())
            return
        if args.name not in EXPERIMENTS:
            raise ValueError(f"there is no experiment '{args.name}'; the experiments are {', '.join(EXPERIMENTS)}")
        told = args.seeds or ("0" if args.quick else "0,1,2")
        try:
            seeds = [int(s) for s in told.split(",")]
        except ValueError:
            raise ValueError(f"--seeds should be numbers with commas between them, not '{told}'") from None
        name = args.name + ("-quick" if args.quick else "")
        os.makedirs("runs", exist_ok=True)
        try:
            with parallel.stopwatch("runs", name):  # interruptions and what came before them included
                content, text = EXPERIMENTS[args.name](seeds, ["--quick"] if args.quick else [])
        except subprocess.CalledProcessError as e:
            raise ValueError(f"{' '.join(e.cmd)} ended with status {e.returncode}; run the same command again to go on") from None
        content = {"minutes": parallel.minutes("runs")[name]} | content
        content["claims"] = claims_of(args.name, content)
        path = save(name, content, f"python experiments.py {args.name} --seeds {told}" + (" --quick" if args.quick else ""))
        print(f"{text}\n\n{findings.RULE}\nfigures: {path}, {figure_path(args.name, ['--quick'] if args.quick else [])}")


if __name__ == "__main__":
    main()
