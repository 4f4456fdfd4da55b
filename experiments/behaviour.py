"""What Zero became: pass@k, spending more at inference, cheating the reward model."""

import math
import os
import re
import statistics
from dataclasses import replace

import preference
import stages
import train_r1
from data import REASONING, TASKS, Problem
from eval import Report, held_out
from experiments import common
from experiments.common import CLAIMS, Plan, conclude, mean_curve, metrics
from experiments.search import QUICK
from lib import distributed, files
from tasks.behaviour import blind_hits


def many_samples(plan: Plan, seed: int) -> dict[str, dict[str, Report]]:
    """{model: {task: Report}} of a seed's base and Zero: 16 times the usual samples, for half the
    problems; in runs/findings."""
    zero, cfg, out = plan.zero(seed), plan.config(seed), plan.folder("findings/passk", seed)
    problems = max(1, cfg.eval.problems // 2)
    cfg.eval = replace(cfg.eval, k=16 * cfg.eval.k, problems=problems, rows=1024)
    os.makedirs(out, exist_ok=True)
    tasks, reports = cfg.grpo.tasks if plan.quick else REASONING, {}
    for name, model in (("base", f"{zero}/base/model"), ("Zero", f"{zero}/model")):
        reports[name] = stages.evaluate_stage(cfg, name, model, f"{out}/{name}.json", tasks)
    return reports


def blind(p: Problem, level: int) -> float:
    """The chance that a guess is right which knows what answers look like: a number up to the
    level's, a name of the puzzle, an expression of the numbers."""
    task = TASKS[p.task]
    if p.task == "countdown":
        return blind_hits(p, level, 1000)
    if p.task == "logic":
        return 1 / len(set(re.findall("[A-Z](?![a-z])", p.prompt)) or "?")
    return 1 / (task.LEVELS[level]["most"] + 1) if p.task == "arithmetic" else 0.0


def passk(plan: Plan):
    """pass@k of base against Zero up to k = 256 beside blind guessing, on tasks that Zero was
    trained on and others: new abilities or sharper ones? (full 20 minutes, quick 1)"""
    found, runs, text = [many_samples(plan, seed) for seed in plan.seeds], [], ""
    for models in found:
        pairs = [(f"{name}, {t}", r) for name, tasks in models.items() for t, r in tasks.items()]
        runs.append({name: {str(k): v for k, v in r.pass_at.items()} for name, r in pairs})
    base, cfg, panels = found[0]["base"], plan.config(0), []
    ks = sorted(map(int, next(iter(base.values())).pass_at))  # texts, if read from a file
    for task, r in base.items():
        problems = held_out(cfg.world, replace(cfg.eval, problems=r.problems), (task,))[task]
        chances = [blind(p, cfg.world.level) for p in problems]
        guessed = {str(k): statistics.fmean(1 - (1 - c) ** k for c in chances) for k in ks}
        for run in runs:
            run[f"blind, {task}"] = guessed
        most = max((k for k in ks if guessed[str(k)] < 0.5), default=1)  # beyond, guessing does it
        what = task if task in cfg.grpo.tasks else f"{task} (not trained)"
        claimed = CLAIMS["passk above"] + CLAIMS["passk below"] * (most > 1)
        text += claimed.format(task, what, most)
    means, _ = common.over_seeds(runs)
    for task in base:
        log, names = [math.log2(k) for k in ks], ("base", "Zero", "blind")
        lines = {name: (log, [means[f"{name}, {task}"][str(k)] for k in ks]) for name in names}
        panels.append((f"pass@k, {task}", "log2 k", lines))
    return conclude(plan, runs, text, panels)


def search(plan: Plan):
    """Spending more at inference on Zero: prompts, votes, reward models, beams, trees, forced
    thinking (full 40 minutes, quick 3)"""
    runs: list[dict] = []
    for seed in plan.seeds:
        flags = [] if plan.quick else ["--problems", "32"]
        script, model = "-m experiments.search", f"{plan.zero(seed)}/model"
        # its picture is drawn last; search.json is there after the first method
        out = plan.recipe(script, "findings/search", seed, "search.png", QUICK, model, *flags)
        runs.append({})
        content = files.load_json(f"{out}/search.json")
        for r in content["table"]:
            row = {k: r[k] for k in ("accuracy", "tokens")} | r["tasks"]
            runs[-1][f"{r['method']}, {r['budget']}"] = row
        for r in content["right_among_samples"]:
            row = {k: r[k] for k in ("accuracy", "tokens")}
            runs[-1][f"a right one among, {r['samples']}"] = row
    means, _ = common.over_seeds(runs)
    ends, lines = {}, {}  # ends: the least and the most that each method was given to spend
    for name, row in means.items():
        method = name.split(", ")[0]
        ends.setdefault(f"{method} least", name)
        ends[f"{method} most"] = name
        x, y = lines.setdefault(method, ([], []))
        x.append(math.log2(row["tokens"]))
        y.append(row["accuracy"])
    text = []
    for line in CLAIMS["search"].strip().split("\n"):
        for end in sorted(ends, key=len, reverse=True):
            line = line.replace(end, ends[end])
        a, b = (f"{means[side]['tokens']:.0f}" for side in line.partition(": ")[0].split(" > "))
        text.append(line.replace("(tokens)", f"({a} tokens against {b})"))
    panels = [("accuracy on four tasks", "log2 of the tokens spent on a problem", lines)]
    return conclude(plan, runs, "\n".join(text), panels)


def hacking(plan: Plan):
    """The preference reward kept on too long: R1's last stage for 80 steps more, with it and
    without, judged by the reward model and by the world (full 30 minutes, quick 3)"""
    runs, curves, steps = [], [], 2 if plan.quick else 80
    for seed in plan.seeds:
        cfg, r1, out = plan.config(seed), plan.r1(seed), plan.folder("findings/hacking", seed)
        os.makedirs(out, exist_ok=True)
        folders = {kind: f"{r1}/{kind}/model" for kind in preference.KINDS}
        device, dtype = distributed.device(cfg.device), distributed.dtype(cfg)
        judge = preference.Judge(folders, device, dtype)
        cfg.r1.steps = cfg.r1.preference_steps = steps  # general requests in every step
        judges = {"with": judge, "without": lambda problems, texts: [{} for _ in texts]}
        start, models, reports = f"{r1}/r1/model", {"R1": f"{r1}/r1/model"}, {}
        for name, of_requests in judges.items():
            given = start, f"{out}/{name}", True, "hacking", cfg.r1.language, of_requests
            models[name] = train_r1.reinforce(cfg, *given)
        for name, model in models.items():
            reports[name] = stages.evaluate_stage(cfg, name, model, f"{out}/{name}.json")
        requests = held_out(cfg.world, cfg.eval, ("general",))["general"]
        runs.append({})
        for name, row in stages.stage_figures(reports).items():
            samples = reports[name]["general"].samples
            problems = [requests[s["problem"]] for s in samples]
            scores = judge(problems, [s["response"] for s in samples])
            keys = ("reasoning", "helpfulness", "declined_harmless")
            runs[-1][name] = {key: row[key] for key in keys}
            runs[-1][name]["score"] = statistics.fmean(s["helpful"] for s in scores)
        curves.append([row["rewards/helpful/mean"] for row in metrics(f"{out}/with")])
    panel = ("the reward model's score in training", "step", {"with": mean_curve(curves)})
    keys = ("score", "helpfulness", "reasoning")
    return conclude(plan, runs, CLAIMS["hacking"], [panel], keys)
