"""The layouts of benchmark files, line by line, and the judge of programs."""

import gzip
import json
import os
import sys
import time
import types

import pytest
from conftest import SHARED_DATA

import rewards as rw
from data import load_jsonl
from tasks import benchmarks, sandbox
from tasks.base import PROGRAMS, Problem
from tasks.benchmarks import INSTRUCTIONS, instruction, judge, parse_row, program_in
from tasks.choice import choice_in

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
CASES = [["1 2\n", "3\n"], ["2\n2\n", "4\n"]]
TESTS = [{"input": i, "output": o, "testtype": "stdin"} for i, o in CASES]
APPS = {
    "problem_id": 0,
    "question": "Print the sum.",
    "input_output": json.dumps({"inputs": [i for i, _ in CASES], "outputs": [o for _, o in CASES]}),
    "starter_code": "",
}
LIVECODEBENCH = {
    "question_title": "Sum",
    "question_content": "Print the sum.",
    "starter_code": "",
    "public_test_cases": json.dumps(TESTS[:1]),
    "private_test_cases": json.dumps(TESTS[1:]),
}
CODEFORCES = {
    "id": "1/A",
    "time_limit": 2.0,
    "description": "Print the sum.",
    "input_format": "Two numbers.",
    "output_format": "One number.",
    "interaction_format": None,
    "note": "It is easy.",
    "examples": [{"input": "1 2\n", "output": "3\n"}],
    "input_mode": "stdio",
    "official_tests": [{"input": i, "output": o} for i, o in CASES],
    "generated_checker": None,
}
VERL = {"prompt": [{"role": "user", "content": "Print the sum."}], "ability": "code"}
ASKED = [{"role": "user", "content": "1+1?"}]
SYSTEM = [{"role": "system", "content": "Think."}]
MMLU = {
    "question": "Largest?",
    "choices": ["1 m", "4 km", "3 m", "2 m"],
    "answer": 1,
    "subject": "x",
}
ARC, TEXTS = {"question": "Largest?"}, MMLU["choices"]
GPQA = {"Question": "Largest?", "Correct Answer": "4 km", "Incorrect Answer 1": "1 m"}
GPQA |= {"Incorrect Answer 2": "3 m", "Incorrect Answer 3": 2.0, "Record ID": "r"}


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


SUM = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"


@pytest.mark.parametrize(
    ("row", "tests"),
    [
        (APPS, {"cases": CASES}),
        (APPS | {"input_output": json.loads(APPS["input_output"])}, {"cases": CASES}),
        (
            APPS | {"input_output": {"inputs": [["2", "3"]], "outputs": [["5"]]}, "time_limit": 3},
            {"cases": [["2\n3", "5"]], "seconds": 3},
        ),
        (LIVECODEBENCH, {"cases": CASES}),
        (LIVECODEBENCH | {"public_test_cases": TESTS, "private_test_cases": ""}, {"cases": CASES}),
        (CODEFORCES, {"cases": CASES, "seconds": 2.0}),
        (CODEFORCES | {"official_tests": None, "time_limit": None}, {"cases": CASES[:1]}),
        (
            APPS | {"time_limit": "2.0 seconds", "memory_limit": "1024.0 megabytes"},
            {"cases": CASES, "seconds": 2, "memory_mb": 1024},
        ),
        (CODEFORCES | {"memory_limit": 256.0}, {"cases": CASES, "seconds": 2.0}),
        (
            APPS | {"input_output": {"fn_name": None, "inputs": ["2 3"], "outputs": [5]}},
            {"cases": [["2 3", "5"]]},
        ),
        (VERL | {"reward_model": {"ground_truth": APPS["input_output"]}}, {"cases": CASES}),
        (VERL | {"reward_model": {"ground_truth": json.dumps(TESTS)}}, {"cases": CASES}),
        ({"problem": "Print the sum.", "tests": TESTS}, {"cases": CASES}),
    ],
)
def test_layouts_of_programs_that_read_stdin(tmp_path, row, tests):
    (p,) = load_jsonl(write(tmp_path, row))
    assert (p.task, p.answer, p.tests) == ("stdin", "", tests)
    assert p.prompt.startswith("Print the sum.")
    answers = [SUM, "print(3)", "n = int(input())\nprint(n)", None]
    only_three = p.tests["cases"] == CASES[:1]
    assert rw.verdicts([p] * 4, answers) == [True, only_three, False, False]


def test_a_prompt_of_codeforces(tmp_path):
    (p,) = load_jsonl(write(tmp_path, CODEFORCES))
    assert p.prompt.split("\n\n") == [
        "Print the sum.",
        "Input\nTwo numbers.",
        "Output\nOne number.",
        "Example input\n1 2",
        "Example output\n3",
        "Note\nIt is easy.",
    ]


def test_compressed_tests_are_passed_over_and_this_is_said_once(tmp_path, capsys):
    benchmarks.say_once.cache_clear()
    packed = LIVECODEBENCH | {"private_test_cases": "eJxrYJmqyQABPVKpS6YUBiZm6iQAY"}
    problems = load_jsonl(write(tmp_path, packed, packed))
    assert [p.tests["cases"] for p in problems] == [CASES[:1]] * 2
    assert capsys.readouterr().out.count("only public_test_cases are used") == 1


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"Here:\n```python\n{SUM}\n```\nFor 1 2 it prints\n```\n3\n```", SUM + "\n"),
        (f"```\n{SUM}\n```\nFor example:\n```\n3\n```", SUM + "\n"),
        (f"```python\nprint(0)\n```\nBetter:\n```python\n{SUM}\n```", SUM + "\n"),
        (f"```python\n{SUM}\n```\nThen\n```python\nprint(\n```", SUM + "\n"),
        ("1. So:\n   ```python\n   n = 1\n   print(n)\n   ```", "n = 1\nprint(n)\n"),
        ("<think>```python\nprint(0)\n```</think><answer>print(1)</answer>", "print(1)"),
        (f"<think>a</think>{SUM}", SUM),
        (
            "n=int(input())\nfor i in range(n):\n\tprint(i)",
            "n=int(input())\nfor i in range(n):\n\tprint(i)",
        ),
        (
            "Here it is:\n\nn = int(input())\nprint(n)\n\nThis prints n.",
            "\nn = int(input())\nprint(n)\n",
        ),
        (
            "It is:\n\na,b=map(int,input().split())\nprint(a+b)\n\nSo a sum.",
            "\na,b=map(int,input().split())\nprint(a+b)\n",
        ),
        (f"```python\n{SUM}\n```\nA test:\n```python\nassert 1 < 2\nprint(3)\n```", SUM + "\n"),
        (
            "```python\ndef f(x):\n    return x\n```\n```python\nn = 5\nprint(n)\n```\nThen\n"
            "```python\nprint(f(input()))\n```",
            "def f(x):\n    return x\n\nprint(f(input()))\n",
        ),
        (
            "```python\nn = input()\n```\nAll:\n```python\nn = input()\nprint(n)\n```",
            "n = input()\nprint(n)\n",
        ),
        ("I do not know.", None),
        ("<think>print(1)", None),
        ("", None),
    ],
)
def test_the_last_block_that_is_python_and_prints(text, program):
    p = Problem("", "", "stdin", tests={"cases": CASES})
    assert rw.answer_of(p, text) == program


def test_a_response_with_a_program_earns_its_reward(tmp_path):
    (p,) = load_jsonl(write(tmp_path, CODEFORCES))
    texts = [f"<think>a</think><answer>```python\n{x}\n```</answer>" for x in (SUM, "print(3)")]
    scores = rw.score_all([p, p], texts, rw.RewardConfig())
    assert [(s["accuracy"], s["format"]) for s in scores] == [(1, 1), (0, 1)]


@pytest.mark.parametrize("mode", ["strict", "weak"])
def test_the_sandbox_is_checked_before_the_work(monkeypatch, mode):
    monkeypatch.setattr(sandbox, "weak", False)
    monkeypatch.setattr(sandbox, "resource", None)  # as on Windows
    sandbox.layers.cache_clear()
    try:
        benchmarks.check_sandbox(["math", "countdown"], mode)
        for task in ("stdin", "mbpp", "code"):
            if mode == "strict":
                with pytest.raises(ValueError, match=r"cannot limit .*: .* add --sandbox weak"):
                    benchmarks.check_sandbox(["math", task], mode)
            else:
                benchmarks.check_sandbox(["math", task], mode)
                assert "programs run apart, with a time limit, an" in sandbox.protection()
    finally:
        sandbox.layers.cache_clear()


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


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "1+1?", "answer": "2"}, "2"),
        ({"question": "1+1?", "answer": 142.0}, "142"),
        ({"problem": "1+1?", "answer": 0.25}, "0.25"),
        (
            {
                "problem": "1+1?",
                "solution": r"At first \boxed{3}. Then it is $\boxed{\frac{1}{2}}$.",
            },
            r"\frac{1}{2}",
        ),
        ({"problem": "1+1?", "solution": "$2$"}, "$2$"),
        ({"problem": "1+1?", "answer": "7", "solution": r"\boxed{8}"}, "7"),
        ({"prompt": "1+1?", "answer": "2"}, "2"),
        ({"prompt": "1+1?", "solution": "First 1, then another. #### 2"}, "2"),
        ({"prompt": ASKED, "solution": r"\boxed{2}"}, "2"),
        ({"prompt": ASKED, "answer": 2}, "2"),
        ({"messages": ASKED, "answer": "2"}, "2"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "3"}], "solution": "2"}, "2"),
        (
            {
                "data_source": "x",
                "prompt": ASKED,
                "reward_model": {"style": "rule", "ground_truth": "2"},
            },
            "2",
        ),
        ({"prompt": ASKED, "reward_model": {"ground_truth": 2.0}, "extra_info": {}}, "2"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": ["34"]}}, "34"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": '["34"]'}}, "34"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": '"34"'}}, "34"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": "[1, 2]"}}, "[1, 2]"),  # an interval
        ({"problem": "1+1?", "solution": r"We see that it is $\boxed 2$."}, "2"),
        ({"problem": "1+1?", "solution": r"It is \boxed2, after all of this work."}, "2"),
        ({"problem": "1+1?", "solution": r"It is \fbox 1,000. That is all of it."}, "1,000"),
        ({"problem": "1+1?", "solution": "2", "answer": None, "choices": None}, "2"),
        ({"problem": "1+1?", "solution": r"\boxed{2}", "answer": ""}, "2"),
        ({"question": "1+1?", "answer": None, "answer_number": 2, "numbers": None}, "2"),
        ({"question": "1+1?", "solution": ["It is so."], "final_answer": ["2"]}, "2"),
        ({"question": "1+1?", "golden": "2"}, "2"),
        ({"question": "1+1?", "final_ans": "2"}, "2"),
        ({"query": "1+1?", "response": "First.\n#### 2\nThe answer is: 2"}, "2"),
    ],
)
def test_layouts_with_one_answer(tmp_path, row, answer):
    assert load_jsonl(write(tmp_path, row)) == [Problem("1+1?", answer, "math")]


@pytest.mark.parametrize("name", "body passage context article text".split())
def test_what_a_question_is_about_stands_before_it(tmp_path, name):
    row = {name: "Seven apples. ", "question": "How many?"}
    rows = row | {"answer": 7}, row | {"answer": "B", "options": ["6", "7"]}
    free, choice = load_jsonl(write(tmp_path, *rows))
    assert free == Problem("Seven apples.\n\nHow many?", "7", "math")
    assert choice.prompt.startswith("Seven apples.\n\nHow many?\n\nA) 6\n")
    repeated = row | {name: "Seven apples. How many? #### 7", "answer": 7}
    assert load_jsonl(write(tmp_path, repeated))[0].prompt == "How many?"  # it has the answer too
    signed = {name: "x = -5", "question": "Is x > 5?", "answer": "no"}
    assert load_jsonl(write(tmp_path, signed))[0].prompt == "x = -5\n\nIs x > 5?"
    spaced = row | {name: "[INST] Seven apples. how MANY ? [/INST] 7", "answer": 7}
    assert load_jsonl(write(tmp_path, spaced))[0].prompt == "How many?"


def test_messages_and_countdown_of_others(tmp_path):
    tests = {"numbers": [1, 2], "target": 3}
    rows = [
        {"prompt": [*SYSTEM, *ASKED], "answer": "2"},
        {"nums": [1, 2], "target": 3},
        {"prompt": ASKED, "reward_model": {"ground_truth": tests}},  # TinyZero
    ]
    chat, plain, verl = load_jsonl(write(tmp_path, *rows))
    assert chat == Problem("Think.\n\n1+1?", "2", "math")
    assert plain.prompt.startswith("Using the numbers [1, 2], create an equation that equals 3.")
    assert (plain.task, plain.tests) == ("countdown", tests)
    assert verl == Problem("1+1?", "", "countdown", "en", tests)
    assert rw.correct(plain, "1+2") and rw.correct(verl, "2+1") and not rw.correct(plain, "3")


def test_text_that_is_not_plain_utf8(tmp_path):
    path = tmp_path / "f.jsonl"
    text = r'{"question": "a\ud800b \ud83d\ude00", "answer": "\udc00"}' + "\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    expected = [Problem("a\ufffdb 😀", "\ufffd", "math")]
    assert load_jsonl(str(path)) == expected
    zipped = tmp_path / "f.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert load_jsonl(str(zipped)) == expected
    zipped.write_bytes(zipped.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"cannot read .*f.jsonl.gz' \(\w"):
        load_jsonl(str(zipped))


ROWS = [{"question": f"q{i}", "answer": i} for i in range(3)]


@pytest.mark.parametrize(
    "text",
    [json.dumps(ROWS), json.dumps(ROWS, indent=2), json.dumps({"data": ROWS})]
    + ["\r\n".join(map(json.dumps, ROWS))],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_containers(tmp_path, text, pack):
    path = tmp_path / "f.json"  # what it holds decides, not its name
    path.write_bytes(pack(text.encode()))
    expected = [Problem(f"q{i}", str(i), "math") for i in range(3)]
    assert load_jsonl(str(path)) == expected
    assert load_jsonl(str(path), limit=1) == expected[:1]


def test_a_bad_row_of_an_array_is_named(tmp_path):
    with pytest.raises(ValueError, match="line 2: a list, not an object"):
        load_jsonl(write(tmp_path, [ROWS[0], [1]]))


def test_parquet(tmp_path, monkeypatch):
    rows = [{"question": b"1+1?", "answer": 2.0, "choices": None}, {"question": "q", "answer": " "}]
    table = types.SimpleNamespace(to_pylist=lambda: rows)
    parquet = types.SimpleNamespace(read_table=lambda path: table)
    monkeypatch.setitem(sys.modules, "pyarrow", types.SimpleNamespace(parquet=parquet))
    assert load_jsonl("f.parquet", limit=1) == [Problem("1+1?", "2", "math")]
    with pytest.raises(ValueError, match=r"^f.parquet, line 2: 'answer' should be"):
        load_jsonl("f.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # not installed
    with pytest.raises(ValueError, match="needs pyarrow: pip install pyarrow"):
        load_jsonl("f.parquet")


# ---------------------------------------------------------------------------- multiple choice


@pytest.mark.parametrize(
    ("row", "letter"),
    [
        (MMLU, "B"),
        (MMLU | {"answer": "b"}, "B"),
        (MMLU | {"answer": "4 km"}, "B"),
        (MMLU | {"answer": "1"}, "B"),
        (MMLU | {"choices": ["3", "1", "2"], "answer": "1"}, "B"),  # a text before an index
        (MMLU | {"choices": [3, 1, 2], "answer": 1}, "B"),
        ({"question": "Largest?", "options": ["1", "4", "3", "2", "0"], "answer": "B"}, "B"),
        (ARC | {"choices": {"text": TEXTS, "label": [*"ABCD"]}, "answerKey": "B"}, "B"),
        (ARC | {"choices": {"text": TEXTS, "label": [*"1234"]}, "answerKey": "2"}, "B"),
        (ARC | {"options": {"A": "1 m", "B": "4 km"}, "answer": "4 km", "answer_idx": "B"}, "B"),
        (ARC | {"options": {"A": "1 m", "B": "4 km", "C": None}, "answer": "B"}, "B"),
        (ARC | {"options": TEXTS * 2 + ["5 m", "6 m"], "answer": "J", "answer_index": 9}, "J"),
        (ARC | {"options": ["A)1 m", "B)4 km"], "correct": "B"}, "B"),
        (ARC | {"options": ["(A) 1 m", "(B) 4 km"], "label": "B", "answer": None}, "B"),
        (MMLU | {"answer": "(B)"}, "B"),
        (MMLU | {"answer": "B."}, "B"),
        (MMLU | {"answer": "B) 4 km"}, "B"),
        (MMLU | {"answer": [1]}, "B"),
        (
            {"id": 0, "question": "哪个?", "A": "1", "B": "4", "C": "3", "D": "2", "answer": "B"},
            "B",
        ),
    ],
)
def test_layouts_of_multiple_choice(tmp_path, row, letter):
    (p,) = load_jsonl(write(tmp_path, row))
    first = p.tests["choices"][0]
    assert (p.task, p.answer) == ("multiple_choice", letter) and "A" not in first
    assert p.prompt.startswith(f"{row['question']}\n\nA) {first}\nB) {p.tests['choices'][1]}\n")
    assert p.prompt.endswith("\n\nAnswer with the letter of the right choice.")
    assert instruction(p, True).endswith("within \\boxed{}.")
    assert rw.verdicts([p] * 3, [letter, "A", None]) == [True, False, False]


def test_choices_are_shuffled_by_their_content(tmp_path):
    rows = [GPQA | {"Question": f"Question {i}?"} for i in range(40)]
    problems = load_jsonl(write(tmp_path, *rows))
    assert problems == load_jsonl(write(tmp_path, *rows))
    assert {p.answer for p in problems} == set("ABCD")
    for p in problems:
        assert p.tests["choices"]["ABCD".index(p.answer)] == "4 km"
        assert sorted(p.tests["choices"]) == ["1 m", "2", "3 m", "4 km"]
        assert f"\n{p.answer}) 4 km\n" in p.prompt


CHOICES = Problem(
    "", "C", "multiple_choice", "en", {"choices": ["Rome", "12 m", "Paris, 1900", "D major"]}
)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("(C)", "C"),
        ("C.", "C"),
        ("c", "C"),
        (r"so \boxed{C}.", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{\textbf{C. Paris, 1900}}", "C"),
        ("**C**", "C"),
        ("A is too old. So it must be **C**.", "C"),
        ("**C) Paris, 1900**", "C"),
        ("The answer is C", "C"),
        ("The correct answer is (C) because A and B are wrong.", "C"),
        ("The correct option is C.", "C"),
        ("Answer: C", "C"),
        ("ANSWER: $C$", "C"),
        ("答案是C。", "C"),
        ("综上，故选C。", "C"),
        ("<think>A? No: B.</think><answer>C</answer>", "C"),
        ("<think>A</think>\nOption A is wrong.\n\nC. Paris, 1900", "C"),
        ("The answer is Paris, 1900.", "C"),
        ("C is correct.", "C"),
        ("Option C is right, for it has a year.", "C"),
        ("C because it has a year.", "C"),
        ("选项C正确", "C"),
        ("C\n\nExplanation: Rome is old, so A is wrong.", "C"),
        ("C) Paris, 1900\n\nBecause it has a year.", "C"),
        ("【答案】C\n【解析】因为A错误", "C"),
        ("A) Rome\nB) 12 m\nNobody can tell.", None),
        ("A) Rome\nB) 12 m\nC) Paris, 1900\nD) D major", None),
        ("A) Rome\nB) 12 m\nC) Paris, 1900\nD) D major\nC", "C"),
        ("(A) is incorrect.", None),
        ("The answer cannot be C.", None),
        ("答案不是C", None),
        ("不选C。", None),
        ("Therefore, (C) is correct.", "C"),
        ("So option C is the right one.", "C"),
        ("The correct option is **C**: it has a year.", "C"),
        ("The correct option is (B) or (C)", None),
        ("Neither A nor C is correct.", None),
        ("The answer is C, not A.", "C"),
        ("I'd go with C.", "C"),
        ("因此选择 C。", "C"),
        ("C选项正确", "C"),
        ("因此，C是正确答案。", "C"),
        ("综上，应选C项。", "C"),
        ("【答案】C", "C"),
        ("答えはCです。", "C"),
        ("The answer is Ｃ", "C"),
        ("答案：（Ｃ）", "C"),
        ('```json\n{"answer": "C"}\n```', "C"),
        ("The answer is 12 m (B).", "B"),
        ("Answer: **B** (12 m)", "B"),
        ("12 m is the answer.", "B"),
        ("A is wrong.", None),
        ("It is not A.", None),
        ("The answer is (B) or (C)", None),
        (r"\boxed{12\text{ m}}", "B"),
        (r"\boxed{d major}", "D"),
        ("The answer is 12", None),
        (r"\boxed{1900}", None),
        (r"\boxed{A, C}", None),
        ("A and C", None),
        ("The answer is E", None),
        ("The capital is lovely.", None),
        ("A lovely town.", None),
        ("A: incorrect\nB: incorrect\nC: correct\nD: incorrect", None),
        ("B) 12 m is long\nC) Paris, 19", None),  # cut off
        ("A) no\nC) yes\nThe answer is C.", "C"),
        ("All but C", None),
        ("The answer is anything but C.", None),
        ("Eliminate: C", None),
        ("Wrong: C", None),
        ("B、C都对", None),
        ("选C，不选B", "C"),
        ("<think>It is C", None),
        ("", None),
    ],
)
def test_letters_of_choices(text, letter):
    assert choice_in(CHOICES, text) == rw.answer_of(CHOICES, text) == letter
    assert rw.score(CHOICES, text, rw.RewardConfig())["accuracy"] == (letter == "C")


@pytest.mark.parametrize("text", ["\\(", "(", ":", "is the ", "A\n", "选项"])
def test_long_responses_are_read_quickly(text):
    start = time.monotonic()
    choice_in(CHOICES, text * 20_000)
    assert time.monotonic() - start < 5


# ---------------------------------------------------------------------- programs in responses

TWICE = "def f(x):\n    return 2 * x"
USE = "print(f(3))"
QUOTING = 'def f(x):\n    """So:\n    ```\n    f(3)\n    ```\n    """\n    return 2 * x'
LISTED = "1. So:\n\n   {}\n   def f(x):\n       return 2 * x\n   {}\n2. Done."


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{TWICE}\n```\nFor example:\n```python\n{USE}\n```",
        f"```\n{TWICE}\n```\nFor example:\n```python\n{USE}\n```",
        TWICE,
        f"Here it is:\n\n{TWICE}\n\nThis works because it doubles.",
        f"import math\n\n{TWICE}",
        f"{TWICE}\n```",
        f"{TWICE}\n```\nFor example:\n```python\n{USE}\n```",
        f"```python3\n{TWICE}\n```",
        f"```{{python}}\n{TWICE}\n```",
        f'```python title="f.py"\n{TWICE}\n```',
        f"~~~python\n{TWICE}\n~~~\nThat is all.",
        f"```text\n{TWICE}\n```",
        LISTED.format("```python", "```"),
        LISTED.format("~~~python", "~~~"),
        f"<think>```python\ndef f(x): return 0\n```</think>\n{TWICE}",
        "```python\nf = lambda x: 2 * x\n```\n```python\nprint(f(3) == 6)\n```",
        f"```python\n{QUOTING}\n```\nThat is all.",
        "```python\ndef g(x):\n    return 2 * x\n```\nand\n```python\ndef f(x): return g(x)\n```",
        "```python\ndef f(x): return h(x)\n```\nWrong:\n```python\ndef f(x): return 2 * x\n```",
    ],
)
def test_the_block_that_defines_the_function(tmp_path, text):
    problems = load_jsonl(write(tmp_path, HUMANEVAL, MBPP))
    programs = [program_in(p, text) for p in problems]
    assert programs[0] == f"{HUMANEVAL['prompt']}\n{programs[1]}" and USE not in programs[1]
    assert rw.verdicts(problems, programs) == [True, True]


@pytest.mark.parametrize(
    "after", ["", "\n```", "\n```\nThis works.", "\n\ndef f(x):\n    return 0"]
)
def test_a_body_continues_the_prompt(tmp_path, after):
    (p,) = load_jsonl(write(tmp_path, HUMANEVAL))
    program = program_in(p, f"    return 2 * x{after}")
    assert program.rstrip() == HUMANEVAL["prompt"] + "    return 2 * x"


@pytest.mark.parametrize(
    "body",
    ["return 2 * x", " return 2 * x", "\treturn 2 * x", "x += x\n    return x"]
    + ["```python\nreturn 2 * x\n```", "```python\n    return 2 * x\n```"],
)
def test_a_body_is_indented_as_the_prompt_asks(tmp_path, body):
    (p,) = load_jsonl(write(tmp_path, HUMANEVAL))
    assert rw.correct(p, program_in(p, body))


def test_instructions():
    assert set(INSTRUCTIONS) == {"math", "countdown", "multiple_choice", *PROGRAMS}
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
        (
            '{"question": "q", "answer": ' + "1" * 5000 + "}",
            r"line 2: .* the limit \(4300 digits\)",
        ),
        ({"question": "q", "answer": "#### "}, "#### number"),
        ({"question": "q", "answer": "so we add one " * 30}, "#### number"),
        ({"problem": "q", "solution": "Clearly we see that it is so."}, "no .*boxed{answer}"),
        ({"prompt": [{"role": "user"}], "answer": "7"}, "'prompt' should be a text, or messages"),
        ({"prompt": [], "answer": "7"}, "'prompt' should be a text, or messages"),
        ({"prompt": ASKED + ASKED, "answer": "7"}, "'prompt' should be a text, or messages"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": [7, 8]}}, "'answer' should be"),
        ({"prompt": ASKED, "reward_model": {"ground_truth": '{"target": "x"}'}}, "nor those of"),
        (
            ARC | {"choices": {"text": TEXTS, "label": [*"1234"]}, "answerKey": "5"},
            "'answerkey' sh",
        ),
        (ARC | {"A": "1 m", "B": "4 km", "answer": ""}, "'answer' should be"),
        (MMLU | {"answer": 4}, "'answer' should be a choice's letter"),
        (MMLU | {"answer": "E"}, "'answer' should be a choice's letter"),
        (MMLU | {"choices": ["1"]}, "a list of 2 to 10 texts"),
        (MMLU | {"choices": ["1", None]}, "'choices' should be"),
        ({k: v for k, v in GPQA.items() if k != "Incorrect Answer 3"}, "'choices' should be"),
        ({"question": 1, "answer": "#### 1"}, "'question' should be"),
        ({"problem": " ", "answer": "1"}, "'problem' should be"),
        ('{"problem": "p", "answer": 1e999}', "'answer' should be"),
        ({"problem": "p", "answer": True}, "'answer' should be"),
        ({"prompt": "p", "answer": "a", "task": "math", "language": "fr"}, "'language' should be"),
        ({"prompt": "p", "answer": "a", "task": ["math"]}, "'task' should be"),
        ({"prompt": "p", "answer": "a", "task": "mbpp"}, "needs more than an answer"),
        ({"prompt": "p", "answer": "a", "task": "stdin"}, "needs more than an answer"),
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
        (MBPP | {"test_setup_code": 1}, "'test_setup_code' a text"),
        (MBPP | {"test_setup_code": "("}, "'test_setup_code' is not"),
        (APPS | {"input_output": ""}, "it has no tests"),
        (APPS | {"input_output": {"inputs": "1", "outputs": "1"}}, "it has no tests"),
        (
            APPS | {"input_output": {"inputs": ["1"], "outputs": []}},
            "a test should have an 'input'",
        ),
        (
            APPS | {"input_output": {"fn_name": "f", "inputs": [[1]], "outputs": [2]}},
            "it asks for a function",
        ),
        (
            LIVECODEBENCH
            | {"public_test_cases": [{"input": "1", "output": "2", "testtype": "functional"}]},
            "it asks for a function: only programs that read stdin",
        ),
        (LIVECODEBENCH | {"public_test_cases": "[1]"}, "a test should have an 'input'"),
        (LIVECODEBENCH | {"question_content": ""}, "'question_content' should be"),
        (CODEFORCES | {"generated_checker": "x"}, "several outputs are right"),
        (CODEFORCES | {"interaction_format": "x"}, "it does not read stdin alone"),
        (CODEFORCES | {"input_mode": "file"}, "it does not read stdin alone"),
        (CODEFORCES | {"time_limit": "2 minutes"}, "'time_limit' should be a number"),
        (CODEFORCES | {"time_limit": 61}, "'time_limit' should be a number"),
        (CODEFORCES | {"examples": [], "official_tests": []}, "it has no tests"),
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
    [("gsm8k_train", 7473), ("gsm8k_test", 1319), ("math500", 500), ("countdown_test", 500)]
    + [("humaneval", 164), ("mbpp", 974)],
)
def test_real_files(name, rows):
    assert len(load_jsonl(os.path.join(SHARED_DATA, name + ".jsonl"))) == rows
