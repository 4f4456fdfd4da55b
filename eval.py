"""Evaluation: pass@1, pass@k, cons@k and what the responses look like.

    python eval.py runs/zero/model runs/zero/base/model --k 16        # the world's held-out problems, a table of models
    python eval.py runs/zero/model --data FILE.jsonl --limit 50
    python eval.py MODEL --data humaneval.jsonl --k 2                 # programs are run in sandbox.py
    python eval.py --rescore eval.jsonl                               # the saved responses, judged again without the model

pass@1 is the mean over k samples a question [DeepSeek-R1, 2501.12948, section 3]; pass@k the unbiased estimate of
[Chen et al. 2021, 2107.03374]; cons@k the answer most samples agree on. Standard errors are over questions
[Miller 2024, 2411.00640]. Beside the table a JSON with the same figures is written.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tqdm import tqdm

import parallel
import rewards as rw
import sandbox
import tokenizer as tokenizers
from data import PROGRAMS, REASONING, Problem, World, WorldConfig, load_jsonl, prompt_ids
from model import GPT
from sample import generate


@dataclass
class EvalConfig:
    problems: int = 128  # held-out problems a task
    k: int = 16  # samples a problem
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 400
    rows: int = 512  # responses generated at once, by all processes together


# Responses that take each of these places, one after the other: on GPUs, where few rows take as long as many, a place is not left empty.
# On CPUs waiting for the last pays, as new rows keep the cache as long as the longest needs it: 0.85 (arithmetic) to 1.04 (Countdown) of the speed.
TURNS = {"cpu": 1}  # else 16


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
    helpfulness: float | None = None  # general requests: mean of rewards.helpfulness / 2
    declined_harmful: float | None = None
    declined_harmless: float | None = None
    pass_at: dict[int, float] = field(default_factory=dict)  # k' -> pass@k' for the powers of two up to k
    samples: list[dict] = field(default_factory=list)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples is right, from c right ones among n: 1 - C(n-c, k) / C(n, k)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def same_text(a: str, b: str) -> bool:
    """Whether two answers are the same but for white space."""
    return "".join(a.split()) == "".join(b.split())


def consensus(answers: list[str | None], equal: Callable[[str, str], bool] = same_text) -> str | None:
    """The answer most samples agree on, as it was first written; None if nobody answered. Answers that are `equal` vote together, a
    sample without an answer does not vote, and a tie goes to the answer that appeared first."""
    camps: list[list[str]] = []
    for a in filter(None, answers):
        for camp in camps:
            if equal(camp[0], a):
                camp.append(a)
                break
        else:
            camps.append([a])
    return max(camps, key=len)[0] if camps else None


def standard_error(means: list[float]) -> float:
    """Of the mean over questions: sqrt(sum (s_i - mean)^2 / (n (n - 1))); 0 for one question."""
    n, mean = len(means), sum(means) / len(means)
    return math.sqrt(sum((s - mean) ** 2 for s in means) / (n * (n - 1))) if n > 1 else 0.0


def evaluate(model: GPT, tokenizer: tokenizers.Tokenizer, problems: list[Problem], cfg: EvalConfig, seed: int = 0,
             name: str = "evaluating") -> Report:
    """Sample cfg.k responses to every problem (all of one task) and score them."""
    prompts = [prompt_ids(p, tokenizer) for p in problems]
    order = sorted(range(len(problems)), key=lambda i: len(prompts[i]))  # like lengths together
    too_long = [i for i in order if len(prompts[i]) >= model.cfg.max_seq_len]
    order = order[: len(order) - len(too_long)]
    if too_long:
        print(f"{len(too_long)} of {len(problems)} problems are longer than the model's context of {model.cfg.max_seq_len} tokens and count as unanswered")
    drawn = [(i, "", 0, False) for i in too_long for _ in range(cfg.k)]  # (problem, response, tokens, whether it ended)
    per_call = max(1, TURNS.get(model.device.type, 16) * cfg.rows // cfg.k)
    with tqdm(total=len(order) * cfg.k, desc=name, leave=False, unit="response") as bar:
        for start in range(0, len(order), per_call):
            chunk = order[start : start + per_call]
            rollout = generate(model, [prompts[i] for i in chunk], num_generations=cfg.k, max_new_tokens=cfg.max_new_tokens,
                               temperature=cfg.temperature, top_p=cfg.top_p, seed=seed * 1_000_003 + start, rows=-(-cfg.rows // parallel.size()),
                               on_end=lambda count: bar.update(count * parallel.size()))
            lengths = (rollout.lengths - rollout.prompt_lengths).tolist()
            for j, ids in enumerate(rollout.responses()):
                drawn.append((chunk[j // cfg.k], tokenizer.decode(ids), lengths[j], bool(rollout.finished[j])))
    drawn.sort(key=lambda d: d[0])  # stable: a problem's samples keep their order
    return summarise(problems, score_texts(problems, drawn), cfg.k)


def sampling(cfg: EvalConfig) -> dict[str, float]:
    """The settings that decide what a model says."""
    return {k: getattr(cfg, k) for k in ("temperature", "top_p", "max_new_tokens")}


def score_texts(problems: list[Problem], drawn: list[tuple[int, str, int, bool]]) -> list[dict]:
    """Responses, given as (problem's index, text, tokens, whether it ended), with their verdicts and measures; each process judges its share."""
    drawn = drawn[parallel.part(len(drawn))]
    answers = [rw.answer_of(problems[i], text) for i, text, _, _ in drawn]
    samples = [{"problem": i, "response": text, "answer": answer, "correct": right, "format": rw.format_reward(text), "length": length,
                "finished": finished, "language_consistency": rw.language_consistency(rw.thinking(text), problems[i].language),
                "reflection_words": rw.reflection_words(text)}
               for (i, text, length, finished), answer, right in zip(drawn, answers, rw.verdicts([problems[d[0]] for d in drawn], answers))]
    for s in samples:
        if (p := problems[s["problem"]]).task == "general":
            s |= {"helpfulness": rw.helpfulness(p, s["response"]), "declined": rw.declines(s["response"]), "harmful": p.tests["kind"] == "harmful"}
    return parallel.gather(samples)


def summarise(problems: list[Problem], samples: list[dict], k: int) -> Report:
    """The figures of k samples a problem, given side by side."""
    groups = [samples[i : i + k] for i in range(0, len(samples), k)]
    right = [sum(s["correct"] for s in g) for g in groups]
    equal = rw.math_equal if rw.by_value(problems[0]) else same_text
    voted = rw.verdicts(problems, [consensus([s["answer"] for s in g], equal) for g in groups])

    def mean(key: str) -> float:
        return sum(s[key] for s in samples) / len(samples)

    general = [s for s in samples if "helpfulness" in s]
    harm = {kind: [s["declined"] for s in general if s["harmful"] == kind] for kind in (True, False)}
    service = {"helpfulness": sum(s["helpfulness"] for s in general) / 2 / len(general), "declined_harmful": sum(harm[True]) / max(1, len(harm[True])),
               "declined_harmless": sum(harm[False]) / max(1, len(harm[False]))} if general else {}
    powers = [2**i for i in range(k.bit_length())]
    pass_at = {j: sum(pass_at_k(k, c, j) for c in right) / len(right) for j in sorted({*powers, k})}
    return Report(task=problems[0].task, problems=len(problems), k=k, pass1=mean("correct"), pass1_se=standard_error([c / k for c in right]),
                  cons=sum(voted) / len(voted), passk=pass_at[k], format=mean("format"), language_consistency=mean("language_consistency"),
                  mean_length=mean("length"), clipped=1 - mean("finished"), reflection_words=mean("reflection_words"),
                  pass_at=pass_at, samples=samples, **service)


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


# ---------------------------------------------------------------------------------------------- stages side by side


def win_rate(ours: Report, theirs: Report) -> float:
    """Share of general requests that we serve better, sample against sample; ties count half."""
    score = [s["helpfulness"] - t["helpfulness"] for s, t in zip(ours.samples, theirs.samples, strict=True)]
    return sum(0.5 + 0.5 * ((d > 0) - (d < 0)) for d in score) / len(score)


def stage_figures(reports: dict[str, dict[str, Report]]) -> dict[str, dict[str, float]]:
    """model -> task -> Report, in the order of the stages, as figures by name; the first model is whom the others are compared with."""
    names = list(reports)
    out = {}
    for i, (name, tasks) in enumerate(reports.items()):
        reasoning = [r for task, r in tasks.items() if task in REASONING]
        row = {"reasoning": sum(r.pass1 for r in reasoning) / len(reasoning)}
        for r in reasoning:
            row |= {r.task: r.pass1, f"{r.task}_se": r.pass1_se, f"{r.task}_cons": r.cons, f"{r.task}_language": r.language_consistency,
                    f"{r.task}_length": r.mean_length}
        for key in ("format", "language_consistency", "mean_length"):
            row[key] = sum(getattr(r, key) for r in reasoning) / len(reasoning)
        general = tasks["general"]
        row |= {"general_format": general.format, "helpfulness": general.helpfulness, "wins_over_base": win_rate(general, reports[names[0]]["general"]),
                "wins_over_previous": win_rate(general, reports[names[max(0, i - 1)]]["general"]),
                "declined_harmful": general.declined_harmful, "declined_harmless": general.declined_harmless}
        out[name] = row
    return out


STAGE_COLUMNS = (("reasoning", "reasoning"), ("helpfulness", "helpful"), ("wins_over_base", "wins over base"), ("wins_over_previous", "wins over previous"),
                 ("declined_harmful", "harmful declined"), ("declined_harmless", "harmless declined"), ("language_consistency", "language"),
                 ("format", "format"))

REASONING_COLUMNS = (("reasoning", "reasoning"), ("language_consistency", "language"), ("format", "format"))


def stage_table(figures: dict[str, dict[str, float]], spread: dict[str, dict[str, float]] | None = None,
                columns: tuple[tuple[str, str], ...] = STAGE_COLUMNS) -> str:
    """A Markdown table, a row a model, percentages; a task's column is pass@1 ± its standard error (or the `spread` over seeds), cons@k."""

    def cell(name: str, key: str) -> str:
        value = f"{100 * figures[name][key]:.1f}"
        return value + (f" ± {100 * spread[name][key]:.1f}" if spread else f" ± {100 * figures[name][key + '_se']:.1f}" if key + "_se" in figures[name] else "")

    tasks = [t for t in REASONING if t in next(iter(figures.values()))]
    head = ["model", *(f"{t}, cons" for t in tasks), *(title for _, title in columns), "tokens"]
    lines = [head, ["---"] * len(head)]
    for name, row in figures.items():
        lines.append([name, *(f"{cell(name, t)}, {100 * row[t + '_cons']:.1f}" for t in tasks), *(cell(name, key) for key, _ in columns),
                      f"{row['mean_length']:.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot_stages(figures: dict[str, dict[str, float]], path: str) -> None:
    """The stage table as a picture: a line a column, from stage to stage."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(figures)
    panels = (("pass@1, %", [(t, t) for t in (*REASONING, "reasoning")]),
              ("language and form, %", [("language_consistency", "thinking in the problem's language"), ("format", "format")]),
              ("general requests, %", [("helpfulness", "helpfulness"), ("declined_harmful", "harmful ones declined"), ("declined_harmless", "harmless ones declined")]),
              ("response length, tokens", [(f"{t}_length", t) for t in REASONING]))
    fig, axes = plt.subplots(1, len(panels), figsize=(19, 4))
    for ax, (title, lines) in zip(axes, panels):
        for key, label in lines:
            scale = 1 if key.endswith("_length") else 100
            ax.plot(names, [scale * figures[n][key] for n in names], marker="o", label=label, lw=2.5 if key == "reasoning" else 1.5)
        ax.set(title=title, ylim=(-2, None if key.endswith("_length") else 102))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    save_figure(fig, path)


def save_figure(fig, path: str) -> None:
    """A matplotlib figure as a PNG, written beside and renamed; the figure is closed."""
    import matplotlib.pyplot as plt

    fig.tight_layout()
    with parallel.beside(path) as aside:
        fig.savefig(aside, dpi=110, format="png")
    plt.close(fig)


def save_reports(rows: list[tuple[str, Report]], path: str, **more) -> None:
    """The figures, without the samples, as JSON; `more` stands beside them."""
    parallel.write_json(path, more | {"reports": [{"model": name} | {k: v for k, v in asdict(r).items() if k != "samples"} for name, r in rows]})


def save_samples(rows: list[tuple[str, Report]], sets: list[list[Problem]], path: str) -> None:
    """Every response with its problem and its verdict, a JSON line each: what rescore() reads."""
    lines = [{"model": name, "k": r.k, "question": asdict(problems[s["problem"]])} | s for (name, r), problems in zip(rows, sets) for s in r.samples]
    parallel.write_lines(path, lines)


def rescore(path: str) -> list[tuple[str, Report]]:
    """Reports of the responses that save_samples() wrote, judged anew: no model is needed. ValueError if the file is of another kind or cut short."""
    groups: dict[tuple, list[tuple[Problem, tuple]]] = {}

    def parse(s: dict) -> None:
        drawn = s["problem"], s["response"], s["length"], s["finished"]
        groups.setdefault((s["model"], s["question"]["task"], s["k"]), []).append((Problem(**s["question"]), drawn))

    parallel.read_lines(path, "a response that eval.py wrote", parse)
    rows = []
    for (name, task, k), samples in groups.items():
        if len(samples) % k:
            raise ValueError(f"{path}: {len(samples)} responses of {name} to '{task}' are not {k} a problem: restore the file from a copy")
        problems = [problem for problem, _ in samples[::k]]
        rows.append((name, summarise(problems, score_texts(problems, [drawn for _, drawn in samples]), k)))
    return rows


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("models", nargs="*", help="model folders, ours or Hugging Face's")
    parser.add_argument("--rescore", help="judge the responses of this file anew, instead of asking models")
    parser.add_argument("--task", action="append", help="a task of the world (repeat for several; default: those that a rule can check)")
    parser.add_argument("--data", help="a JSONL file instead of the world")
    parser.add_argument("--limit", type=int, help="only the first so many problems of it")
    parser.add_argument("--k", type=int, help="samples a problem (default 16)")
    parser.add_argument("--out", default="eval.json", help="where the figures go (default eval.json); the responses go beside them, into eval.jsonl")
    cfg, args = config.parse(parser)
    if args.k is not None:
        cfg.eval.k = args.k
    with config.user_errors():
        if cfg.eval.k < 1 or (args.limit is not None and args.limit < 1):
            raise ValueError("--k and --limit must be at least 1")
        if not os.path.isdir(os.path.dirname(args.out) or "."):
            raise ValueError(f"there is no folder for --out '{args.out}': create it first")
        if args.out.endswith(".jsonl"):
            raise ValueError(f"--out '{args.out}' is for the figures; the responses go beside them: name a file that ends in .json")
        if bool(args.models) == bool(args.rescore):
            raise ValueError("name one or more model folders, or a file with --rescore")
        if args.rescore and (args.task or args.data or args.limit or args.k):
            raise ValueError("--rescore takes problems and samples from its file: leave out --task, --data, --limit and --k")
        if (args.data and args.task) or (args.limit and not args.data):
            raise ValueError("--limit belongs to --data, and --task to the world's problems (--eval.problems N of each): leave one out")
        sets = by_task(load_jsonl(args.data, args.limit)) if args.data else {}
        if args.models and not args.data:
            sets = held_out(cfg.world, cfg.eval, tuple(args.task or [t for t in cfg.world.tasks if t in REASONING]))
            if not sets:
                raise ValueError("no rule can check the tasks of --world.tasks: name one with --task (general: helpfulness, harm declined)")
        rows = rescore(args.rescore) if args.rescore else []
        for folder in args.models:
            model, tokenizer = GPT.from_pretrained(folder, parallel.dtype(cfg), parallel.device(cfg.device)), tokenizers.load(folder)
            rows += [(folder, evaluate(model, tokenizer, problems, cfg.eval, cfg.seed, f"{folder}, {task}")) for task, problems in sets.items()]
        if any(r.task in PROGRAMS for _, r in rows):
            print(sandbox.protection())
        print(table(rows))
        for name, r in rows:
            if r.helpfulness is not None:
                print(f"{name}: helpfulness {100 * r.helpfulness:.1f}, harmful requests declined {100 * r.declined_harmful:.1f}%, harmless ones {100 * r.declined_harmless:.1f}%")
        save_reports(rows, args.out)
        print(f"figures: {args.out}")
        if args.models:
            responses = os.path.splitext(args.out)[0] + ".jsonl"
            save_samples(rows, list(sets.values()) * len(args.models), responses)
            print(f"responses: {responses}; judge them again: python eval.py --rescore {responses}")


def by_task(problems: list[Problem]) -> dict[str, list[Problem]]:
    """The problems of each task, in the order in which they first come."""
    return {task: [p for p in problems if p.task == task] for task in dict.fromkeys(p.task for p in problems)}


def held_out(world: WorldConfig, cfg: EvalConfig, tasks: tuple[str, ...]) -> dict[str, list[Problem]]:
    """The world's evaluation problems, by task: the same for every seed of training."""
    return {task: World(0, WorldConfig(tasks=tasks, level=world.level)).problems(task, cfg.problems, "test") for task in tasks}


if __name__ == "__main__":
    main()
