"""Distillation: R1's responses teach small dense students, and the same students try reinforcement learning instead
[DeepSeek-R1, 2501.12948, section 2.4 and 4.1].

    python distill.py                            # laptop: makes the teacher if there is none, its data set, four students, the table
    python distill.py --students qwen-s          # one student
    python distill.py --data runs/distill/teacher.jsonl --out runs/again     # the saved data set once more

Every student is pretrained on the same web text as the teacher's base and then fine-tuned on what the teacher wrote: no RL.
The first student in the list (the paper has Qwen-32B) goes two more ways: RL from its own base, and RL after distillation.

Deviations from the paper: students are pretrained here, smaller than the teacher, for fewer tokens; the teacher has 1.5 million
parameters (0.8 million active); the RL budget is distill.rl_steps steps, not 10,000.
"""

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass, replace

import eval as evaluation
import parallel
import sft
import train_r1
from data import REASONING, World
from model import GPT, ModelConfig

DENSE = dict(attention="gqa", n_experts=0, n_kv_heads=2, rope_interleaved=False)
SMALL, MEDIUM = dict(dim=64, n_layers=3, n_heads=4, head_dim=16, hidden_dim=192), dict(dim=96, n_layers=4, n_heads=4, head_dim=24, hidden_dim=256)
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


def teach(cfg, teacher: str, path: str) -> list[dict]:
    """The teacher's clean responses, as rows {"prompt", "response", "task"}; kept in the JSONL file `path`."""
    world = World(cfg.seed, cfg.world)
    problems = train_r1.reasoning_problems(world, cfg.distill.prompts, 500_000) + world.problems("general", cfg.distill.general, start=500_000)
    return train_r1.harvest(teacher, problems, cfg.distill.samples, cfg.distill.most_kept, cfg, path, cfg.seed)


def student(cfg, name: str, rows: list[dict], out: str, with_rl: bool, resume: bool) -> dict[str, str]:
    """One student's models by what was done to it: base, distilled, and with_rl also RL alone, distilled + RL."""
    shape = ModelConfig(**asdict(cfg.model) | STUDENTS[name])
    own = replace(cfg, model=shape, sft=replace(cfg.sft, tokens=cfg.distill.tokens))
    models = {"base": sft.pretrain(own, os.path.join(out, "base"), resume)}

    def once(way: str, make) -> str:
        folder = os.path.join(out, way.replace(" + ", "-").replace(" ", "-"))
        done = os.path.join(folder, "model")
        return done if os.path.exists(os.path.join(done, "config.json")) else make(folder)

    models["distilled"] = once("distilled", lambda folder: train_r1.fine_tune(own, models["base"], rows, folder, resume))
    if with_rl:
        for way, start in (("RL alone", "base"), ("distilled + RL", "distilled")):
            models[way] = once(way, lambda folder, s=start: train_r1.reinforce(own, models[s], folder, resume, "rl", cfg.distill.rl_steps, 600_000))
    return models


def table(figures: dict[str, dict[str, dict[str, float]]], parameters: dict[str, int]) -> str:
    """Markdown: a row for each student and what was done to it; pass@1 ± standard error, cons@k, percent."""
    lines = ["| student | parameters | way | " + " | ".join(f"{t}, cons" for t in REASONING) + " | mean pass@1 | format | language |", "|" + "---|" * (len(REASONING) + 6)]
    for name, ways in figures.items():
        for way, row in ways.items():
            cells = [f"{100 * row[t]:.1f} ± {100 * row[t + '_se']:.1f}, {100 * row[t + '_cons']:.1f}" for t in REASONING]
            cells += [f"{100 * row[k]:.1f}" for k in ("reasoning", "format", "language_consistency")]
            lines.append(f"| {name} | {parameters[name]:,} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recipe(cfg, teacher: str, data: str | None, names: list[str], out: str, resume: bool) -> None:
    """The data set, the students, the table."""
    began = time.time()
    os.makedirs(out, exist_ok=True)
    if data is None:
        data = os.path.join(out, "teacher.jsonl")
        if not os.path.exists(data):
            teach(cfg, teacher, data)
    rows = sft.read_rows(data)
    figures, parameters, minutes = {}, {}, {}
    for name in names:
        t0 = time.time()
        folder = os.path.join(out, name)
        print(f"--- {name}", flush=True)
        models = student(cfg, name, rows, folder, name == names[0], resume)
        reports = {}
        for way, model in models.items():
            path = os.path.join(folder, f"eval-{way.replace(' + ', '-').replace(' ', '-')}.json")
            reports[way] = train_r1.evaluate_stage(cfg, f"{name}, {way}", model, path)
        figures[name] = evaluation.stage_figures(reports)
        parameters[name] = sum(p.numel() for p in GPT.from_pretrained(models["base"]).parameters())
        minutes[name] = (time.time() - t0) / 60
    minutes["all"] = (time.time() - began) / 60
    parallel.write_json(os.path.join(out, "distill.json"),
                        {"minutes": minutes, "examples": len(rows), "budget": asdict(cfg.distill), "parameters": parameters, "figures": figures})
    print("\n" + table(figures, parameters))
    print(f"\ndata set: {data}\nstudents: {out}\nfigures: {out}/distill.json\nminutes: {minutes['all']:.1f}\n"
          f"try it: python sample.py {out}/{names[0]}/distilled/model")


def main() -> None:
    import config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", help="model folder (default runs/r1/r1/model, made by train_r1.py if it is not there)")
    parser.add_argument("--data", help="a saved data set instead of a teacher")
    parser.add_argument("--students", default=",".join(STUDENTS), help=f"comma-separated, of {', '.join(STUDENTS)} (default all); the first is also trained by RL")
    parser.add_argument("--out", default="runs/distill", help="run folder (default runs/distill)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, quick=QUICK)
    with config.user_errors():
        names = args.students.split(",")
        if unknown := set(names) - set(STUDENTS):
            raise ValueError(f"there is no student '{unknown.pop()}'; the students are {', '.join(STUDENTS)}")
        if any(os.path.exists(os.path.join(args.out, name)) for name in names) and not args.resume:
            raise ValueError(f"'{args.out}' already holds these students: add --resume to go on with them, or name another with --out")
        teacher = args.teacher or "runs/r1/r1/model"
        try:
            if not args.data and not args.teacher and not os.path.exists(os.path.join(teacher, "config.json")):
                print("there is no finished R1 in 'runs/r1' yet: making it first", flush=True)
                train_r1.recipe(cfg, "runs/zero", "runs/r1", "dev1", os.path.exists("runs/r1"))
            recipe(cfg, teacher, args.data, names, args.out, args.resume)
        except KeyboardInterrupt:
            print(f"stopped; the work so far is in '{args.out}': go on with the same command and --resume", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
