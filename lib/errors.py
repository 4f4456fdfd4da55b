"""The errors that are meant for users; any other is a fault of the code and shows its traceback."""

import functools
import re


class UserError(ValueError):
    """Something that the user can fix: one sentence that names the thing and the fix. It is raised
    where input is read; cli.user_errors prints it and ends the script with status 2."""


class FileError(UserError, OSError):
    """A UserError about a file that cannot be written."""


def shortened(text: object, most: int = 60) -> str:
    """A value as an error shows it: one line, not longer than `most`."""
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def sentence(text: object, most: int = 200) -> str:
    """An error as it is printed: one line of at most so many characters. In a longer one, long
    names lose their middle, so that the fix at the end stays."""
    text = " ".join(str(text).split())
    if len(text) > most:
        text = re.sub(r"\S{41,}", lambda m: f"{m[0][:18]}...{m[0][-18:]}", text)
    return shortened(text, most)


@functools.cache
def say_once(text: str) -> None:
    """Print what would be said again and again."""
    print(text, flush=True)
