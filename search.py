"""Spending more at inference: prompts, votes, reward models, beams, trees and forced thinking, all by one measure.

    python search.py runs/zero/model                           # trains two reward models, measures every method, prints the table
    python search.py runs/zero/model --methods voting,beam --problems 32
    python search.py runs/zero/model --quick                   # all of it in small

DeepSeek-R1 found process rewards and tree search not worth their cost in training, though they can help at inference [2501.12948,
section 4.2]; here one sees what they do. The measure is accuracy on held-out problems against tokens a problem: everything the model
generated, what was thrown away and roll-outs included. Prompts, inserted words and what the reward models read are not counted.

A step ends at a comma or a line end, where the world's authors end theirs, at </think>, and where the response ends. The value of a
step is the chance that a response which begins so ends right; it is measured by completing it several times (Monte Carlo)
[Math-Shepherd, 2312.08935]. The process reward model learns that at each step's end, the outcome reward model only at the last,
on the same responses.
"""

import contextlib
import math
import os
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import eval as evaluation
import parallel
import preference
import rewards as rw
import tokenizer as tokenizers
from data import PHRASES, REASONING, Problem, World, prompt_ids
from model import GPT
from sample import generate

KINDS = ("outcome", "process")  # of reward models
STEP_ENDS = b",\n"
QUICK = {"search.problems": 8, "search.samples": "4", "search.shots": "1", "search.widths": "2", "search.simulations": "8", "search.waits": "1",
         "search.budgets": "16", "search.train_problems": 48, "search.train_samples": 2, "search.completions": 2, "search.held_out": 16,
         "eval.max_new_tokens": 200}


@dataclass
class SearchConfig:
    """How responses are drawn (temperature, longest response, rows at once) is in the section `eval`, how the reward models learn in `preference`."""

    tasks: tuple[str, ...] = REASONING
    problems: int = 64  # held-out problems a task
    samples: tuple[int, ...] = (2, 4, 8, 16)  # voting, best of N
    shots: tuple[int, ...] = (1, 4)  # worked examples in the prompt
    widths: tuple[int, ...] = (1, 2, 4)  # beam search: how many are kept
    expansions: int = 4  # beams, trees: next steps drawn from each
    simulations: tuple[int, ...] = (8, 32)  # tree search
    exploration: float = 1.0  # c of PUCT
    waits: tuple[int, ...] = (1, 2, 4)  # how often the thinking is made to go on
    budgets: tuple[int, ...] = (16, 32, 64)  # tokens after which it is cut short
    step_tokens: int = 64  # a step is cut there
    train_problems: int = 480  # for the reward models, over all tasks
    train_samples: int = 4  # responses to each
    completions: int = 4  # of each step, for its value
    held_out: int = 96  # held-out problems on which the reward models' values are checked, over all tasks

    def __post_init__(self):
        if not self.tasks or (unknown := set(self.tasks) - set(REASONING)):
            raise ValueError(f"search.tasks has '{unknown.pop() if self.tasks else ''}'; the tasks are {', '.join(REASONING)}")
        for name in ("samples", "shots", "widths", "simulations", "waits", "budgets"):
            if not (values := getattr(self, name)) or min(values) < 1:
                raise ValueError(f"--search.{name} is {','.join(map(str, values))}; each number must be at least 1")


# ---------------------------------------------------------------------------------------------- the model, and its judges

Start = tuple[list[int], list[int]]  # token ids of a prompt, and of a response as far as it is written


class Policy:
    """The model that is searched: it goes on from any point of a response. cfg is a config.Config."""

    def __init__(self, model: GPT, tokenizer: tokenizers.Tokenizer, cfg):
        self.model, self.tokenizer, self.own, self.step_tokens = model, tokenizer, cfg.eval, cfg.search.step_tokens
        self.seed, self.seeds, self.bar = cfg.seed, random.Random(cfg.seed), None
        self.close = tokenizer.special.get("</think>")
        marks = [i for i in range(tokenizer.vocab_size) if set(STEP_ENDS) & set(tokenizer.decode_bytes(i))]
        self.stops = (*marks, *([] if self.close is None else [self.close]))

    @contextlib.contextmanager
    def method(self, name: str):
        """Inside, a bar counts the tokens; the random numbers are the name's own, whatever was drawn before."""
        self.seeds = random.Random(f"{self.seed} {name}")
        with tqdm(unit="tok", unit_scale=True, desc=name, leave=False) as self.bar:
            yield
        self.bar = None

    def draw(self, starts: list[Start], each: int = 1, stops: tuple[int, ...] = (), most: int | None = None) -> list[list[list[int]]]:
        """`each` continuations of every start, up to a stop, the end or `most` tokens: the new tokens alone, the last one included."""
        out: list[list[list[int]]] = [[] for _ in starts]
        order = sorted(range(len(starts)), key=lambda i: sum(map(len, starts[i])))  # like lengths together
        per_call = max(1, self.own.rows // each)
        for chunk in (order[a : a + per_call] for a in range(0, len(order), per_call)):
            room = [max(1, self.own.max_new_tokens - len(starts[i][1])) for i in chunk]  # a response is never longer in all
            rollout = generate(self.model, [prompt + response for prompt, response in (starts[i] for i in chunk)], num_generations=each,
                               max_new_tokens=min(most or max(room), max(room)), temperature=self.own.temperature, top_p=self.own.top_p,
                               seed=self.seeds.getrandbits(32), stops=stops)
            rows = zip(rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), rollout.lengths.tolist())
            for j, (row, a, b) in enumerate(rows):
                out[chunk[j // each]].append(row[a:b][: room[j // each]])
            if self.bar is not None:
                self.bar.update(int((rollout.lengths - rollout.prompt_lengths).sum()))
        return out

    def steps(self, starts: list[Start], each: int) -> list[list[list[int]]]:
        """`each` next steps of every start."""
        return self.draw(starts, each, self.stops, self.step_tokens)

    def ended(self, prompt: list[int], response: list[int]) -> bool:
        """Whether nothing can follow: the response has ended, or is as long as one may be."""
        room = min(self.own.max_new_tokens, self.model.cfg.max_seq_len - len(prompt))
        return len(response) >= room or bool({*response[-1:]} & {*self.model.cfg.eos_ids})


def step_ends(response: list[int], stops: tuple[int, ...]) -> list[int]:
    """After how many tokens the steps of a response end.

    >>> step_ends([5, 9, 6, 6, 9, 7], stops=(9,))
    [2, 5, 6]
    """
    return [n for n, token in enumerate(response, 1) if token in stops or n == len(response)]


class Verifier:
    """A reward model as a judge of responses: the value in (0, 1) at the end of each of their steps."""

    def __init__(self, folder: str, stops: tuple[int, ...], cfg):
        self.model, self.stops = preference.RewardModel.from_pretrained(folder, parallel.device(cfg.device), parallel.dtype(cfg)), stops

    def __call__(self, starts: list[Start]) -> list[list[float]]:
        order = sorted(range(len(starts)), key=lambda i: sum(map(len, starts[i])))
        rows, ends = [starts[i][0] + starts[i][1] for i in order], [ends_in(starts[i], self.stops) for i in order]
        values, out = iter(self.model.score(rows, ends).float().sigmoid().tolist()), [[] for _ in starts]
        for i, many in zip(order, ends):
            out[i] = [next(values) for _ in many]
        return out


def ends_in(start: Start, stops: tuple[int, ...]) -> list[int]:
    """step_ends, counted from the prompt's first token."""
    prompt, response = start
    return [len(prompt) + n for n in step_ends(response, stops)]


def grade(tokenizer: tokenizers.Tokenizer, problems: list[Problem], responses: list[list[int]]) -> list[bool]:
    """Whether each response is right."""
    return rw.verdicts(problems, [rw.answer_of(p, tokenizer.decode(r)) for p, r in zip(problems, responses)])


# ---------------------------------------------------------------------------------------------- reward models


def monte_carlo(policy: Policy, problems: list[Problem], samples: int, completions: int) -> list[dict]:
    """`samples` responses to each problem with the values of their steps: {"prompt", "response", "values"}. The last value is 1 or 0: right or
    wrong; the others are the share of right ones among `completions` that go on from there."""
    prompts = [prompt_ids(p, policy.tokenizer) for p in problems]
    drawn = policy.draw([(p, []) for p in prompts], samples)
    rows = [(i, response) for i, responses in enumerate(drawn) for response in responses]
    cuts = [(r, end) for r, (_, response) in enumerate(rows) for end in step_ends(response, policy.stops)[:-1]]
    begun = [(rows[r][0], rows[r][1][:end]) for r, end in cuts]
    ways = policy.draw([(prompts[i], response) for i, response in begun], completions)
    right = grade(policy.tokenizer, [problems[i] for i, _ in rows], [response for _, response in rows])
    whole = [(problems[i], response + way) for (i, response), many in zip(begun, ways) for way in many]
    ends_right = grade(policy.tokenizer, [p for p, _ in whole], [response for _, response in whole])
    out = [{"prompt": prompts[i], "response": response, "values": []} for i, response in rows]
    for k, (r, _) in enumerate(cuts):
        out[r]["values"].append(sum(ends_right[k * completions : (k + 1) * completions]) / completions)
    for row, verdict in zip(out, right):
        row["values"].append(float(verdict))
    return out


def train(cfg, base: str, out: str, kind: str, rows: list[dict], stops: tuple[int, ...], settings: dict, resume: bool) -> str:
    """Train the reward model `kind` from the model in folder `base` on monte_carlo's rows; returns its folder. A finished one is returned as it is."""
    if done := parallel.finished(out, settings):
        return done
    torch.manual_seed(cfg.seed)
    model = preference.RewardModel(GPT.from_pretrained(base))
    last = slice(-1 if kind == "outcome" else 0, None)
    texts = [row["prompt"] + row["response"] for row in rows]
    ends = [ends_in((row["prompt"], row["response"]), stops)[last] for row in rows]
    values = [row["values"][last] for row in rows]

    def loss(indices: list[int]) -> Tensor:
        scores = model([texts[i] for i in indices], [ends[i] for i in indices]).float()
        wanted = torch.tensor([v for i in indices for v in values[i]], device=scores.device)
        weight = torch.tensor([1 / len(values[i]) for i in indices for _ in values[i]], device=scores.device)  # responses count alike
        return F.binary_cross_entropy_with_logits(scores, wanted, weight, reduction="sum") / len(indices)

    with parallel.Run(out, settings, resume, kind) as run:
        preference.fit(cfg, model, len(rows), loss, run, f"{kind} reward model")
        return run.export(model, tokenizers.load(base))


def learn(cfg, base: str, policy: Policy, asked: dict, out: str, resume: bool) -> tuple[dict[str, Verifier], list[dict]]:
    """Both reward models, made in `out` or taken from there, and monte_carlo's rows of held-out problems. asked: who was asked, and how."""
    own = cfg.search
    settings = asked | {"search": {k: getattr(own, k) for k in ("tasks", "train_problems", "train_samples", "completions", "held_out")},
                        "preference": {k: getattr(cfg.preference, k) for k in ("epochs", "per_step", "lr")}}
    parallel.claim(out, settings)

    def values(split: str, count: int, start: int) -> list[dict]:
        path, world = os.path.join(out, f"{split}.jsonl"), World(cfg.seed, cfg.world)
        if not os.path.exists(path):
            problems = [p for j, task in enumerate(own.tasks) for p in world.problems(task, len(range(j, count, len(own.tasks))), split, start)]
            with policy.method(f"values of steps, {split}"):
                parallel.write_lines(path, monte_carlo(policy, problems, own.train_samples, own.completions))
        return parallel.read_lines(path, "a response with its steps' values", lambda row: {k: row[k] for k in ("prompt", "response", "values")})

    rows, held_out = values("train", own.train_problems, 700_000), values("test", own.held_out, 0)
    folders = {kind: train(cfg, base, os.path.join(out, kind), kind, rows, policy.stops, settings, resume) for kind in KINDS}
    return {kind: Verifier(folder, policy.stops, cfg) for kind, folder in folders.items()}, held_out


def correlation(a: list[float], b: list[float]) -> float | None:
    """Pearson's; None where one of them does not vary."""
    return statistics.correlation(a, b) if len(set(a)) > 1 and len(set(b)) > 1 else None


def quality(judges: dict[str, Verifier], rows: list[dict]) -> dict:
    """How the reward models' values agree with monte_carlo's rows of problems that they were not trained on.

    Of the steps before the last: their number, the correlation (also within a problem: of differences from the problem's mean, which is what
    a search among its responses lives on), and the share on the right side of 1/2, beside what always saying the same would give.
    Of whole responses: the share told right or wrong rightly, for both models, beside the same.
    """
    values = {kind: judge([(row["prompt"], row["response"]) for row in rows]) for kind, judge in judges.items()}
    steps = [(tuple(row["prompt"]), v, w) for row, said in zip(rows, values["process"]) for v, w in zip(said[:-1], row["values"][:-1])]
    by_problem: dict[tuple, list[tuple[float, float]]] = {}
    for prompt, v, w in steps:
        by_problem.setdefault(prompt, []).append((v, w))
    said, found = [v for _, v, _ in steps], [w for _, _, w in steps]
    inside = [(v - statistics.fmean(x for x, _ in many), w - statistics.fmean(y for _, y in many)) for many in by_problem.values() for v, w in many]
    right = [row["values"][-1] for row in rows]

    def agreement(a: list[float], b: list[float]) -> float:
        return sum((v > 0.5) == (w > 0.5) for v, w in zip(a, b)) / max(1, len(a))

    def constant(b: list[float]) -> float:
        return max(agreement([v] * len(b), b) for v in (0.0, 1.0))

    return {"steps": len(steps), "correlation": correlation(said, found), "correlation_within_problem": correlation(*zip(*inside)) if inside else None,
            "accuracy": agreement(said, found), "accuracy_of_a_constant": constant(found), "responses": len(rows),
            "final_accuracy": {kind: agreement([v[-1] for v in many], right) for kind, many in values.items()}, "final_accuracy_of_a_constant": constant(right)}


def hacking(scores: list[list[float]], right: list[list[bool]]) -> dict:
    """How often a reward model is taken in, over the samples of problems that have right and wrong ones: the share of wrong samples that
    score above the best right one, and of problems whose best sample by score is wrong."""
    mixed = [list(zip(s, r)) for s, r in zip(scores, right) if any(r) and not all(r)]
    above = [(sum(s > max(t for t, ok in pairs if ok) for s, ok in pairs if not ok), sum(not ok for _, ok in pairs)) for pairs in mixed]
    return {"problems": len(mixed), "wrong": sum(n for _, n in above), "wrong_above_best_right": sum(k for k, _ in above) / max(1, sum(n for _, n in above)),
            "problems_lost": sum(k > 0 for k, _ in above) / max(1, len(mixed))}


# ---------------------------------------------------------------------------------------------- prompts


def worked(world: World, p: Problem, rng: random.Random) -> str:
    """A right, reasoned response to p in the form that is rewarded."""
    while True:
        thought, answer = world.reasoned(rng, p)
        if rw.correct(p, answer):
            return f"<think>{thought}</think><answer>{answer}</answer>"


def few_shot_prompt(world: World, p: Problem, count: int, tokenizer: tokenizers.Tokenizer, rng: random.Random) -> list[int]:
    """p's prompt after `count` training problems of its task and language, each with a worked response, as turns of one conversation."""
    ids: list[int] = []
    while count:
        q = world.problem(p.task, rng.randrange(10**6))
        if q.language == p.language:
            ids, count = ids + tokenizer.example(q.prompt, worked(world, q, rng))[0], count - 1
    return ids + prompt_ids(p, tokenizer)


STEP_BY_STEP = {"en": " Let's think step by step.", "zh": "让我们一步一步地思考。"}  # [Kojima et al. 2022, 2205.11916]


# ---------------------------------------------------------------------------------------------- searches

Value = Callable[[list[Start]], list[tuple[float, int]]]  # of each start: its value, and the tokens generated to find it


def beam_search(policy: Policy, judge: Verifier, prompts: list[list[int]], width: int, expansions: int) -> tuple[list[list[int]], list[int]]:
    """Keep the `width` best beginnings of each response by the value of their last step, and draw `expansions` next steps of each (at first
    width x expansions), until all that are kept have ended [Snell et al. 2024, 2408.03314]. (the best response to each prompt, tokens)."""
    kept: list[dict[tuple[int, ...], float]] = [{(): 0.0} for _ in prompts]  # beginnings of each prompt's response, with their values
    tokens, each = [0] * len(prompts), width * expansions
    while live := [(i, list(r)) for i, many in enumerate(kept) for r in many if not policy.ended(prompts[i], list(r))]:
        grown = []
        for (i, response), steps in zip(live, policy.steps([(prompts[i], r) for i, r in live], each)):
            del kept[i][tuple(response)]
            grown += [(i, response + step) for step in steps]
            tokens[i] += sum(map(len, steps))
        for (i, response), values in zip(grown, judge([(prompts[i], r) for i, r in grown])):
            kept[i][tuple(response)] = values[-1]  # the same one twice is one
        kept = [dict(sorted(many.items(), key=lambda item: -item[1])[:width]) for many in kept]
        each = expansions
    return [list(max(many, key=many.get)) for many in kept], tokens


@dataclass
class Node:
    """A beginning of a response in the tree; total: sum of the values found below it, over its visits."""

    response: list[int]
    parent: "Node | None" = None
    prior: float = 1.0  # the share of the policy's draws that it was
    visits: int = 0
    total: float = 0.0
    children: list["Node"] = field(default_factory=list)


def puct(node: Node, c: float) -> float:
    """Q + c P sqrt(N) / (1 + n): N visits of the parent, n of the node [Silver et al. 2017, 1712.01815]. A node that was never
    visited has its parent's Q, so that what is good is left only for what may be better."""
    up = node.parent
    q = node.total / node.visits if node.visits else up.total / max(1, up.visits)
    return q + c * node.prior * math.sqrt(up.visits) / (1 + node.visits)


def descend(node: Node, key: Callable[[Node], object]) -> Node:
    """The leaf at which the best children end."""
    while node.children:
        node = max(node.children, key=key)
    return node


def tree_search(policy: Policy, value: Value, prompts: list[list[int]], simulations: tuple[int, ...], expansions: int,
                c: float) -> Iterator[tuple[int, list[list[int]], list[int]]]:
    """Monte Carlo tree search over steps, all prompts' trees in lock step; (simulations so far, responses, tokens) at each wanted number.

    A simulation goes down by PUCT to a leaf. One that has been there before draws `expansions` next steps, the different ones of which
    become children, and goes on to the best of them; the value found there is added to all above. The response is where most visits lead,
    completed by the policy if it has not ended there.
    """
    roots, tokens = [Node([]) for _ in prompts], [0] * len(prompts)
    for done in range(1, max(simulations) + 1):
        leaves = [descend(root, lambda node: puct(node, c)) for root in roots]
        grow = [i for i, leaf in enumerate(leaves) if (leaf.visits or not leaf.parent) and not policy.ended(prompts[i], leaf.response)]
        for i, steps in zip(grow, policy.steps([(prompts[i], leaves[i].response) for i in grow], expansions)):
            leaf = leaves[i]
            leaf.children = [Node(leaf.response + list(step), leaf, n / expansions) for step, n in Counter(map(tuple, steps)).most_common()]
            leaves[i] = max(leaf.children, key=lambda node: puct(node, c))
            tokens[i] += sum(map(len, steps))
        for i, (v, spent) in enumerate(value([(prompts[i], leaf.response) for i, leaf in enumerate(leaves)])):
            tokens[i] += spent
            node = leaves[i]
            while node:
                node.visits, node.total, node = node.visits + 1, node.total + v, node.parent
        if done in simulations:
            found = [(p, descend(root, lambda node: (node.visits, node.total)).response) for p, root in zip(prompts, roots)]
            rest = complete(policy, found)
            yield done, [response + more for (_, response), more in zip(found, rest)], [n + len(more) for n, more in zip(tokens, rest)]


def complete(policy: Policy, starts: list[Start]) -> list[list[int]]:
    """One way to the end of each response: the new tokens, none where it has ended."""
    live = [k for k, start in enumerate(starts) if not policy.ended(*start)]
    ways = dict(zip(live, policy.draw([starts[k] for k in live])))
    return [ways[k][0] if k in ways else [] for k in range(len(starts))]


def by_reading(judge: Verifier) -> Value:
    """The value that the reward model sees in the last step."""
    return lambda starts: [(values[-1], 0) for values in judge(starts)]


def by_rollout(policy: Policy, judge: Verifier) -> Value:
    """The value of one completed response, as the (outcome) reward model judges it: nobody tells a search the right answer."""

    def value(starts: list[Start]) -> list[tuple[float, int]]:
        ways = complete(policy, starts)
        whole = judge([(prompt, response + way) for (prompt, response), way in zip(starts, ways)])
        return [(values[-1], len(way)) for values, way in zip(whole, ways)]

    return value


# ---------------------------------------------------------------------------------------------- budget forcing


def force_on(policy: Policy, prompts: list[list[int]], words: list[list[int]], times: int) -> tuple[list[list[int]], list[int]]:
    """`times` times, when the thinking is about to close, write `words` (token ids for each prompt) in place of </think> and let it go on
    [s1, 2501.19393]. (responses, tokens)."""
    responses: list[list[int]] = [[] for _ in prompts]
    tokens, thinking = [0] * len(prompts), list(range(len(prompts)))
    for turn in range(times + 1):
        for i, (new,) in zip(thinking, policy.draw([(prompts[i], responses[i]) for i in thinking], stops=(policy.close,))):
            responses[i] += new
            tokens[i] += len(new)
        thinking = [i for i in thinking if responses[i][-1] == policy.close and not policy.ended(prompts[i], responses[i][:-1] + words[i])]
        for i in thinking if turn < times else ():
            responses[i][-1:] = words[i]
    return finish(policy, prompts, responses, tokens)


def force_off(policy: Policy, prompts: list[list[int]], opening: list[int], budget: int) -> tuple[list[list[int]], list[int]]:
    """Thinking that has not closed after `budget` tokens is closed: `opening` (token ids of </think> and the answer's opening) is
    written, and the model goes on [s1, 2501.19393]. (responses, tokens)."""
    first = [new for (new,) in policy.draw([(p, []) for p in prompts], stops=(policy.close,), most=budget)]
    cut = [new[-1] != policy.close and not policy.ended(p, new) for p, new in zip(prompts, first)]
    return finish(policy, prompts, [new + opening * short for new, short in zip(first, cut)], list(map(len, first)))


def finish(policy: Policy, prompts: list[list[int]], responses: list[list[int]], tokens: list[int]) -> tuple[list[list[int]], list[int]]:
    rest = complete(policy, list(zip(prompts, responses)))
    return [response + more for response, more in zip(responses, rest)], [n + len(more) for n, more in zip(tokens, rest)]


# ---------------------------------------------------------------------------------------------- the methods


@dataclass
class Bench:
    """What every method is given. samples: the same responses to each problem for all methods that choose among samples."""

    problems: list[Problem]
    prompts: list[list[int]]
    samples: list[list[list[int]]]
    policy: Policy
    judges: dict[str, Verifier]
    cfg: object  # a config.Config

    def scores(self, kind: str) -> list[list[list[float]]]:
        """A reward model's values of every step of every sample."""
        flat = iter(self.judges[kind]([(p, r) for p, many in zip(self.prompts, self.samples) for r in many]))
        return [[next(flat) for _ in many] for many in self.samples]


Found = tuple[int, list[list[list[int]]], list[float]]  # the budget; each problem's responses (several: averaged), and tokens of one


def asked(bench: Bench, budget: int, prompts: list[list[int]]) -> Found:
    """Plain sampling from other prompts, as often as from the problem alone."""
    drawn = bench.policy.draw([(p, []) for p in prompts], len(bench.samples[0]))
    return budget, drawn, [statistics.fmean(map(len, many)) for many in drawn]


def zero_shot(bench: Bench) -> Iterator[Found]:
    """The problem alone."""
    yield 1, bench.samples, [statistics.fmean(map(len, many)) for many in bench.samples]


def step_by_step(bench: Bench) -> Iterator[Found]:
    """The problem, and a request to think step by step."""
    yield asked(bench, 1, [prompt_ids(replace(p, prompt=p.prompt + STEP_BY_STEP[p.language]), bench.policy.tokenizer) for p in bench.problems])


def few_shot(bench: Bench) -> Iterator[Found]:
    """Worked examples first."""
    world, rng = World(bench.cfg.seed, replace(bench.cfg.world, slip=0.0, mixed=0.0)), random.Random(bench.cfg.seed)
    for count in bench.cfg.search.shots:
        yield asked(bench, count, [few_shot_prompt(world, p, count, bench.policy.tokenizer, rng) for p in bench.problems])


def chosen(bench: Bench, choose: Callable[[int, int], int]) -> Iterator[Found]:
    """The sample choose(problem, n) among the first n."""
    for n in bench.cfg.search.samples:
        yield n, [[many[choose(i, n)]] for i, many in enumerate(bench.samples)], [sum(map(len, many[:n])) for many in bench.samples]


def voting(bench: Bench) -> Iterator[Found]:
    """The answer most samples agree on [Wang et al. 2022, 2203.11171]."""
    answers = [[rw.answer_of(p, bench.policy.tokenizer.decode(r)) for r in many] for p, many in zip(bench.problems, bench.samples)]

    def choose(i: int, n: int) -> int:
        equal = rw.math_equal if rw.by_value(bench.problems[i]) else evaluation.same_text
        answer = evaluation.consensus(answers[i][:n], equal)
        return 0 if answer is None else answers[i].index(answer)

    return chosen(bench, choose)


def best_of(bench: Bench, kind: str, over_steps: Callable[[list[float]], float]) -> Iterator[Found]:
    """The sample that a reward model likes best."""
    scores = [[over_steps(values) for values in many] for many in bench.scores(kind)]
    return chosen(bench, lambda i, n: max(range(n), key=scores[i].__getitem__))


def last(values: list[float]) -> float:
    return values[-1]


def beam(bench: Bench) -> Iterator[Found]:
    for width in bench.cfg.search.widths:
        responses, tokens = beam_search(bench.policy, bench.judges["process"], bench.prompts, width, bench.cfg.search.expansions)
        yield width, [[r] for r in responses], tokens


def tree(bench: Bench, value: Value) -> Iterator[Found]:
    own = bench.cfg.search
    for n, responses, tokens in tree_search(bench.policy, value, bench.prompts, own.simulations, own.expansions, own.exploration):
        yield n, [[r] for r in responses], tokens


def wait(bench: Bench) -> Iterator[Found]:
    """The world's authors doubt themselves in these words, without the value that follows."""
    words = [bench.policy.tokenizer.encode(PHRASES[p.language]["oops"].format(v="").rstrip()) for p in bench.problems]
    for times in bench.cfg.search.waits:
        responses, tokens = force_on(bench.policy, bench.prompts, words, times)
        yield times, [[r] for r in responses], tokens


def cut(bench: Bench) -> Iterator[Found]:
    opening = bench.policy.tokenizer.encode("</think><answer>", trusted=True)
    for budget in bench.cfg.search.budgets:
        responses, tokens = force_off(bench.policy, bench.prompts, opening, budget)
        yield budget, [[r] for r in responses], tokens


METHODS: dict[str, tuple[str, Callable[[Bench], Iterator[Found]]]] = {  # name -> (what its number is, how it is done)
    "zero-shot": ("sample", zero_shot),
    "step-by-step": ("sample", step_by_step),
    "few-shot": ("examples", few_shot),
    "voting": ("samples", voting),
    "outcome": ("samples", lambda bench: best_of(bench, "outcome", last)),
    "process-least": ("samples", lambda bench: best_of(bench, "process", min)),
    "process-last": ("samples", lambda bench: best_of(bench, "process", last)),
    "beam": ("kept", beam),
    "tree": ("simulations", lambda bench: tree(bench, by_reading(bench.judges["process"]))),
    "tree-rollouts": ("simulations", lambda bench: tree(bench, by_rollout(bench.policy, bench.judges["outcome"]))),
    "wait": ("waits", wait),
    "cut": ("tokens", cut),
}
JUDGED, CLOSED = ("outcome", "process-least", "process-last", "beam", "tree", "tree-rollouts"), ("wait", "cut")


def measure(bench: Bench, name: str, found: Found) -> tuple[dict, list[dict]]:
    """A method's row of the table, and its responses with their verdicts."""
    budget, responses, tokens = found
    flat = [(p, r) for p, many in zip(bench.problems, responses) for r in many]
    verdicts = iter(grade(bench.policy.tokenizer, [p for p, _ in flat], [r for _, r in flat]))
    right = [[next(verdicts) for _ in many] for many in responses]
    shares = [statistics.fmean(many) for many in right]
    row = {"method": name, "budget": budget, "unit": METHODS[name][0], "accuracy": statistics.fmean(shares), "accuracy_se": evaluation.standard_error(shares),
           "tokens": statistics.fmean(tokens)}
    row["tasks"] = {task: statistics.fmean(s for p, s in zip(bench.problems, shares) if p.task == task) for task in bench.cfg.search.tasks}
    lines = [{"method": name, "budget": budget, "prompt": p.prompt, "task": p.task, "response": bench.policy.tokenizer.decode(many[0]), "correct": ok[0], "tokens": n}
             for p, many, ok, n in zip(bench.problems, responses, right, tokens)]
    return row, lines


def table(rows: list[dict]) -> str:
    """Markdown, a row for each method and budget."""
    tasks = list(rows[0]["tasks"])
    lines = [["method", "budget", "accuracy", "tokens", *tasks], ["---"] * (4 + len(tasks))]
    lines += [[r["method"], f"{r['budget']} {r['unit']}", f"{100 * r['accuracy']:.1f} ± {100 * r['accuracy_se']:.1f}", f"{r['tokens']:.0f}",
               *(f"{100 * r['tasks'][t]:.1f}" for t in tasks)] for r in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: list[dict], ceiling: list[dict], path: str) -> None:
    """Accuracy against tokens, a line a method; dashed: a right answer is among the samples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(9, 6))
    colours = plt.get_cmap("tab20").colors
    for colour, name in zip(colours, dict.fromkeys(r["method"] for r in rows)):
        own = [r for r in rows if r["method"] == name]
        ax.errorbar([r["tokens"] for r in own], [100 * r["accuracy"] for r in own], [100 * r["accuracy_se"] for r in own], marker="o", capsize=2, label=name, color=colour)
    ax.plot([r["tokens"] for r in ceiling], [100 * r["accuracy"] for r in ceiling], "k--", alpha=0.5, label="right one among the samples")
    ax.set(xscale="log", xlabel="tokens generated a problem", ylabel="accuracy, %", title="what more inference buys")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    evaluation.save_figure(fig, path)


def recipe(cfg, folder: str, methods: list[str], out: str, resume: bool) -> None:
    """The reward models if a method needs them, then every method, its row printed when it is done."""
    own = cfg.search
    model, tokenizer = GPT.from_pretrained(folder, parallel.dtype(cfg), parallel.device(cfg.device)), tokenizers.load(folder)
    policy = Policy(model, tokenizer, cfg)
    if policy.close is None and (closed := [m for m in methods if m in CLOSED]):
        raise ValueError(f"the tokenizer of '{folder}' has no token </think>, which '{closed[0]}' needs: leave it out of --methods")
    os.makedirs(out, exist_ok=True)
    asked = {"eval": evaluation.sampling(cfg.eval), "world": asdict(cfg.world), "seed": cfg.seed, "policy": model.fingerprint()}
    parallel.claim(out, asked)
    judges, held_out = learn(cfg, folder, policy, asked, out, resume) if set(methods) & set(JUDGED) else ({}, [])
    sets = evaluation.held_out(cfg.world, replace(cfg.eval, problems=own.problems), own.tasks)
    problems = [p for many in sets.values() for p in many]
    prompts = [prompt_ids(p, tokenizer) for p in problems]
    with policy.method("samples"):
        samples = policy.draw([(p, []) for p in prompts], max(own.samples))
    bench = Bench(problems, prompts, samples, policy, judges, cfg)
    flat = iter(grade(tokenizer, [p for p, many in zip(problems, samples) for _ in many], [r for many in samples for r in many]))
    right = [[next(flat) for _ in many] for many in samples]
    ceiling = [{"samples": n, "accuracy": statistics.fmean(any(many[:n]) for many in right),
                "tokens": statistics.fmean(sum(map(len, many[:n])) for many in samples)} for n in own.samples]
    rows, responses, figures = [], [], os.path.join(out, "search.json")
    content = {"model": folder, "seed": cfg.seed, "search": asdict(own), "eval": asdict(cfg.eval), "table": rows, "right_among_samples": ceiling}
    for name in methods:
        with policy.method(name):
            found = list(METHODS[name][1](bench))
        for budget in found:
            row, lines = measure(bench, name, budget)
            rows.append(row)
            responses += lines
            tqdm.write(f"{name}, {row['budget']} {row['unit']}: {100 * row['accuracy']:.1f}% with {row['tokens']:.0f} tokens a problem")
        parallel.write_json(figures, content)
        parallel.write_lines(os.path.join(out, "responses.jsonl"), responses)
    verifiers = {}
    if judges:
        verifiers = quality(judges, held_out) | {"hacking": {
            name: hacking([[over(values) for values in many] for many in bench.scores(kind)], right)
            for name, kind, over in (("outcome", "outcome", last), ("process-least", "process", min), ("process-last", "process", last))}}
    parallel.write_json(figures, content | {"reward_models": verifiers})
    if parallel.first():
        plot(rows, ceiling, os.path.join(out, "search.png"))
    print("\n" + table(rows))
    print("\na right answer among the samples: " + ", ".join(f"{100 * c['accuracy']:.1f}% of {c['samples']}" for c in ceiling))
    if verifiers:
        print(f"process reward model, {verifiers['steps']} held-out steps: correlation {shown(verifiers['correlation'])}, within a problem "
              f"{shown(verifiers['correlation_within_problem'])}; right side of 1/2: {100 * verifiers['accuracy']:.1f}% (a constant: {100 * verifiers['accuracy_of_a_constant']:.1f}%)")
        for name, row in verifiers["hacking"].items():
            print(f"{name}: {100 * row['wrong_above_best_right']:.1f}% of {row['wrong']} wrong samples score above the best right one; "
                  f"misled in {100 * row['problems_lost']:.1f}% of {row['problems']} problems")
    print(f"\nfigures: {figures}\npicture: {out}/search.png\nresponses: {out}/responses.jsonl")


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("model", help="model folder, such as runs/zero/model; it is not changed")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"comma-separated, of {', '.join(METHODS)} (default all)")
    parser.add_argument("--problems", type=int, help="held-out problems a task (default 64)")
    parser.add_argument("--out", help="where reward models and figures go (default runs/search, with --quick runs/search-quick); reward models that are there are used")
    parser.add_argument("--resume", action="store_true", help="go on with the reward models' training in --out")
    cfg, args = config.parse(parser, quick=QUICK)
    out = args.out or config.folder("search", cfg, args)
    if args.problems is not None:
        cfg.search.problems = args.problems
    with config.user_errors(), parallel.started(cfg):
        config.check(cfg)
        methods = args.methods.split(",")
        if unknown := [m for m in methods if m not in METHODS]:
            raise ValueError(f"there is no method '{unknown[0]}'; the methods are {', '.join(METHODS)}")
        try:
            recipe(cfg, args.model, methods, out, args.resume)
        except KeyboardInterrupt:
            print(f"stopped; the work so far is in '{out}': go on with the same command and --resume", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
