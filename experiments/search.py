"""Spending more at inference: prompts, votes, reward models, beams, trees and forced thinking.

    python -m experiments.search runs/zero/model              # all methods
    python -m experiments.search runs/zero/model --methods voting,beam --problems 32
    python -m experiments.search runs/zero/model --quick      # all of it on a small scale

The measure is accuracy on held-out problems against tokens a problem: all that the model generated,
also what was discarded. (DeepSeek-R1 found process rewards and tree search not worth their cost in
training [2501.12948v1, section 4.2].) A step ends at a comma or line end, where the world's authors
end theirs, at </think>, and with the response. Its value is the chance that a response which begins
so ends right, measured by completing it several times [Math-Shepherd, 2312.08935]. The process
reward model learns that at each step's end, the outcome reward model only at the last.
"""

import lib.start  # noqa: F401

import contextlib
import math
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import config
import inputs
import preference
import rewards as rw
import tokenizer as tokenizers
from config import section, setting
from data import REASONING, TASKS, World, prompt_ids
from eval import held_out, sampling
from lib import cli, distributed, files, report
from lib.errors import UserError
from lib.progress import Progress
from lib.run import Run, finished, lock_settings, resumable
from lib.stats import standard_error
from model import GPT
from reward_model import RewardModel
from sample import SamplingParams, generate
from tasks.base import PHRASES, Problem

STEP_ENDS, ROW = b",\n", ("prompt", "response", "values")
STEP_BY_STEP = {"en": " Let's think step by step.", "zh": "让我们一步一步地思考。"}  # [2205.11916]


@dataclass
class SearchConfig:
    """How responses are sampled is in `eval`, how reward models learn in `preference`."""

    tasks: tuple[str, ...] = setting(REASONING, choices=REASONING)
    problems: int = setting(64, low=1)  # held-out problems a task
    samples: tuple[int, ...] = setting((2, 4, 8, 16), low=1)  # voting, best of N
    shots: tuple[int, ...] = setting((1, 4), low=1)  # worked examples in the prompt
    widths: tuple[int, ...] = setting((1, 2, 4), low=1)  # beam search: how many go on
    expansions: int = setting(4, low=1)  # beams, trees: next steps sampled from each
    simulations: tuple[int, ...] = setting((8, 32), low=1)  # tree search
    exploration: float = setting(1.0, low=0)  # c of PUCT
    waits: tuple[int, ...] = setting((1, 2, 4), low=1)  # how often the thinking is made to go on
    budgets: tuple[int, ...] = setting((16, 32, 64), low=1)  # tokens after which it is cut short
    step_tokens: int = setting(64, low=1)  # longest step
    train_problems: int = setting(480, low=4)  # for the reward models, over all tasks
    train_samples: int = setting(4, low=1)  # responses to each
    completions: int = setting(4, low=1)  # of each step, for its value


SMALL = dict(problems=8, samples="4", shots="1", widths="2", simulations="8", waits="1")
SMALL |= dict(budgets="16", train_problems=48, train_samples=2, completions=2)
QUICK = {f"search.{key}": value for key, value in SMALL.items()} | {"eval.max_new_tokens": 200}


@dataclass
class Config(preference.Config):
    search: SearchConfig = section(SearchConfig)


Start = tuple[list[int], list[int]]  # token ids of a prompt, and of a response so far


def by_length(starts: list[Start]) -> list[int]:
    """Indices of the starts, shortest first: similar lengths share a batch."""
    return sorted(range(len(starts)), key=lambda i: sum(map(len, starts[i])))


def nested(flat: list, groups: list[list]) -> list[list]:
    """A flat list, cut into lists of the lengths of `groups`."""
    values = iter(flat)
    return [[next(values) for _ in group] for group in groups]


class Policy:
    """The model that is searched: it continues a response from any point."""

    def __init__(self, model: GPT, tokenizer: tokenizers.Tokenizer, cfg: Config):
        self.model, self.tokenizer, self.cfg = model, tokenizer, cfg
        self.rng, self.bar = random.Random(cfg.seed), tqdm(disable=True)
        self.close = tokenizer.special.get("</think>")
        vocabulary = range(tokenizer.vocab_size)
        ends = [i for i in vocabulary if set(STEP_ENDS) & set(tokenizer.decode_bytes(i))]
        self.stops = (*ends, *([] if self.close is None else [self.close]))

    @contextlib.contextmanager
    def method(self, name: str):
        """Inside, a bar counts the tokens; the random numbers depend on the name alone."""
        self.rng = random.Random(f"{self.cfg.seed} {name}")
        with Progress(None, name, "tok", leave=False) as self.bar:
            yield

    def draw(self, starts: list[Start], each=1, stops=(), most: int | None = None):
        """`each` continuations of every start, up to a stop, the end or `most` tokens: new ids."""
        cfg, order, out = self.cfg.eval, by_length(starts), [[] for _ in starts]
        per_call = max(1, cfg.rows // each)
        for chunk in (order[a : a + per_call] for a in range(0, len(order), per_call)):
            room = [max(1, cfg.max_new_tokens - len(starts[i][1])) for i in chunk]
            longest = min(most or max(room), max(room))
            params = SamplingParams(longest, cfg.temperature, cfg.top_p, 0, each, stops)
            prompts, seed = [starts[i][0] + starts[i][1] for i in chunk], self.rng.getrandbits(32)
            rollout = generate(self.model, prompts, params, seed=seed)
            begins, ends = rollout.prompt_lengths.tolist(), rollout.lengths.tolist()
            for j, (row, a, b) in enumerate(zip(rollout.tokens.tolist(), begins, ends)):
                out[chunk[j // each]].append(row[a:b][: room[j // each]])
            self.bar.update(sum(ends) - sum(begins))
        return out

    def steps(self, starts: list[Start], each: int) -> list[list[list[int]]]:
        """`each` next steps of every start."""
        return self.draw(starts, each, self.stops, self.cfg.search.step_tokens)

    def ended(self, prompt: list[int], response: list[int]) -> bool:
        """Whether nothing can follow: the response has ended, or is as long as it may be."""
        room = min(self.cfg.eval.max_new_tokens, self.model.cfg.max_seq_len - len(prompt))
        return len(response) >= room or bool({*response[-1:]} & {*self.model.cfg.eos_ids})

    def complete(self, starts: list[Start]) -> list[list[int]]:
        """One way to the end of each response: the new tokens, none where it has ended."""
        live = [k for k, start in enumerate(starts) if not self.ended(*start)]
        new = dict(zip(live, self.draw([starts[k] for k in live])))
        return [new[k][0] if k in new else [] for k in range(len(starts))]


def step_ends(response: list[int], stops: tuple[int, ...], prompt: int = 0) -> list[int]:
    """After how many tokens the steps of a response end, behind a prompt of so many.

    >>> step_ends([5, 9, 6, 6, 9, 7], stops=(9,))
    [2, 5, 6]
    """
    last = len(response)
    return [prompt + n for n, token in enumerate(response, 1) if token in stops or n == last]


class Verifier:
    """A reward model as a judge of responses: the value in (0, 1) at the end of each step."""

    def __init__(self, folder: str, stops: tuple[int, ...], cfg: Config):
        device, dtype = distributed.device(cfg.device), distributed.dtype(cfg)
        self.model, self.stops = RewardModel.from_pretrained(folder, device, dtype), stops

    def __call__(self, starts: list[Start]) -> list[list[float]]:
        order = by_length(starts)
        rows = [starts[i][0] + starts[i][1] for i in order]
        ends = [step_ends(starts[i][1], self.stops, len(starts[i][0])) for i in order]
        values = nested(self.model.score(rows, ends).float().sigmoid().tolist(), ends)
        values = distributed.gather(values)[: len(values)]  # the main process's: all choose alike
        return [v for _, v in sorted(zip(order, values))]


def grade(tokenizer, problems: list[Problem], responses: list[list[list[int]]]) -> list[list[bool]]:
    """Whether each response is right; several responses to each problem."""
    flat = [(p, tokenizer.response(r)) for p, many in zip(problems, responses) for r in many]
    answers = [rw.answer_of(p, text) for p, text in flat]
    return nested(rw.verdicts([p for p, _ in flat], answers), responses)


def monte_carlo(policy: Policy, problems: list[Problem], samples: int, completions: int):
    """`samples` responses to each problem, as dicts of ROW: token ids, and the steps' values; the
    last is 1 or 0, right or wrong, an earlier one the share of right `completions`."""
    prompts = [prompt_ids(p, policy.tokenizer) for p in problems]
    responses = policy.draw([(p, []) for p in prompts], samples)
    rows = [(i, response) for i, many in enumerate(responses) for response in many]
    ends = [step_ends(response, policy.stops)[:-1] for _, response in rows]
    begun = [(i, response[:end]) for (i, response), e in zip(rows, ends) for end in e]
    ways = policy.draw([(prompts[i], response) for i, response in begun], completions)
    whole = [[response + way for way in many] for (_, response), many in zip(begun, ways)]
    completed = grade(policy.tokenizer, [problems[i] for i, _ in begun], whole)
    values = nested([sum(verdicts) / completions for verdicts in completed], ends)
    right = [float(ok) for many in grade(policy.tokenizer, problems, responses) for ok in many]
    found = zip(rows, values, right)
    return [dict(zip(ROW, (prompts[i], response, [*v, ok]))) for (i, response), v, ok in found]


def train(cfg, base: str, out: str, kind: str, rows: list[dict], stops, settings, resume) -> str:
    """Train the reward model `kind` from the model in folder `base` on monte_carlo's rows; returns
    its folder. A finished one is returned as it is."""
    if done := finished(out, settings, kind):
        return done
    torch.manual_seed(cfg.seed)
    model, first = RewardModel(GPT.from_pretrained(base)), -1 if kind == "outcome" else 0
    texts = [row["prompt"] + row["response"] for row in rows]
    ends = [step_ends(row["response"], stops, len(row["prompt"]))[first:] for row in rows]
    values = [row["values"][first:] for row in rows]

    def loss(indices: list[int]) -> Tensor:
        scores = model.read([texts[i] for i in indices], [ends[i] for i in indices])
        # (value, weight): responses weigh alike, however many steps they have
        pairs = zip(*((v, 1 / len(values[i])) for i in indices for v in values[i]))
        wanted, weights = (torch.tensor(column, device=scores.device) for column in pairs)
        error = F.binary_cross_entropy_with_logits(scores.float(), wanted, weights, reduction="sum")
        return error / len(indices)

    with Run(out, settings, resume, kind) as run:
        preference.fit(cfg, model, len(rows), loss, run, f"{kind} reward model")
        return run.export(model, tokenizers.load(base))


def reward_models(cfg: Config, base: str, policy: Policy, settings: dict, out: str, resume: bool):
    """{kind: Verifier}, trained in `out` on monte_carlo's rows, or read there."""
    world, search, n = World(cfg.seed, cfg.world), cfg.search, len(cfg.search.tasks)
    names = "tasks", "train_problems", "train_samples", "completions"
    settings = settings | {"search": {k: getattr(search, k) for k in names}}
    settings["preference"] = {k: getattr(cfg.preference, k) for k in ("epochs", "per_step", "lr")}
    lock_settings(out, settings)
    path, problems, judges = f"{out}/train.jsonl", [], {}
    if not os.path.exists(path):
        for j, task in enumerate(search.tasks):
            count = len(range(j, search.train_problems, n))
            problems += world.problems(task, count, start=700_000)
        with policy.method("values of steps, train"):
            found = monte_carlo(policy, problems, search.train_samples, search.completions)
        files.write_lines(path, found)
    rows = files.read_lines(path, "values of steps", lambda x: {k: x[k] for k in ROW})
    for kind in ("outcome", "process"):
        model = train(cfg, base, f"{out}/{kind}", kind, rows, policy.stops, settings, resume)
        judges[kind] = Verifier(model, policy.stops, cfg)
    return judges


@dataclass
class Node:
    """A beginning of a response in the tree."""

    response: list[int]
    parent: "Node | None" = None
    prior: float = 1.0  # its share of the policy's samples
    visits: int = 0
    total: float = 0.0  # sum of the values found below it, over its visits
    children: list["Node"] = field(default_factory=list)

    def leaf(self, key: Callable[["Node"], object]) -> "Node":
        """Where the path of the best children ends."""
        return max(self.children, key=key).leaf(key) if self.children else self


def puct(node: Node, c: float) -> float:
    """Q + c P sqrt(N) / (1 + n): N visits of the parent, n of the node [Silver 2017, 1712.01815].
    Without visits a node has its parent's Q: what is good is left only for what may be better."""
    up = node.parent
    q = node.total / node.visits if node.visits else up.total / max(1, up.visits)
    return q + c * node.prior * math.sqrt(up.visits) / (1 + node.visits)


def worked(world: World, p: Problem, rng: random.Random) -> str:
    """A right, reasoned response to p in the form that is rewarded."""
    while True:
        thought, answer = TASKS[p.task].reasoned(rng, p, world.cfg)
        if rw.correct(p, answer):
            return f"<think>{thought}</think><answer>{answer}</answer>"


def few_shot_prompt(world: World, p: Problem, count: int, tokenizer, rng) -> list[int]:
    """p's prompt after `count` worked training problems of its task and language, as messages."""
    ids: list[int] = []
    while count:
        q = world.problem(p.task, rng.randrange(10**6))
        if q.language == p.language:
            ids += tokenizer.example(q.prompt, worked(world, q, rng))[0]
            count -= 1
    return ids + prompt_ids(p, tokenizer)


# by which reward model, and by which of its values of the steps, best-of-N chooses
SCORES = {"outcome": ("outcome", itemgetter(-1)), "process-least": ("process", min)}
SCORES |= {"process-last": ("process", itemgetter(-1))}
# the budget; each problem's responses (of several the mean counts); the tokens for each problem
Found = tuple[int, list[list[list[int]]], list[float]]


@dataclass
class Bench:
    """The held-out problems; their samples, from which some methods choose; and all methods."""

    problems: list[Problem]
    prompts: list[list[int]]
    samples: list[list[list[int]]]
    policy: Policy
    judges: dict[str, Verifier]
    cfg: Config

    def plain(self, budget: int, prompts: list[list[int]] | None = None) -> Found:
        """Plain samples, as many from other prompts as from the problems alone."""
        starts, each = [(p, []) for p in prompts or ()], len(self.samples[0])
        responses = self.policy.draw(starts, each) if prompts else self.samples
        return budget, responses, [statistics.fmean(map(len, many)) for many in responses]

    def zero_shot(self) -> Iterator[Found]:
        """The problem alone."""
        yield self.plain(1)

    def step_by_step(self) -> Iterator[Found]:
        """The problem, and a request to think step by step."""
        longer = [replace(p, prompt=p.prompt + STEP_BY_STEP[p.language]) for p in self.problems]
        yield self.plain(1, [prompt_ids(p, self.policy.tokenizer) for p in longer])

    def few_shot(self) -> Iterator[Found]:
        """Worked examples first."""
        world = World(self.cfg.seed, replace(self.cfg.world, slip=0.0, mixed=0.0))
        tokenizer, rng = self.policy.tokenizer, random.Random(self.cfg.seed)
        for n in self.cfg.search.shots:
            prompts = [few_shot_prompt(world, p, n, tokenizer, rng) for p in self.problems]
            yield self.plain(n, prompts)

    def chosen(self, choose: Callable[[int, int], int]) -> Iterator[Found]:
        """The sample choose(problem, n) among the first n."""
        for n in self.cfg.search.samples:
            responses = [[many[choose(i, n)]] for i, many in enumerate(self.samples)]
            yield n, responses, [sum(map(len, many[:n])) for many in self.samples]

    def voting(self) -> Iterator[Found]:
        """The answer most samples agree on [Wang et al. 2022, 2203.11171]."""
        decode, pairs = self.policy.tokenizer.response, zip(self.problems, self.samples)
        answers = [[rw.answer_of(p, decode(r)) for r in many] for p, many in pairs]

        def choose(i: int, n: int) -> int:
            answer = rw.majority(self.problems[i], answers[i][:n])
            return 0 if answer is None else answers[i].index(answer)

        return self.chosen(choose)

    def best_of(self, name: str) -> Iterator[Found]:
        """The sample with the highest score, which SCORES[name] says."""
        kind, over_steps = SCORES[name]
        flat = [(p, r) for p, many in zip(self.prompts, self.samples) for r in many]
        scores = nested([over_steps(values) for values in self.judges[kind](flat)], self.samples)
        return self.chosen(lambda i, n: max(range(n), key=scores[i].__getitem__))

    def beam(self) -> Iterator[Found]:
        """Beam search over steps [Snell et al. 2024, 2408.03314]: the `width` best beginnings of a
        response, by their last step's value, go on with `expansions` sampled next steps each (at
        first width x expansions), until all have ended. The best one is the response."""
        policy, search, prompts = self.policy, self.cfg.search, self.prompts
        for width in search.widths:
            beams: list[dict[tuple, float]] = [{(): 0.0} for _ in prompts]  # beginning -> value
            tokens, each = [0] * len(prompts), width * search.expansions
            while True:
                rows = [(i, [*response]) for i, beam in enumerate(beams) for response in beam]
                live = [(i, r) for i, r in rows if not policy.ended(prompts[i], r)]
                if not live:
                    break
                new, grown = policy.steps([(prompts[i], r) for i, r in live], each), []
                for (i, response), steps in zip(live, new):
                    del beams[i][tuple(response)]
                    grown += [(i, response + step) for step in steps]
                    tokens[i] += sum(map(len, steps))
                values = self.judges["process"]([(prompts[i], r) for i, r in grown])
                for (i, response), of_steps in zip(grown, values):
                    beams[i][tuple(response)] = of_steps[-1]  # equal ones are one
                beams = [dict(sorted(b.items(), key=lambda x: -x[1])[:width]) for b in beams]
                each = search.expansions
            yield width, [[list(max(beam, key=beam.get))] for beam in beams], tokens

    def leaf_values(self, starts: list[Start], rollouts: bool) -> list[tuple[float, int]]:
        """(value, tokens generated for it) of each: the process reward model's of the last step, or
        with rollouts the outcome reward model's of one completed response."""
        if not rollouts:
            return [(values[-1], 0) for values in self.judges["process"](starts)]
        new = self.policy.complete(starts)
        whole = [(prompt, response + n) for (prompt, response), n in zip(starts, new)]
        return [(values[-1], len(n)) for values, n in zip(self.judges["outcome"](whole), new)]

    def tree(self, rollouts: bool) -> Iterator[Found]:
        """Monte Carlo tree search over steps. A simulation descends by PUCT to a leaf. One visited
        before samples `expansions` next steps, the different ones become its children, the best is
        the leaf; its value is added to all nodes above. The response is where most visits lead."""
        policy, search, prompts = self.policy, self.cfg.search, self.prompts
        roots, tokens = [Node([]) for _ in prompts], [0] * len(prompts)
        score = partial(puct, c=search.exploration)
        for n in range(1, max(search.simulations) + 1):
            leaves = [root.leaf(score) for root in roots]
            grow = [i for i, leaf in enumerate(leaves) if leaf.visits or not leaf.parent]
            grow = [i for i in grow if not policy.ended(prompts[i], leaves[i].response)]
            starts = [(prompts[i], leaves[i].response) for i in grow]
            for i, steps in zip(grow, policy.steps(starts, search.expansions)):
                up = leaves[i]
                for step, n_drawn in Counter(map(tuple, steps)).most_common():
                    prior = n_drawn / search.expansions
                    up.children.append(Node(up.response + [*step], up, prior))
                leaves[i] = max(up.children, key=score)
                tokens[i] += sum(map(len, steps))
            starts = [(p, leaf.response) for p, leaf in zip(prompts, leaves)]
            for i, (value, spent) in enumerate(self.leaf_values(starts, rollouts)):
                tokens[i] += spent
                node = leaves[i]
                while node:
                    node.visits, node.total, node = node.visits + 1, node.total + value, node.parent
            if n in search.simulations:
                best = [root.leaf(lambda node: (node.visits, node.total)) for root in roots]
                yield self.completed(n, [node.response for node in best], tokens)

    def completed(self, budget: int, responses: list[list[int]], tokens: list[int]) -> Found:
        """The responses with what the policy adds up to their ends, and the tokens with it."""
        rest = self.policy.complete(list(zip(self.prompts, responses)))
        whole = [[response + new] for response, new in zip(responses, rest)]
        return budget, whole, [n + len(new) for n, new in zip(tokens, rest)]

    def wait(self) -> Iterator[Found]:
        """So many times, when the thinking is about to close, write words of doubt in place of
        </think>, and let it go on [s1, 2501.19393]: the world's, less the value that follows."""
        policy, prompts = self.policy, self.prompts
        doubts = [PHRASES[p.language]["oops"].format(v="").rstrip() for p in self.problems]
        words = [policy.tokenizer.encode(text) for text in doubts]
        for times in self.cfg.search.waits:
            responses: list[list[int]] = [[] for _ in prompts]
            tokens, thinking = [0] * len(prompts), list(range(len(prompts)))
            for again in range(times + 1):
                starts = [(prompts[i], responses[i]) for i in thinking]
                for i, (new,) in zip(thinking, policy.draw(starts, stops=(policy.close,))):
                    responses[i] += new
                    tokens[i] += len(new)
                closing = [i for i in thinking if responses[i][-1] == policy.close]
                longer = {i: responses[i][:-1] + words[i] for i in closing}
                thinking = [i for i in closing if not policy.ended(prompts[i], longer[i])]
                for i in thinking if again < times else ():
                    responses[i] = longer[i]
            yield self.completed(times, responses, tokens)

    def cut(self) -> Iterator[Found]:
        """Close thinking that is open after so many tokens, and begin the answer [s1]."""
        policy, starts = self.policy, [(p, []) for p in self.prompts]
        opening = policy.tokenizer.encode("</think><answer>", trusted=True)
        for budget in self.cfg.search.budgets:
            drawn = [new for (new,) in policy.draw(starts, stops=(policy.close,), most=budget)]
            pairs = zip(self.prompts, drawn)
            cut = [new[-1] != policy.close and not policy.ended(p, new) for p, new in pairs]
            responses = [new + opening * short for new, short in zip(drawn, cut)]
            yield self.completed(budget, responses, list(map(len, drawn)))


METHODS: dict[str, tuple[str, Callable[[Bench], Iterator[Found]]]] = {  # unit of the budget, method
    "zero-shot": ("sample", Bench.zero_shot),
    "step-by-step": ("sample", Bench.step_by_step),
    "few-shot": ("examples", Bench.few_shot),
    "voting": ("samples", Bench.voting),
    **{name: ("samples", partial(Bench.best_of, name=name)) for name in SCORES},
    "beam": ("kept", Bench.beam),
    "tree": ("simulations", partial(Bench.tree, rollouts=False)),
    "tree-rollouts": ("simulations", partial(Bench.tree, rollouts=True)),
    "wait": ("waits", Bench.wait),
    "cut": ("tokens", Bench.cut),
}
JUDGED = (*SCORES, "beam", "tree", "tree-rollouts")  # need the reward models
CLOSED = ("wait", "cut")  # need the token </think>


def measure(bench: Bench, name: str, found: Found) -> tuple[dict, list[dict]]:
    """A method's row of the table, and its responses with their verdicts."""
    (budget, responses, tokens), problems = found, bench.problems
    tokenizer, method = bench.policy.tokenizer, {"method": name, "budget": budget}
    right = grade(tokenizer, problems, responses)
    shares, by_task = [statistics.fmean(many) for many in right], {}
    for task in bench.cfg.search.tasks:
        by_task[task] = statistics.fmean(s for p, s in zip(problems, shares) if p.task == task)
    row = method | {"unit": METHODS[name][0], "accuracy": statistics.fmean(shares)}
    row["accuracy_se"] = standard_error(shares, [World.key(p) for p in problems])
    row["tokens"] = statistics.fmean(tokens)
    lines = []
    for p, many, ok, n in zip(problems, responses, right, tokens):
        line = method | {"prompt": p.prompt, "task": p.task, "correct": ok[0], "tokens": n}
        lines.append(line | {"response": tokenizer.response(many[0])})
    return row | {"tasks": by_task}, lines


def table(rows: list[dict]) -> str:
    """Markdown, a row for each method and budget."""
    tasks, body = list(rows[0]["tasks"]), []
    for r in rows:
        accuracy = f"{100 * r['accuracy']:.1f} ± {100 * r['accuracy_se']:.1f}"
        line = [r["method"], f"{r['budget']} {r['unit']}", accuracy, f"{r['tokens']:.0f}"]
        body.append(line + [f"{100 * r['tasks'][t]:.1f}" for t in tasks])
    return report.markdown_table(["method", "budget", "accuracy", "tokens", *tasks], body)


def run(cfg: Config, folder: str, methods: list[str], out: str, resume: bool) -> None:
    """Train the reward models if a method needs them, then measure every method."""
    device, dtype, search = distributed.device(cfg.device), distributed.dtype(cfg), cfg.search
    model, tokenizer = GPT.from_pretrained(folder, dtype, device), tokenizers.load(folder)
    policy = Policy(model, tokenizer, cfg)
    if policy.close is None and (closed := [m for m in methods if m in CLOSED]):
        missing = f"the tokenizer of '{folder}' has no token </think>, which '{closed[0]}' needs"
        raise UserError(f"{missing}: leave it out of --methods")
    settings = {"eval": sampling(cfg.eval), "world": asdict(cfg.world)}
    settings |= {"seed": cfg.seed, "policy": model.fingerprint()}
    inputs.begin(out, resume)
    lock_settings(out, settings)
    judged = set(methods) & set(JUDGED)
    judges = reward_models(cfg, folder, policy, settings, out, resume) if judged else {}
    sets = held_out(cfg.world, replace(cfg.eval, problems=search.problems), search.tasks)
    problems = [p for many in sets.values() for p in many]
    prompts = [prompt_ids(p, tokenizer) for p in problems]
    with policy.method("samples"):
        samples = policy.draw([(p, []) for p in prompts], max(search.samples))
    bench = Bench(problems, prompts, samples, policy, judges, cfg)
    right, ceiling, responses = grade(tokenizer, problems, samples), [], []
    for n in search.samples:
        accuracy = statistics.fmean(any(many[:n]) for many in right)
        tokens = statistics.fmean(sum(map(len, many[:n])) for many in samples)
        ceiling.append({"samples": n, "accuracy": accuracy, "tokens": tokens})
    content = {"model": folder, "seed": cfg.seed, "search": asdict(search)}
    content |= {"eval": asdict(cfg.eval), "table": [], "right_among_samples": ceiling}
    for name in methods:
        with policy.method(name):
            found = list(METHODS[name][1](bench))
        for row, lines in (measure(bench, name, budget) for budget in found):
            content["table"].append(row)
            responses += lines
            accuracy, spent = 100 * row["accuracy"], f"{row['tokens']:.0f} tokens a problem"
            tqdm.write(f"{name}, {row['budget']} {row['unit']}: {accuracy:.1f}% with {spent}")
        files.write_json(f"{out}/search.json", content)
        files.write_lines(f"{out}/responses.jsonl", responses)
    summarise(content["table"], ceiling, out)


def summarise(rows: list[dict], ceiling: list[dict], out: str) -> None:
    """Print the table; draw accuracy against tokens."""
    lines: dict[str, tuple] = {}
    for r in [*rows, *({"method": "right one among the samples"} | c for c in ceiling)]:
        x, y = lines.setdefault(r["method"], ([], []))
        x.append(math.log2(r["tokens"]))
        y.append(100 * r["accuracy"])
    if distributed.is_main_process():
        panel = ("accuracy, %", "log2 of the tokens generated a problem", lines)
        report.draw(f"{out}/search.png", [panel])
    shares = ", ".join(f"{100 * c['accuracy']:.1f}% of {c['samples']}" for c in ceiling)
    print(f"\n{table(rows)}\n\na right answer among the samples: {shares}")
    print(f"\nfigures: {out}/search.json\npicture: {out}/search.png")
    print(f"responses: {out}/responses.jsonl")


def main() -> None:
    parser, listed = config.Parser(__doc__), ",".join(METHODS)
    add = parser.add_argument
    add("model", help="model folder, such as runs/zero/model; it is not changed")
    add("--methods", default=listed, help=f"comma-separated, of {listed} (default all)")
    add("--problems", type=config.number(int, low=1), help="held-out problems a task (default 64)")
    add("--out", help="for reward models, which are used again, and figures (default runs/search)")
    add("--resume", action="store_true", help="go on with the reward models' training in --out")
    cfg, args = config.parse(parser, Config, QUICK)
    out = args.out or config.run_folder("search", cfg, args)
    if args.problems is not None:
        cfg.search.problems = args.problems
    with config.user_errors(), distributed.started(cfg), resumable(out):
        config.check(cfg)
        methods = args.methods.split(",")
        if unknown := [m for m in methods if m not in METHODS]:
            raise cli.nearest("method", unknown[0], list(METHODS))
        run(cfg, args.model, methods, out, args.resume)


if __name__ == "__main__":
    main()
