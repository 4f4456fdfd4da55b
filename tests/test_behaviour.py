"""What responses did, by rule, and where Zero's gain comes from."""

import copy
import doctest
import json
import random

import pytest
from conftest import run

import decompose
from data import TASKS, World, WorldConfig
from eval import Report, begin
from tasks import behaviour as rules
from tasks.base import Problem
from tasks.behaviour import behaviour, blind_hits, checking_pays, summary

SUM = Problem("", "9", "arithmetic", tests={"start": 5, "steps": [("finds", 3), ("sells", -2)]})
SUM.tests["steps"].append(("gets", 3))
DOWN = Problem("", "(3+4)*2", "countdown", tests={"numbers": [3, 4, 2], "target": 14})


def test_doctests():
    assert doctest.testmod(rules).failed == 0


def test_pieces_of_a_response_that_caught_errors():
    text = (
        "5 at first, finds 3 makes 9 check 9-3=6 no again makes 8,卖掉2就是4检查4+2=6不对再算就是6."
    )
    pieces = rules.caught("Tom has 5 eggs.", text)
    assert "".join(pieces) == text and [p[:5] for p in pieces[1::2]] == ["finds", "卖掉2就是"]
    for nothing in ("maybe 9", "finds 3 makes 8 check 8-3=5 no again makes 7"):  # 8 was right
        assert rules.caught("小明有5个", nothing) == [nothing]
    assert rules.caught("how many?", text) == [text]


def test_steps_errors_and_checks_of_sums():
    text = "5 at first, finds 3 makes 8, sells 2 makes 6, gets 3 makes 9"
    assert behaviour(SUM, text) == dict(steps=3, errors=0, checks=0, found=0, righted=0)
    unchecked = "5 at first, finds 3 makes 9 no again makes 8"  # no check has said so
    assert behaviour(SUM, unchecked) == dict(steps=1, errors=1, checks=0, found=0, righted=0)
    below = "5 at first, sells 8 makes -3 check -3+8=5 yes"
    below += ", gets 3 makes 1 check 1-3=-2 no again makes 0"
    assert behaviour(SUM, below) == dict(steps=2, errors=1, checks=2, found=1, righted=1)
    # an error counts where it is made; what follows from it is right
    text = "起初5,捡到3就是7,卖掉2就是5, gets 3 makes 9"
    assert behaviour(SUM, text) == dict(steps=3, errors=2, checks=0, found=0, righted=0)
    text = "5 at first, finds 3 makes 9 check 9-3=6 no again makes 8,卖掉2就是6检查6+2=8对"
    assert behaviour(SUM, text) == dict(steps=2, errors=1, checks=2, found=1, righted=1)
    text = "5 at first, finds 3 makes 1 check 1-3=-2 no again makes 7,卖掉2就是6检查6+2=8对"
    assert behaviour(SUM, text) == dict(steps=2, errors=2, checks=2, found=1, righted=0)
    assert behaviour(SUM, "maybe 9")["steps"] == 0
    # a step that is left out, and one that is said again, are no wrong calculations
    text = "5 at first, finds 3 makes 8, gets 3 makes 11, gets 3 makes 14, gets 3 makes 1"
    assert behaviour(SUM, text) == dict(steps=4, errors=1, checks=0, found=0, righted=0)
    assert behaviour(SUM, "finds 3 makes " + "1" * 5000)["errors"] == 1


def did(text: str) -> dict:
    return {k: v for k, v in behaviour(DOWN, text).items() if v}


def test_tries_at_countdown():
    forward = "let me try (3*4)+2=12+2=14 want 14 yes"
    assert did(forward) == dict(steps=1, hits=1)
    text = "试试(3+4)+2=7+2=9要14小了,再试(3+4)+2=7+2=9要14小了,再试(3+4)*2=7*2=13要14小了,算了"
    assert did(text) == dict(steps=3, repeated=1, hits=1, errors=1)  # the last one is not seen
    assert did("let me try (3*2)+4=6+4=14 want 14 yes") == dict(steps=1, errors=1)  # 10
    assert did("maybe (3+4)*2") == {} and did("") == {}


def test_blind_tries():
    p = Problem("Use 2,2 to make 4.", "", "countdown", tests={"numbers": [2, 2], "target": 4})
    assert blind_hits(p, 1, 2000) == pytest.approx(1 / 2, abs=0.05)  # 2+2, 2*2, not 2-2, 2/2


def test_summary_of_behaviour():
    def sample(right, finished=True, **counts):
        zeros = dict.fromkeys(("steps", "hits", "checks"), 0)
        return {"correct": right, "finished": finished, "did": zeros | counts, "problem": 0}

    samples = [sample(True, steps=3, hits=1, checks=1), sample(False, steps=1), sample(False)]
    samples += [sample(True), sample(True, False, steps=9)]
    found = summary(samples)
    assert found["reasoned"] == pytest.approx(3 / 5)
    assert found["right_reasoned"] == found["right_blurted"] == 0.5
    assert found["did"] == {
        "steps": 2.0, "hits": 0.5, "checks": 0.5, "hits_a_try": 0.25,
        "right_if_checked": 1.0, "right_if_not": 0.0, "checking_pays": 1.0,
    }  # fmt: skip


def test_whether_checking_pays_is_asked_at_equal_difficulty():
    def samples(problem, *right):
        return [{"problem": problem, "correct": r} for r in right]

    # the easy problem is checked more often, and checks change nothing there
    checked = samples(0, True, True, True, True) + samples(1, True, False)
    rest = samples(0, True) + samples(1, False, False, False, False) + samples(2, True)
    assert checking_pays(checked, rest) == pytest.approx((0 + 1 / 2) / 2)
    assert checking_pays(checked, []) is None


def report(*problems: list[tuple[bool, bool]]) -> Report:
    """Of responses (right, ended) to each problem."""
    samples = [dict(correct=c, finished=e) for responses in problems for c, e in responses]
    zeros = "pass1_se cons passk format language_consistency mean_length clipped reflection_words"
    right = sum(s["correct"] for s in samples) / len(samples)
    rest = dict.fromkeys(zeros.split(), 0.0)
    return Report("countdown", len(problems), len(problems[0]), right, samples=samples, **rest)


def test_the_parts_add_up_to_the_gain():
    wrong, right, cut = (False, True), (True, True), (False, False)
    base, zero = report([wrong] * 4, [wrong] * 4), report([right] * 4, [right] * 3 + [wrong])
    helped = {1.0: report([right, wrong, cut, cut], [cut] * 4)}  # 1/8; of those that end 1/4
    helped |= {0.6: report([right, right, wrong, cut], [cut] * 4), 0.0: report([cut], [cut])}
    parts = decompose.gains(base, helped, zero)
    expected = {"mode": 1 / 8, "finishing": 1 / 8, "sharpening": 1 / 12, "rest": 7 / 8 - 1 / 3}
    assert parts == pytest.approx(expected) and sum(parts.values()) == pytest.approx(7 / 8)


def test_hits_are_compared_with_blind_tries_at_the_same_problems():
    samples = [{"problem": i, "finished": True, "did": {"steps": n}} for i, n in ((0, 1), (1, 9))]
    samples.append({"problem": 0, "finished": False, "did": {"steps": 99}})
    r = report([(True, True)])
    r.samples = samples
    assert decompose.if_blind(r, [0.5, 0.1]) == pytest.approx((0.5 + 9 * 0.1) / 10)


def test_how_reasoning_begins(world_tokenizer):
    """Its tokens are those with which the corpus's texts begin, but for changes of language."""
    for task in ("arithmetic", "countdown"):
        world, as_in_texts = World(0, WorldConfig(tasks=(task,), mixed=0.0)), 0
        for i in range(100):
            p = world.draw(random.Random(i), task)
            thought, _ = TASKS[task].reasoned(random.Random(i), p, world.cfg)
            ids, text = begin(p, world_tokenizer), world_tokenizer.encode(f"<think>{thought}", True)
            as_in_texts += text[: len(ids)] == ids
        assert as_in_texts > 95, task
    for p in (Problem("", "", "logic"), Problem("", "", "math"), Problem("", "2", "arithmetic")):
        assert begin(p, world_tokenizer) == world_tokenizer.encode("<think>", True)
    opened = copy.copy(world_tokenizer)
    opened.opened = "<think>"  # by the template
    assert world_tokenizer.decode(begin(SUM, opened)) == "5 at first"


def test_a_base_and_its_zero_are_decomposed(
    tiny_model, world_tokenizer, tmp_path, monkeypatch, capsys
):
    for name in ("base", "zero"):
        tiny_model.save_pretrained(str(tmp_path / name))
        world_tokenizer.save(str(tmp_path / name))
    folders = [str(tmp_path / "base"), str(tmp_path / "zero")]
    small = "--eval.problems 2 --eval.k 2 --eval.max_new_tokens 4 --out".split()
    status, out, _ = run(monkeypatch, capsys, "decompose", *folders, *small, str(tmp_path / "out"))
    assert status == 0 and "| base begun, T = 0.6 | countdown  |" in out
    assert (
        "arithmetic: +0.0 points = mode" in out and "a random expression hits the target in" in out
    )
    content = json.loads((tmp_path / "out" / "gain.json").read_text())
    assert set(content["gains"]["countdown"]) == set(decompose.PARTS)
    assert (tmp_path / "out" / "gain.png").read_bytes()[:4] == b"\x89PNG"
    wrong = [(["--eval.temperature", "0.5"], "answer at temperature 1")]
    wrong += [(["--task", "chess"], "chess"), (["--eval.begun", "true"], "temperature 1")]
    wrong += [(["--eval.top_p", "0.5"], "leave out"), (["--task", "general"], "no rule judges")]
    for flags, told in wrong:
        status, _, err = run(monkeypatch, capsys, "decompose", *folders, *flags)
        assert status == 2 and told in err and err.count("\n") == 1
