"""The world's texts and splits, and benchmark files."""

import copy
import json
import random
import re
from dataclasses import replace

import pytest
from conftest import run

import rewards as rw
from data import (
    REASONING,
    TASKS,
    Problem,
    World,
    WorldConfig,
    load_jsonl,
    prompt_ids,
    split_of,
)
from lib.errors import UserError
from tasks import general
from tasks.behaviour import behaviour, blind_hits
from tasks.benchmarks import instruction, parse_row

OPERATIONS = {
    "add": "add|加",
    "subtract": "subtract|减",
    "multiply": "multiply by|乘",
    "rest": "take the rest by|取余",
    "least": "take at least|至少取",
}


def integers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def read_back(prompt: str) -> str:
    """The key of a problem that rules can check, from nothing but its printed prompt."""
    numbers = integers(prompt)
    if prompt.startswith(("Use", "用")):
        return f"countdown {sorted(numbers[:-1])}"
    if prompt.startswith(("Write f", "写出f")):
        steps = []
        for said in re.findall("|".join(OPERATIONS.values()), prompt):
            steps += [name for name, pattern in OPERATIONS.items() if re.fullmatch(pattern, said)]
        return f"code {list(zip(steps, numbers, strict=True))}"
    if "taller" in prompt or "shorter" in prompt or "比" in prompt:
        fact = r"([A-J])(?: is |比)(taller than |shorter than )?([A-J])(高|矮)?[.。]"
        below = {}
        for a, english, b, chinese in re.findall(fact, prompt):
            taller, shorter = (a, b) if "taller" in english or chinese == "高" else (b, a)
            below[taller] = shorter
        order = [next(i for i in below if i not in below.values())]
        while order[-1] in below:
            order.append(below[order[-1]])
        return f"logic {order}"
    losing = r"loses|sells|gives|breaks|丢了|卖掉|送出|打破"
    verbs = re.findall(r",\s?([a-z]+|[\u4e00-\u9fff]+?) ?\d", prompt)
    signs = [-1 if re.fullmatch(losing, verb) else 1 for verb in verbs]
    changes = sorted(s * n for s, n in zip(signs, numbers[1:], strict=True))
    return f"arithmetic {numbers[0]} {changes}"


def test_no_held_out_problem_is_ever_trained_on():
    """Texts and RL prompts of several seeds, read back from what is printed, against dev and test.
    No text has an expression of held-out numbers either."""
    cfg = WorldConfig(tasks=REASONING)
    held_out = {"dev": set(), "test": set()}
    for split, found in held_out.items():
        for task in REASONING:
            found |= {World.key(p) for p in World(0, cfg).problems(task, 128, split)}
        assert len(found) > 200 and all(split_of(k) == split for k in found)
    assert not held_out["dev"] & held_out["test"]
    trained, expressions = set(), set()
    for seed in (0, 1, 2):
        world = World(seed, cfg)
        for prompt, text in map(world.text, range(5000)):
            trained.add(read_back(prompt))
            for expression in re.findall(r"[0-9()*/+-]+", text * prompt.startswith(("Use", "用"))):
                expressions.add(f"countdown {sorted(integers(expression))}")
        for task in REASONING:
            trained |= {read_back(world.problem(task, i).prompt) for i in range(1500)}
    assert len(trained) > 5000 and all(split_of(k) == "train" for k in trained)
    solved = {k for k in expressions if k.count(",") == 2}  # of three numbers
    assert len(solved) > 80 and all(split_of(k) == "train" for k in solved)


@pytest.mark.parametrize("task", REASONING)
def test_there_are_a_thousand_test_contents(task):
    """Different problems, whatever the language and the wording. Three numbers to 9 allow less."""
    world, least = World(0, WorldConfig()), 400 if task == "countdown" else 1000
    found = [world.problem(task, i, "test") for i in range(6000)]
    assert len({(World.key(p), p.tests.get("target")) for p in found}) >= least


def test_no_general_request_of_the_test_split_is_ever_trained_on():
    """In either language, with any greeting, as far as content can be held out (general.py)."""
    cfg = WorldConfig(tasks=("general",))
    world = World(0, cfg)
    test = world.problems("general", 128, "test")
    for p in test:
        if p.tests["kind"] in ("translate", "harmful", "harmless"):
            assert len(p.tests["content"]) == 3  # no greeting
    prompts, content = {p.prompt for p in test}, {World.key(p) for p in test}
    trained = [World(seed, cfg).problem("general", i) for seed in (0, 1) for i in range(3000)]
    assert len(test) > 100 and not prompts & {p.prompt for p in trained}
    assert not content & {World.key(p) for p in trained}
    assert not prompts & {world.text(i)[0] for i in range(3000)}
    wordings: dict[str, set] = {}
    for p in trained:
        wordings.setdefault(World.key(p), set()).add((p.language, p.prompt))
    most = 2 * 4 * (1 + len(general.ASKED))  # languages, greetings, forms that are asked for
    assert all(len(found) <= most for found in wordings.values())
    assert any(len(found) > 2 for found in wordings.values())


def test_the_key_is_what_the_prompt_says():
    world = World(3, WorldConfig())
    for task in REASONING:
        for p in world.problems(task, 100, "test"):
            assert read_back(p.prompt) == World.key(p)


def test_same_seed_same_world():
    a, b, c = World(0, WorldConfig()), World(0, WorldConfig()), World(1, WorldConfig())
    assert [a.text(i) for i in (5, 3, 900)] == [b.text(i) for i in (5, 3, 900)]
    expected = [b.problem("countdown", i) for i in range(10, 15)]
    assert a.problems("countdown", 5, start=10) == expected
    assert a.text(5) != c.text(5) and a.problem("arithmetic", 0) != c.problem("arithmetic", 0)


def test_evaluation_problems_are_distinct():
    for task in TASKS:
        prompts = [p.prompt for p in World(0, WorldConfig()).problems(task, 128, "test")]
        assert len(prompts) == len(set(prompts)) > 100


def proportions(cfg: WorldConfig, n: int = 1500) -> dict[str, float]:
    world = World(0, cfg)
    texts = [world.text(i) for i in range(n)]

    def share(test) -> float:
        return sum(test(prompt, text) for prompt, text in texts) / n

    def mixed(prompt: str, text: str) -> bool:
        language = "zh" if re.search(r"[\u4e00-\u9fff]", prompt) else "en"
        thought = rw.thinking(text).replace("def f(x): return", "")
        return rw.language_consistency(thought, language) < 1

    return {
        "blurted": share(lambda _, text: "maybe" in text or "大概" in text),
        "format": share(lambda _, text: rw.format_reward(text)),
        "mixed": share(mixed),
    }


def test_tasks_come_in_the_wanted_proportions():
    tasks = ("arithmetic", "countdown", "code", "logic")
    world = World(0, WorldConfig(tasks=tasks, arithmetic=2.0, logic=0.7, minor=0.5))
    kinds = [read_back(world.text(i)[0]).split()[0] for i in range(4200)]
    wanted = [2.0, 1.0, 0.5, 0.7]
    assert [kinds.count(k) / 1000 for k in tasks] == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("task", REASONING)
def test_proportions_are_those_of_the_config(task):
    cfg = WorldConfig(tasks=(task,), unfinished=0)
    s = proportions(replace(cfg, reasoned=0.4, tags=0.5, broken_tags=0.2, mixed=0.5))
    assert s["blurted"] == pytest.approx(0.6, abs=0.06)
    assert s["format"] == pytest.approx(0.4, abs=0.06) and 0.05 < s["mixed"] < 0.35
    none = proportions(replace(cfg, reasoned=1, tags=1, broken_tags=0, slip=0, mixed=0))
    assert none == {"blurted": 0, "format": 1, "mixed": 0}


def reasoned(task: str, count: int = 400, **ways) -> list[tuple]:
    """(problem, text, whether the answer is right, what the text did) of authors who reason."""
    cfg = WorldConfig(tasks=(task,), **ways)
    world, told = World(0, cfg), []
    for i in range(count):
        rng = random.Random(i)
        p = world.draw(rng, task, easy=True)
        told.append((p, *TASKS[task].reasoned(rng, p, cfg)))
    problems, texts, answers = zip(*told)
    right = TASKS[task].judge(list(problems), list(answers))
    return [(p, text, ok, behaviour(p, text)) for p, text, ok in zip(problems, texts, right)]


def test_in_sums_those_who_check_put_their_slips_right():
    for p, text, right, did in reasoned("arithmetic", slip=0.3, checked=1.0, mixed=0.3):
        assert right and did["checks"] == did["steps"] == len(p.tests["steps"])
        assert did["errors"] == did["found"] == did["righted"]
        assert ("no" in text or "不对" in text) == (did["errors"] > 0)
    errors = 0
    for _, text, right, did in reasoned("arithmetic", slip=0.3, checked=0.0):
        assert did["checks"] == did["found"] == 0 and "check" not in text
        assert right <= (did["errors"] != 1)  # two may cancel each other
        errors += did["errors"]
    assert errors > 100


def test_a_botched_check_finds_the_error_and_puts_another_in_its_place():
    found = reasoned("arithmetic", slip=0.5, checked=1.0, forgets=1.0, botched=1.0)
    for _, text, _, did in found:
        assert did["errors"] == did["found"] and did["righted"] == 0
        for value, again in re.findall(r"(\d+) check \S+ no again makes (\d+)", text):
            assert value != again
    assert sum(did["errors"] for *_, did in found) > 100
    half = [did for *_, did in reasoned("arithmetic", checked=1.0, forgets=1.0, botched=0.5)]
    righted = sum(did["righted"] for did in half) / sum(did["found"] for did in half)
    assert righted == pytest.approx(0.5, abs=0.05)
    unchecked = [reasoned("arithmetic", checked=0.0, botched=b) for b in (0.0, 1.0)]
    assert unchecked[0] == unchecked[1]  # it speaks of checks alone


def test_most_carries_are_forgotten_and_only_a_check_finds_them():
    unchecked = reasoned("arithmetic", slip=0.0, checked=0.0)
    assert sum(right for *_, right, _ in unchecked) / len(unchecked) < 0.5
    carries = sum(did["errors"] for *_, did in unchecked)
    always = reasoned("arithmetic", slip=0.0, checked=0.0, forgets=1.0)
    assert carries / sum(did["errors"] for *_, did in always) == pytest.approx(0.9, abs=0.05)
    assert all(right for *_, right, _ in reasoned("arithmetic", checked=1.0, forgets=1.0))


def test_countdown_is_searched_until_patience_ends():
    patience = (2, 5)
    found = reasoned("countdown", mixed=0.3, slip=0.0, patience=patience)
    for _, text, right, did in found:
        assert did["steps"] <= 5
        assert did["errors"] == 0 and did["hits"] == right
        gave_up = text.endswith(("give up", "算了"))
        assert right != gave_up and (not gave_up or did["steps"] in patience)
    assert 0.1 < sum(right for *_, right, _ in found) / len(found) < 0.9
    assert sum(did["repeated"] for *_, did in found) < 10
    rate = sum(did["hits"] for *_, did in found) / sum(did["steps"] for *_, did in found)
    blind = sum(blind_hits(p, 1) for p, *_ in found) / len(found)
    assert rate == pytest.approx(blind, abs=0.03)


@pytest.mark.parametrize("task", ["code", "logic"])
def test_programmers_and_reasoners_who_check(task):
    doubts = "wait no|等等不对"
    careful = reasoned(task, 80, slip=0.3, checked=1.0, mixed=0.3)
    assert all(right for *_, right, _ in careful)
    assert sum(bool(re.search(doubts, text)) for _, text, *_ in careful) > 10
    careless = reasoned(task, 80, slip=0.3, checked=0.0, mixed=0.3)
    assert sum(right for *_, right, _ in careless) < 72
    assert not any(re.search(doubts, text) for _, text, *_ in careless)
    for p, text, *_ in (careful + careless) * (task == "logic"):
        assert re.findall("[A-J>]{3,}", text)[-1].split(">") == p.tests["order"]


def test_wrong_settings():
    with pytest.raises(ValueError, match="chess"):
        World(0, WorldConfig(tasks=("chess",)))
    with pytest.raises(ValueError, match="level"):
        World(0, WorldConfig(level=9))


# ------------------------------------------------------------------------------ benchmark files


def test_a_task_whose_content_never_changes_is_refused(monkeypatch):
    monkeypatch.setattr(TASKS["logic"], "content", lambda problem: "logic")
    with pytest.raises(ValueError, match=r"'logic' makes no problem of the (test|train) split"):
        for split in ("train", "test"):
            World(0, WorldConfig()).problem("logic", 0, split)


def test_bad_files(tmp_path):
    path = tmp_path / "f.jsonl"
    with pytest.raises(ValueError, match="cannot read"):
        load_jsonl(str(path))
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no problems"):
        load_jsonl(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_jsonl(str(path))


def test_what_a_file_is_understood_as(monkeypatch, capsys, tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"problem": "1+1?", "answer": "2"}\n' * 3)
    status, out, _ = run(monkeypatch, capsys, "data", str(path), "--count", "2")
    assert status == 0 and out.startswith("3 problems; the first 2:\n[math, en] 1+1?\n    -> 2\n")
    status, out, _ = run(monkeypatch, capsys, "data", "--level", "2", "--count", "3")
    assert status == 0 and World(0, WorldConfig(level=2)).text(2)[1] in out
    status, _, err = run(monkeypatch, capsys, "data", "--level", "4")
    assert status == 2 and "level is 4" in err


def test_the_prompt_of_a_model(world_tokenizer):
    chat = copy.copy(world_tokenizer)
    chat.chat = True
    code = Problem("def f(x):\n", "", "humaneval")
    mbpp, math = Problem("{1}?", "", "mbpp"), Problem("{1}?", "", "math")
    # nothing around it
    assert world_tokenizer.decode(prompt_ids(code, world_tokenizer)) == "def f(x):\n"
    base = copy.copy(world_tokenizer)
    base.bos = [7]  # as Llama 3's, before every text
    assert prompt_ids(code, base) == [7, *world_tokenizer.encode(code.prompt)]
    assert prompt_ids(mbpp, world_tokenizer) == world_tokenizer.prompt("{1}?")
    assert prompt_ids(code, chat) == chat.prompt(instruction(code, True))
    assert "```python\ndef f(x):\n```" in instruction(code, True)
    assert instruction(mbpp, True) == "{1}?\n\nAnswer with the whole program in a ```python block."
    assert instruction(math, True).startswith("{1}?")
    assert instruction(math, True).endswith("within \\boxed{}.")
    assert instruction(math, False) == "{1}?"


# ------------------------------------------------------------------------------ rows of files


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        # the question stands in the text already, but for white space: its answer is not told
        (
            {"question": "How many? ", "answer": "7", "text": "Q: How many?\nA: 7"},
            "How many? ",
            "7",
        ),
        ({"question": "How\r\nmany?", "answer": "7", "text": "Q: How\nmany?\nA: 7"}, None, "7"),
        ({"question": "Who?", "answer": "7", "context": "A story."}, "A story.\n\nWho?", "7"),
        ({"prompt": '[{"role": "user", "content": "1+1?"}]', "answer": "2"}, "1+1?", "2"),
        ({"question": "q", "answer": "Tom has 7 apples left."}, "q", "7"),
        ({"question": "q", "answer": "**7**"}, "q", "7"),
        ({"problem": "q", "expected_answer": "5"}, "q", "5"),
        ({"prompt": "q", "reward_model": '{"ground_truth": "5"}'}, "q", "5"),
        ({"question": "q", "choices": [], "options": "", "answer": "5"}, "q", "5"),
    ],
)
def test_what_is_asked_and_what_is_right(row, prompt, answer):
    p = parse_row(json.dumps(row), "line 1")
    assert p.prompt == (prompt or row["question"]) and p.answer == answer


def test_messages_and_choices_in_parts():
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    p = parse_row(json.dumps({"messages": messages, "answer": "2"}), "line 1")
    assert p.prompt == "Be brief.\n\n1+1?"
    choices = [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}]
    row = {"question": "q", "choices": choices, "answer": "B"}
    p = parse_row(json.dumps(row), "line 1")
    assert (p.task, p.answer, p.tests["choices"]) == ("multiple_choice", "B", ["red", "blue"])


SUITE = """import numpy as np

def check(candidate):
    assert not isinstance(candidate(1), np.ndarray)
    assert np.allclose([candidate(0.1)], [0.2 + 1e-9]) and not np.isclose(candidate(1), 2.1)
"""


def test_a_suite_that_needs_a_package():
    row = {"prompt": "def f(x):\n    'twice'\n", "entry_point": "f", "test": SUITE}
    p = parse_row(json.dumps(row | {"canonical_solution": "    return 2 * x\n"}), "line 1")
    assert rw.correct(p, p.answer) and not rw.correct(p, p.answer.replace("2 *", "3 *"))
    for more, told in (
        ("import pandas", "imports pandas"),
        ("import numpy as n; n.mean([])", "numpy's mean"),
    ):
        with pytest.raises(UserError, match=f"line 1: 'test' .*{told}, which the sandbox does not"):
            parse_row(json.dumps(row | {"test": f"{SUITE}\n{more}\n"}), "line 1")
