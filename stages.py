"""What the recipes have in common: room for a run, models evaluated side by side, their figures."""

import contextlib
import json
import os
import time
from dataclasses import asdict, fields, replace

import eval as evaluation
import grpo
import inputs
from data import DEFAULT_TASKS, REASONING
from eval import Report
from lib import distributed, files, memory
from lib.errors import UserError
from lib.report import read_metrics
from lib.run import Journal, fingerprint, read_settings
from model import GPT
from tasks.benchmarks import check_sandbox


def settings_of(cfg, cls: type):
    """cfg with the sections of another script's Config only, as that script would have it."""
    return cls(**{f.name: getattr(cfg, f.name) for f in fields(cls)})


def own_base(cfg):
    """cfg for a base of R1's own."""
    settings = replace(cfg.sft, tokens=round(cfg.r1.pretraining * cfg.sft.tokens))
    world = replace(cfg.world, logic=cfg.r1.logic, minor=cfg.r1.minor)
    return replace(cfg, sft=settings, world=world)


def settings_to_lock(cfg, **models: str | None) -> dict:
    """What a recipe's results depend on: cfg, and the fingerprints of models in folders."""
    out = asdict(cfg) | {"eval": evaluation.sampling(cfg.eval)}
    out.pop("device")
    return out | {k: GPT.from_pretrained(m).fingerprint() for k, m in models.items() if m}


def check_read(cfg, name: str, tasks: tuple[str, ...]) -> None:
    """UserError if a base that is pretrained here would not read about a task that it is asked."""
    if unread := set(tasks) - set(cfg.world.tasks):
        msg = f"--{name} has {min(unread)}, which the base would never read about"
        raise UserError(f"{msg}: add it to --world.tasks, or leave it out")


def check_room(
    cfg,
    init: str | None,
    learnt: int,
    steps: int,
    sampled=0,
    problems=(),
    tasks=REASONING,
    added: float | None = None,
) -> None:
    """memory.check_room() of a recipe, and whether its programs can be run here. init: the folder
    of a model to start from; learnt: tokens of next-token training; sampled: responses to sample
    only; problems: of a data set, else the world's of the tasks; added: general requests to each
    in a rollout. The world's prompts count as 256 tokens, and three bytes of another as one."""
    check_sandbox({p.task for p in problems} or tasks, cfg.sandbox)
    most = round(cfg.grpo.problems_per_step * (1 + (added or 0)))
    cfg = replace(cfg, grpo=replace(cfg.grpo, problems_per_step=most))
    model = GPT.from_pretrained(init, device="meta") if init else GPT.empty(cfg.model)
    networks = 2 if grpo.ALGORITHMS[cfg.grpo.algorithm].critic else 1
    if cfg.lora.rank and networks > 1:
        msg = f"--algorithm {cfg.grpo.algorithm} has a critic, which is trained whole"
        raise UserError(f"{msg}: drop --lora.rank, or take an algorithm without one")
    prompt = max([256, *(len(p.prompt.encode()) // 3 for p in problems)])
    judges = 0 if added is None else 2  # preference.KINDS
    memory.check_room(cfg, model, learnt, steps, sampled, networks, prompt, judges)
    if not init:
        inputs.check_tokenizer(cfg)


def check_origin(out: str, models: dict[str, str]) -> None:
    """UserError if stages that are there come from other models than these."""
    path = os.path.join(out, "settings.json")
    if not os.path.exists(path):
        return
    before = read_settings(path)
    for name, flag in (("base", "--init"), ("zero", "--zero")):
        there = name in models and inputs.is_model(models[name])
        found = GPT.from_pretrained(models[name]).fingerprint() if there else None
        other = name in before and found != before[name]
        if other or (name in models and name not in before):  # it made a Zero itself
            raise UserError(f"'{out}' was made from another {name}: name it with {flag}")


def set_aside(out: str, later: list[str], judges: tuple[str, ...]) -> None:
    """Rename the stages `later` and what depends on them, so that they are made again. The last one
    goes first: a crash leaves no model without the one that it was made from."""
    *others, last = later
    names = ["stages.json", "stages.png", *(os.path.join("eval", f"{s}.json") for s in later)]
    names += [last, *judges, *others[::-1], "settings.json"]
    now = time.strftime("%Y%m%d-%H%M%S")
    for path in (os.path.join(out, name) for name in names):
        if distributed.is_main_process() and os.path.exists(path):
            os.rename(path, f"{path}-{now}")
            if path.endswith("settings.json"):
                print(f"stages before {later[0]} stay, with the settings in {path}-{now}")
    distributed.barrier()


def evaluate_stage(
    cfg, name: str, folder: str, path: str, tasks=DEFAULT_TASKS, sets: dict | None = None
) -> dict[str, Report]:
    """A model on the held-out problems of the tasks, or on other sets of problems, by name. The
    reports are saved in the JSON file `path` with all samples, and read from there if model and
    settings are the same."""
    settings = {"eval": asdict(cfg.eval), "world": asdict(cfg.world)} | cfg.asked
    settings["model"] = GPT.from_pretrained(folder, distributed.dtype(cfg)).fingerprint()
    if sets:
        settings["problems"] = fingerprint(sets)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        found = files.load_json(path)
        if found["settings"] == json.loads(json.dumps(settings)):
            return {task: Report(**r) for task, r in found["reports"].items()}
    sets = sets or evaluation.held_out(cfg.world, cfg.eval, tasks)
    journal = Journal(path, settings)
    reports = evaluation.evaluate_folder(cfg, folder, sets, 0, name, journal)
    saved = {task: asdict(r) for task, r in reports.items()}
    files.write_json(path, {"settings": settings, "reports": saved})
    journal.remove()
    return reports


def stage_figures(reports: dict[str, dict[str, Report]]) -> dict[str, dict[str, float]]:
    """Figures by name of each model, from model -> task -> Report in the order of the stages. In
    general requests a model is compared with the one before it and with the first one."""
    out, first, previous = {}, None, None
    for name, tasks in reports.items():
        reasoning = [r for task, r in tasks.items() if task in REASONING]
        row = {"reasoning": sum(r.pass1 for r in reasoning) / len(reasoning)}
        for r in reasoning:
            row |= {r.task: r.pass1, f"{r.task}_se": r.pass1_se, f"{r.task}_cons": r.cons}
            row[f"{r.task}_language"] = r.language_consistency
            row[f"{r.task}_length"] = r.mean_length
        for key in ("format", "language_consistency", "mean_length"):
            row[key] = sum(getattr(r, key) for r in reasoning) / len(reasoning)
        general = tasks["general"]
        first, previous = first or general, previous or general
        row |= {"general_format": general.format, "helpfulness": general.helpfulness}
        row["follows"] = general.follows or 0.0  # None: of few requests none asked for it
        row["wins_over_base"] = win_rate(general, first)
        row["wins_over_previous"] = win_rate(general, previous)
        for key in ("declined_harmful", "declined_harmless"):
            row[key] = getattr(general, key) or 0.0
        out[name], previous = row, general
    return out


def effort(folder: str) -> dict[str, float]:
    """Tokens sampled, or read with their prompts, in training; the minutes of its steps; FLOPs: of
    a parameter in use 2 for a token that is sampled, 6 for one that is learnt [2001.08361];
    attention's, and those of reference and reward models, are left out. {} without a run; no
    FLOPs where the model is gone."""
    if not os.path.exists(os.path.join(folder, "metrics.jsonl")):
        return {}
    rows = read_metrics(folder)
    sampled = "reward" in rows[-1]  # in RL the count goes on from step to step
    tokens = rows[-1]["num_tokens"] if sampled else sum(row["num_tokens"] for row in rows)
    out = {"tokens": tokens, "minutes": sum(row["step_time"] for row in rows) / 60}
    path = os.path.join(folder, "model")
    if not inputs.is_model(path):
        return out
    model = GPT.from_pretrained(path, device="meta")
    forward = memory.cost_report(model, context=1)["forward FLOPs a token"]
    flops = 3 * forward * tokens  # forward and backward
    if sampled:  # and not all of it is learnt
        learnt = sum(r["throughput/train_tok_s"] * r["timing/train_s"] for r in rows)
        flops = forward * (tokens + 3 * learnt)
    return out | {"flops": flops}


def win_rate(report: Report, rival: Report) -> float:
    """Share of general requests answered better than by the rival, sample by sample; ties: half."""
    pairs = list(zip(report.samples, rival.samples, strict=True))
    wins = sum(s["helpfulness"] > t["helpfulness"] for s, t in pairs)
    ties = sum(s["helpfulness"] == t["helpfulness"] for s, t in pairs)
    return (wins + 0.5 * ties) / len(pairs)


def before_after(problems: list, before: Report, after: Report) -> str:
    """The problem on which a model gained most, with a response before and after."""
    k, gains = after.k, [0] * len(problems)
    for i, (old, new) in enumerate(zip(before.samples, after.samples)):
        gains[i // k] += new["correct"] - old["correct"]
    best = gains.index(max(gains))
    lines = [f"[{after.task}] {problems[best].prompt}"]
    for name, report, wanted in (("base", before, False), ("Zero", after, True)):
        group = report.samples[best * k : (best + 1) * k]
        right = sum(s["correct"] for s in group)
        shown = next((s for s in group if s["correct"] == wanted), group[0])
        lines.append(f"  {name} ({right} of {k} right): {shown['response']}")
    return "\n".join(lines)


def check_earlier(out: str, models: dict[str, str], names: list[str], start: str) -> None:
    """UserError if one of the stages `names` before `start` is missing."""
    for stage in names[: names.index(start)]:
        if stage not in models and not inputs.is_model(os.path.join(out, stage, "model")):
            needs = f"--from {start} needs the finished stage '{stage}' in '{out}'"
            raise UserError(f"{needs}: start from an earlier one")
