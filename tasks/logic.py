"""Logic: who is the tallest, or the shortest, of a row of people?

B is taller than A. C is shorter than A. Who is shortest?    ->    C
"""

import random

from tasks.base import LANGUAGES, PHRASES, Problem, by_value, guessed, spoken_languages

LEVELS = {1: {"people": (3, 4)}, 2: {"people": (4, 5)}, 3: {"people": (5, 6)}}
NAMES = "ABCDEFGHIJ"
TALLER = ("{a} is taller than {b}. ", "{a}比{b}高。")
SHORTER = ("{b} is shorter than {a}. ", "{b}比{a}矮。")
TALLEST = ("Who is tallest?", "谁最高?")
SHORTEST = ("Who is shortest?", "谁最矮?")
WORDS = {"en": {"over": " over ", "so": " so "}, "zh": {"over": "高过", "so": "所以"}}


def problem(rng: random.Random, level: int, easy: bool = False) -> Problem:
    lang, tallest = rng.randrange(2), rng.random() < 0.5
    order = rng.sample(NAMES, rng.randint(*LEVELS[level]["people"]))  # from the tallest down
    facts = list(zip(order, order[1:]))  # (taller, shorter)
    rng.shuffle(facts)
    prompt = ""
    for a, b in facts:
        prompt += (TALLER if rng.random() < 0.5 else SHORTER)[lang].format(a=a, b=b)
    prompt += (TALLEST if tallest else SHORTEST)[lang]
    answer = order[0 if tallest else -1]
    tests = {"facts": facts, "order": order}
    return Problem(prompt, answer, "logic", LANGUAGES[lang], tests)


def content(problem: Problem) -> str:
    """The order of the people, whatever is told first and asked."""
    return f"logic {problem.tests['order']}"


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """The first fact, then whichever continues an end of the row so far, and the row it makes.
    Those who check see it if they put somebody at the wrong end; of the others some take the
    answer from the wrong end."""
    languages, checks = spoken_languages(rng, problem, cfg.mixed), rng.random() < cfg.checked
    facts = list(problem.tests["facts"])
    taller, shorter = facts.pop(0)
    row, pieces = [taller, shorter], [taller + WORDS[next(languages)]["over"] + shorter]
    while facts:
        taller, shorter = next(f for f in facts if f[0] == row[-1] or f[1] == row[0])
        facts.remove((taller, shorter))
        if taller == row[-1]:
            longer, wrong = [*row, shorter], [shorter, *row]
        else:
            longer, wrong = [taller, *row], [*row, taller]
        language = next(languages)
        piece = taller + WORDS[language]["over"] + shorter + WORDS[language]["so"]
        if checks and rng.random() < cfg.slip:
            piece += ">".join(wrong) + PHRASES[language]["oops"]
        row = longer
        pieces.append(piece + ">".join(row))
    answer = problem.answer
    if not checks and rng.random() < cfg.slip:
        answer = row[0 if answer == row[-1] else -1]
    return ",".join(pieces), answer


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    answer = problem.answer
    if wrong:
        answer = rng.choice([name for name in problem.tests["order"] if name != answer])
    return guessed(problem, answer)


judge = by_value
