"""DeepSeek-R1: the four stages that turn a base model and R1-Zero into R1 [2501.12948, section 2.3].

    python train_r1.py                     # laptop: makes what is missing (base, Zero), then Dev1, Dev2, Dev3, R1, and the stage table
    python train_r1.py --from dev2         # again from that stage on, with the models of the earlier stages
    python train_r1.py --resume            # go on after an interruption

    base --(cold start)--> Dev1 --(reasoning RL)--> Dev2 ~~samples~~> base --(fine-tuning)--> Dev3 --(RL for all scenarios)--> R1

Deviations from the paper: (1) the cold start is rewritten by rule, not by a model and people: the thinking stays, the answer
becomes a sentence; (2) RL keeps Zero's clip of 0.2 and temperature 1; (3) general requests come from the synthetic world, which
also writes the demonstrations and the preferences; (4) the readable form is short, as the problems are.
"""

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import eval as evaluation
import grpo
import parallel
import preference
import rewards as rw
import sft
import tokenizer as tokenizers
import train_zero
from data import REASONING, TASKS, Problem, World
from model import GPT

STAGES = ("dev1", "dev2", "dev3", "r1")
NAMES = {"base": "Base", "zero": "Zero", "dev1": "Dev1", "dev2": "Dev2", "dev3": "Dev3", "r1": "R1"}
QUICK = train_zero.QUICK | {"world.tasks": ",".join(TASKS), "r1.cold_prompts": 96, "r1.reject_prompts": 128, "r1.demonstrations": 200, "r1.dev2_steps": 8, "r1.final_steps": 8,
                            "r1.preference_steps": 5, "preference.examples": 600}


@dataclass
class R1Config:
    cold_prompts: int = 2000  # problems put to Zero, of all reasoning tasks in turn
    cold_samples: int = 4  # responses to each
    dev2_steps: int = 60
    reject_prompts: int = 2400  # problems put to Dev2
    reject_samples: int = 4
    most_kept: int = 2  # of a problem's clean responses, in both harvests
    demonstrations: int = 40_000  # general requests with a person's reply
    final_steps: int = 60
    preference_steps: int = 20  # the last ones, in which general requests and the reward models take part
    general: float = 0.5  # share of general requests in those
    language: float = 1.0  # weight of language consistency in both RL stages
    epochs: int = 3
    tokens_per_step: int = 4096  # of fine-tuning; there are few texts
    lr: float = 0.3  # of fine-tuning, as a share of pretraining's


# ---------------------------------------------------------------------------------------------- what is kept of a model's samples

SUMMARY = {"en": "The answer is {a}.", "zh": "答案是{a}。"}


def flaw(problem: Problem, text: str, right: bool) -> str:
    """The first filter that a sampled response fails ("wrong", "form", "language", "unfounded", "repetition"), or "" if it is clean.

    Unfounded: the answer to a puzzle whose people were not put in their order; one guess in three is right, and would teach that
    reasons do not matter. Repetition: a piece of the thinking, between commas outside parentheses, follows itself or comes three times.
    """
    pieces = [piece.strip() for piece in re.split(r",(?![^()]*\))", rw.thinking(text))]
    if not right:
        return "wrong"
    if not rw.format_reward(text):
        return "form"
    if rw.language_consistency(rw.thinking(text), problem.language) < 1.0:
        return "language"
    if problem.task == "logic" and row_of(rw.thinking(text)) != list(problem.tests["order"]):
        return "unfounded"
    again = any(a == b for a, b in zip(pieces, pieces[1:])) or max(Counter(pieces).values()) > 2
    return "repetition" if again else ""


def row_of(text: str) -> list[str]:
    """The people of the last row in a text, such as A>C>B; [] if there is none."""
    rows = re.findall(r"(?<![A-Z>])[A-Z](?:>[A-Z])+", text)
    return rows[-1].split(">") if rows else []


def readable(problem: Problem, text: str) -> str:
    """The readable form of a clean response: its thinking, and the answer as a sentence in the problem's language."""
    if problem.task == "general":
        return text
    summary = SUMMARY[problem.language].format(a=rw.extract_answer(text))
    return f"<think>{rw.thinking(text).strip()}</think><answer>{summary}</answer>"


def harvest(folder: str, problems: list[Problem], samples: int, most: int, cfg, path: str, seed: int,
            judge: grpo.Judge | None = None) -> list[dict]:
    """Sample a model, keep up to `most` clean and different responses a problem in their readable form; {"prompt", "response", "task"}.

    Written to the JSONL file `path` and read from it if it is already there. Prints what each filter took. judge: general
    requests are kept if both reward models find them more good than bad.
    """
    if os.path.exists(path):
        return sft.read_rows(path)
    model, tokenizer = GPT.from_pretrained(folder, parallel.dtype(cfg), parallel.device(cfg.device)), tokenizers.load(folder)
    report = evaluation.evaluate(model, tokenizer, problems, replace(cfg.eval, k=samples), seed, f"sampling {folder}")
    flaws: Counter = Counter()
    rows = []
    asked, texts = [problems[s["problem"]] for s in report.samples], [s["response"] for s in report.samples]
    liked = [all(v > 0.5 for v in scores.values()) for scores in judge(asked, texts)] if judge else [False] * len(texts)
    for i, p in enumerate(problems):
        kept: list[str] = []
        for j, s in enumerate(report.samples[i * samples : (i + 1) * samples], i * samples):
            why = flaw(p, s["response"], liked[j] if p.task == "general" else s["correct"])
            text = "" if why else readable(p, s["response"])
            why = why or ("same as another" if text in kept else "enough of this problem" if len(kept) == most else "")
            flaws[why or "kept"] += 1
            if not why:
                kept.append(text)
        rows += [{"prompt": p.prompt, "response": text, "task": p.task} for text in kept]
    kept = flaws.pop("kept", 0)
    print(f"{sum(flaws.values()) + kept} responses of {folder}: " + ", ".join(f"{n} {why}" for why, n in flaws.most_common()) + f"; {kept} kept, in {path}",
          flush=True)
    if not rows:
        raise ValueError(f"not one response of {folder} was clean enough to learn from: train it longer first")
    parallel.write_lines(path, rows)
    return sft.read_rows(path)  # the first process's, on all


def reasoning_problems(world: World, count: int, start: int) -> list[Problem]:
    """`count` training problems, as many of each reasoning task; their indices begin at `start`."""
    return [p for j, task in enumerate(REASONING) for p in world.problems(task, len(range(j, count, len(REASONING))), start=start)]


# ---------------------------------------------------------------------------------------------- the stages


def fine_tune(cfg, base: str, rows: list[dict], out: str, resume: bool) -> str:
    """Supervised fine-tuning of the model in `base` on rows {"prompt", "response"}; returns the folder of the result."""
    own = replace(cfg.sft, epochs=cfg.r1.epochs, tokens_per_step=cfg.r1.tokens_per_step, muon_lr=cfg.sft.muon_lr * cfg.r1.lr, adam_lr=cfg.sft.adam_lr * cfg.r1.lr)
    return sft.fine_tuned(replace(cfg, sft=own), base, rows, f"the texts for {out}", out, resume)


def dev1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Cold start: what is clean of Zero's samples, made readable, teaches the base its manners."""
    problems = reasoning_problems(World(cfg.seed, cfg.world), cfg.r1.cold_prompts, 100_000)
    rows = harvest(models["zero"], problems, cfg.r1.cold_samples, cfg.r1.most_kept, cfg, os.path.join(out, "cold_start.jsonl"), cfg.seed)
    return fine_tune(cfg, models["base"], rows, out, resume)


def dev2(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Reasoning RL: accuracy, format, and the language of the thinking."""
    return reinforce(cfg, models["dev1"], out, resume, "dev2", cfg.r1.dev2_steps, 300_000)


def dev3(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Rejection sampling: Dev2's clean responses and people's replies to general requests, for the base once more."""
    world = World(cfg.seed, cfg.world)
    rows = harvest(models["dev2"], reasoning_problems(world, cfg.r1.reject_prompts, 200_000), cfg.r1.reject_samples, cfg.r1.most_kept, cfg,
                   os.path.join(out, "rejection.jsonl"), cfg.seed)
    general = [world.demonstration(i) for i in range(cfg.r1.demonstrations)]
    return fine_tune(cfg, models["base"], rows + [{"prompt": p.prompt, "response": text, "task": "general"} for p, text in general], out, resume)


def r1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """RL for all scenarios: rules for reasoning; towards the end also general requests, judged by the reward models."""
    folders = {kind: preference.train(cfg, models["dev3"], os.path.join(os.path.dirname(out), kind), kind, resume) for kind in preference.KINDS}
    judge = preference.Judge(folders, parallel.device(cfg.device), parallel.dtype(cfg))
    starts, n = cfg.r1.final_steps - cfg.r1.preference_steps, round(cfg.r1.general * cfg.grpo.problems_per_step)
    return reinforce(cfg, models["dev3"], out, resume, "r1", cfg.r1.final_steps, 400_000, lambda step: n if step >= starts else 0, judge)


def reinforce(cfg, start: str, out: str, resume: bool, stage: str, steps: int, first: int, general: Callable[[int], int] = lambda step: 0,
              judge: grpo.Judge | None = None) -> str:
    """GRPO with the language reward on the reasoning tasks in turn, and general(step) general requests a step.

    first: the index of its first problem in the world; each stage has problems of its own.
    """
    own = replace(cfg, grpo=replace(cfg.grpo, steps=steps, tasks=REASONING), rewards=replace(cfg.rewards, language=cfg.r1.language))
    world, n = World(cfg.seed, cfg.world), cfg.grpo.problems_per_step

    def draw(step: int) -> list[Problem]:
        asked = general(step % steps)  # dynamic sampling draws beyond the last
        tasks = [REASONING[(step * n + i) % len(REASONING)] for i in range(n - asked)] + ["general"] * asked
        return [world.problem(task, first + step * n + i) for i, task in enumerate(tasks)]

    return grpo.train(own, start, out, resume, stage, draw, judge)


# ---------------------------------------------------------------------------------------------- the recipe


def evaluate_stage(cfg, name: str, folder: str, path: str, tasks: tuple[str, ...] = TASKS) -> dict[str, evaluation.Report]:
    """A model on the held-out problems of each of the tasks, kept in the JSON file `path` with its samples; read from there if it is there."""
    model = GPT.from_pretrained(folder, parallel.dtype(cfg), parallel.device(cfg.device))
    settings = {"eval": asdict(cfg.eval), "world": asdict(cfg.world), "model": model.fingerprint()}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        if found["settings"] == json.loads(json.dumps(settings)):
            return {task: evaluation.Report(**r) for task, r in found["reports"].items()}
    tokenizer = tokenizers.load(folder)
    reports = {task: evaluation.evaluate(model, tokenizer, problems, cfg.eval, 0, f"evaluating {name}, {task}")
               for task, problems in evaluation.held_out(cfg.world, cfg.eval, tasks).items()}
    parallel.write_json(path, {"settings": settings, "reports": {task: asdict(r) for task, r in reports.items()}})
    return reports


def recipe(cfg, zero_out: str, out: str, resume: bool, init: str | None = None) -> None:
    """All that is missing, stage by stage; then the stage table on stdout and in `out`. init: the base, if not Zero's own."""
    if cfg.name != "tiny" or init:
        own = cfg.r1
        texts = own.most_kept * (own.cold_prompts + own.reject_prompts) + own.demonstrations
        grpo.check_room(cfg, GPT.empty(init).cfg if init else cfg.model, own.epochs * texts * cfg.eval.max_new_tokens, own.dev2_steps + own.final_steps,
                        own.cold_prompts * own.cold_samples + own.reject_prompts * own.reject_samples)
    models = {"base": init or os.path.join(zero_out, "base", "model"), "zero": os.path.join(zero_out, "model")}
    if not os.path.exists(os.path.join(models["zero"], "config.json")):
        print(f"there is no finished Zero in '{zero_out}' yet: making it first", flush=True)
        train_zero.recipe(cfg, init, os.path.join(zero_out, "base"), zero_out, os.path.exists(zero_out), None)
    settings = {k: v for k, v in asdict(cfg).items() if k not in ("device", "eval", "distill")} | {"eval": evaluation.sampling(cfg.eval)}
    settings |= {"init": GPT.from_pretrained(models["base"]).fingerprint(), "zero": GPT.from_pretrained(models["zero"]).fingerprint()}
    parallel.claim(out, settings)
    for stage, make in zip(STAGES, (dev1, dev2, dev3, r1)):
        folder = os.path.join(out, stage)
        models[stage] = os.path.join(folder, "model")
        if os.path.exists(os.path.join(models[stage], "config.json")):
            print(f"{stage} is there already: {folder}")
        else:
            print(f"--- {stage}: {make.__doc__.split(':')[0].lower()}", flush=True)
            os.makedirs(folder, exist_ok=True)
            with parallel.stopwatch(out, stage):
                make(cfg, models, folder, resume)
    os.makedirs(os.path.join(out, "eval"), exist_ok=True)
    with parallel.stopwatch(out, "evaluation"):
        reports = {name: evaluate_stage(cfg, name, folder, os.path.join(out, "eval", f"{name}.json")) for name, folder in models.items()}
    figures = evaluation.stage_figures(reports)
    if parallel.first():
        evaluation.plot_stages({NAMES[name]: row for name, row in figures.items()}, os.path.join(out, "stages.png"))
    minutes = parallel.minutes(out)
    parallel.write_json(os.path.join(out, "stages.json"), {"minutes": minutes, "figures": figures})
    print("\n" + evaluation.stage_table({NAMES[name]: row for name, row in figures.items()}))
    print(f"\nmodels: {', '.join(models[s] for s in STAGES)}\npicture: {out}/stages.png\nfigures: {out}/stages.json\n"
          f"minutes: {', '.join(f'{k} {v:.1f}' for k, v in minutes.items())}; together {sum(minutes.values()):.1f}\n"
          f"try it: python sample.py {models['r1']} --hide-thinking")


def set_aside(out: str, start: str) -> None:
    """Rename the stages from `start` on, so that they are made again and nothing that was made is lost."""
    later = STAGES[STAGES.index(start) :]
    for stage in STAGES[: STAGES.index(start)]:
        if not os.path.exists(os.path.join(out, stage, "model", "config.json")):
            raise ValueError(f"--from {start} needs the finished stage '{stage}' in '{out}': start from an earlier one")
    parallel.wait()  # all have looked before one writes
    for name in (*later, *(os.path.join("eval", f"{stage}.json") for stage in later), *preference.KINDS, "stages.json", "stages.png", "settings.json") if parallel.first() else ():
        if os.path.exists(path := os.path.join(out, name)):
            shutil.move(path, f"{path}-{time.strftime('%Y%m%d-%H%M%S')}")
    os.makedirs(out, exist_ok=True)
    parallel.forget(out, (*later, "evaluation"))


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("--zero", help="run folder of train_zero.py: the base and Zero (default runs/zero, with --config runs/zero-THAT, with --quick OUT/zero; made if not there)")
    parser.add_argument("--init", help="with --zero: model folder that is the base, ours or Hugging Face's (default: the base of --zero)")
    parser.add_argument("--out", help="run folder (default runs/r1; with --config or --quick: runs/r1-THAT)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--from", dest="start", choices=STAGES, help="set this stage and the later ones aside and make them again")
    again.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, quick=QUICK)
    out = args.out or config.folder("r1", cfg, args)
    zero = args.zero or config.zero_folder(out, cfg, args)
    with config.user_errors(), parallel.started(cfg):
        if args.init and not args.zero:
            raise ValueError("--init is a base of your own: name the folder of its Zero too (--zero FOLDER; made from the base if it is not there)")
        try:
            if args.start:
                set_aside(out, args.start)
            elif not args.resume and any(os.path.exists(os.path.join(out, s)) for s in STAGES):
                raise ValueError(f"'{out}' already holds a run: add --resume to go on with it, --from STAGE to make stages again, or name another with --out")
            parallel.wait()  # all have looked before one writes
            recipe(cfg, zero, out, args.resume, args.init)
        except KeyboardInterrupt:
            print(f"stopped; the work so far is in '{out}': go on with the same command and --resume{' in place of --from' if args.start else ''}", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
