"""DeepSeek-R1: the four stages that turn a base model and Zero into R1 [2501.12948v1, section 2.3].

    python train_r1.py                 # laptop: on a base of its own, pretrained if not there
    python train_r1.py --from dev2     # again from that stage on, with the earlier stages' models
    python train_r1.py --resume        # go on after an interruption

    base --(RL alone)--> Zero, whose samples teach in
    base --(1. cold start)--> Dev1 --(2. reasoning RL)--> Dev2, whose samples teach in
    base --(3. fine-tuning)--> Dev3 --(4. RL for all scenarios)--> R1

The RL stages share their tasks, with equally many problems each. Their base reads more about rare
tasks than train_zero.py's (R1Config.logic, minor). What is simpler than in the paper:
  1. The cold start is rewritten by rule, not by a model and people: the thinking stays, the answer
     becomes a sentence.
  2. RL keeps Zero's clip of 0.2 (the paper's stage 2 has 10) and temperature 1 (stage 4: 0.7).
  3. General requests come from the synthetic world, with its demonstrations and preferences. In
     the last steps of stage 4 they are added to the reasoning problems.
  4. The cold start has general demonstrations too, one for every three of Zero's responses.
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
    tasks: tuple[str, ...] = setting(REASONING, choices=REASONING)  # of all stages, Zero's too
    steps: int = setting(60, low=1)  # rollouts of each RL stage
    cold_prompts: int = setting(2400, low=4)  # problems for Zero
    reject_prompts: int = setting(8000, low=4)  # problems for Dev2
    samples: int = setting(4, low=1)  # responses to each
    most_kept: int = setting(2, low=1)  # clean ones of them
    demonstrations: float = setting(1 / 3, low=0)  # general ones for each clean response
    preference_steps: int = setting(40, low=0)  # the last ones of stage 4, with general requests
    general: float = setting(2.0, low=0)  # in these, requests for each reasoning problem
    language: float = 1.0  # weight of language consistency in stages 2 and 4
    cold_epochs: int = setting(8, low=1)  # of the cold start, whose texts are few
    epochs: int = setting(3, low=1)  # of other fine-tuning
    tokens_per_step: int = setting(4096, low=1)  # of fine-tuning: there are few texts
    lr: float = 0.3  # of fine-tuning, as a share of pretraining's
    pretraining: float = setting(1.85, low=0.01)  # its own base's tokens over sft.tokens
    logic: float = setting(1.5, low=0.01)  # its own base's world.logic
    minor: float = setting(0.6, low=0.01)  # its own base's world.minor

    def __post_init__(self):
        if self.preference_steps > self.steps:
            limit = f"they are the last of --r1.steps, {self.steps}"
            raise UserError(f"--r1.preference_steps is {self.preference_steps}; {limit}")


@dataclass
class Config(train_zero.Config):
    preference: PreferenceConfig = config.section(PreferenceConfig)
    r1: R1Config = config.section(R1Config)


# where each stage's problems begin in the world: no stage has another's draws
FIRST = {"zero": 0, "dev1": 100_000, "dev3": 200_000, "dev2": 300_000, "r1": 400_000}
FIRST |= {"teacher": 500_000, "students": 600_000, "hacking": 700_000}  # distill.py, experiments/
NAMES = {"base": "Base", "zero": "Zero", "dev1": "Dev1", "dev2": "Dev2", "dev3": "Dev3", "r1": "R1"}


def recipe(cfg, models: dict[str, str], out: str, resume: bool, start=None) -> None:
    """All that is missing, stage by stage; then the stage table. models: the folder of the base,
    which is pretrained if it is not there, and of a Zero, if it is another run's. start: the stage
    from which on all are made again."""
    cfg = stages.settings_of(cfg, Config)
    r, base = cfg.r1, os.path.dirname(models["base"])
    sampled = r.samples * (r.cold_prompts + r.reject_prompts) + preference.drawn(cfg)
    texts = r.cold_epochs * r.cold_prompts + r.epochs * r.reject_prompts
    learnt = round(texts * r.most_kept * (1 + r.demonstrations) * cfg.eval.max_new_tokens)
    known = models["base"] if inputs.is_model(models["base"]) else None
    if not known:
        stages.check_read(cfg, "r1.tasks", r.tasks)
        learnt += stages.own_base(cfg).sft.tokens
    stages.check_room(cfg, known, learnt, 3 * r.steps, sampled, tasks=r.tasks, added=r.general)
    stages.check_origin(out, models)
    inputs.begin(out, resume, "r1")
    if start:
        later = list(STAGES)[list(STAGES).index(start) :]
        stages.set_aside(out, later, preference.KINDS)
    if not known:
        print("there is no finished base model yet: pretraining one first", flush=True)
        sft.pretrain(stages.own_base(cfg), base, os.path.exists(base))
    lock_settings(out, stages.settings_to_lock(cfg, **models))

    # Zero and the four stages
    for stage, make in STAGES.items():
        folder = os.path.join(out, stage)
        if stage in models:  # another run's Zero
            continue
        models = models | {stage: os.path.join(folder, "model")}
        if inputs.is_model(models[stage]):
            print(f"{stage} is there already: {folder}")
            continue
        print(f"--- {stage}: {make.__doc__.split(':')[0]}", flush=True)
        os.makedirs(folder, exist_ok=True)
        make(cfg, models, folder, resume)

    # All models on the same problems
    os.makedirs(os.path.join(out, "eval"), exist_ok=True)
    tasks = (*cfg.r1.tasks, "general")
    path = os.path.join(out, "eval", "{}.json")
    reports = {k: evaluate_stage(cfg, k, m, path.format(k), tasks) for k, m in models.items()}
    figures = stage_figures(reports)
    for stage, row in figures.items():
        row |= stages.effort(os.path.join(out, stage))
    files.write_json(os.path.join(out, "stages.json"), {"figures": figures})
    named = {NAMES[name]: row for name, row in figures.items()}
    if distributed.is_main_process():
        report.plot_stages(named, os.path.join(out, "stages.png"))
        page.write(out)
    print(f"\n{report.stage_table(named)}\n\nmodels: {', '.join(models.values())}")
    print(f"picture: {out}/stages.png\nfigures: {out}/stages.json")
    print(f"try it: python sample.py {config.quoted(models['r1'])} --hide-thinking")


def zero(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """R1-Zero: reinforcement learning on the base alone."""
    return reinforce(cfg, models["base"], out, resume, "zero", language=0.0)


def dev1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Cold start: Zero's clean samples, rewritten readably, teach the base the form."""
    rows = texts_of(cfg, models["zero"], "dev1", cfg.r1.cold_prompts, out)
    cfg = replace(cfg, r1=replace(cfg.r1, epochs=cfg.r1.cold_epochs))
    return fine_tune(cfg, models["base"], rows, out, resume)


def texts_of(cfg, teacher: str, stage: str, count: int, out: str) -> list[dict]:
    """Clean responses of the model in `teacher` to `count` problems, and people's replies to
    general requests in proportion: the paper's stage 3 has 600k and 200k."""
    r, path, first = cfg.r1, os.path.join(out, "texts.jsonl"), FIRST[stage]
    world = World(cfg.seed, cfg.world)
    problems = reasoning_problems(world, r.tasks, count, first)
    rows = harvest(teacher, problems, r.samples, r.most_kept, cfg, path, cfg.seed)
    demonstrations = round(len(rows) * r.demonstrations)
    for i in range(first, first + demonstrations):
        p, text = general.demonstration(world, i)
        rows.append({"prompt": p.prompt, "response": text, "task": "general"})
    return rows


def reasoning_problems(world: World, tasks, count: int, start: int) -> list[Problem]:
    """`count` training problems, equally many of each task, from index `start` on."""
    out, (each, rest) = [], divmod(count, len(tasks))
    for j, task in enumerate(tasks):
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
    return reinforce(cfg, models["dev1"], out, resume, "dev2", cfg.r1.language)


def reinforce(cfg, start, out, resume, stage: str, language: float, judge=None) -> str:
    """GRPO on the reasoning tasks, interleaved, on the stage's problems. language: weight of that
    reward. judge: of general requests, added in the last cfg.r1.preference_steps steps."""
    r, n, steps, first = cfg.r1, cfg.grpo.problems_per_step, cfg.r1.steps, FIRST[stage]
    rl = replace(cfg.grpo, steps=steps, tasks=r.tasks)
    cfg = replace(cfg, grpo=rl, rewards=replace(cfg.rewards, language=language))
    world = World(cfg.seed, cfg.world)

    def next_problems(step: int) -> list[Problem]:
        indices = range(step * n, (step + 1) * n)
        found = [world.problem(r.tasks[i % len(r.tasks)], first + i) for i in indices]
        if judge and step % steps >= steps - r.preference_steps:  # DAPO goes on beyond the last
            asked = round(r.general * n)
            found += world.problems("general", asked, start=first + step * max(n, asked))
        return found

    return grpo.train(cfg, start, out, resume, stage, next_problems, judge)


def dev3(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """Rejection sampling: Dev2's clean responses and people's replies teach the base once more."""
    rows = texts_of(cfg, models["dev2"], "dev3", cfg.r1.reject_prompts, out)
    return fine_tune(cfg, models["base"], rows, out, resume)


def r1(cfg, models: dict[str, str], out: str, resume: bool) -> str:
    """RL for all scenarios: rules judge reasoning; in the last steps reward models the rest."""
    folders = {}
    for kind in preference.KINDS:
        folder = os.path.join(os.path.dirname(out), kind)
        folders[kind] = preference.train(cfg, models["dev3"], folder, kind, resume)
    judge = preference.Judge(folders, distributed.device(cfg.device), distributed.dtype(cfg))
    return reinforce(cfg, models["dev3"], out, resume, "r1", cfg.r1.language, judge)


STAGES = {"zero": zero, "dev1": dev1, "dev2": dev2, "dev3": dev3, "r1": r1}


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("--zero", help="run folder of train_zero.py: stages on its base and its Zero")
    add("--init", help="the base (default OUT/base/model, pretrained if it is not there)")
    add("--out", help="run folder (default runs/r1; with --config runs/r1-THAT)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--from", dest="start", choices=STAGES, help="set it and later ones aside")
    again.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, Config, algorithms=ALGORITHM_SETTINGS)
    out = args.out or config.run_folder("r1", cfg, args)
    flags = "--resume in place of --from" if args.start else "--resume"
    with config.user_errors(), distributed.started(cfg), resumable(out, flags):
        if cfg.lora.rank:
            fix = "adapt with sft.py, train_zero.py or distill.py"
            raise UserError(f"--lora.rank: reward models are trained whole here: {fix}")
        cfg = inputs.suited(cfg, args.init, args)
        inputs.check_base(cfg, args)
        models = {"base": args.init or os.path.join(args.zero or out, "base", "model")}
        if args.zero:
            models["zero"] = os.path.join(args.zero, "model")
            inputs.check_zero(args.zero, models["base"])
        if args.start:
            stages.check_earlier(out, models, list(STAGES), args.start)
        elif not args.resume and any(os.path.exists(os.path.join(out, s)) for s in STAGES):
            fix = "add --resume to go on, --from STAGE to repeat stages, or name another --out"
            raise UserError(f"'{out}' already holds a run: {fix}")
        distributed.barrier()  # all have looked before one writes
        recipe(cfg, models, out, args.resume, args.start)


if __name__ == "__main__":
    main()
