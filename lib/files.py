"""Files that are whole or not there: atomic writes, JSON, JSONL, checksums."""

import contextlib
import json
import os
import zlib
from collections.abc import Callable

from safetensors import SafetensorError

from lib.distributed import barrier, is_main_process


@contextlib.contextmanager
def atomic_write(path: str):
    """The name of a temporary file that becomes `path` at the end: a reader never sees half of it.
    OSError that names the file and the fix."""
    try:
        yield path + ".tmp"
        os.replace(path + ".tmp", path)
    except (OSError, SafetensorError) as e:
        reason = getattr(e, "strerror", None) or e
        hint = "see that its folder is there and the disk has room, and try again"
        raise OSError(f"cannot write '{path}' ({reason}): {hint}") from e


def load_json(path: str):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write_json(path: str, content) -> None:
    """A JSON file, written by the main process alone."""
    if is_main_process():
        with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1, ensure_ascii=False)


def write_lines(path: str, rows: list[dict]) -> None:
    """A JSONL file, written by the main process; every process finds it when this returns."""
    if is_main_process():
        with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    barrier()


def read_lines(path: str, what: str, parse: Callable[[object], object]) -> list:
    """parse(value) of each line of a JSONL file. ValueError that names the file, or the first line
    that is not `what`: not JSON, or parse fails (KeyError, TypeError, ValueError)."""
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.readlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"cannot read '{path}' ({e}): give the path of a JSONL file") from None
    out = []
    for number, line in enumerate(lines, 1):
        try:
            out.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}, line {number}: not {what}: fix or remove the line") from None
    if not out:
        raise ValueError(f"'{path}' holds no examples")
    return out


def checksum(path: str) -> int:
    """CRC-32 of a file's bytes."""
    out = 0
    with open(path, "rb") as f:
        while block := f.read(2**22):
            out = zlib.crc32(block, out)
    return out
