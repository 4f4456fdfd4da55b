"""Settings and command lines: fields with limits, their help, one sentence for an error."""

import argparse
import contextlib
import difflib
import inspect
import json
import math
import operator
import os
import re
import sys
import types
import typing
from dataclasses import field, fields, is_dataclass

BOOLS = {"true": True, "1": True, "false": False, "0": False}
# a limit's name: the test that a value passes, and its name in errors
LIMITS = {
    "low": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "high": (operator.le, "at most"),
}


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
        out += [f"{f.name}.{k}" for k in keys(value)] if is_dataclass(value) else [f.name]
    return out


def nearest(what: str, name: str, known: list[str]) -> ValueError:
    """The error for a name that does not exist."""
    close = difflib.get_close_matches(name, known, 1, 0.0)[0]
    dashes = "--" if what == "setting" else ""
    return ValueError(f"there is no {what} '{dashes}{name}'; the nearest is '{dashes}{close}'")


def set_key(cfg: object, key: str, value: object) -> None:
    """Set 'section.field' (or 'field'); text is converted. ValueError if unknown or unfit."""
    if key not in keys(cfg):
        raise nearest("setting", key, keys(cfg))
    *sections, name = key.split(".")
    for part in sections:
        cfg = getattr(cfg, part)
    if isinstance(value, str):
        value = _convert(value, typing.get_type_hints(type(cfg))[name], key)
    setattr(cfg, name, value)


def _convert(text: str, kind: type, key: str) -> object:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    kind = options[0]
    if typing.get_origin(kind) is tuple:
        return tuple(_convert(part, typing.get_args(kind)[0], key) for part in text.split(","))
    try:
        return BOOLS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"--{key} should be a {kind.__name__}, not '{text}'") from None


def load(cfg: object, path: str) -> None:
    """Take over the settings that a run's config.json has; what is not a setting is passed over."""
    try:
        with open(path, encoding="utf-8") as f:
            saved = json.load(f)
    except (OSError, ValueError) as e:
        problem = f"cannot read the settings in '{path}' ({e})"
        raise ValueError(f"{problem}: name a run's config.json") from None
    for key in keys(cfg):
        with contextlib.suppress(KeyError, TypeError):
            value = saved
            for part in key.split("."):
                value = value[part]
            set_key(cfg, key, tuple(value) if isinstance(value, list) else value)


def check(cfg: object, prefix: str = "") -> None:
    """ValueError for values that no run could use: beyond a field's limits, or at odds."""
    if hasattr(cfg, "__post_init__"):
        cfg.__post_init__()
    for f in fields(cfg):
        key, value = prefix + f.name, getattr(cfg, f.name)
        if is_dataclass(value):
            check(value, f"{key}.")
        for x in value if isinstance(value, tuple) else (value,):
            if problem := _beyond(x, f.metadata):
                raise ValueError(f"--{key} is {x}; {problem}")


def _beyond(value: object, limits: dict) -> str:
    """What a value would have to be, "" if it is within its limits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "it must be a finite number"
    if value is None:
        return ""
    if "choices" in limits:
        listed = ", ".join(limits["choices"])
        return "" if value in limits["choices"] else f"use one of {listed}"
    if all(LIMITS[name][0](value, limit) for name, limit in limits.items()):
        return ""
    return "it must be " + " and ".join(f"{LIMITS[k][1]} {limit}" for k, limit in limits.items())


@contextlib.contextmanager
def user_errors():
    """Turn what a user can fix into one sentence and exit status 2, and Ctrl-C into status 130."""
    try:
        yield
    except (ValueError, OSError) as e:
        print(f"{os.path.basename(sys.argv[0])}: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


class Parser(argparse.ArgumentParser):
    """A script's flags; the docstring explains them, and a wrong one gets one sentence."""

    def __init__(self, doc: str):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        print(f"{self.prog}: {message} (--help explains)", file=sys.stderr)
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
        else:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            flag = f"--{prefix}{f.name} {shown}"
            lines.append(f"  {flag:40s} {comments.get(f.name, '')}".rstrip())
    return lines + later


def split_words(words: list[str], known: list[str], flags: list[str]):
    """A command line's settings and the rest. ValueError for a flag that is neither."""
    settings, rest, words = [], [], list(words)
    while words:
        word = words.pop(0)
        key, equals, value = word[2:].partition("=")
        if not word.startswith("--") or key in flags:
            rest.append(word)
        elif key not in known:
            raise nearest("setting", key, known + flags)
        elif not equals and not words:
            raise ValueError(f"--{key} needs a value")
        else:
            settings.append((key, value if equals else words.pop(0)))
    return settings, rest
