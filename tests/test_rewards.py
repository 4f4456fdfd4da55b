"""Rewards, by worked cases."""

import json
import os
import random
import string
import types
from dataclasses import dataclass

import pytest
from conftest import run

import rewards as rw
from data import World, WorldConfig
from rewards import RewardConfig, extract_answer, format_reward, score
from tasks import TASKS
from tasks.base import PROGRAMS, Problem, by_text
from tasks.benchmarks import parse_row

GOOD = "<think>3+4 makes 7</think><answer>7</answer>"


@pytest.mark.parametrize(
    "text,ok",
    [
        (GOOD, 1),
        ("<think>a\nb</think>\n<answer>7\n</answer>", 1),
        (f"  {GOOD}\n", 1),
        ("<think></think><answer>7</answer>", 1),
        ("", 0),
        ("7", 0),
        ("<answer>7</answer>", 0),
        ("<think>x</think>7", 0),
        (GOOD + " ok", 0),
        ("so " + GOOD, 0),
        (GOOD + GOOD, 0),
        ("<think>x</think>and<answer>7</answer>", 0),
        ("<think>x<think>y</think><answer>7</answer>", 0),
        ("<answer>7</answer><think>x</think>", 0),
        ("<think>x</think><answer>7</answer></answer>", 0),
        ("<think>x</think><answer> </answer>", 0),
        ("<think>x</think><answer>7", 0),
        ("<think><answer>7</answer></think><answer>7</answer>", 0),
        ("<Think>x</Think><Answer>7</Answer>", 0),
    ],
)
def test_format(text, ok):
    assert format_reward(text) == ok


# ------------------------------------------------------------------------------ accuracy

BODY, WHOLE = "    return 2 * x\n", "def f(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "text,program",
    [
        (BODY, "P" + BODY),
        (BODY + "\ndef g():", "P" + BODY),
        (BODY + "\nprint(f(1))", "P" + BODY),
        (BODY + "\n# so", "P" + BODY),
        (BODY + "    # in it\n", "P" + BODY + "    # in it\n"),
        (f"Here:\n```python\n{WHOLE}```\nIt doubles.", "P\n" + WHOLE),
        (f"<think>```python\nno\n```</think>```Python \n{WHOLE}```", "P\n" + WHOLE),
        (f"```python\nno\n```\nBetter:\n```py\n{WHOLE}```\n```\n2\n```", "P\n" + WHOLE),
        (f"```bash\nls\n```\nthen\n```python\n{WHOLE}```", "P\n" + WHOLE),
        (f"```\n{WHOLE}```", "P\n" + WHOLE),
        (f"```python\n{WHOLE}", "P\n" + WHOLE),
        (f"<think>a</think><answer>{WHOLE}</answer>", "P\n" + WHOLE),
        (f"<think>a</think><answer>```python\n{WHOLE}```</answer>", "P\n" + WHOLE),
        ("", "P"),
        (f"<think>```python\n{WHOLE}```", "P"),
    ],
)
def test_programs_in_responses(text, program):
    assert rw.answer_of(Problem("P", "", "humaneval"), text) == program
    whole = program.removeprefix("P\n") if program.startswith("P\n") else None
    assert rw.answer_of(Problem("P", "", "mbpp"), text) == whole


@pytest.mark.parametrize(
    "text,answer",
    [
        ("so $x$ is \\(12\\).", "12"),
        ("\\boxed{3} and then 4", "3"),
        ("<answer>He has 12 apples left.</answer>", "12"),
        ("<answer>at least 12</answer>", "at least 12"),
        ("答：12", "12"),
        ("<think>7</think>", None),
        ("<think>7", None),
        ("", None),
    ],
)
def test_a_benchmark_s_answer_need_not_be_marked(text, answer):
    assert rw.answer_of(Problem("", "12", "math"), text) == answer
    assert rw.answer_of(Problem("", "12", "arithmetic"), text) == extract_answer(text)


def test_programs_are_scored():
    prompt = "def helper(x):\n    return x + x\n\ndef f(x):\n    'twice'\n"
    asserts = (
        "def check(candidate):\n    for i in range(3): assert candidate(i) == helper(i)\ncheck(f)"
    )
    tests = {"entry": "f", "prelude": prompt, "asserts": asserts}
    p = Problem(prompt, "", "humaneval", tests=tests)
    texts = [
        "    return helper(x)\n",
        "<think>a</think><answer>def f(x): return 2 * x</answer>",
        "```python\ndef f(x):\n    return helper(x)\n```",
        "    return x\n",
        "import os; os._exit(0)",
        "```python\ndef helper(x): return 0\ndef f(x): return 0\n```",
    ]
    scores = rw.score_all([p] * len(texts), texts, RewardConfig(format=4.0))
    assert [s["accuracy"] for s in scores] == [1, 1, 1, 0, 0, 0] and scores[1]["total"] == 5.0


def test_verdicts_of_a_mixed_batch():
    """Each answer is judged by its task, whatever stands beside it; no answer is never right."""
    world = World(0, WorldConfig())
    problems = [world.problem(task, i) for i in range(3) for task in TASKS]
    problems += [Problem("", "1/2", "math"), Problem("", "1/2", "a task of a file")]
    answers = [p.answer for p in problems]
    assert rw.verdicts(problems, answers) == [p.task != "general" for p in problems]
    answers[::2] = [None] * len(answers[::2])
    right = [p.task != "general" and a is not None for p, a in zip(problems, answers)]
    assert rw.verdicts(problems, answers) == right and rw.verdicts([], []) == []
    assert rw.correct(problems[-1], "0.5") and not rw.correct(problems[-1], "0.6")


def test_which_answers_are_compared_by_value():
    tasks = [*"arithmetic countdown code logic general math chess".split(), *PROGRAMS]
    votes = ["3", "2", "2.0"]
    by_value = [task for task in tasks if rw.majority(Problem("", "", task), votes) == "2"]
    assert by_value == ["arithmetic", "logic", "math", "chess"]


def test_a_sum_is_to_be_worked_out():
    p = Problem("", "16", "arithmetic")
    for right in ("16", "16.", "16 apples", "１６", "$16$", "16.0", "10+6=16", "\\boxed{16}"):
        assert rw.correct(p, right), right
    for copied in ("4-3+8+5+2", "10+6", "10 + 6", "32/2", "4*4", "4^2", "$10+6$", "17-1"):
        assert not rw.correct(p, copied), copied
    assert rw.correct(Problem("", "1/2", "arithmetic"), "1/2")  # of a file


def test_a_new_task_and_a_new_reward(monkeypatch):
    """A task needs a judge in TASKS, a reward a function in REWARDS and a weight in the config."""
    judge = types.SimpleNamespace(judge=lambda problems, answers: [a == "up" for a in answers])
    monkeypatch.setitem(TASKS, "next", judge)
    monkeypatch.setitem(rw.REWARDS, "short", lambda problem, text: float(len(text) < 60))
    with pytest.raises(ValueError, match="the reward 'short' has no weight: add it"):
        RewardConfig(format=2.0)

    @dataclass
    class Weights(RewardConfig):
        short: float = 0.5

    cfg = Weights(format=2.0)
    p = Problem("?", "", "next")
    assert rw.majority(p, ["3", "2", "2.0"]) == "3"
    expected = {"accuracy": 1.0, "format": 1.0, "language": 1.0, "short": 1.0, "total": 3.5}
    assert_has(score(p, "<think>so</think><answer>up</answer>", cfg), expected)


def test_a_task_that_is_judged_by_text(monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "order", types.SimpleNamespace(judge=by_text))
    for answer, accuracy in (("b > a", 1), ("a>b", 0)):
        words = ("The answer is b>a.", "--answer", answer, "--task", "order")
        status, out, _ = run(monkeypatch, capsys, "rewards", *words)
        assert status == 0 and f"answer: b>a\naccuracy: {accuracy} (weight 1)\n" in out


WRONG = [
    ("3 --answer 3 --task chess", "argument --task: invalid choice: 'chess'"),
    ("3 --answer 3 --task code", "invalid choice: 'code'"),
    (
        "3 --answer 3 --task countdown",
        "--answer: it needs the right answer; for Countdown 3,4,2=14",
    ),
    ("3 --anwser 3", "the nearest is '--answer'"),
]


@pytest.mark.parametrize("words, message", WRONG)
def test_mistakes(words, message, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, "rewards", *words.split())
    assert status == 2 and message in err and err.count("\n") == 1


def test_countdown_s_answer_may_have_spaces(monkeypatch, capsys):
    for answer in ("3,4,2=14", " 3, 4,2 = 14"):
        words = ("<answer>(3+4)*2</answer>", "--answer", answer)
        assert "accuracy: 1 " in run(monkeypatch, capsys, "rewards", *words)[1]
    status, _, err = run(monkeypatch, capsys, "rewards", "3", "--answer", " ")
    assert status == 2 and "it needs the right answer" in err


# ------------------------------------------------------------------------------ language, total


@pytest.mark.parametrize(
    "text,language,share",
    [
        ("first buys then", "en", 1),
        ("first 买 then", "en", 2 / 3),
        ("买了3", "zh", 1),
        ("买 it", "zh", 0.5),
        ("3+4=7", "zh", 1),
        ("", "en", 1),
        ("<think>买</think>", "zh", 1),
    ],
)
def test_language(text, language, share):
    assert rw.language_consistency(text, language) == pytest.approx(share)


def test_reflection_words():
    assert rw.reflection_words("9 wait no, 8. Check: butter is not but.") == 4
    assert rw.reflection_words("等等不对,应该是8") == 2


def assert_has(scores: dict[str, float], expected: dict[str, float]) -> None:
    """These rewards are as expected; others, of weight 0, may have been added."""
    assert {name: scores.get(name) for name in expected} == expected


def test_score_and_weights():
    p, values = (
        Problem("3+4?", "7", "arithmetic"),
        {"accuracy": 1.0, "format": 1.0, "language": 1.0},
    )
    assert_has(score(p, GOOD, RewardConfig(format=2.0)), values | {"total": 3.0})
    values |= {"format": 0.0, "total": 1.0}
    assert_has(score(p, "The answer is 7.", RewardConfig()), values)
    assert score(p, GOOD.replace("7", "8"), RewardConfig(format=0.5))["total"] == 0.5
    c = Problem("", "", "countdown", tests={"numbers": [3, 4], "target": 7})
    text = "<think>3+4</think><answer>4+3</answer>"
    assert score(c, text, RewardConfig(format=2.0))["total"] == 3.0


def test_any_text_gets_a_score():
    rng = random.Random(0)
    pieces = "<think> </think> <answer> </answer> \\boxed{ } { #### ( ) + / * 0 9 1/ , . 等等 𝟗 ²"
    pieces = [*pieces.split(), "#### ", "the answer is", "答案是", "\n", "\ud800", "\0", " "]
    pieces += list(string.printable)
    countdown = Problem("", "", "countdown", tests={"numbers": [9, 9, 1], "target": 7})
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 30)))
        for p in (Problem("", "7", "math"), countdown):
            assert 0 <= score(p, text, RewardConfig())["total"] <= 2.0
        rw.language_consistency(text, "en")
        rw.reflection_words(text)


def test_a_general_request_has_no_accuracy():
    p = World(0, WorldConfig()).problem("general", 0)
    text, cfg = (
        f"<think>x</think><answer>{p.answer}</answer>",
        RewardConfig(format=2.0, language=1.0),
    )
    found = score(p, text, cfg)
    assert_has(found, {"format": 1.0, "language": 1.0, "total": 3.0})
    assert "accuracy" not in found


RESPONSES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "responses.jsonl")


def test_responses_as_models_write_them():
    """A gold answer as in a file, a response, and whether a person would call it right."""
    with open(RESPONSES, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    wrong = []
    for row in rows:
        said, right = row.pop("said"), row.pop("right")
        p = parse_row(json.dumps({"question": "q"} | row), "line")
        if rw.correct(p, rw.answer_of(p, said)) != right:
            wrong.append((row["answer"], said, right))
    assert len(rows) > 130 and not wrong
