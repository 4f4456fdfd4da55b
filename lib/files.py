"""Files that are whole or not there: atomic writes, JSON, JSONL, checksums."""

import contextlib
import json
import math
import os
import re
import socket
import sys
import time
import zlib
from collections.abc import Callable

from safetensors import SafetensorError

from lib.distributed import barrier, is_main_process
from lib.errors import FileError, UserError, shortened

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs out of one folder there
    fcntl = None

UTF8 = {"encoding": "utf-8", "errors": "replace"}  # half a character is written as "?"
_locks: dict[str, object] = {}  # the folders that this process writes in -> their open lock files


@contextlib.contextmanager
def atomic_write(path: str):
    """The name of a temporary file that becomes `path` at the end: a reader never sees half of it.
    FileError that names the file and the fix."""
    temporary = f"{path}.{os.getpid()}.tmp"  # two processes may write the same page
    try:
        yield temporary
        with open(temporary, "r+b") as f:
            os.fsync(f.fileno())  # else a power cut may leave an empty file under the final name
        os.replace(temporary, path)
    except (OSError, SafetensorError) as e:
        # safetensors writes "Error while ...: I/O error: No space left on device (os error 28)"
        reason = getattr(e, "strerror", None) or re.sub(r".*I/O error: | \(os error.*", "", str(e))
        hint = "see that its folder is there and the disk has room, and try again"
        with contextlib.suppress(OSError):
            os.remove(temporary)
        error = FileError(f"cannot write '{path}' ({reason}): {hint}")
        error.strerror = reason
        raise error from e


def make_folder(folder: str) -> None:
    """Make a folder for results, and try to write in it. UserError that says why it cannot be."""
    try:
        os.makedirs(folder, exist_ok=True)
        trial = os.path.join(folder, f".trial-{os.getpid()}")
        with open(trial, "w") as f:
            f.write("x")
        os.remove(trial)
    except OSError as e:
        why = "a file has this name" if isinstance(e, FileExistsError) else e.strerror
        msg = f"cannot write in the folder '{shortened(folder)}' ({why})"
        raise UserError(f"{msg}: name another with --out") from None


def check_output(path: str, flag: str = "--out") -> None:
    """UserError if a file cannot be written at `path`: found out before the work, not after it."""
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(0, "it is a folder")
        trial = f"{path}.trial-{os.getpid()}"
        with open(trial, "x"):
            pass
        os.remove(trial)
    except OSError as e:
        msg = f"{flag}: cannot write the file '{shortened(path)}' ({e.strerror})"
        raise UserError(f"{msg}: name another") from None


def lock(folder: str, name: str = ".lock") -> None:
    """Keep other processes from writing in a folder until this one ends, however it does; the
    folder is made. UserError that names the process that writes there already."""
    make_folder(folder)
    path = os.path.join(os.path.realpath(folder), name)
    if path in _locks:
        return
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  open until the process ends
    if not fcntl:  # the file alone is the mark of a run that has begun
        file.close()
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.5)  # if it has just begun, it has yet to write who it is
        file.seek(0)
        msg = f"process {file.read().strip() or '(unknown)'} is writing in '{folder}'"
        file.close()
        raise UserError(f"{msg}: wait for it, stop it, or name another --out") from None
    except OSError as e:  # a file system without locks
        file.close()
        msg = f"'{folder}' cannot be locked ({e.strerror})"
        print(f"{msg}: see that no other process writes there", file=sys.stderr)
        return
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}")
    file.flush()
    _locks[path] = file


def load_json(path: str):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def to_json(content, indent: int | None = None) -> str:
    """JSON, which has no name for what is not a finite number: that becomes null."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(content):
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content if not isinstance(content, float) or math.isfinite(content) else None


def write_json(path: str, content) -> None:
    """A JSON file, written by the main process alone."""
    if is_main_process():
        with atomic_write(path) as temporary, open(temporary, "w", **UTF8) as f:
            f.write(to_json(content, indent=1))


def write_lines(path: str, rows: list[dict]) -> None:
    """A JSONL file, written by the main process; every process finds it when this returns."""
    if is_main_process():
        with atomic_write(path) as temporary, open(temporary, "w", **UTF8) as f:
            f.writelines(to_json(row) + "\n" for row in rows)
    barrier()


def read_lines(path: str, what: str, parse: Callable[[object], object]) -> list:
    """parse(value) of each line of a JSONL file. UserError that names the file, or the first line
    that is not `what`: not JSON, or parse fails (KeyError, TypeError, ValueError)."""
    try:
        with open(path, encoding="utf-8-sig") as f:
            lines = f.readlines()
    except (OSError, UnicodeDecodeError) as e:
        why = getattr(e, "strerror", None) or "it is not UTF-8 text"
        msg = f"cannot read '{shortened(path)}' ({why})"
        raise UserError(f"{msg}: give the path of a JSONL file") from None
    out = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            out.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{path}, line {number}: not {what}: fix or remove the line") from None
    if not out:
        raise UserError(f"'{path}' holds no examples: give a JSONL file with one a line")
    return out


def checksum(path: str) -> int:
    """CRC-32 of a file's bytes."""
    out = 0
    with open(path, "rb") as f:
        while block := f.read(2**22):
            out = zlib.crc32(block, out)
    return out
