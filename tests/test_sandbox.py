import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import FORKS, ROOT, SHARED_DATA

from data import Problem, load_jsonl
from lib.errors import UserError
from rewards import verdicts
from tasks import sandbox, sandbox_inside
from tasks.sandbox import (
    Cases,
    Result,
    Suite,
    as_calls,
    in_parallel,
    passes,
    run_python,
    run_whole,
    same,
)


def one(program: str, *arguments, **limits):
    (result,) = run_python(
        program, [("f", list(arguments))], **{"time_limit_s": 10.0} | limits
    )  # the machine may be busy
    return result


def test_values_come_back_with_their_types():
    numbers = (3, -1.5, True, None, 2 - 1j, 10**400, 1e300)
    nested = ([1, [2.0]], (1, "a"), {"k": [None], (1,): 2}, {1, 2}, set(), ((), {}))
    for value in (*numbers, *nested, "é\n\ud800", b"x\xff", ""):
        result = one(f"def f(): return {value!r}")
        assert result.ok and same(result.value, value)
    program = "def f(x): return x * 2\ndef g(a, b): return [a, b]"
    calls = [("f", [4]), ("g", ["u", None]), ("f", [[1]])]
    results = run_python(program, calls, time_limit_s=10.0)
    assert [r.value for r in results] == [8, ["u", None], [1, 1]]


DIFFERENT = [(1, True), (1, 1.0), ({1}, {True}), ({1: 2}, {True: 2}), ([1], (1,))]
DIFFERENT += [({"a": 1}, {"a": True}), ([1, 2], [1]), ("1", 1), (None, False)]


@pytest.mark.parametrize(("value", "expected"), DIFFERENT)
def test_values_of_other_types_are_not_the_same(value, expected):
    assert not same(value, expected) and not same(expected, value) and same(value, value)


EQUAL_TO_ALL = """
class E(int):
    def __eq__(s, o): return True
    def __repr__(s): return '2'
def f(x): return E()
"""


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("def f(x): return y", "NameError"),
        ("def f(x): return (", "SyntaxError"),
        ("g = 1", "KeyError"),
        ("f = 1", "TypeError"),
        ("1/0", "ZeroDivisionError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("def f(x): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(x): return f(x)", "RecursionError"),
        ("def f(x): return 10**5000", "ValueError"),
        ("def f(x):\n a = []\n a.append(a)\n return a", "not a plain value"),
        ("\0", "SyntaxError"),
        ("def f(x): return object()", "not a plain value"),
        ("x = bytearray(1 << 40)", "MemoryError"),
        ("x" * 200_000, "program too long"),
        (EQUAL_TO_ALL, "not a plain value"),
    ],
)
def test_broken_programs(program, error):
    result = one(program, 1)
    assert not result.ok and result.value is None and result.error == error


FORBIDDEN = [
    "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "import os\nos.fork()",
    "import os\nos.system('true')",
    "import subprocess\nsubprocess.run(['true'])",
    "import socket\nsocket.create_connection(('127.0.0.1', 1), 1)",
    "import ctypes",
    "open('/etc/passwd').read()",
    "open(__import__('os').__file__.rsplit('/', 1)[0] + '/../../../etc/passwd').read()",
    "import gc\ngc.get_objects()",
    "import _posixsubprocess",
    "import os\nos.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
]


@pytest.mark.parametrize("program", FORBIDDEN)
def test_what_no_function_needs_is_refused(program):
    assert one(program + "\ndef f(x): return 2", 1).error == "PermissionError"


@pytest.mark.parametrize("name", "pidfd_open mknod mkfifo setpriority setsid unshare".split())
def test_what_has_no_audit_event_is_removed(name):
    there = f"hasattr(os, '{name}') or hasattr(posix, '{name}')"
    assert one(f"import os, posix\ndef f(): return {there}").value is False


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("float('inf')", math.inf),
        ("frozenset({1})", frozenset({1})),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}),
        ("__import__('collections').defaultdict(list, a=[1])", {"a": [1]}),
    ],
)
def test_values_without_a_literal(value, read):
    assert one(f"def f(): return {value}") == Result(True, read)


def test_what_comes_out_is_read_without_trust():
    """A program that has found the secret may write whatever it likes."""
    for value in ([1, (2, {3: None})], {"a": (b"x", 1j)}, math.inf, frozenset({"a"})):
        assert repr(sandbox._read(sandbox_inside.pack(value).encode())) == repr(value)
    equal_hashes = json.dumps([k * (2**61 - 1) for k in range(20_000)]).encode()
    nonsense = [b"", b"\xff", b"nonsense", b"1" * 5000, b"[" * 500_000, b'{"tuple": ' * 50_000]
    nonsense += [b'{"int": 1}', b'{"set": [[1]]}', b'{"dict": [1]}', b"{}", b'{"bytes": 1}']
    nonsense += [b'{"set": 1, "tuple": 2}', b'{"complex": [1, 2, 3]}', b'{"Fraction": [1, 0]}']
    nonsense += [b'{"Fraction": ["1e999999999"]}', b'{"Decimal": ["x"]}', b'{"Decimal": []}']
    for line in [*nonsense, b'{"set": ' + equal_hashes + b"}"]:
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


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: pass", "time limit"),
        ("pow(7, 10**9)", "time limit"),
        ("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", "time limit"),
        ("def f(x): return 'x' * 2_000_000", "too much output"),
        ("import os\nos._exit(0)", "ended early"),
    ],
)
def test_limits(program, why):
    start = time.monotonic()
    result = one(program, 1, time_limit_s=0.5 if why == "time limit" else 10.0)
    assert not result.ok and result.error == why and time.monotonic() - start < 5


def test_calls_before_the_limit_keep_their_values():
    program, calls = "def f(x):\n while x > 1: pass\n return x", [("f", [x]) for x in (1, 2, 1)]
    results = run_python(program, calls, time_limit_s=1.5)
    assert results[0].value == 1 and [r.error for r in results[1:]] == ["time limit"] * 2


def test_many_at_once_and_identical_ones_once(monkeypatch, capfd):
    started = []
    real = sandbox.run_python
    counting = lambda *a, **k: started.append(a) or real(*a, **k)  # noqa: E731
    monkeypatch.setattr(sandbox, "run_python", counting)
    jobs = [(f"def f(x): return x + {i % 3}", [("f", [1])]) for i in range(12)]
    monkeypatch.setattr(sandbox, "MANY", 2)
    values = [r[0].value for r in in_parallel(sandbox.run_python, jobs, time_limit_s=10.0)]
    assert "running programs" in capfd.readouterr().err
    assert values == [1 + i % 3 for i in range(12)] and len(started) == 3


def in_a_process_without_children(function, *args):
    """The tests' own has some from the start: those that compute for test_distributed.py."""
    process = FORKS.Process(target=function, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0  # what went wrong is printed


def nothing_stays_behind(folder):
    sandbox.tempfile.tempdir = folder
    one("while True: print('x' * 65536)", 1, time_limit_s=0.3)
    one("def f(x): return x", 1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child, living or dead
    assert os.listdir(folder) == []


def test_nothing_stays_behind(tmp_path):
    in_a_process_without_children(nothing_stays_behind, str(tmp_path))


def test_code_problems_are_judged_by_values():
    p = Problem("", "", "code", tests={"calls": [("f", [1]), ("f", [5])], "values": [2, 6]})
    answers = ["def f(x): return x+1", "def f(x): return x+1.0", "def f(x): return 2"]
    answers += ["def f(x): print(x+1)", "x+1", None, "import sys; sys.exit(0)"]
    assert verdicts([p] * len(answers), answers) == [True] + [False] * 6


HOSTILE = os.path.join(SHARED_DATA, "hostile_programs.json")


def hostile_programs_earn_nothing():
    with open(HOSTILE) as f:
        rows = json.load(f)
    reading = [(r["code"], Cases([("1", "2")], 1)) for r in rows]
    assert not any(in_parallel(passes, reading))
    jobs = [(r["code"], [("f", [1])]) for r in rows]
    for r, (result,) in zip(rows, in_parallel(run_python, jobs, time_limit_s=0.5)):
        # those that would return 2 are stopped before
        assert not result.ok or not same(result.value, 2), r["name"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not os.path.exists("/tmp/pwn")


@pytest.mark.skipif(not os.path.exists(HOSTILE), reason="the hostile programs are not here")
def test_hostile_programs_earn_nothing():
    in_a_process_without_children(hostile_programs_earn_nothing)


# ------------------------------------------------------------------ what the kernel keeps out


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
    """The sandbox without its audit hook: as if a program had got past it. Never without one of the
    layers: it could then do what this user may."""
    if set(sandbox.layers()) != set(sandbox.LAYERS):
        pytest.skip(sandbox.protection())
    altered(tmp_path, monkeypatch, "    guard()\n", "")


CAPABILITIES = """import ctypes
    got = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), got)
    return list(got)"""
SOCKET = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"


@pytest.mark.parametrize(
    ("body", "gives"),
    [
        ("import os; return [os.getpid(), os.getppid(), os.getuid()]", [1, 0, 65534]),
        ("return open('/etc/passwd').read()", PermissionError),
        ("return __import__('os').listdir('/proc')", PermissionError),
        ("return __import__('os').listdir('.')", PermissionError),
        ("open('a', 'w')", PermissionError),
        ("open(VICTIM, 'w')", PermissionError),
        ("__import__('os').unlink(VICTIM)", PermissionError),
        ("import os; os.execv('/bin/true', ['true'])", PermissionError),
        ("import os; os.kill(HOST, 0)", PermissionError),
        (SOCKET, PermissionError),
        ("import os; os.fork()", PermissionError),
        ("import os; os.posix_spawn('/bin/true', ['true'], {})", PermissionError),
        ("import threading; threading.Thread(target=print).start()", RuntimeError),
        ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", ValueError),
        ("x = bytearray(300 << 20)", MemoryError),
        (CAPABILITIES, [0] * 6),
    ],
)
def test_the_layers_hold_without_the_audit_hook(unguarded, tmp_path, body, gives):
    victim = tmp_path / "victim"
    victim.write_text("here")
    result = one(f"VICTIM, HOST = {str(victim)!r}, {os.getpid()}\ndef f():\n    {body}")
    expected = {"value": gives} if isinstance(gives, list) else {"error": gives.__name__}
    assert result == Result(isinstance(gives, list), **expected)
    assert victim.read_text() == "here"


@pytest.mark.parametrize(
    ("body", "gives"),
    [
        ("os.kill(HOST, 0)", ProcessLookupError),
        (SOCKET + ".sendto(b'x', ('127.0.0.1', 9))", OSError),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", PermissionError),
    ],
)
def test_namespaces_and_landlock_hold_without_seccomp_too(unguarded, monkeypatch, body, gives):
    monkeypatch.setattr(sandbox, "layers", lambda: ("namespaces", "landlock"))
    result = one(f"import os\nHOST = {os.getpid()}\ndef f():\n    {body}")
    assert result == Result(False, error=gives.__name__)


DAEMON = """
import os, time
def f():
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
            time.sleep(60)
    return 2
"""


def test_a_daemon_ends_with_its_namespace(unguarded, monkeypatch):
    monkeypatch.setattr(sandbox, "layers", lambda: ("namespaces", "landlock"))
    assert one(DAEMON).ok == (os.getuid() == 0)  # RLIMIT_NPROC keeps all but root from it
    assert running() == []


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("layers", [(), tuple(sandbox.LAYERS)])
def test_a_program_dies_with_its_parent(tmp_path, monkeypatch, layers):
    if not set(layers) <= set(sandbox.layers()):
        pytest.skip(sandbox.protection())
    altered(tmp_path, monkeypatch, "", "")
    lines = [
        "from tasks import sandbox",
        f"sandbox.INSIDE, sandbox.layers = {sandbox.INSIDE!r}, lambda: {layers}",
        "sandbox.run_python('while True: pass', [('f', [])], time_limit_s=60)",
    ]
    host = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=ROOT)
    wait = time.monotonic() + 10
    while len(running()) < 1 + ("namespaces" in layers) and time.monotonic() < wait:
        time.sleep(0.02)
    time.sleep(0.2)
    assert running()
    host.send_signal(signal.SIGKILL)
    host.wait()
    while running() and time.monotonic() < wait:
        time.sleep(0.02)
    assert running() == []


@pytest.mark.parametrize(
    ("lacking", "left"),
    [
        ("namespaces", ("landlock", "seccomp")),
        ("landlock", ("namespaces", "seccomp")),
        ("seccomp", ("namespaces", "landlock")),
    ],
)
def test_a_kernel_without_one_of_the_layers(tmp_path, monkeypatch, lacking, left):
    if set(sandbox.layers()) != set(sandbox.LAYERS):
        pytest.skip(sandbox.protection())
    call = f"        _{lacking}("
    altered(tmp_path, monkeypatch, call, f"        raise OSError\n{call}")
    sandbox.layers.cache_clear()
    try:
        assert sandbox.layers() == left
        gap = f"does not allow {sandbox.LAYERS[lacking]}, which leaves open"
        assert gap in sandbox.protection()
        assert one("def f(x): return x", 1).value == 1
        assert one("def f(x):\n while True: pass", 1, time_limit_s=0.5).error == "time limit"
        assert running() == []
    finally:
        sandbox.layers.cache_clear()


def test_a_machine_where_nothing_runs(tmp_path, monkeypatch):
    start = "def work() -> None:\n"
    altered(tmp_path, monkeypatch, start, start + "    raise OSError\n")
    sandbox.layers.cache_clear()
    try:
        with pytest.raises(OSError, match="no program can be run apart"):
            sandbox.layers()
    finally:
        sandbox.layers.cache_clear()


# -------------------------------------------------------------------------- suites of asserts

CHECK = "def check(candidate):\n    {}\ncheck(f)"


TEXT = "'text'; assert True; assert candidate(3 * 19) == [3, 19]"
ENCODE = "def encode(s): return s[::-1]"


@pytest.mark.parametrize(
    ("suite", "calls"),
    [
        (
            Suite("f", "", "assert f(1) == 2\nassert (f(2, k=[3])) == {'a': (1, -2)}, 'why'"),
            ("", [("f(1)", 2), ("f(2, k=[3])", {"a": (1, -2)})]),
        ),
        (
            Suite("f", "def f(x): pass", "METADATA = {}\n" + CHECK.format(TEXT)),
            ("", [("f(3 * 19)", [3, 19])]),
        ),
        # only the program has that class
        (Suite("f", "n = Node(1)", "assert f(n) == True"), ("n = Node(1)", [("f(n)", True)])),
        # a program could redefine encode
        (Suite("f", ENCODE, CHECK.format("assert candidate(encode('ab')) == 'ab'")), None),
        (Suite("f", "", "assert f(1) == f(2)"), None),
        (Suite("f", "", "assert f(1)"), None),
        (Suite("f", "", "assert abs(f(1) - 2) < 1e-6"), None),
        (Suite("f", "", "assert f(1) != 2"), None),
        (Suite("f", "", "assert f(1) == 1 == 1"), None),
        (Suite("f", "", "assert True"), None),
        (Suite("f", "", "for i in range(3): assert f(i) == i"), None),
        (Suite("f", "", CHECK.format("assert candidate(1) == 2") + "\nassert f(2) == 3"), None),
    ],
)
def test_suites_that_become_calls(suite, calls):
    assert as_calls(suite) == calls


ADD = "def f(x, y=1): return x + y"
OTHERS = """import math
assert math.isclose(f(0.1, 0.2), 0.3)
assert not f(-1)
assert f(f(1)) == f(2)
assert set([f(1)]) == {2}
assert f(1) is not True"""
LOOP = CHECK.format("for i in range(20): assert candidate(minus(i)) == i")
KINDS = """assert f([1], [(2,)]) == [1, (2,)]
assert type(f((), (1,))) is tuple and f(1j, 1) == 1 + 1j
assert f(float('inf')) == float('inf')"""
ERRORS = """try:
    f('a')
except Exception: pass
else: assert False
assert f(1) == 2"""
SUITES = {  # what holds of ADD
    "calls": Suite("f", "", "assert f(1) == 2\nassert f(x=2, y=2) == 4"),
    "names": Suite("f", "two = 2", "assert f(two) == 3"),
    "others": Suite("f", "", OTHERS),
    "helpers": Suite("f", "def minus(x): return x - 1\n\ndef f(x): 'a stub'", LOOP),
    "kinds": Suite("f", "", KINDS),
    "errors": Suite("f", "", ERRORS),
}


def test_suites_of_every_kind_are_passed():
    assert [as_calls(s) is not None for s in SUITES.values()] == [True] * 2 + [False] * 4
    assert in_parallel(passes, [(ADD, s) for s in SUITES.values()]) == [True] * len(SUITES)


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("import collections as c\ndef f(): return [c.namedtuple('T', 'a b')(1, 2)]", [(1, 2)]),
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", 0.5),
        ("from fractions import Fraction\ndef f(): return {Fraction(4, 2)}", {2}),
        ("from decimal import Decimal\ndef f(): return Decimal('2.50')", 2.5),
        ("from enum import IntEnum\ndef f(): return IntEnum('E', 'A B').B", 2),
        ("import enum\nclass E(str, enum.Enum): A = 'a'\ndef f(): return E.A", "a"),
        ("class D(dict): pass\ndef f(): return D(a=1)", {"a": 1}),
        ("def f(): return True", 1),
    ],
)
def test_what_python_finds_equal_is_equal(program, value):
    for form in (f"assert f() == {value!r}", f"assert [f()] == [{value!r}]"):
        assert passes(program, Suite("f", "", form))
        assert not passes(program, Suite("f", "", f"{form} and False"))
    assert not passes(program, Suite("f", "", "assert f() == 3"))


def test_fractions_and_decimals_go_in_and_come_out():
    prelude = "from fractions import Fraction\nfrom decimal import Decimal"
    asserts = (
        "assert f(Fraction(1, 3)) == Fraction(4, 3)\nassert f(Decimal('0.1')) == Decimal('1.1')"
    )
    suite = Suite("f", prelude, asserts)
    assert passes("def f(x): return x + 1", suite) and not passes("def f(x): return x", suite)
    third = "from fractions import Fraction\ndef f(): return Fraction(1, 3)"
    assert not passes(third, Suite("f", "", f"assert f() == {1 / 3}"))
    raises = "from decimal import Decimal\ndef f(): return Decimal('sNaN')"
    assert not passes(raises, Suite("f", "", "assert f() == 1"))


EQUAL = """
class E(int):
    __eq__ = lambda *a: True
    __ne__ = __lt__ = lambda *a: False
    __hash__ = lambda s: 0
def f(*a, **k): return E()
"""
PATCHED = """
import builtins
builtins.AssertionError = type(None)
builtins.abs = builtins.len = builtins.set = lambda *a: 0
def f(*a, **k): return True
"""
FORGED = """
import sys
def f(*a, **k):
    frame = sys._getframe(1)
    while frame:
        for send in frame.f_locals.values():
            if getattr(send, '__name__', '') == 'send':
                send(True); send([True, True])
        frame = frame.f_back
"""


@pytest.mark.parametrize(
    "broken",
    [
        "def f(x, y=1): return x - y",
        "def f(x, y=1): return None",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "def f(*a, **k): raise SystemExit(0)",
        "import os\ndef f(*a, **k): os._exit(0)",
        EQUAL,
        PATCHED,
        "def g(): return 2",
        ADD + "\ndef f(x, y=1): print(x + y)",
        "def minus(x): return x\ndef f(x, y=1): return x",
        "x" * 200_000,
        FORGED,
    ],
)
def test_no_broken_program_passes_any(broken):
    assert not any(in_parallel(passes, [(broken, s) for s in SUITES.values()]))


def test_a_suite_that_calls_nothing_is_passed_by_nobody():
    assert not passes(ADD, Suite("f", "", "assert 1 < 2"))
    assert not passes(ADD, Suite("f", "", "def check(candidate): pass\ncheck(f)"))


def test_processor_time_is_what_counts():
    start = time.monotonic()
    assert not passes(
        "def f(x):\n while True: pass", SUITES["calls"], cpu_limit_s=1, time_limit_s=300.0
    )
    assert time.monotonic() - start < 150


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.skipif(not os.path.isdir(SHARED_DATA), reason="the benchmark files are not here")
def test_a_sample_of_the_benchmarks():
    """All of them, and more broken copies: check_code_benchmarks.py."""
    problems = []
    rows = {"humaneval": (0, 2, 32, 33, 38), "mbpp": (0, 87, 366, 532, 595, 600, 911)}
    for name, numbers in rows.items():
        all_ = load_jsonl(os.path.join(SHARED_DATA, name + ".jsonl"))
        problems += [all_[i] for i in numbers]
    assert all(verdicts(problems, [p.answer for p in problems]))
    copy = "{answer}\n_f = {f}\ndef {f}(*a): return ('broken', _f(*a))"
    broken = [copy.format(answer=p.answer, f=p.tests["entry"]) for p in problems]
    assert not any(verdicts(problems, broken))


# ----------------------------------------------------------------- programs that read stdin

READING = [
    "n = int(input())\nprint(n * 2)",
    "n = int(input('') or 0)\nprint(n * 2, end='')",
    "import sys\nn = int(sys.stdin.readline())\nsys.stdout.write(str(n * 2))",
    "import sys\nfor line in sys.stdin: print(int(line) * 2)",
    "import sys\nn = int(sys.stdin.buffer.read())\nsys.stdout.buffer.write(b'%d' % (n * 2))",
    "n = int(open(0).read())\nprint(n * 2)\nexit()\nprint(3)",
    "n = int(open(0, 'rb').readline())\nprint(n * 2, file=open(1, 'w'))\nquit(0)",
    "import sys\nprint(int(input()) * 2)\nsys.exit()\nprint(3)",
    "def main():\n    print(int(input()) * 2)\n\nif __name__ == '__main__':\n    main()",
    "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
    "print(int(input()) * 2)",
    "import os\nos.write(1, str(int(os.read(0, 9)) * 2).encode())",
    "import atexit, io, sys\nsys.stdout = io.StringIO()\nlater = sys.stdout.getvalue\n"
    "atexit.register(lambda: sys.__stdout__.write(later()))\nprint(int(input()) * 2)",
    "import sys\nprint('no', file=sys.stderr)\nprint(int(input()) * 2)\nsys.stdout.close()",
    "import sys\nfrom dataclasses import dataclass\nsys.setrecursionlimit(10**6)\n@dataclass\n"
    "class N:\n    n: int\ndef f(n): return n and 2 + f(n - 1)\nprint(f(N(int(input())).n))",
    "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
    "def main(): print(int(input()) * 2)\nt = threading.Thread(target=main)\nt.start()\nt.join()",
    "print(int(open('/dev/stdin').read()) * 2)",
    "import fileinput\nfor line in fileinput.input(): print(int(line) * 2)",
]


@pytest.mark.parametrize("program", READING)
def test_ways_to_read_and_print(program):
    assert passes(program, Cases([("2100\n", "4200\n"), ("3", "6")]))
    assert not passes(program, Cases([("3", "6"), ("4", "9")]))


@pytest.mark.parametrize(
    "program",
    [
        "print(2)\nraise ValueError",
        "print(2, flush=True)\n1 / 0",
        "import os\nprint(2, flush=True)\nos._exit(0)",
        "print(2, flush=True)\nwhile True: pass",
        "print(2, flush=True)\nimport time\ntime.sleep(60)",
        "print(2)\nx = bytearray(1 << 40)",
        "print(2)\nopen('stdin').read()",
        "print(2)\nopen(3)",
        "print(2)\nimport os\nos.write(0, b'x')",
        "print(2)\nimport threading\nthreading.Thread(target=print, args=(3,)).start()",
        "print(2)\nopen('/dev/stdout', 'w')",
        "print(2)\nprint(2)",
        "while True: print('2' * 65536)",
        "print(2",
        "def f(x): return 2",
        "print(2)" + " " * 200_000,
        "class A:\n def __eq__(s, o): return True\nprint(A())",
        "",
    ],
)
def test_programs_that_do_not_print_the_right_text_and_end(program):
    start = time.monotonic()
    assert not passes(program, Cases([("1", "2")], 0.5)) and time.monotonic() - start < 30


def test_a_problem_may_allow_more_memory():
    program = "x = bytearray(600 << 20)\nprint(2)"
    assert not passes(program, Cases([("", "2")]))
    assert passes(program, Cases([("", "2")], memory_mb=1024))


def test_much_is_read_and_printed():
    numbers = "\n".join(map(str, range(300_000)))
    copy = "import sys\nfor line in sys.stdin: print(line, end='')"
    assert passes(copy, Cases([(numbers, numbers)]))
    assert not passes(copy, Cases([(numbers, "0")]))
    assert passes("print(input())", Cases([("é😀\nx", "é😀")]))


@pytest.mark.parametrize(
    ("printed", "expected", "equal"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2 \n3\t\n\n", "1 2\r\n3", True),
        ("", "\n", True),
        ("1\n\n2", "1\n2", False),
        ("1 2", "1\n2", False),
        ("\n1", "1", True),
        (" 1", "1", True),
        ("1 \t 2", "1 2", True),
        ("12", "1 2", False),
        ("yes", "YES", False),
        ("0.3333333", "0.333333333333", True),
        ("0.3333", "0.333333333333", False),
        ("1000000.5", "1000000.0", True),
        ("x 0.30000000000000004", "x 0.3", True),
        ("1e-9", "0.0", True),
        ("3.0", "3", True),
        ("3.1", "3", False),
        ("1000000001", "1000000000", False),
        ("01", "1", False),
        ("nan", "0.5", False),
        ("1.0 2", "1.0 2 3", False),
    ],
)
def test_outputs_that_are_the_same(printed, expected, equal):
    assert sandbox.same_output(printed, expected) == equal


# ------------------------------------------------------------- a machine without these means


@pytest.fixture
def windows(monkeypatch):
    """What the sandbox uses, and Windows lacks, is gone."""
    monkeypatch.setattr(sandbox, "resource", None)
    monkeypatch.setattr(sandbox, "weak", False)
    monkeypatch.setattr(sandbox, "signal", None)
    for module, name in (
        (os, "killpg"),
        (os, "set_blocking"),
        (sandbox.select, "poll"),
        (sandbox.select, "POLLIN"),
        (sandbox.select, "POLLOUT"),
    ):
        monkeypatch.delattr(module, name)
    sandbox.layers.cache_clear()
    yield
    sandbox.layers.cache_clear()


def test_programs_are_not_run_where_they_cannot_be_limited(windows):
    sandbox.allow("strict")
    for use in (sandbox.protection, lambda: one("def f(): return 1")):
        with pytest.raises(UserError, match=r"cannot limit the memory .*add --sandbox weak"):
            use()


def test_in_the_weak_sandbox_too_a_program_ends_without_its_parent(windows, monkeypatch):
    sandbox.allow("weak")
    monkeypatch.setattr(sandbox.threading.Timer, "start", lambda timer: None)
    assert run_whole("while True: pass", "", seconds=0.1) is None


def test_the_weak_sandbox(windows):
    sandbox.allow("weak")
    told = sandbox.protection()
    assert told.startswith("programs run apart, with a time limit, an audit hook; this machine")
    assert one("def f(x): return x + 1", 1) == Result(True, 2)
    assert passes(ADD, SUITES["calls"]) and passes(ADD, SUITES["helpers"])
    assert passes(READING[0], Cases([("3", "6")]))
    for program in FORBIDDEN:
        assert one(program + "\ndef f(x): return 2", 1).error == "PermissionError"
    start = time.monotonic()
    assert not one("def f():\n while True: pass", time_limit_s=0.5).ok
    assert not passes("while True: print('x' * 65536)", Cases([("1", "2")], 0.5))
    assert not one("import os\nos._exit(0)", time_limit_s=60).ok
    assert not passes("print(2)\nimport os\nos.write(0, b'x')", Cases([("1", "2")]))
    assert time.monotonic() - start < 30


def test_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sandbox.py", "def f(x): return x", "f(3)", "f()", "f(x"])
    sandbox.main()
    assert capsys.readouterr().out == "f(3) -> 3\nf(): TypeError\nf(x: SyntaxError\n"
