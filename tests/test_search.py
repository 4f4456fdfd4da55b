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
import eval as evaluation
import preference
import rewards as rw
import search as S
from data import Problem, World, WorldConfig

# ---------------------------------------------------------------------------------------------- a scripted model
END, CLOSE = 0, 7


class Scripted:
    """Goes on from a response as script(response, each) says; a response has ended at END."""

    stops, close = (9,), CLOSE

    def __init__(self, script):
        self.script, self.tokenizer, self.drawn = script, SimpleNamespace(chat=False, prompt=lambda text: [1], decode=str), 0

    def draw(self, starts, each=1, stops=(), most=None):
        out = [self.script(response, each) for _, response in starts]
        self.drawn += sum(len(new) for many in out for new in many)
        return out

    def steps(self, starts, each):
        return self.draw(starts, each)

    def ended(self, prompt, response):
        return response[-1:] == [END]


def choices(ways, depth):
    """Steps of a game: choice c of 1 .. ways, as c times c and a 9 (END for the last), `depth` times; drawn one after the other."""

    def script(response, each):
        last = END if sum(token == 9 for token in response) == depth - 1 else 9
        return [[c] * c + [last] for c in (1 + i % ways for i in range(each))]

    return script


def moves(response):
    """The choices of a game: [2, 2, 9, 1, 0] -> (2, 1)."""
    return tuple(int(part[0]) for part in "".join(map(str, response)).replace("0", "9").split("9")[:-1])


def judge_by(values):
    return lambda starts: [[values[moves(response)]] for _, response in starts]


# ---------------------------------------------------------------------------------------------- beams and trees


def test_beam_search_by_hand():
    values = {(1,): 0.6, (2,): 0.5, (1, 1): 0.3, (1, 2): 0.2, (2, 1): 0.1, (2, 2): 0.9}
    policy = Scripted(choices(2, 2))
    responses, tokens = S.beam_search(policy, judge_by(values), [[1], [1]], 1, 2)
    assert [moves(r) for r in responses] == [(1, 1)] * 2 and tokens == [2 + 3 + 2 + 3] * 2 and policy.drawn == 20  # the best first step leads astray
    policy = Scripted(choices(2, 2))
    responses, tokens = S.beam_search(policy, judge_by(values), [[1]], 2, 2)
    assert moves(responses[0]) == (2, 2) and tokens == [policy.drawn] == [2 * 5 + 2 * 5]  # four draws at first, two different ones


def test_a_finished_beam_is_kept_and_may_win():
    """One way ends at once with 0.7; the other goes on and comes to less."""
    script = {(): [[1, END], [2, 9]], (2, 9): [[1, END], [2, END]]}
    values = {(1,): 0.7, (2,): 0.8, (2, 1): 0.4, (2, 2): 0.6}
    policy = Scripted(lambda response, each: (script[tuple(response)] * each)[:each])
    responses, tokens = S.beam_search(policy, judge_by(values), [[1]], 2, 2)
    assert responses == [[1, END]] and tokens == [8 + 4]


def test_a_wide_beam_is_exhaustive():
    for seed in range(5):
        rng = random.Random(seed)
        values = {m: rng.random() for m in [(a,) for a in (1, 2, 3)] + [(a, b) for a in (1, 2, 3) for b in (1, 2, 3)]}
        values |= {(*m, c): rng.random() for m in list(values) if len(m) == 2 for c in (1, 2, 3)}
        (response,), _ = S.beam_search(Scripted(choices(3, 3)), judge_by(values), [[1]], 27, 3)
        assert moves(response) == max((m for m in values if len(m) == 3), key=values.get)


def test_puct_by_hand():
    parent = S.Node([], visits=9, total=4.5)
    seen, new = S.Node([1], parent, prior=0.25, visits=3, total=2.4), S.Node([2], parent, prior=0.5)
    assert S.puct(seen, 2.0) == pytest.approx(0.8 + 2 * 0.25 * 3 / 4) and S.puct(new, 2.0) == pytest.approx(0.5 + 2 * 0.5 * 3 / 1)
    assert S.puct(seen, 0.0) == pytest.approx(0.8) and S.puct(new, 0.0) == pytest.approx(0.5)


def test_tree_search_by_hand():
    """c = 1, two next steps of prior 1/2. Scores at the root, and below:
    1. nothing known: 1, worth 0.4.  2. 1: 0.4+0.25, 2: 0.4+0.5: 2, worth 0.8.  3. 1: 0.4+0.35, 2: 0.8+0.35: 2 grows, 21 worth 0.2.
    4. 1: 0.4+0.43, 2: 0.5+0.29: 1 grows, 11 worth 0.7.  5. 1: 0.55+0.33, 2: 0.5+0.33; 11: 0.7+0.35, 12: 0.55+0.71: 12 worth 0.9."""
    values, asked = {(1,): 0.4, (2,): 0.8, (2, 1): 0.2, (1, 1): 0.7, (1, 2): 0.9}, []

    def value(starts):
        asked.append([moves(response) for _, response in starts])
        return [(values[moves(response)], 100) for _, response in starts]

    policy = Scripted(choices(2, 2))
    (three, at3, tokens3), (five, at5, tokens5) = S.tree_search(policy, value, [[1], [1]], (3, 5), 2, 1.0)
    assert asked == [[m, m] for m in ((1,), (2,), (2, 1), (1, 1), (1, 2))]
    assert (three, five) == (3, 5) and [moves(r) for r in (*at3, *at5)] == [(2, 1)] * 2 + [(1, 2)] * 2  # 1 has three visits; 12 beats 11 by its value
    assert tokens3 == [2 * 5 + 300] * 2 and tokens5 == [3 * 5 + 500] * 2 and policy.drawn == 2 * 15


def test_the_same_step_drawn_twice_is_one_with_twice_the_prior():
    policy = Scripted(lambda response, each: [[2, END], [1, END], [2, END], [3, END]])
    seen = []
    real, S.puct = S.puct, lambda node, c: seen.append(node) or real(node, c)
    try:
        next(S.tree_search(policy, lambda starts: [(0.5, 0)], [[1]], (1,), 4, 1.0))
    finally:
        S.puct = real
    assert {tuple(n.response): n.prior for n in seen} == {(2, END): 0.5, (1, END): 0.25, (3, END): 0.25}


def test_tree_search_finds_what_trying_everything_finds():
    """One of 27 ways is right; a beginning is worth what ends right below it, as a perfect process reward model would say."""
    for seed in range(5):
        rng = random.Random(seed)
        ways = [(a, b, c) for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)]
        values = {m: 0.3 * rng.random() for m in ways} | {(best := rng.choice(ways)): 1.0}
        for n in (2, 1):
            values |= {m[:n]: statistics.fmean(values[w] for w in ways if w[:n] == m[:n]) for m in ways}
        ((_, (response,), _),) = S.tree_search(Scripted(choices(3, 3)), lambda starts, v=values: [(v[moves(r)], 0) for _, r in starts], [[1]], (150,), 3, 1.0)
        assert moves(response) == best


def test_an_unfinished_path_is_completed_and_paid_for():
    policy = Scripted(choices(2, 2))
    ((_, (response,), tokens),) = S.tree_search(policy, lambda starts: [(0.5, 0)], [[1]], (1,), 2, 1.0)
    assert response == [1, 9, 1, END] and tokens == [5 + 2] == [policy.drawn]


def test_rollouts_are_judged_whole_and_paid_for():
    policy = Scripted(choices(1, 2))
    value = S.by_rollout(policy, judge_by({(1, 1): 0.3, (2, 2): 0.6}))
    assert value([([1], [1, 9]), ([1], [2, 2, 9, 2, 2, END])]) == [(0.3, 2), (0.6, 0)]
    assert S.by_reading(lambda starts: [[0.1, 0.7]])([([1], [2])]) == [(0.7, 0)]


# ---------------------------------------------------------------------------------------------- budget forcing


def test_forced_thinking_by_hand():
    """The first is about to close twice; the second closes once and again after one more wait; the third answers without thinking."""
    script = {(1,): [2, CLOSE], (1, 2, 5, 5): [3, CLOSE], (1, 2, 5, 5, 3, CLOSE): [4, END], (2,): [CLOSE], (2, 6): [2, 2, CLOSE], (2, 6, 2, 2, CLOSE): [8, 8, END],
              (3,): [4, END], (1, 2, CLOSE): [4, END]}
    policy = Scripted(None)
    policy.draw = lambda starts, stops=(), most=None: [[list(script[(p[0], *r)])] for p, r in starts]
    policy.ended = lambda prompt, response: response[-1:] == [END] or len(response) > 20
    responses, tokens = S.force_on(policy, [[1], [2], [3]], [[5, 5], [6], [5]], 1)
    assert responses == [[2, 5, 5, 3, CLOSE, 4, END], [6, 2, 2, CLOSE, 8, 8, END], [4, END]]
    assert tokens == [2 + 2 + 2, 1 + 3 + 3, 2]


def test_thinking_cut_short_by_hand():
    """At two tokens: the first is still thinking, the second has closed by itself, the third has ended."""
    script = {(1,): [2, 2], (1, 2, 2, CLOSE, 8): [4, END], (2,): [3, CLOSE], (2, 3, CLOSE): [8, 5, END], (3,): [4, END]}
    policy, most = Scripted(None), []

    def draw(starts, stops=(), most_=None, **kw):
        most.append((stops, kw.get("most")))
        return [[list(script[(p[0], *r)])] for p, r in starts]

    policy.draw = draw
    responses, tokens = S.force_off(policy, [[1], [2], [3]], [CLOSE, 8], 2)
    assert responses == [[2, 2, CLOSE, 8, 4, END], [3, CLOSE, 8, 5, END], [4, END]] and tokens == [2 + 2, 2 + 3, 2]
    assert most == [((CLOSE,), 2), ((), None)]


def test_the_words_of_doubt(world_tokenizer):
    said = []
    bench = SimpleNamespace(problems=[Problem("a", "1", "arithmetic", lang) for lang in ("en", "zh")], prompts=[[1], [1]], cfg=SimpleNamespace(search=S.SearchConfig(waits=(1,))))
    bench.policy = Scripted(lambda response, each: said.append(list(response)) or [[CLOSE] if len(said) < 3 else [END]])
    bench.policy.tokenizer = world_tokenizer
    next(S.wait(bench))
    assert [world_tokenizer.decode(r) for r in said[2:]] == [" wait no", "等等不对"]


# ---------------------------------------------------------------------------------------------- values and reward models


def test_step_ends():
    assert S.step_ends([5, 9, 6, 6, 9, 7], (9,)) == [2, 5, 6] and S.step_ends([5, 9], (9,)) == [2] and S.step_ends([], (9,)) == []
    assert S.ends_in(([1, 9, 1], [5, 9, 6]), (9,)) == [5, 6]  # the prompt's commas end nothing


def test_monte_carlo_values_are_the_chances():
    """Three fair coins worth 1 or 2; right if they make 5. After one coin: 1 needs (2, 2), 1/4; 2 needs one of each, 1/2. After two: 1/2, or 0 after (1, 1)."""
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
    policy.tokenizer.decode = lambda ids: f"<answer>{sum(t for t in ids if t in (1, 2))}</answer>"
    rows = S.monte_carlo(policy, [Problem("", "5", "math")], 24, 250)
    chance = {(1,): 0.25, (2,): 0.5, (1, 1): 0.0, (1, 2): 0.5, (2, 1): 0.5, (2, 2): 0.5}
    for row in rows:
        m = moves(row["response"])
        for n, v in enumerate(row["values"][:2], 1):
            assert abs(v - chance[m[:n]]) < 4 * 0.5 / math.sqrt(250), (m, n)
        assert len(row["values"]) == 3 and row["values"][2] == float(sum(m) == 5) and row["prompt"] == [1]
    assert len({moves(row["response"]) for row in rows}) == 8


@pytest.fixture
def folder(tiny_model, world_tokenizer, tmp_path):
    """The folder of a model, with a reward model's head in it."""
    path = str(tmp_path / "model")
    model = preference.RewardModel(tiny_model)
    torch.nn.init.normal_(model.head.weight)
    model.save_pretrained(path)
    world_tokenizer.save(path)
    return path


def test_a_verifier_reads_every_step_as_if_nothing_followed(folder):
    judge = S.Verifier(folder, (9,), config.make())
    starts = [([5, 9, 7], [8, 9, 30, 31, 9]), ([40], [9, 9, 12]), ([6] * 30, [50])]
    values = judge(starts)
    assert [len(v) for v in values] == [2, 3, 1]
    for (prompt, response), many in zip(starts, values):
        for n, v in zip(S.step_ends(response, (9,)), many):
            assert v == pytest.approx(judge.model.score([prompt + response[:n]]).sigmoid().item(), abs=1e-5)


def test_reward_models_learn_what_they_are_shown(folder, tmp_path):
    """Token 30 makes right what token 31 makes wrong; before it (up to the 9) nobody knows."""
    cfg = config.make()
    cfg.preference = preference.PreferenceConfig(epochs=6, per_step=8, lr=3e-3)
    rows = [{"prompt": [5, i % 7 + 10], "response": [6, 9, 30 + i % 2], "values": [0.5, 1.0 - i % 2]} for i in range(128)]
    for kind in S.KINDS:
        judge = S.Verifier(S.train(cfg, folder, str(tmp_path / kind), kind, rows, (9,), {"a": 1}, False), (9,), cfg)
        middle, right = judge([([5, 12], [6, 9, 30])])[0]
        assert right > 0.9 and judge([([5, 12], [6, 9, 31])])[0][1] < 0.1
        if kind == "process":
            assert abs(middle - 0.5) < 0.15
    assert S.train(cfg, folder, str(tmp_path / "process"), "process", [], (9,), {"a": 1}, False)  # finished: as it is
    with pytest.raises(ValueError, match="--a 1, not 2"):
        S.train(cfg, folder, str(tmp_path / "process"), "process", rows, (9,), {"a": 2}, False)


def test_quality_by_hand():
    rows = [{"prompt": [1], "response": [2, 9, 3], "values": [0.0, 0.0]}, {"prompt": [1], "response": [4, 9, 3], "values": [0.5, 1.0]},
            {"prompt": [2], "response": [2, 9, 3], "values": [1.0, 1.0]}, {"prompt": [2], "response": [3], "values": [1.0]}]
    said = iter([[[0.1, 0.2], [0.4, 0.3], [0.9, 0.8], [0.7]], [[0.9], [0.9], [0.9], [0.2]]])
    q = S.quality({"process": lambda starts: next(said), "outcome": lambda starts: next(said)}, rows)
    assert q["steps"] == 3 and q["correlation"] == pytest.approx(statistics.correlation([0.1, 0.4, 0.9], [0, 0.5, 1]))
    assert q["correlation_within_problem"] == pytest.approx(1.0) and q["accuracy"] == 1.0 and q["accuracy_of_a_constant"] == pytest.approx(2 / 3)
    assert q["responses"] == 4 and q["final_accuracy"] == {"process": 0.75, "outcome": 0.5} and q["final_accuracy_of_a_constant"] == 0.75


def test_hacking_by_hand():
    scores, right = [[0.9, 0.5, 0.7], [0.1, 0.2], [0.3, 0.4], [0.5, 0.5, 0.1]], [[False, False, True], [True, True], [False, False], [True, False, False]]
    assert S.hacking(scores, right) == {"problems": 2, "wrong": 4, "wrong_above_best_right": 0.25, "problems_lost": 0.5}


# ---------------------------------------------------------------------------------------------- methods


def bench_of(drawn, judges=None, **own):
    """Samples are written as numbers: [n, ...] answers n."""
    problems = [Problem(str(i), "1", "arithmetic") for i in range(len(drawn))]
    policy = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: f"<think>a</think><answer>{ids[0]}</answer>"))
    return S.Bench(problems, [[1]] * len(drawn), drawn, policy, judges or {}, SimpleNamespace(search=S.SearchConfig(tasks=("arithmetic",), **own)))


def test_voting_is_the_evaluation_s_consensus_and_every_token_counts():
    rng = random.Random(0)
    samples = [[[rng.randrange(4)] * rng.randint(1, 5) for _ in range(8)] for _ in range(30)]
    bench = bench_of(samples, samples=(3, 8))
    for n, responses, tokens in S.voting(bench):
        for many, (response,), spent in zip(samples, responses, tokens):
            assert str(response[0]) == evaluation.consensus([str(r[0]) for r in many[:n]])
            assert spent == sum(len(r) for r in many[:n])


def test_best_of_n_by_hand():
    samples = [[[1], [2, 2], [3, 3, 3]], [[4], [5], [1]]]
    values = {1: [0.9, 0.1], 2: [0.4, 0.8], 3: [0.5, 0.6], 4: [0.9], 5: [0.1], 6: [0]}
    bench = bench_of(samples, {"process": lambda starts: [values[r[0]] for _, r in starts]}, samples=(1, 2, 3))
    least = [([r[0][0] for r in responses], tokens) for _, responses, tokens in S.best_of(bench, "process", min)]
    final = [[r[0][0] for r in responses] for _, responses, _ in S.best_of(bench, "process", S.last)]
    assert least == [([1, 4], [1, 1]), ([2, 4], [3, 2]), ([3, 4], [6, 3])] and final == [[1, 4], [2, 4], [2, 4]]


def test_a_row_of_the_table_by_hand():
    bench = bench_of([[[1], [2]], [[1], [1]]])
    ((_, responses, tokens),) = S.zero_shot(bench)
    row, lines = S.measure(bench, "zero-shot", (1, responses, tokens))
    assert (row["accuracy"], row["accuracy_se"], row["tokens"], row["tasks"]) == (0.75, 0.25, 1.0, {"arithmetic": 0.75})
    assert [line["correct"] for line in lines] == [True, True]
    assert "| zero-shot | 1 sample | 75.0 ± 25.0 | 1 | 75.0 |" in S.table([row])


def test_worked_examples_are_right_and_of_the_same_kind(world_tokenizer):
    t, rng = world_tokenizer, random.Random(0)
    world = World(0, WorldConfig(slip=0.0, mixed=0.0))
    for task in data.REASONING:
        p = World(0, WorldConfig()).problem(task, 3, "test")
        ids = S.few_shot_prompt(world, p, 2, t, rng)
        own = data.prompt_ids(p, t)
        assert ids[-len(own) :] == own and ids[: -len(own)].count(t.eos_id) == 2
        for _ in range(5):
            q = world.problem(task, rng.randrange(1000))
            scores = rw.score(q, S.worked(world, q, rng), rw.RewardConfig())
            assert scores["accuracy"] == scores["format"] == scores["language"] == 1.0


def test_the_policy_goes_on_from_where_it_is_told(tiny_model, world_tokenizer):
    cfg = config.make()
    cfg.eval.max_new_tokens, cfg.eval.rows, cfg.search.step_tokens = 30, 7, 12
    policy = S.Policy(tiny_model, world_tokenizer, cfg)
    assert {world_tokenizer.decode([i])[:1] for i in world_tokenizer.encode(",") + world_tokenizer.encode("\n")} == {",", "\n"}
    assert set(world_tokenizer.encode(",") + world_tokenizer.encode("\n") + [world_tokenizer.special["</think>"]]) <= set(policy.stops)
    assert not any("," in world_tokenizer.decode([i]) for i in range(world_tokenizer.vocab_size) if i not in policy.stops)
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
    assert policy.ended([1], [3, 9]) and not policy.ended([1], [9, 3]) and not policy.ended([1], []) and policy.ended([1], [3] * 30)
    assert policy.ended([1] * 1020, [3] * 4) and not policy.ended([1] * 1020, [3] * 3)


# ---------------------------------------------------------------------------------------------- the script

FLAGS = [x for k, v in {"search.samples": "2", "search.shots": "1", "search.widths": "2", "search.expansions": 2, "search.simulations": "2", "search.waits": "1",
                        "search.budgets": "4", "search.step_tokens": 6, "search.train_problems": 4, "search.train_samples": 1, "search.completions": 1,
                        "search.held_out": 4, "eval.max_new_tokens": 16, "preference.epochs": 1}.items() for x in (f"--{k}", str(v))]


def test_end_to_end(folder, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "out")
    status, text, err = run(monkeypatch, capsys, "search", folder, "--out", out, "--problems", "1", *FLAGS)
    assert status == 0, err
    with open(os.path.join(out, "search.json")) as f:
        content = json.load(f)
    assert [row["method"] for row in content["table"]] == list(S.METHODS) and all(f"| {m} | " in text for m in S.METHODS)
    assert all(row["tokens"] > 0 and set(row["tasks"]) == set(data.REASONING) for row in content["table"])
    assert content["reward_models"]["responses"] == 4 and set(content["reward_models"]["hacking"]) == {"outcome", "process-least", "process-last"}
    assert os.path.getsize(os.path.join(out, "search.png")) > 0
    with open(os.path.join(out, "responses.jsonl")) as f:
        assert len(f.readlines()) == 4 * len(S.METHODS)
    made = os.path.join(out, "process", "model", "score.safetensors")
    before = os.path.getmtime(made)
    status, again, _ = run(monkeypatch, capsys, "search", folder, "--out", out, "--problems", "1", "--methods", "beam,cut", *FLAGS)
    assert status == 0 and os.path.getmtime(made) == before  # the reward models are used again
    rows = {line for line in text.split("\n") if line.startswith(("| beam", "| cut"))}
    assert rows == {line for line in again.split("\n") if line.startswith(("| beam", "| cut"))}  # whatever else is measured
    status, _, err = run(monkeypatch, capsys, "search", folder, "--out", out, "--problems", "1", *FLAGS, "--search.completions", "2")
    assert status == 2 and "--search.completions 1, not 2" in err and err.count("\n") == 1


def test_without_reward_models_nothing_is_trained(folder, tmp_path, monkeypatch, capsys):
    status, text, _ = run(monkeypatch, capsys, "search", folder, "--out", str(tmp_path / "o"), "--problems", "1", "--methods", "voting,cut", *FLAGS)
    assert status == 0 and "| voting | 2 samples |" in text and sorted(os.listdir(tmp_path / "o")) == ["responses.jsonl", "search.json", "search.png", "settings.json"]
    status, _, err = run(monkeypatch, capsys, "search", folder, "--out", str(tmp_path / "o"), "--problems", "1", "--methods", "cut", *FLAGS, "--seed", "5")
    assert status == 2 and "--seed 0, not 5" in err  # other figures are not written over these


def test_what_was_measured_before_a_stop_is_there(folder, tmp_path, monkeypatch, capsys):
    def stop(bench):
        raise KeyboardInterrupt

    monkeypatch.setitem(S.METHODS, "cut", (*S.METHODS["cut"][:1], stop, *S.METHODS["cut"][2:]))
    assert run(monkeypatch, capsys, "search", folder, "--out", str(tmp_path / "o"), "--problems", "1", "--methods", "voting,cut", *FLAGS)[0] == 130
    assert {row["method"] for row in json.loads((tmp_path / "o" / "search.json").read_text())["table"]} == {"voting"}


@pytest.mark.parametrize(("argv", "message"), [(["nowhere"], "nowhere"), (["nowhere", "--methods", "voting,magic"], "there is no method 'magic'"),
                                               (["nowhere", "--problems", "0"], "search.problems"), (["nowhere", "--search.samples", "4,0"], "search.samples"),
                                               (["nowhere", "--search.tasks", "chess"], "chess")])
def test_mistakes(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "search", *argv)
    assert status == 2 and message in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_a_tokenizer_without_the_closing_tag(folder, tmp_path, monkeypatch, capsys):
    real = S.Policy.__init__
    monkeypatch.setattr(S.Policy, "__init__", lambda self, *args: real(self, *args) or setattr(self, "close", None))
    status, _, err = run(monkeypatch, capsys, "search", folder, "--out", str(tmp_path / "o"), "--methods", "zero-shot,wait")
    assert status == 2 and "which 'wait' needs" in err and err.count("\n") == 1
