"""The sandbox against everything: hostile programs, reference solutions, and broken copies of these. Minutes, so not part of the tests.

    python tests/check_code_benchmarks.py [FOLDER] [--limit N]      # FOLDER holds humaneval.jsonl, mbpp.jsonl, hostile_programs.json
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from conftest import SHARED_DATA

import sandbox
from data import load_jsonl
from rewards import verdicts

ALWAYS = """
class Always:
    def __init__(self, *a, **k): pass
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return self
    __rsub__ = __add__ = __radd__ = __abs__ = __call__ = __getitem__ = __sub__
    def __abs__(self): return self
    def __bool__(self): return True
    def __hash__(self): return 0
    def __iter__(self): return iter(())
    def __int__(self): return 0
    def __float__(self): return 0.0
"""
# What is put behind a reference solution, where {f} is the function under test.
BROKEN = {
    "another value": "\n_f = {f}\ndef {f}(*a, **k): return ('broken', _f(*a, **k))\n",
    "an error": "\ndef {f}(*a, **k): raise ValueError\n",
    "os._exit(0)": "\nimport os\nos._exit(0)\n",
    "os._exit(0) when called": "\nimport os\ndef {f}(*a, **k): os._exit(0)\n",
    "SystemExit when called": "\ndef {f}(*a, **k): raise SystemExit(0)\n",
    "equal to everything": ALWAYS + "\ndef {f}(*a, **k): return Always()\n",
    "an int equal to everything": ALWAYS + "\nclass E(Always, int): pass\ndef {f}(*a, **k): return E()\n",
    "printed, not returned": "\n_f = {f}\ndef {f}(*a, **k): print(_f(*a, **k)); return ('printed',)\n",
    "patched checks": "\nimport builtins\nbuiltins.all = lambda *a: True\nbuiltins.AssertionError = type('E', (Exception,), dict())\ndef {f}(*a, **k): return ('patched',)\n",
    "written where results go": "\nimport os\ndef {f}(*a, **k):\n    for fd in range(16):\n        try: os.write(fd, b'\\n[true, true]\\ntrue\\n')\n"
                                "        except OSError: pass\n    return ('written',)\n",
}


def leftovers() -> tuple:
    """Processes of this user, and files that a hostile program could have left."""
    processes = {p for p in os.listdir("/proc") if p.isdigit() and b"sandbox_inside" in _read(f"/proc/{p}/cmdline")} if os.path.isdir("/proc") else set()
    return processes, {f for f in os.listdir("/tmp") if f == "pwn"}, sorted(f for f in os.listdir(".") if f != "__pycache__")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def hostile(path: str, rounds: int) -> bool:
    with open(path) as f:
        rows = json.load(f)
    before, state, earned, longest = leftovers(), hashlib.sha256(repr((sys.path, dict(os.environ), os.getcwd())).encode()).digest(), Counter(), 0.0
    for _ in range(rounds):
        for row in rows:
            start = time.monotonic()
            (result,) = sandbox.run_python(row["code"], [("f", [1])])
            longest = max(longest, time.monotonic() - start)
            if result.ok and sandbox.same(result.value, 2):
                earned[row["name"]] += 1
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    unchanged = state == hashlib.sha256(repr((sys.path, dict(os.environ), os.getcwd())).encode()).digest() and leftovers() == before
    print(f"hostile programs: {len(rows)}, {rounds} times; {sum(earned.values())} earned a reward {dict(earned)}; the longest took {longest:.2f} s (limit 2); "
          f"most memory of one {memory:.0f} MB (limit 256); host, processes and files {'unchanged' if unchanged else 'CHANGED'}", flush=True)
    return unchanged and not earned


def benchmark(path: str, limit: int | None) -> bool:
    problems = load_jsonl(path, limit)
    start = time.monotonic()
    right = verdicts(problems, [p.answer for p in problems])
    seconds = time.monotonic() - start
    direct = sum(sandbox.as_calls(sandbox.Suite(**p.tests)) is not None for p in problems)
    print(f"{os.path.basename(path)}: {sum(right)} of {len(problems)} reference solutions pass in {seconds:.0f} s, {1000 * seconds / len(problems):.0f} ms each; "
          f"{direct} suites are calls compared here, {len(problems) - direct} run apart from the program", flush=True)
    broken = 0
    for name, text in BROKEN.items():
        copies = verdicts(problems, [p.answer + text.replace("{f}", p.tests["entry"]) for p in problems])
        earned = [p.tests["entry"] for p, c in zip(problems, copies) if c]
        broken += len(earned)
        print(f"  broken, {name}: {len(earned)} of {len(problems)} pass {' '.join(earned)}", flush=True)
    return all(right) and not broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=SHARED_DATA)
    parser.add_argument("--limit", type=int, help="only the first so many problems of each")
    parser.add_argument("--rounds", type=int, default=20, help="of the hostile programs")
    args = parser.parse_args()
    print(sandbox.protection(), flush=True)
    good = [hostile(os.path.join(args.folder, "hostile_programs.json"), args.rounds)] if args.rounds else []
    good += [benchmark(os.path.join(args.folder, name), args.limit) for name in ("humaneval.jsonl", "mbpp.jsonl")]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
