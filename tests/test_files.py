"""Files that are whole or not there."""

import errno
import json
import os
import signal
import subprocess
import time
import zlib

import pytest
from conftest import FORKS

from lib import files


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path):
    path = str(tmp_path / "a.json")
    files.write_json(path, {"n": 1, "text": "小明"})
    full = pytest.raises(OSError, match=r"cannot write '.*a.json' \(full\): see that its folder")
    with full, files.atomic_write(path) as temporary, open(temporary, "w") as f:
        f.write("{")
        raise OSError("full")
    assert files.load_json(path) == {"n": 1, "text": "小明"}
    missing = str(tmp_path / "none" / "a.json")
    with pytest.raises(OSError, match=r"cannot write '.*a.json' \(No such file"):
        files.write_json(missing, {})


def test_lines_are_read_as_they_were_written(tmp_path):
    path, rows = str(tmp_path / "a.jsonl"), [{"text": "a\nb"}, {"text": "小明"}]
    files.write_lines(path, rows)
    assert files.read_lines(path, "an object", lambda row: row) == rows
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"

    def read():
        return files.read_lines(str(path), "an object with 'n'", lambda row: row["n"] + 1)

    with pytest.raises(ValueError, match=r"cannot read .*give the path of a JSONL file"):
        read()
    for bad in ("{", "[]", '{"m": 1}', '{"n": "1"}', "[" * 100_000):
        path.write_text(json.dumps({"n": 1}) + "\n" + bad)
        with pytest.raises(ValueError, match="line 2: not an object with 'n': fix or remove"):
            read()
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\r\n{"n": 2}\r\n\n')  # as Windows' editors write
    assert read() == [2, 3]
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="cannot read"):
        read()
    path.write_text("")
    with pytest.raises(ValueError, match="holds no examples"):
        read()


def test_checksum_of_a_long_file(tmp_path):
    content = bytes(range(256)) * 20_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert files.checksum(str(tmp_path / "a")) == zlib.crc32(content)


def hold(folder, pipe):
    """Lock a folder, and start a process that outlives this one."""
    files.lock(folder)
    pipe.send(subprocess.Popen(["sleep", "60"]).pid)
    time.sleep(60)


def test_a_lock_ends_with_its_process_even_if_a_child_lives_on(tmp_path):
    here, there = FORKS.Pipe()
    process = FORKS.Process(target=hold, args=(str(tmp_path), there))
    process.start()
    child = here.recv()
    with pytest.raises(ValueError, match=f"process {process.pid} on .* is writing in"):
        files.lock(str(tmp_path))
    process.kill()
    process.join()
    files.lock(str(tmp_path))
    files.lock(str(tmp_path))  # its own
    os.kill(child, signal.SIGKILL)


def test_a_folder_is_marked_where_there_are_no_locks(tmp_path, monkeypatch):
    """As on Windows: a recipe that was stopped is known by the mark."""
    monkeypatch.setattr(files, "fcntl", None)
    files.lock(str(tmp_path))
    assert os.listdir(tmp_path) == [".lock"]


def test_two_processes_may_write_the_same_file(tmp_path):
    path = str(tmp_path / "page")
    with files.atomic_write(path) as mine:
        (tmp_path / "page.1.tmp").write_text("another's")
        with open(mine, "w") as f:
            f.write("mine")
    assert (tmp_path / "page").read_text() == "mine"
    assert (tmp_path / "page.1.tmp").read_text() == "another's"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def flock(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    files.lock(str(tmp_path))
    assert "cannot be locked (No locks available)" in capsys.readouterr().err
