"""Countdown: use each number exactly once, with + - * / and parentheses, to make the target.

    Use 3,4,2 to make 14.    ->    (3+4)*2

The problems, the texts that people write about them, and the verifier. The other tasks have the
same functions; tasks/__init__.py says what they are for.
"""

import operator
import random
import re

from tasks.base import LANGUAGES, PHRASES, Problem, guessed, spoken_languages
from tasks.math_equal import value_at

LEVELS = {  # how many numbers; the largest number, target, and value on the way
    1: {"count": 3, "number": 6, "target": 24, "value": 99},
    2: {"count": 4, "number": 13, "target": 99, "value": 999},
    3: {"count": 5, "number": 50, "target": 999, "value": 9999},
}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
ASK = {"en": "Use {numbers} to make {target}.", "zh": "用{numbers}算出{target}。"}
WORDS = {
    "en": {"want": " want {t}", "yes": " yes", "low": " low", "high": " high", "end": "give up"},
    "zh": {"want": "要{t}", "yes": "对了", "low": "小了", "high": "大了", "end": "算了"},
}


def random_expression(rng: random.Random, numbers: list[int], most: int) -> tuple[str, int]:
    """A random expression of all the numbers, and its value; values on the way are 0 to `most`."""
    while True:
        items = [(str(n), n) for n in numbers]
        while len(items) > 1:  # join two of them
            a, x = items.pop(rng.randrange(len(items)))
            b, y = items.pop(rng.randrange(len(items)))
            op = rng.choice("+-*/")
            if (op == "-" and x < y) or (op == "/" and (y == 0 or x % y)):
                break  # negative or a fraction: start again
            if (value := OPERATIONS[op](x, y)) > most:
                break
            items.append((f"({a}{op}{b})" if items else f"{a}{op}{b}", value))
        else:
            return items[0]


def problem(rng: random.Random, level: int, easy: bool = False) -> Problem:
    """A problem that has a solution: its target is a random expression's value. All are easy."""
    sizes, language = LEVELS[level], rng.choice(LANGUAGES)
    while True:
        numbers = [rng.randint(1, sizes["number"]) for _ in range(sizes["count"])]
        expression, target = random_expression(rng, numbers, sizes["value"])
        if 1 <= target <= sizes["target"]:
            break
    prompt = ASK[language].format(numbers=",".join(map(str, numbers)), target=target)
    tests = {"numbers": numbers, "target": target}
    return Problem(prompt, expression, "countdown", language, tests)


def content(problem: Problem) -> str:
    return f"countdown {sorted(problem.tests['numbers'])} {problem.tests['target']}"


def simplifications(expression: str) -> list[str]:
    """An expression, its parentheses worked out one by one: (6+(5-3))/4, (6+2)/4, 8/4."""
    forms = [expression]
    while inner := re.search(r"\((\d+)([-+*/])(\d+)\)", forms[-1]):
        value = OPERATIONS[inner[2]](int(inner[1]), int(inner[3]))
        forms.append(forms[-1][: inner.start()] + str(value) + forms[-1][inner.end() :])
    return forms


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """Trial and error: write an expression, work it out, compare with the target, until it fits or
    patience ends. Most authors try something larger after "low" and smaller after "high"."""
    target, most = problem.tests["target"], LEVELS[cfg.level]["value"]
    careless = rng.random() < cfg.careless  # tries at random instead
    pieces, tried, low, high = [], [], -1, most + 1  # low, high: values known to be too low, high
    for _, language in zip(range(cfg.max_tries), spoken_languages(rng, problem, cfg.mixed)):
        words = WORDS[language]
        for _ in range(20):  # nothing twice, as long as something else is found
            expression, value = random_expression(rng, problem.tests["numbers"], most)
            attempt = (value, sorted(expression))  # 3+4 and 4+3 are one
            if (careless or low < value < high) and attempt not in tried:
                break
        tried.append(attempt)
        written = str(value)
        if rng.random() < cfg.slip:
            wrong = max(0, value + rng.choice([-2, -1, 1, 2]))
            written = str(wrong) + PHRASES[language]["oops"].format(v=value)
        piece = "=".join([*simplifications(expression), written]) + words["want"].format(t=target)
        if value == target:
            return ",".join([*pieces, piece + words["yes"]]), expression
        if value < target:
            low = max(low, value)
        else:
            high = min(high, value)
        pieces.append(piece + words["low" if value < target else "high"])
    return ",".join([*pieces, words["end"]]), expression


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    expression, most = problem.answer, LEVELS[cfg.level]["value"]
    if wrong:
        expression, _ = random_expression(rng, problem.tests["numbers"], most)
    return guessed(problem, expression)


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [countdown_correct(answer, **p.tests) for p, answer in zip(problems, answers)]


# Numbers with one of + - * / between each two, and parentheses around them
_OPERAND = r"[(\[{\s]*[0-9]+[)\]}\s]*"
_EXPRESSION = re.compile(rf"{_OPERAND}(?:[-+*/]{_OPERAND})*")
_SIGNS = str.maketrans("×·⋅＊÷／−－＋（）＝", "****//--+()=")
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
