"""DeepSeek-R1-Zero: reinforcement learning on a base model alone [2501.12948v1, section 2.2].

    python train_zero.py                                   # laptop: pretrains a base, then RL
    python train_zero.py --quick                           # minutes: a small base, arithmetic alone
    python train_zero.py --algorithm dapo                  # a relative of GRPO
    python train_zero.py --init FOLDER --data FILE.jsonl   # another base, a file's problems

During RL no worked solution is shown: the model samples, rules score accuracy and format, GRPO
updates. What is simpler than in the paper (grpo.py has the loss's deviations):
  1. The base is pretrained here, on the synthetic texts of data.py, worked solutions among them.
  2. A prompt is <|begin|><|User|>PROBLEM<|Assistant|>: the paper's template without its sentence
     about tags; the base knows them from its texts, and has to write <think> itself.
  3. Each step takes problems of all tasks in equal parts.
  4. A laptop's sizes: 40 rollouts of 512 responses of at most 400 tokens, each cut into up to four
     updates, at a learning rate of 3e-4 (docs/equations.md has the paper's figures).
"""

import lib.start  # noqa: F401

import os
import random
import time
from dataclasses import dataclass
from functools import lru_cache, partial

import config
import grpo
import inputs
import sft
import stages
from algorithms import ALGORITHM_SETTINGS
from data import PROGRAMS, Dataset, Problem
from decompose import decompose, plain
from eval import EvalConfig, by_task, evaluate_folder, held_out, table
from grpo import GRPOConfig
from lib import distributed, page, report
from lib.errors import UserError
from lib.run import fingerprint, resumable
from rewards import RewardConfig
from tasks import sandbox

QUICK = {"sft.tokens": 4_000_000, "world.tasks": "arithmetic", "world.reasoned": 0.6}
QUICK |= {"grpo.tasks": "arithmetic", "grpo.steps": 30, "eval.problems": 64, "eval.k": 8}


@dataclass
class Config(sft.Config):
    grpo: GRPOConfig = config.section(GRPOConfig)
    rewards: RewardConfig = config.section(RewardConfig)
    eval: EvalConfig = config.section(EvalConfig)


def recipe(cfg, init: str | None, folder: str, out: str, resume: bool, dataset=None) -> None:
    """The whole of R1-Zero, into the folder `out`, from the model in folder `init`; without, a base
    is pretrained in `folder`, if it is not there yet. dataset: a Dataset to train on instead of the
    world's problems."""
    # 0. What would fail later fails now: tasks that no text is about, too little memory
    start, cfg = time.time(), stages.settings_of(cfg, Config)
    if not init and not dataset:
        stages.check_read(cfg, "grpo.tasks", cfg.grpo.tasks)
    learnt, problems = 0 if init else cfg.sft.tokens, dataset.train if dataset else ()
    stages.check_room(cfg, init, learnt, cfg.grpo.steps, problems=problems, tasks=cfg.grpo.tasks)
    inputs.begin(out, resume, "zero")

    # 1. The base: next-token prediction on web text
    base = init or os.path.join(folder, "model")
    if not init:
        if not inputs.is_model(base):
            print("there is no finished base model yet: pretraining one first", flush=True)
        # one that is finished has to have these settings, unless a data set has the problems
        if not (dataset and inputs.is_model(base)):
            sft.pretrain(cfg, folder, resume)

    # 2. Zero: reinforcement learning
    if dataset and any(p.task in PROGRAMS for p in dataset.train):
        print(sandbox.protection())
    print(f"reinforcement learning on {base}; into {out}", flush=True)
    print(f"watch it in a browser: {out}/report.html", flush=True)
    zero = train(cfg, base, out, resume, dataset and dataset.train)
    if distributed.is_main_process():
        report.plot_curves(out, f"{out}/curves.png")

    # 3. Both on the same problems
    about = dataset.about_test if dataset else "problems of the world, held out by content"
    sets = held_out(cfg.world, cfg.eval, cfg.grpo.tasks)
    if dataset:
        sets = by_task(dataset.test, cfg.eval.problems)
    before, after = (evaluate_folder(cfg, m, sets, cfg.seed, m) for m in (base, zero))
    rows = [row for t in sets for row in (("base", before[t]), ("zero", after[t]))]
    parts = ""  # of the gain
    if not dataset and plain(cfg.eval):
        parts = f"\nwhere the gain comes from:\n{decompose(cfg, base, sets, before, after, out)}"
    minutes = (time.time() - start) / 60
    # after all that takes time: a run with eval.json has ended
    report.save_reports(rows, f"{out}/eval.json", minutes=minutes, problems=about)
    if distributed.is_main_process():
        page.write(out)
    print("\nbefore and after, the same problem:")
    for task, problems in sets.items():
        print(stages.before_after(problems, before[task], after[task]))
    print(f"{parts}\n\n{table(rows)}\n\nthe table's: {about}\nmodel: {zero}")
    print(f"curves: {out}/curves.png\nfigures: {out}/eval.json\nminutes: {minutes:.1f}")
    print(f"try it: python sample.py {config.quoted(zero)}")


def train(
    cfg, base: str, out: str, resume: bool, dataset: list[Problem] | None = None, judge=None
) -> str:
    """GRPO on the model in folder `base`; returns the folder of the result. judge: adds rewards
    (grpo.Learner)."""
    if dataset:
        dataset = inputs.fitting(cfg, base, dataset)
    next_problems = partial(problems_of, cfg=cfg, dataset=dataset)
    fixed, data = dataset and dataset[:3], fingerprint(dataset)
    return grpo.train(cfg, base, out, resume, "zero", next_problems, judge, fixed, data=data)


def problems_of(step: int, cfg, dataset: list[Problem] | None) -> list[Problem]:
    """A step's problems: the world's next ones, or the data set's, every epoch in another order."""
    if dataset is None:
        return grpo.problems_in_order(cfg, step)
    n, count = cfg.grpo.problems_per_step, len(dataset)
    drawn = (divmod(i, count) for i in range(step * n, (step + 1) * n))  # (epoch, place in it)
    return [dataset[_order(cfg.seed, epoch, count)[place]] for epoch, place in drawn]


@lru_cache(maxsize=2)  # a step may reach into the next epoch
def _order(seed: int, epoch: int, count: int) -> list[int]:
    """An epoch's order of so many problems."""
    return random.Random(f"{seed} {epoch}").sample(range(count), count)


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("--out", help="run folder (default runs/zero; with --quick, --data and so on: -THAT)")
    add("--init", help="base model, ours or Hugging Face's (default: pretrained in OUT/base)")
    add("--data", help="JSONL file of problems to train on, instead of the world's")
    add("--test", help="JSONL file of problems for the table (default: a fifth of --data)")
    add("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, Config, QUICK, algorithms=ALGORITHM_SETTINGS)
    home = config.run_folder("zero", cfg, args)
    variant = [os.path.splitext(os.path.basename(args.data))[0]] if args.data else []
    variant += [args.algorithm] if args.algorithm not in (None, "grpo") else []
    out = args.out or "-".join([home, *variant])
    # variants start from the plain run's base
    folder = os.path.join(out if args.out and not variant else home, "base")
    with config.user_errors(), distributed.started(cfg), resumable(out):
        if args.test and not args.data:
            raise UserError("--test belongs to --data: name the problems to train on too")
        dataset = Dataset.load(args.data, args.test) if args.data else None
        cfg = inputs.suited(cfg, args.init, args)
        inputs.check_base(cfg, args)
        recipe(cfg, args.init, folder, out, args.resume, dataset)


if __name__ == "__main__":
    main()
