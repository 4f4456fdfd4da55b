import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import SHARED_DATA

import sandbox
import sandbox_inside
from data import Problem
from rewards import run_python, verdicts
from sandbox import Result, Suite, as_calls, passes, passes_many, run_many, same


def one(program: str, *arguments, **limits):
    (result,) = run_python(program, [("f", list(arguments))], **{"time_limit_s": 10.0} | limits)  # the machine may be busy
    return result


def test_values_come_back_with_their_types():
    for value in (3, -1.5, "é\n\ud800", True, None, [1, [2.0]], (1, "a"), {"k": [None], (1,): 2}, {1, 2}, set(), b"x\xff", "", 2 - 1j, 10**400, 1e300, ((), {})):
        result = one(f"def f(): return {value!r}")
        assert result.ok and same(result.value, value)
    results = run_python("def f(x): return x * 2\ndef g(a, b): return [a, b]", [("f", [4]), ("g", ["u", None]), ("f", [[1]])], time_limit_s=10.0)
    assert [r.value for r in results] == [8, ["u", None], [1, 1]]


@pytest.mark.parametrize(("value", "expected"), [(1, True), (1, 1.0), ({1}, {True}), ({1: 2}, {True: 2}), ([1], (1,)), ({"a": 1}, {"a": True}), ([1, 2], [1]), ("1", 1), (None, False)])
def test_values_of_other_types_are_not_the_same(value, expected):
    assert not same(value, expected) and not same(expected, value) and same(value, value)


@pytest.mark.parametrize(("program", "error"), [
    ("def f(x): return y", "NameError"), ("def f(x): return (", "SyntaxError"), ("g = 1", "KeyError"), ("f = 1", "TypeError"), ("1/0", "ZeroDivisionError"),
    ("import sys\nsys.exit(0)", "SystemExit"), ("def f(x): raise KeyboardInterrupt", "KeyboardInterrupt"), ("def f(x): return f(x)", "RecursionError"),
    ("def f(x): return 10**5000", "ValueError"), ("def f(x):\n a = []\n a.append(a)\n return a", "not a plain value"), ("\0", "SyntaxError"),
    ("def f(x): return object()", "not a plain value"), ("x = bytearray(1 << 40)", "MemoryError"), ("x" * 200_000, "program too long"),
    ("class E(int):\n def __eq__(s, o): return True\n def __repr__(s): return '2'\ndef f(x): return E()", "not a plain value")])
def test_broken_programs(program, error):
    result = one(program, 1)
    assert not result.ok and result.value is None and result.error == error


@pytest.mark.parametrize("program", [
    "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef f(x): return 2",
    "import os\nos.fork()\ndef f(x): return 2",
    "import os\nos.system('true')\ndef f(x): return 2",
    "import subprocess\nsubprocess.run(['true'])\ndef f(x): return 2",
    "import socket\nsocket.create_connection(('127.0.0.1', 1), 1)\ndef f(x): return 2",
    "import ctypes\ndef f(x): return 2",
    "open('/etc/passwd').read()\ndef f(x): return 2",
    "open(__import__('os').__file__.rsplit('/', 1)[0] + '/../../../etc/passwd').read()\ndef f(x): return 2",
    "import gc\ngc.get_objects()\ndef f(x): return 2",
    "import _posixsubprocess\ndef f(x): return 2",
    "import os\nos.open(os.__file__, os.O_RDONLY | os.O_TRUNC)\ndef f(x): return 2",
    "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\ndef f(x): return 2"])
def test_what_no_function_needs_is_turned_down(program, tmp_path):
    assert one(program, 1).error == "PermissionError"


@pytest.mark.parametrize("name", ["pidfd_open", "mknod", "mkfifo", "setpriority", "setsid", "unshare"])
def test_what_has_no_audit_event_is_taken_away(name):
    assert one(f"import os, posix\ndef f(): return hasattr(os, '{name}') or hasattr(posix, '{name}')").value is False


@pytest.mark.parametrize(("value", "read"), [("float('inf')", math.inf), ("frozenset({1})", frozenset({1})), ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}),
                                             ("__import__('collections').defaultdict(list, a=[1])", {"a": [1]})])
def test_values_without_a_literal(value, read):
    assert one(f"def f(): return {value}") == Result(True, read)


def test_what_comes_out_is_read_without_trust():
    """A program that has found the secret may write whatever it likes."""
    for value in ([1, (2, {3: None})], {"a": (b"x", 1j)}, math.inf, frozenset({"a"})):
        assert same(sandbox._read(sandbox_inside.pack(value).encode()), value)
    for line in (b"[" * 500_000, b'{"tuple": ' * 50_000, b"", b"\xff", b"nonsense", b'{"int": 1}', b'{"set": [[1]]}', b'{"dict": [1]}', b"{}", b'{"set": 1, "tuple": 2}',
                 b'{"bytes": 1}', b'{"complex": [1, 2, 3]}', b"1" * 5000, b'{"set": ' + json.dumps([k * (2**61 - 1) for k in range(20_000)]).encode() + b"}"):
        start = time.monotonic()
        assert sandbox._read(line) is None and time.monotonic() - start < 1


def test_no_file_is_written(tmp_path):
    path = tmp_path / "x"
    assert not one(f"open({str(path)!r}, 'w').write('x')\ndef f(x): return 2", 1).ok
    assert not path.exists()


def test_a_program_cannot_write_results_of_its_own():
    forged = r"""
import os
for fd in range(64):
    try: os.write(fd, b'"2"\n' * 5)
    except OSError: pass
def f(x): return 0
"""
    assert one(forged, 1).value == 0
    assert not one(forged + "os._exit(0)", 1).ok


@pytest.mark.parametrize(("program", "why"), [("while True: pass", "time limit"), ("pow(7, 10**9)", "time limit"),
                                               ("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", "time limit"),
                                               ("def f(x): return 'x' * 2_000_000", "too much output"),
                                               ("import os\nos._exit(0)", "ended early")])
def test_limits(program, why):
    start = time.monotonic()
    result = one(program, 1, time_limit_s=0.5 if why == "time limit" else 10.0)
    assert not result.ok and result.error == why and time.monotonic() - start < 5


def test_calls_before_the_limit_keep_their_values():
    results = run_python("def f(x):\n while x > 1: pass\n return x", [("f", [1]), ("f", [2]), ("f", [1])], time_limit_s=1.5)
    assert results[0].value == 1 and [r.error for r in results[1:]] == ["time limit"] * 2


def test_many_at_once_and_identical_ones_once(monkeypatch):
    started = []
    real = sandbox.run_python
    monkeypatch.setattr(sandbox, "run_python", lambda *a, **k: started.append(a) or real(*a, **k))
    jobs = [(f"def f(x): return x + {i % 3}", [("f", [1])]) for i in range(12)]
    assert [r[0].value for r in run_many(jobs, time_limit_s=10.0)] == [1 + i % 3 for i in range(12)] and len(started) == 3


def test_nothing_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    one("while True: print('x' * 65536)", 1, time_limit_s=0.3)
    one("def f(x): return x", 1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child, living or dead
    assert os.listdir(tmp_path) == []


def test_code_problems_are_judged_by_values():
    p = Problem("", "", "code", tests={"calls": [("f", [1]), ("f", [5])], "values": [2, 6]})
    answers = ["def f(x): return x+1", "def f(x): return x+1.0", "def f(x): return 2", "def f(x): print(x+1)", "x+1", None, "import sys; sys.exit(0)"]
    assert verdicts([p] * len(answers), answers) == [True] + [False] * 6


@pytest.mark.skipif(not os.path.exists(os.path.join(SHARED_DATA, "hostile_programs.json")), reason="the hostile programs are not beside the project")
def test_hostile_programs_earn_nothing():
    with open(os.path.join(SHARED_DATA, "hostile_programs.json")) as f:
        rows = json.load(f)
    jobs = [(r["code"], [("f", [1])]) for r in rows]
    for r, (result,) in zip(rows, run_many(jobs, time_limit_s=0.5)):
        assert not result.ok or not same(result.value, 2), r["name"]  # those that would return 2 are stopped before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not os.path.exists("/tmp/pwn")


# ---------------------------------------------------------------------------------------------- what the kernel keeps out


def running() -> list[str]:
    """Processes in the sandbox; other tests' are in others."""
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{p}/cmdline", "rb") as f:
            found += [p] if sandbox.INSIDE.encode() in f.read() else []
    return found


def altered(tmp_path, monkeypatch, old: str, new: str) -> None:
    """Let the sandbox run a copy of what is inside it, with one text replaced."""
    with open(sandbox.INSIDE) as f:
        text = f.read()
    assert old in text
    (tmp_path / "altered_inside.py").write_text(text.replace(old, new))
    monkeypatch.setattr(sandbox, "INSIDE", str(tmp_path / "altered_inside.py"))


@pytest.fixture
def unguarded(tmp_path, monkeypatch):
    """The sandbox without its audit hook: as if a program had got past it. Never without the doors: it could then do what this user may."""
    if set(sandbox.doors()) != set(sandbox.DOORS):
        pytest.skip(sandbox.protection())
    altered(tmp_path, monkeypatch, "    guard()\n", "")


@pytest.mark.parametrize(("body", "gives"), [
    ("import os; return [os.getpid(), os.getppid(), os.getuid()]", [1, 0, 65534]),
    ("return open('/etc/passwd').read()", PermissionError), ("return __import__('os').listdir('/proc')", PermissionError), ("return __import__('os').listdir('.')", PermissionError),
    ("open('a', 'w')", PermissionError), ("open(VICTIM, 'w')", PermissionError), ("__import__('os').unlink(VICTIM)", PermissionError),
    ("import os; os.execv('/bin/true', ['true'])", PermissionError), ("import os; os.kill(HOST, 0)", PermissionError),
    ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", PermissionError), ("import os; os.fork()", PermissionError), ("import os; os.posix_spawn('/bin/true', ['true'], {})", PermissionError),
    ("import threading; threading.Thread(target=print).start()", RuntimeError),
    ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", ValueError), ("x = bytearray(300 << 20)", MemoryError),
    ("import ctypes; got = (ctypes.c_uint32 * 6)(); ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), got); return list(got)", [0] * 6)])
def test_the_doors_hold_without_the_audit_hook(unguarded, tmp_path, body, gives):
    victim = tmp_path / "victim"
    victim.write_text("here")
    result = one(f"VICTIM, HOST = {str(victim)!r}, {os.getpid()}\ndef f():\n    {body}")
    assert result == (Result(True, gives) if isinstance(gives, list) else Result(False, error=gives.__name__))
    assert victim.read_text() == "here"


@pytest.mark.parametrize(("body", "gives"), [("os.kill(HOST, 0)", ProcessLookupError),
                                             ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))", OSError),
                                             ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", PermissionError)])
def test_namespaces_and_landlock_hold_without_seccomp_too(unguarded, monkeypatch, body, gives):
    monkeypatch.setattr(sandbox, "doors", lambda: ("namespaces", "landlock"))
    assert one(f"import os\nHOST = {os.getpid()}\ndef f():\n    {body}") == Result(False, error=gives.__name__)


def test_a_daemon_ends_with_its_namespace(unguarded, monkeypatch):
    monkeypatch.setattr(sandbox, "doors", lambda: ("namespaces", "landlock"))
    daemon = "import os, time\ndef f():\n for _ in range(5):\n  if os.fork() == 0:\n   os.setsid()\n   if os.fork(): os._exit(0)\n   time.sleep(60)\n return 2"
    assert one(daemon).ok == (os.getuid() == 0)  # RLIMIT_NPROC keeps all but root from it
    assert running() == []


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("doors", [(), tuple(sandbox.DOORS)])
def test_a_program_dies_with_its_parent(tmp_path, monkeypatch, doors):
    if not set(doors) <= set(sandbox.doors()):
        pytest.skip(sandbox.protection())
    folder = os.path.dirname(sandbox.INSIDE)
    altered(tmp_path, monkeypatch, "", "")
    lines = f"import sandbox; sandbox.INSIDE = {sandbox.INSIDE!r}; sandbox.doors = lambda: {doors}", "sandbox.run_python('while True: pass', [('f', [])], time_limit_s=60)"
    host = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=folder)
    wait = time.monotonic() + 10
    while len(running()) < 1 + ("namespaces" in doors) and time.monotonic() < wait:
        time.sleep(0.02)
    time.sleep(0.2)
    assert running()
    host.send_signal(signal.SIGKILL)
    host.wait()
    while running() and time.monotonic() < wait:
        time.sleep(0.02)
    assert running() == []


@pytest.mark.parametrize(("lacking", "left"), [("namespaces", ("landlock", "seccomp")), ("landlock", ("namespaces", "seccomp")), ("seccomp", ("namespaces", "landlock"))])
def test_a_kernel_without_one_of_the_doors(tmp_path, monkeypatch, lacking, left):
    if set(sandbox.doors()) != set(sandbox.DOORS):
        pytest.skip(sandbox.protection())
    altered(tmp_path, monkeypatch, f"        _{lacking}(libc", f"        raise OSError\n        _{lacking}(libc")
    sandbox.doors.cache_clear()
    try:
        assert sandbox.doors() == left
        assert f"does not allow {sandbox.DOORS[lacking][0]}, which leaves open" in sandbox.protection()
        assert one("def f(x): return x", 1).value == 1 and one("def f(x):\n while True: pass", 1, time_limit_s=0.5).error == "time limit"
        assert running() == []
    finally:
        sandbox.doors.cache_clear()


def test_a_machine_where_nothing_runs(tmp_path, monkeypatch):
    altered(tmp_path, monkeypatch, "def work() -> None:", "def work() -> None:\n    raise OSError\n\n\ndef worked() -> None:")
    sandbox.doors.cache_clear()
    try:
        with pytest.raises(OSError, match="no program can be run apart"):
            sandbox.doors()
    finally:
        sandbox.doors.cache_clear()


# ---------------------------------------------------------------------------------------------- suites of asserts

CHECK = "def check(candidate):\n    {}\ncheck(f)"


@pytest.mark.parametrize(("suite", "calls"), [
    (Suite("f", "", "assert f(1) == 2\nassert (f(2, k=[3])) == {'a': (1, -2)}, 'why'"), ("", [("f(1)", 2), ("f(2, k=[3])", {"a": (1, -2)})])),
    (Suite("f", "def f(x): pass", "METADATA = {}\n" + CHECK.format("'text'; assert True; assert candidate(3 * 19) == [3, 19]")), ("", [("f(3 * 19)", [3, 19])])),
    (Suite("f", "n = Node(1)", "assert f(n) == True"), ("n = Node(1)", [("f(n)", True)])),  # only the program has that class
    (Suite("f", "def encode(s): return s[::-1]", CHECK.format("assert candidate(encode('ab')) == 'ab'")), None),  # a program could redefine encode
    (Suite("f", "", "assert f(1) == f(2)"), None), (Suite("f", "", "assert f(1)"), None), (Suite("f", "", "assert abs(f(1) - 2) < 1e-6"), None), (Suite("f", "", "assert f(1) != 2"), None),
    (Suite("f", "", "assert f(1) == 1 == 1"), None), (Suite("f", "", "assert True"), None), (Suite("f", "", "for i in range(3): assert f(i) == i"), None),
    (Suite("f", "", CHECK.format("assert candidate(1) == 2") + "\nassert f(2) == 3"), None)])
def test_suites_that_become_calls(suite, calls):
    assert as_calls(suite) == calls


ADD = "def f(x, y=1): return x + y"
SUITES = {  # what holds of ADD
    "calls": Suite("f", "", "assert f(1) == 2\nassert f(x=2, y=2) == 4"),
    "names": Suite("f", "two = 2", "assert f(two) == 3"),
    "others": Suite("f", "", "import math\nassert math.isclose(f(0.1, 0.2), 0.3)\nassert not f(-1)\nassert f(f(1)) == f(2)\nassert set([f(1)]) == {2}\nassert f(1) is not True"),
    "helpers": Suite("f", "def minus(x): return x - 1\n\ndef f(x): 'a stub'", CHECK.format("for i in range(20): assert candidate(minus(i)) == i")),
    "kinds": Suite("f", "", "assert f([1], [(2,)]) == [1, (2,)]\nassert type(f((), (1,))) is tuple and f(1j, 1) == 1 + 1j\nassert f(float('inf')) == float('inf')"),
    "errors": Suite("f", "", "try:\n    f('a')\nexcept Exception: pass\nelse: assert False\nassert f(1) == 2")}


def test_suites_of_every_kind_are_passed():
    assert [as_calls(s) is not None for s in SUITES.values()] == [True, True, False, False, False, False]
    assert passes_many([(ADD, s) for s in SUITES.values()]) == [True] * len(SUITES)


@pytest.mark.parametrize("broken", [
    "def f(x, y=1): return x - y", "def f(x, y=1): return None", "import os; os._exit(0)", "raise SystemExit(0)", "def f(*a, **k): raise SystemExit(0)",
    "import os\ndef f(*a, **k): os._exit(0)", "class E(int):\n __eq__ = lambda *a: True\n __ne__ = __lt__ = lambda *a: False\n __hash__ = lambda s: 0\ndef f(*a, **k): return E()",
    "import builtins\nbuiltins.AssertionError = type(None)\nbuiltins.abs = builtins.len = builtins.set = lambda *a: 0\ndef f(*a, **k): return True", "def g(): return 2",
    ADD + "\ndef f(x, y=1): print(x + y)", "def minus(x): return x\ndef f(x, y=1): return x", "x" * 200_000,
    "import sys\ndef f(*a, **k):\n frame = sys._getframe(1)\n while frame:\n  for say in frame.f_locals.values():\n   if getattr(say, '__name__', '') == 'say':\n    say(True); say([True, True])\n  frame = frame.f_back"])
def test_no_broken_program_passes_any(broken):
    assert not any(passes_many([(broken, s) for s in SUITES.values()]))


def test_a_suite_that_calls_nothing_is_passed_by_nobody():
    assert not passes(ADD, Suite("f", "", "assert 1 < 2")) and not passes(ADD, Suite("f", "", "def check(candidate): pass\ncheck(f)"))


def test_processor_time_is_what_counts():
    start = time.monotonic()
    assert not passes("def f(x):\n while True: pass", SUITES["calls"], cpu_limit_s=1, time_limit_s=300.0)
    assert time.monotonic() - start < 150


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.skipif(not os.path.isdir(SHARED_DATA), reason="the benchmark files are not here")
def test_a_sample_of_the_benchmarks():
    """All of them, and more broken copies: check_code_benchmarks.py."""
    from data import load_jsonl

    problems = [p for name, rows in (("humaneval", (0, 2, 32, 33, 38)), ("mbpp", (0, 87, 366, 532, 595, 600, 911)))
                for all_ in [load_jsonl(os.path.join(SHARED_DATA, name + ".jsonl"))] for p in (all_[i] for i in rows)]
    assert all(verdicts(problems, [p.answer for p in problems]))
    entry = [p.tests["entry"] for p in problems]
    assert not any(verdicts(problems, [f"{p.answer}\n_f = {e}\ndef {e}(*a): return ('broken', _f(*a))" for p, e in zip(problems, entry)]))


def test_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sandbox.py", "def f(x): return x", "f(3)", "f()"])
    sandbox.main()
    assert capsys.readouterr().out == "f(3) -> 3\nf(): TypeError\n"
    monkeypatch.setattr("sys.argv", ["sandbox.py", "", "f(x"])
    with pytest.raises(SystemExit) as e:
        sandbox.main()
    assert e.value.code == 2 and "f(x" in capsys.readouterr().err
