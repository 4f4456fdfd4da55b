"""Controls of Zero: the same base with other rewards, or taught without reinforcement learning."""

import os
import random
from dataclasses import replace
from itertools import groupby
from statistics import fmean

import rejection
import rewards as rw
import sft
import train_r1
from data import Problem, World
from experiments import common
from experiments.common import CLAIMS, Plan, conclude, metrics
from lib import files
from tasks import countdown

# The rules' weights of each reward; a name of JUDGES adds that one
REWARDS = {"accuracy and format": {}, "accuracy alone": {"rewards.format": 0}}
for name in ("format alone", "coin", "wrong answers", "majority"):
    REWARDS[name] = {"rewards.accuracy": 0}


def coin(problems: list[Problem], texts: list[str]) -> list[dict[str, float]]:
    """1 for one response in two, whatever it says: drawn anew for every rollout."""
    rng = random.Random("".join(texts))
    return [{"coin": float(rng.random() < 0.5)} for _ in texts]


def wrong(problems: list[Problem], texts: list[str]) -> list[dict[str, float]]:
    """1 for an answer that is wrong."""
    answers = [rw.answer_of(p, t) for p, t in zip(problems, texts)]
    right = rw.verdicts(problems, answers)
    return [{"wrong": float(a is not None and not r)} for a, r in zip(answers, right)]


def majority(problems: list[Problem], texts: list[str]) -> list[dict[str, float]]:
    """1 for the answer that most of the group give, right or not [TTRL, 2504.16084]."""
    out, place = [], 0
    for _, same in groupby(problems, key=id):
        group = list(same)
        answers = [rw.answer_of(p, t) for p, t in zip(group, texts[place : place + len(group)])]
        most, place = rw.majority(group[0], answers), place + len(group)
        asked = [replace(p, answer=most or "") for p in group]
        if group[0].task == "countdown":  # whose rule does not look at the answer
            agree = [a is not None and a == most for a in answers]
        else:
            agree = rw.verdicts(asked, answers) if most else [False] * len(group)
        out += [{"majority": float(ok)} for ok in agree]
    return out


JUDGES = {"coin": coin, "wrong answers": wrong, "majority": majority}
# the world's settings for texts that reason, in form, without a slip
CLEAN = dict.fromkeys(("forgets", "slip", "broken_tags", "mixed", "unfinished"), 0.0)
CLEAN |= {"reasoned": 1.0, "tags": 1.0}


def clean_texts(cfg, count: int) -> list[dict[str, str]]:
    """Texts of the corpus's kind about other problems: reasoned, in form, without a slip, right."""
    world = World(cfg.seed, replace(cfg.world, tasks=cfg.grpo.tasks, **CLEAN))
    given_up = tuple(words["end"] for words in countdown.WORDS.values())
    rows, index = [], 1_000_000  # far from the base's corpus
    while len(rows) < count:
        prompt, text = world.text(index)
        index += 1
        if not rw.thinking(text).endswith(given_up):
            rows.append({"prompt": prompt, "response": text})
    return rows


def ways(out: str) -> dict[str, float]:
    """How a model works, from the evaluation in the folder `out`: the share that reasons, accuracy
    of what reasons and ends (means over tasks; 0 if nothing does), and errors put right, of
    sums, in a response that reasons and ends."""
    reports = files.load_json(f"{out}/eval.json")["reports"].values()
    row = {"reasoned": fmean(r["reasoned"] for r in reports)}
    row["right_reasoned"] = fmean(r["right_reasoned"] or 0.0 for r in reports)
    return row | {"righted": sum(r["did"].get("righted", 0.0) for r in reports)}


def examine(cfg, model: str, out: str) -> dict[str, float]:
    return common.examine(cfg, model, out) | ways(out)


def rejection_rounds(cfg, base: str, out: str, rounds: int, problems: int) -> dict[str, float]:
    """Figures of rejection-sampling fine-tuning [RFT 2308.01825, STaR 2203.14465]: each round
    samples the last model on new problems and teaches the base what was right."""
    model, world, tokens, rows = base, World(cfg.seed, cfg.world), 0, []
    tasks = cfg.grpo.tasks
    for n in range(rounds):
        first = 800_000 + n * problems
        asked = [world.problem(tasks[i % len(tasks)], first + i) for i in range(problems)]
        path = f"{out}/round{n + 1}.jsonl"
        rows += rejection.harvest(model, asked, 8, 2, cfg, path, cfg.seed)
        length = common.examine(cfg, model, f"{out}/before{n + 1}")["length"]  # of what is sampled
        model = train_r1.fine_tune(cfg, base, rows, f"{out}/round{n + 1}", True)
        tokens += length * 8 * problems
        tokens += sum(r["num_tokens"] for r in metrics(f"{out}/round{n + 1}"))
    return examine(cfg, model, f"{out}/round{rounds}") | {"tokens": tokens}


def controls(plan: Plan):
    """What teaches? Accuracy, format, a coin, wrong answers, the majority; rejection sampling,
    clean texts, more pretraining (full 22 minutes a seed, quick 3)"""
    runs: list[dict] = []
    for seed in plan.seeds:
        cfg, base = plan.config(seed), plan.base(seed)
        runs.append({"base": examine(cfg, base, plan.folder("findings/base", seed))})
        for name, settings in REWARDS.items():
            out = plan.folder(f"findings/controls/{name.replace(' ', '-')}", seed)
            varied = plan.config(seed, settings)
            runs[-1][name] = common.reinforce(varied, base, out, JUDGES.get(name)) | ways(out)
        tokens = runs[-1]["accuracy and format"]["tokens"]
        out = plan.folder("findings/controls/rejection", seed)
        os.makedirs(out, exist_ok=True)
        count = (2, 100) if plan.quick else (3, 1000)
        runs[-1]["rejection sampling"] = rejection_rounds(cfg, base, out, *count)
        out = plan.folder("findings/controls/clean", seed)
        rows = clean_texts(cfg, 100 if plan.quick else 2000)
        model = train_r1.fine_tune(cfg, base, rows, out, True)
        learnt = sum(r["num_tokens"] for r in metrics(out))
        runs[-1]["clean texts"] = examine(cfg, model, out) | {"tokens": learnt}
        longer = plan.config(seed)
        longer.sft.tokens = tokens + sum(r["num_tokens"] for r in metrics(os.path.dirname(base)))
        out = plan.folder("findings/controls/pretraining", seed)
        model = sft.pretrain(longer, out, True)
        runs[-1]["more pretraining"] = examine(cfg, model, out) | {"tokens": tokens}
        runs[-1]["base"]["tokens"] = 0
    means, _ = common.over_seeds(runs)
    points = {name: ([row["tokens"] / 1e6], [row["accuracy"]]) for name, row in means.items()}
    panels = [("accuracy against tokens sampled and learnt, millions", "tokens", points)]
    keys = ("accuracy", "format", "right_reasoned")
    return conclude(plan, runs, CLAIMS["controls"], panels, keys)
