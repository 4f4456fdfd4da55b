"""Distillation: R1's responses teach small dense students, and the same students try reinforcement
learning instead [DeepSeek-R1, 2501.12948v1, sections 2.4 and 4.1].

    python distill.py                      # laptop: four students; the teacher, if there is none
    python distill.py --students qwen-s    # one student
    python distill.py --data runs/distill/teacher.jsonl --out runs/again    # the saved data set

Every student is pretrained on the same web text as the teacher's base, then fine-tuned on what the
teacher wrote: no RL. The first one goes two more ways: RL alone, and RL after distillation.

What is simpler than in the paper:
  1. Students are pretrained here, smaller than the teacher, for fewer tokens.
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
import train_r1
from algorithms import ALGORITHM_SETTINGS
from data import World
from lib import cli, distributed, files, report
from lib.errors import UserError
from lib.lora import LoRAConfig
from lib.run import fingerprint, lock_settings, resumable
from model import GPT, ModelConfig
from rejection import harvest
from stages import check_room, evaluate_stage, settings_to_lock, stage_figures
from train_r1 import FIRST

STUDENTS = ("qwen-m", "qwen-s", "llama-m", "llama-s")
SIZES = {  # by preset, of small and medium students: dim, n_layers, n_heads, head_dim, hidden_dim
    "tiny": {"s": (64, 3, 4, 16, 192), "m": (96, 4, 4, 24, 256)},
    "small": {"s": (384, 8, 6, 64, 1024), "m": (576, 12, 8, 72, 1536)},
    "big": {"s": (768, 12, 12, 64, 2048), "m": (1024, 16, 16, 64, 2816)},
}
LABELS = {"RL-alone": "RL alone", "distilled-RL": "distilled + RL"}  # of a student's models


@dataclass
class DistillConfig:
    prompts: int = config.setting(3200, low=4)  # reasoning problems for the teacher
    general: int = config.setting(600, low=0)  # general requests for it
    samples: int = config.setting(4, low=1)  # responses to each
    most_kept: int = config.setting(2, low=1)  # clean ones of them
    tokens: int = config.setting(4_000_000, low=1)  # of a student's pretraining
    rl_steps: int = config.setting(50, low=1)


@dataclass
class Config(train_r1.Config):
    distill: DistillConfig = config.section(DistillConfig)


def recipe(cfg, teacher: str, data: str | None, names: list[str], out: str, resume, init=None):
    """The data set, the students, the table. init: the folder of the only student in `names`."""
    d, problems = cfg.distill, cfg.distill.prompts + cfg.distill.general
    learnt = cfg.r1.epochs * d.most_kept * problems * cfg.eval.max_new_tokens
    learnt = len(names) * (learnt + (0 if init else d.tokens))
    sampled = 0 if data else problems * d.samples
    # the teacher's shape: the largest
    check_room(cfg, init, learnt, 2 * d.rl_steps, sampled, tasks=cfg.r1.tasks)
    settings = settings_to_lock(cfg, init=init)
    with_teacher = settings if data else settings | settings_to_lock(cfg, teacher=teacher)
    rows = inputs.read_rows(data) if data else []
    inputs.begin(out, resume)

    # 1. The teacher's responses
    if data is None:
        data = os.path.join(out, "teacher.jsonl")
        lock_settings(out, with_teacher)
        run = os.path.dirname(os.path.dirname(os.path.normpath(teacher)))  # of train_r1.py
        judges = {kind: os.path.join(run, kind, "model") for kind in preference.KINDS}
        rows = teach(
            cfg, teacher, judges if all(map(inputs.is_model, judges.values())) else {}, data
        )
    lock_settings(out, settings | {"rows": fingerprint(rows)})

    # 2. The students
    figures, parameters = {}, {}
    for name in names:
        print(f"--- {name}", flush=True)
        folder, with_rl = os.path.join(out, name), name == names[0]
        models = student(cfg, name, rows, folder, with_rl, resume, init)
        reports = {}
        for way, model in models.items():
            path = os.path.join(folder, f"eval-{way}.json")
            tasks = (*cfg.r1.tasks, "general")
            reports[LABELS.get(way, way)] = evaluate_stage(
                cfg, f"{name}, {way}", model, path, tasks
            )
        figures[name] = stage_figures(reports)
        shapes = GPT.from_pretrained(models["base"], device="meta").parameters()
        parameters[name] = sum(p.numel() for p in shapes)

    # 3. The table
    content = {"examples": len(rows), "budget": asdict(d), "parameters": parameters}
    files.write_json(os.path.join(out, "distill.json"), content | {"figures": figures})
    flat = {}
    for name, ways in figures.items():
        flat |= {f"{name}, {way}": row for way, row in ways.items()}
    print("\n" + report.stage_table(flat, columns=report.REASONING_COLUMNS))
    print(f"\ndata set: {data}\nstudents: {out}\nfigures: {out}/distill.json")
    print(f"try it: python sample.py {config.quoted(f'{out}/{names[0]}/distilled/model')}")


def teach(cfg, teacher: str, judges: dict[str, str], path: str) -> list[dict]:
    """The teacher's clean responses. judges: reward models; without them no general requests."""
    d, judge, world = cfg.distill, None, World(cfg.seed, cfg.world)
    problems = train_r1.reasoning_problems(world, cfg.r1.tasks, d.prompts, FIRST["teacher"])
    if judges:
        problems += world.problems("general", d.general, start=FIRST["teacher"])
        judge = preference.Judge(judges, distributed.device(cfg.device), distributed.dtype(cfg))
    cfg = replace(cfg, template="auto", template_args={})  # it is asked as it was trained
    return harvest(teacher, problems, d.samples, d.most_kept, cfg, path, cfg.seed, judge)


def student_shape(cfg, name: str) -> ModelConfig:
    """Dense, with grouped-query attention; Qwen2 has biases on q, k and v, Llama has none."""
    names = ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim")
    size = dict(zip(names, SIZES.get(cfg.name, SIZES["tiny"])[name[-1]]))
    kind = dict(attention="gqa", n_experts=0, n_kv_heads=2, rope_interleaved=False)
    return replace(cfg.model, **size, **kind, qkv_bias=name.startswith("qwen"))


def student(cfg, name, rows: list[dict], out, with_rl: bool, resume, init=None) -> dict[str, str]:
    """The folders of a student's models: base, distilled, and with_rl also RL-alone, distilled-RL.
    init: the folder of a base that is there; else one of STUDENTS is pretrained."""
    shape = cfg.model if init else student_shape(cfg, name)
    world = replace(cfg.world, minor=cfg.r1.minor)  # the texts of the teacher's base
    cfg = replace(cfg, model=shape, world=world, sft=replace(cfg.sft, tokens=cfg.distill.tokens))
    cfg.r1 = replace(cfg.r1, steps=cfg.distill.rl_steps, preference_steps=0)
    models = {"base": init or sft.pretrain(cfg, os.path.join(out, "base"), resume)}
    ways = {"distilled": "base"}  # way -> the model that it starts from
    ways |= {"RL-alone": "base", "distilled-RL": "distilled"} if with_rl else {}
    for way, start in ways.items():
        folder = os.path.join(out, way)
        models[way] = os.path.join(folder, "model")
        if inputs.is_model(models[way]):
            continue
        if way == "distilled":
            train_r1.fine_tune(cfg, models[start], rows, folder, resume)
        else:
            train_r1.reinforce(cfg, models[start], folder, resume, "students", cfg.r1.language)
    return models


def main() -> None:
    parser = config.Parser(__doc__)
    add, known = parser.add_argument, ",".join(STUDENTS)
    add("--teacher", help="model folder (default runs/r1-THAT/r1/model; made if it is not there)")
    add("--data", help="a saved data set instead of a teacher")
    add("--init", help="model folder that is the student, ours or Hugging Face's")
    add("--students", default=known, help=f"default {known}; the first is also trained by RL")
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
            inputs.begin(out, args.resume)
            whole = replace(cfg, lora=LoRAConfig())  # the student alone has adapters
            models = {"base": os.path.join(r1, "base", "model")}
            train_r1.recipe(whole, models, r1, os.path.exists(r1))
        recipe(own, teacher, args.data, names, out, args.resume, args.init)


if __name__ == "__main__":
    main()
