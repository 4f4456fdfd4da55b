"""What the recipes have in common: room for a run, models evaluated side by side, their figures."""

import contextlib
import json
import os
from dataclasses import asdict, fields

import eval as evaluation
import grpo
import tokenizer as tokenizers
from data import DEFAULT_TASKS, REASONING
from eval import Report
from lib import distributed, files, memory
from lib.errors import UserError, shortened
from lib.run import Stopped, check_folder, run_status
from model import GPT


def is_model(folder: str) -> bool:
    """Whether there is a finished model in the folder; its config.json is written last."""
    return os.path.exists(os.path.join(folder, "config.json"))


def settings_of(cfg, cls: type):
    """cfg with the sections of another script's Config only, as that script would have it."""
    return cls(**{f.name: getattr(cfg, f.name) for f in fields(cls)})


def settings_to_lock(cfg, **models: str | None) -> dict:
    """What a recipe's results depend on: cfg, and the fingerprints of models in folders."""
    out = asdict(cfg) | {"eval": evaluation.sampling(cfg.eval)}
    out.pop("device")
    return out | {k: GPT.from_pretrained(m).fingerprint() for k, m in models.items() if m}


def check_model(folder: str) -> GPT:
    """Read a model folder before the work, all but its weights: the model on the device meta.
    UserError if it or its tokenizer cannot be used."""
    model = GPT.from_pretrained(folder, device="meta")
    tokenizers.load(folder)
    return model


def check_tokenizer(cfg) -> None:
    """The same of the tokenizer that a base will have, unless it is trained with it."""
    if cfg.tokenizer != "corpus":
        tokenizers.load(cfg.tokenizer)


def check_base(cfg, args) -> None:
    """The same of --init, if it is there. UserError also for a setting that was typed, but would be
    passed over."""
    if not args.init:
        return
    shape = check_model(args.init).cfg
    for key in args.typed:
        section, _, name = key.rpartition(".")
        other = section == "model" and getattr(shape, name) != getattr(cfg.model, name)
        if other or key == "tokenizer":
            has = f"is {getattr(shape, name)} in" if other else "comes with"
            raise UserError(f"--{key} {has} the model that --init names: drop one of the two flags")


def check_zero(folder: str) -> None:
    """UserError if a folder that is there is no run of train_zero.py."""
    if os.path.isfile(folder) or (is_model(folder) and not run_status(folder)):
        raise UserError(f"'{folder}' is no run folder of train_zero.py: correct --zero")
    check_folder(folder, True, "zero")
    if is_model(model := os.path.join(folder, "model")):
        check_model(model)


def check_out(out: str, resume: bool) -> None:
    """UserError if there is nothing to resume in the run folder `out`."""
    if resume and not os.path.isdir(out):
        told = f"there is no run in '{shortened(out)}' to go on with"
        raise UserError(f"{told}: correct --out, or start without --resume")


def begin(out: str, resume: bool, stage: str | None = None) -> None:
    """Take the run folder `out`: from now on no other process may write there. UserError if one
    does, if it cannot be written, if there is nothing to resume, or if no run of the stage may go
    on there."""
    check_out(out, resume)
    distributed.barrier()  # all have looked before one writes
    if distributed.is_main_process():
        files.lock(out)
    distributed.barrier()
    if stage:
        check_folder(out, resume, stage)


def check_room(cfg, init: str | None, learnt: int, steps: int, sampled: int = 0) -> None:
    """memory.check_room() of a recipe. init: the folder of a model to start from; learnt: tokens of
    next-token training; sampled: responses to sample only."""
    model = GPT.from_pretrained(init, device="meta") if init else GPT.empty(cfg.model)
    networks = 2 if grpo.ALGORITHMS[cfg.grpo.algorithm].critic else 1
    memory.check_room(cfg, model, learnt, steps, sampled, networks)
    if not init:
        check_tokenizer(cfg)


def evaluate_stage(
    cfg, name: str, folder: str, path: str, tasks=DEFAULT_TASKS
) -> dict[str, Report]:
    """A model on the held-out problems of the tasks. The reports are saved in the JSON file `path`
    with all samples, and read from there if model and settings are the same."""
    fingerprint = GPT.from_pretrained(folder, distributed.dtype(cfg)).fingerprint()
    settings = {"eval": asdict(cfg.eval), "world": asdict(cfg.world), "model": fingerprint}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        found = files.load_json(path)
        if found["settings"] == json.loads(json.dumps(settings)):
            return {task: Report(**r) for task, r in found["reports"].items()}
    sets = evaluation.held_out(cfg.world, cfg.eval, tasks)
    stopped = Stopped(path, settings)
    reports = evaluation.evaluate_folder(cfg, folder, sets, 0, name, stopped)
    saved = {task: asdict(r) for task, r in reports.items()}
    files.write_json(path, {"settings": settings, "reports": saved})
    stopped.remove()
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
        row["wins_over_base"] = win_rate(general, first)
        row["wins_over_previous"] = win_rate(general, previous)
        for key in ("declined_harmful", "declined_harmless"):
            row[key] = getattr(general, key)
        out[name], previous = row, general
    return out


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
