"""What is learnt from: how many problems, which ones, and what the base has read."""

import itertools
import random
import re
from dataclasses import replace

import stages
import train_r1
from data import TASKS, Problem, World, WorldConfig
from experiments import common
from experiments.common import CLAIMS, Plan, conclude
from experiments.controls import CLEAN
from experiments.settings import variant
from tasks.arithmetic import GAIN, LOSE

# generalise: training sees sums of the first verbs, and Countdown with targets up to MOST
VERBS = {"seen": (*GAIN[:2], *LOSE[:2]), "other": (*GAIN[2:], *LOSE[2:])}
MOST = 30


def few(plan: Plan):
    """How many problems does RL need? The first 1, 4, 16 or 64 sums of the world, asked again and
    again, or new ones each time (full 10 minutes a seed, quick 1)"""
    runs, counts = [], {"one": 1, "four": 4, "sixteen": 16, "sixty-four": 64, "new": None}
    for seed in plan.seeds:
        cfg, base = plan.config(seed, {"grpo.tasks": "arithmetic"}), plan.base(seed)
        runs.append({"base": common.examine(cfg, base, plan.folder("findings/base-sums", seed))})
        problems = World(seed, cfg.world).problems("arithmetic", 64)
        for name, count in counts.items():
            out, dataset = plan.folder(f"findings/sums-{name}", seed), count and problems[:count]
            runs[-1][name] = common.reinforce(cfg, base, out, dataset=dataset)
    return conclude(plan, runs, CLAIMS["few"], keys=("accuracy", "format", "length"))


def texts(plan: Plan):
    """What must the base have read? RL from bases of sums alone: the world's texts; none or one in
    twenty of which reasons; none of which checks; whose checks, where they find an error, put
    another in its place, so that texts which check are right less often. As many tokens of each,
    not as many texts, and a tokenizer for each (full 60 minutes a seed, quick 3)"""
    variants = {"default": {}, "no-reasoning": {"world.reasoned": 0.0}}
    variants |= {"little-reasoning": {"world.reasoned": 0.05}, "no-checks": {"world.checked": 0.0}}
    variants |= {"botched-checks": {"world.botched": 1.0}}
    keys = ("accuracy", "reasons", "checks", "righted", "numbers")
    return conclude(plan, common.from_nothing(plan, variants), CLAIMS["texts"], keys=keys)


def has_verb(prompt: str, which: str) -> bool:
    return any(word in prompt for verb in VERBS[which] for word in verb)


def in_slice(prompt: str) -> bool:
    """Whether post-training may see a problem."""
    if target := re.search(r"(?:make |算出)(\d+)", prompt):
        return int(target[1]) <= MOST
    return not has_verb(prompt, "other")


def slice_of(world: World, task: str, count: int) -> list[Problem]:
    """The first training problems of the slice."""
    every = (world.problem(task, i) for i in itertools.count())
    return list(itertools.islice((p for p in every if in_slice(p.prompt)), count))


def worked(world: World, problems: list[Problem], times: int) -> list[dict[str, str]]:
    """Clean texts about the problems, as many of each: reasoned, in form, without a slip, right."""
    rng, clean, rows = random.Random(f"{world.seed} worked"), replace(world.cfg, **CLEAN), []
    for p in problems * times:
        task, right = TASKS[p.task], False
        while not right:  # in Countdown some give up
            thought, answer = task.reasoned(rng, p, clean)
            [right] = task.judge([p], [answer])
        text = f"<think>{thought}</think><answer>{answer}</answer>"
        rows.append({"prompt": p.prompt, "response": text})
    return rows


def inside_and_outside(cfg) -> dict[str, list[Problem]]:
    """Held-out problems of the slice, and four kinds of others."""
    n, split, tasks = cfg.eval.problems, cfg.eval.split, ("arithmetic", "countdown")
    easy, hard = (World(0, WorldConfig(tasks=tasks, level=level)) for level in (1, 2))
    # one sum in fourteen has the first verbs alone, one in fourteen the others alone
    sums = easy.problems("arithmetic", 32 * n, split)
    searches = easy.problems("countdown", 8 * n, split)
    sets = {
        "same sums": [p for p in sums if not has_verb(p.prompt, "other")],
        "same Countdown": [p for p in searches if in_slice(p.prompt)],
        "other verbs": [p for p in sums if not has_verb(p.prompt, "seen")],
        "larger targets": [p for p in searches if not in_slice(p.prompt)],
        "longer sums": hard.problems("arithmetic", n, split),
        "four numbers": hard.problems("countdown", n, split),
    }
    return {name: problems[:n] for name, problems in sets.items()}


def figures_of(reports: dict) -> dict[str, float]:
    """Accuracy on each set, and of Countdown's the share of tries that hit."""
    out = {}
    for name, report in reports.items():
        key = name.replace(" ", "_")
        out[key] = report.pass1
        if report.task == "countdown":
            out[f"{key}_hits"] = report.did.get("hits_a_try", 0.0)
    return out


def generalise(plan: Plan):
    """SFT memorises, RL generalises? From one base and on the same slice of the problems, RL or
    clean texts about them; asked about problems like those, about the rest, and about harder ones
    (full 20 minutes a seed, quick 1)"""
    runs, sets = [], inside_and_outside(plan.config(0))
    for seed in plan.seeds:
        cfg, base = plan.config(seed), plan.base(seed)
        home, world = plan.folder("findings/generalise", seed), World(seed, cfg.world)
        count = cfg.grpo.steps * cfg.grpo.problems_per_step // 2  # RL asks each of them once
        problems = [p for task in cfg.grpo.tasks for p in slice_of(world, task, count)]
        common.reinforce(cfg, base, f"{home}/RL", dataset=problems)
        everything = plan.folder("findings/grpo", seed)  # as much RL on all problems
        common.reinforce(plan.config(seed, variant()), base, everything)
        taught = train_r1.fine_tune(cfg, base, worked(world, problems, 4), f"{home}/SFT", True)
        models = {"base": base, "RL": f"{home}/RL/model", "SFT": taught}
        models["RL-on-all"] = f"{everything}/model"
        runs.append({})
        for name, model in models.items():
            reports = stages.evaluate_stage(cfg, name, model, f"{home}/{name}.json", sets=sets)
            runs[-1][name] = figures_of(reports)
    # left the slice, right what lies outside
    keys = ["same_sums", "other_verbs", "same_Countdown", "larger_targets"]
    keys += ["same_Countdown_hits", "larger_targets_hits"]
    return conclude(plan, runs, CLAIMS["generalise"], keys=keys)
