import itertools
import json
import math
import os
from dataclasses import replace

import pytest
from conftest import run
from tqdm import tqdm

import eval as E
from data import Problem, World, WorldConfig


def test_pass_at_k_against_all_subsets():
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                samples = [1] * c + [0] * (n - c)
                subsets = list(itertools.combinations(samples, k))
                assert E.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert E.pass_at_k(1000, 1, 500) == pytest.approx(0.5)
    for bad in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError):
            E.pass_at_k(*bad)


def test_consensus():
    assert E.consensus(["7", "8", "7", None]) == "7"
    assert E.consensus(["8", "7", "7", "8"]) == "8"  # a tie: the one that appeared first
    assert E.consensus([None, None, "3"]) == "3" and E.consensus([None]) is None
    assert E.consensus(["1 + 2", "1+2", "3", "3 "]) == "1 + 2"  # as it was first written


def test_standard_error_by_hand():
    assert E.standard_error([0.0, 1.0, 1.0]) == pytest.approx(math.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 6))
    assert E.standard_error([0.3]) == 0.0


def sample(problem, answer, correct):
    return {"problem": problem, "response": "", "answer": answer, "correct": correct, "format": 1.0, "length": 10 + problem, "finished": correct,
            "language_consistency": 0.5, "reflection_words": 2}


def test_summary_by_hand():
    problems = [Problem("a", "1", "math"), Problem("b", "2", "math")]
    samples = [sample(0, a, a == "1") for a in ("1", "1", "5", None)] + [sample(1, a, a == "2") for a in ("3", "3", "2", "4")]
    r = E.summarise(problems, samples, 4)
    assert (r.pass1, r.cons, r.passk) == (pytest.approx(3 / 8), 0.5, 1.0)
    assert r.pass1_se == pytest.approx(0.125) and r.pass_at[2] == pytest.approx((5 / 6 + 1 / 2) / 2) and list(r.pass_at) == [1, 2, 4]
    assert (r.mean_length, r.clipped, r.reflection_words, r.language_consistency) == (10.5, pytest.approx(5 / 8), 2, 0.5)
    text = E.table([("m", r)])
    assert "37.5 ± 12.5" in text and "cons@4" in text and len({line.count("|") for line in text.split("\n")}) == 1


def test_evaluate_scores_each_response_with_its_own_problem(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    """Batches are ordered by length; whatever the order, sample i belongs to problem i // k."""
    problems = World(0, WorldConfig()).problems("arithmetic", 10, "test")
    seen = []
    monkeypatch.setattr(E.rw, "verdicts", lambda problems, answers: seen.extend(problems) or [True] * len(problems))
    cfg = E.EvalConfig(k=3, rows=6, max_new_tokens=5)
    r = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    assert [s["problem"] for s in r.samples] == [i for i in range(10) for _ in range(3)]
    assert len(seen) == 30 + 10 and r.problems == 10 and r.pass1 == 1.0
    again = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    assert again.samples == r.samples  # seeded
    E.save_reports([("m", r)], str(tmp_path / "e.json"))
    with open(tmp_path / "e.json") as f:
        (row,) = json.load(f)["reports"]
    assert row["model"] == "m" and row["pass1"] == 1.0 and "samples" not in row


def report(task, pass1, qualities=()):
    samples = [sample(0, "1", pass1) | {"helpfulness": q, "declined": q == 2, "harmful": i == 0} for i, q in enumerate(qualities)]
    r = E.summarise([Problem("", "1", task)], samples or [sample(0, "1", True)], max(1, len(qualities)))
    r.pass1 = pass1
    return r


def test_places_taken_in_turn_change_no_response(tiny_model, world_tokenizer, monkeypatch):
    tiny_model.cfg.eos_ids = tuple(range(0, tiny_model.cfg.vocab_size, 12))
    problems, bars = World(0, WorldConfig()).problems("arithmetic", 8, "test"), []
    own = E.EvalConfig(k=4, max_new_tokens=20, rows=32)
    at_once = E.evaluate(tiny_model, world_tokenizer, problems, own)
    monkeypatch.setitem(E.TURNS, "cpu", 16)
    monkeypatch.setattr(E, "tqdm", lambda **k: bars.append(tqdm(**k)) or bars[-1])
    in_turn = E.evaluate(tiny_model, world_tokenizer, problems, replace(own, rows=5))
    assert at_once.samples == in_turn.samples and len({s["length"] for s in in_turn.samples}) > 5
    assert (bars[0].n, bars[0].total) == (32, 32)


@pytest.mark.parametrize("argv,message", [
    (("--rescore", "r.jsonl", "--out", "r.jsonl"), "ends in .json"), (("--rescore", "r.jsonl", "--k", "2"), "--rescore takes problems"), (("m", "--limit", "3"), "--limit belongs to"),
    (("m", "--data", "d.jsonl", "--task", "code"), "--task to the world's"), (("m", "--world.tasks", "general"), "no rule can check"), (("m", "--eval.top_p", "0"), "--eval.top_p is 0")])
def test_flags_that_would_do_nothing_or_harm_are_refused(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "eval", *argv)
    assert status == 2 and message in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_win_rate_and_general_figures_by_hand():
    ours, theirs = report("general", 0, (2, 1, 0, 2)), report("general", 0, (1, 1, 2, 0))
    assert E.win_rate(ours, theirs) == pytest.approx((1 + 0.5 + 0 + 1) / 4) and E.win_rate(ours, ours) == 0.5
    assert ours.helpfulness == pytest.approx(5 / 8) and ours.declined_harmful == 1.0 and ours.declined_harmless == pytest.approx(1 / 3)
    assert report("logic", 0.5).helpfulness is None


def test_stage_figures_and_table_by_hand():
    reports = {name: {"arithmetic": report("arithmetic", a), "logic": report("logic", b), "general": report("general", 0, q)}
               for name, a, b, q in (("base", 0.1, 0.3, (0, 1)), ("one", 0.5, 0.7, (1, 1)), ("two", 0.9, 0.7, (1, 0)))}
    figures = E.stage_figures(reports)
    assert [figures[n]["reasoning"] for n in figures] == pytest.approx([0.2, 0.6, 0.8])
    assert [figures[n]["wins_over_base"] for n in figures] == [0.5, 0.75, 0.5]
    assert [figures[n]["wins_over_previous"] for n in figures] == [0.5, 0.75, 0.25]
    table = E.stage_table(figures)
    assert "| two | 90.0 ± 0.0, 100.0 | 70.0 ± 0.0, 100.0 | 80.0 |" in table and len({line.count("|") for line in table.split("\n")}) == 1
    assert "wins" not in E.stage_table(figures, columns=E.REASONING_COLUMNS)


def test_saved_responses_are_judged_again_without_the_model(tiny_model, world_tokenizer, tmp_path):
    sets = [World(0, WorldConfig()).problems(task, 4, "test") for task in ("arithmetic", "countdown", "code", "general")]
    rows = [("m", E.evaluate(tiny_model, world_tokenizer, problems, E.EvalConfig(k=2, max_new_tokens=20))) for problems in sets]
    path = str(tmp_path / "eval.jsonl")
    E.save_samples(rows, sets, path)
    again = E.rescore(path)
    assert [name for name, _ in again] == ["m"] * 4 and [r for _, r in again] == [r for _, r in rows]
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    for line in lines:  # the right answer, and a wrong verdict that was saved
        line |= {"response": f"<think>a</think><answer>{line['question']['answer']}</answer>", "correct": False}
    with open(path, "w") as f:
        f.write("\n".join(map(json.dumps, lines)))
    assert [r.pass1 for _, r in E.rescore(path)] == [1.0, 1.0, 1.0, 0.0]
    for bad in ("{}", "[", json.dumps(lines[0] | {"question": {"prompt": 1}})):
        with open(path, "w") as f:
            f.write(json.dumps(lines[0]) + "\n" + bad)
        with pytest.raises(ValueError, match="line 2: not a response"):
            E.rescore(path)
    for text, message in (("", "holds no examples"), (json.dumps(lines[0]), r"1 responses of m to 'arithmetic' are not 2 a problem")):
        with open(path, "w") as f:
            f.write(text)
        with pytest.raises(ValueError, match=message):
            E.rescore(path)


def test_programs_are_judged_and_judged_again(tmp_path, monkeypatch, capsys):
    prompt = "def f(x):\n    'twice'\n"
    p = Problem(prompt, prompt + "    return 2 * x\n", "humaneval", tests={"entry": "f", "prelude": prompt, "asserts": "def check(candidate):\n    assert candidate(2) == 4\ncheck(f)"})
    texts = ["    return 2 * x\n", "    return x\n"]
    rows = [("m", E.summarise([p], E.score_texts([p], [(0, text, 5, True) for text in texts]), 2))]
    assert (rows[0][1].pass1, rows[0][1].passk, rows[0][1].cons) == (0.5, 1.0, 1.0)  # of two programs the first is the consensus
    path = str(tmp_path / "eval.jsonl")
    E.save_samples(rows, [[p]], path)
    assert E.rescore(path) == rows
    status, out, _ = run(monkeypatch, capsys, "eval", "--rescore", path, "--out", str(tmp_path / "e.json"))
    assert status == 0 and "programs run apart" in out and "50.0" in out
