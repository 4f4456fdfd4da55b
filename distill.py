"""Distillation: R1's responses teach small dense students, and the same students try reinforcement learning instead
[DeepSeek-R1, 2501.12948, section 2.4 and 4.1].

    python distill.py                            # laptop: makes the teacher if there is none, its data set, four students, the table
    python distill.py --students qwen-s          # one student
    python distill.py --data runs/distill/teacher.jsonl --out runs/again     # the saved data set once more

Every student is pretrained on the same web text as the teacher's base and then fine-tuned on what the teacher wrote: no RL.
The first student in the list (the paper has Qwen-32B) goes two more ways: RL from its own base, and RL after distillation.

Deviations from the paper: students are pretrained here, smaller than the teacher, for fewer tokens; the teacher has 1.5 million
parameters (0.9 million active); the RL budget is distill.rl_steps steps, not 10,000.
"""

import os
import sys
from dataclasses import asdict, dataclass, replace

import eval as evaluation
import grpo
import parallel
import preference
import sft
import train_r1
from data import World
from model import GPT, ModelConfig

DENSE = dict(attention="gqa", n_experts=0, n_kv_heads=2, rope_interleaved=False)
SMALL, MEDIUM = dict(dim=64, n_layers=3, n_heads=4, head_dim=16, hidden_dim=192), dict(dim=96, n_layers=4, n_heads=4, head_dim=24, hidden_dim=256)
# of students of the presets' teachers
SIZES = {"small": (dict(dim=384, n_layers=8, n_heads=6, head_dim=64, hidden_dim=1024), dict(dim=576, n_layers=12, n_heads=8, head_dim=72, hidden_dim=1536)),
         "big": (dict(dim=768, n_layers=12, n_heads=12, head_dim=64, hidden_dim=2048), dict(dim=1024, n_layers=16, n_heads=16, head_dim=64, hidden_dim=2816))}
STUDENTS = {  # shapes: Qwen2 has biases on q, k and v; Llama has none
    "qwen-m": DENSE | MEDIUM | dict(qkv_bias=True),
    "qwen-s": DENSE | SMALL | dict(qkv_bias=True),
    "llama-m": DENSE | MEDIUM,
    "llama-s": DENSE | SMALL,
}
QUICK = train_r1.QUICK | {"distill.prompts": 128, "distill.tokens": 400_000, "distill.rl_steps": 6}


@dataclass
class DistillConfig:
    prompts: int = 3200  # reasoning problems put to the teacher
    general: int = 600  # and general requests
    samples: int = 4
    most_kept: int = 2
    tokens: int = 4_000_000  # a student's pretraining
    rl_steps: int = 50


def teach(cfg, teacher: str, judges: dict[str, str], path: str) -> list[dict]:
    """The teacher's clean responses, as rows {"prompt", "response", "task"}; kept in the JSONL file `path`.

    judges: the folders of the reward models that choose among replies to general requests; without them, none is asked.
    """
    world = World(cfg.seed, cfg.world)
    problems = train_r1.reasoning_problems(world, cfg.distill.prompts, 500_000)
    if judges:
        problems += world.problems("general", cfg.distill.general, start=500_000)
    judge = preference.Judge(judges, parallel.device(cfg.device), parallel.dtype(cfg)) if judges else None
    return train_r1.harvest(teacher, problems, cfg.distill.samples, cfg.distill.most_kept, cfg, path, cfg.seed, judge)


def slug(way: str) -> str:
    return way.replace(" + ", "-").replace(" ", "-")


def student(cfg, name: str, rows: list[dict], out: str, with_rl: bool, resume: bool, init: str | None = None) -> dict[str, str]:
    """One student's models by what was done to it: base, distilled, and with_rl also RL alone, distilled + RL.

    init: the folder of a student that is there already; else one of STUDENTS is pretrained.
    """
    size = SIZES[cfg.name][name.endswith("-m")] if cfg.name in SIZES and name in STUDENTS else {}
    shape = ModelConfig(**asdict(cfg.model) | STUDENTS.get(name, {}) | size)
    own = replace(cfg, model=shape, sft=replace(cfg.sft, tokens=cfg.distill.tokens))
    models = {"base": init or sft.pretrain(own, os.path.join(out, "base"), resume)}

    def once(way: str, make) -> str:
        folder = os.path.join(out, slug(way))
        done = os.path.join(folder, "model")
        return done if os.path.exists(os.path.join(done, "config.json")) else make(folder)

    models["distilled"] = once("distilled", lambda folder: train_r1.fine_tune(own, models["base"], rows, folder, resume))
    if with_rl:
        for way, start in (("RL alone", "base"), ("distilled + RL", "distilled")):
            models[way] = once(way, lambda folder, s=start: train_r1.reinforce(own, models[s], folder, resume, "rl", cfg.distill.rl_steps, 600_000))
    return models


def recipe(cfg, teacher: str, data: str | None, names: list[str], out: str, resume: bool, init: str | None = None) -> None:
    """The data set, the students, the table. init: the folder of the only student, which `names` then names."""
    if cfg.name != "tiny" or init:
        own, texts = cfg.distill, cfg.distill.most_kept * (cfg.distill.prompts + cfg.distill.general)
        learnt = len(names) * ((0 if init else own.tokens) + cfg.r1.epochs * texts * cfg.eval.max_new_tokens)
        asked = 0 if data else (own.prompts + own.general) * own.samples
        grpo.check_room(cfg, GPT.empty(init).cfg if init else cfg.model, learnt, 2 * own.rl_steps, asked)  # the teacher's shape; students are smaller
    settings = {k: v for k, v in asdict(cfg).items() if k not in ("device", "eval")} | {"eval": evaluation.sampling(cfg.eval)}
    settings |= {"init": GPT.from_pretrained(init).fingerprint()} if init else {}
    if data is None:
        data = os.path.join(out, "teacher.jsonl")
        parallel.claim(out, settings | {"teacher": GPT.from_pretrained(teacher).fingerprint()})
        run = os.path.dirname(os.path.dirname(os.path.normpath(teacher)))  # train_r1.py's reward models stand beside its R1
        judges = {kind: os.path.join(run, kind, "model") for kind in preference.KINDS}
        with parallel.stopwatch(out, "teacher"):
            teach(cfg, teacher, judges if all(map(os.path.exists, judges.values())) else {}, data)
    rows = sft.read_rows(data)
    parallel.claim(out, settings | {"rows": parallel.fingerprint(rows)})
    figures, parameters = {}, {}
    for name in names:
        folder = os.path.join(out, name)
        print(f"--- {name}", flush=True)
        with parallel.stopwatch(out, name):
            models = student(cfg, name, rows, folder, name == names[0], resume, init)
        with parallel.stopwatch(out, "evaluation"):
            reports = {way: train_r1.evaluate_stage(cfg, f"{name}, {way}", model, os.path.join(folder, f"eval-{slug(way)}.json")) for way, model in models.items()}
        figures[name] = evaluation.stage_figures(reports)
        parameters[name] = sum(p.numel() for p in GPT.empty(models["base"]).parameters())
    minutes = parallel.minutes(out)
    parallel.write_json(os.path.join(out, "distill.json"),
                        {"minutes": minutes, "examples": len(rows), "budget": asdict(cfg.distill), "parameters": parameters, "figures": figures})
    flat = {f"{name}, {way}": row for name, ways in figures.items() for way, row in ways.items()}
    print("\n" + evaluation.stage_table(flat, columns=evaluation.REASONING_COLUMNS))
    print(f"\ndata set: {data}\nstudents: {out}\nfigures: {out}/distill.json\n"
          f"minutes: {', '.join(f'{k} {v:.1f}' for k, v in minutes.items())}; together {sum(minutes.values()):.1f}\n"
          f"try it: python sample.py {out}/{names[0]}/distilled/model")


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("--teacher", help="model folder (default runs/r1/r1/model, with --config or --quick runs/r1-THAT/r1/model; made by train_r1.py if it is not there)")
    parser.add_argument("--data", help="a saved data set instead of a teacher")
    parser.add_argument("--init", help="model folder that is the student, ours or Hugging Face's, instead of --students")
    parser.add_argument("--students", default=",".join(STUDENTS), help=f"comma-separated, of {', '.join(STUDENTS)} (default all); the first is also trained by RL")
    parser.add_argument("--out", help="run folder (default runs/distill; with --config or --quick: runs/distill-THAT)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, quick=QUICK)
    out, r1 = args.out or config.folder("distill", cfg, args), config.folder("r1", cfg, args)
    with config.user_errors(), parallel.started(cfg):
        names = [os.path.basename(os.path.normpath(args.init))] if args.init else args.students.split(",")
        if not args.init and (unknown := set(names) - set(STUDENTS)):
            raise ValueError(f"there is no student '{unknown.pop()}'; the students are {', '.join(STUDENTS)}")
        if any(os.path.exists(os.path.join(out, name)) for name in names) and not args.resume:
            raise ValueError(f"'{out}' already holds these students: add --resume to go on with them, or name another with --out")
        parallel.wait()  # all have looked before one writes
        teacher = args.teacher or os.path.join(r1, "r1", "model")
        try:
            if not args.data and not args.teacher and not os.path.exists(os.path.join(teacher, "config.json")):
                print(f"there is no finished R1 in '{r1}' yet: making it first", flush=True)
                train_r1.recipe(cfg, config.zero_folder(r1, cfg, args), r1, os.path.exists(r1))
            recipe(cfg, teacher, args.data, names, out, args.resume, args.init)
        except KeyboardInterrupt:
            print(f"stopped; the work so far is in '{out}': go on with the same command and --resume", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
