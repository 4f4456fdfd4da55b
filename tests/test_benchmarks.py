"""The layouts of benchmark files, line by line, and the judge of programs."""

import json
import os

import pytest
from conftest import SHARED_DATA

import rewards as rw
from data import load_jsonl
from tasks.base import PROGRAMS, Problem
from tasks.benchmarks import INSTRUCTIONS, instruction, judge, parse_row

HUMANEVAL = {
    "task_id": "X/0",
    "prompt": "def f(x):\n    'twice'\n",
    "entry_point": "f",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2",
}
MBPP = {
    "task_id": 1,
    "text": "Write twice.",
    "code": "import math\ndef g(): pass\ndef f(x): return 2 * x",
    "test_list": ["assert int(f(1)) == 2", "assert f(math.pi) > 6"],
    "test_setup_code": "one = 1",
}


def write(tmp_path, *rows) -> str:
    path = tmp_path / "f.jsonl"
    lines = (r if isinstance(r, str) else json.dumps(r) for r in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_layouts(tmp_path):
    path = write(
        tmp_path,
        {"question": "1+1?", "answer": "It is <<1+1=2>>2.\n#### 2"},
        "",
        {"problem": "x?", "answer": "\\frac12", "level": 3},
        {"numbers": [1, 2], "target": 3},
        {"prompt": "p", "answer": "a", "task": "arithmetic", "language": "zh"},
    )
    countdown = (
        "Using the numbers [1, 2], create an equation that equals 3. "
        "Use each number once, with + - * / and parentheses."
    )
    assert load_jsonl(path) == [
        Problem("1+1?", "2", "math"),
        Problem("x?", "\\frac12", "math"),
        Problem(countdown, "", "countdown", "en", {"numbers": [1, 2], "target": 3}),
        Problem("p", "a", "arithmetic", "zh"),
    ]
    assert len(load_jsonl(path, limit=2)) == 2


def test_layouts_of_programs(tmp_path):
    sanitised = {k: v for k, v in MBPP.items() if k not in ("text", "test_setup_code")}
    sanitised |= {"prompt": "P", "test_imports": ["import re"]}
    problems = load_jsonl(write(tmp_path, HUMANEVAL, MBPP, sanitised))
    h, m, s = problems
    prompt, asserts = HUMANEVAL["prompt"], HUMANEVAL["test"] + "\ncheck(f)"
    tests = {"entry": "f", "prelude": prompt, "asserts": asserts}
    solution = prompt + HUMANEVAL["canonical_solution"]
    assert h == Problem(prompt, solution, "humaneval", "en", tests)
    asserts = "assert int(f(1)) == 2\nassert f(math.pi) > 6"
    tests = {"entry": "f", "prelude": "import math\none = 1", "asserts": asserts}
    assert (m.task, m.answer, m.tests) == ("mbpp", MBPP["code"], tests)
    assert m.prompt.endswith(f"Write twice. Your code should pass these tests:\n\n{asserts}")
    assert s.prompt == m.prompt.replace("Write twice.", "P")
    assert s.tests["prelude"] == "import math\nimport re\n"
    assert rw.verdicts(problems, [p.answer for p in problems]) == [True] * 3
    assert rw.verdicts(problems, ["def f(x): return 3"] * 3) == [False] * 3
    assert judge([], []) == [] and judge([h], [h.answer]) == [True]


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "p", "answer": 33},
        {"problem": "p", "answer": "033"},
        {"ID": "2024-I-1", "Problem": "p", "Answer": 33},
        {"question": "p", "answer": 33},
    ],
)
def test_layouts_of_aime(tmp_path, row):
    (p,) = load_jsonl(write(tmp_path, row))
    assert (p.prompt, p.task) == ("p", "math")
    assert rw.correct(p, "33") and not rw.correct(p, "34")


def test_instructions():
    assert set(INSTRUCTIONS) == {"math", "countdown", *PROGRAMS}
    math = Problem("{1}?", "", "math")
    assert instruction(math, False) == "{1}?"
    assert instruction(math, True).startswith("{1}?\n\n")
    assert instruction(math, True).endswith("put your final answer within \\boxed{}.")
    assert instruction(Problem("{1}?", "", "logic"), True) == "{1}?"
    text = instruction(Problem("def f(x):\n", "", "humaneval"), True)
    assert text.endswith(" in a ```python block.\n\n```python\ndef f(x):\n```")


@pytest.mark.parametrize(
    "row,message",
    [
        ("{", "line 2: not JSON"),
        ("[" * 100000, "line 2"),
        ("1" * 5000, "line 2: not JSON"),
        ("[1]", "line 2: a list"),
        ({"text": "x"}, r"line 2: fields \['text'\] are not prompt, answer, task, nor .*GSM8K"),
        ({"question": "q", "answer": "7"}, "#### number"),
        ({"question": "q", "answer": "#### "}, "#### number"),
        ({"question": 1, "answer": "#### 1"}, "'question' should be"),
        ({"problem": " ", "answer": "1"}, "'problem' should be"),
        ({"problem": "p", "answer": 1.5}, "'answer' should be"),
        ({"problem": "p", "answer": True}, "'answer' should be"),
        ({"prompt": "p", "answer": "a", "task": "math", "language": "fr"}, "'language' should be"),
        ({"prompt": "p", "answer": "a", "task": ["math"]}, "'task' should be"),
        ({"prompt": "p", "answer": "a", "task": "mbpp"}, "needs more than an answer"),
        ({"prompt": "p", "answer": "a", "task": "code"}, "needs more than an answer"),
        ({"prompt": "p", "answer": "a", "task": "general"}, "needs more than an answer"),
        ({"prompt": "p", "answer": "a", "task": "countdown"}, "'numbers' and 'target'"),
        ({"numbers": [1, "2"], "target": 3}, "'numbers' should be"),
        ({"numbers": [], "target": 3}, "'numbers' should be"),
        ({"numbers": [-3, 5], "target": 2}, "'numbers' should be"),
        (
            HUMANEVAL | {"test": "assert f(1) == 2"},
            "2: 'test' does not define the function 'check'",
        ),
        (HUMANEVAL | {"entry_point": "g"}, "'prompt' does not define the function 'g'"),
        (HUMANEVAL | {"prompt": "def f(x):"}, "'prompt' is not Python"),
        (HUMANEVAL | {"test": 1}, "'test' should be"),
        (MBPP | {"test_list": "assert f(1)"}, "'test_list' and"),
        ({k: v for k, v in MBPP.items() if k != "code"}, "nor those of"),
        (MBPP | {"test_list": []}, "calls no function"),
        (MBPP | {"test_list": ["assert h(1) == 2"]}, "calls no function"),
        (MBPP | {"code": "def"}, "'code' is not Python"),
        (MBPP | {"test_list": ["f(1)) == 2"]}, "'test_list' is not Python"),
        (MBPP | {"test_setup_code": None}, "'test_setup_code' a text"),
        (MBPP | {"test_setup_code": "("}, "'test_setup_code' is not"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message) as e:
        load_jsonl(write(tmp_path, {"problem": "x?", "answer": "1"}, row))
    assert str(e.value).endswith(": fix or remove the line")
    with pytest.raises(ValueError, match=r"^line 2: "):
        parse_row(row if isinstance(row, str) else json.dumps(row), "line 2")


@pytest.mark.skipif(not os.path.isdir(SHARED_DATA), reason="the benchmark files are not here")
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize(
    "name,rows",
    [
        ("gsm8k_train", 7473),
        ("gsm8k_test", 1319),
        ("math500", 500),
        ("countdown_test", 500),
        ("humaneval", 164),
        ("mbpp", 974),
    ],
)
def test_real_files(name, rows):
    assert len(load_jsonl(os.path.join(SHARED_DATA, name + ".jsonl"))) == rows
