"""Rejection sampling: which of a model's responses teach the next model.

The filters stand for those of DeepSeek-R1 [2501.12948v1, section 2.3.3], which drop wrong
answers, mixed languages and thinking that is hard to read.
"""

import os
import re
from collections import Counter
from dataclasses import asdict, replace

import eval as evaluation
import inputs
import rewards as rw
from data import Problem
from lib import files
from lib.errors import UserError
from lib.run import Journal, fingerprint


def harvest(folder, problems, samples, most, cfg, path: str, seed: int, judge=None) -> list[dict]:
    """Sample the model in a folder and choose up to `most` clean, different responses to a problem,
    in readable form, as {"prompt", "response", "task"}. They are saved in the JSONL file `path`; if
    it exists, they are read from there. A stop loses one batch of samples at most.

    Prints what each filter removed. judge (a preference.Judge): of general requests the responses
    that both reward models find good are clean; without a judge none is.
    """
    if os.path.exists(path):
        return inputs.read_rows(path)
    drawn, journal = sampled(folder, problems, samples, cfg, path, seed)
    if judge:
        texts = [s["response"] for s in drawn]
        for s, scores in zip(drawn, judge([problems[s["problem"]] for s in drawn], texts)):
            if problems[s["problem"]].task == "general":
                # a rule of thumb for "helpful", whose zero no pair has fixed (preference.py)
                s["correct"] = all(score > 0.5 for score in scores.values())
    dropped, rows = Counter(), []
    for i, p in enumerate(problems):
        chosen = clean(p, drawn[i * samples : (i + 1) * samples], most, dropped)
        rows += [{"prompt": p.prompt, "response": text, "task": p.task} for text in chosen]
    reasons = ", ".join(f"{n} {why}" for why, n in dropped.most_common())
    where = f", in {path}" if rows else ""
    print(f"{len(drawn)} responses of {folder}: {reasons}; {len(rows)} kept{where}", flush=True)
    if not rows:
        problem = f"not one response of {folder} was clean enough to learn from"
        raise UserError(f"{problem}: train it longer first")
    files.write_lines(path, rows)
    journal.remove()
    return inputs.read_rows(path)  # the main process's, on all


def sampled(folder, problems, samples, cfg, path: str, seed: int) -> tuple[list[dict], Journal]:
    """Scored responses of the model in a folder, `samples` to each problem, at temperature 1,
    whatever the table's is; and the journal that keeps them until the file `path` is written."""
    ways = replace(cfg.eval, k=samples, temperature=1.0, top_p=1.0, begun=False)
    cfg, sets = replace(cfg, eval=ways), {"all tasks": problems}
    settings = {"seed": seed, "eval": asdict(cfg.eval), "problems": fingerprint(problems)}
    journal = Journal(path, settings | cfg.asked | {"model": folder})
    reports = evaluation.evaluate_folder(cfg, folder, sets, seed, f"sampling {folder}", journal)
    return reports["all tasks"].samples, journal


def clean(problem: Problem, samples: list[dict], most: int, dropped: Counter) -> list[str]:
    """Up to `most` clean, different responses in readable form; counts in `dropped` why others are
    not among them."""
    chosen: list[str] = []
    for s in samples:
        why = flaw(problem, s["response"], s["correct"])
        if not why:
            text = readable(problem, s["response"])
            if text in chosen:
                why = "same as another"
            elif len(chosen) == most:
                why = "enough of this problem"
            else:
                chosen.append(text)
        if why:
            dropped[why] += 1
    return chosen


def flaw(problem: Problem, text: str, right: bool) -> str:
    """The first filter that a response fails, or "" if it is clean. "unfounded": a program or an
    expression that its thinking does not hold, spelt as the world's texts do, or the answer to a
    puzzle whose people were not put in order. One guess in three is right, and would teach that
    reasons do not matter. "repetition": a piece of the thinking, between commas outside
    parentheses, that follows itself or comes three times."""
    if not right:
        return "wrong"
    if not rw.format_reward(text):
        return "form"
    thinking = rw.thinking(text)
    if rw.language_consistency(thinking, problem.language) < 1.0:
        return "language"
    rows = re.findall(r"(?<![A-Z>])[A-Z](?:>[A-Z])+", thinking)  # of people, such as A>C>B
    if problem.task == "logic" and rows[-1:] != [">".join(problem.tests["order"])]:
        return "unfounded"
    if problem.task in ("code", "countdown"):
        found = rw.extract_answer(text).rpartition("return ")[2]  # a program's expression
        if "".join(found.split()) not in "".join(thinking.split()):
            return "unfounded"
    pieces = [piece.strip() for piece in re.split(r",(?![^()]*\))", thinking)]
    pieces = [piece for piece in pieces if not piece.isdigit()]  # of a list of numbers
    twice = any(a == b for a, b in zip(pieces, pieces[1:]))
    return "repetition" if twice or max(Counter(pieces).values(), default=0) > 2 else ""


def readable(problem: Problem, text: str) -> str:
    """A clean response with its answer as a sentence in the problem's language."""
    if problem.task == "general":
        return text
    sentence = {"en": "The answer is {}.", "zh": "答案是{}。"}[problem.language]
    answer = sentence.format(rw.extract_answer(text))
    return f"<think>{rw.thinking(text).strip()}</think><answer>{answer}</answer>"
