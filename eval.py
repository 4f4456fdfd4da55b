"""Evaluation: pass@1, pass@k, cons@k and what the responses look like.

    python eval.py runs/zero/model runs/base/model --k 16             # the world's held-out problems, a table of models
    python eval.py runs/zero/model --data FILE.jsonl --limit 50

pass@1 is the mean over k samples a question [DeepSeek-R1, 2501.12948, section 3]; pass@k the unbiased estimate of
[Chen et al. 2021, 2107.03374]; cons@k the answer most samples agree on. Standard errors are over questions
[Miller 2024, 2411.00640]. Beside the table a JSON with the same figures is written.
"""

import argparse
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, field

from tqdm import tqdm

import parallel
import rewards as rw
import tokenizer as tokenizers
from data import Problem, World, WorldConfig, load_jsonl
from model import GPT
from sample import generate


@dataclass
class EvalConfig:
    problems: int = 128  # held-out problems a task
    k: int = 16  # samples a problem
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 300
    rows: int = 512  # responses generated at once


@dataclass
class Report:
    """One model on one task; shares between 0 and 1, lengths in tokens."""

    task: str
    problems: int
    k: int
    pass1: float
    pass1_se: float
    cons: float
    passk: float
    format: float
    language_consistency: float
    mean_length: float
    clipped: float  # responses cut off before they ended
    reflection_words: float  # a response
    pass_at: dict[int, float] = field(default_factory=dict)  # k' -> pass@k' for the powers of two up to k
    samples: list[dict] = field(default_factory=list)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples is right, from c right ones among n: 1 - C(n-c, k) / C(n, k)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def consensus(answers: list[str | None]) -> str | None:
    """The most frequent answer, in its normal form (18 = 18.0 = $18; white space aside). Samples without an answer do not
    vote; a tie goes to the answer that appeared first. None if nobody answered."""
    votes = Counter(rw.normal_form(a) for a in answers if a is not None)  # Counter keeps the order of first appearance
    return votes.most_common(1)[0][0] if votes else None


def standard_error(means: list[float]) -> float:
    """Of the mean over questions: sqrt(sum (s_i - mean)^2 / (n (n - 1))); 0 for one question."""
    n, mean = len(means), sum(means) / len(means)
    return math.sqrt(sum((s - mean) ** 2 for s in means) / (n * (n - 1))) if n > 1 else 0.0


def evaluate(model: GPT, tokenizer: tokenizers.Tokenizer, problems: list[Problem], cfg: EvalConfig, seed: int = 0,
             name: str = "evaluating") -> Report:
    """Sample cfg.k responses to every problem (all of one task) and score them."""
    per_call = max(1, cfg.rows // cfg.k)
    prompts = [tokenizer.prompt(p.prompt) for p in problems]
    order = sorted(range(len(problems)), key=lambda i: len(prompts[i]))  # like lengths together
    too_long = [i for i in order if len(prompts[i]) >= model.cfg.max_seq_len]
    order = order[: len(order) - len(too_long)]
    if too_long:
        print(f"{len(too_long)} of {len(problems)} problems are longer than the model's context of {model.cfg.max_seq_len} tokens and count as unanswered")
    samples = [score_text(problems[i], i, "", 0, False) for i in too_long for _ in range(cfg.k)]
    for start in tqdm(range(0, len(order), per_call), desc=name, leave=False, unit="batch"):
        chunk = order[start : start + per_call]
        rollout = generate(model, [prompts[i] for i in chunk], num_generations=cfg.k, max_new_tokens=cfg.max_new_tokens,
                           temperature=cfg.temperature, top_p=cfg.top_p, seed=seed * 1_000_003 + start)
        lengths = (rollout.lengths - rollout.prompt_lengths).tolist()
        for j, ids in enumerate(rollout.responses()):
            i = chunk[j // cfg.k]
            samples.append(score_text(problems[i], i, tokenizer.decode(ids), lengths[j], bool(rollout.finished[j])))
    samples.sort(key=lambda s: s["problem"])  # stable: a problem's samples keep their order
    return summarise(problems, samples, cfg.k)


def score_text(problem: Problem, index: int, text: str, length: int, finished: bool) -> dict:
    """One response with its verdict and measures."""
    answer = rw.extract_answer(text)
    return {"problem": index, "response": text, "answer": answer, "correct": rw.correct(problem, answer), "format": rw.format_reward(text),
            "length": length, "finished": finished, "language_consistency": rw.language_consistency(rw.thinking(text), problem.language),
            "reflection_words": rw.reflection_words(text)}


def summarise(problems: list[Problem], samples: list[dict], k: int) -> Report:
    """The figures of k samples a problem, given side by side."""
    groups = [samples[i : i + k] for i in range(0, len(samples), k)]
    right = [sum(s["correct"] for s in g) for g in groups]
    voted = [rw.correct(p, consensus([s["answer"] for s in g])) for p, g in zip(problems, groups)]

    def mean(key: str) -> float:
        return sum(s[key] for s in samples) / len(samples)

    powers = [2**i for i in range(k.bit_length())]
    pass_at = {j: sum(pass_at_k(k, c, j) for c in right) / len(right) for j in sorted({*powers, k})}
    return Report(task=problems[0].task, problems=len(problems), k=k, pass1=mean("correct"), pass1_se=standard_error([c / k for c in right]),
                  cons=sum(voted) / len(voted), passk=pass_at[k], format=mean("format"), language_consistency=mean("language_consistency"),
                  mean_length=mean("length"), clipped=1 - mean("finished"), reflection_words=mean("reflection_words"),
                  pass_at=pass_at, samples=samples)


def table(rows: list[tuple[str, Report]]) -> str:
    """A Markdown table, a row for each (model, report)."""
    k = rows[0][1].k
    head = ["model", "task", "n", "pass@1", f"cons@{k}", f"pass@{k}", "format", "language", "length", "reflection"]
    body = [[name, r.task, str(r.problems), f"{100 * r.pass1:.1f} ± {100 * r.pass1_se:.1f}", f"{100 * r.cons:.1f}", f"{100 * r.passk:.1f}",
             f"{100 * r.format:.1f}", f"{100 * r.language_consistency:.1f}", f"{r.mean_length:.1f}", f"{r.reflection_words:.2f}"]
            for name, r in rows]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in [head, *body]]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def save_reports(rows: list[tuple[str, Report]], path: str, **more) -> None:
    """The figures, without the samples, as JSON; `more` stands beside them."""
    parallel.write_json(path, more | {"reports": [{"model": name} | {k: v for k, v in asdict(r).items() if k != "samples"} for name, r in rows]})


def main() -> None:
    import config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model folders")
    parser.add_argument("--task", action="append", help="a task of the world (repeat for several; default: all)")
    parser.add_argument("--data", help="a JSONL file instead of the world")
    parser.add_argument("--limit", type=int, help="only the first so many problems of it")
    parser.add_argument("--k", type=int, help="samples a problem (default 16)")
    parser.add_argument("--out", default="eval.json", help="where the figures go (default eval.json)")
    cfg, args = config.parse(parser)
    if args.k is not None:
        cfg.eval.k = args.k
    with config.user_errors():
        if cfg.eval.k < 1 or (args.limit is not None and args.limit < 1):
            raise ValueError("--k and --limit must be at least 1")
        if not os.path.isdir(os.path.dirname(args.out) or "."):
            raise ValueError(f"there is no folder for --out '{args.out}': create it first")
        if args.data:
            sets: dict[str, list[Problem]] = {}
            for p in load_jsonl(args.data, args.limit):
                sets.setdefault(p.task, []).append(p)
        else:
            sets = held_out(cfg.world, cfg.eval, tuple(args.task or cfg.world.tasks))
        rows = []
        for folder in args.models:
            model, tokenizer = GPT.from_pretrained(folder, device=parallel.device(cfg.device)), tokenizers.load(folder)
            rows += [(folder, evaluate(model, tokenizer, problems, cfg.eval, cfg.seed, f"{folder}, {task}")) for task, problems in sets.items()]
        print(table(rows))
        save_reports(rows, args.out)
        print(f"figures: {args.out}")


def held_out(world: WorldConfig, cfg: EvalConfig, tasks: tuple[str, ...]) -> dict[str, list[Problem]]:
    """The world's evaluation problems, by task: the same for every seed of training."""
    return {task: World(0, WorldConfig(tasks=tasks, level=world.level)).problems(task, cfg.problems, "test") for task in tasks}


if __name__ == "__main__":
    main()
