"""What a response did, read off by rule: how it searched, erred and checked. Nothing of this is
rewarded; it shows what reinforcement learning changed (decompose.py).

    steps      worked steps (Countdown: tries); none: the answer was blurted out, or there is none
    errors     of them wrong ones: a wrong value; a try that is wrongly taken for a hit or for none
    checks     sums: results worked out once more
    found      checks that said no
    righted    of those the steps that were wrong and are right afterwards
    hits       Countdown: tries that make the target, whatever is said of them
    repeated   Countdown: tries that stand before in the same words
"""

import random
import re
from collections import Counter
from collections.abc import Iterator

from tasks import countdown
from tasks.arithmetic import GAIN, LOSE
from tasks.base import PHRASES, Problem

_NUMBER = r"\d{1,9}"  # longer ones are a model's stammer
_VERBS = {verb: sign for table, sign in ((GAIN, 1), (LOSE, -1)) for row in table for verb in row}
# " finds 3 makes 8", with or without " check 8-3=5 yes" or " check 9-3=6 no again makes 8"
_STEP = re.compile(
    rf"(?P<verb>{'|'.join(_VERBS)}) ?(?P<change>{_NUMBER})(?: makes |就是)(?P<value>-?{_NUMBER})"
    rf"(?:(?P<check>(?: check |检查)-?{_NUMBER}[-+]{_NUMBER}=-?{_NUMBER})"
    rf"(?:(?P<no> no|不对)(?:(?: again makes |再算就是)(?P<again>-?{_NUMBER}))?)?)?"
)
_TRY = re.compile(
    r"(?P<tried>[\d()+\-*/]{3,60})=[\d()+\-*/=]{1,99}(?: want |要)\d+"
    r"(?P<said> low| high| yes|小了|大了|对了)"
)


def behaviour(problem: Problem, text: str) -> dict[str, int]:
    """Counts by name, of a response to a problem of the world."""
    if problem.task == "arithmetic":
        return of_arithmetic(problem, text)
    if problem.task == "countdown":
        return of_countdown(problem, text)
    guesses = (phrases["guess"].split("{")[0] for phrases in PHRASES.values())
    return {"steps": int(bool(text) and not any(guess in text for guess in guesses))}


def of_arithmetic(problem: Problem, text: str) -> dict[str, int]:
    """A step is wrong if its value is not the one before it with the change that it names. (Whether
    the problem has that change is not looked at.)"""
    out = dict.fromkeys(("steps", "errors", "checks", "found", "righted"), 0)
    for found, wrong, righted in steps_of(problem.tests["start"], text):
        out["steps"] += 1
        out["errors"] += wrong
        out["checks"] += bool(found["check"])
        out["found"] += bool(found["no"])
        out["righted"] += righted
    return out


def steps_of(start: int, text: str) -> Iterator[tuple[re.Match, bool, bool]]:
    """(the words, whether the value is wrong, whether a check found that and put it right) of each
    step of a sum that begins with the number `start`."""
    value = start
    for found in _STEP.finditer(text):
        right = value + _VERBS[found["verb"]] * int(found["change"])
        value = int(found["value"])
        wrong, again = value != right, bool(found["no"] and found["again"])
        if again:
            value = int(found["again"])
        yield found, wrong, wrong and again and value == right


def caught(prompt: str, text: str) -> list[str]:
    """A response to a sum, cut into pieces: every second one is a step that was wrong, and that a
    check found and put right. The first number of a sum's prompt is the one it starts from.

    >>> caught("Tom has 5 eggs, buys 6.", "5, buys 6 makes 1 check 1-6=-5 no again makes 11, yes")
    ['5, ', 'buys 6 makes 1 check 1-6=-5 no again makes 11', ', yes']
    """
    first = re.search(_NUMBER, prompt)
    steps = steps_of(int(first[0]), text) if first else ()
    cuts = [place for found, _, righted in steps if righted for place in found.span()]
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]


def of_countdown(problem: Problem, text: str) -> dict[str, int]:
    out, seen = dict.fromkeys(("steps", "errors", "hits", "repeated"), 0), set()
    for found in _TRY.finditer(text):
        tried, said = found["tried"], found["said"] in (" yes", "对了")
        hit = countdown.countdown_correct(tried, **problem.tests)
        out["steps"] += 1
        out["errors"] += said != hit
        out["hits"] += hit
        out["repeated"] += tried in seen
        seen.add(tried)
    return out


def summary(samples: list[dict]) -> dict:
    """How a model works: the share that reasons, accuracy with and without; and `did`: of what
    reasons and ends, the mean of each count, with hits and repetitions a try, and what checks are
    worth. samples: eval.score_texts's."""
    reasoned = [s for s in samples if s["did"]["steps"] and s["finished"]]
    blurted = [s for s in samples if not s["did"]["steps"]]
    sums = Counter()
    for s in reasoned:
        sums.update(s["did"])
    did = {name: total / len(reasoned) for name, total in sums.items()}
    for name in ("hits", "repeated"):
        if name in sums:
            did[f"{name}_a_try"] = sums[name] / sums["steps"]
    checked = [s for s in reasoned if s["did"].get("checks")]
    rest = [s for s in reasoned if not s["did"].get("checks")]
    did |= {"right_if_checked": right(checked), "right_if_not": right(rest)}
    did["checking_pays"] = checking_pays(checked, rest)
    out = {"reasoned": 1 - len(blurted) / len(samples), "right_reasoned": right(reasoned)}
    return out | {"right_blurted": right(blurted), "did": did}


def right(samples: list[dict]) -> float | None:
    return sum(s["correct"] for s in samples) / len(samples) if samples else None


def checking_pays(checked: list[dict], rest: list[dict]) -> float | None:
    """How many more of the checked responses are right, at equal difficulty: the mean difference
    over the problems that have responses of both kinds."""
    both = {s["problem"] for s in checked} & {s["problem"] for s in rest}
    differences = [
        right([s for s in checked if s["problem"] == p])
        - right([s for s in rest if s["problem"] == p])
        for p in both
    ]
    return sum(differences) / len(differences) if differences else None


def blind_hits(problem: Problem, level: int, count: int = 200) -> float:
    """The share of random expressions that make a Countdown problem's target."""
    rng, most = random.Random(problem.prompt), countdown.LEVELS[level]["value"]
    numbers, target = problem.tests["numbers"], problem.tests["target"]
    drawn = (countdown.random_expression(rng, numbers, most) for _ in range(count))
    return sum(value == target for _, value in drawn) / count
