"""What happens to a script before its work begins, and when the reader of its output goes."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT


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
    assert process.returncode == 0 and err == ""


def test_a_closed_stdin_is_one_sentence(tiny_model, world_tokenizer, tmp_path):
    tiny_model.save_pretrained(str(tmp_path))
    world_tokenizer.save(str(tmp_path))
    command = f'exec "{sys.executable}" sample.py "{tmp_path}" <&-'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no input to chat with" in done.stderr
    assert done.stderr.count("\n") == 1
    words = [sys.executable, "sample.py", str(tmp_path), "--max-new-tokens", "4"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, input="hello\n")
    assert done.returncode == 0 and "> " not in done.stdout  # nobody sees a prompt in a pipe


def test_a_terminal_without_the_letters_shows_others():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "data.py", "--count", "30"], cwd=ROOT, capture_output=True, env=environment
    )
    assert done.returncode == 0 and b"?" in done.stdout, done.stderr
