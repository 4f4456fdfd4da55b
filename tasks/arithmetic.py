"""Arithmetic: a short story of gains and losses, whose last number is the answer.

Tom has 5 apples, finds 3, sells 2. How many now?    ->    6
"""

import random

from tasks.base import LANGUAGES, NAMES, Problem, by_value, guessed, pairs, spoken_languages

LEVELS = {  # the largest first number, number on the way, and change; how many steps
    1: {"start": 20, "most": 20, "change": 9, "steps": (3, 6)},
    2: {"start": 50, "most": 100, "change": 30, "steps": (4, 12)},
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
CORRECTION = (" wait no, makes {v}", "等等不对,应该是{v}")


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
    return f"arithmetic {problem.tests['start']} {[d for _, d in problem.tests['steps']]}"


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """Step by step. A slip is mostly corrected, else the error goes on to the answer."""
    languages = spoken_languages(rng, problem, cfg.mixed)
    value = problem.tests["start"]
    pieces = [START[LANGUAGES.index(next(languages))].format(v=value)]
    for verb, change in problem.tests["steps"]:
        lang = LANGUAGES.index(next(languages))
        value += change
        written = value
        if rng.random() < cfg.slip:
            written = max(0, value + rng.choice([-2, -1, 1, 2]))
        pieces.append(STEP[lang].format(verb=verb[lang], d=abs(change), v=written))
        if written != value:
            if rng.random() < cfg.uncaught:
                value = written
            else:
                pieces.append(CORRECTION[lang].format(v=value))
    return ",".join(pieces), str(value)


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    answer = int(problem.answer)
    if wrong:
        answer = max(0, answer + rng.choice([-3, -2, -1, 1, 2, 3]))
    return guessed(problem, str(answer))


judge = by_value
