import pytest

import rejection
import rewards as rw
from data import REASONING, Problem, World, WorldConfig
from eval import Config

EN = Problem("Tom has 3, finds 4. How many now?", "7", "arithmetic", "en")
ORDER = "A is taller than C. C is shorter than A. B is taller than A. Who is tallest?"
PUZZLE = Problem(ORDER, "B", "logic", "en", {"order": ["B", "A", "C"]})
PAIRS = Problem("Make 54 from 6, 9.", "6*9", "countdown", "en", {})
ZH = Problem("小明有3个,捡到4。现在几个?", "7", "arithmetic", "zh")


FILTERED = [
    (EN, "3 at first, finds 4 makes 7", "7", True, ""),
    (EN, "3 at first, finds 4 makes 8", "8", False, "wrong"),
    (EN, "3 at first, 捡到4就是7", "7", True, "language"),
    (ZH, "起初3,捡到4就是7", "7", True, ""),
    (ZH, "起初3,finds 4 makes 7", "7", True, "language"),
    (EN, "3 at first, finds 4 makes 7, finds 4 makes 7", "7", True, "repetition"),
    (EN, "3 low,4 high,3 low,4 high,3 low", "7", True, "repetition"),
    (EN, "7-3=4 with 4,2,4 low,7-4=3 with 3,2,3 low,7+3 with 4,2,2 low", "7", True, ""),
    (PUZZLE, "A over C so A>C,B over A so A>B wait no B>A>C", "B", True, ""),
    (PUZZLE, "A over C so A>C,B over A so B>C>A", "B", True, "unfounded"),
    (PUZZLE, "A over C so A>C", "B", True, "unfounded"),
    (PUZZLE, "maybe B", "B", True, "unfounded"),
    (EN, "so Tom,Ben,Mia wait no Mia,Ben,Tom", "7", True, ""),
    (
        Problem("", "def f(x): return max(x+3,5)*2", "code"),
        "first x+3,then max(x+3,5),then max(x+3,5)*2",
        "def f(x): return max(x + 3, 5) * 2",
        True,
        "",
    ),
    (
        Problem("", "def f(x): return max(x+8+9,4)", "code"),
        "first x+8,then x+8+9,then max(x+8+9,+9",
        "def f(x): return max(x+8+9,4)",
        True,
        "unfounded",
    ),
    (PAIRS, "let me try 9+1=10 want 54 low,again 6*9=54 want 54 yes", "6*9", True, ""),
    (PAIRS, "let me try 9+1=10 want 54 low,again 6*9=54 want 54 yes", "9*6", True, "unfounded"),
    (
        Problem("", "def f(x): return max(x+3,2)", "code", "zh"),
        "先x+3,再max(x+3,2)",
        "def f(x): return max(x+3,2)",
        True,
        "",
    ),
]


@pytest.mark.parametrize("problem, thinking, answer, right, why", FILTERED)
def test_the_filters(problem, thinking, answer, right, why):
    text = f"<think>{thinking}</think><answer>{answer}</answer>"
    assert rejection.flaw(problem, text, right) == why


def test_a_reply_without_an_answer_is_no_fault():
    """Two reward models may like it."""
    asked = Problem("Hi", "Hello.", "general", "en", {"kind": "who"})
    assert rejection.flaw(asked, "<think>hm</think><answer>.</answer>", True) == ""


def test_the_form_filter():
    assert rejection.flaw(EN, "<think>3 at first, finds 4 makes 7</think>7", True) == "form"
    assert rejection.flaw(EN, "<answer>7</answer><think>3</think>", True) == "form"


def test_the_readable_form_keeps_thinking_and_answer():
    text = rejection.readable(EN, "<think> 3 at first</think><answer>7</answer>")
    assert text == "<think>3 at first</think><answer>The answer is 7.</answer>"
    world = World(0, WorldConfig())
    for task in REASONING:
        for p in world.problems(task, 20):
            text = rejection.readable(p, f"<think>x</think><answer>{p.answer}</answer>")
            assert rw.score(p, text, rw.RewardConfig(format=2.0))["total"] == 3.0
            assert rejection.readable(p, text) == text


def answered_with(samples, monkeypatch):
    """No model is opened; these are its responses."""
    report = type("Report", (), {"samples": samples})
    monkeypatch.setattr(rejection.evaluation.GPT, "from_pretrained", lambda *a, **k: None)
    monkeypatch.setattr(rejection.evaluation.tokenizers, "load", lambda *a, **k: None)
    monkeypatch.setattr(rejection.evaluation, "evaluate", lambda *a: report)


def test_harvest_counts_and_caps(tmp_path, monkeypatch, capsys):
    def said(thinking, answer):
        return f"<think>{thinking}</think><answer>{answer}</answer>"

    first = ("a b", 7), ("a c", 7), ("a b", 7), ("a d", 7), ("a b", 8), ("五", 7)
    second = ("中 cc", 7), ("中", 7), ("中,中", 7), ("国", 8), ("国", 8)
    responses = [*(said(*x) for x in first), "7", *(said(*x) for x in second)]
    samples = []
    for i, r in enumerate(responses):
        samples.append({"problem": i // 6, "response": r, "correct": "8" not in r})
    answered_with(samples, monkeypatch)
    path = str(tmp_path / "rows.jsonl")
    rows = rejection.harvest("zero", [EN, ZH], 6, 2, Config(), path, 0)
    kept = [(EN, responses[0]), (EN, responses[1]), (ZH, responses[8])]
    assert [r["response"] for r in rows] == [rejection.readable(p, text) for p, text in kept]
    out = capsys.readouterr().out
    counts = "12 responses,3 wrong,1 form,2 language,1 repetition,1 same as another,3 kept"
    for part in (*counts.split(","), "1 enough of this problem"):
        assert part in out, out
    monkeypatch.setattr(rejection.evaluation, "evaluate", None)
    assert rejection.harvest("zero", [EN, ZH], 6, 2, Config(), path, 0) == rows  # already sampled
    answered_with(samples[4:5] * 12, monkeypatch)
    with pytest.raises(ValueError, match="clean enough"):
        rejection.harvest("zero", [EN, ZH], 6, 2, Config(), str(tmp_path / "none.jsonl"), 0)


def test_general_requests_are_chosen_by_the_judge(tmp_path, monkeypatch):
    p = Problem("Hi", "Hello.", "general", "en", {"kind": "who"})
    texts = [f"<think>x</think><answer>{a}</answer>" for a in "abc"]
    samples = [{"problem": 0, "response": text, "correct": False} for text in texts]
    answered_with(samples, monkeypatch)
    pairs = (0.9, 0.9), (0.9, 0.4), (0.2, 0.9)
    scores = [{"helpful": helpful, "safe": safe} for helpful, safe in pairs]
    path, judge = str(tmp_path / "rows.jsonl"), lambda problems, texts: scores
    rows = rejection.harvest("r1", [p], 3, 3, Config(), path, 0, judge)
    assert [r["response"] for r in rows] == texts[:1]
