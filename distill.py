"""Distillation: R1's responses teach small dense students, and the same students try reinforcement
learning instead [DeepSeek-R1, 2501.12948v1, sections 2.4 and 4.1].

    python distill.py                      # laptop: four students; the teacher, if there is none
    python distill.py --students qwen-s    # one student
    python distill.py --data runs/distill/teacher.jsonl --out runs/again    # the saved data set

Every student is pretrained on as much of the same web text as the teacher's base, then fine-tuned
on what the teacher wrote: no RL. The first one goes three more ways: RL alone, RL after
distillation, and on-policy distillation, where the student writes and the teacher judges each
token (algorithms/relatives.py; not in the paper).

What is simpler than in the paper:
  1. Students are pretrained here, smaller than the teacher.
  2. The teacher has 1.5 million parameters, of which 0.9 million are active.
  3. The RL budget is distill.rl_steps steps, not 10,000.
"""

import lib.start  # noqa: F401

import os
from dataclasses import asdict, dataclass, replace

import config
import inputs
import preference
import sft
import stages
import tokenizer as tokenizers
import train_r1
from algorithms import ALGORITHM_SETTINGS
from data import World
from lib import cli, distributed, files, report, shape
from lib.errors import UserError
from lib.lora import LoRAConfig
from lib.run import fingerprint, lock_settings, resumable
from model import GPT
from rejection import harvest
from train_r1 import FIRST

ON_POLICY = "on-policy-distillation"
STUDENTS = ("qwen-m", "qwen-s", "llama-m", "llama-s")
# a student's models, each with the one it starts from; the last three for the first student only
WAYS = {"distilled": "base", "RL-alone": "base", "on-policy": "base", "distilled-RL": "distilled"}


@dataclass
class DistillConfig:
    prompts: int = config.setting(3200, low=4)  # reasoning problems for the teacher
    general: int = config.setting(600, low=0)  # general requests for it
    samples: int = config.setting(4, low=1)  # responses to each
    most_kept: int = config.setting(2, low=1)  # clean ones of them
    rl_steps: int = config.setting(50, low=1)


@dataclass
class Config(train_r1.Config):
    distill: DistillConfig = config.section(DistillConfig)


def recipe(cfg, teacher: str, data: str | None, names: list[str], out: str, resume, init=None):
    """The data set, the students, the table. init: the folder of the only student in `names`."""
    d, problems = cfg.distill, cfg.distill.prompts + cfg.distill.general
    learnt = cfg.r1.epochs * d.most_kept * problems * cfg.eval.max_new_tokens
    learnt = len(names) * (learnt + (0 if init else stages.own_base(cfg).sft.tokens))
    sampled = 0 if data else problems * d.samples
    algorithm = {"algorithm": ON_POLICY, "reference": teacher} | ALGORITHM_SETTINGS[ON_POLICY]
    taught, judged = data is None, replace(cfg.grpo, **algorithm)
    # as if each had the teacher's shape, the largest, and the teacher beside it
    most = replace(cfg, grpo=replace(judged, algorithm=cfg.grpo.algorithm)) if taught else cfg
    stages.check_room(most, init, learnt, 3 * d.rl_steps, sampled, tasks=cfg.r1.tasks)
    settings = stages.settings_to_lock(cfg, init=init)
    rows = inputs.read_rows(data) if data else []
    inputs.begin(out, resume, "distill")

    # 1. The teacher's responses
    if taught:
        data = os.path.join(out, "teacher.jsonl")
        lock_settings(out, settings | stages.settings_to_lock(cfg, teacher=teacher))
        rows = teach(cfg, teacher, data)
    lock_settings(out, settings | {"rows": fingerprint(rows)})

    # 2. The students
    figures, parameters, all_ways = {}, {}, list(WAYS)
    tokenizer = tokenizers.load(init, **cfg.asked) if init else sft.corpus_tokenizer(cfg)
    if not (taught and inputs.can_judge(teacher, tokenizer, init)):
        all_ways.remove("on-policy")
        print("no on-policy distillation: no teacher has the student's tokens", flush=True)
    for name in names:
        print(f"--- {name}", flush=True)
        folder, ways = os.path.join(out, name), all_ways if name == names[0] else ["distilled"]
        models = student(cfg, name, rows, folder, ways, judged, resume, init)
        reports, tasks = {}, (*cfg.r1.tasks, "general")
        for way, model in models.items():
            about, path = f"{name}, {way}", os.path.join(folder, f"eval-{way}.json")
            reports[way] = stages.evaluate_stage(cfg, about, model, path, tasks)
        figures[name] = stages.stage_figures(reports)
        for way, row in figures[name].items():
            row["flops"] = flops(folder, way)
        shapes = GPT.from_pretrained(models["base"], device="meta").parameters()
        parameters[name] = sum(p.numel() for p in shapes)

    # 3. The table
    content = {"examples": len(rows), "budget": asdict(d), "parameters": parameters}
    # of the six stages' runs; None if some are elsewhere
    spent = [stages.effort(os.path.join(run_of(teacher), s)).get("flops") for s in train_r1.NAMES]
    content["teacher_flops"] = sum(spent) if taught and all(spent) else None
    files.write_json(os.path.join(out, "distill.json"), content | {"figures": figures})
    flat = {}
    for name, ways in figures.items():
        flat |= {f"{name}, {way}": row for way, row in ways.items()}
    print("\n" + report.stage_table(flat, columns=report.REASONING_COLUMNS))
    print(f"\ndata set: {data}\nstudents: {out}\nfigures: {out}/distill.json")
    print(f"try it: python sample.py {config.quoted(f'{out}/{names[0]}/distilled/model')}")


def run_of(model: str) -> str:
    """The run folder of train_r1.py that a model is of."""
    return os.path.dirname(os.path.dirname(os.path.normpath(model)))


def teach(cfg, teacher: str, path: str) -> list[dict]:
    """The teacher's clean responses; without its run's reward models none to general requests."""
    d, judge, world = cfg.distill, None, World(cfg.seed, cfg.world)
    judges = {kind: os.path.join(run_of(teacher), kind, "model") for kind in preference.KINDS}
    problems = train_r1.reasoning_problems(world, cfg.r1.tasks, d.prompts, FIRST["teacher"])
    if all(map(inputs.is_model, judges.values())):
        problems += world.problems("general", d.general, start=FIRST["teacher"])
        judge = preference.Judge(judges, distributed.device(cfg.device), distributed.dtype(cfg))
    cfg = replace(cfg, template="auto", template_args={})  # it is asked as it was trained
    return harvest(teacher, problems, d.samples, d.most_kept, cfg, path, cfg.seed, judge)


def student(cfg, name, rows: list[dict], out, ways, judged, resume, init=None) -> dict[str, str]:
    """The folders of a student's models: its base, and what it becomes in each of the ways. init:
    the folder of a base that is there; else one of STUDENTS is pretrained as the teacher's was.
    judged: the GRPOConfig of on-policy distillation."""
    model = cfg.model if init else shape.student(cfg.model, cfg.name, name)
    cfg = stages.own_base(replace(cfg, model=model))
    cfg.r1 = replace(cfg.r1, steps=cfg.distill.rl_steps, preference_steps=0)
    models = {"base": init or sft.pretrain(cfg, os.path.join(out, "base"), resume)}
    for way in ways:
        start, folder = models[WAYS[way]], os.path.join(out, way)
        models[way] = os.path.join(folder, "model")
        if inputs.is_model(models[way]):
            continue
        if way == "distilled":
            train_r1.fine_tune(cfg, start, rows, folder, resume)
        else:
            settings = replace(cfg, grpo=judged) if way == "on-policy" else cfg
            train_r1.reinforce(settings, start, folder, resume, "students", cfg.r1.language)
    return models


def flops(folder: str, way: str) -> float:
    """What the student in a folder cost until a way's end, as far as it was trained here; its
    teacher's training, responses and judgements are not counted (stages.effort)."""
    own = stages.effort(os.path.join(folder, way)).get("flops", 0.0)
    return own + (flops(folder, WAYS[way]) if way in WAYS else 0.0)


def main() -> None:
    parser = config.Parser(__doc__)
    add, known = parser.add_argument, ",".join(STUDENTS)
    add("--teacher", help="model folder (default runs/r1-THAT/r1/model; made if it is not there)")
    add("--data", help="a saved data set instead of a teacher")
    add("--init", help="model folder that is the student, ours or Hugging Face's")
    add("--students", default=known, help=f"default {known}; the first in all four ways")
    add("--out", help="run folder (default runs/distill; with --config -THAT)")
    add("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, Config, algorithms=ALGORITHM_SETTINGS)
    out = args.out or config.run_folder("distill", cfg, args)
    r1 = config.run_folder("r1", cfg, args)
    teacher = args.teacher or os.path.join(r1, "r1", "model")
    names = args.students.split(",")
    with config.user_errors(), distributed.started(cfg), resumable(out):
        if args.init:
            names = [os.path.basename(os.path.normpath(args.init))]
        elif unknown := set(names) - set(STUDENTS):
            raise cli.nearest("student", min(unknown), list(STUDENTS))
        if not args.resume and any(os.path.exists(os.path.join(out, name)) for name in names):
            raise UserError(f"'{out}' has these students: add --resume, or name another --out")
        if args.data and args.teacher:
            raise UserError("--data takes the place of --teacher: drop one of the two flags")
        if not (args.data or args.teacher):  # the settings are the teacher's, which is made
            args.typed = []
        own = inputs.suited(cfg, args.init, args)  # the students' settings
        inputs.check_base(own, args)
        if args.teacher:
            inputs.check_model(teacher)
        distributed.barrier()  # all have looked before one writes
        if not (args.data or args.teacher or inputs.is_model(teacher)):
            print(f"there is no finished R1 in '{r1}' yet: making it first", flush=True)
            inputs.begin(out, args.resume, "distill")
            whole = replace(cfg, lora=LoRAConfig())  # the student alone has adapters
            models = {"base": os.path.join(r1, "base", "model")}
            train_r1.recipe(whole, models, r1, os.path.exists(r1))
        recipe(own, teacher, args.data, names, out, args.resume, args.init)


if __name__ == "__main__":
    main()
