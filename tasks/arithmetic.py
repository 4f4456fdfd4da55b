"""Arithmetic: a short story of gains and losses, whose last number is the answer.

Tom has 5 apples, finds 3, sells 2. How many now?    ->    6
"""

import random

from tasks.base import LANGUAGES, NAMES, Problem, by_number, guessed, pairs, spoken_languages

LEVELS = {  # the largest first number, number on the way, and change; how many steps
    1: {"start": 30, "most": 40, "change": 9, "steps": (3, 5)},
    2: {"start": 30, "most": 40, "change": 9, "steps": (6, 12)},
    3: {"start": 500, "most": 1000, "change": 300, "steps": (6, 20)},
}
THINGS = pairs("apples/苹果, books/书, coins/硬币, eggs/鸡蛋, cards/卡片, stones/石头")
GAIN = pairs("finds/捡到, buys/买来, gets/得到, wins/赢了")
LOSE = pairs("loses/丢了, sells/卖掉, gives/送出, breaks/打破")
ASK = (
    "{name} has {start} {thing}{story}. How many now?",
    "{name}有{start}个{thing}{story}。现在几个?",
)
EVENT = (", {verb} {d}", ",{verb}{d}")
START = ("{v} at first", "起初{v}")
STEP = (" {verb} {d} makes {v}", "{verb}{d}就是{v}")
CHECK = (" check {v}{op}{d}={before}", "检查{v}{op}{d}={before}")  # backwards, from the result
VERDICT = {True: (" yes", "对"), False: (" no again makes {v}", "不对再算就是{v}")}


def problem(rng: random.Random, level: int, easy: bool = False) -> Problem:
    """A problem; an easy one may have as few as two steps."""
    limits, lang = LEVELS[level], rng.randrange(2)
    value = start = rng.randint(1, limits["start"])
    steps = []  # (verb in both languages, signed change)
    fewest, most = limits["steps"]
    for _ in range(rng.randint(2 if easy else fewest, most)):
        room = {+1: limits["most"] - value, -1: value}
        sign = rng.choice([s for s in (+1, -1) if room[s] > 0])
        change = sign * rng.randint(1, min(limits["change"], room[sign]))
        steps.append((rng.choice(GAIN if sign > 0 else LOSE), change))
        value += change
    name, thing = rng.choice(NAMES)[lang], rng.choice(THINGS)[lang]
    story = "".join(EVENT[lang].format(verb=verb[lang], d=abs(d)) for verb, d in steps)
    prompt = ASK[lang].format(name=name, start=start, thing=thing, story=story)
    tests = {"start": start, "steps": steps}
    return Problem(prompt, str(value), "arithmetic", LANGUAGES[lang], tests)


def content(problem: Problem) -> str:
    """The first number and the changes, in any order."""
    return f"arithmetic {problem.tests['start']} {sorted(d for _, d in problem.tests['steps'])}"


def without_carry(value: int, change: int) -> int:
    """The sum of somebody who forgets the carry: 18 + 5 = 13, and 23 - 5 = 28."""
    return value - value % 10 + (value + change) % 10


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """Step by step. Most carries are forgotten, and nobody notices but those who check: they take
    the change back, and see whether the number before comes out."""
    languages, checks = spoken_languages(rng, problem, cfg.mixed), rng.random() < cfg.checked
    value = problem.tests["start"]
    pieces = [START[LANGUAGES.index(next(languages))].format(v=value)]
    for verb, change in problem.tests["steps"]:
        lang, before, d = LANGUAGES.index(next(languages)), value, abs(change)
        right = before + change
        value = without_carry(before, change) if rng.random() < cfg.forgets else right
        if rng.random() < cfg.slip:
            value = max(0, value + rng.choice([-2, -1, 1, 2]))
        piece = STEP[lang].format(verb=verb[lang], d=d, v=value)
        if checks:
            op, back = ("-", value - d) if change > 0 else ("+", value + d)
            piece += CHECK[lang].format(v=value, op=op, d=d, before=back)
            botched = value != right and cfg.botched and rng.random() < cfg.botched
            others = [v for v in (right + 1, right + 2) if v != value]
            again = rng.choice(others) if botched else right
            piece += VERDICT[value == right][lang].format(v=again)
            value = again
        pieces.append(piece)
    return ",".join(pieces), str(value)


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    answer = int(problem.answer)
    if wrong:
        answer = max(0, answer + rng.choice([-3, -2, -1, 1, 2, 3]))
    return guessed(problem, str(answer))


def opening(problem: Problem) -> str:
    """How those who reason begin."""
    return START[LANGUAGES.index(problem.language)].format(v=problem.tests["start"])


judge = by_number
