"""DeepSeek-R1-Zero: reinforcement learning on a base model, and nothing else [2501.12948, section 2.2].

    python train_zero.py                                   # laptop: pretrains the base if there is none, then RL
    python train_zero.py --quick                           # the same in a few minutes
    python train_zero.py --algorithm dapo                  # with a relative of GRPO (grpo.ALGORITHMS)
    python train_zero.py --data FILE.jsonl                 # the same loop on a benchmark's problems
    python train_zero.py --init FOLDER --data FILE.jsonl   # ... with a model from elsewhere

No worked solution is ever shown in this stage: the model samples, rules score accuracy and format, GRPO updates. At the
end the base and Zero are evaluated on the same held-out problems, and curves.png shows the way there.

Deviations from the paper: the base is pretrained here, on the synthetic web text of data.py; the prompt has the roles of
the paper's template without its sentence; each step takes problems of all tasks in equal parts; format weighs four times as
much as accuracy.
"""

import json
import os
import random
import sys
import time

import matplotlib

import eval as evaluation
import grpo
import parallel
import sandbox
import sft
import tokenizer as tokenizers
from data import PROGRAMS, Problem, World, load_jsonl, prompt_ids
from model import GPT

QUICK = {"sft.tokens": 2_200_000, "world.tasks": "arithmetic", "world.direct": 0.4, "grpo.tasks": "arithmetic", "grpo.steps": 30, "eval.problems": 64, "eval.k": 8}


def problems_of(step: int, cfg, world: World, dataset: list[Problem] | None) -> list[Problem]:
    """The problems of a step: the world's next ones, the tasks in turn, or the next of the data set, shuffled each epoch."""
    n = cfg.grpo.problems_per_step
    if dataset is None:
        tasks = cfg.grpo.tasks
        return [world.problem(tasks[i % len(tasks)], i) for i in range(step * n, (step + 1) * n)]
    out = []
    for i in range(step * n, (step + 1) * n):
        epoch, place = divmod(i, len(dataset))
        order = random.Random(f"{cfg.seed} {epoch}").sample(range(len(dataset)), len(dataset))
        out.append(dataset[order[place]])
    return out


def train(cfg, base: str, out: str, resume: bool, dataset: list[Problem] | None = None) -> str:
    """GRPO on the model in folder `base`; returns the folder of the result. KeyboardInterrupt after a clean stop."""
    if dataset:
        tokenizer, context = tokenizers.load(base), GPT.empty(base).cfg.max_seq_len
        fits = [p for p in dataset if len(prompt_ids(p, tokenizer)) < context]
        if len(fits) < len(dataset):
            print(f"{len(dataset) - len(fits)} of {len(dataset)} problems are longer than the context of {context} tokens and are left out")
        if not fits:
            raise ValueError(f"no problem fits the model's context of {context} tokens: use shorter ones, or a model with a longer context")
        dataset = fits
    world = World(cfg.seed, cfg.world)
    return grpo.train(cfg, base, out, resume, "zero", lambda step: problems_of(step, cfg, world, dataset), data=parallel.fingerprint(dataset))


def plot_curves(metrics_path: str, path: str) -> None:
    """Accuracy, length, format and language consistency against RL steps, one line a task, to a PNG."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(metrics_path, encoding="utf-8") as f:
        rows = [r for r in map(json.loads, f) if r["stage"] == "zero"]
    tasks = sorted(k.removesuffix("/accuracy") for k in rows[-1] if k.endswith("/accuracy"))
    fig, axes = plt.subplots(1, 4, figsize=(16, 3.6))
    for ax, (key, title) in zip(axes, (("accuracy", "accuracy (pass@1, training problems)"), ("mean_length", "response length, tokens"),
                                       ("format", "format followed"), ("language_consistency", "words in the problem's language"))):
        for color, task in zip(("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"), tasks):
            points = [(r["step"], r[f"{task}/{key}"]) for r in rows if f"{task}/{key}" in r]
            x, y = zip(*points)
            smooth = [sum(y[max(0, i - 4) : i + 1]) / len(y[max(0, i - 4) : i + 1]) for i in range(len(y))]
            ax.plot(x, y, color=color, alpha=0.25, lw=1)
            ax.plot(x, smooth, color=color, label=task)
        ax.set(title=title, xlabel="RL step")
        ax.grid(alpha=0.3)
        if key != "mean_length":
            ax.set_ylim(-0.02, 1.02)
    axes[0].legend()
    evaluation.save_figure(fig, path)


def before_after(before: list[evaluation.Report], after: list[evaluation.Report], sets: dict[str, list[Problem]]) -> str:
    """For each task, one held-out problem that Zero now solves more often than the base did, with a response of each."""
    out = []
    for b, a, problems in zip(before, after, sets.values()):
        k = a.k

        def right(report, i, k=k):
            return sum(s["correct"] for s in report.samples[i * k : (i + 1) * k])

        best = max(range(len(problems)), key=lambda i: (right(a, i) - right(b, i), -i))
        shown = [next((s for s in r.samples[best * k : (best + 1) * k] if s["correct"] == want), r.samples[best * k])
                 for r, want in ((b, False), (a, True))]
        out.append(f"[{a.task}] {problems[best].prompt}\n  base ({right(b, best)} of {k} right): {shown[0]['response']}\n"
                   f"  Zero ({right(a, best)} of {k} right): {shown[1]['response']}")
    return "\n".join(out)


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("--out", help="run folder (default runs/zero; with --config, --quick, --data, --algorithm: runs/zero-THAT)")
    parser.add_argument("--init", help="model folder to start from, ours or Hugging Face's (default: OUT/base, with --data or --algorithm runs/zero/base; pretrained if not there)")
    parser.add_argument("--data", help="JSONL file of problems to train on, instead of the world's")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    cfg, args = config.parse(parser, quick=QUICK, algorithm=True)
    home = config.folder("zero", cfg, args)
    data = [os.path.splitext(os.path.basename(args.data))[0]] if args.data else []
    out = args.out or "-".join([home, *data, *([args.algorithm] if args.algorithm != "grpo" else [])])
    first = os.path.join(out if args.out and not args.data and args.algorithm == "grpo" else home, "base")
    with config.user_errors(), parallel.started(cfg):
        try:
            recipe(cfg, args.init, first, out, args.resume, load_jsonl(args.data) if args.data else None)
        except KeyboardInterrupt:
            print(f"stopped; the work so far is in '{out}': go on with the same command and --resume", file=sys.stderr)
            sys.exit(130)


def recipe(cfg, base: str | None, folder: str, out: str, resume: bool, dataset: list[Problem] | None) -> None:
    """Base, RL, evaluation of both, curves, and a summary on stdout. Without a base one is pretrained in `folder`, if there is none."""
    started, device = time.time(), parallel.device(cfg.device)
    if cfg.name != "tiny" or base:
        grpo.check_room(cfg, GPT.empty(base).cfg if base else cfg.model, 0 if base else cfg.sft.tokens, cfg.grpo.steps)
    if base is None:
        base = os.path.join(folder, "model")
        if not os.path.exists(os.path.join(base, "config.json")):
            print("there is no finished base model yet: pretraining one first", flush=True)
        if not dataset or not os.path.exists(os.path.join(base, "config.json")):  # with other data, any base will do
            sft.pretrain(cfg, folder, resume)
    if dataset and any(p.task in PROGRAMS for p in dataset):
        print(sandbox.protection())
    print(f"reinforcement learning on {base}; into {out}", flush=True)
    zero = train(cfg, base, out, resume, dataset)
    tokenizer = tokenizers.load(base)
    sets = ({task: own[: cfg.eval.problems] for task, own in evaluation.by_task(dataset).items()} if dataset
            else evaluation.held_out(cfg.world, cfg.eval, cfg.grpo.tasks))
    reports = {name: [evaluation.evaluate(GPT.from_pretrained(folder, parallel.dtype(cfg), device), tokenizer, problems, cfg.eval, cfg.seed, f"evaluating {name}, {task}")
                      for task, problems in sets.items()] for name, folder in (("base", base), ("zero", zero))}
    rows = [(name, r) for pair in zip(*reports.values()) for name, r in zip(reports, pair)]
    if parallel.first():
        plot_curves(os.path.join(out, "metrics.jsonl"), os.path.join(out, "curves.png"))
    minutes = (time.time() - started) / 60
    evaluation.save_reports(rows, os.path.join(out, "eval.json"), minutes=minutes)
    print(f"\nbefore and after, the same {'training' if dataset else 'held-out'} problem:\n" + before_after(*reports.values(), sets))
    print("\n" + evaluation.table(rows))
    print(f"\nmodel: {zero}\ncurves: {out}/curves.png\nfigures: {out}/eval.json\nminutes: {minutes:.1f}\ntry it: python sample.py {zero}")


if __name__ == "__main__":
    main()
