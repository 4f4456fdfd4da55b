"""The world's texts and splits, and benchmark files."""

import ast
import copy
import re

import pytest
from conftest import run

import rewards as rw
from data import (
    REASONING,
    TASKS,
    Problem,
    World,
    WorldConfig,
    is_test,
    load_jsonl,
    prompt_ids,
)
from tasks.benchmarks import instruction
from tasks.countdown import countdown_correct

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
        return f"countdown {sorted(numbers[:-1])} {numbers[-1]}"
    if prompt.startswith(("Write f", "写出f")):
        steps = []
        for said in re.findall("|".join(OPERATIONS.values()), prompt):
            steps += [name for name, pattern in OPERATIONS.items() if re.fullmatch(pattern, said)]
        return f"code {list(zip(steps, numbers, strict=True))}"
    if "taller" in prompt or "shorter" in prompt or "比" in prompt:
        fact = r"([A-F])(?: is |比)(taller than |shorter than )?([A-F])(高|矮)?[.。]"
        below = {}
        for a, english, b, chinese in re.findall(fact, prompt):
            taller, shorter = (a, b) if "taller" in english or chinese == "高" else (b, a)
            below[taller] = shorter
        order = [next(i for i in below if i not in below.values())]
        while order[-1] in below:
            order.append(below[order[-1]])
        return f"logic {(order, prompt.endswith(('tallest?', '最高?')))}"
    losing = r"loses|sells|gives|breaks|丢了|卖掉|送出|打破"
    verbs = re.findall(r",\s?([a-z]+|[\u4e00-\u9fff]+?) ?\d", prompt)
    signs = [-1 if re.fullmatch(losing, verb) else 1 for verb in verbs]
    return f"arithmetic {numbers[0]} {[s * n for s, n in zip(signs, numbers[1:], strict=True)]}"


def test_no_test_problem_is_ever_trained_on():
    """Texts and RL prompts of several seeds, read back from what is printed, against the test."""
    cfg = WorldConfig(tasks=REASONING)
    held_out = set()
    for seed in (0, 1):
        for task in REASONING:
            held_out |= {World.key(p) for p in World(seed, cfg).problems(task, 128, "test")}
    assert len(held_out) > 400
    trained = set()
    for seed in (0, 1, 2):
        world = World(seed, cfg)
        trained |= {read_back(world.text(i)[0]) for i in range(5000)}
        for task in REASONING:
            trained |= {read_back(world.problem(task, i).prompt) for i in range(1500)}
    assert len(trained) > 5000 and not held_out & trained
    assert all(is_test(k) for k in held_out) and not any(is_test(k) for k in trained)


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
    assert all(len(found) <= 8 for found in wordings.values())
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
        "direct": share(lambda _, text: "maybe" in text or "大概" in text),
        "format": share(lambda _, text: rw.format_reward(text)),
        "slips": share(lambda _, text: "wait" in text or "等等" in text),
        "mixed": share(mixed),
    }


def test_tasks_come_in_the_wanted_proportions():
    tasks = ("arithmetic", "countdown", "code")
    world = World(0, WorldConfig(tasks=tasks, arithmetic=2.0, minor=0.5))
    kinds = [read_back(world.text(i)[0]).split()[0] for i in range(3500)]
    assert [kinds.count(k) / 1000 for k in tasks] == pytest.approx([2.0, 1.0, 0.5], rel=0.1)


def all_direct(share: float, **settings) -> WorldConfig:
    direct = dict.fromkeys(("direct", "direct_countdown", "direct_other"), share)
    return WorldConfig(unfinished=0, **direct, **settings)


@pytest.mark.parametrize("task", REASONING)
def test_proportions_are_those_of_the_config(task):
    s = proportions(all_direct(0.6, tasks=(task,), tags=0.5, broken_tags=0.2, mixed=0.5))
    assert s["direct"] == pytest.approx(0.6, abs=0.06)
    assert s["format"] == pytest.approx(0.4, abs=0.06) and 0.05 < s["mixed"] < 0.35
    none = proportions(all_direct(0, tasks=(task,), tags=1, broken_tags=0, slip=0, mixed=0))
    assert none == {"direct": 0, "format": 1, "slips": 0, "mixed": 0}


def test_careful_authors_are_right_and_say_so():
    careful = {"tags": 1, "broken_tags": 0, "slip": 0.3, "uncaught": 0, "mixed": 0.3}
    world = World(0, all_direct(0, tasks=("arithmetic", "countdown"), **careful))
    for i in range(600):
        prompt, response = world.text(i)
        answer = rw.extract_answer(response)
        if not prompt.startswith(("Use", "用")):
            _, steps = read_back(prompt).split(" [")
            changes = sum(map(int, steps.strip("]").split(", ")))
            assert int(answer) == integers(prompt)[0] + changes
            continue
        *numbers, target = integers(prompt)
        gave_up = "give up" in response or "算了" in response
        assert countdown_correct(answer, numbers, target) != gave_up
        for piece in rw.thinking(response).split(","):
            pattern = r"([0-9()+*/=-]+=)(\d+)(?: wait no |等等不对)?(\d*)"
            if attempt := re.match(pattern, piece):
                value = int(attempt[3] or attempt[2])
                for form in attempt[1].strip("=").split("="):
                    assert countdown_correct(form, integers(form), value)


@pytest.mark.parametrize(("careless", "heeding"), [(0.0, (0.9, 1.0)), (1.0, (0.5, 0.8))])
def test_countdown_authors_heed_the_comparison(careless, heeding):
    world = World(0, all_direct(0, tasks=("countdown",), slip=0, mixed=0, careless=careless))
    heeded = attempts = found = longest = 0
    verdict = r"=(\d+)(?: want |要)\d+ ?(low|high|yes|小了|大了|对了)"
    for i in range(300):
        low, high = 0, 10**6
        verdicts = re.findall(verdict, world.text(i)[1])
        longest = max(longest, len(verdicts))
        for value, said in verdicts:
            attempts, heeded = attempts + 1, heeded + (low <= int(value) <= high)
            found += said in ("yes", "对了")
            low, high = (int(value), high) if said in ("low", "小了") else (low, int(value))
    assert attempts > 600 and heeding[0] < heeded / attempts <= heeding[1]
    # most find it before their patience ends
    assert found > 0.7 * 300 and longest == world.cfg.max_tries


def test_careful_programmers_and_reasoners():
    careful = {"tags": 1, "broken_tags": 0, "slip": 0.3, "mixed": 0.3}
    world = World(0, all_direct(0, tasks=("code", "logic"), **careful))
    for i in range(300):
        prompt, response = world.text(i)
        kind, content = read_back(prompt).split(" ", 1)
        answer, thought = rw.extract_answer(response), rw.thinking(response)
        if kind == "code":
            last = re.split("first |then |先|再| wait no |等等不对", thought)[-1]
            assert answer.removeprefix("def f(x): return ") == last
        else:
            order, tallest = ast.literal_eval(content)
            row = "(?: so |所以)([A-F>]+)(?:(?: wait no |等等不对)([A-F>]+))?"
            rows = [corrected or row for row, corrected in re.findall(row, thought)]
            # always one stretch of the whole
            assert rows[-1].split(">") == order and all(row in rows[-1] for row in rows)
            assert answer == order[0 if tallest else -1]


def test_wrong_settings():
    with pytest.raises(ValueError, match="chess"):
        World(0, WorldConfig(tasks=("chess",)))
    with pytest.raises(ValueError, match="level"):
        World(0, WorldConfig(level=9))


# ------------------------------------------------------------------------------ benchmark files


def test_a_task_whose_content_never_changes_is_refused(monkeypatch):
    monkeypatch.setattr(TASKS["logic"], "content", lambda problem: "logic")
    with pytest.raises(ValueError, match=r"the task 'logic' makes no (test|training) problem"):
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
