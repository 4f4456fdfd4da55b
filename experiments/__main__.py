"""Findings of the paper and of the work around it as one-command experiments.

    python -m experiments list            # all of them, with what they take
    python -m experiments ppo             # three seeds: results/ppo.json, results/ppo.png
    python -m experiments ppo --quick     # the same in a few minutes: results/ppo-quick.json
    python -m experiments table           # claim, paper's figure, ours, verdict: of all results

An experiment runs the recipes as their own commands, or short runs from their base models. Runs
that are there are not made again: after an interruption, the same command continues.
"""

import os
import re
import subprocess

import config
from experiments.behaviour import countdown, hacking, journey, passk, search
from experiments.common import COLUMNS, RULE, Plan
from experiments.recipes import claims_of, distill, language, r1, zero
from experiments.settings import ablations, algorithms, architecture, ppo, share, size
from lib import files, report
from lib.errors import UserError

ALL = [zero, r1, language, distill, ppo, algorithms, ablations, share]
ALL += [passk, search, journey, countdown, hacking, size, architecture]
EXPERIMENTS = {function.__name__: function for function in ALL}


def table() -> str:
    """All claims of results/*.json as Markdown, below the rule of their verdicts."""
    rows, missing = [], []
    for name in EXPERIMENTS:
        path, command = f"results/{name}.json", f"`python -m experiments {name}`"
        if os.path.exists(path):
            rows += [[*row.values(), command] for row in claims_of(name, files.load_json(path))]
        else:
            missing.append(command)
    lines = report.markdown_table([*COLUMNS, "command"], rows)
    return f"{RULE}\n\n{lines}" + (f"\n\nmissing: {', '.join(missing)}" if missing else "")


def run(name: str, seeds: str, quick: bool) -> None:
    """Run an experiment, write its result, print its tables."""
    if name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        raise UserError(f"there is no experiment '{name}'; the experiments are {known}")
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise UserError(f"--seeds should be numbers with commas between them, not '{seeds}'")
    plan = Plan(name, list(map(int, seeds.split(","))), quick)
    try:
        content, text = EXPERIMENTS[name](plan)
    except subprocess.CalledProcessError as e:
        failed = f"{' '.join(e.cmd)} ended with status {e.returncode}"
        raise UserError(f"{failed}; run the same command again to go on") from None
    content["claims"] = claims_of(name, content)
    command = f"python -m experiments {name} --seeds {seeds}{' --quick' * quick}"
    files.write_json(plan.result("json"), report.provenance(command) | content)
    print(f"{text}\n\n{RULE}\nfigures: {plan.result('json')}, {plan.result('png')}")


def main() -> None:
    parser = config.Parser(__doc__)
    parser.add_argument("name", help="an experiment, 'list' or 'table'")
    parser.add_argument("--seeds", help="comma-separated (default 0,1,2; with --quick 0)")
    parser.add_argument("--quick", action="store_true", help="each run in its few-minute form")
    args = parser.parse_args()
    with config.user_errors():
        if args.name == "list":
            for name, function in EXPERIMENTS.items():
                print(f"{name:14s}{' '.join(function.__doc__.split())}")
        elif args.name == "table":
            print(table())
        else:
            run(args.name, args.seeds or ("0" if args.quick else "0,1,2"), args.quick)


if __name__ == "__main__":
    main()
