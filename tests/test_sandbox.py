import json
import os
import time

import pytest
from conftest import SHARED_DATA

import sandbox
from data import Problem
from rewards import run_python, verdicts
from sandbox import run_many, same


def one(program: str, *arguments, **limits):
    (result,) = run_python(program, [("f", list(arguments))], **limits)
    return result


def test_values_come_back_with_their_types():
    for value in (3, -1.5, "é\n", True, None, [1, [2.0]], (1, "a"), {"k": [None]}, {1, 2}, b"x", ""):
        result = one(f"def f(): return {value!r}")
        assert result.ok and same(result.value, value)
    results = run_python("def f(x): return x * 2\ndef g(a, b): return [a, b]", [("f", [4]), ("g", ["u", None]), ("f", [[1]])])
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
    result = one(program, 1, time_limit_s=0.5)
    assert not result.ok and result.error == why and time.monotonic() - start < 3


def test_calls_before_the_limit_keep_their_values():
    results = run_python("def f(x):\n while x > 1: pass\n return x", [("f", [1]), ("f", [2]), ("f", [1])], time_limit_s=0.5)
    assert results[0].value == 1 and [r.error for r in results[1:]] == ["time limit"] * 2


def test_many_at_once_and_identical_ones_once(monkeypatch):
    started = []
    real = sandbox.run_python
    monkeypatch.setattr(sandbox, "run_python", lambda *a, **k: started.append(a) or real(*a, **k))
    jobs = [(f"def f(x): return x + {i % 3}", [("f", [1])]) for i in range(12)]
    assert [r[0].value for r in run_many(jobs)] == [1 + i % 3 for i in range(12)] and len(started) == 3


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


def test_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sandbox.py", "def f(x): return x", "f(3)", "f()"])
    sandbox.main()
    assert capsys.readouterr().out == "f(3) -> 3\nf(): TypeError\n"
    monkeypatch.setattr("sys.argv", ["sandbox.py", "", "f(x"])
    with pytest.raises(SystemExit) as e:
        sandbox.main()
    assert e.value.code == 2 and "f(x" in capsys.readouterr().err
