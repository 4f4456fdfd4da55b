"""Run a program that nobody has read, and learn what its functions return.

    python sandbox.py "def f(x): return x + 1" "f(1)" "f([])"

Each program gets a fresh interpreter (`-I -S`: no site packages, nothing from the environment) in its own session and an empty
temporary folder, with limits on time, memory, files, processes and output, no new privileges, no capabilities, and dies with its
parent. On Linux it also gets, each where the kernel allows it (protection() finds out by a trial and says which):
namespaces of its own (user, process, network, IPC: no other process in sight, no network, and all of its processes end with the
first), Landlock (no file but the interpreter's own, to read only), and a seccomp filter (no processes, sockets, signals). Inside, an audit
hook [PEP 578] turns down whatever a pure function has no need of: files outside the standard library, processes, sockets, ctypes.

Only names and arguments go in and only values of Python's plain types come out; what is expected never leaves the parent, so neither
an exit code, nor printed text, nor an object that claims to equal everything can pass for an answer. A suite of asserts (HumanEval,
MBPP) becomes calls whose values the parent compares, if every assert is a call compared with a literal; any other suite runs in a
second sandbox that holds nothing of the program, and whatever it calls is called in the first: see passes().

What it does not protect against: a flaw of the kernel or, on other systems than Linux, anybody who gets past the audit hook, which
PEP 578 does not mean as a wall. Where one of the three is not to be had, protection() says what then stands open behind the hook. The
system's libraries can be read, and a program can tell that it is run here. Memory is limited for each process (not on macOS), and
without seccomp root may start many: RLIMIT_NPROC does not bind root. Values are compared, not effects: a function that changes its
arguments in place is not seen to, and a suite that asks for that, or passes functions or objects, is passed by nobody.
"""

import ast
import contextlib
import functools
import json
import marshal
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Call = tuple[str, list] | str  # function name and arguments, or an expression that is evaluated inside


@dataclass
class Result:
    """What one call gave: a value of plain types, or why there is none."""

    ok: bool
    value: object = None
    error: str = ""


@dataclass(frozen=True)
class Suite:
    """Asserts about one function. All of its texts are trusted, none of them is the program's."""

    entry: str  # the function under test
    prelude: str  # what the asserts build on: helpers, set-up code
    asserts: str


MOST_OUTPUT = 1_000_000  # bytes of results that are read
MOST_PROGRAM = 100_000  # characters
MOST_KEYS = 10_000  # of one set or dict: numbers with one hash would keep the reader busy for long
DOORS = {  # what it is, and what it leaves open where it is missing, to a program that gets past the audit hook
    "namespaces": ("namespaces (user, process, network, IPC)", "the sight of other processes and, without seccomp, signals to them and the network"),
    "landlock": ("Landlock", "this user's files"),
    "seccomp": ("seccomp (no processes, sockets, signals)", "further processes, to root without limit"),
}
INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox_inside.py")


class _Ended(Exception):
    """The other side has ended, or has to: why."""


class _Inside:
    """One interpreter in the sandbox, spoken with until a deadline. Afterwards nothing of it is left."""

    def __init__(self, job: dict, doors: tuple[str, ...], time_limit_s: float, cpu_limit_s: int, memory_mb: int):
        secret = secrets.token_hex(8)
        self.start, self.doors, self.deadline = secret.encode(), doors, time.monotonic() + time_limit_s
        self.outgoing, self.lines, self.rest, self.count, self.why = marshal.dumps(job | {"secret": secret}), [], b"", 0, ""
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        python = os.path.realpath(sys.executable)
        self.process = subprocess.Popen([python, "-I", "-S", INSIDE, "launch", python, str(os.getpid()), str(memory_mb << 20), str(cpu_limit_s), *doors],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.folder.name, env={},
                                        start_new_session=True, bufsize=0)
        os.set_blocking(self.process.stdin.fileno(), False)

    def __enter__(self) -> "_Inside":
        return self

    def __exit__(self, *exc) -> None:
        if "namespaces" in self.doors:
            self.process.terminate()  # the launcher kills the namespace's first process, and ends when the last is gone
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.folder.cleanup()

    def call(self, call: Call) -> Result:
        """What a call gives. Once the interpreter has ended, or has had to, every call gives the reason."""
        try:
            if self.why:
                raise _Ended(self.why)
            match self.ask(call if isinstance(call, str) else (*call, {})[:3]):
                case [True, value]:
                    return Result(True, value)
                case [False, str(error)]:
                    return Result(False, error=error[:200])
            return Result(False, error="unreadable value")
        except _Ended as e:
            self.why = str(e)
            return Result(False, error=self.why)

    def ask(self, word: object) -> object:
        """Say a word and hear the next. _Ended if none comes."""
        try:
            self.outgoing += marshal.dumps(word)
        except ValueError as e:
            raise _Ended(f"arguments: {e}") from None
        return self.hear()

    def hear(self) -> object:
        while self.outgoing:
            self._wait(self.process.stdin, select.POLLOUT)
            try:
                self.outgoing = self.outgoing[os.write(self.process.stdin.fileno(), self.outgoing) :]
            except BrokenPipeError:
                raise _Ended("ended early") from None
        while not self.lines:
            if self.count > MOST_OUTPUT:
                raise _Ended("too much output")
            self._wait(self.process.stdout, select.POLLIN)
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise _Ended("ended early")
            self.count += len(chunk)
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            self.lines += [line for line in lines if line.startswith(self.start)]  # others are the program's own noise
        return _read(self.lines.pop(0).removeprefix(self.start))

    def _wait(self, stream, event: int) -> None:
        poll = select.poll()
        poll.register(stream, event)
        if not poll.poll(max(0.0, 1000 * (self.deadline - time.monotonic()))):
            raise _Ended("time limit")


def _read(line: bytes) -> object:
    """The inverse of sandbox_inside.pack; None for anything that it does not write."""
    try:
        return _unpack(json.loads(line))
    except (ValueError, AttributeError, RecursionError, MemoryError, TypeError, KeyError):
        return None


def _unpack(value: object) -> object:
    if type(value) is list:
        return [_unpack(v) for v in value]
    if type(value) is not dict:
        return value
    ((kind, items),) = value.items()
    if kind == "bytes":
        return items.encode("latin-1")
    if kind in ("dict", "set", "frozenset") and len(items) > MOST_KEYS:
        raise ValueError("too many keys")
    return {"complex": lambda parts: complex(*parts), "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[kind]([_unpack(v) for v in items])


# ---------------------------------------------------------------------------------------------- what the kernel allows


@functools.cache
def doors() -> tuple[str, ...]:
    """Those of DOORS that can be had here, found by trial, once. OSError if not even a program without them can be run."""

    def trial(wanted: tuple[str, ...]) -> Result:
        with _Inside({"program": "def f(x): return x + 1", "setup": ""}, wanted, 30.0, 5, 256) as inside:
            return inside.call(("f", [1]))

    found: tuple[str, ...] = ()
    for door in DOORS if sys.platform == "linux" else ():
        if trial((*found, door)) == Result(True, 2):
            found += (door,)
    if (result := trial(found)) != Result(True, 2):
        raise OSError(f"no program can be run apart on this machine ({result.error}): free some memory and processes, and check that {sys.executable} starts")
    return found


def protection() -> str:
    """One sentence: what stands between a program and this machine, and what does not."""
    shut, open_ = [DOORS[d][0] for d in doors()], [f"{what}, which leaves open {risk}" for d, (what, risk) in DOORS.items() if d not in doors()]
    return f"programs run apart, with {', '.join(('limits', 'an audit hook', *shut))}" + (f"; this machine does not allow {'; nor '.join(open_)}" if open_ else "")


# ---------------------------------------------------------------------------------------------- values of calls


def run_python(program: str, calls: list[Call], *, time_limit_s: float = 2.0, memory_mb: int = 256, setup: str = "") -> list[Result]:
    """Execute a program and then `setup`, then call its functions; one Result a call, always. Never raises, whatever the program does.

    Arguments and values are of Python's plain types (numbers, texts, lists, tuples, dicts, sets, None; exact types).
    time_limit_s is for everything together, start of the interpreter included.
    """
    if len(program) > MOST_PROGRAM:
        return [Result(False, error="program too long") for _ in calls]
    with _Inside({"program": program, "setup": setup}, doors(), time_limit_s, int(time_limit_s) + 1, memory_mb) as inside:
        return [inside.call(call) for call in calls]


def run_many(jobs: list[tuple[str, list[Call]]], *, time_limit_s: float = 2.0, memory_mb: int = 256) -> list[list[Result]]:
    """run_python for each (program, calls), side by side; identical jobs are run once."""
    return _side_by_side(lambda program, calls: run_python(program, calls, time_limit_s=time_limit_s, memory_mb=memory_mb), jobs)


def _side_by_side(function: Callable, jobs: list[tuple]) -> list:
    keys = [repr(job) for job in jobs]
    distinct = dict(zip(keys, jobs))
    if jobs:
        doors()  # found out before the threads all try
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(distinct, pool.map(lambda job: function(*job), distinct.values())))
    return [found[k] for k in keys]


def same(value: object, expected: object) -> bool:
    """Equality of plain values that also asks for equal types, all the way down (True is not 1, a tuple is not a list)."""
    if type(value) is not type(expected):
        return False
    if isinstance(value, (list, tuple)):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(value, dict):
        return len(value) == len(expected) and all(any(same(k, j) and same(value[k], expected[j]) for j in expected) for k in value)
    if isinstance(value, set):
        return len(value) == len(expected) and all(any(same(x, y) for y in expected) for x in value)
    return value == expected


# ---------------------------------------------------------------------------------------------- suites of asserts


def passes(program: str, suite: Suite, *, time_limit_s: float = 20.0, cpu_limit_s: int = 5, memory_mb: int = 512) -> bool:
    """Whether every assert holds of the program's function. Equality is that of Python's ==, between plain values.

    A program has cpu_limit_s seconds of a processor, however busy the machine is, and time_limit_s by the clock, so it cannot sleep either.
    No assert is executed where the program is: values come out, and are compared here or where nothing but the suite runs. There the
    function under test is a stand-in, whose calls pass through this process to the program and back.
    """
    if len(program) > MOST_PROGRAM:
        return False
    limits = doors(), time_limit_s, cpu_limit_s, memory_mb
    if found := as_calls(suite):
        setup, calls = found
        with _Inside({"program": program, "setup": setup}, *limits) as theirs:
            return all((r := theirs.call(text)).ok and r.value == expected for text, expected in calls)
    with _Inside({"program": program, "setup": ""}, *limits) as theirs, _Inside({"suite": suite.asserts, "prelude": suite.prelude, "entry": suite.entry}, *limits) as ours:
        try:
            word = ours.hear()
            while isinstance(word, list):
                result = theirs.call(tuple(word))
                word = ours.ask((result.ok, result.value if result.ok else result.error))
        except _Ended:
            return False
        return word is True


def passes_many(jobs: list[tuple[str, Suite]]) -> list[bool]:
    """passes() for each (program, suite), side by side; identical jobs are run once."""
    return _side_by_side(passes, jobs)


def as_calls(suite: Suite) -> tuple[str, list[tuple[str, object]]] | None:
    """(set-up code that the calls need, [(call, expected value)]) of a suite in which every assert is `f(...) == literal`; else None.

    >>> as_calls(Suite("f", "", "def check(candidate):\\n assert candidate(3 * 19) == [3, 19]\\ncheck(f)"))
    ('', [('f(3 * 19)', [3, 19])])
    """
    statements, stand_in = ast.parse(suite.asserts).body, suite.entry
    match [s for s in statements if not isinstance(s, ast.Assign)]:
        case [ast.FunctionDef(name="check", args=ast.arguments(args=[ast.arg(arg=stand_in)]), body=statements), ast.Expr()]:  # HumanEval's form
            pass
    calls, names = [], False
    for s in statements:
        match s:
            case ast.Assert(test=ast.Constant(value=True)) | ast.Expr(value=ast.Constant() | ast.Name()):  # says nothing
                continue
            case ast.Assert(test=ast.Compare(left=ast.Call(func=ast.Name(id=name)) as call, ops=[ast.Eq()], comparators=[right])) if name == stand_in:
                call.func.id = suite.entry
                names = names or any(isinstance(n, ast.Name) and n is not call.func for n in ast.walk(call))
                try:
                    calls.append((ast.unparse(call), ast.literal_eval(right)))
                except (ValueError, TypeError):
                    return None
            case _:
                return None
    # Arguments made of names (objects of the program's own classes, say) can only be made where the program is. The prelude is then
    # run there too, unless it defines functions: a program could put its own in the place of these.
    if names and any(isinstance(n, ast.FunctionDef) for n in ast.walk(ast.parse(suite.prelude))):
        return None
    return (suite.prelude if names else "", calls) if calls else None


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("program", help="source text")
    parser.add_argument("call", nargs="+", help='such as "f(1, [2])": a function and plain arguments')
    args = parser.parse_args()
    with config.user_errors():
        calls = []
        for text in args.call:
            try:
                tree = ast.parse(text, mode="eval").body
                calls.append((tree.func.id, [ast.literal_eval(a) for a in tree.args]))
            except (SyntaxError, AttributeError, ValueError):
                raise ValueError(f"'{text}' is not a call of a function with plain arguments, such as f(1, [2])") from None
        print(protection(), file=sys.stderr)
        for text, result in zip(args.call, run_python(args.program, calls)):
            print(f"{text} -> {result.value!r}" if result.ok else f"{text}: {result.error}")


if __name__ == "__main__":
    main()
