"""What happens to a script before its work begins, and when the reader of its output goes."""

from lib.start import busy_cores

import io
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from lib import start as start_file


def start(*words, **kw):
    pipes = {name: kw.pop(name, subprocess.PIPE) for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True, **pipes, **kw)


@pytest.mark.parametrize("script", ["train_zero.py", "sample.py"])
def test_ctrl_c_while_modules_are_loaded(script):
    process = start("-X", "importtime", script, "--help")
    while "lib.start" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err


def test_a_reader_that_has_enough_ends_the_script_quietly():
    read, write = os.pipe()
    process = start("data.py", "--count", "3000", stdout=write)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141 and err == ""


def test_a_closed_stdin_is_one_sentence(tiny_model, world_tokenizer, tmp_path):
    for p in tiny_model.parameters():
        p.data.zero_()  # all tokens are alike: what it says depends on --seed alone
    tiny_model.save_pretrained(str(tmp_path))
    world_tokenizer.save(str(tmp_path))
    command = f'exec "{sys.executable}" sample.py "{tmp_path}" <&-'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no input to chat with" in done.stderr
    assert done.stderr.count("\n") == 1
    words = [sys.executable, "sample.py", str(tmp_path), "--max-new-tokens", "4", "--seed", "0"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, input="hello\n")
    assert done.returncode == 0 and "> " not in done.stdout  # nobody sees a prompt in a pipe


def test_a_terminal_without_the_letters_shows_others():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "data.py", "--count", "30"], cwd=ROOT, capture_output=True, env=environment
    )
    assert done.returncode == 0 and b"?" in done.stdout, done.stderr


def test_threads_wait_quietly_beside_other_programs(monkeypatch):
    for name in start_file.THREADS:
        monkeypatch.delenv(name, raising=False)
    for busy, name, value in (
        (0.1, "GOMP_SPINCOUNT", "10000"),
        (1.4, "OMP_WAIT_POLICY", "passive"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(start_file, "busy_cores", lambda busy=busy: busy)
            patch.setattr(os, "environ", dict(os.environ))
            told = start_file.choose_waiting()
            assert os.environ[name] == value and ("1.4 of" in told) == (busy > 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # whoever has chosen is not overruled
    monkeypatch.setattr(start_file, "busy_cores", lambda: 2.0)
    assert start_file.choose_waiting() == "" and "OMP_WAIT_POLICY" not in os.environ
    assert 0 <= busy_cores(0.01) <= (os.cpu_count() or 1)
    monkeypatch.setattr("builtins.open", lambda *a: io.StringIO("cpu 1 2 3 4 5 6 7 8 9"))
    assert busy_cores(0) == 0  # a sandbox whose clock stands still


def test_a_closed_stdout_is_no_error_of_the_code():
    command = f"{sys.executable} data.py --count 1 >&-"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
