"""What the experiments share, and those that ask one question of short runs; `python experiments.py list` names them all.

A short run is GRPO for 30 steps of 16 problems from the base models that train_zero.py leaves (a missing one is made first), then an
evaluation on held-out problems. Runs lie in runs/findings/ and are never made twice, so an interrupted experiment goes on where it was.
Every experiment is a function of (seeds, flags), flags being ["--quick"] or []; it returns the content of results/NAME.json and its
tables, and draws results/NAME.png. Minutes in the docstrings are estimates for three seeds on two cores, bases not counted.
"""

import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace

import config
import data
import eval as evaluation
import grpo
import parallel
import preference
import rewards as rw
import sft
import train_r1
import train_zero
from data import REASONING, Problem, World
from model import GPT, cost_report

BUDGET = {"grpo.steps": 30, "grpo.problems_per_step": 16, "eval.problems": 64, "sft.tokens": 2_200_000}
QUICK = train_r1.QUICK | {"grpo.steps": 6, "grpo.problems_per_step": 8, "grpo.group_size": 8, "eval.problems": 16, "eval.k": 4, "sft.tokens": 300_000}
ARITHMETIC = {"world.tasks": "arithmetic", "grpo.tasks": "arithmetic", "world.direct": 0.4}  # what a model can learn from few texts
CLOSE = 0.05  # "about as good as": less than this behind

RULE = (f"Verdict: seen if the claimed difference, seed by seed, is on average larger than twice its standard error over the seeds; the opposite if it is as far on the other "
        f"side; otherwise, and always with a single seed, not seen. (Of three seeds pure chance passes in one case of eleven. All seeds are asked the same problems, whose choice "
        f"adds an error of its own.) \"About as good\" is less than {100 * CLOSE:g} points behind.")


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation over seeds."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0, "values": values}


def verdict(differences: list[float]) -> str:
    """RULE for the differences in the claimed direction, one a seed.

    >>> verdict([0.1, 0.2, 0.3]), verdict([-0.1, 0.2, 0.3]), verdict([-0.1, -0.2, -0.3]), verdict([0.5])
    ('seen', 'not seen', 'the opposite', 'not seen')
    """
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return "seen" if mean > 2 * error else "the opposite" if -mean > 2 * error else "not seen"


def compare(claim: str, paper: str, more: list[float], less: list[float] | float = 0.0, margin: float = 0.0, unit: float = 100.0) -> dict[str, str]:
    """A row of the table: does `more`, one figure a seed, exceed `less` (of the same seeds, or a number), or fall short by less than `margin`?

    unit: what figures are multiplied by to be read; 100: percentages.
    """
    fixed = not isinstance(less, list)
    others = [less] * len(more) if fixed else less
    differences = [a - b for a, b in zip(more, others, strict=True)]

    def say(values: list[float]) -> str:
        s = spread([unit * v for v in values])
        return (f"{s['mean']:.1f} ± {s['sd']:.1f}" if unit == 100 else f"{s['mean']:.3g} ± {s['sd']:.2g}") if len(values) > 1 else f"{s['mean']:.3g} (one seed)"

    ours = say(more) if fixed and not less else f"{say(more)} against {f'{unit * less:.3g}' if fixed else say(less)}; difference {say(differences)}"
    return {"claim": claim, "paper": paper, "ours": ours, "verdict": verdict([d + margin for d in differences])}


def claims_table(claims: list[dict]) -> str:
    return "\n".join(["| claim | paper | ours | verdict |", "|---|---|---|---|", *(f"| {c['claim']} | {c['paper']} | {c['ours']} | {c['verdict']} |" for c in claims)])


# ---------------------------------------------------------------------------------------------- runs


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


def metrics(folder: str) -> list[dict]:
    """A run's steps."""
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def zero_folder(seed: int, flags: list[str]) -> str:
    """The run folder of a seed's R1-Zero, with its base; both are made if they are missing."""
    out = run_folder("zero", seed, flags)
    recipe("train_zero.py", seed, out, "eval.json", flags)
    return out


def base_of(seed: int, flags: list[str]) -> str:
    return os.path.join(zero_folder(seed, flags), "base", "model")


def make(seed: int, flags: list[str], settings: dict[str, object] | None = None) -> config.Config:
    """The common budget with an experiment's settings."""
    cfg = config.make("tiny")
    cfg.seed = seed
    for key, value in (BUDGET | (QUICK if flags else {}) | (settings or {})).items():
        config.set_key(cfg, key, value)
    config.check(cfg)
    return cfg


def examine(cfg, model: str, out: str) -> dict[str, float]:
    """A model's figures on the held-out problems of cfg.grpo.tasks: means over the tasks, each task's pass@1, and the mean length of all wrong
    responses. Kept in `out`/eval.json."""
    os.makedirs(out, exist_ok=True)
    reports = train_r1.evaluate_stage(cfg, out, model, os.path.join(out, "eval.json"), cfg.grpo.tasks)
    names = {"accuracy": "pass1", "format": "format", "length": "mean_length", "language": "language_consistency", "reflection": "reflection_words"}
    means = {name: statistics.fmean(getattr(r, field) for r in reports.values()) for name, field in names.items()}
    wrong = [s["length"] for r in reports.values() for s in r.samples if not s["correct"]]
    return means | {"wrong_length": statistics.fmean(wrong) if wrong else 0.0} | {task: r.pass1 for task, r in reports.items()}


def reinforce(cfg, base: str, out: str) -> dict[str, float]:
    """GRPO as cfg has it from the model in folder `base`; the figures of the result. A run that has ended is not made again."""
    parallel.claim(out, {k: v for k, v in asdict(cfg).items() if k not in ("device", "eval")} | {"base": GPT.from_pretrained(base).fingerprint()})
    model = os.path.join(out, "model")
    if not os.path.exists(os.path.join(model, "config.json")):
        print(f"--- {out}", flush=True)
        train_zero.train(cfg, base, out, True)
    rows = metrics(out)
    return examine(cfg, model, out) | {"step_seconds": statistics.median(r["step_time"] for r in rows), "tokens": rows[-1]["num_tokens"],
                                       "clipped": statistics.fmean(r["clip_ratio/low_mean"] + r["clip_ratio/high_mean"] for r in rows),
                                       "critic_mib": 1024 * rows[-1].get("memory/critic_gib", 0.0)}


def short(seeds: list[int], flags: list[str], variants: dict[str, dict[str, object]]) -> list[dict]:
    """For each seed: the base's figures, and those of short GRPO from it in each variant of the settings."""
    runs = []
    for seed in seeds:
        base = base_of(seed, flags)
        runs.append({"base": examine(make(seed, flags), base, run_folder("findings/base", seed, flags))})
        runs[-1] |= {name: reinforce(make(seed, flags, s), base, run_folder(f"findings/{name}", seed, flags)) for name, s in variants.items()}
    return runs


def from_nothing(seeds: list[int], flags: list[str], variants: dict[str, dict[str, object]]) -> list[dict]:
    """For each seed and variant: a base pretrained on arithmetic alone, and short GRPO from it."""
    runs: list[dict] = []
    for seed in seeds:
        runs.append({})
        for name, settings in variants.items():
            cfg, out = make(seed, flags, ARITHMETIC | settings), run_folder(f"findings/{name}", seed, flags)
            base = sft.pretrain(cfg, os.path.join(out, "base"), True)
            last, report = metrics(os.path.join(out, "base"))[-20:], cost_report(GPT.empty(base).cfg)
            runs[-1][f"{name}, base"] = examine(cfg, base, os.path.join(out, "base")) | {
                "loss": statistics.fmean(r["loss"] for r in last), "max_load": statistics.fmean(r.get("moe/max_load", 1.0) for r in last),
                "parameters": report["total parameters"], "active": report["active parameters"], "cache_bytes": report["cache bytes a token"]}
            runs[-1][f"{name}, RL"] = reinforce(cfg, base, out)
    return runs


# ---------------------------------------------------------------------------------------------- results


def over_seeds(runs: list[dict]) -> tuple[dict, dict]:
    """(means, standard deviations) of figures of the same shape: model -> figure -> value."""
    table = {name: {key: spread([r[name][key] for r in runs]) for key in row} for name, row in runs[0].items()}
    return tuple({name: {key: s[part] for key, s in row.items()} for name, row in table.items()} for part in ("mean", "sd"))


def figure_path(name: str, flags: list[str]) -> str:
    os.makedirs("results", exist_ok=True)
    return os.path.join("results", name + "".join(flags).replace("--", "-") + ".png")


Panel = tuple[str, str, dict]  # title; what runs along x, and a line each: label -> (x, y); or "", and a bar each: label -> (mean, sd)


def draw(path: str, panels: list[Panel]) -> None:
    """Panels side by side, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 4), squeeze=False)
    for ax, (title, along, series) in zip(axes[0], panels):
        if along:
            ax.set_prop_cycle(color=plt.get_cmap("tab10" if len(series) <= 10 else "tab20").colors)
            for label, (x, y) in series.items():
                ax.plot(x, y, marker="." if len(x) < 30 else "", label=label)
            ax.legend(fontsize=8)
        else:
            ax.bar(list(series), [mean for mean, _ in series.values()], yerr=[sd for _, sd in series.values()], capsize=3)
            ax.tick_params("x", rotation=70, labelsize=8)
        ax.set(title=title, xlabel=along)
        ax.grid(alpha=0.3)
    evaluation.save_figure(fig, path)


def bars(means: dict, sds: dict, keys: Iterable[str]) -> list[Panel]:
    """A panel for each of the figures, a bar for each model that has it."""
    return [(key, "", {m: (row[key], sds[m][key]) for m, row in means.items() if key in row}) for key in keys]


def conclude(name: str, seeds: list[int], flags: list[str], runs: list[dict], claims: list[dict], panels: Iterable[Panel] = (),
             keys: Iterable[str] | None = None, **more) -> tuple[dict, str]:
    """Draw the figure: the panels, then bars of the keys (without either of accuracy, format and length); the experiment's content and its tables."""
    means, sds = over_seeds(runs)
    barred = keys or (() if panels else ("accuracy", "format", "length"))
    draw(figure_path(name, flags), [*panels, *bars(means, sds, barred)])
    columns = list(dict.fromkeys(key for row in means.values() for key in row))
    lines = [["model", *columns], ["---"] * (1 + len(columns))]
    lines += [[m, *(f"{row[c]:.3g} ± {sds[m][c]:.2g}" if c in row else "" for c in columns)] for m, row in means.items()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + claims_table(claims)
    return {"seeds": seeds, "mean": means, "sd": sds, "runs": runs, "claims": claims} | more, text


def of(runs: list[dict], model: str, key: str = "accuracy") -> list[float]:
    return [r[model][key] for r in runs]


def mean_curve(curves: list[list[float]]) -> list[float]:
    """Over seeds, up to the end of the shortest."""
    return [statistics.fmean(values) for values in zip(*curves)]


def learning(names: Iterable[str], seeds: list[int], flags: list[str]) -> Panel:
    """How short()'s variants learn: right answers among each step's, means over seeds."""
    curves = {name: mean_curve([[r["rewards/accuracy/mean"] for r in metrics(run_folder(f"findings/{name}", seed, flags))] for seed in seeds]) for name in names}
    return "right answers in training", "RL step", {name: (range(1, len(y) + 1), y) for name, y in curves.items()}


# ---------------------------------------------------------------------------------------------- algorithms and their settings


def ppo(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """GRPO against PPO with its critic, lambda 1 and 0.95: quality, memory, time (full 20 minutes, quick 1)"""
    algorithm = {f"grpo.{k}": v for k, v in grpo.ALGORITHMS["ppo"].items()}
    runs = short(seeds, flags, {"grpo": {}, "ppo": algorithm, "ppo-0.95": algorithm | {"grpo.gae_lambda": 0.95}})
    claims = [compare("PPO with lambda 1 is about as good as GRPO", "nearly equal on MATH [R1 v2]", of(runs, "ppo"), of(runs, "grpo"), CLOSE),
              compare("PPO with lambda 1 is better than with 0.95", "0.95 considerably worse [R1 v2]", of(runs, "ppo"), of(runs, "ppo-0.95")),
              compare("a step of PPO takes longer (seconds)", "a critic as large as the policy [DeepSeekMath 2402.03300]", of(runs, "ppo", "step_seconds"), of(runs, "grpo", "step_seconds"), unit=1),
              compare("the critic takes memory (MiB of weights, gradients, moments)", "a critic as large as the policy [DeepSeekMath 2402.03300]", of(runs, "ppo", "critic_mib"), of(runs, "grpo", "critic_mib"), unit=1)]
    return conclude("ppo", seeds, flags, runs, claims, [learning(list(runs[0])[1:], seeds, flags)], ("accuracy", "length", "step_seconds"))


PAPERS_GRPO = "grpo-sequence"  # with the mean over sequences of DeepSeekMath and of the papers that compare themselves with it
RELATIVES = {  # whom their papers compare them with, by how much they may fall behind, and what is said
    "dr_grpo": (PAPERS_GRPO, CLOSE, "as good with shorter wrong answers [2503.20783]"), "dapo": (PAPERS_GRPO, 0.0, "AIME 50 against 30 [2503.14476]"),
    "gspo": (PAPERS_GRPO, 0.0, "higher at equal compute [2507.18071]"), "gspo-wide": (PAPERS_GRPO, 0.0, "higher at equal compute [2507.18071]"), "cispo": ("dapo", 0.0, "twice as fast [2506.13585]"),
    "rloo": ("ppo", 0.0, "better without a critic [2402.14740]"), "reinforce++": ("grpo", CLOSE, "as good, steadier [2501.03262]"),
    "v3.2": ("grpo", CLOSE, "stable at scale [2512.02556]"), "grpo": ("ppo", CLOSE, "nearly equal on MATH [R1 v2]")}


def algorithms(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Each relative of GRPO for as many steps; dynamic sampling draws more in them: see the tokens (full 35 minutes, quick 3)"""
    variants = {PAPERS_GRPO: {"average": "sequence"}} | grpo.ALGORITHMS
    variants |= {"gspo-wide": grpo.ALGORITHMS["gspo"] | {"clip_low": 0.03, "clip_high": 0.04}}  # its own range is for long answers and small steps
    runs = short(seeds, flags, {name: {f"grpo.{k}": v for k, v in settings.items()} for name, settings in variants.items()})
    claims = [compare(f"{name} {'is about as good as' if margin else 'ends above'} {rival}", paper, of(runs, name), of(runs, rival), margin) for name, (rival, margin, paper) in RELATIVES.items()]
    claims.append(compare(f"dr_grpo's wrong answers are shorter than {PAPERS_GRPO}'s (tokens)", RELATIVES["dr_grpo"][2], of(runs, PAPERS_GRPO, "wrong_length"), of(runs, "dr_grpo", "wrong_length"), unit=1))
    return conclude("algorithms", seeds, flags, runs, claims, [learning(variants, seeds, flags)], ("accuracy", "format", "length"))


def ablations(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Group size, KL penalty, clip range, temperature, staleness, one at a time (full 40 minutes, quick 3)"""
    own = make(0, flags).grpo
    responses = own.problems_per_step * own.group_size
    variants = {"grpo": {}}
    variants |= {f"group-{g}": {"grpo.group_size": g, "grpo.problems_per_step": max(1, responses // g)} for g in (4, 64)}
    variants |= {"kl-0.1": {"grpo.kl_beta": 0.1}, "temperature-0.6": {"grpo.temperature": 0.6}}
    variants |= {f"clip-{c}": {"grpo.clip_low": c, "grpo.clip_high": c} for c in (0.02, 10.0)}
    variants |= {f"minibatches-{n}": {"grpo.minibatches": n} for n in (1, 16)}
    runs = short(seeds, flags, variants)
    a = {name: of(runs, name) for name in variants}
    claims = [compare("groups of 16 learn more than groups of 4 from as many responses", "R1: 16, DeepSeekMath: 64", a["grpo"], a["group-4"]),
              compare("groups of 64 are about as good as groups of 16", "R1: 16, DeepSeekMath: 64", a["group-64"], a["grpo"], CLOSE),
              compare("a KL penalty of 0.1 costs accuracy", "R1: 0.001; DAPO and Dr. GRPO none [2503.14476, 2503.20783]", a["grpo"], a["kl-0.1"]),
              compare("a clip range of 0.02 costs accuracy", "low values cut many tokens' gradient [R1 v2]", a["grpo"], a["clip-0.02"]),
              compare("a clip range of 10 is about as good as 0.2", "R1: 10 [R1 v2]", a["clip-10.0"], a["grpo"], CLOSE),
              compare("sampling at temperature 1 learns more than at 0.6 (both asked at 1)", "R1-Zero: 1", a["grpo"], a["temperature-0.6"]),
              compare("up to 16 updates a rollout, the last ones stale, learn more than one", "R1: 16 minibatches a rollout [R1 v2]", a["minibatches-16"], a["minibatches-1"])]
    return conclude("ablations", seeds, flags, runs, claims)


# ---------------------------------------------------------------------------------------------- what the base brings along


def share(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Share of reasoned texts in the base's corpus, 0 to 50%: does RL find what the base never shows? (full 30 minutes, quick 3)"""
    shares = (0, 5, 10, 25, 50)
    runs = from_nothing(seeds, flags, {f"share-{s}": {"world.direct": 1 - s / 100} for s in shares})
    paper = "behaviours that the base lacks RL does not raise [2503.01307]"
    claims = [compare("RL ends higher from a base with 50% reasoned texts than from one with none", paper, of(runs, "share-50, RL"), of(runs, "share-0, RL")),
              compare("from a base that never reasons RL at least doubles the length (tokens, against twice the base's)", "length grows with RL [R1 v1]",
                      of(runs, "share-0, RL", "length"), [2 * v for v in of(runs, "share-0, base", "length")], unit=1),
              compare("5% of reasoned texts are enough for RL to gain more than without any", paper,
                      [a - b for a, b in zip(of(runs, "share-5, RL"), of(runs, "share-5, base"))], [a - b for a, b in zip(of(runs, "share-0, RL"), of(runs, "share-0, base"))])]
    means, _ = over_seeds(runs)
    panels = [(key, "reasoned texts in the corpus, %", {way: (shares, [means[f"share-{s}, {way}"][key] for s in shares]) for way in ("base", "RL")})
              for key in ("accuracy", "length", "format")]
    return conclude("share", seeds, flags, runs, claims, panels)


def size(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Model width and depth: from which size on does RL alone work? (full 30 minutes, quick 3)"""
    shapes = {"16x2": (16, 2), "32x2": (32, 2), "64x3": (64, 3), "128x4": (128, 4)}
    runs = from_nothing(seeds, flags, {f"size-{name}": {"model.dim": d, "model.n_layers": n, "model.n_heads": max(1, d // 32), "model.hidden_dim": 3 * d, "model.expert_dim": 3 * d // 4}
                                       for name, (d, n) in shapes.items()})
    gains = {name: [a - b for a, b in zip(of(runs, f"size-{name}, RL"), of(runs, f"size-{name}, base"))] for name in shapes}
    paper = "small early models gained little from RL [R1 v2]; 0.5B guesses, from 1.5B on it searches [TinyZero]"
    least, *larger = gains
    claims = [compare(f"RL alone gains less than {100 * CLOSE:g} points with width x layers {least}", paper, [CLOSE] * len(seeds), gains[least])]
    claims += [compare(f"RL alone helps width x layers {name}", paper, gains[name]) for name in larger]
    claims.append(compare("RL's gain is larger for 128x4 than for 32x2", paper, gains["128x4"], gains["32x2"]))
    means, _ = over_seeds(runs)
    x = [means[f"size-{name}, base"]["parameters"] / 1e6 for name in shapes]
    panels = [(key, "parameters, millions", {way: (x, [means[f"size-{name}, {way}"][key] for name in shapes]) for way in ("base", "RL")}) for key in ("accuracy", "length")]
    return conclude("size", seeds, flags, runs, claims, panels)


def architecture(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Dense against mixture of experts, MLA against GQA, balancing on and off: pretraining loss and what RL makes of it (full 25 minutes, quick 3)"""
    runs = from_nothing(seeds, flags, {"moe": {}, "dense": {"model.n_experts": 0, "model.hidden_dim": 314},  # as many active parameters
                                       "gqa": {"model.attention": "gqa", "model.n_kv_heads": 2}, "unbalanced": {"model.bias_update_speed": 0.0, "model.balance_loss": 0.0}})
    loss = {name: of(runs, f"{name}, base", "loss") for name in ("moe", "dense", "gqa", "unbalanced")}
    claims = [compare("experts reach a lower loss than a dense model of as many active parameters (nats)", "better at equal compute [DeepSeekMoE 2401.06066]", loss["dense"], loss["moe"], unit=1),
              compare("after RL experts end higher than that dense model", "better at equal compute [DeepSeekMoE 2401.06066]", of(runs, "moe, RL"), of(runs, "dense, RL")),
              compare("MLA reaches a lower loss than GQA with 2 of 4 heads (nats)", "MLA above multi-head, GQA below, and a smaller cache [DeepSeek-V2 2405.04434]", loss["gqa"], loss["moe"], unit=1),
              compare("MLA's cache is smaller (bytes a token)", "MLA above multi-head, GQA below, and a smaller cache [DeepSeek-V2 2405.04434]", of(runs, "gqa, base", "cache_bytes"), of(runs, "moe, base", "cache_bytes"), unit=1),
              compare("without balancing the busiest expert is busier (shares of the mean)", "experts collapse without balancing [V3 2412.19437]",
                      of(runs, "unbalanced, base", "max_load"), of(runs, "moe, base", "max_load"), unit=1),
              compare("without balancing the loss is higher (nats)", "experts collapse without balancing [V3 2412.19437]", loss["unbalanced"], loss["moe"], unit=1)]
    return conclude("architecture", seeds, flags, runs, claims, keys=("loss", "accuracy", "max_load"))


# ---------------------------------------------------------------------------------------------- what Zero became


def growth(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Zero's growth of accuracy, length and words of reflection, with slopes, from its metrics (full 1 minute, quick 1)"""
    every = [metrics(zero_folder(seed, flags)) for seed in seeds]
    tasks = [k.removesuffix("/accuracy") for k in every[0][-1] if k.endswith("/accuracy")]
    keys = [f"{task}/{figure}" for figure in ("accuracy", "mean_length") for task in tasks] + ["reflection_words"]
    series = [{key: [(r["step"], r[key]) for r in rows if key in r] for key in keys} for rows in every]
    runs = [{key: {"slope_of_10_steps": 10 * statistics.linear_regression(*zip(*points)).slope, "first": statistics.fmean(y for _, y in points[:5]),
                   "last": statistics.fmean(y for _, y in points[-5:])} for key, points in s.items()} for s in series]
    papers = {"accuracy": "AIME 15.6 to 77.9 [R1 v2]", "mean_length": "from hundreds to ten thousand tokens [R1 v1]", "reflection_words": "five to seven times as many [R1 v2]"}
    told = {"accuracy": "accuracy on {} grows (points in 10 steps)", "mean_length": "responses on {} grow (tokens in 10 steps)",
            "reflection_words": "words of reflection grow more frequent (a response, in 10 steps)"}
    claims = [compare(told[key.split("/")[-1]].format(key.split("/")[0]), papers[key.split("/")[-1]], of(runs, key, "slope_of_10_steps"),
                      unit=100 if key.endswith("accuracy") else 1) for key in keys]
    panels = [(figure, "RL step", {key: ([x for x, _ in series[0][key]], mean_curve([[y for _, y in s[key]] for s in series])) for key in keys if key.endswith(figure)}) for figure in papers]
    panels = [(title, along, {label: (x[: len(y)], y) for label, (x, y) in lines.items()}) for title, along, lines in panels]
    return conclude("growth", seeds, flags, runs, claims, panels)


def mixing(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Language mixing over Zero's training, and on held-out problems after it (full 1 minute, quick 1)"""
    runs, curves = [], []
    for seed in seeds:
        out = zero_folder(seed, flags)
        curves.append([r["language_consistency"] for r in metrics(out)])
        held_out = {name: statistics.fmean(r["language_consistency"] for r in read(out, "eval.json")["reports"] if r["model"] == name) for name in ("base", "zero")}
        runs.append({"training": {"first": statistics.fmean(curves[-1][:5]), "last": statistics.fmean(curves[-1][-5:]), "lowest": min(curves[-1])}, "held out": held_out})
    paper = "R1-Zero mixes languages [R1 v1]"
    claims = [compare("fewer words are in the problem's language at the end of Zero's training than at its beginning", paper, of(runs, "training", "first"), of(runs, "training", "last")),
              compare("held out, Zero mixes more than its base", paper, of(runs, "held out", "base"), of(runs, "held out", "zero"))]
    panels = [("words in the problem's language", "RL step", {f"seed {seed}": (range(1, len(c) + 1), c) for seed, c in zip(seeds, curves)})]
    path = os.path.join("results", "language" + "".join(flags).replace("--", "-") + ".json")
    if os.path.exists(path):  # the experiment `language`: what the reward does about it
        found = read(path)
        panels.append(("Dev2 with and without the language reward", "", {name: (row["language_consistency"], found["sd"][name]["language_consistency"]) for name, row in found["mean"].items()}))
    return conclude("mixing", seeds, flags, runs, claims, panels)


def both(seed: int, flags: list[str]) -> dict[str, dict[str, evaluation.Report]]:
    """Many samples of a seed's base and Zero, {model: {task: Report}}: 16 times the usual samples, for half the problems; kept in runs/findings."""
    folder, cfg = zero_folder(seed, flags), make(seed, flags)
    cfg.eval = replace(cfg.eval, k=16 * cfg.eval.k, problems=max(1, cfg.eval.problems // 2), rows=1024)
    out = run_folder("findings/passk", seed, flags)
    os.makedirs(out, exist_ok=True)
    return {name: train_r1.evaluate_stage(cfg, name, os.path.join(folder, *model), os.path.join(out, f"{name}.json"), cfg.grpo.tasks if flags else REASONING)
            for name, model in (("base", ("base", "model")), ("Zero", ("model",)))}


def blind(p: Problem, level: int) -> float:
    """The chance that a guess is right which knows what answers look like: a number up to the level's, a name of the puzzle, an expression of the numbers."""
    if p.task == "countdown":
        rng, numbers = random.Random(p.prompt), p.tests["numbers"]
        return statistics.fmean(data.random_expression(rng, numbers, data.COUNTDOWN[level]["value"])[1] == p.tests["target"] for _ in range(1000))
    return {"arithmetic": 1 / (data.ARITHMETIC[level]["most"] + 1), "logic": 1 / len(set(re.findall("[A-Z](?![a-z])", p.prompt)) or "?"), "code": 0.0}[p.task]


def passk(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """pass@k of base against Zero up to k = 256 beside blind guessing, on tasks that Zero was trained on and others: new abilities or sharper ones? (full 20 minutes, quick 1)"""
    found = [both(seed, flags) for seed in seeds]
    runs = [{f"{name}, {task}": {str(k): v for k, v in r.pass_at.items()} for name, tasks in reports.items() for task, r in tasks.items()} for reports in found]
    tasks, trained = list(found[0]["base"]), make(0, flags).grpo.tasks
    ks = sorted(map(int, runs[0][f"base, {tasks[0]}"]))
    cfg, claims = make(0, flags), []
    for task in tasks:
        chances = [blind(p, cfg.world.level) for p in evaluation.held_out(cfg.world, replace(cfg.eval, problems=found[0]["base"][task].problems), (task,))[task]]
        guessed = {str(k): statistics.fmean(1 - (1 - c) ** k for c in chances) for k in ks}
        for row in runs:
            row[f"blind, {task}"] = guessed
        most = max((k for k in ks if guessed[str(k)] < 0.5), default=1)  # beyond, most right answers need no ability
        what = f"{task}{'' if task in trained else ' (not trained)'}"
        claims.append(compare(f"{what}: Zero is above the base at k = 1", "RL raises pass@1 [2504.13837]", of(runs, f"Zero, {task}", "1"), of(runs, f"base, {task}", "1")))
        if most > 1:
            claims.append(compare(f"{what}: at k = {most}, the largest at which blind guessing finds under half, the base is above Zero", "at large k the base is above [2504.13837]",
                                  of(runs, f"base, {task}", str(most)), of(runs, f"Zero, {task}", str(most))))
    means, _ = over_seeds(runs)
    panels = [(f"pass@k, {t}", "log2 k", {name: ([math.log2(k) for k in ks], [means[f"{name}, {t}"][str(k)] for k in ks]) for name in ("base", "Zero", "blind")}) for t in tasks]
    return conclude("passk", seeds, flags, runs, claims, panels)


def voting(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Majority voting on top of Zero: cons@N against N (full 20 minutes, next to none after `passk`; quick 1)"""
    runs: list[dict] = []
    for seed in seeds:
        cfg, reports = make(seed, flags), both(seed, flags)["Zero"]
        sets = evaluation.held_out(cfg.world, replace(cfg.eval, problems=next(iter(reports.values())).problems), cfg.grpo.tasks)
        ns = [2**i for i in range(next(iter(reports.values())).k.bit_length() - 2)]  # up to a quarter of the samples: each vote is the mean over at least four
        runs.append({task: {str(n): evaluation.summarise([p for p in sets[task] for _ in range(r.k // n)], r.samples, n).cons for n in ns} for task, r in reports.items() if task in sets})
    most = str(ns[-1])
    claims = [compare(f"{task}: the majority of {most} is right more often than one answer", "AIME 86.7 with 64 against 71.0 [R1 v1]", of(runs, task, most), of(runs, task, "1")) for task in runs[0]]
    means, _ = over_seeds(runs)
    return conclude("voting", seeds, flags, runs, claims, [("right answers of the majority of N", "log2 N", {task: ([math.log2(n) for n in ns], list(row.values())) for task, row in means.items()})])


# ---------------------------------------------------------------------------------------------- teaching, searching, cheating


def search(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Spending more at inference on Zero: prompts, votes, reward models, beams, trees, forced thinking (full 40 minutes, quick 3)"""
    runs, curves, judges = [], [], []
    for seed in seeds:
        out, model = run_folder("findings/search", seed, flags), os.path.join(zero_folder(seed, flags), "model")
        recipe("search.py", seed, out, "search.json", [model, *(flags or ["--problems", "32", "--preference.epochs", "4"])])
        content = read(out, "search.json")
        runs.append({f"{row['method']}, {row['budget']}": {"accuracy": row["accuracy"], "tokens": row["tokens"]} for row in content["table"]})
        judges.append(content["reward_models"])
        curves.append({name: [(r["tokens"], r["accuracy"]) for r in content["table"] if r["method"] == name] for name in dict.fromkeys(r["method"] for r in content["table"])})
    budgets = {name: [key for key in runs[0] if key.startswith(f"{name}, ")] for name in curves[0]}
    a = {name: (of(runs, keys[0]), of(runs, keys[-1])) for name, keys in budgets.items()}  # the least and the most that was spent
    spent = {name: [statistics.fmean(of(runs, keys[i], "tokens")) for i in (0, -1)] for name, keys in budgets.items()}
    reranks, trees = "a PRM reranks and guides well, at a cost [R1 v1 4.2]", "MCTS can help with a good value model [R1 v1 4.2]"

    def beats(name: str, which: int, rival: str, other: int, how: str, paper: str) -> dict[str, str]:
        return compare(f"{how} ({spent[name][which]:.0f} tokens against {spent[rival][other]:.0f})", paper, a[name][which], a[rival][other])

    claims = [beats("voting", 1, "zero-shot", 0, "voting: the most samples beat one answer", "AIME 86.7 with 64 against 71.0 [R1 v1]"),
              beats("outcome", 1, "voting", 1, "best of N by the outcome model beats voting, at the most samples", "MATH 72.4 against 69.6, of 1,860 [2305.20050]"),
              beats("process-least", 1, "voting", 1, "best of N by the process model beats voting, at the most samples", f"MATH 78.2 against 69.6, of 1,860 [2305.20050]; {reranks}"),
              compare("with more samples the process model chooses worse", "reward hacking [R1 v1 4.2]", a["process-least"][0], a["process-least"][1]),
              beats("beam", 1, "zero-shot", 0, "the widest beam beats one answer", reranks),
              beats("tree", 1, "tree", 0, "more simulations help tree search", trees),
              beats("tree", 1, "voting", 1, "the largest tree beats voting with the most samples", trees),
              compare("worked examples in the prompt hurt", "few-shot prompts hurt [R1 v1 5]", a["zero-shot"][0], a["few-shot"][1]),
              beats("wait", 0, "zero-shot", 0, "'wait' improves the answer", "AIME 50 to 57 [s1 2501.19393]"),
              beats("cut", 1, "cut", 0, "a larger budget of thinking before the cut is better", "accuracy grows with thinking time [s1 2501.19393]")]
    means = {name: ([math.log2(statistics.fmean(c[name][i][0] for c in curves)) for i in range(len(keys))],
                    [statistics.fmean(c[name][i][1] for c in curves) for i in range(len(keys))]) for name, keys in budgets.items()}
    return conclude("search", seeds, flags, runs, claims, [("accuracy on four tasks", "log2 of the tokens spent on a problem", means)], reward_models=judges)


def journeys(cfg, count: int) -> dict[str, list[dict]]:
    """`count` texts of the world's people for each way of telling, about the same problems, all right and in form.

    "journey": with slips that are caught, and Countdown's vain attempts; "shortcut": the same without.
    """
    shown = dict(tasks=cfg.grpo.tasks, direct=0.0, direct_countdown=0.0, tags=1.0, broken_tags=0.0, unfinished=0.0, mixed=0.0, uncaught=0.0, careless=0.0)
    worlds = {name: World(cfg.seed, replace(cfg.world, **shown, slip=slip)) for name, slip in (("journey", 0.3), ("shortcut", 0.0))}
    rows: dict[str, list[dict]] = {name: [] for name in worlds}
    index = 1_000_000  # far from the base's corpus
    while len(rows["journey"]) < count:
        told = {name: world.text(index) for name, world in worlds.items()}
        index += 1
        if not rw.reflection_words(told["journey"][1]) or any(rw.thinking(text).endswith(("give up", "算了")) for _, text in told.values()):
            continue
        for name, (prompt, text) in told.items():
            if name == "shortcut" and prompt.startswith(("Use ", "用")):  # Countdown: the attempt that fits alone
                text = "<think>" + text.rpartition("</think>")[0].rpartition(",")[2].removeprefix("<think>") + "</think>" + text.rpartition("</think>")[2]
            rows[name].append({"prompt": prompt, "response": text})
    return rows


def journey(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Fine-tuning on traces with caught mistakes against clean ones; a tenth of Zero's clean answers against all (full 15 minutes, quick 2)"""
    runs: list[dict] = []
    for seed in seeds:
        cfg, zero = make(seed, flags), zero_folder(seed, flags)
        base, out = os.path.join(zero, "base", "model"), run_folder("findings/journey", seed, flags)
        os.makedirs(out, exist_ok=True)
        sets = journeys(cfg, 100 if flags else 2000)
        world, count = World(cfg.seed, cfg.world), 100 if flags else 1000
        problems = [world.problem(cfg.grpo.tasks[i % len(cfg.grpo.tasks)], 800_000 + i) for i in range(count)]
        clean = train_r1.harvest(os.path.join(zero, "model"), problems, 4, 2, cfg, os.path.join(out, "clean.jsonl"), seed)
        sets |= {"all": clean, "tenth": clean[::10]}
        runs.append({"base": examine(cfg, base, run_folder("findings/base", seed, flags))})
        for name, rows in sets.items():
            folder, epochs = os.path.join(out, name), cfg.r1.epochs * (10 if name == "tenth" else 1)  # as many steps as with all
            model = train_r1.fine_tune(replace(cfg, r1=replace(cfg.r1, epochs=epochs)), base, rows, folder, True)
            runs[-1][name] = examine(cfg, model, folder) | {"examples": len(rows)}
    claims = [compare(f"{task}: traces with caught mistakes teach more than as many, shorter, clean ones", "8 points more on MATH with 327 examples [2410.18982]",
                      of(runs, "journey", task), of(runs, "shortcut", task)) for task in cfg.grpo.tasks]
    claims += [compare("a small set of rejection-sampled answers beats the base", "17k answers make o1-preview's level [Sky-T1]; R1: 800k", of(runs, "tenth"), of(runs, "base")),
               compare("it is about as good as ten times as many", "17k answers make o1-preview's level [Sky-T1]; R1: 800k", of(runs, "tenth"), of(runs, "all"), CLOSE)]
    return conclude("journey", seeds, flags, runs, claims, keys=("accuracy", "format", "length", "reflection"))


def tries(text: str) -> int:
    """Attempts at Countdown that a response compares with the target."""
    return len(re.findall(r"want|要", rw.thinking(text)))


def search_figures(r: evaluation.Report) -> dict[str, float]:
    """How a model searches: tries a response; right answers among those with a second try; answers that are right within 3 and 10 tries."""
    drawn = [(tries(s["response"]), s["correct"]) for s in r.samples]
    retried = [right for n, right in drawn if n > 1]
    within = {f"right_within_{most}": statistics.fmean(right and n <= most for n, right in drawn) for most in (3, 10)}
    return {"accuracy": r.pass1, "length": r.mean_length, "tries": statistics.fmean(n for n, _ in drawn), "retries": len(retried) / len(drawn),
            "right_if_retried": statistics.fmean(retried) if retried else 0.0} | within


def hits(r: evaluation.Report, most: int = 10) -> list[float]:
    """Of the responses that make an n-th try, the share for which it is the last and right, n = 1 .. most; nan where there are none."""
    drawn = [(tries(s["response"]), s["correct"]) for s in r.samples]
    reached = [[right and n == k for n, right in drawn if n >= k] for k in range(1, most + 1)]
    return [statistics.fmean(x) if x else math.nan for x in reached]


def countdown(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """Countdown alone, as TinyZero: does it learn to try, check and retry, and does thinking longer help? 60 steps (full 15 minutes, quick 2)"""
    runs, curves = [], []
    for seed in seeds:
        cfg, out = make(seed, flags, {"grpo.tasks": "countdown"}), run_folder("findings/countdown", seed, flags)
        if flags:  # the quick base has never seen Countdown
            own = make(seed, flags, {"world.tasks": "countdown", "world.direct_countdown": 0.3})
            own.sft.tokens *= 5
            base = sft.pretrain(own, os.path.join(out, "base"), True)
        else:
            cfg.grpo.steps, base = 60, base_of(seed, flags)
        reinforce(cfg, base, out)
        os.makedirs(os.path.join(out, "base"), exist_ok=True)
        reports = {name: train_r1.evaluate_stage(cfg, name, model, os.path.join(out, file), ("countdown",))["countdown"]
                   for name, model, file in (("base", base, os.path.join("base", "eval.json")), ("RL", os.path.join(out, "model"), "eval.json"))}
        runs.append({name: search_figures(r) for name, r in reports.items()})
        curves.append({name: hits(r) for name, r in reports.items()})
    paper = "3B learns to search and to check itself [TinyZero]"
    claims = [compare("RL raises accuracy", paper, of(runs, "RL"), of(runs, "base")),
              compare("it tries more often (tries a response)", paper, of(runs, "RL", "tries"), of(runs, "base", "tries"), unit=1),
              compare("of responses that try again, more end right", paper, of(runs, "RL", "right_if_retried"), of(runs, "base", "right_if_retried")),
              compare("thinking longer helps: right within ten tries against within three", "accuracy grows with thinking time [R1 v1]",
                      of(runs, "RL", "right_within_10"), of(runs, "RL", "right_within_3"))]
    panels = [("share of n-th tries that hit", "n", {m: (range(1, 11), mean_curve([c[m] for c in curves])) for m in runs[0]})]
    return conclude("countdown", seeds, flags, runs, claims, panels, ("accuracy", "tries", "right_if_retried"), hit_rates=[{m: [None if math.isnan(v) else v for v in c] for m, c in curve.items()} for curve in curves])


def hacking(seeds: list[int], flags: list[str]) -> tuple[dict, str]:
    """The preference reward kept on too long: R1's last stage for 80 steps more, with it and without, judged by the reward model and by the world (full 30 minutes, quick 3)"""
    runs, curves = [], []
    for seed in seeds:
        r1 = run_folder("r1", seed, flags)
        recipe("train_r1.py", seed, r1, "stages.json", ["--zero", zero_folder(seed, flags), *flags])
        cfg, out, model = make(seed, flags), run_folder("findings/hacking", seed, flags), os.path.join(r1, "r1", "model")
        os.makedirs(out, exist_ok=True)
        judge = preference.Judge({kind: os.path.join(r1, kind, "model") for kind in preference.KINDS}, parallel.device(cfg.device), parallel.dtype(cfg))
        n = round(cfg.r1.general * cfg.grpo.problems_per_step)
        models = {"R1": model}
        for name, own in (("with", judge), ("without", None)):
            folder = os.path.join(out, name)
            models[name] = os.path.join(folder, "model")
            if not os.path.exists(os.path.join(models[name], "config.json")):
                train_r1.reinforce(cfg, model, folder, True, "r1", 2 if flags else 80, 700_000, lambda step, n=n: n, own)
        reports = {name: train_r1.evaluate_stage(cfg, name, folder, os.path.join(out, f"{name}.json")) for name, folder in models.items()}
        requests: list[Problem] = evaluation.held_out(cfg.world, cfg.eval, ("general",))["general"]
        figures = evaluation.stage_figures(reports)
        for name, tasks in reports.items():
            scores = judge([requests[s["problem"]] for s in tasks["general"].samples], [s["response"] for s in tasks["general"].samples])
            figures[name] = {k: figures[name][k] for k in ("reasoning", "helpfulness", "declined_harmless")} | {"score": statistics.fmean(s["helpful"] for s in scores)}
        runs.append(figures)
        curves.append([row["rewards/helpful/mean"] for row in metrics(os.path.join(out, "with"))])
    paper = "the reward goes on up while Codeforces falls [R1 v2 figure 6]"
    claims = [compare("the reward model's score goes on up", paper, of(runs, "with", "score"), of(runs, "R1", "score")),
              compare("helpfulness by the world's own rules falls", "long training on it invites reward hacking [R1 v2]", of(runs, "R1", "helpfulness"), of(runs, "with", "helpfulness")),
              compare("helpfulness ends below that of as many steps without the preference reward", "long training on it invites reward hacking [R1 v2]",
                      of(runs, "without", "helpfulness"), of(runs, "with", "helpfulness")),
              compare("reasoning falls", paper, of(runs, "R1", "reasoning"), of(runs, "with", "reasoning")),
              compare("reasoning ends below that of as many steps without the preference reward", paper, of(runs, "without", "reasoning"), of(runs, "with", "reasoning"))]
    y = mean_curve(curves)
    panels = [("the reward model's score in training", "step", {"with": (range(1, len(y) + 1), y)})]
    return conclude("hacking", seeds, flags, runs, claims, panels, ("score", "helpfulness", "reasoning"))
