"""Searches against scripted models, whose every token is known; the methods; the command."""

import doctest
import json
import math
import os
import random
import statistics
from types import SimpleNamespace

import pytest
import torch
from conftest import run

import config
import data
import preference
import rewards as rw
from data import World, WorldConfig
from experiments import search as S
from lib.stats import consensus
from reward_model import RewardModel
from tasks.base import Problem

SCRIPT = "experiments.search"


def test_doctests():
    assert doctest.testmod(S).failed == 0


# ------------------------------------------------------------------------------ a scripted model
END, CLOSE = 0, 7


class Scripted:
    """Continues a response as script(response, each) says; a response has ended at END."""

    stops, close = (9,), CLOSE
    complete = S.Policy.complete

    def __init__(self, script):
        self.script, self.drawn = script, 0
        self.tokenizer = SimpleNamespace(chat=False, prompt=lambda text: [1], response=str)

    def draw(self, starts, each=1, stops=(), most=None):
        out = [self.script(response, each) for _, response in starts]
        self.drawn += sum(len(new) for many in out for new in many)
        return out

    def steps(self, starts, each):
        return self.draw(starts, each)

    def ended(self, prompt, response):
        return response[-1:] == [END]


def choices(ways, depth):
    """Steps of a game: choice c of 1 .. ways, as c times c and a 9 (END for the last), `depth`
    times; drawn one after the other."""

    def script(response, each):
        last = END if sum(token == 9 for token in response) == depth - 1 else 9
        return [[c] * c + [last] for c in (1 + i % ways for i in range(each))]

    return script


def moves(response):
    """The choices of a game: [2, 2, 9, 1, 0] -> (2, 1)."""
    return tuple(
        int(part[0]) for part in "".join(map(str, response)).replace("0", "9").split("9")[:-1]
    )


def judge_by(values):
    return lambda starts: [[values[moves(response)]] for _, response in starts]


def bench_with(policy, judge=None, prompts=((1,),), kind="process", **settings):
    """A Bench of prompts, with settings of the section search."""
    prompts = [list(p) for p in prompts]
    problems = [Problem("", "1", "arithmetic") for _ in prompts]
    cfg = SimpleNamespace(search=S.SearchConfig(tasks=("arithmetic",), **settings))
    return S.Bench(problems, prompts, [[] for _ in prompts], policy, {kind: judge}, cfg)


def beam(policy, values, width, expansions, prompts=((1,),)):
    """(responses, tokens) of a beam search."""
    settings = dict(widths=(width,), expansions=expansions, prompts=prompts)
    ((budget, responses, tokens),) = bench_with(policy, judge_by(values), **settings).beam()
    assert budget == width and all(len(many) == 1 for many in responses)
    return [many[0] for many in responses], tokens


def tree(policy, value, simulations, expansions, prompts=((1,),)):
    """[(simulations, responses, tokens)] of tree searches; value(starts) as Bench.leaf_values."""
    settings = dict(simulations=simulations, expansions=expansions, prompts=prompts)
    bench = bench_with(policy, **settings)
    bench.leaf_values = lambda starts, rollouts: value(starts)
    return [(n, [many[0] for many in out], tokens) for n, out, tokens in bench.tree(False)]


# ------------------------------------------------------------------------------ beams and trees


def test_beam_search_by_hand():
    values = {(1,): 0.6, (2,): 0.5, (1, 1): 0.3, (1, 2): 0.2, (2, 1): 0.1, (2, 2): 0.9}
    policy = Scripted(choices(2, 2))
    responses, tokens = beam(policy, values, 1, 2, [[1], [1]])
    assert [moves(r) for r in responses] == [(1, 1)] * 2  # the best first step leads astray
    assert tokens == [2 + 3 + 2 + 3] * 2 and policy.drawn == 20
    policy = Scripted(choices(2, 2))
    responses, tokens = beam(policy, values, 2, 2)
    assert moves(responses[0]) == (2, 2)
    assert tokens == [policy.drawn] == [2 * 5 + 2 * 5]  # four draws at first, two different ones


def test_a_finished_beam_is_kept_and_may_win():
    """One way ends at once with 0.7; the other goes on and comes to less."""
    script = {(): [[1, END], [2, 9]], (2, 9): [[1, END], [2, END]]}
    values = {(1,): 0.7, (2,): 0.8, (2, 1): 0.4, (2, 2): 0.6}
    policy = Scripted(lambda response, each: (script[tuple(response)] * each)[:each])
    responses, tokens = beam(policy, values, 2, 2)
    assert responses == [[1, END]] and tokens == [8 + 4]


def test_a_wide_beam_is_exhaustive():
    for seed in range(5):
        rng = random.Random(seed)
        ways = [(a,) for a in (1, 2, 3)] + [(a, b) for a in (1, 2, 3) for b in (1, 2, 3)]
        values = {m: rng.random() for m in ways}
        values |= {(*m, c): rng.random() for m in list(values) if len(m) == 2 for c in (1, 2, 3)}
        (response,), _ = beam(Scripted(choices(3, 3)), values, 27, 3)
        assert moves(response) == max((m for m in values if len(m) == 3), key=values.get)


def test_puct_by_hand():
    parent = S.Node([], visits=9, total=4.5)
    seen = S.Node([1], parent, prior=0.25, visits=3, total=2.4)
    new = S.Node([2], parent, prior=0.5)
    assert S.puct(seen, 2.0) == pytest.approx(0.8 + 2 * 0.25 * 3 / 4)
    assert S.puct(new, 2.0) == pytest.approx(0.5 + 2 * 0.5 * 3 / 1)
    assert S.puct(seen, 0.0) == pytest.approx(0.8) and S.puct(new, 0.0) == pytest.approx(0.5)


def test_tree_search_by_hand():
    """c = 1, two next steps of prior 1/2. Scores at the root, and below:
    1. nothing known: 1, worth 0.4.  2. 1: 0.4+0.25, 2: 0.4+0.5: 2, worth 0.8.
    3. 1: 0.4+0.35, 2: 0.8+0.35: 2 grows, 21 worth 0.2.
    4. 1: 0.4+0.43, 2: 0.5+0.29: 1 grows, 11 worth 0.7.
    5. 1: 0.55+0.33, 2: 0.5+0.33; 11: 0.7+0.35, 12: 0.55+0.71: 12 worth 0.9."""
    values, order = {(1,): 0.4, (2,): 0.8, (2, 1): 0.2, (1, 1): 0.7, (1, 2): 0.9}, []

    def value(starts):
        order.append([moves(response) for _, response in starts])
        return [(values[moves(response)], 100) for _, response in starts]

    policy = Scripted(choices(2, 2))
    found = tree(policy, value, (3, 5), 2, [[1], [1]])
    (three, at3, tokens3), (five, at5, tokens5) = found
    assert order == [[m, m] for m in ((1,), (2,), (2, 1), (1, 1), (1, 2))]
    # 1 has three visits; 12 beats 11 by its value
    assert (three, five) == (3, 5)
    assert [moves(r) for r in (*at3, *at5)] == [(2, 1)] * 2 + [(1, 2)] * 2
    assert tokens3 == [2 * 5 + 300] * 2 and tokens5 == [3 * 5 + 500] * 2
    assert policy.drawn == 2 * 15


def test_the_same_step_drawn_twice_is_one_with_twice_the_prior(monkeypatch):
    policy = Scripted(lambda response, each: [[2, END], [1, END], [2, END], [3, END]])
    seen, real = [], S.puct
    monkeypatch.setattr(S, "puct", lambda node, c: seen.append(node) or real(node, c))
    tree(policy, lambda starts: [(0.5, 0)], (1,), 4)
    priors = {tuple(n.response): n.prior for n in seen}
    assert priors == {(2, END): 0.5, (1, END): 0.25, (3, END): 0.25}


def test_tree_search_finds_what_trying_everything_finds():
    """One of 27 ways is right; a beginning is worth what ends right below it, as a perfect process
    reward model would say."""
    for seed in range(5):
        rng = random.Random(seed)
        ways = [(a, b, c) for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)]
        values = {m: 0.3 * rng.random() for m in ways} | {(best := rng.choice(ways)): 1.0}
        for n in (2, 1):
            for m in {w[:n] for w in ways}:
                values[m] = statistics.fmean(values[w] for w in ways if w[:n] == m)

        def value(starts, values=values):
            return [(values[moves(r)], 0) for _, r in starts]

        ((_, (response,), _),) = tree(Scripted(choices(3, 3)), value, (150,), 3)
        assert moves(response) == best


def test_an_unfinished_path_is_completed_and_paid_for():
    policy = Scripted(choices(2, 2))
    ((_, (response,), tokens),) = tree(policy, lambda starts: [(0.5, 0)], (1,), 2)
    assert response == [1, 9, 1, END] and tokens == [5 + 2] == [policy.drawn]


def test_rollouts_are_judged_whole_and_paid_for():
    policy, judge = Scripted(choices(1, 2)), judge_by({(1, 1): 0.3, (2, 2): 0.6})
    bench = bench_with(policy, judge, kind="outcome")
    starts = [([1], [1, 9]), ([1], [2, 2, 9, 2, 2, END])]
    assert bench.leaf_values(starts, True) == [(0.3, 2), (0.6, 0)]
    reading = bench_with(policy, lambda starts: [[0.1, 0.7]])
    assert reading.leaf_values([([1], [2])], False) == [(0.7, 0)]


# ------------------------------------------------------------------------------ budget forcing


def test_forced_thinking_by_hand():
    """The first is about to close twice; the second closes once and again after one more wait; the
    third answers without thinking."""
    script = {(1,): [2, CLOSE], (1, 2, 5, 5): [3, CLOSE], (1, 2, 5, 5, 3, CLOSE): [4, END]}
    script |= {(2,): [CLOSE], (2, 6): [2, 2, CLOSE], (2, 6, 2, 2, CLOSE): [8, 8, END]}
    script |= {(3,): [4, END], (1, 2, CLOSE): [4, END]}
    words = iter([[5, 5], [6], [5]])
    policy = Scripted(None)
    policy.draw = lambda starts, stops=(), most=None: [[[*script[(p[0], *r)]]] for p, r in starts]
    policy.ended = lambda prompt, response: response[-1:] == [END] or len(response) > 20
    policy.tokenizer.encode = lambda text: next(words)
    ((_, responses, tokens),) = bench_with(policy, prompts=[[1], [2], [3]], waits=(1,)).wait()
    first, second = [2, 5, 5, 3, CLOSE, 4, END], [6, 2, 2, CLOSE, 8, 8, END]
    assert responses == [[first], [second], [[4, END]]]
    assert tokens == [2 + 2 + 2, 1 + 3 + 3, 2]


def test_thinking_cut_short_by_hand():
    """At two tokens: the first still thinks, the second has closed by itself, the third ended."""
    script = {(1,): [2, 2], (1, 2, 2, CLOSE, 8): [4, END], (2,): [3, CLOSE], (3,): [4, END]}
    script |= {(2, 3, CLOSE): [8, 5, END]}
    policy, limits = Scripted(None), []

    def draw(starts, stops=(), most=None):
        limits.append((stops, most))
        return [[list(script[(p[0], *r)])] for p, r in starts]

    policy.draw = draw
    policy.tokenizer.encode = lambda text, trusted: [CLOSE, 8]
    ((_, responses, tokens),) = bench_with(policy, prompts=[[1], [2], [3]], budgets=(2,)).cut()
    expected = [2, 2, CLOSE, 8, 4, END], [3, CLOSE, 8, 5, END], [4, END]
    assert responses == [[r] for r in expected] and tokens == [2 + 2, 2 + 3, 2]
    assert limits == [((CLOSE,), 2), ((), None)]


def test_the_words_of_doubt(world_tokenizer):
    said = []

    def script(response, each):
        said.append(list(response))
        return [[CLOSE] if len(said) < 3 else [END]]

    bench = bench_with(Scripted(script), prompts=[[1], [1]], waits=(1,))
    bench.problems = [Problem("a", "1", "arithmetic", language) for language in ("en", "zh")]
    bench.policy.tokenizer = world_tokenizer
    next(bench.wait())
    assert [world_tokenizer.decode(r) for r in said[2:]] == [" wait no", "等等不对"]


# ------------------------------------------------------------------------------ reward models


def test_step_ends():
    assert S.step_ends([5, 9, 6, 6, 9, 7], (9,)) == [2, 5, 6]
    assert S.step_ends([5, 9], (9,)) == [2] and S.step_ends([], (9,)) == []
    assert S.step_ends([5, 9, 6], (9,), 3) == [5, 6]  # from a prompt's first token


def test_monte_carlo_values_are_the_chances():
    """Three fair coins worth 1 or 2; right if they make 5. After one coin: 1 needs (2, 2), 1/4; 2
    needs one of each, 1/2. After two: 1/2, or 0 after (1, 1)."""
    rng = random.Random(0)

    def script(response, each):
        out = []
        for _ in range(each):
            new, left = [], 3 - sum(t in (1, 2) for t in response)
            for k in range(left):
                new += [rng.choice((1, 2)), END if k == left - 1 else 9]
            out.append(new)
        return out

    policy = Scripted(script)

    def decode(ids):
        return f"<answer>{sum(t for t in ids if t in (1, 2))}</answer>"

    policy.tokenizer.response = decode
    rows = S.monte_carlo(policy, [Problem("", "5", "math")], 24, 250)
    chance = {(1,): 0.25, (2,): 0.5, (1, 1): 0.0, (1, 2): 0.5, (2, 1): 0.5, (2, 2): 0.5}
    for row in rows:
        m = moves(row["response"])
        for n, v in enumerate(row["values"][:2], 1):
            assert abs(v - chance[m[:n]]) < 4 * 0.5 / math.sqrt(250), (m, n)
        assert len(row["values"]) == 3 and row["values"][2] == float(sum(m) == 5)
        assert row["prompt"] == [1]
    assert len({moves(row["response"]) for row in rows}) == 8


@pytest.fixture
def folder(tiny_model, world_tokenizer, tmp_path):
    """The folder of a model, with a reward model's head in it."""
    path = str(tmp_path / "model")
    model = RewardModel(tiny_model)
    torch.nn.init.normal_(model.head.weight)
    model.save_pretrained(path)
    world_tokenizer.save(path)
    return path


def test_a_verifier_reads_every_step_as_if_nothing_followed(folder):
    judge = S.Verifier(folder, (9,), config.make(S.Config))
    starts = [([5, 9, 7], [8, 9, 30, 31, 9]), ([40], [9, 9, 12]), ([6] * 30, [50])]
    values = judge(starts)
    assert [len(v) for v in values] == [2, 3, 1]
    for (prompt, response), many in zip(starts, values):
        for n, v in zip(S.step_ends(response, (9,)), many):
            alone = judge.model.score([prompt + response[:n]]).sigmoid().item()
            assert v == pytest.approx(alone, abs=1e-5)


def test_reward_models_learn_what_they_are_shown(folder, tmp_path):
    """Token 30 makes right what token 31 makes wrong; before it (up to the 9) nobody knows."""
    cfg, rows = config.make(S.Config), []
    cfg.preference = preference.PreferenceConfig(epochs=6, per_step=8, lr=3e-3)
    for i in range(128):
        row = {"prompt": [5, i % 7 + 10], "response": [6, 9, 30 + i % 2]}
        rows.append(row | {"values": [0.5, 1.0 - i % 2]})

    def train(kind, rows, settings):
        return S.train(cfg, folder, str(tmp_path / kind), kind, rows, (9,), settings, False)

    for kind in ("outcome", "process"):
        judge = S.Verifier(train(kind, rows, {"a": 1}), (9,), cfg)
        middle, right = judge([([5, 12], [6, 9, 30])])[0]
        assert right > 0.9 and judge([([5, 12], [6, 9, 31])])[0][1] < 0.1
        if kind == "process":
            assert abs(middle - 0.5) < 0.15
    assert train("process", [], {"a": 1})  # finished: as it is
    with pytest.raises(ValueError, match="--a 1, not 2"):
        train("process", rows, {"a": 2})


# ------------------------------------------------------------------------------ methods


def bench_of(drawn, judges=None, **settings):
    """Samples are written as numbers: [n, ...] answers n."""
    tests = ({"start": i, "steps": []} for i in range(len(drawn)))
    problems = [Problem(str(i), "1", "arithmetic", tests=t) for i, t in enumerate(tests)]

    def decode(ids):
        return f"<think>a</think><answer>{ids[0]}</answer>"

    policy = SimpleNamespace(tokenizer=SimpleNamespace(response=decode))
    cfg = SimpleNamespace(search=S.SearchConfig(tasks=("arithmetic",), **settings))
    return S.Bench(problems, [[1]] * len(drawn), drawn, policy, judges or {}, cfg)


def test_voting_is_the_evaluation_s_consensus_and_every_token_counts():
    rng, samples = random.Random(0), []
    for _ in range(30):
        samples.append([[rng.randrange(4)] * rng.randint(1, 5) for _ in range(8)])
    for n, responses, tokens in bench_of(samples, samples=(3, 8)).voting():
        for many, (response,), spent in zip(samples, responses, tokens):
            assert str(response[0]) == consensus([str(r[0]) for r in many[:n]])
            assert spent == sum(len(r) for r in many[:n])


def test_best_of_n_by_hand():
    samples = [[[1], [2, 2], [3, 3, 3]], [[4], [5], [1]]]
    values = {1: [0.9, 0.1], 2: [0.4, 0.8], 3: [0.5, 0.6], 4: [0.9], 5: [0.1], 6: [0]}
    judges = {"process": lambda starts: [values[r[0]] for _, r in starts]}
    bench = bench_of(samples, judges, samples=(1, 2, 3))
    least, final = [], []
    for _, responses, tokens in bench.best_of("process-least"):
        least.append(([r[0][0] for r in responses], tokens))
    for _, responses, _ in bench.best_of("process-last"):
        final.append([r[0][0] for r in responses])
    assert least == [([1, 4], [1, 1]), ([2, 4], [3, 2]), ([3, 4], [6, 3])]
    assert final == [[1, 4], [2, 4], [2, 4]]


def test_a_row_of_the_table_by_hand():
    bench = bench_of([[[1], [2]], [[1], [1]]])
    ((_, responses, tokens),) = bench.zero_shot()
    row, lines = S.measure(bench, "zero-shot", (1, responses, tokens))
    assert (row["accuracy"], row["accuracy_se"], row["tokens"]) == (0.75, 0.25, 1.0)
    assert row["tasks"] == {"arithmetic": 0.75}
    assert [line["correct"] for line in lines] == [True, True]
    assert "| zero-shot | 1 sample | 75.0 ± 25.0 | 1 | 75.0 |" in squeezed(S.table([row]))
    bench.problems[1].tests["start"] = 0  # one content: as good as one problem
    assert S.measure(bench, "zero-shot", (1, responses, tokens))[0]["accuracy_se"] == 0


def squeezed(text):
    """Without the spaces that align columns."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def test_worked_examples_are_right_and_of_the_same_kind(world_tokenizer):
    t, rng = world_tokenizer, random.Random(0)
    world = World(0, WorldConfig(slip=0.0, mixed=0.0))
    for task in data.REASONING:
        p = World(0, WorldConfig()).problem(task, 3, "test")
        ids, prompt = S.few_shot_prompt(world, p, 2, t, rng), data.prompt_ids(p, t)
        assert ids[-len(prompt) :] == prompt and ids[: -len(prompt)].count(t.eos_id) == 2
        for _ in range(5):
            q = world.problem(task, rng.randrange(1000))
            scores = rw.score(q, S.worked(world, q, rng), rw.RewardConfig())
            assert scores["accuracy"] == scores["format"] == scores["language"] == 1.0


def test_the_policy_goes_on_from_where_it_is_told(tiny_model, world_tokenizer):
    cfg, t = config.make(S.Config), world_tokenizer
    cfg.eval.max_new_tokens, cfg.eval.rows, cfg.search.step_tokens = 30, 7, 12
    policy = S.Policy(tiny_model, t, cfg)
    marks = t.encode(",") + t.encode("\n")
    assert {t.decode([i])[:1] for i in marks} == {",", "\n"}
    assert {*marks, t.special["</think>"]} <= set(policy.stops)
    others = (i for i in range(t.vocab_size) if i not in policy.stops)
    assert not any("," in t.decode([i]) for i in others)
    starts = [([5, 6, 7], []), ([8], [9, 10]), ([11] * 20, [12])]
    policy.stops = tuple(range(20, 300))  # so that an untrained model meets some
    with policy.method("m"):
        drawn = policy.steps(starts, 5)
        assert policy.bar.n == sum(len(new) for many in drawn for new in many)
    ends = {*policy.stops, *tiny_model.cfg.eos_ids}
    for many in drawn:
        assert len(many) == 5
        for new in many:
            assert not ends & set(new[:-1]) and (new[-1] in ends or len(new) == 12)
    with policy.method("m"):
        assert policy.steps(starts, 5) == drawn  # a method's random numbers are its own
    assert policy.draw([]) == []
    tiny_model.cfg.eos_ids = (9,)
    assert policy.ended([1], [3, 9]) and not policy.ended([1], [9, 3])
    assert not policy.ended([1], []) and policy.ended([1], [3] * 30)
    assert policy.ended([1] * 1020, [3] * 4) and not policy.ended([1] * 1020, [3] * 3)


# ------------------------------------------------------------------------------ the script

FLAGS = """--search.samples 2 --search.shots 1 --search.widths 2 --search.expansions 2
 --search.simulations 2 --search.waits 1 --search.budgets 4 --search.step_tokens 6
 --search.train_problems 4 --search.train_samples 1 --search.completions 1
 --eval.max_new_tokens 16 --preference.epochs 1 --problems 1""".split()


@pytest.fixture
def script(folder, tmp_path, monkeypatch, capsys):
    """The command on the small model: script(*flags) -> (status, stdout, stderr)."""
    out = str(tmp_path / "o")
    return lambda *flags: run(monkeypatch, capsys, SCRIPT, folder, "--out", out, *FLAGS, *flags)


def test_end_to_end(script, tmp_path):
    out = str(tmp_path / "o")
    status, text, err = script()
    assert status == 0, err
    with open(os.path.join(out, "search.json")) as f:
        content = json.load(f)
    assert [row["method"] for row in content["table"]] == list(S.METHODS)
    assert all(f"| {m} | " in squeezed(text) for m in S.METHODS)
    for row in content["table"]:
        assert row["tokens"] > 0 and set(row["tasks"]) == set(data.REASONING)
    assert os.path.getsize(os.path.join(out, "search.png")) > 0
    with open(os.path.join(out, "responses.jsonl")) as f:
        assert len(f.readlines()) == 4 * len(S.METHODS)
    made = os.path.join(out, "process", "model", "score.safetensors")
    before = os.path.getmtime(made)
    status, again, _ = script("--methods", "beam,cut")
    assert status == 0 and os.path.getmtime(made) == before  # the reward models are used again
    rows, others = (
        {line for line in squeezed(x).split("\n") if line.startswith(("| beam", "| cut"))}
        for x in (text, again)
    )
    assert rows == others  # whatever else is measured
    status, _, err = script("--search.completions", "2")
    assert status == 2 and "--search.completions 1, not 2" in err and err.count("\n") == 1


def test_without_reward_models_nothing_is_trained(script, tmp_path):
    status, text, _ = script("--methods", "voting,cut")
    assert status == 0 and "| voting | 2 samples |" in squeezed(text)
    files = [".lock", "responses.jsonl", "search.json", "search.png", "settings.json"]
    assert sorted(os.listdir(tmp_path / "o")) == files
    status, _, err = script("--methods", "cut", "--seed", "5")
    assert status == 2 and "--seed 0, not 5" in err  # other figures are not written over these


def test_what_was_measured_before_a_stop_is_there(script, tmp_path, monkeypatch):
    def stop(bench):
        raise KeyboardInterrupt

    monkeypatch.setitem(S.METHODS, "cut", (S.METHODS["cut"][0], stop))
    assert script("--methods", "voting,cut")[0] == 130
    content = json.loads((tmp_path / "o" / "search.json").read_text())
    assert {row["method"] for row in content["table"]} == {"voting"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere"),
        (["nowhere", "--methods", "voting,magic"], "there is no method 'magic'"),
        (["nowhere", "--problems", "0"], "argument --problems: it is 0; it must be at least 1"),
        (["nowhere", "--search.samples", "4,0"], "search.samples"),
        (["nowhere", "--search.tasks", "chess"], "chess"),
    ],
)
def test_mistakes(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, SCRIPT, *argv)
    assert status == 2 and message in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_a_tokenizer_without_the_closing_tag(script, monkeypatch):
    real = S.Policy.__init__

    def without(self, *args):
        real(self, *args)
        self.close = None

    monkeypatch.setattr(S.Policy, "__init__", without)
    status, _, err = script("--methods", "zero-shot,wait")
    assert status == 2 and "which 'wait' needs" in err and err.count("\n") == 1
