"""What all tasks have in common: the problem, the test split, and phrases of the corpus.

The corpus imitates web text, in which people answer in English or Chinese: most tables here and in
the task modules hold pairs (English, Chinese), indexed like LANGUAGES.
"""

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.math_equal import math_equal
from tasks.sandbox import Cases, Suite

LANGUAGES = ("en", "zh")
# benchmarks whose answers are programs: what their problems' `tests` are, for sandbox.passes
PROGRAMS = {"humaneval": Suite, "mbpp": Suite, "stdin": Cases}


@dataclass
class Problem:
    """One question. `tests` is what the verifier needs besides the answer: Countdown's numbers and
    target, the hidden calls and values of a program, or what it reads and prints. For a general
    request `answer` is a good reply and `tests` says what makes one."""

    prompt: str
    answer: str
    task: str
    language: str = "en"
    tests: dict = field(default_factory=dict)


def pairs(table: str) -> list[tuple[str, ...]]:
    """The rows of a table in one line: "red/红, blue/蓝" is [("red", "红"), ("blue", "蓝")]."""
    return [tuple(row.split("/")) for row in table.split(", ")]


NAMES = pairs("Tom/小明, Anna/小红, Ben/小刚, Mia/小丽, Sam/小华, Lily/小芳")

PHRASES = {  # of all tasks; a task module has its own as well
    "en": {"guess": "maybe {a}", "oops": " wait no ", "tail": ". The answer is {a}."},
    "zh": {"guess": "大概{a}", "oops": "等等不对", "tail": "。答案是{a}。"},
}


def split_of(content: str) -> str:
    """The split of a problem, named by its content alone: of five contents three are for training,
    one for choosing settings, one for the last table. Texts are about the first three only."""
    return ("test", "dev", "train", "train", "train")[zlib.crc32(content.encode()) % 5]


def spoken_languages(rng: random.Random, problem: Problem, mixed: float) -> Iterator[str]:
    """The language of each next piece of a thought: the problem's, but a share `mixed` of all
    thoughts changes it on the way. (A generator: it draws nothing before the first piece.)"""
    language, changes = problem.language, rng.random() < mixed
    while True:
        if changes and rng.random() < 0.4:
            language = LANGUAGES[1 - LANGUAGES.index(language)]
        yield language


def guessed(problem: Problem, answer: str) -> tuple[str, str]:
    """(thought, answer) of somebody who does not think: "maybe 7"."""
    return PHRASES[problem.language]["guess"].format(a=answer), answer


def by_value(problems: list[Problem], answers: list[str]) -> list[bool]:
    """The judge of tasks with one right value: a number, a formula, a name."""
    return [math_equal(answer, p.answer) for p, answer in zip(problems, answers)]


_UNFINISHED = re.compile(r"\d\W*[-+*/^%×÷]")  # a number and what is to be done with it


def by_number(problems: list[Problem], answers: list[str]) -> list[bool]:
    """The judge of tasks whose answer is to be worked out: "3+4" is no answer where 7 is."""
    last = [answer.rpartition("=")[2] for answer in answers]
    worked = [not (p.answer.isdigit() and _UNFINISHED.search(a)) for p, a in zip(problems, last)]
    return [right and done for right, done in zip(by_value(problems, answers), worked)]


VALUES = (by_value, by_number)


def by_text(problems: list[Problem], answers: list[str]) -> list[bool]:
    """The judge of tasks whose answer is right in one form only, as where an order is asked for;
    spaces do not count."""
    return ["".join(a.split()) == "".join(p.answer.split()) for p, a in zip(problems, answers)]
