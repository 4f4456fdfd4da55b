"""Word problems for a small pretrained model: see docs/your-model.md.

    python bench/word_problems.py OUT    # OUT/cold.jsonl, OUT/train.jsonl and OUT/test.jsonl

The world's easier word problems in English: worked examples to begin with (R1's cold start),
problems to train on, and problems with held-out contents.
"""

import os
import random

from common import parser

from data import Problem, World, WorldConfig
from lib.files import write_lines

COUNTS = {"cold": 600, "train": 2000, "test": 400}
MOST = 2  # gains and losses of a problem


def worked(problem: Problem) -> str:
    """5+3=8,8-2=6 as thinking, 6 as the answer."""
    value, steps = problem.tests["start"], []
    for _, change in problem.tests["steps"]:
        steps.append(f"{value}{change:+d}={value + change}")
        value += change
    return f"<think>{','.join(steps)}</think><answer>{value}</answer>"


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("out", help="folder of the three files")
    out, world = flags.parse_args().out, World(0, WorldConfig(tasks=("arithmetic",)))
    os.makedirs(out, exist_ok=True)
    for name, count in COUNTS.items():
        rng, rows = random.Random(name), {}
        while len(rows) < count:
            p = world.draw(rng, "arithmetic", "test" if name == "test" else "train", easy=True)
            if p.language == "en" and len(p.tests["steps"]) <= MOST:
                row = {"prompt": p.prompt + "\n"}
                more = {"answer": p.answer, "task": "arithmetic"}
                rows[p.prompt] = row | ({"response": worked(p)} if name == "cold" else more)
        path = os.path.join(out, f"{name}.jsonl")
        write_lines(path, list(rows.values()))
        print(f"{count} lines: {path}")


if __name__ == "__main__":
    main()
