"""Settings and command lines: fields with limits, their help, one sentence for an error."""

import argparse
import contextlib
import difflib
import errno
import inspect
import json
import math
import operator
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import types
import typing
from dataclasses import field, fields, is_dataclass

from lib import start
from lib.errors import UserError, sentence, shortened

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
BOOLS = {"true": True, "1": True, "false": False, "0": False}
# a limit's name: the test that a value passes, and its name in errors
LIMITS = {
    "low": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "high": (operator.le, "at most"),
}
EVERY_NUMBER = {"low": 0, "high": 1e12}  # where a field has no limit of its own


def setting(default, *, low=None, above=None, high=None, choices=None):
    """A field with its limits (see LIMITS), which hold for each value of a tuple."""
    limits = {"low": low, "above": above, "high": high, "choices": choices}
    return field(default=default, metadata={k: v for k, v in limits.items() if v is not None})


def section(cls):
    """A field that holds a dataclass of settings."""
    return field(default_factory=cls)


def keys(cfg: object) -> list[str]:
    """All 'section.field' names of a config."""
    out = []
    for f in fields(cfg):
        value = getattr(cfg, f.name)
        if not isinstance(value, dict):
            out += [f"{f.name}.{k}" for k in keys(value)] if is_dataclass(value) else [f.name]
    return out


def quoted(path: str) -> str:
    """A path as this system's command line takes it."""
    return subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(path)


def nearest(what: str, name: str, known: list[str]) -> UserError:
    """The error for a name that does not exist."""
    close = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    dashes = "--" if what == "setting" else ""
    listed = "--help lists all" if dashes else f"there are {', '.join(known)}"
    hint = f"the nearest is '{dashes}{close[0]}'" if close else listed
    return UserError(f"there is no {what} '{dashes}{shortened(name)}'; {hint}")


def set_key(cfg: object, key: str, value: object) -> None:
    """Set 'section.field' (or 'field'); text is converted. UserError if unknown or unfit."""
    if is_argument(key, keys(cfg)):
        name = key.removeprefix("template.")
        with contextlib.suppress(ValueError):  # a number, true or false
            value = value if name == "system" else json.loads(value.lower())
        cfg.template_args[name] = value
        return
    if key not in keys(cfg):
        raise nearest("setting", key, keys(cfg))
    owner, name, kind = _field(cfg, key)
    setattr(owner, name, _convert(value, kind, key) if isinstance(value, str) else value)


def is_argument(key: str, known: list[str]) -> bool:
    """Whether 'template.NAME' is for the model's chat template, which reads names of its own."""
    return re.match(r"template\.\w", key) is not None and "template" in known


def _convert(text: str, kind: type, key: str) -> object:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    kind = options[0]
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_convert(part.strip(), inner, key) for part in text.split(","))
    try:
        return BOOLS[text.lower()] if kind is bool else parse_number(text, kind)
    except (KeyError, ValueError, OverflowError):
        raise UserError(f"--{key} is '{shortened(text)}'; it must be {KINDS[kind]}") from None


def parse_number(text: str, kind: type):
    """A text as an int (1e6 too), a float, or the text itself. ValueError if it is none."""
    if kind is int and not re.fullmatch(r"[+-]?[\d_]+", text):
        number = float(text)
        if number != int(number):  # OverflowError if it is infinite
            raise ValueError
        return int(number)
    return kind(text)


def number(kind: type, **limits):
    """For argparse's `type`: a number within limits, as a setting's."""

    def convert(text: str):
        try:
            value = parse_number(text, kind)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not {KINDS[kind]}") from None
        if problem := beyond(value, limits):
            raise argparse.ArgumentTypeError(f"it is {shortened(value)}; {problem}")
        return value

    return convert


def path(text: str) -> str:
    """For argparse's `type`: the name of a file or folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("that is no name of a file or folder")
    return text


def load(cfg: object, path: str) -> list[str]:
    """Take over the settings that a run's config.json has, and return their keys. What else a run
    keeps there, and sections of other scripts, are passed over."""
    fix = "name a run's config.json"
    try:
        with open(path, encoding="utf-8") as f:
            saved = json.load(f)
    except (OSError, ValueError, RecursionError) as e:
        why = getattr(e, "strerror", None) or f"{type(e).__name__}: it is not JSON"
        raise UserError(f"cannot read the settings in '{path}' ({why}): {fix}") from None
    found = {k: v for k in keys(cfg) if (v := _inside(saved, k)) is not None}
    if wrong := misspelt(cfg, saved, bool(found)):
        raise UserError(f"'{path}': {wrong}: fix or remove the line")
    if not found:
        raise UserError(f"'{path}' holds no settings of this script: {fix}")
    for key, value in found.items():
        _, _, kind = _field(cfg, key)
        if not fits(value, kind):
            msg = f"'{path}': {key} is {shortened(value)}"
            raise UserError(f"{msg}, which is no value of this setting: fix or remove it")
        set_key(cfg, key, tuple(value) if isinstance(value, list) else value)
    if isinstance(saved.get("template_args"), dict):
        cfg.template_args = saved["template_args"]
    return list(found)


def misspelt(cfg: object, saved: object, is_config: bool) -> UserError | None:
    """The error for a name of a saved config that is meant for this script, but no setting: it
    stands in one of its sections (if there are settings beside it), or is much like a name."""
    top = {f.name: getattr(cfg, f.name) for f in fields(cfg)}
    for name, inside in saved.items() if isinstance(saved, dict) else ():
        if name not in top and difflib.get_close_matches(name, list(top), 1, 0.8):
            return nearest("setting", name, list(top))
        known = [f.name for f in fields(top[name])] if is_dataclass(top.get(name)) else []
        for part in inside if known and isinstance(inside, dict) else ():
            close = difflib.get_close_matches(part, known, 1, 0.6)
            if part not in known and (is_config or close):
                return nearest("setting", f"{name}.{part}", keys(cfg))
    return None


def _inside(saved: object, key: str) -> object:
    """What a saved run has under 'section.field', or None."""
    for part in key.split("."):
        saved = saved.get(part) if isinstance(saved, dict) else None
    return saved


def _field(cfg: object, key: str) -> tuple[object, str, type]:
    """The dataclass that holds 'section.field', the field's name there, and its type."""
    *sections, name = key.split(".")
    for part in sections:
        cfg = getattr(cfg, part)
    return cfg, name, typing.get_type_hints(type(cfg))[name]


def fits(value: object, kind: type) -> bool:
    """Whether a value from JSON is of a field's type."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None:
        return type(None) in options
    if typing.get_origin(options[0]) is tuple:
        inner = typing.get_args(options[0])[0]
        return isinstance(value, list) and all(fits(x, inner) for x in value)
    if options[0] is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is options[0]


def unfit(value: object, cls: type, name: str) -> str:
    """What a value from JSON would have to be as the field `name` of cls, "" if it is fit."""
    kind, (field_,) = typing.get_type_hints(cls)[name], (f for f in fields(cls) if f.name == name)
    if not fits(value, kind):
        options = typing.get_args(kind) or (kind,)
        return f"it must be {KINDS[options[0]]}"
    values = value if isinstance(value, list) else [value]
    return next(filter(None, (beyond(x, field_.metadata) for x in values)), "")


def check(cfg: object, prefix: str = "") -> None:
    """UserError for values that no run could use: beyond a field's limits, or at odds."""
    for f in fields(cfg):
        key, value = prefix + f.name, getattr(cfg, f.name)
        if is_dataclass(value):
            check(value, f"{key}.")
        for x in value if isinstance(value, tuple) else (value,):
            if problem := beyond(x, f.metadata):
                raise UserError(f"--{key} is {shortened(x) or 'empty'}; {problem}")
    if hasattr(cfg, "__post_init__"):  # which relies on the limits
        cfg.__post_init__()


def beyond(value: object, limits: dict) -> str:
    """What a value would have to be, "" if it is within its limits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "it must be a finite number"
    if "choices" in limits:
        listed = ", ".join(map(str, limits["choices"]))
        return "" if value in limits["choices"] else f"use one of {listed}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    defaults = {name: limit for name, limit in EVERY_NUMBER.items() if name not in limits}
    if "above" in limits:
        defaults.pop("low")
    for bounds in (limits, defaults):
        if not all(LIMITS[name][0](value, limit) for name, limit in bounds.items()):
            demands = (f"{LIMITS[name][1]} {limit:g}" for name, limit in bounds.items())
            return f"it must be {' and '.join(demands)}"
    return ""


# what a machine does to any code that writes or reads: a full disk, a lost one, a lack of rights
MACHINE = set("ENOSPC EDQUOT EROFS EACCES EPERM ENAMETOOLONG EIO ENOTDIR EISDIR".split())


def program() -> str:
    """How errors name this script."""
    folder, name = os.path.split(sys.argv[0])
    return os.path.basename(folder) if name == "__main__.py" else name


@contextlib.contextmanager
def user_errors():
    """Turn a UserError (or a full disk) into one sentence and exit status 2, and Ctrl-C into status
    130. Whatever else goes wrong is a fault of the code, and shows its traceback."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) is start.stop:  # from here on there is work
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell has it
    except (UserError, OSError) as e:
        of_the_machine = isinstance(e, OSError) and errno.errorcode.get(e.errno) in MACHINE
        if "--traceback" in sys.argv or not (isinstance(e, UserError) or of_the_machine):
            raise
        msg = str(e)
        if of_the_machine:
            place = e.filename or "the place where this prints to"
            fix = "make room, give this user the right, or name another"
            msg = f"cannot use {place} ({e.strerror}): {fix}"
        print(sentence(f"{program()}: {msg}"), file=sys.stderr)
        sys.exit(2)


# the flags that name a file or folder, of all scripts
PATHS = set("model models base file runs out init data test zero teacher rescore".split())


class Parser(argparse.ArgumentParser):
    """A script's flags; the docstring explains them, and a wrong one gets one sentence."""

    def __init__(self, doc: str):
        explained = argparse.RawDescriptionHelpFormatter
        super().__init__(description=doc, formatter_class=explained, allow_abbrev=False)
        self.add_argument("--traceback", action="store_true", help="show where an error was raised")

    def add_argument(self, *names, **more):
        if names[0].removeprefix("--") in PATHS:
            more["type"] = path
        return super().add_argument(*names, **more)

    def parse_args(self, words=None, namespace=None):
        words = sys.argv[1:] if words is None else words
        with user_errors():  # a flag that does not exist gets its nearest name
            split_words(words, [], self.flags())
        return super().parse_intermixed_args(words, namespace)  # flags may stand between

    def flags(self) -> list[str]:
        """The names of the script's own flags, without dashes."""
        return [s[2:] for a in self._actions for s in a.option_strings if s.startswith("--")]

    def error(self, message: str):
        msg = sentence(f"{program()}: {message}", 180)
        print(f"{msg} (--help explains)", file=sys.stderr)
        sys.exit(2)


def settings_help(cfg: object, prefix: str = "") -> list[str]:
    """A line for each setting: its name, its value, and the comment beside its field."""
    comments = {}
    for cls in reversed(type(cfg).__mro__[:-1]):
        with contextlib.suppress(OSError, TypeError):  # no source, as in an interactive session
            source = inspect.getsource(cls)
            comments |= dict(re.findall(r"^    (\w+): [^\n#]*(?:# ?(.*))?$", source, re.M))
    lines, later = [], []
    for f in fields(cfg):
        value = getattr(cfg, f.name)
        if is_dataclass(value):
            later += ["", f"{f.name}:", *settings_help(value, f"{f.name}.")]
        elif not isinstance(value, dict):
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            flag = f"--{prefix}{f.name} {shown}"
            comment = comments.get(f.name, "")
            if choices := f.metadata.get("choices"):
                comment = f"{comment} ({', '.join(map(str, choices))})"
            lines.append(f"  {flag:40s} {comment}".rstrip())
    return lines + later


def split_words(words: list[str], known: list[str], flags: list[str], switches=()):
    """A command line's settings and the rest. UserError for a flag that is neither. What follows a
    lone "--" is no flag. switches: settings that are on if they stand there without a value."""
    settings, rest, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            return settings, [*rest, word, *words]
        key, equals, value = word[2:].partition("=")
        if not word.startswith("--") or key in flags:
            rest.append(word)
        elif key not in known and not is_argument(key, known):
            raise nearest("setting", key, known + flags)
        elif key in switches and not equals and (not words or words[0].startswith("--")):
            settings.append((key, "true"))
        elif not equals and not words:
            raise UserError(f"--{key} needs a value")
        else:
            settings.append((key, value if equals else words.pop(0)))
    return settings, rest
