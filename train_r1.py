"""DeepSeek-R1: the four stages that turn a base model and Zero into R1 [2501.12948v1, section 2.3].

    python train_r1.py                 # laptop: makes what is missing (base, Zero), then the stages
    python train_r1.py --from dev2     # again from that stage on, with the earlier stages' models
    python train_r1.py --resume        # go on after an interruption

    base --(1. cold start)--> Dev1 --(2. reasoning RL)--> Dev2 ~~samples~~>
    base --(3. fine-tuning)--> Dev3 --(4. RL for all scenarios)--> R1

What is simpler than in the paper:
  1. The cold start is rewritten by rule, not by a model and people: the thinking stays, the answer
     becomes a sentence.
  2. RL keeps Zero's clip of 0.2 and temperature 1.
  3. General requests come from the synthetic world, with its demonstrations and preferences.
  4. The readable form is short, as the problems are.
"""

import lib.start  # noqa: F401

import os
from dataclasses import dataclass, replace

import config
import grpo
import inputs
import preference
import sft
import stages
import train_zero
from algorithms import ALGORITHM_SETTINGS
from config import setting
from data import REASONING, Problem, World
from lib import distributed, files, page, report
from lib.errors import UserError
from lib.run import lock_settings, resumable
from preference import PreferenceConfig
from rejection import harvest
from stages import evaluate_stage, stage_figures
from tasks import general


@dataclass
class R1Config:
    cold_prompts: int = setting(2000, low=4)  # problems for Zero, of all reasoning tasks
    cold_samples: int = setting(4, low=1)  # responses to each
    dev2_steps: int = setting(60, low=1)
    reject_prompts: int = setting(2400, low=4)  # problems for Dev2
    reject_samples: int = setting(4, low=1)
    most_kept: int = setting(2, low=1)  # clean responses to a problem, of Zero and of Dev2
    demonstrations: int = setting(40_000, low=0)  # general requests with a person's reply
    final_steps: int = setting(60, low=1)
    preference_steps: int = setting(20, low=0)  # the last ones, with general requests
    general: float = setting(0.5, low=0, high=1)  # share of general requests in those
    language: float = 1.0  # weight of language consistency in both RL stages
    epochs: int = setting(3, low=1)  # of fine-tuning
    tokens_per_step: int = setting(4096, low=1)  # of fine-tuning: there are few texts
    lr: float = 0.3  # of fine-tuning, as a share of pretraining's

    def __post_init__(self):
        if self.preference_steps > self.final_steps:
            limit = f"they are the last of --r1.final_steps, {self.final_steps}"
            raise UserError(f"--r1.preference_steps is {self.preference_steps}; {limit}")


@dataclass
class Config(train_zero.Config):
    preference: PreferenceConfig = config.section(PreferenceConfig)
    r1: R1Config = config.section(R1Config)


# every stage trains on problems of its own: the index in the world of its first one (Zero's is 0)
FIRST = {"dev1": 100_000, "dev3": 200_000, "dev2": 300_000, "r1": 400_000}
FIRST |= {"teacher": 500_000, "students": 600_000}  # of distill.py
NAMES = {"base": "Base", "zero": "Zero", "dev1": "Dev1", "dev2": "Dev2", "dev3": "Dev3", "r1": "R1"}


def recipe(cfg, zero_out: str, out: str, resume: bool, init=None, start=None) -> None:
    """All that is missing, stage by stage; then the stage table. init: the folder of the base, if
    not Zero's. start: the stage from which on all are made again."""
    cfg = stages.settings_of(cfg, Config)
    texts = cfg.r1.most_kept * (cfg.r1.cold_prompts + cfg.r1.reject_prompts)
    learnt = cfg.r1.epochs * (texts + cfg.r1.demonstrations) * cfg.eval.max_new_tokens
    sampled = cfg.r1.cold_prompts * cfg.r1.cold_samples
    sampled += cfg.r1.reject_prompts * cfg.r1.reject_samples
    stages.check_room(cfg, init, learnt, cfg.r1.dev2_steps + cfg.r1.final_steps, sampled)
    inputs.begin(out, resume)
    if start:
        later = list(STAGES)[list(STAGES).index(start) :]
        stages.set_aside(out, later, preference.KINDS)

    # Base and Zero
    base = os.path.join(zero_out, "base")
    models = {"base": init or os.path.join(base, "model"), "zero": os.path.join(zero_out, "model")}
    if not inputs.is_model(models["zero"]):
        print(f"there is no finished Zero in '{zero_out}' yet: making it first", flush=True)
        train_zero.recipe(cfg, init, base, zero_out, os.path.exists(zero_out))
    lock_settings(out, stages.settings_to_lock(cfg, init=models["base"], zero=models["zero"]))

    # The four stages
    for stage, make in STAGES.items():
        folder = os.path.join(out, stage)
        models[stage] = os.path.join(folder, "model")
        if inputs.is_model(models[stage]):
            print(f"{stage} is there already: {folder}")
            continue
        print(f"--- {stage}: {make.__doc__.split(':')[0].lower()}", flush=True)
        os.makedirs(folder, exist_ok=True)
        make(cfg, models, folder, resume)

    # All models on the same problems
    os.makedirs(os.path.join(out, "eval"), exist_ok=True)
    reports = {k: evaluate_stage(cfg, k, m, f"{out}/eval/{k}.json") for k, m in models.items()}
    figures = stage_figures(reports)
    files.write_json(os.path.join(out, "stages.json"), {"figures": figures})
    named = {NAMES[name]: row for name, row in figures.items()}
    if distributed.is_main_process():
        report.plot_stages(named, os.path.join(out, "stages.png"))
        page.write(out)
    print(f"\n{report.stage_table(named)}\n\nmodels: {', '.join(models[s] for s in STAGES)}")
    print(f"picture: {out}/stages.png\nfigures: {out}/stages.json")
    print(f"try it: python sample.py {models['r1']} --hide-thinking")


def dev1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Cold start: Zero's clean samples, rewritten readably, teach the base the form."""
    r, path = cfg.r1, os.path.join(out, "cold_start.jsonl")
    problems = reasoning_problems(World(cfg.seed, cfg.world), r.cold_prompts, FIRST["dev1"])
    rows = harvest(models["zero"], problems, r.cold_samples, r.most_kept, cfg, path, cfg.seed)
    return fine_tune(cfg, models["base"], rows, out, resume)


def reasoning_problems(world: World, count: int, start: int) -> list[Problem]:
    """`count` training problems, equally many of each reasoning task, from index `start` on."""
    out, (each, rest) = [], divmod(count, len(REASONING))
    for j, task in enumerate(REASONING):
        out += world.problems(task, each + (j < rest), start=start)
    return out


def fine_tune(cfg, base: str, rows: list[dict], out: str, resume: bool) -> str:
    """Fine-tune the model in `base` on rows {"prompt", "response"}; returns the result's folder."""
    settings = {name: getattr(cfg.r1, name) for name in ("epochs", "tokens_per_step")}
    settings |= {name: getattr(cfg.sft, name) * cfg.r1.lr for name in ("muon_lr", "adam_lr")}
    cfg = replace(cfg, sft=replace(cfg.sft, **settings))
    return sft.fine_tuned(cfg, base, rows, f"the texts for {out}", out, resume)


def dev2(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Reasoning RL: accuracy, format, and the language of the thinking."""
    steps, first = cfg.r1.dev2_steps, FIRST["dev2"]
    return reinforce(cfg, models["dev1"], out, resume, "dev2", steps, first)


def reinforce(cfg, start, out, resume, stage: str, steps: int, first: int, judge=None) -> str:
    """GRPO with the language reward on the reasoning tasks, one after the other. first: index of
    its first problem in the world, as every stage has other problems. judge: of general requests,
    which then are among the problems of the last cfg.r1.preference_steps steps."""
    rl = replace(cfg.grpo, steps=steps, tasks=REASONING)
    cfg = replace(cfg, grpo=rl, rewards=replace(cfg.rewards, language=cfg.r1.language))
    world, n = World(cfg.seed, cfg.world), cfg.grpo.problems_per_step

    def next_problems(step: int) -> list[Problem]:
        # dynamic sampling asks for steps beyond the last
        mixed = judge and step % steps >= steps - cfg.r1.preference_steps
        general = round(cfg.r1.general * n) if mixed else 0
        tasks = [REASONING[(step * n + i) % len(REASONING)] for i in range(n - general)]
        tasks += ["general"] * general
        return [world.problem(task, first + step * n + i) for i, task in enumerate(tasks)]

    return grpo.train(cfg, start, out, resume, stage, next_problems, judge)


def dev3(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Rejection sampling: Dev2's clean responses and people's replies teach the base once more."""
    world, r, path = World(cfg.seed, cfg.world), cfg.r1, os.path.join(out, "rejection.jsonl")
    problems = reasoning_problems(world, r.reject_prompts, FIRST["dev3"])
    rows = harvest(models["dev2"], problems, r.reject_samples, r.most_kept, cfg, path, cfg.seed)
    for p, text in (general.demonstration(world, i) for i in range(r.demonstrations)):
        rows.append({"prompt": p.prompt, "response": text, "task": "general"})
    return fine_tune(cfg, models["base"], rows, out, resume)


def r1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """RL for all scenarios: rules judge reasoning; in the last steps reward models the rest."""
    folders = {}
    for kind in preference.KINDS:
        folder = os.path.join(os.path.dirname(out), kind)
        folders[kind] = preference.train(cfg, models["dev3"], folder, kind, resume)
    judge = preference.Judge(folders, distributed.device(cfg.device), distributed.dtype(cfg))
    steps, first = cfg.r1.final_steps, FIRST["r1"]
    return reinforce(cfg, models["dev3"], out, resume, "r1", steps, first, judge)


STAGES = {"dev1": dev1, "dev2": dev2, "dev3": dev3, "r1": r1}


def check_earlier(out: str, start: str) -> None:
    """UserError if a stage before `start` is missing."""
    for stage in list(STAGES)[: list(STAGES).index(start)]:
        if not inputs.is_model(os.path.join(out, stage, "model")):
            needs = f"--from {start} needs the finished stage '{stage}' in '{out}'"
            raise UserError(f"{needs}: start from an earlier one")


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("--zero", help="run folder of train_zero.py (default runs/zero-THAT; made if not there)")
    add("--init", help="with --zero: another base, ours or Hugging Face's")
    add("--out", help="run folder (default runs/r1; with --config runs/r1-THAT)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--from", dest="start", choices=STAGES, help="set it and later ones aside")
    again.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, Config, algorithms=ALGORITHM_SETTINGS)
    out = args.out or config.run_folder("r1", cfg, args)
    zero = args.zero or config.run_folder("zero", cfg, args)
    flags = "--resume in place of --from" if args.start else "--resume"
    with config.user_errors(), distributed.started(cfg), resumable(out, flags):
        if cfg.lora.rank:
            fix = "adapt with sft.py, train_zero.py or distill.py"
            raise UserError(f"--lora.rank: reward models are trained whole here: {fix}")
        if args.init and not args.zero:
            hint = "name the folder of its Zero too (--zero FOLDER; made if it is not there)"
            raise UserError(f"--init is another base: {hint}")
        cfg = inputs.suited(cfg, args.init, args)
        inputs.check_base(cfg, args)
        inputs.check_zero(zero)
        if args.start:
            check_earlier(out, args.start)
        elif not args.resume and any(os.path.exists(os.path.join(out, s)) for s in STAGES):
            fix = "add --resume to go on, --from STAGE to repeat stages, or name another --out"
            raise UserError(f"'{out}' already holds a run: {fix}")
        distributed.barrier()  # all have looked before one writes
        recipe(cfg, zero, out, args.resume, args.init, args.start)


if __name__ == "__main__":
    main()
