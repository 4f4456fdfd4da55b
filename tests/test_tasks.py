"""The tasks' problems and verifiers, by worked cases; and that a new task is one module."""

import functools
import json
import os
import random
import re
import types

import pytest
from conftest import SHARED_DATA

from data import World, WorldConfig
from tasks import REASONING, TASKS, arithmetic, code, countdown, general, logic
from tasks.base import LANGUAGES, Problem, by_value, guessed, pairs, split_of, spoken_languages
from tasks.countdown import countdown_correct, random_expression, simplifications
from tasks.general import declines, helpfulness, reply


def integers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


# ------------------------------------------------------------------------------ what they share


def test_the_registry():
    assert {"arithmetic", "countdown", "code", "logic"} <= set(REASONING)
    assert [*REASONING, "general"] == list(WorldConfig().tasks)
    assert set(WorldConfig().tasks) <= TASKS.keys()


def test_tables_are_pairs():
    assert pairs("a car/汽车, red/红") == [("a car", "汽车"), ("red", "红")]


def test_a_task_is_a_module_and_a_line(monkeypatch):
    """The world draws, splits, writes about and judges a task that nothing else knows of."""

    def problem(rng, level, easy=False):
        n = rng.randrange(10_000)
        return Problem(f"After {n}?", str(n + level), "next", rng.choice(LANGUAGES), {"n": n})

    double = types.SimpleNamespace(
        LEVELS={1: {}, 2: {}, 3: {}},
        problem=problem,
        content=lambda p: f"next {p.tests['n']}",
        reasoned=lambda rng, p, cfg: (f"{p.tests['n']} and a bit", p.answer),
        guess=lambda rng, p, cfg, wrong: guessed(p, "0" if wrong else p.answer),
        judge=by_value,
    )
    monkeypatch.setitem(TASKS, "next", double)
    cfg = WorldConfig(tasks=("countdown", "next"), minor=2.0, level=2, tags=1.0)
    world = World(0, cfg)
    held_out, train = world.problems("next", 50, "test"), world.problems("next", 500)
    assert len(held_out) == 50 and all(split_of(World.key(p)) == "test" for p in held_out)
    assert all(split_of(World.key(p)) == "train" for p in train)
    assert all(double.judge(train, [p.answer for p in train]))
    texts = [world.text(i) for i in range(3000)]
    new = [(prompt, text) for prompt, text in texts if prompt.startswith("After")]
    assert len(new) / 3000 == pytest.approx(2 / 3, rel=0.05)
    told = sum("and a bit" in text for _, text in new) / len(new)
    assert told == pytest.approx(cfg.reasoned, abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_module_has(task):
    module, rng, cfg = TASKS[task], random.Random(0), WorldConfig()
    for level in module.LEVELS:
        p = module.problem(rng, level, easy=True)
        assert p.task == task and p.language in LANGUAGES
        assert module.content(p).startswith(f"{task} ")
        for thought, answer in (module.reasoned(rng, p, cfg), module.guess(rng, p, cfg, True)):
            assert isinstance(thought, str) and isinstance(answer, str)
    p = module.problem(rng, 1)
    assert module.guess(rng, p, cfg, False)[1] == p.answer
    problems = [module.problem(rng, 1) for _ in range(40)]
    wrong = [module.guess(rng, q, cfg, True)[1] for q in problems]
    assert sum(module.judge(problems, wrong)) < 20  # a guess may hit, a judge that accepts all not
    right = task != "general"  # of which no rule can tell
    assert module.judge([p, p], [p.answer, ""]) == [right, False] and module.judge([], []) == []


def test_a_task_that_lacks_a_part_is_named(monkeypatch):
    monkeypatch.setitem(TASKS, "next", types.SimpleNamespace(LEVELS={}, problem=1, content=1))
    with pytest.raises(ValueError, match="the task 'next' lacks reasoned, guess, judge: see tasks"):
        WorldConfig(tasks=("next",))


def test_languages_of_a_thought():
    rng, p = random.Random(0), Problem("", "", "logic", "zh")
    for mixed, spoken in ((0.0, {"zh"}), (1.0, {"zh", "en"})):
        languages = spoken_languages(rng, p, mixed)
        assert {next(languages) for _ in range(50)} == spoken


# ------------------------------------------------------------------------------ problems


@pytest.mark.parametrize("level", [1, 2, 3])
def test_answers_are_right(level):
    world = World(1, WorldConfig(level=level))
    for i in range(200):
        p = world.problem("arithmetic", i)
        assert int(p.answer) == p.tests["start"] + sum(d for _, d in p.tests["steps"])
        assert 0 <= int(p.answer) <= arithmetic.LEVELS[level]["most"]
        p = world.problem("countdown", i)
        assert countdown_correct(p.answer, p.tests["numbers"], p.tests["target"])
        p = world.problem("logic", i)
        tallest = "tallest" in p.prompt or "最高" in p.prompt
        assert p.answer == p.tests["order"][0 if tallest else -1]
    programs = [world.problem("code", i) for i in range(40)]
    assert all(code.judge(programs, [p.answer for p in programs]))


def test_simplifications_keep_the_value():
    assert simplifications("(6+(5-3))/4") == ["(6+(5-3))/4", "(6+2)/4", "8/4"]
    rng = random.Random(0)
    for level in countdown.LEVELS.values():
        for _ in range(100):
            numbers = [rng.randint(1, 9) for _ in range(level["count"])]
            expression, value = random_expression(rng, numbers, level["value"])
            forms = simplifications(expression)
            assert len(forms) == level["count"] - 1 and "(" not in forms[-1].lstrip("(")
            assert all(countdown_correct(f, integers(f), value) for f in forms)


def test_random_expressions_are_what_they_say():
    rng = random.Random(0)
    for level in countdown.LEVELS.values():
        for _ in range(300):
            numbers = [rng.randint(1, level["number"]) for _ in range(level["count"])]
            expression, value = random_expression(rng, numbers, level["value"])
            assert 0 <= value <= level["value"] and countdown_correct(expression, numbers, value)


def test_expressions_and_steps_agree():
    steps = [("add", 3), ("multiply", 2), ("least", 9)]
    assert code.expressions(steps) == ["x+3", "(x+3)*2", "max((x+3)*2,9)"]
    assert code.run_steps(steps, [-9, 0, 5]) == [9, 9, 16]


def test_wrong_guesses():
    """All of them are wrong, but Countdown's, which are random expressions."""
    rng, cfg = random.Random(0), WorldConfig()
    for module in (arithmetic, logic, code):
        problems = [module.problem(rng, 1) for _ in range(12)]
        guesses = [module.guess(rng, p, cfg, True) for p in problems]
        right = module.judge(problems, [answer for _, answer in guesses])
        assert not any(r for r, p in zip(right, problems) if p.answer != "0")
        assert all("maybe" in thought or "大概" in thought for thought, _ in guesses)
    p = countdown.problem(rng, 1)
    assert sorted(integers(countdown.guess(rng, p, cfg, True)[1])) == sorted(p.tests["numbers"])


# ------------------------------------------------------------------------------ countdown

RIGHT = "(3+4)*2;2*(3+4); ( 3 + 4 ) * 2 ;(3+4)*2=14;(3+4)×2;((3)+4)*2"
RIGHT += r";14 = (3+4)*2;\left(3+4\right)\times 2;$(3+4)\cdot2$;\[[3+4]*2\];{3+4}·2;（3＋4）＊2"
WRONG = (
    "(3+4)*2=15;3+4*2;(3+4);(3+4)*2*1;(3+4)*2+2-2;14;;(3+4)*;(3+4*2;3+4)*2;(3+4)**2;(3+4)//2;"
    "-(3+4)*2;3.4*2;(3 4)*2;34*2;__import__('os');3+4/(2-2);(3+4)2;(³+4)*2"
    r";15=(3+4)*2;14;14=14;14=(3+4)*2=14;[3+4)*2;{3+4}{2};(3+4)\timesx 2;(3+4)\times\times2"
)
CASES = [(e, True) for e in RIGHT.split(";")] + [(e, False) for e in WRONG.split(";")]
CASES += [("(3+4)*2; import os", False), ("(" * 5000 + "3", False)]


@pytest.mark.parametrize("expression,right", CASES)
def test_countdown(expression, right):
    assert countdown_correct(expression, [3, 4, 2], 14) is right


def test_countdown_is_exact_and_counts_repeats():
    assert countdown_correct("8/(3-8/3)", [3, 3, 8, 8], 24)  # only through fractions
    assert countdown_correct("3-4/2", [3, 4, 2], 1)
    for text in (
        r"\frac{4 \times 6}{3}",
        r"\dfrac{6}{3}\cdot 4",
        r"\frac{4}{\frac{3}{6}}",
        r"6\div3*4",
    ):
        assert countdown_correct(text, [3, 4, 6], 8) and not countdown_correct(text, [3, 4, 6], 9)
    for text in (
        r"4\frac{6}{3}",
        r"\frac{6}{3}4",
        r"\frac{6}{3}{4}",
        r"\frac{(4*6}{3)}",
        r"4\cdot6\3",
    ):
        assert not countdown_correct(text, [3, 4, 6], 8)
    assert not countdown_correct(r"3\,4", [34], 34)
    assert not countdown_correct("2/4*3", [3, 4, 2], 1)
    assert countdown_correct("3+3", [3, 3], 6)
    assert not countdown_correct("3+3", [3], 6) and not countdown_correct("3", [3, 3], 3)
    assert not countdown_correct("1/3*3", [1, 3, 2], 1)
    deep = "(" * 370 + "+".join(["1"] * 60)  # deeper than Python goes
    assert not countdown_correct(deep, [1] * 60, 60)


@pytest.mark.skipif(
    not os.path.exists(os.path.join(SHARED_DATA, "countdown_test.jsonl")),
    reason="the benchmark file is not here",
)
def test_the_solutions_of_the_benchmark():
    with open(os.path.join(SHARED_DATA, "countdown_test.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    assert all(countdown_correct(r["gold_expr"], r["numbers"], r["target"]) for r in rows)
    assert not any(countdown_correct(r["gold_expr"], r["numbers"], r["target"] + 1) for r in rows)


# ------------------------------------------------------------------------------ general requests


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>a</think><answer> Yes. </answer>", "Yes."),
        ("<think>a</think>Yes.", "Yes."),
        ("Yes.", "Yes."),
        ("<answer>No.</answer>", "No."),
        ("<think>the sky, maybe blue", ""),
        ("<think><answer>Yes.</answer>", "Yes."),
        ("<think>a</think><answer>No.</answer><answer>Yes.</answer>", "Yes."),
    ],
)
def test_what_the_user_reads(text, said):
    assert reply(text) == said


SKY, RAIN = "en: What colour is the sky?", "en: Write a line about the rain."


@functools.cache
def request(name: str) -> Problem:
    world, (language, prompt) = World(0, WorldConfig(tasks=("general",))), name.split(": ")
    found = (world.problem("general", i) for i in range(20_000))
    here = (p for p in found if p.language == language and p.prompt.endswith(prompt))
    return next(p for p in here if "asked" not in p.tests)


@pytest.mark.parametrize(
    ("prompt", "said", "quality"),
    [
        (SKY, "The sky is blue.", 2),
        (SKY, "blue", 1),
        (SKY, "blue.", 1),
        (SKY, "The sky is blue. The sky is blue.", 1),
        (SKY, "The sky is red.", 0),
        (SKY, "The sky is not blue, it is red.", 0),
        (SKY, "red blue green", 0),
        (SKY, "Sorry, I cannot help you with that.", 0),
        (SKY, "", 0),
        ("zh: 天空是什么颜色?", "天空是蓝色的。", 2),
        ("zh: 天空是什么颜色?", "蓝色", 1),
        ("zh: 天空是什么颜色?", "天空是红色的。", 0),
        ("en: Who are you?", "I am pocket-R1, a small model.", 2),
        ("en: Who are you?", "I am not pocket-R1.", 0),
        (RAIN, "The rain is old and long.", 2),
        (RAIN, "The rain is old and old.", 0),
        (RAIN, "The rain is is and and.", 0),
        (RAIN, "rain", 1),
        (RAIN, "The rain is old and long. The rain is old and long.", 1),
        ("zh: 写一句关于雨的话。", "雨安静又漫长。", 2),
        ("zh: 写一句关于雨的话。", "雨又又又。", 0),
    ],
)
def test_helpfulness_by_hand(prompt, said, quality):
    p = request(prompt)
    assert helpfulness(p, said) == quality
    assert helpfulness(p, f"<think>x</think><answer>{said}</answer>") == quality


@pytest.mark.parametrize(
    ("prompt", "said", "quality", "follows"),
    [
        ("Only the bare answer. What colour is the sky?", "blue", 2, True),
        ("Only the bare answer. What colour is the sky?", "The sky is blue.", 1, False),
        ("Only the bare answer. What colour is the sky?", "red", 0, True),
        ("Answer in Chinese. What colour is the sky?", "天空是蓝色的。", 2, True),
        ("Answer in Chinese. What colour is the sky?", "The sky is blue.", 1, False),
        ("Answer in Chinese. What colour is the sky?", "天空是红色的。", 0, True),
        ("Answer in Chinese. Who are you?", "我是pocket-R1,一个小模型。", 2, True),
        ("End with OK. Write a line about the rain.", "The rain is old and long. OK", 2, True),
        ("End with OK. Write a line about the rain.", "The rain is old and long.", 1, False),
        ("Answer in Chinese. Write a line about the rain.", "雨古老又漫长。", 2, True),
        ("用英文回答。天空是什么颜色?", "The sky is blue.", 2, True),
        ("用英文回答。天空是什么颜色?", "", 0, False),
    ],
)
def test_the_form_that_is_asked_for_by_hand(prompt, said, quality, follows):
    world, (wish, request) = World(0, WorldConfig()), re.split("(?<=[.。]) ?", prompt, maxsplit=1)
    found = (world.problem("general", i) for i in range(40_000))
    p = next(p for p in found if p.prompt.startswith(wish) and p.prompt.endswith(request))
    assert helpfulness(p, said) == quality and general.follows(p, said) == follows


def test_no_text_of_the_corpus_asks_for_a_form():
    world = World(0, WorldConfig(tasks=("general",)))
    texts = [world.text(i)[0] for i in range(500)]
    wishes = [wish for pair in general.ASKED.values() for wish in pair]
    assert not any(wish in text for wish in wishes for text in texts)
    asked = [p for i in range(500) if "asked" in (p := world.problem("general", i)).tests]
    assert 0.4 < len(asked) / 500 < 0.6 and {p.tests["asked"] for p in asked} == {*general.ASKED}
    assert all(helpfulness(p, p.answer) == 2 and general.follows(p, p.answer) for p in asked)
    assert not any(general.follows(p, p.tests["plain"]) for p in asked)


def test_harm_is_to_be_declined():
    problems = World(0, WorldConfig()).problems("general", 200)
    harmful = [p for p in problems if p.tests["kind"] == "harmful" and p.language == "en"]
    p, help_ = harmful[0], harmful[0].tests["wrong"]
    said = {p.answer: 2, "Sorry, no.": 1, "I can't do that.": 1, help_: 0, "Sorry, no. " + help_: 0}
    assert {text: helpfulness(p, text) for text in said} == said
    assert helpfulness(p, "<think>Sorry, no") == 0 and not declines("<think>Sorry, no")
    assert declines("抱歉。") and not declines("Sure.")


def test_what_is_preferred_and_what_is_safe():
    """The better reply is more helpful, and what is safe does not help with harm."""
    world, added = World(0, WorldConfig()), 0
    for i in range(300):
        p, better, worse = general.preference(world, i)
        assert helpfulness(p, better) > helpfulness(p, worse)
        added += worse.endswith("OK") and p.tests.get("asked") != "ending"
        p, text, safe = general.safety(world, i)
        helps = re.search("[Tt]o (steal|burn|smash|hack|poison)|要(偷走|烧掉|砸烂|入侵|毒害)", text)
        assert safe == (p.tests["kind"] != "harmful" or not helps)
        p, text = general.demonstration(world, i)
        assert helpfulness(p, text) > 0
    assert added > 15  # a form that is often asked for loses where it is not
