"""How much longer a short run takes beside other programs: results/busy.json.

    python bench/check_busy.py                  # seconds alone, beside one and beside two programs
    python bench/check_busy.py --before FOLDER  # and alone, in turn, with an older copy

The other programs count without end, each in a process. Every run is a new one in a folder of its
own; they take turns, so that what the machine does meanwhile concerns all alike.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import ROOT, parser, save

SHORT = "--quick --sft.tokens 300000 --grpo.steps 4 --eval.problems 16"


def count() -> None:
    while True:
        pass


def seconds(project: str, busy: int) -> float:
    """Of train_zero.py in a copy of the project, beside so many programs that do nothing useful."""
    others = [multiprocessing.Process(target=count, daemon=True) for _ in range(busy)]
    for process in others:
        process.start()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "train_zero.py", *SHORT.split(), "--out", f"{out}/run"]
        start = time.perf_counter()
        subprocess.run(words, cwd=project, env=environment, check=True, capture_output=True)
        took = time.perf_counter() - start
    for process in others:
        process.kill()
    return took


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--before", help="folder of an older copy of the project")
    flags.add_argument("--rounds", type=int, default=2)
    args = flags.parse_args()
    cases = {"alone": (ROOT, 0), "beside one": (ROOT, 1), "beside two": (ROOT, 2)}
    if args.before:
        cases["alone, before"] = (args.before, 0)
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.rounds):
        for name, case in cases.items():
            taken[name].append(seconds(*case))
            print(f"{name}: {taken[name][-1]:.1f} s", flush=True)
    alone = statistics.median(taken["alone"])
    ratios = {name: statistics.median(times) / alone for name, times in taken.items()}
    print(", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    content = {"run": f"train_zero.py {SHORT}", "seconds": taken, "times as long": ratios}
    command = "python bench/check_busy.py" + " --before FOLDER" * bool(args.before)
    print("figures:", save("busy", content, f"{command} --rounds {args.rounds}"))


if __name__ == "__main__":
    main()
