"""Countdown: use each number exactly once, with + - * / and parentheses, to make the target.

    Use 3,4,2 to make 14.    ->    (3+4)*2

The problems, the texts that people write about them, and the verifier, as in every task
(tasks/__init__.py): data.py makes problems with `problem` and texts with `reasoned` and `guess`,
and hashes `content` to decide between train, dev and test, so that what is one problem is in one
split; `judge` is the reward; `opening`, if there is one, begins a base's response (decompose.py).
"""

import operator
import random
import re
from collections.abc import Iterator
from itertools import islice

from tasks.base import LANGUAGES, Problem, guessed, spoken_languages
from tasks.math_value import value_at

LEVELS = {  # how many numbers; the largest number, target, and value on the way
    1: {"count": 3, "number": 9, "target": 60, "value": 60},
    2: {"count": 4, "number": 9, "target": 60, "value": 60},
    3: {"count": 5, "number": 50, "target": 999, "value": 9999},
}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
ASK = {"en": "Use {numbers} to make {target}.", "zh": "用{numbers}算出{target}。"}
WORDS = {
    "en": {"open": "let me try ", "again": "again ", "want": " want {t}", "end": "give up"}
    | {"low": " low", "high": " high", "yes": " yes"},
    "zh": {"open": "试试", "again": "再试", "want": "要{t}", "end": "算了"}
    | {"low": "小了", "high": "大了", "yes": "对了"},
}


def calculate(x: int, op: str, y: int, most: int) -> int | None:
    """x op y, if it is a whole number from 0 to `most`."""
    if (op == "-" and x < y) or (op == "/" and (y == 0 or x % y)):
        return None
    value = OPERATIONS[op](x, y)
    return value if value <= most else None


def random_expression(rng: random.Random, numbers: list[int], most: int) -> tuple[str, int]:
    """A random expression of all the numbers, and its value; values on the way are 0 to `most`."""
    while True:
        items = [(str(n), n) for n in numbers]
        while len(items) > 1:  # join two of them
            a, x = items.pop(rng.randrange(len(items)))
            b, y = items.pop(rng.randrange(len(items)))
            op = rng.choice("+-*/")
            if (value := calculate(x, op, y, most)) is None:
                break  # start again
            items.append((f"({a}{op}{b})" if items else f"{a}{op}{b}", value))
        else:
            return items[0]


def problem(rng: random.Random, level: int, easy: bool = False) -> Problem:
    """A problem that has a solution: its target is one of the different values of a dozen random
    expressions, so that one which many of them make is hardly favoured. `easy` changes nothing."""
    sizes, language, found = LEVELS[level], rng.choice(LANGUAGES), {}
    while not found:
        numbers = [rng.randint(1, sizes["number"]) for _ in range(sizes["count"])]
        drawn = (random_expression(rng, numbers, sizes["value"]) for _ in range(12))
        found = {value: text for text, value in drawn if 1 <= value <= sizes["target"]}
    target = rng.choice(list(found))
    prompt = ASK[language].format(numbers=",".join(map(str, numbers)), target=target)
    tests = {"numbers": numbers, "target": target}
    return Problem(prompt, found[target], "countdown", language, tests)


def content(problem: Problem) -> str:
    """The numbers alone: no text holds a solved expression of held-out numbers."""
    return f"countdown {sorted(problem.tests['numbers'])}"


def simplifications(expression: str) -> list[str]:
    """An expression, its parentheses worked out one by one: (6+(5-3))/4, (6+2)/4, 8/4."""
    forms = [expression]
    while inner := re.search(r"\((\d+)([-+*/])(\d+)\)", forms[-1]):
        value = OPERATIONS[inner[2]](int(inner[1]), int(inner[3]))
        forms.append(forms[-1][: inner.start()] + str(value) + forms[-1][inner.end() :])
    return forms


def tries(rng: random.Random, numbers: list[int], most: int) -> Iterator[tuple[str, int]]:
    """(random expression, its value) without end; nothing twice while something else is found."""
    tried = []
    while True:
        for _ in range(20):
            expression, value = random_expression(rng, numbers, most)
            if (attempt := (value, sorted(expression))) not in tried:  # one value, same characters
                break
        tried.append(attempt)
        yield expression, value


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """Try after try until one fits or patience ends; the last is the answer. cfg: WorldConfig."""
    numbers, target = problem.tests["numbers"], problem.tests["target"]
    languages, pieces = spoken_languages(rng, problem, cfg.mixed), []
    searched = tries(rng, numbers, LEVELS[cfg.level]["value"])
    for expression, value in islice(searched, rng.choice(cfg.patience)):
        words = WORDS[next(languages)]
        if rng.random() < cfg.slip:
            value = max(0, value + rng.choice([-2, -1, 1, 2]))
        verdict = "low" if value < target else "high" if value > target else "yes"
        worked = "=".join([*simplifications(expression), str(value)])
        piece = words["again" if pieces else "open"] + worked
        pieces.append(piece + words["want"].format(t=target) + words[verdict])
        if value == target:
            return ",".join(pieces), expression
    return ",".join([*pieces, WORDS[next(languages)]["end"]]), expression


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    """A solution, or (`wrong`) a random expression, which is right about one time in ten."""
    expression, most = problem.answer, LEVELS[cfg.level]["value"]
    if wrong:
        expression, _ = random_expression(rng, problem.tests["numbers"], most)
    return guessed(problem, expression)


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [countdown_correct(answer, **p.tests) for p, answer in zip(problems, answers)]


def opening(problem: Problem) -> str:
    """How those who reason begin. (Without "try": in the texts the token before a digit is " try ",
    with both spaces.)"""
    return {"en": "let me", "zh": "试试"}[problem.language]


# Numbers with one of + - * / between each two, and parentheses around them; signs and LaTeX as
# models from elsewhere write them
_OPERAND = r"[(\[{\s]*[0-9]+[)\]}\s]*"
_EXPRESSION = re.compile(rf"{_OPERAND}(?:[-+*/]{_OPERAND})*")
_SIGNS = str.maketrans("×·⋅＊÷／−－＋（）＝０１２３４５６７８９", "****//--+()=0123456789")
_LATEX = [(r"\\(?:left|right)|\\[,;! ()\[\]]|\$", " "), (r"\\times|\\cdot", "*"), (r"\\div", "/")]
_LATEX += [(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"([\1]/[\2])")] * 4  # also nested


def countdown_correct(expression: str, numbers: list[int], target: int) -> bool:
    """Whether an expression of + - * / and parentheses uses each number exactly once and makes the
    target, exactly. LaTeX, "= target" and "target =" are allowed; anything else (powers, decimals,
    names, a sign before a number) is wrong. The text is never run as code."""
    for latex, plain in _LATEX:
        expression = re.sub(latex, plain, expression)
    left, equals, right = expression.translate(_SIGNS).partition("=")
    if equals and left.strip() == str(target):
        left, right = right, left
    if equals and right.strip() != str(target):
        return False
    tokens = re.findall(r"[0-9]+|\S", left)
    if len(tokens) > 8 * len(numbers) + 8 or any(len(t) > 20 for t in tokens):
        return False  # longer than any honest expression
    used = sorted(map(int, re.findall("[0-9]+", left)))
    if used != sorted(numbers) or not _EXPRESSION.fullmatch(left):
        return False
    value = value_at(left, 0)  # None if the parentheses do not match, or for a division by zero
    return value is not None and value.entries[0] == target
