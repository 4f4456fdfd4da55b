"""What Zero became; searching at inference, teaching by traces, cheating the reward model."""

import math
import os
import random
import re
import statistics
from dataclasses import replace

import inputs
import preference
import rejection
import rewards as rw
import stages
import train_r1
from data import REASONING, TASKS, Problem, World
from eval import Report, held_out
from experiments import common
from experiments.common import CLAIMS, Plan, claims, conclude, mean_curve, metrics
from experiments.search import QUICK
from lib import distributed, files
from sft import pretrain


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
        rng, most = random.Random(p.prompt), task.LEVELS[level]["value"]
        drawn = (task.random_expression(rng, p.tests["numbers"], most) for _ in range(1000))
        return statistics.fmean(value == p.tests["target"] for _, value in drawn)
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
    for task, r in base.items():
        ks = sorted(map(int, runs[0][f"base, {task}"]))
        problems = held_out(cfg.world, replace(cfg.eval, problems=r.problems), (task,))[task]
        chances = [blind(p, cfg.world.level) for p in problems]
        guessed = {str(k): statistics.fmean(1 - (1 - c) ** k for c in chances) for k in ks}
        for run in runs:
            run[f"blind, {task}"] = guessed
        most = max((k for k in ks if guessed[str(k)] < 0.5), default=1)  # beyond, guessing does it
        what = task if task in cfg.grpo.tasks else f"{task} (not trained)"
        text += (CLAIMS["passk above"] + CLAIMS["passk below"] * (most > 1)).format(
            task, what, most
        )
    means, _ = common.over_seeds(runs)
    for task in base:
        log, names = [math.log2(k) for k in ks], ("base", "Zero", "blind")
        lines = {name: (log, [means[f"{name}, {task}"][str(k)] for k in ks]) for name in names}
        panels.append((f"pass@k, {task}", "log2 k", lines))
    return conclude(plan, runs, claims(runs, text), panels)


def search(plan: Plan):
    """Spending more at inference on Zero: prompts, votes, reward models, beams, trees, forced
    thinking (full 40 minutes, quick 3)"""
    runs: list[dict] = []
    for seed in plan.seeds:
        flags = [] if plan.quick else ["--problems", "32", "--preference.epochs", "4"]
        script, model = "-m experiments.search", f"{plan.zero(seed)}/model"
        out = plan.recipe(script, "findings/search", seed, "search.json", QUICK, model, *flags)
        runs.append({})
        for r in files.load_json(f"{out}/search.json")["table"]:
            row = {k: r[k] for k in ("accuracy", "tokens")}
            runs[-1][f"{r['method']}, {r['budget']}"] = row
    means, _ = common.over_seeds(runs)
    ends, lines = {}, {}  # ends: the least and the most that each method was given to spend
    for name, row in means.items():
        method = name.split(", ")[0]
        ends.setdefault(f"{method} least", name)
        ends[f"{method} most"] = name
        x, y = lines.setdefault(method, ([], []))
        x.append(math.log2(row["tokens"]))
        y.append(row["accuracy"])
    named = [{end: run[name] for end, name in ends.items()} for run in runs]
    rows = claims(named, CLAIMS["search"])
    # (tokens) in a claim becomes what both sides spent
    for row, sides in zip(rows, re.findall(r"^(\S.*) > (.*?): ", CLAIMS["search"], re.M)):
        a, b = (f"{means[ends[end]]['tokens']:.0f}" for end in sides)
        row["claim"] = row["claim"].replace("(tokens)", f"({a} tokens against {b})")
    panels = [("accuracy on four tasks", "log2 of the tokens spent on a problem", lines)]
    return conclude(plan, runs, rows, panels)


def journeys(cfg, count: int) -> dict[str, list[dict]]:
    """`count` texts about the same problems, right and in form, for each of two ways to tell:
    "journey", with caught mistakes and vain attempts, and "shortcut", without."""
    never = "direct direct_countdown broken_tags unfinished mixed uncaught careless"
    settings = dict.fromkeys(never.split(), 0.0) | {"tasks": cfg.grpo.tasks, "tags": 1.0}
    worlds = [World(cfg.seed, replace(cfg.world, slip=s, **settings)) for s in (0.3, 0.0)]
    rows = {"journey": [], "shortcut": []}
    index = 1_000_000  # far from the base's corpus
    while len(rows["journey"]) < count:
        (prompt, long), (_, brief) = (world.text(index) for world in worlds)
        index += 1
        given_up = any(rw.thinking(text).endswith(("give up", "算了")) for text in (long, brief))
        if given_up or not rw.reflection_words(long):
            continue
        if prompt.startswith(("Use ", "用")):  # Countdown: the attempt that fits alone
            thought, _, rest = brief.rpartition("</think>")
            brief = f"<think>{thought.rpartition(',')[2].removeprefix('<think>')}</think>{rest}"
        for name, text in zip(rows, (long, brief)):
            rows[name].append({"prompt": prompt, "response": text})
    return rows


def journey(plan: Plan):
    """Fine-tuning on traces with caught mistakes against clean ones; a tenth of Zero's clean
    answers against all (full 15 minutes, quick 2)"""
    runs: list[dict] = []
    for seed in plan.seeds:
        cfg, zero, out = plan.config(seed), plan.zero(seed), plan.folder("findings/journey", seed)
        base, tasks, world = f"{zero}/base/model", cfg.grpo.tasks, World(cfg.seed, cfg.world)
        os.makedirs(out, exist_ok=True)
        sets, count = journeys(cfg, 100 if plan.quick else 2000), 100 if plan.quick else 1000
        problems = [world.problem(tasks[i % len(tasks)], 800_000 + i) for i in range(count)]
        path = f"{out}/clean.jsonl"
        sets["all"] = rejection.harvest(f"{zero}/model", problems, 4, 2, cfg, path, seed)
        sets["tenth"] = sets["all"][::10]
        runs.append({"base": common.examine(cfg, base, plan.folder("findings/base", seed))})
        for name, texts in sets.items():
            epochs = cfg.r1.epochs * (10 if name == "tenth" else 1)  # as many steps as with all
            tuned, folder = replace(cfg, r1=replace(cfg.r1, epochs=epochs)), f"{out}/{name}"
            model = train_r1.fine_tune(tuned, base, texts, folder, True)
            runs[-1][name] = common.examine(cfg, model, folder) | {"examples": len(texts)}
    rows = [row for task in tasks for row in claims(runs, CLAIMS["journey"].format(task))]
    keys = ("accuracy", "format", "length", "reflection")
    return conclude(plan, runs, rows + claims(runs, CLAIMS["journey tenth"]), keys=keys)


def tries(text: str) -> int:
    """Attempts at Countdown that a response compares with the target."""
    return len(re.findall(r"want|要", rw.thinking(text)))


def search_figures(r: Report) -> tuple[dict[str, float], list[float]]:
    """How a model searches: tries a response; right answers among those with a second try; answers
    that are right within 3 and 10 tries. And for n = 1 .. 10: of the responses that make an n-th
    try, the share for which it is the last and right; nan where there are none."""
    found = [(tries(s["response"]), s["correct"]) for s in r.samples]
    retried = [right for n, right in found if n > 1]
    row = {"accuracy": r.pass1, "length": r.mean_length}
    row |= {"tries": statistics.fmean(n for n, _ in found), "retries": len(retried) / len(found)}
    row["right_if_retried"] = statistics.fmean(retried) if retried else 0.0
    for most in (3, 10):
        row[f"right_within_{most}"] = statistics.fmean(right and n <= most for n, right in found)
    reached = [[right and n == k for n, right in found if n >= k] for k in range(1, 11)]
    return row, [statistics.fmean(hits) if hits else math.nan for hits in reached]


def countdown(plan: Plan):
    """Countdown alone, as TinyZero: does it learn to try, check and retry, and does thinking longer
    help? 60 steps (full 15 minutes, quick 2)"""
    runs, rates = [{} for _ in plan.seeds], [{} for _ in plan.seeds]
    for i, seed in enumerate(plan.seeds):
        cfg = plan.config(seed, {"grpo.tasks": "countdown"})
        out = plan.folder("findings/countdown", seed)
        if plan.quick:  # the quick base has never seen Countdown
            settings = {"world.tasks": "countdown", "world.direct_countdown": 0.3}
            larger = plan.config(seed, settings)
            larger.sft.tokens *= 5
            base = pretrain(larger, f"{out}/base", True)
        else:
            cfg.grpo.steps, base = 60, f"{plan.zero(seed)}/base/model"
        common.reinforce(cfg, base, out)
        os.makedirs(f"{out}/base", exist_ok=True)
        for name, model, folder in (("base", base, f"{out}/base"), ("RL", f"{out}/model", out)):
            where = name, model, f"{folder}/eval.json", ("countdown",)
            found = stages.evaluate_stage(cfg, *where)["countdown"]
            runs[i][name], rates[i][name] = search_figures(found)
    lines = {m: mean_curve([rate[m] for rate in rates]) for m in runs[0]}
    for rate in rates:  # JSON has no nan
        rate |= {m: [None if math.isnan(v) else v for v in y] for m, y in rate.items()}
    panels, keys = [("share of n-th tries that hit", "n", lines)], "accuracy tries right_if_retried"
    return conclude(
        plan, runs, claims(runs, CLAIMS["countdown"]), panels, keys.split(), hit_rates=rates
    )


def hacking(plan: Plan):
    """The preference reward kept on too long: R1's last stage for 80 steps more, with it and
    without, judged by the reward model and by the world (full 30 minutes, quick 3)"""
    runs, curves, steps = [], [], 2 if plan.quick else 80
    for seed in plan.seeds:
        plan.zero(seed)
        cfg, r1, out = plan.config(seed), plan.r1(seed), plan.folder("findings/hacking", seed)
        os.makedirs(out, exist_ok=True)
        folders = {kind: f"{r1}/{kind}/model" for kind in preference.KINDS}
        device, dtype = distributed.device(cfg.device), distributed.dtype(cfg)
        judge = preference.Judge(folders, device, dtype)
        cfg.r1.preference_steps = steps  # general requests in every step
        judges = {"with": judge, "without": lambda problems, texts: [{} for _ in texts]}
        start, models, reports = f"{r1}/r1/model", {"R1": f"{r1}/r1/model"}, {}
        for name, of_requests in judges.items():
            models[name] = f"{out}/{name}/model"
            if not inputs.is_model(models[name]):
                given = start, f"{out}/{name}", True, "r1", steps, 700_000, of_requests
                train_r1.reinforce(cfg, *given)
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
    return conclude(plan, runs, claims(runs, CLAIMS["hacking"]), [panel], keys)
