"""Rewards, by worked cases."""

import json
import os
import random
import string

import pytest
from conftest import SHARED_DATA

import rewards as rw
from data import Problem, World, WorldConfig
from rewards import RewardConfig, countdown_correct, extract_answer, format_reward, score

GOOD = "<think>3+4 makes 7</think><answer>7</answer>"


@pytest.mark.parametrize("text,ok", [
    (GOOD, 1), ("<think>a\nb</think>\n<answer>7\n</answer>", 1), (f"  {GOOD}\n", 1), ("<think></think><answer>7</answer>", 1),
    ("", 0), ("7", 0), ("<answer>7</answer>", 0), ("<think>x</think>7", 0), (GOOD + " ok", 0), ("so " + GOOD, 0), (GOOD + GOOD, 0),
    ("<think>x</think>and<answer>7</answer>", 0), ("<think>x<think>y</think><answer>7</answer>", 0), ("<answer>7</answer><think>x</think>", 0),
    ("<think>x</think><answer>7</answer></answer>", 0), ("<think>x</think><answer> </answer>", 0), ("<think>x</think><answer>7", 0),
    ("<think><answer>7</answer></think><answer>7</answer>", 0), ("<Think>x</Think><Answer>7</Answer>", 0)])
def test_format(text, ok):
    assert format_reward(text) == ok


BODY, WHOLE = "    return 2 * x\n", "def f(x):\n    return 2 * x\n"


@pytest.mark.parametrize("text,program", [
    (BODY, "P" + BODY), (BODY + "\ndef g():", "P" + BODY), (BODY + "\nprint(f(1))", "P" + BODY), (BODY + "\n# so", "P" + BODY), (BODY + "    # in it\n", "P" + BODY + "    # in it\n"),
    (f"Here:\n```python\n{WHOLE}```\nIt doubles.", "P\n" + WHOLE), (f"<think>```python\nno\n```</think>```Python \n{WHOLE}```", "P\n" + WHOLE),
    (f"```python\nno\n```\nBetter:\n```py\n{WHOLE}```\n```\n2\n```", "P\n" + WHOLE), (f"```bash\nls\n```\nthen\n```python\n{WHOLE}```", "P\n" + WHOLE),
    (f"```\n{WHOLE}```", "P\n" + WHOLE), (f"```python\n{WHOLE}", "P\n" + WHOLE), (f"<think>a</think><answer>{WHOLE}</answer>", "P\n" + WHOLE),
    (f"<think>a</think><answer>```python\n{WHOLE}```</answer>", "P\n" + WHOLE), ("", "P"),
    (f"<think>```python\n{WHOLE}```", "P")])
def test_programs_in_responses(text, program):
    assert rw.answer_of(Problem("P", "", "humaneval"), text) == program
    assert rw.answer_of(Problem("P", "", "mbpp"), text) == (program.removeprefix("P\n") if program.startswith("P\n") else None)


@pytest.mark.parametrize("text,answer", [("so $x$ is \\(12\\).", "12"), ("\\boxed{3} and then 4", "3"), ("<think>7</think>", None), ("<think>7", None), ("", None)])
def test_a_benchmark_s_answer_need_not_be_marked(text, answer):
    assert rw.answer_of(Problem("", "12", "math"), text) == answer and rw.answer_of(Problem("", "12", "arithmetic"), text) == extract_answer(text)


def test_programs_are_scored():
    prompt = "def helper(x):\n    return x + x\n\ndef f(x):\n    'twice'\n"
    p = Problem(prompt, "", "humaneval", tests={"entry": "f", "prelude": prompt, "asserts": "def check(candidate):\n    for i in range(3): assert candidate(i) == helper(i)\ncheck(f)"})
    texts = ["    return helper(x)\n", "<think>a</think><answer>def f(x): return 2 * x</answer>", "```python\ndef f(x):\n    return helper(x)\n```", "    return x\n",
             "import os; os._exit(0)", "```python\ndef helper(x): return 0\ndef f(x): return 0\n```"]
    scores = rw.score_all([p] * len(texts), texts, RewardConfig(format=4.0))
    assert [s["accuracy"] for s in scores] == [1, 1, 1, 0, 0, 0] and scores[1]["total"] == 5.0


@pytest.mark.parametrize("expression,ok", [
    ("(3+4)*2", 1), ("2*(3+4)", 1), (" ( 3 + 4 ) * 2 ", 1), ("(3+4)*2=14", 1), ("(3+4)×2", 1), ("((3)+4)*2", 1), ("(3+4)*2=15", 0),
    ("3+4*2", 0), ("(3+4)", 0), ("(3+4)*2*1", 0), ("(3+4)*2+2-2", 0), ("14", 0), ("", 0), ("(3+4)*", 0), ("(3+4*2", 0), ("3+4)*2", 0),
    ("(3+4)**2", 0), ("(3+4)//2", 0), ("-(3+4)*2", 0), ("3.4*2", 0), ("(3 4)*2", 0), ("34*2", 0), ("(3+4)*2; import os", 0),
    ("__import__('os')", 0), ("(" * 5000 + "3", 0), ("3+4/(2-2)", 0), ("(3+4)2", 0), ("(³+4)*2", 0)])
def test_countdown(expression, ok):
    assert countdown_correct(expression, [3, 4, 2], 14) is bool(ok)


def test_countdown_is_exact_and_counts_repeats():
    assert countdown_correct("8/(3-8/3)", [3, 3, 8, 8], 24)  # only through fractions
    assert countdown_correct("3-4/2", [3, 4, 2], 1) and not countdown_correct("2/4*3", [3, 4, 2], 1)
    assert countdown_correct("3+3", [3, 3], 6) and not countdown_correct("3+3", [3], 6) and not countdown_correct("3", [3, 3], 3)
    assert not countdown_correct("1/3*3", [1, 3, 2], 1)
    assert not countdown_correct("(" * 370 + "+".join(["1"] * 60), [1] * 60, 60)  # deeper than Python goes


@pytest.mark.parametrize("text,language,share", [
    ("first buys then", "en", 1), ("first 买 then", "en", 2 / 3), ("买了3", "zh", 1), ("买 it", "zh", 0.5), ("3+4=7", "zh", 1), ("", "en", 1),
    ("<think>买</think>", "zh", 1)])
def test_language(text, language, share):
    assert rw.language_consistency(text, language) == pytest.approx(share)


def test_reflection_words():
    assert rw.reflection_words("9 wait no, 8. Check: butter is not but.") == 4
    assert rw.reflection_words("等等不对,应该是8") == 2


def test_score_and_weights():
    p = Problem("3+4?", "7", "arithmetic")
    assert score(p, GOOD, RewardConfig(format=2.0)) == {"accuracy": 1.0, "format": 1.0, "language": 1.0, "total": 3.0}
    assert score(p, "The answer is 7.", RewardConfig()) == {"accuracy": 1.0, "format": 0.0, "language": 1.0, "total": 1.0}
    assert score(p, GOOD.replace("7", "8"), RewardConfig(format=0.5))["total"] == 0.5
    c = Problem("", "", "countdown", tests={"numbers": [3, 4], "target": 7})
    assert score(c, "<think>3+4</think><answer>4+3</answer>", RewardConfig(format=2.0))["total"] == 3.0


def test_any_text_gets_a_score():
    rng = random.Random(0)
    pieces = ["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "{", "#### ", "the answer is", "答案是", "(", ")", "+", "/", "*", "0", "9",
              "1/", ",", ".", "\n", "等等", "\ud800", "\0", "𝟗", "²", " "] + list(string.printable)
    problems = [Problem("", "7", "math"), Problem("", "", "countdown", tests={"numbers": [9, 9, 1], "target": 7})]
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 30)))
        for p in problems:
            assert 0 <= score(p, text, RewardConfig())["total"] <= 2.0
        rw.language_consistency(text, "en")
        rw.reflection_words(text)


@pytest.mark.skipif(not os.path.exists(os.path.join(SHARED_DATA, "countdown_test.jsonl")), reason="the benchmark file is not here")
def test_the_benchmark_s_own_solutions():
    with open(os.path.join(SHARED_DATA, "countdown_test.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    assert all(countdown_correct(r["gold_expr"], r["numbers"], r["target"]) for r in rows)
    assert not any(countdown_correct(r["gold_expr"], r["numbers"], r["target"] + 1) for r in rows)


def test_an_answer_may_be_a_sentence():
    assert extract_answer("<think>the answer is 5</think><answer>The answer is 7.</answer>") == "7"
    assert extract_answer("<think>x</think><answer>答案是(1+2)*3。</answer>") == "(1+2)*3"
    assert extract_answer("<think>x</think><answer>The answer is def f(x): return x+3.</answer>") == "def f(x): return x+3"


@pytest.mark.parametrize(("text", "said"), [
    ("<think>a</think><answer> Yes. </answer>", "Yes."), ("<think>a</think>Yes.", "Yes."), ("Yes.", "Yes."), ("<answer>No.</answer>", "No."),
    ("<think>the sky, maybe blue", ""), ("<think><answer>Yes.</answer>", "Yes."), ("<think>a</think><answer>No.</answer><answer>Yes.</answer>", "Yes.")])
def test_what_the_user_reads(text, said):
    assert rw.reply(text) == said


def general(language, prompt):
    world = World(0, WorldConfig(tasks=("general",)))
    return next(p for i in range(20_000) if (p := world.problem("general", i)).language == language and p.prompt.endswith(prompt))


@pytest.mark.parametrize(("language", "prompt", "said", "quality"), [
    ("en", "What colour is the sky?", "The sky is blue.", 2), ("en", "What colour is the sky?", "blue", 1), ("en", "What colour is the sky?", "blue.", 1),
    ("en", "What colour is the sky?", "The sky is blue. The sky is blue.", 1), ("en", "What colour is the sky?", "The sky is red.", 0),
    ("en", "What colour is the sky?", "The sky is not blue, it is red.", 0), ("en", "What colour is the sky?", "red blue green", 0),
    ("en", "What colour is the sky?", "Sorry, I cannot help you with that.", 0), ("en", "What colour is the sky?", "", 0),
    ("zh", "天空是什么颜色?", "天空是蓝色的。", 2), ("zh", "天空是什么颜色?", "蓝色", 1), ("zh", "天空是什么颜色?", "天空是红色的。", 0),
    ("en", "Who are you?", "I am pocket-R1, a small model.", 2), ("en", "Who are you?", "I am not pocket-R1.", 0),
    ("en", "Write a line about the rain.", "The rain is old and long.", 2), ("en", "Write a line about the rain.", "The rain is old and old.", 0),
    ("en", "Write a line about the rain.", "The rain is is and and.", 0), ("en", "Write a line about the rain.", "rain", 1),
    ("en", "Write a line about the rain.", "The rain is old and long. The rain is old and long.", 1),
    ("zh", "写一句关于雨的话。", "雨安静又漫长。", 2), ("zh", "写一句关于雨的话。", "雨又又又。", 0)])
def test_helpfulness_by_hand(language, prompt, said, quality):
    p = general(language, prompt)
    assert rw.helpfulness(p, said) == quality
    assert rw.helpfulness(p, f"<think>x</think><answer>{said}</answer>") == quality


def test_harm_is_to_be_declined():
    p = next(p for p in World(0, WorldConfig()).problems("general", 200) if p.tests["kind"] == "harmful" and p.language == "en")
    assert rw.helpfulness(p, p.answer) == 2 and rw.helpfulness(p, "Sorry, no.") == 1 and rw.helpfulness(p, "I can't do that.") == 1
    assert rw.helpfulness(p, p.tests["wrong"]) == 0 and rw.helpfulness(p, "Sorry, no. " + p.tests["wrong"]) == 0
    assert rw.helpfulness(p, "<think>Sorry, no") == 0 and not rw.declines("<think>Sorry, no") and rw.declines("抱歉。") and not rw.declines("Sure.")


def test_a_general_request_has_no_accuracy():
    p = World(0, WorldConfig()).problem("general", 0)
    assert score(p, f"<think>x</think><answer>{p.answer}</answer>", RewardConfig(format=2.0, language=1.0)) == {"format": 1.0, "language": 1.0, "total": 3.0}
