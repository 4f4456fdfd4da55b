"""The sandbox against hostile programs, reference solutions, as responses write them, and broken
copies of these. Minutes.

    python bench/check_code_benchmarks.py [FOLDER] [--limit N]

FOLDER holds humaneval.jsonl, mbpp.jsonl, hostile_programs.json.
"""

import hashlib
import json
import os
import sys
import textwrap
import time
from collections import Counter

from common import ROOT, parser

from data import load_jsonl
from rewards import answer_of, verdicts
from tasks import sandbox

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
# What is appended to a reference solution, where {f} is the function under test.
BROKEN = {
    "another value": """
_f = {f}
def {f}(*a, **k): return ('broken', _f(*a, **k))
""",
    "an error": """
def {f}(*a, **k): raise ValueError
""",
    "os._exit(0)": """
import os
os._exit(0)
""",
    "os._exit(0) when called": """
import os
def {f}(*a, **k): os._exit(0)
""",
    "SystemExit when called": """
def {f}(*a, **k): raise SystemExit(0)
""",
    "equal to everything": ALWAYS + "\ndef {f}(*a, **k): return Always()\n",
    "an int equal to everything": f"""{ALWAYS}
class E(Always, int): pass
def {{f}}(*a, **k): return E()
""",
    "printed, not returned": """
_f = {f}
def {f}(*a, **k): print(_f(*a, **k)); return ('printed',)
""",
    "patched checks": """
import builtins
builtins.all = lambda *a: True
builtins.AssertionError = type('E', (Exception,), dict())
def {f}(*a, **k): return ('patched',)
""",
    "written where results go": """
import os
def {f}(*a, **k):
    for fd in range(16):
        try: os.write(fd, b'\\n[true, true]\\ntrue\\n')
        except OSError: pass
    return ('written',)
""",
}
# How a response may write a program, where {p} is the program and {f} the function under test.
WRITTEN = {
    "a block": "Here:\n```python\n{p}\n```\nIt works.",
    "an example after it": "```python\n{p}\n```\nFor example:\n```python\nprint({f}(1))\n```",
    "no fences": "{p}",
    "no fences, words around": "Here it is:\n\n{p}\n\nThis works because it has been tried.",
    "a closing fence only": "{p}\n```\nThis works.",
    "tildes": '~~~python title="a.py"\n{p}\n~~~\nIt works.',
    "a list": "1. So:\n\n   ```{{python}}\n{indented}\n   ```\n2. Done.",
}


def leftovers() -> tuple:
    """Processes of the sandbox, and files that a hostile program could have left."""
    pids = [p for p in os.listdir("/proc") if p.isdigit()] if os.path.isdir("/proc") else []
    processes = {p for p in pids if b"sandbox_inside" in command_line(p)}
    here = sorted(f for f in os.listdir(".") if f != "__pycache__")
    return processes, {f for f in os.listdir("/tmp") if f == "pwn"}, here


def command_line(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def fingerprint() -> bytes:
    """Of what a program could change in this process."""
    return hashlib.sha256(repr((sys.path, dict(os.environ), os.getcwd())).encode()).digest()


def hostile(path: str, rounds: int) -> bool:
    """Whether no hostile program earns a reward, or changes anything outside."""
    with open(path) as f:
        rows = json.load(f)
    before, earned, longest = (leftovers(), fingerprint()), Counter(), 0.0
    for _ in range(rounds):
        for row in rows:
            start = time.monotonic()
            (result,) = sandbox.run_python(row["code"], [("f", [1])])
            longest = max(longest, time.monotonic() - start)
            if result.ok and sandbox.same(result.value, 2):
                earned[row["name"]] += 1
    unchanged = (leftovers(), fingerprint()) == before
    rewards = f"{sum(earned.values())} earned a reward {dict(earned)}"
    limits = f"the longest took {longest:.2f} s (limit 2)"
    if usage := sandbox.resource:  # not on Windows
        memory = usage.getrusage(usage.RUSAGE_CHILDREN).ru_maxrss / 1024
        limits += f"; most memory of one {memory:.0f} MB (limit 256)"
    outside = f"host, processes and files {'unchanged' if unchanged else 'CHANGED'}"
    programs = f"hostile programs: {len(rows)}, {rounds} times"
    print(f"{programs}; {rewards}; {limits}; {outside}", flush=True)
    return unchanged and not earned


def written(problems: list) -> bool:
    """Whether the reference solutions pass however a response writes them: of texts without fences,
    which can be ambiguous, 98%."""
    least = 1.0
    for name, text in WRITTEN.items():
        answers = []
        for p in problems:
            program = p.answer.replace("\r\n", "\n")
            indented, entry = textwrap.indent(program, "   "), p.tests["entry"]
            answers.append(answer_of(p, text.format(p=program, indented=indented, f=entry)))
        judged = zip(problems, verdicts(problems, answers))
        wrong = [p.tests["entry"] for p, passes in judged if not passes]
        right = len(problems) - len(wrong)
        print(f"  written as {name}: {right} of {len(problems)} pass {' '.join(wrong)}", flush=True)
        least = min(least, right / len(problems))
    return least >= 0.98


def benchmark(path: str, limit: int | None) -> bool:
    """Whether all reference solutions pass, as responses write them too, and none of their broken
    copies."""
    problems = load_jsonl(path, limit)
    n, start = len(problems), time.monotonic()
    right = verdicts(problems, [p.answer for p in problems])
    seconds = time.monotonic() - start
    direct = sum(sandbox.as_calls(sandbox.Suite(**p.tests)) is not None for p in problems)
    passed = f"{sum(right)} of {n} reference solutions pass in {seconds:.0f} s"
    suites = f"{direct} suites are calls compared here, {n - direct} run apart from the program"
    name = os.path.basename(path)
    print(f"{name}: {passed}, {1000 * seconds / n:.0f} ms each; {suites}", flush=True)
    read = written(problems[::4])
    broken = 0
    for name, text in BROKEN.items():
        copies = [p.answer + text.replace("{f}", p.tests["entry"]) for p in problems]
        judged = zip(problems, verdicts(problems, copies))
        earned = [p.tests["entry"] for p, passes in judged if passes]
        broken += len(earned)
        print(f"  broken, {name}: {len(earned)} of {n} pass {' '.join(earned)}", flush=True)
    return all(right) and read and not broken


def main() -> None:
    flags = parser(__doc__)
    data = os.path.join(ROOT, "..", "shared", "data")
    flags.add_argument("folder", nargs="?", default=data, help="where the three files lie")
    flags.add_argument("--limit", type=int, help="only the first so many problems of each")
    flags.add_argument("--rounds", type=int, default=20, help="of the hostile programs")
    args = flags.parse_args()
    print(sandbox.protection(), flush=True)
    good = []
    if args.rounds:
        good = [hostile(os.path.join(args.folder, "hostile_programs.json"), args.rounds)]
    for name in ("humaneval.jsonl", "mbpp.jsonl"):
        good.append(benchmark(os.path.join(args.folder, name), args.limit))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
