"""Evaluation: pass@1, pass@k, cons@k, and what the responses look like.

    python eval.py runs/zero/model runs/zero/base/model --k 16   # the world's held-out problems
    python eval.py MODEL --data humaneval.jsonl --limit 50       # a benchmark's problems
    python eval.py --rescore eval.jsonl                          # judge saved responses once more

pass@1 is the mean over k samples a question [DeepSeek-R1, 2501.12948v1, section 3], its standard
error is over questions [2411.00640]; pass@k: at least one of k is right, cons@k: the majority is.
"""

import lib.start  # noqa: F401

from dataclasses import asdict, dataclass, field

import config
import inputs
import rewards as rw
import tokenizer as tokenizers
from data import PROGRAMS, TASKS, Problem, World, WorldConfig, load_jsonl, prompt_ids
from lib import cli, distributed, hf
from lib.errors import UserError
from lib.progress import Progress
from lib.report import of_requests, save_reports, table
from lib.run import Journal, fingerprint, free_name, resumable
from lib.stats import pass_at_k, standard_error
from model import GPT
from sample import SamplingParams, generate
from tasks import responses, sandbox
from tasks.behaviour import behaviour, summary
from tasks.benchmarks import check_sandbox

BATCHES_PER_CALL = {"cpu": 1, "cuda": 16, "mps": 16}  # of cfg.rows responses, for generate()


@dataclass
class EvalConfig:
    problems: int = config.setting(128, low=1)  # held-out problems of each task
    k: int = config.setting(16, low=1)  # samples a problem
    temperature: float = config.setting(1.0, low=0)
    top_p: float = config.setting(1.0, above=0, high=1)
    max_new_tokens: int = config.setting(400, low=1)
    split: str = config.setting("test", choices=("dev", "test"))  # of the world's problems
    begun: bool = False  # with thinking begun: "<think>" and how those who reason begin
    rows: int = config.setting(512, low=1)  # responses generated at once, by all processes together


@dataclass
class Config(config.Config):
    world: WorldConfig = config.section(WorldConfig)
    eval: EvalConfig = config.section(EvalConfig)


@dataclass
class Report:
    """One model on one task. Shares are between 0 and 1, lengths in tokens."""

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
    follows: float | None = None  # of requests that ask for a form: the reply has it
    declined_harmful: float | None = None
    declined_harmless: float | None = None
    reasoned: float | None = None  # of the world's tasks: responses that do not blurt (behaviour)
    right_reasoned: float | None = None  # of those that reason and end, the right ones
    right_blurted: float | None = None
    did: dict = field(default_factory=dict)  # see tasks.behaviour.summary
    pass_at: dict = field(default_factory=dict)  # j -> pass@j for powers of two up to k, and k
    samples: list[dict] = field(default_factory=list)


def held_out(world: WorldConfig, cfg: EvalConfig, tasks: tuple[str, ...]):
    """The world's evaluation problems, by task: the same ones whatever the seed of training."""
    fixed = World(0, WorldConfig(tasks=tasks, level=world.level))
    return {task: fixed.problems(task, cfg.problems, cfg.split) for task in tasks}


def by_task(problems: list[Problem], most: int | None = None) -> dict[str, list[Problem]]:
    """The problems (at most so many) of each task, in the order in which the tasks appear."""
    tasks = dict.fromkeys(p.task for p in problems)
    return {task: [p for p in problems if p.task == task][:most] for task in tasks}


def of_world(problem: Problem) -> bool:
    """Whether the world made it: a file's problem may have the name of one of its tasks."""
    return problem.task in TASKS and bool(problem.tests)


def begin(problem: Problem, tokenizer) -> list[int]:
    """The tokens that begin a reasoned response: the tag, if the template does not end with it, and
    the words that the task's authors use."""
    task = TASKS[problem.task] if of_world(problem) else None
    words = task.opening(problem) if hasattr(task, "opening") else ""
    return tokenizer.encode(f"<think>{words}".removeprefix(tokenizer.opened), trusted=True)


def sampling(cfg: EvalConfig) -> dict[str, float]:
    """The settings that decide what a model says."""
    return {k: getattr(cfg, k) for k in ("temperature", "top_p", "max_new_tokens", "begun")}


def evaluate(
    model, tokenizer, problems, cfg: EvalConfig, seed=0, name="evaluating", journal=None
) -> Report:
    """Sample cfg.k responses to every problem (all of one task) and score them. journal (Journal):
    keeps each batch of responses, and has those that need not be sampled again."""
    begun = [begin(p, tokenizer) if cfg.begun else [] for p in problems]
    prompts = [prompt_ids(p, tokenizer) + ids for p, ids in zip(problems, begun)]
    context = model.cfg.max_seq_len
    order = sorted(range(len(problems)), key=lambda i: len(prompts[i]))  # like lengths together
    fits = [i for i in order if len(prompts[i]) < context]
    if too_long := order[len(fits) :]:
        print(f"{len(too_long)} problems exceed the context of {context} tokens: not answered")
    samples = [(i, "", 0, False) for i in too_long for _ in range(cfg.k)]  # see score_texts
    rows = -(-cfg.rows // distributed.world_size())  # of each process
    params = SamplingParams(cfg.max_new_tokens, cfg.temperature, cfg.top_p, 0, cfg.k, rows=rows)
    per_call = max(1, BATCHES_PER_CALL.get(model.device.type, 1) * cfg.rows // cfg.k)
    total = len(fits) * cfg.k // distributed.world_size()
    chunks = {start: fits[start : start + per_call] for start in range(0, len(fits), per_call)}
    keys = {start: f"{name}, {start}, {len(chunk)}" for start, chunk in chunks.items()}
    known = journal.batches if journal else {}
    done = sum(len(known.get(key, ())) for key in keys.values()) // distributed.world_size()
    with Progress(total, name, "response", done, leave=False) as bar:
        for start, chunk in chunks.items():
            batch, key = [prompts[i] for i in chunk], keys[start]
            if key in known:
                samples += known[key]
                continue
            rollout = generate(model, batch, params, seed * 1_000_003 + start, on_end=bar.update)
            lengths = (rollout.lengths - rollout.prompt_lengths).tolist()
            new = []
            for j, ids in enumerate(rollout.responses()):
                i, ended = chunk[j // cfg.k], bool(rollout.finished[j])
                new.append((i, tokenizer.response(begun[i] + ids), lengths[j], ended))
            samples += new
            if journal:
                journal.add(key, new)
    samples.sort(key=lambda s: s[0])  # stable: a problem's samples keep their order
    return summarise(problems, score_texts(problems, samples), cfg.k)


def evaluate_folder(cfg, folder: str, sets: dict[str, list], seed: int, name: str, journal=None):
    """evaluate() the model in a folder on sets of problems, by task: task -> Report."""
    model = GPT.from_pretrained(folder, distributed.dtype(cfg), distributed.device(cfg.device))
    tokenizer, out = tokenizers.load(folder, **cfg.asked), {}
    for task, problems in sets.items():
        out[task] = evaluate(model, tokenizer, problems, cfg.eval, seed, f"{name}, {task}", journal)
    return out


def score_texts(problems: list[Problem], texts: list[tuple[int, str, int, bool]]) -> list[dict]:
    """Judge and measure responses: (index of the problem, text, its tokens, whether it ended)."""
    texts = texts[distributed.local_slice(len(texts))]  # those that this process judges
    answers = [rw.answer_of(problems[i], text) for i, text, _, _ in texts]
    verdicts, samples = rw.verdicts([problems[t[0]] for t in texts], answers), []
    for (i, text, length, ended), answer, right in zip(texts, answers, verdicts):
        p = problems[i]
        s = {"problem": i, "response": text, "answer": answer, "correct": right}
        s |= {"format": rw.format_reward(text), "length": length, "finished": ended}
        s["language_consistency"] = rw.language_consistency(rw.thinking(text), p.language)
        s["reflection_words"] = rw.reflection_words(text)
        if of_world(p) and p.task != "general":
            s["did"] = behaviour(p, text)
        if p.task == "general":
            s |= {"helpfulness": rw.helpfulness(p, text), "declined": rw.declines(text)}
            s["harmful"] = p.tests["kind"] == "harmful"
            s |= {"follows": rw.follows(p, text)} if "asked" in p.tests else {}
        samples.append(s)
    return distributed.gather(samples)


def summarise(problems: list[Problem], samples: list[dict], k: int) -> Report:
    """The figures of k samples a problem; a problem's samples stand together."""
    groups = [samples[i : i + k] for i in range(0, len(samples), k)]
    right = [sum(s["correct"] for s in g) for g in groups]
    answers = [rw.majority(p, [s["answer"] for s in g]) for p, g in zip(problems, groups)]
    voted = rw.verdicts(problems, answers)

    def mean(key: str, of: list[dict] = samples) -> float | None:
        return sum(s[key] for s in of) / len(of) if of else None

    ks = sorted({*(2**i for i in range(k.bit_length())), k})
    pass_at = {j: sum(pass_at_k(k, c, j) for c in right) / len(right) for j in ks}
    contents = [World.key(p) if of_world(p) else i for i, p in enumerate(problems)]  # clusters
    out = {"pass1": mean("correct"), "pass1_se": standard_error([c / k for c in right], contents)}
    out |= {"cons": sum(voted) / len(voted), "passk": pass_at[k], "pass_at": pass_at}
    out |= {key: mean(key) for key in ("format", "language_consistency", "reflection_words")}
    out |= {"mean_length": mean("length"), "clipped": 1 - mean("finished")}
    if general := [s for s in samples if "helpfulness" in s]:
        out["helpfulness"] = mean("helpfulness", general) / 2
        out["follows"] = mean("follows", [s for s in general if "follows" in s])
        out["declined_harmful"] = mean("declined", [s for s in general if s["harmful"]])
        out["declined_harmless"] = mean("declined", [s for s in general if not s["harmful"]])
    if known := [s for s in samples if "did" in s]:
        out |= summary(known)
    return Report(problems[0].task, len(problems), k, samples=samples, **out)


def rescore(path: str) -> list[tuple[str, Report]]:
    """Reports of the responses in a file, judged again."""
    found = responses.read(path)
    return [(name, summarise(ps, score_texts(ps, texts), k)) for name, k, ps, texts in found]


def chosen_problems(cfg, args) -> dict[str, list[Problem]]:
    """The problems that the flags name, by task. UserError for flags that do not go together."""
    if bool(args.models) == bool(args.rescore):
        raise UserError("name one or more model folders, or a file with --rescore")
    if args.rescore and (args.task or args.data or args.limit or args.k or args.resume):
        raise UserError("--rescore takes problems and samples from its file: no other flags")
    if (args.data and args.task) or (args.limit and not args.data):
        raise UserError("--limit belongs to --data, --task to the world's problems: drop one")
    if args.rescore:
        return {}
    if args.data:
        return by_task(load_jsonl(args.data, args.limit))
    tasks = args.task or [t for t in cfg.world.tasks if t != "general"]
    if unknown := [t for t in tasks if t not in TASKS]:
        raise cli.nearest("task", unknown[0], list(TASKS))
    if not tasks:
        raise UserError("no rule can check the --world.tasks: name one with --task")
    return held_out(cfg.world, cfg.eval, tuple(tasks))


def main() -> None:
    parser = config.Parser(__doc__)
    add, whole = parser.add_argument, config.number(int, low=1)
    add("models", nargs="*", help="model folders, ours or Hugging Face's")
    add("--rescore", help="judge the responses in this file again instead of sampling models")
    add("--task", action="append", help="a task of the world (repeatable; default: all with rules)")
    add("--data", help="a JSONL file of problems instead of the world's")
    add("--limit", type=whole, help="only its first so many problems")
    add("--k", type=whole, help="samples a problem (default 16)")
    add("--out", help="the figures (default eval.json, eval-2.json ...); responses: .jsonl")
    add("--resume", action="store_true", help="go on with the evaluation that was stopped")
    cfg, args = config.parse(parser, Config)
    cfg.eval.k = cfg.eval.k if args.k is None else args.k
    with config.user_errors():
        args.models = list(dict.fromkeys(args.models))
        args.out = args.out or free_name(args.resume)
        stem = inputs.evaluation_stem(args)
        sets = chosen_problems(cfg, args)
        check_sandbox(sets, cfg.sandbox)
        settings = {"eval": asdict(cfg.eval), "seed": cfg.seed, "models": args.models} | cfg.asked
        settings["problems"] = fingerprint(sets)
        for folder in args.models:  # whatever is wrong is known before the work
            inputs.check_model(folder, **cfg.asked)
            settings[f"fingerprint of {folder}"] = hf.fingerprint(folder)
        rows = rescore(args.rescore) if args.rescore else []
        journal = Journal(args.out, settings, args.resume) if args.models else None
        with resumable(f"{stem}.stopped.jsonl"):
            for path in args.models:
                reports = evaluate_folder(cfg, path, sets, cfg.seed, path, journal)
                rows += [(path, r) for r in reports.values()]
        save_reports(rows, args.out)
        if journal:
            responses.save(rows, list(sets.values()) * len(args.models), f"{stem}.jsonl")
            journal.remove()
        if any(r.task in PROGRAMS for _, r in rows):
            print(sandbox.protection())
        print(f"{table(rows)}{of_requests(rows)}\nfigures: {args.out}")
        if journal:
            print(f"responses: {stem}.jsonl; judge again: python eval.py --rescore {stem}.jsonl")


if __name__ == "__main__":
    main()
