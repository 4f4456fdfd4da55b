import ast
import copy
import json
import os
import re

import pytest
from conftest import SHARED_DATA

import rewards as rw
from data import (
    COUNTDOWN,
    REASONING,
    TASKS,
    Problem,
    World,
    WorldConfig,
    is_test,
    load_jsonl,
    prompt_ids,
    question,
    random_expression,
    simplifications,
)

OPERATIONS = {"add": "add|加", "subtract": "subtract|减", "multiply": "multiply by|乘", "rest": "take the rest by|取余", "least": "take at least|至少取"}


def read_back(prompt: str) -> str:
    """The key of a problem that rules can check, from nothing but its printed prompt."""
    numbers = [int(n) for n in re.findall(r"\d+", prompt)]
    if prompt.startswith(("Use", "用")):
        return f"countdown {sorted(numbers[:-1])} {numbers[-1]}"
    if prompt.startswith(("Write f", "写出f")):
        said = re.findall("|".join(OPERATIONS.values()), prompt)
        steps = [next(name for name, pattern in OPERATIONS.items() if re.fullmatch(pattern, s)) for s in said]
        return f"code {list(zip(steps, numbers, strict=True))}"
    if "taller" in prompt or "shorter" in prompt or "比" in prompt:
        pairs = re.findall(r"([A-F])(?: is |比)(taller than |shorter than )?([A-F])(高|矮)?[.。]", prompt)
        over = {(a, b) if "taller" in en or zh == "高" else (b, a) for a, en, b, zh in pairs}
        below = dict(over)
        order = [next(i for i in below if i not in below.values())]
        while order[-1] in below:
            order.append(below[order[-1]])
        return f"logic {(order, prompt.endswith(('tallest?', '最高?')))}"
    losing = r"loses|sells|gives|breaks|丢了|卖掉|送出|打破"
    signs = [-1 if re.fullmatch(losing, verb) else 1 for verb in re.findall(r",\s?([a-z]+|[\u4e00-\u9fff]+?) ?\d", prompt)]
    return f"arithmetic {numbers[0]} {[s * n for s, n in zip(signs, numbers[1:], strict=True)]}"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_answers_are_right(level):
    world = World(1, WorldConfig(level=level))
    for i in range(200):
        p = world.problem("arithmetic", i)
        assert int(p.answer) == p.tests["start"] + sum(d for _, d in p.tests["steps"]) and int(p.answer) >= 0
        p = world.problem("countdown", i)
        assert rw.countdown_correct(p.answer, p.tests["numbers"], p.tests["target"])
        p = world.problem("logic", i)
        assert p.answer == p.tests["order"][0 if ("tallest" in p.prompt or "最高" in p.prompt) else -1]
    programs = [world.problem("code", i) for i in range(40)]
    assert all(rw.verdicts(programs, [p.answer for p in programs]))


def test_no_test_problem_is_ever_trained_on():
    """Corpus texts and RL prompts of several seeds, read back from what is printed, against the evaluation problems."""
    cfg = WorldConfig(tasks=REASONING)
    held_out = {World.key(p) for task in REASONING for seed in (0, 1) for p in World(seed, cfg).problems(task, 128, "test")}
    assert len(held_out) > 400
    trained = set()
    for seed in (0, 1, 2):
        world = World(seed, cfg)
        trained |= {read_back(world.text(i)[0]) for i in range(5000)}
        trained |= {read_back(world.problem(task, i).prompt) for task in REASONING for i in range(1500)}
    assert len(trained) > 5000 and not held_out & trained
    assert all(is_test(k) for k in held_out) and not any(is_test(k) for k in trained)


def test_no_general_request_of_the_test_split_is_ever_trained_on():
    """In either language and with any greeting, as far as the content can be held out: see World._general."""
    world = World(0, WorldConfig(tasks=("general",)))
    test = world.problems("general", 128, "test")
    for p in test:
        if p.tests["kind"] in ("translate", "harmful", "harmless"):
            assert len(p.tests["content"]) == 3  # no greeting
    asked, content = {p.prompt for p in test}, {World.key(p) for p in test}
    trained = [World(seed, WorldConfig(tasks=("general",))).problem("general", i) for seed in (0, 1) for i in range(3000)]
    assert len(test) > 100 and not asked & {p.prompt for p in trained} and not content & {World.key(p) for p in trained}
    assert not asked & {world.text(i)[0] for i in range(3000)}
    prompts: dict[str, set] = {}
    for p in trained:
        prompts.setdefault(World.key(p), set()).add((p.language, p.prompt))
    assert all(len(found) <= 8 for found in prompts.values()) and any(len(found) > 2 for found in prompts.values())


def test_the_key_is_what_the_prompt_says():
    world = World(3, WorldConfig())
    for task in REASONING:
        for p in world.problems(task, 100, "test"):
            assert read_back(p.prompt) == World.key(p)


def test_same_seed_same_world():
    a, b, c = World(0, WorldConfig()), World(0, WorldConfig()), World(1, WorldConfig())
    assert [a.text(i) for i in (5, 3, 900)] == [b.text(i) for i in (5, 3, 900)]
    assert a.problems("countdown", 5, start=10) == [b.problem("countdown", i) for i in range(10, 15)]
    assert a.text(5) != c.text(5) and a.problem("arithmetic", 0) != c.problem("arithmetic", 0)


def test_evaluation_problems_are_distinct():
    for task in TASKS:
        prompts = [p.prompt for p in World(0, WorldConfig()).problems(task, 128, "test")]
        assert len(prompts) == len(set(prompts)) > 100


def shares(cfg: WorldConfig, task: str, n=1500) -> dict[str, float]:
    world = World(0, cfg)
    seen = [world.text(i) for i in range(n)]
    direct = [r for _, r in seen if "maybe" in r or "大概" in r]
    return {"direct": len(direct) / len(seen), "format": sum(rw.format_reward(r) for _, r in seen) / len(seen),
            "slips": sum("wait" in r or "等等" in r for _, r in seen) / len(seen),
            "mixed": sum(rw.language_consistency(rw.thinking(r).replace("def f(x): return", ""), "zh" if re.search(r"[\u4e00-\u9fff]", p) else "en") < 1 for p, r in seen) / len(seen)}


def test_tasks_come_in_the_wanted_shares():
    world = World(0, WorldConfig(tasks=("arithmetic", "countdown", "code"), arithmetic=2.0, minor=0.5))
    kinds = [read_back(world.text(i)[0]).split()[0] for i in range(3500)]
    assert [kinds.count(k) / 1000 for k in ("arithmetic", "countdown", "code")] == pytest.approx([2.0, 1.0, 0.5], rel=0.1)


@pytest.mark.parametrize("task", REASONING)
def test_proportions_are_those_of_the_config(task):
    s = shares(WorldConfig(tasks=(task,), direct=0.6, direct_countdown=0.6, direct_other=0.6, tags=0.5, broken_tags=0.2, mixed=0.5, unfinished=0), task)
    assert s["direct"] == pytest.approx(0.6, abs=0.06) and s["format"] == pytest.approx(0.4, abs=0.06) and 0.05 < s["mixed"] < 0.35
    none = shares(WorldConfig(tasks=(task,), direct=0, direct_countdown=0, direct_other=0, tags=1, broken_tags=0, slip=0, mixed=0, unfinished=0), task)
    assert none == {"direct": 0, "format": 1, "slips": 0, "mixed": 0}


def test_careful_authors_are_right_and_say_so():
    world = World(0, WorldConfig(tasks=("arithmetic", "countdown"), direct=0, direct_countdown=0, tags=1, broken_tags=0, slip=0.3, uncaught=0, mixed=0.3, unfinished=0))
    for i in range(600):
        prompt, response = world.text(i)
        if prompt.startswith(("Use", "用")):
            *numbers, target = map(int, re.findall(r"\d+", prompt))
            gave_up = "give up" in response or "算了" in response
            assert rw.countdown_correct(rw.extract_answer(response), numbers, target) != gave_up
            for piece in rw.thinking(response).split(","):
                if attempt := re.match(r"([0-9()+*/=-]+=)(\d+)(?: wait no |等等不对)?(\d*)", piece):
                    value = int(attempt[3] or attempt[2])
                    for form in attempt[1].strip("=").split("="):
                        assert rw.countdown_correct(form, [int(n) for n in re.findall(r"\d+", form)], value)
        else:
            _, steps = read_back(prompt).split(" [")
            start = int(re.search(r"\d+", prompt)[0])
            assert int(rw.extract_answer(response)) == start + sum(map(int, steps.strip("]").split(", ")))


@pytest.mark.parametrize(("careless", "heeding"), [(0.0, (0.9, 1.0)), (1.0, (0.5, 0.8))])
def test_countdown_authors_heed_the_comparison(careless, heeding):
    world = World(0, WorldConfig(tasks=("countdown",), direct_countdown=0, slip=0, mixed=0, unfinished=0, careless=careless))
    heeded = attempts = found = longest = 0
    for i in range(300):
        low, high = 0, 10**6
        verdicts = re.findall(r"=(\d+)(?: want |要)\d+ ?(low|high|yes|小了|大了|对了)", world.text(i)[1])
        longest = max(longest, len(verdicts))
        for value, verdict in verdicts:
            attempts, heeded, found = attempts + 1, heeded + (low <= int(value) <= high), found + (verdict in ("yes", "对了"))
            low, high = (int(value), high) if verdict in ("low", "小了") else (low, int(value))
    assert attempts > 600 and heeding[0] < heeded / attempts <= heeding[1]
    assert found > 0.7 * 300 and longest == world.cfg.max_tries  # most find it before their patience ends


def test_careful_programmers_and_reasoners():
    world = World(0, WorldConfig(tasks=("code", "logic"), direct=0, direct_other=0, tags=1, broken_tags=0, slip=0.3, mixed=0.3, unfinished=0))
    for i in range(300):
        prompt, response = world.text(i)
        kind, content = read_back(prompt).split(" ", 1)
        if kind == "code":
            program = rw.extract_answer(response)
            assert program.removeprefix("def f(x): return ") == re.split("first |then |先|再| wait no |等等不对", rw.thinking(response))[-1]
        else:
            order, tallest = ast.literal_eval(content)
            written = re.findall("(?: so |所以)([A-F>]+)(?:(?: wait no |等等不对)([A-F>]+))?", rw.thinking(response))
            rows = [mended or row for row, mended in written]
            assert rows[-1].split(">") == order and all(row in rows[-1] for row in rows)  # always one stretch of the whole
            assert rw.extract_answer(response) == order[0 if tallest else -1]


def test_simplifications_keep_the_value():
    import random

    rng = random.Random(0)
    for level in COUNTDOWN.values():
        for _ in range(100):
            expression, value = random_expression(rng, [rng.randint(1, 9) for _ in range(level["count"])], level["value"])
            forms = simplifications(expression)
            assert len(forms) == level["count"] - 1 and "(" not in forms[-1].lstrip("(")
            assert all(rw.countdown_correct(f, [int(n) for n in re.findall(r"\d+", f)], value) for f in forms)


def test_random_expressions_are_what_they_say():
    import random

    rng = random.Random(0)
    for level in COUNTDOWN.values():
        for _ in range(300):
            numbers = [rng.randint(1, level["number"]) for _ in range(level["count"])]
            expression, value = random_expression(rng, numbers, level["value"])
            assert 0 <= value <= level["value"] and rw.countdown_correct(expression, numbers, value)


def test_wrong_settings():
    with pytest.raises(ValueError, match="chess"):
        World(0, WorldConfig(tasks=("chess",)))
    with pytest.raises(ValueError, match="level"):
        World(0, WorldConfig(level=9))


# ---------------------------------------------------------------------------------------------- benchmark files


def write(tmp_path, *rows) -> str:
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return str(path)


def test_layouts(tmp_path):
    path = write(tmp_path, {"question": "1+1?", "answer": "It is <<1+1=2>>2.\n#### 2"}, "", {"problem": "x?", "answer": "\\frac12", "level": 3},
                 {"numbers": [1, 2], "target": 3}, {"prompt": "p", "answer": "a", "task": "arithmetic", "language": "zh"})
    assert load_jsonl(path) == [Problem("1+1?", "2", "math"), Problem("x?", "\\frac12", "math"),
                                Problem("Using the numbers [1, 2], create an equation that equals 3. Use each number once, with + - * / and parentheses.",
                                        "", "countdown", "en", {"numbers": [1, 2], "target": 3}), Problem("p", "a", "arithmetic", "zh")]
    assert len(load_jsonl(path, limit=2)) == 2


HUMANEVAL = {"task_id": "X/0", "prompt": "def f(x):\n    'twice'\n", "entry_point": "f", "canonical_solution": "    return 2 * x\n", "test": "def check(candidate):\n    assert candidate(1) == 2"}
MBPP = {"task_id": 1, "text": "Write twice.", "code": "import math\ndef g(): pass\ndef f(x): return 2 * x", "test_list": ["assert int(f(1)) == 2", "assert f(math.pi) > 6"], "test_setup_code": "one = 1"}


def test_layouts_of_programs(tmp_path):
    h, m, s = load_jsonl(write(tmp_path, HUMANEVAL, MBPP, {k: v for k, v in MBPP.items() if k not in ("text", "test_setup_code")} | {"prompt": "P", "test_imports": ["import re"]}))
    assert h == Problem(HUMANEVAL["prompt"], HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"], "humaneval", "en",
                        {"entry": "f", "prelude": HUMANEVAL["prompt"], "asserts": HUMANEVAL["test"] + "\ncheck(f)"})
    asserts = "assert int(f(1)) == 2\nassert f(math.pi) > 6"
    assert (m.task, m.answer, m.tests) == ("mbpp", MBPP["code"], {"entry": "f", "prelude": "import math\none = 1", "asserts": asserts})
    assert m.prompt.endswith(f"Write twice. Your code should pass these tests:\n\n{asserts}") and s.prompt == m.prompt.replace("Write twice.", "P")
    assert s.tests["prelude"] == "import math\nimport re\n"
    assert rw.verdicts([h, m, s], [p.answer for p in (h, m, s)]) == [True] * 3 and rw.verdicts([h, m, s], ["def f(x): return 3"] * 3) == [False] * 3


@pytest.mark.parametrize("row", [{"problem": "p", "answer": 33}, {"problem": "p", "answer": "033"}, {"ID": "2024-I-1", "Problem": "p", "Answer": 33}, {"question": "p", "answer": 33}])
def test_layouts_of_aime(tmp_path, row):
    (p,) = load_jsonl(write(tmp_path, row))
    assert (p.prompt, p.task) == ("p", "math") and rw.correct(p, "33") and not rw.correct(p, "34")


def test_what_a_model_is_asked(world_tokenizer):
    chat = copy.copy(world_tokenizer)
    chat.chat = True
    code, mbpp, math = Problem("def f(x):\n", "", "humaneval"), Problem("{1}?", "", "mbpp"), Problem("{1}?", "", "math")
    assert world_tokenizer.decode(prompt_ids(code, world_tokenizer)) == "def f(x):\n"  # nothing around it
    assert prompt_ids(mbpp, world_tokenizer) == world_tokenizer.prompt("{1}?")
    assert prompt_ids(code, chat) == chat.prompt(question(code, True)) and "```python\ndef f(x):\n```" in question(code, True)
    assert question(mbpp, True) == "{1}?\n\nAnswer with the whole program in a ```python block."
    assert question(math, True).startswith("{1}?") and question(math, True).endswith("within \\boxed{}.") and question(math, False) == "{1}?"


@pytest.mark.parametrize("row,message", [
    (HUMANEVAL | {"test": "assert f(1) == 2"}, "line 2: 'test' does not define the function 'check'"), (HUMANEVAL | {"entry_point": "g"}, "'prompt' does not define the function 'g'"),
    (HUMANEVAL | {"prompt": "def f(x):"}, "'prompt' is not Python"), (HUMANEVAL | {"test": 1}, "'test' should be"), (MBPP | {"test_list": "assert f(1)"}, "'test_list' and"),
    ({k: v for k, v in MBPP.items() if k != "code"}, "are not those of"), (MBPP | {"test_list": []}, "calls no function"), (MBPP | {"test_list": ["assert h(1) == 2"]}, "calls no function"), (MBPP | {"code": "def"}, "'code' is not Python"),
    (MBPP | {"test_list": ["f(1)) == 2"]}, "'test_list' is not Python"), (MBPP | {"test_setup_code": None}, "'test_setup_code' a text"), (MBPP | {"test_setup_code": "("}, "'test_setup_code' is not"),
    ({"prompt": "p", "answer": "a", "task": "mbpp"}, "needs more than an answer"), ({"problem": "p", "answer": 1.5}, "'answer' should be"), ({"problem": "p", "answer": True}, "'answer' should be"),
    ("{", "line 2: not JSON"), ("[1]", "line 2: a list"), ({"text": "x"}, r"line 2: fields \['text'\]"), ({"question": "q", "answer": "7"}, "#### number"),
    ({"question": 1, "answer": "#### 1"}, "'question' should be"), ({"problem": " ", "answer": "1"}, "'problem' should be"),
    ({"question": "q", "answer": "#### "}, "#### number"), ({"prompt": "p", "answer": "a", "task": "math", "language": "fr"}, "'language' should be"),
    ({"prompt": "p", "answer": "a", "task": "countdown"}, "'numbers' and 'target'"), ({"numbers": [1, "2"], "target": 3}, "'numbers' should be"), ({"numbers": [], "target": 3}, "'numbers' should be"), ({"numbers": [-3, 5], "target": 2}, "'numbers' should be"), ("[" * 100000, "line 2")])
def test_a_bad_line_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        load_jsonl(write(tmp_path, {"problem": "x?", "answer": "1"}, row))


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        load_jsonl(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="holds no problems"):
        load_jsonl(write(tmp_path, ""))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_jsonl(str(tmp_path / "b.jsonl"))


@pytest.mark.skipif(not os.path.isdir(SHARED_DATA), reason="the benchmark files are not here")
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name,rows", [("gsm8k_train", 7473), ("gsm8k_test", 1319), ("math500", 500), ("countdown_test", 500), ("humaneval", 164), ("mbpp", 974)])
def test_real_files(name, rows):
    assert len(load_jsonl(os.path.join(SHARED_DATA, name + ".jsonl"))) == rows
