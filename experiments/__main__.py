"""Findings of the paper and of the work around it as one-command experiments.

    python -m experiments list            # all of them, with what they take
    python -m experiments ppo             # three seeds: runs/results/ppo.json and ppo.png
    python -m experiments ppo --quick     # whether it runs, in minutes; too short to show anything
    python -m experiments table           # claim, paper's figure, ours, verdict: of results/
    python -m experiments table --check   # do the figures of the seeds give the stored ones again?
    python -m experiments ppo --out results     # the same as a new version of the stored result

An experiment runs the recipes as their own commands, or short runs from their base models. Runs
that are there are not made again: after an interruption, the same command continues.
"""

import lib.start  # noqa: F401

import math
import os
import re
import sys

import config
from experiments.behaviour import hacking, passk, search
from experiments.common import COLUMNS, RULE, Plan, over_seeds, spread
from experiments.controls import controls
from experiments.recipes import claims_of, distill, language, longer, r1, zero
from experiments.settings import ablations, algorithms, architecture, lora, ppo, stale
from experiments.training_data import few, generalise, texts
from lib import cli, files, report
from lib.errors import UserError, shortened
from lib.stats import discoveries

ALL = [zero, r1, longer, language, distill, ppo, algorithms, ablations, stale, few, generalise]
ALL += [lora, texts, passk, search, hacking, architecture, controls]
EXPERIMENTS = {function.__name__: function for function in ALL}


def read_result(path: str) -> dict:
    """An experiment's NAME.json, {} if there is none."""
    if not os.path.exists(path):
        return {}
    try:
        result = dict(files.load_json(path))
        return result | {"seeds": list(result.get("seeds", []))}
    except (OSError, ValueError, TypeError):
        raise damaged(path) from None


def damaged(path: str) -> UserError:
    return UserError(f"'{path}' is damaged: restore it, or remove it and run again")


def read_results(folder: str) -> dict[str, tuple[dict, list[dict]]]:
    """name -> (content, its claims, computed again) of a folder's results. UserError if it has
    none, or one is damaged."""
    out = {}
    for name in EXPERIMENTS:
        path = os.path.join(folder, f"{name}.json")
        if result := read_result(path):
            try:
                rows = claims_of(name, result)
            except (LookupError, TypeError, AttributeError, ValueError):
                raise damaged(path) from None
            if not all(column in row for row in rows for column in COLUMNS):
                raise damaged(path)
            out[name] = result, rows
    if not out:
        raise UserError(f"there are no results in '{folder}': correct --out")
    return out


def table(folder: str) -> str:
    """All claims of a folder's results as Markdown, below the rule of their verdicts."""
    rows, found = [], read_results(folder)
    for name, (_, claims) in found.items():
        rows += [row | {"command": f"`python -m experiments {name}`"} for row in claims]
    missing = [f"`python -m experiments {name}`" for name in EXPERIMENTS if name not in found]
    stand = discoveries([row.get("p", 1.0) for row in rows])
    for row, stands in zip(rows, stand):
        row["verdict"] += "" if stands or row["verdict"] == "inconclusive" else " *"
    columns = [*COLUMNS, "command"]
    lines = report.markdown_table(columns, [[row[c] for c in columns] for row in rows])
    return f"{RULE}\n\n{lines}" + (f"\n\nmissing: {', '.join(missing)}" if missing else "")


def check(folder: str) -> list[str]:
    """Where a result's means, intervals or claims are not what the figures of its seeds give."""
    wrong = []
    for name, (result, rows) in read_results(folder).items():
        wrong += [f"{name}: {place}" for place in unequal_spreads(result)]
        checked = "stated" in result or "half" in result  # an earlier version has neither
        runs, stored = result.get("runs", []), result.get("claims", [])
        if checked and len(runs) != len(result["seeds"]):
            wrong.append(f"{name}: {len(result['seeds'])} seeds, not {len(runs)}")
        for part, found in zip(("mean", "half"), over_seeds(runs) if checked else ()):
            kept = result.get(part, {})
            places = {(m, k) for rs in (found, kept) for m, row in rs.items() for k in row}
            unlike = (p for p in places if not same(value(found, *p), value(kept, *p)))
            wrong += [f"{name}: {part} of {model}, {key}" for model, key in sorted(unlike)]
        if rows is stored:
            print(f"{name}: an earlier version wrote it, and its claims are not checked")
        if len(rows) != len(stored):
            wrong.append(f"{name}: {len(stored)} claims, not {len(rows)}")
        for row, kept in zip(rows, stored):
            if any(row[column] != kept.get(column) for column in COLUMNS):
                wrong.append(f"{name}: {row['claim']}")
    return wrong


def value(rows: dict, model: str, figure: str) -> float | str | None:
    return rows.get(model, {}).get(figure, "missing")


def unequal_spreads(content: object, place: str = "") -> list[str]:
    """The places of {"mean", "half", "values"} in a result whose values give others."""
    if isinstance(content, list):
        return [x for i, v in enumerate(content) for x in unequal_spreads(v, f"{place} {i}")]
    if not isinstance(content, dict):
        return []
    if content.keys() == {"mean", "half", "values"}:
        found = spread(content["values"])
        equal = all(same(found[key], content[key]) for key in ("mean", "half"))
        return [] if equal else [place.strip()]
    return [x for k, v in content.items() for x in unequal_spreads(v, f"{place} {k}")]


def same(a: float | str | None, b: float | str | None) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) if numbers else a == b


def run(plan: Plan) -> None:
    """Run an experiment, write its result, print its tables. UserError if that would take the place
    of a result of more seeds."""
    if plan.name not in EXPERIMENTS:
        raise cli.nearest("experiment", plan.name, ["list", "table", *EXPERIMENTS])
    files.make_folder(plan.out)
    path, seeds = plan.result("json"), ",".join(map(str, plan.seeds))
    there = len(read_result(path).get("seeds", []))
    if len(plan.seeds) < there:
        msg = f"'{path}' has {there} seeds, and this run would replace them by {len(plan.seeds)}"
        raise UserError(f"{msg}: give as many --seeds, or another folder with --out")
    command = f"python -m experiments {plan.name} --seeds {seeds}{' --quick' * plan.quick}"
    try:
        content, text = EXPERIMENTS[plan.name](plan)
    except KeyboardInterrupt:
        again = f"the same command, python -m experiments {plan.name} ..."
        print(f"stopped; the work so far is in runs/: go on with {again}", file=sys.stderr)
        sys.exit(130)
    except UserError as e:  # its --out is for results: runs stay in runs/
        told = re.sub(r"(start with|name) another (with )?--out", "move the folder away", str(e))
        raise UserError(told) from None
    content["claims"] = claims_of(plan.name, content)
    files.write_json(path, report.provenance(command) | content)
    print(f"{text}\n\n{RULE}\nfigures: {path}, {plan.result('png')}")


def main() -> None:
    parser = config.Parser(__doc__)
    parser.prog, add = "python -m experiments", parser.add_argument
    add("name", help="an experiment, 'list' or 'table'")
    add("--seeds", help="comma-separated (default 0,1,2; with --quick 0)")
    add("--quick", action="store_true", help="each run in its few-minute form")
    help_text = "folder of the result (default runs/results), or of the table's (default results)"
    add("--out", help=help_text)
    add("--check", action="store_true", help="of the table: compute it again from the seeds")
    args = parser.parse_args()
    with config.user_errors():
        if args.check and args.name != "table":
            raise UserError("--check belongs to table: drop it")
        if args.name in ("list", "table") and (args.seeds or args.quick):
            raise UserError("--seeds and --quick belong to an experiment: drop them")
        if args.name == "list":
            for name, function in EXPERIMENTS.items():
                print(f"{name:14s}{' '.join(function.__doc__.split())}")
        elif args.name == "table" and args.check:
            if wrong := check(args.out or "results"):
                sys.exit("not what the seeds' figures give:\n" + "\n".join(wrong))
            print("the seeds' figures give every stored mean, interval and checked claim again")
        elif args.name == "table":
            print(table(args.out or "results"))
        else:
            seeds = args.seeds or ("0" if args.quick else "0,1,2")
            if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", seeds):
                msg = "--seeds should be numbers below 1e9 with commas between them"
                raise UserError(f"{msg}, not '{shortened(seeds)}'")
            different = list(dict.fromkeys(map(int, seeds.split(","))))
            run(Plan(args.name, different, args.quick, args.out or Plan.out))


if __name__ == "__main__":
    main()
