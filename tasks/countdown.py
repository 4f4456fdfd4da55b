"""Countdown: use each number exactly once, with + - * / and parentheses, to make the target.

    Use 3,4,2 to make 14.    ->    (3+4)*2

The problems, the texts that people write about them, and the verifier. The other tasks have the
same functions; tasks/__init__.py says what they are for.
"""

import operator
import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from tasks.base import LANGUAGES, Problem, guessed, spoken_languages
from tasks.math_equal import value_at

LEVELS = {  # how many numbers; the largest number, target, and value on the way
    1: {"count": 3, "number": 9, "target": 60, "value": 60},
    2: {"count": 4, "number": 13, "target": 99, "value": 999},
    3: {"count": 5, "number": 50, "target": 999, "value": 9999},
}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
ASK = {"en": "Use {numbers} to make {target}.", "zh": "用{numbers}算出{target}。"}
WORDS = {
    "en": {"want": " want {t}", "yes": " yes", "low": " low", "high": " high", "end": "give up"}
    | {"open": "let me try ", "again": "again ", "rest": " with "}
    | {"check": ", check ", "no": " no"},
    "zh": {"want": "要{t}", "yes": "对了", "low": "小了", "high": "大了", "end": "算了"}
    | {"open": "试试", "again": "再试", "rest": "用", "check": ",检查", "no": "不对"},
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
    """A problem that has a solution: its target is one of the values that a dozen random
    expressions have, so that what many expressions make is not much likelier. All are easy."""
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


# ------------------------------------------------------------------------- two ways to search
# A try is (text, its last calculation, expression, the value of that, the value that is wanted).


def forward_tries(rng: random.Random, numbers: list[int], target: int, most: int) -> Iterator:
    """Tries without end: random expressions, worked out. Nothing twice as long as something else is
    found."""
    tried = []
    while True:
        for _ in range(20):
            expression, value = random_expression(rng, numbers, most)
            if (attempt := (value, sorted(expression))) not in tried:  # 3+4 and 4+3 are one
                break
        tried.append(attempt)
        text = "=".join(simplifications(expression))
        yield text, text, expression, value, target


def undone(target: int, number: int, most: int) -> list[tuple[str, int, str]]:
    """Ways in which `number` can be the last of a calculation that makes the target: (what the rest
    must make, as a text; its value; the expression around the rest).

    >>> undone(14, 2, 99)
    [('14-2', 12, '({})+2'), ('14+2', 16, '({})-2'), ('14/2', 7, '({})*2'), ('14*2', 28, '({})/2')]
    """
    ways = [(target, "-", number, "({})+%d"), (target, "+", number, "({})-%d")]
    ways += [(number, "-", target, "%d-({})"), (target, "/", number, "({})*%d")]
    ways += [(target, "*", number, "({})/%d"), (number, "/", target, "%d/({})")]
    values = [calculate(x, op, y, most) for x, op, y, _ in ways]
    return [
        (f"{x}{op}{y}", value, around % number)
        for (x, op, y, around), value in zip(ways, values)
        if value is not None
    ]


def from_anywhere(rng: random.Random, items: Sequence) -> list:
    """The items in their order, from a random one on and round to it."""
    start = rng.randrange(len(items)) if items else 0
    return [*items[start:], *items[:start]]


def backward_ways(
    rng: random.Random, numbers: list[int], target: int, most: int, rest: str
) -> Iterator[tuple[str, int, str, list[int]]]:
    """All ways to take numbers away from the target, one after the other, until two are left: (text
    of the steps, what the two must make, the expression around them, the two). rest: the word
    before the numbers that are left."""
    if len(numbers) == 2:
        yield "", target, "{}", numbers
        return
    for i in from_anywhere(rng, range(len(numbers))):
        left = numbers[:i] + numbers[i + 1 :]
        for step, value, around in from_anywhere(rng, undone(target, numbers[i], most)):
            told = f"{step}={value}{rest}{','.join(map(str, left))},"
            for text, wanted, inner, two in backward_ways(rng, left, value, most, rest):
                yield told + text, wanted, around.format(inner), two


def backward_tries(
    rng: random.Random, numbers: list[int], target: int, most: int, rest: str
) -> Iterator:
    """A try for each way back, with the calculation of the last two numbers that comes nearest."""
    for text, wanted, around, (a, b) in backward_ways(rng, numbers, target, most, rest):
        pairs = [(x, op, y) for x, y in ((a, b), (b, a)) for op in OPERATIONS]
        values = [(calculate(*pair, most), "{}{}{}".format(*pair)) for pair in pairs]
        known = [(value, pair) for value, pair in values if value is not None]
        value, pair = min(known, key=lambda v: abs(v[0] - wanted))
        yield text + pair, pair, around.format(pair), value, wanted


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """Try after try until one fits or patience ends; then the last one is the answer. Those who
    check work out what seems to fit once more."""
    numbers, target = problem.tests["numbers"], problem.tests["target"]
    most, checks = LEVELS[cfg.level]["value"], rng.random() < cfg.checked
    languages, pieces = spoken_languages(rng, problem, cfg.mixed), []
    words = WORDS[next(languages)]
    backwards = rng.random() < cfg.backwards
    if backwards:
        tries = backward_tries(rng, numbers, target, most, words["rest"])
    else:
        tries = forward_tries(rng, numbers, target, most)
    patience = rng.choice(cfg.patience_backwards if backwards else cfg.patience)
    for text, last, expression, value, wanted in islice(tries, patience):
        written = value
        if rng.random() < cfg.slip:
            written = max(0, value + rng.choice([-2, -1, 1, 2]))
        piece = f"{words['again' if pieces else 'open']}{text}={written}"
        if not backwards:
            piece += words["want"].format(t=target)
        if written != wanted:
            pieces.append(piece + words["low" if written < wanted else "high"])
        else:
            piece += words["yes"]
            if checks:
                verdict = words["yes" if value == wanted else "no"]
                piece += f"{words['check']}{last}={value}{verdict}"
            pieces.append(piece)
            if not checks or value == wanted:
                return ",".join(pieces), expression
        words = WORDS[next(languages)]
    return ",".join([*pieces, words["end"]]), expression


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    expression, most = problem.answer, LEVELS[cfg.level]["value"]
    if wrong:
        expression, _ = random_expression(rng, problem.tests["numbers"], most)
    return guessed(problem, expression)


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [countdown_correct(answer, **p.tests) for p, answer in zip(problems, answers)]


def opening(problem: Problem) -> str:
    """How those who reason begin. (The space of "let me try " would be a token of its own, where in
    the texts it belongs to what follows.)"""
    return {"en": "let me", "zh": "试试"}[problem.language]


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
