"""Code: write a one-line function, which is called with hidden inputs in the sandbox.

Write f(x): add 3, then multiply by 2.    ->    def f(x): return (x+3)*2
"""

import random

from tasks import sandbox
from tasks.base import LANGUAGES, PHRASES, Problem, guessed, spoken_languages

LEVELS = {1: {"steps": (2, 3)}, 2: {"steps": (3, 5)}, 3: {"steps": (4, 8)}}  # how many steps
OPERATIONS = {  # in both languages, as Python, and as a function
    "add": ("add {a}", "加{a}", "{x}+{a}", lambda x, a: x + a),
    "subtract": ("subtract {a}", "减{a}", "{x}-{a}", lambda x, a: x - a),
    "multiply": ("multiply by {a}", "乘{a}", "{x}*{a}", lambda x, a: x * a),
    "rest": ("take the rest by {a}", "取余{a}", "{x}%{a}", lambda x, a: x % a),
    "least": ("take at least {a}", "至少取{a}", "max({x},{a})", max),
}
ASK, NEXT = ("Write f(x): {}.", "写出f(x):{}。"), (", then ", ",再")
HEAD = "def f(x): return "
WORDS = {"en": {"first": "first ", "then": "then "}, "zh": {"first": "先", "then": "再"}}
Steps = list[tuple[str, int]]  # (name of the operation, its number)


def expressions(steps: Steps) -> list[str]:
    """The Python expression after each step: x+3 and (x+3)*2 for adding 3, then doubling."""
    out, x, closed = [], "x", True  # closed: x needs no parentheses
    for name, a in steps:
        if not closed and name in ("multiply", "rest"):
            x = f"({x})"
        x = OPERATIONS[name][2].format(x=x, a=a)
        closed = name == "least"
        out.append(x)
    return out


def run_steps(steps: Steps, inputs: list[int]) -> list[int]:
    """What a program makes of each input, computed without running text as code."""
    values = list(inputs)
    for name, a in steps:
        values = [OPERATIONS[name][3](v, a) for v in values]
    return values


def problem(rng: random.Random, level: int, easy: bool = False) -> Problem:
    """A program in which every step changes some input's value, and that is no constant."""
    inputs = rng.sample(range(-20, 0), 4) + rng.sample(range(40), 6)
    while True:
        count = rng.randint(*LEVELS[level]["steps"])
        steps = [(rng.choice(list(OPERATIONS)), rng.randint(2, 9)) for _ in range(count)]
        values = [run_steps(steps[:i], inputs) for i in range(count + 1)]
        if len(set(values[-1])) > 1 and all(x != y for x, y in zip(values, values[1:])):
            break
    lang, program = rng.randrange(2), expressions(steps)
    phrases = [OPERATIONS[name][lang].format(a=a) for name, a in steps]
    prompt = ASK[lang].format(NEXT[lang].join(phrases))
    calls = [("f", [i]) for i in inputs]
    tests = {"content": steps, "program": program, "calls": calls, "values": values[-1]}
    return Problem(prompt, HEAD + program[-1], "code", LANGUAGES[lang], tests)


def content(problem: Problem) -> str:
    return f"code {problem.tests['content']}"


def reasoned(rng: random.Random, problem: Problem, cfg) -> tuple[str, str]:
    """The program built up step by step, sometimes with a slip, which those who check see."""
    languages, checks = spoken_languages(rng, problem, cfg.mixed), rng.random() < cfg.checked
    steps, pieces = list(problem.tests["content"]), []
    for i, (name, a) in enumerate(steps):
        language = next(languages)
        piece = WORDS[language]["then" if pieces else "first"]
        if rng.random() < cfg.slip:
            steps[i] = (rng.choice([n for n in OPERATIONS if n != name]), a)
            if checks:
                piece += expressions(steps[: i + 1])[-1] + PHRASES[language]["oops"]
                steps[i] = (name, a)
        pieces.append(piece + expressions(steps[: i + 1])[-1])
    return ",".join(pieces), HEAD + expressions(steps)[-1]


def guess(rng: random.Random, problem: Problem, cfg, wrong: bool) -> tuple[str, str]:
    """A wrong one forgets a step or mistakes its number."""
    answer, tests = problem.answer, problem.tests
    inputs = [x for _, (x,) in tests["calls"]]
    while wrong and answer == problem.answer:
        steps = list(tests["content"])
        i = rng.randrange(len(steps))
        name, _ = steps.pop(i)
        if rng.random() < 0.5:
            steps.insert(i, (name, rng.randint(2, 9)))
        if steps and run_steps(steps, inputs) != tests["values"]:
            answer = HEAD + expressions(steps)[-1]
    return guessed(problem, answer.removeprefix(HEAD))[0], answer


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    """Whether each program returns the right value for each hidden input; they run in parallel."""
    jobs = [(answer, p.tests["calls"]) for p, answer in zip(problems, answers)]
    out = []
    for p, results in zip(problems, sandbox.in_parallel(sandbox.run_python, jobs)):
        pairs = zip(results, p.tests["values"], strict=True)
        out.append(all(r.ok and sandbox.same(r.value, value) for r, value in pairs))
    return out
