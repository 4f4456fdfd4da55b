"""Responses in a file, a JSON line for each with its problem and verdict: eval.py writes them, and
judges them again with --rescore."""

from dataclasses import asdict

from lib import files
from lib.errors import UserError
from tasks.base import Problem

KINDS = {"model": str, "k": int, "problem": int, "response": str, "length": int, "finished": bool}


def save(rows: list, sets: list[list[Problem]], path: str) -> None:
    """The samples of rows (model, eval.Report), each of which answers a set of problems."""
    lines = []
    for (name, report), problems in zip(rows, sets):
        heads = [{"model": name, "k": report.k, "question": asdict(p)} for p in problems]
        lines += [heads[s["problem"]] | s for s in report.samples]
    files.write_lines(path, lines)


def read(path: str) -> list[tuple[str, int, list[Problem], list[tuple]]]:
    """(model, k, problems, texts as eval.score_texts takes them) of each model and task in a file
    that save() wrote. UserError if the file is not whole."""

    def parse(s: dict) -> tuple:
        problem = Problem(**s["question"])
        fit = all(type(s[name]) is kind for name, kind in KINDS.items()) and s["k"] > 0
        fit &= type(problem.answer) is type(problem.task) is str
        fit &= problem.task != "countdown" or {"numbers", "target"} <= set(problem.tests)
        if not fit:
            raise ValueError
        text = s["problem"], s["response"], s["length"], s["finished"]
        return (s["model"], problem.task, s["k"]), problem, text

    groups, out = {}, []
    for key, problem, text in files.read_lines(path, "a response that eval.py wrote", parse):
        groups.setdefault(key, []).append((problem, text))
    for (name, task, k), found in groups.items():
        places = [text[0] for _, text in found]
        if len(found) % k or places != [i // k for i in range(len(found))]:
            why = f"{len(found)} responses of {name} to '{task}' are not {k} a problem"
            raise UserError(f"{path}: {why}: restore the file from a copy")
        out.append((name, k, [problem for problem, _ in found[::k]], [text for _, text in found]))
    return out
