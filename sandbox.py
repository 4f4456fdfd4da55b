"""Run a program that nobody has read, and learn what its functions return.

    python sandbox.py "def f(x): return x + 1" "f(1)" "f([])"

Each program gets a fresh interpreter (`-I -S`: no site packages, nothing from the environment) in its own session and an empty
temporary folder, with limits on time, memory, files and output. Only names and arguments go in and only values of Python's
plain types come out; what is expected never leaves the parent, so neither an exit code, nor printed text, nor an object that
claims to equal everything can pass for an answer. An audit hook [PEP 578] turns down whatever a pure function has no need of:
files outside the standard library, processes, signals, sockets, ctypes.

What it does not protect against: a flaw of the interpreter itself. PEP 578 is not meant as a wall against a determined attacker.
"""

import argparse
import ast
import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Call = tuple[str, list]  # function name, arguments


@dataclass
class Result:
    """What one call gave: a value of plain types, or why there is none."""

    ok: bool
    value: object = None
    error: str = ""


MOST_OUTPUT = 1_000_000  # bytes of results that are read
MOST_PROGRAM = 100_000  # characters

# Runs inside: takes a job from standard input, writes one JSON string a call, the value's repr or "!error".
_WORKER = r"""
import json, os, resource, sys
job = json.loads(sys.stdin.buffer.read())
out = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
memory, seconds = job["memory"], job["seconds"]
for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 0),
                     (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)):
    try:
        resource.setrlimit(limit, (value, value))
    except (ValueError, OSError):  # macOS has no limit on address space
        pass

def guard(event, args, allowed=frozenset(("import", "exec", "compile", "marshal.loads", "marshal.dumps", "os.listdir", "os.scandir",
          "sys._getframe", "sys._getframemodulename", "object.__getattr__", "object.__setattr__", "builtins.id",
          "function.__new__", "array.__new__", "pickle.find_class", "time.sleep")), library=os.path.dirname(os.__file__) + "/", writing=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
    if event == "open":
        path, _, flags = args
        if isinstance(path, str) and path.startswith(library) and ".." not in path and not flags & writing:
            return
    elif event in allowed and not (event == "import" and args[0] in ("ctypes", "_ctypes", "_posixsubprocess")):
        return
    raise PermissionError(event)

def plain(v, depth=0):
    kind = type(v)
    if kind in (int, float, str, bytes, bool, type(None)):
        return True
    if depth > 50:
        return False
    if kind is dict:
        return all(plain(k, depth + 1) and plain(x, depth + 1) for k, x in v.items())
    return kind in (list, tuple, set) and all(plain(x, depth + 1) for x in v)

def say(text, write=os.write, dumps=json.dumps, secret=job["secret"]):
    data = (secret + dumps(text) + "\n").encode()
    while data:
        data = data[write(out, data):]

leave = os._exit
import posix, _signal
for module in (os, posix, _signal):  # what acts on the system without an audit event
    for name in ("pidfd_open", "pidfd_send_signal", "mknod", "mkfifo", "setpriority", "nice", "sched_setaffinity", "sched_setscheduler", "sched_setparam",
                 "setsid", "setpgid", "memfd_create", "unshare", "setns"):
        if hasattr(module, name):
            delattr(module, name)
sys.addaudithook(guard)
del guard
space = {"__name__": "program"}
problem = ""
try:
    exec(compile(job["program"], "program", "exec"), space)
except BaseException as e:
    problem = "!" + type(e).__name__
for name, arguments in job["calls"]:
    if problem:
        say(problem)
        continue
    try:
        value = space[name](*arguments)
        say(repr(value) if plain(value) else "!not a plain value")
    except BaseException as e:
        say("!" + type(e).__name__)
leave(0)
"""


def run_python(program: str, calls: list[Call], *, time_limit_s: float = 2.0, memory_mb: int = 256) -> list[Result]:
    """Execute a program, then call its functions; one Result a call, always. Never raises, whatever the program does.

    Arguments and values are of Python's plain types (numbers, texts, lists, tuples, dicts, sets, None; exact types).
    time_limit_s is for everything together, start of the interpreter included.
    """
    if len(program) > MOST_PROGRAM:
        return [Result(False, error="program too long") for _ in calls]
    secret = secrets.token_hex(8)  # marks the worker's lines, so that a program cannot write results of its own
    try:
        job = json.dumps({"program": program, "calls": calls, "secret": secret, "memory": memory_mb << 20, "seconds": int(time_limit_s) + 1}).encode()
    except (TypeError, ValueError) as e:
        return [Result(False, error=f"arguments: {e}") for _ in calls]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, cwd=folder, env={}, start_new_session=True)
        try:
            output, why = _exchange(process, job, time.monotonic() + time_limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
    lines = [line.removeprefix(secret.encode()) for line in output.split(b"\n")[:-1] if line.startswith(secret.encode())]
    results = [_read(line) for line in lines[: len(calls)]]
    return results + [Result(False, error=why)] * (len(calls) - len(results))


def run_many(jobs: list[tuple[str, list[Call]]], *, time_limit_s: float = 2.0, memory_mb: int = 256) -> list[list[Result]]:
    """run_python for each (program, calls), side by side; identical jobs are run once."""
    keys = [repr(job) for job in jobs]
    distinct = dict(zip(keys, jobs))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(distinct, pool.map(lambda job: run_python(*job, time_limit_s=time_limit_s, memory_mb=memory_mb), distinct.values())))
    return [found[k] for k in keys]


def _exchange(process: subprocess.Popen, job: bytes, deadline: float) -> tuple[bytes, str]:
    """Hand the job in and read until the worker is done; (output, why it ended early)."""
    try:
        with process.stdin:
            process.stdin.write(job)
    except BrokenPipeError:
        return b"", "ended early"
    output = b""
    while len(output) <= MOST_OUTPUT:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return output, "time limit"
        if not (chunk := os.read(process.stdout.fileno(), 65536)):
            return output, "ended early"
        output += chunk
    return output, "too much output"


def _read(line: bytes) -> Result:
    try:
        text = json.loads(line)
        if text.startswith("!"):
            return Result(False, error=text[1:200])
        return Result(True, ast.literal_eval(text))
    except (ValueError, SyntaxError, AttributeError, RecursionError, MemoryError, TypeError):  # not what the worker writes
        return Result(False, error="unreadable value")


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


def main() -> None:
    import config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        for text, result in zip(args.call, run_python(args.program, calls)):
            print(f"{text} -> {result.value!r}" if result.ok else f"{text}: {result.error}")


if __name__ == "__main__":
    main()
