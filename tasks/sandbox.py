"""Run a program that nobody has read, and learn what its functions return, or what it prints.

    python -m tasks.sandbox "def f(x): return x + 1" "f(1)" "f([])"

Each program gets a new interpreter (`-I -S`: no site packages, nothing from the environment) in a
new session and an empty temporary folder, with limits on time, memory, files, processes and output,
without privileges; it dies with its parent. An audit hook [PEP 578] refuses whatever a pure
function does not need. On Linux there are also three layers, where the kernel allows them (a trial
finds out): namespaces (no other process in sight, no network; its processes end with the first),
Landlock (no file but the interpreter's, to read only), seccomp (no processes, sockets, signals).

Only names and arguments go in, only values of Python's plain types come out, and what is expected
never leaves the parent: neither an exit code, nor printed text, nor an object that says it equals
everything can pass for an answer. Values are compared, not effects: a suite of asserts about
changed arguments or about objects is not passed. Of a program that reads stdin, what it prints is
compared; it gets a new interpreter for each input, and its threads run one after the other.

What it does not protect against: a flaw of the kernel and, where a layer is missing, anybody who
gets past the audit hook, which PEP 578 does not mean as a wall: protection() says what is open
then. The system's libraries can be read, and a program can tell where it is. Memory is limited for
each process (not on macOS); without seccomp root may start many, whom RLIMIT_NPROC does not bind.
Where Python has no module resource, as on Windows, there are only a time limit and the audit hook,
and nothing is run unless `weak` says that this will do.
"""

import ast
import contextlib
import functools
import json
import marshal
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from lib import cli
from lib.errors import UserError
from lib.progress import Progress

try:
    import resource
except ImportError:  # Windows
    resource = None

Call = tuple[str, list] | str  # function and arguments, or an expression that is evaluated inside


class Result(NamedTuple):
    """What one call gave: a value of plain types, or why there is none."""

    ok: bool
    value: object = None
    error: str = ""


class Suite(NamedTuple):
    """Asserts about one function. All of these texts are trusted, none of them is the program's."""

    entry: str  # the function under test
    prelude: str  # what the asserts build on: helpers, set-up code
    asserts: str


class Cases(NamedTuple):
    """What a program is to print, given what it reads from stdin."""

    cases: list  # of (input, output)
    seconds: float = 5  # of a processor, for each case
    memory_mb: int = 512


MAX_PROGRAM, MAX_OUTPUT = 100_000, 1_000_000  # characters; bytes of results that are read
MANY = 500  # programs that take long enough for a bar; a step of RL has fewer
MAX_KEYS = 10_000  # of one set or dict: numbers with equal hashes would take very long to read
LAYERS = {
    "namespaces": "namespaces (user, process, network, IPC)",
    "landlock": "Landlock",
    "seccomp": "seccomp (no processes, sockets, signals)",
}
RISKS = {  # what lies open without a layer
    "namespaces": "sight of other processes and, without seccomp, signals to them and the network",
    "landlock": "this user's files",
    "seccomp": "further processes, to root without limit",
}
weak = False  # whether programs may run where nothing but their time can be limited
INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox_inside.py")
# `python -m tasks.sandbox` imports tasks first, which imports this file
warnings.filterwarnings("ignore", "'tasks.sandbox' found in sys.modules", RuntimeWarning)


class _Ended(Exception):
    """The interpreter has ended, or has to: why."""


class _Interpreter(contextlib.AbstractContextManager):
    """An interpreter in the sandbox, to talk to until a deadline. Afterwards nothing of it is left.
    limits: (layers, seconds by the clock, seconds of a processor, MB of memory). most: bytes that
    are read of it. stdin: for the program."""

    def __init__(self, job: dict, limits: tuple, most: int = MAX_OUTPUT, stdin: str = ""):
        self.layers, time_limit_s, cpu_limit_s, memory_mb = limits
        secret = secrets.token_hex(8)
        self.start, self.deadline = secret.encode(), time.monotonic() + time_limit_s
        self.outgoing = marshal.dumps(job | {"secret": secret})  # bytes still to be written
        self.lines, self.rest = [], b""  # messages read, the start of the next line
        self.printed = []  # lines that are no messages
        self.count, self.most, self.why = 0, most, ""  # bytes read; why the interpreter has ended
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        python = os.path.realpath(sys.executable)
        numbers = map(str, (os.getpid(), memory_mb << 20, cpu_limit_s))
        limited, alone = ["launch", python, *numbers, *self.layers], ["weak", str(time_limit_s)]
        kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}  # Windows
        place = {"cwd": self.folder.name, "env": kept, "start_new_session": True}
        path = os.path.join(self.folder.name, "stdin")  # no pipe: programs ask for its size
        with open(path, "wb") as file:
            file.write(stdin.encode("utf-8", "replace"))
        with open(path, "rb") as file:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
            command = [python, "-I", "-S", INSIDE, *(limited if resource else alone)]
            self.process = subprocess.Popen(command, **pipes, **place, bufsize=0)
        if resource:
            os.set_blocking(self.process.stdin.fileno(), False)
        else:  # reads and writes wait until there is something, or the process ends
            self.timer = threading.Timer(time_limit_s, self.process.kill)
            self.timer.start()

    def __exit__(self, *exc) -> None:
        with self.folder, self.process:  # at the end closes the pipes, waits, removes the folder
            if not resource:
                self.timer.cancel()
                self.process.kill()
            elif "namespaces" in self.layers:  # the launcher kills the namespace's first process,
                self.process.terminate()  # and ends when the last is gone
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)

    def call(self, call: Call) -> Result:
        """What a call gives. Once the interpreter has ended, every call gives the reason."""
        try:
            if self.why:
                raise _Ended(self.why)
            match self.send(call if isinstance(call, str) else (*call, {})[:3]):
                case [True, value]:
                    return Result(True, value)
                case [False, str(error)]:
                    return Result(False, error=error[:200])
            return Result(False, error="unreadable value")
        except _Ended as e:
            self.why = str(e)
            return Result(False, error=self.why)

    def send(self, message: object) -> object:
        """Send a message and receive the next. _Ended if none comes."""
        try:
            self.outgoing += marshal.dumps(message)
        except ValueError:  # it cannot write a Fraction or a Decimal: as text
            self.outgoing += marshal.dumps([repr(message)])
        return self.receive()

    def receive(self) -> object:
        while self.outgoing:
            self._wait(self.process.stdin)
            try:
                written = os.write(self.process.stdin.fileno(), self.outgoing)
            except BrokenPipeError:
                raise _Ended("ended early") from None
            self.outgoing = self.outgoing[written:]
        while not self.lines:
            if self.count > self.most:
                raise _Ended("too much output")
            self._wait(self.process.stdout)
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise _Ended("ended early")
            self.count += len(chunk)
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            for line in lines:
                (self.lines if line.startswith(self.start) else self.printed).append(line)
        return _read(self.lines.pop(0).removeprefix(self.start))

    def _wait(self, stream) -> None:
        ready = max(0.0, self.deadline - time.monotonic())
        if resource:
            event = select.POLLIN if stream is self.process.stdout else select.POLLOUT
            poll = select.poll()
            poll.register(stream, event)
            ready = poll.poll(1000 * ready)
        if not ready:
            raise _Ended("time limit")


def _read(line: bytes) -> object:
    """The inverse of sandbox_inside.pack; None for anything that it does not write."""
    try:
        return json.loads(line, object_hook=_unpack)
    except (ValueError, AttributeError, RecursionError, MemoryError, TypeError):
        return None
    except (LookupError, ArithmeticError):  # of Fraction(1, 0), Decimal("x")
        return None


def _unpack(entry: dict) -> object:
    """What an object of pack's stands for: (1, 2) for {"tuple": [1, 2]}."""
    ((kind, items),) = entry.items()
    if kind == "bytes":
        return items.encode("latin-1")
    if kind == "complex":
        return complex(*items)
    if kind == "Fraction":
        numerator, denominator = items  # a text such as "1e999999999" would take very long
        return Fraction(numerator, denominator)
    if kind == "Decimal" and not (number := Decimal(items[0])).is_snan():  # that one raises at ==
        return number
    if kind != "tuple" and len(items) > MAX_KEYS:
        raise ValueError("too many keys")
    return {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[kind](items)


# ------------------------------------------------------------------------ what the kernel allows
@functools.cache
def layers() -> tuple[str, ...]:
    """Those of LAYERS that work here, found by trial, once. OSError if no program can be run,
    UserError where none may."""
    if not (resource or weak):
        msg = "this machine cannot limit the memory and processes of programs"
        raise UserError(f"{msg}: use Linux or macOS, or add --sandbox weak if you trust them")

    def trial(wanted: tuple[str, ...]) -> Result:
        limits = wanted, 30.0, 5, 256
        with _Interpreter({"program": "def f(x): return x + 1"}, limits) as inside:
            return inside.call(("f", [1]))

    found: tuple[str, ...] = ()
    for layer in LAYERS if resource and sys.platform == "linux" else ():
        if trial((*found, layer)) == Result(True, 2):
            found += (layer,)
    if (result := trial(found)) != Result(True, 2):
        advice = f"free some memory and processes, and check that {sys.executable} starts"
        raise OSError(f"no program can be run apart on this machine ({result.error}): {advice}")
    return found


def allow(mode: str) -> None:
    """The setting --sandbox: "weak" lets programs run where only their time can be limited."""
    global weak
    weak = mode == "weak"


def protection() -> str:
    """One sentence: what stands between a program and this machine, and what does not."""
    names, limits = [LAYERS[layer] for layer in layers()], "limits" if resource else "a time limit"
    walls = ", ".join([limits, "an audit hook", *names])
    missing = [layer for layer in LAYERS if layer not in layers()]
    gaps = "; nor ".join(f"{LAYERS[m]}, which leaves open {RISKS[m]}" for m in missing)
    gaps = f"; this machine does not allow {gaps}" if gaps else ""
    return f"programs run apart, with {walls}{gaps}"


def run_python(program: str, calls: list[Call], *, time_limit_s=2.0, memory_mb=256) -> list[Result]:
    """Execute a program, then call its functions: one Result a call, whatever the program does.
    Arguments and values are of Python's plain types (numbers, texts, lists, tuples, dicts, sets,
    None; exact types). time_limit_s includes the start of the interpreter."""
    if len(program) > MAX_PROGRAM:
        return [Result(False, error="program too long") for _ in calls]
    limits = layers(), time_limit_s, int(time_limit_s) + 1, memory_mb
    with _Interpreter({"program": program}, limits) as inside:
        return [inside.call(call) for call in calls]


def run_whole(program: str, stdin: str, *, seconds=5.0, memory_mb=512, most=MAX_OUTPUT):
    """What a program prints (str), given stdin; None if it fails, prints more than `most` bytes or
    takes more seconds of a processor (rounded up), or four times as many by the clock."""
    if len(program) > MAX_PROGRAM:
        return None
    limits = layers(), 4.0 * seconds, math.ceil(seconds), memory_mb
    job = {"program": program, "whole": True}
    with _Interpreter(job, limits, most, stdin) as inside, contextlib.suppress(_Ended):
        if inside.receive() is True:
            return b"\n".join(inside.printed).decode("utf-8", "replace")
    return None


def in_parallel(function, jobs: list[tuple], **limits) -> list:
    """run_python or passes of each job (program, calls or suite); identical ones are run once."""
    distinct, results = {repr(job): job for job in jobs}, {}
    if jobs:
        layers()  # found out before the threads all try
    total = len(distinct)
    shown = Progress(total, "running programs", "program", leave=False) if total >= MANY else None
    with ThreadPoolExecutor(os.cpu_count()) as pool, shown or contextlib.nullcontext():
        found = pool.map(lambda job: function(*job, **limits), distinct.values())
        for key, result in zip(distinct, found):
            results[key] = result
            if shown:
                shown.update()
    return [results[repr(job)] for job in jobs]


def same(value: object, expected: object) -> bool:
    """Equality that also asks for equal types, all the way down: True is not 1."""
    if type(value) is not type(expected):
        return False
    if isinstance(value, (list, tuple)):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(value, dict):
        same_keys = set(map(repr, value)) == set(map(repr, expected))
        return same_keys and all(same(value[key], expected[key]) for key in value)
    if isinstance(value, (set, frozenset)):
        return len(value) == len(expected) and set(map(repr, value)) == set(map(repr, expected))
    return value == expected


def prints(program: str, tests: Cases) -> bool:
    """Whether a program prints what it should for every input."""
    for stdin, expected in tests.cases:
        most = MAX_OUTPUT + len(expected.encode("utf-8", "replace"))
        limits = {"seconds": tests.seconds, "memory_mb": tests.memory_mb, "most": most}
        printed = run_whole(program, stdin, **limits)
        if printed is None or not same_output(printed, expected):
            return False
    return True


def same_output(printed: str, expected: str) -> bool:
    """Equality of what is printed, line by line and word by word: the white space around words does
    not count, nor do empty lines at the beginning and the end [LiveCodeBench, 2403.07974, strips
    both]. Numbers may differ by 1e-6, relative or absolute, if one of them is not whole."""
    found, wanted = ([x.split() for x in t.strip().split("\n")] for t in (printed, expected))
    if [*map(len, found)] != [*map(len, wanted)]:
        return False
    return all(all(map(_close, *lines)) for lines in zip(found, wanted))


def _close(a: str, b: str) -> bool:
    if a == b or (a.lstrip("+-").isdecimal() and b.lstrip("+-").isdecimal()):
        return a == b
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-6)
    except ValueError:
        return False


# ------------------------------------------------------------------------------ suites of asserts
def passes(program: str, suite: Suite | Cases, *, time_limit_s=20.0, cpu_limit_s=5) -> bool:
    """Whether every assert holds of the program's function. The program has cpu_limit_s seconds of
    a processor, however busy the machine is, and time_limit_s by the clock, so it cannot sleep
    either. Values are compared here, or where nothing but the suite runs: there the function under
    test is a stand-in, whose calls pass through this process to the program and back."""
    if isinstance(suite, Cases):
        return prints(program, suite)
    if len(program) > MAX_PROGRAM:
        return False
    limits = layers(), time_limit_s, cpu_limit_s, 512
    setup, calls = as_calls(suite) or ("", None)
    with _Interpreter({"program": program, "setup": setup}, limits) as tested:
        if calls:
            return all(tested.call(text) == Result(True, expected) for text, expected in calls)
        job = {"suite": suite.asserts, "prelude": suite.prelude, "entry": suite.entry}
        with _Interpreter(job, limits) as tester:
            try:
                message = tester.receive()
                while isinstance(message, list):  # a call, to which the result goes back
                    message = tester.send(tuple(tested.call(tuple(message))))
            except _Ended:
                return False
            return message is True


def as_calls(suite: Suite) -> tuple[str, list[tuple[str, object]]] | None:
    """(set-up code that the calls need, [(call, expected value)]) of a suite in which every assert
    is `f(...) == literal`; else None."""
    statements, tested = ast.parse(suite.asserts).body, suite.entry
    match [s for s in statements if not isinstance(s, ast.Assign)]:
        case [ast.FunctionDef(name="check") as check, ast.Expr()] if len(check.args.args) == 1:
            statements, tested = check.body, check.args.args[0].arg  # HumanEval's form
    calls, names = [], False
    for statement in statements:
        match statement:
            case ast.Assert(test=ast.Constant(value=True)) | ast.Expr(ast.Constant() | ast.Name()):
                continue  # says nothing
            case ast.Assert(
                test=ast.Compare(ast.Call(func=ast.Name(name)) as call, [ast.Eq()], [right])
            ) if name == tested:
                call.func.id = suite.entry
                names |= any(isinstance(n, ast.Name) and n is not call.func for n in ast.walk(call))
                try:
                    calls.append((ast.unparse(call), ast.literal_eval(right)))
                except (ValueError, TypeError):
                    return None
            case _:
                return None
    # Arguments made of names (objects of the program's classes, say) can only be made where the
    # program is. The prelude then runs there too, unless the program could replace its functions.
    if names and any(isinstance(n, ast.FunctionDef) for n in ast.walk(ast.parse(suite.prelude))):
        return None
    return (suite.prelude if names else "", calls) if calls else None


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("program", help="source text")
    parser.add_argument("call", nargs="+", help='such as "f(1, [2])"')
    parser.add_argument("--sandbox", default="strict", choices=("strict", "weak"))
    args = parser.parse_args()
    with cli.user_errors():
        allow(args.sandbox)
        print(protection(), file=sys.stderr)
        for text, result in zip(args.call, run_python(args.program, args.call)):
            print(f"{text} -> {result.value!r}" if result.ok else f"{text}: {result.error}")


if __name__ == "__main__":
    main()
