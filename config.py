"""Presets and the command line that every script shares.

    python train_zero.py --config small --grpo.lr 1e-6 --grpo.tasks countdown
    python train_zero.py --config runs/zero/config.json --seed 1 --out runs/again    # a saved run's

A script declares a Config made of the sections that it uses, and --help lists those alone. A preset
fills every field, `--section.field value` or `--section.field=value` changes one. A key that does
not exist is an error that names the nearest one. This file imports none of the scripts.
"""

import argparse
import operator
import re
import sys
from dataclasses import dataclass, field

from lib import cli, loggers
from lib.presets import PRESETS

# taken from here by the scripts: fields with limits, errors told in one sentence
Parser, user_errors, check = cli.Parser, cli.user_errors, cli.check
number, path, quoted = cli.number, cli.path, cli.quoted
section, setting, keys, set_key = cli.section, cli.setting, cli.keys, cli.set_key


@dataclass
class Asking:
    """What scripts that only ask a model can be told."""

    name: str = "tiny"  # the preset's; it is in names of folders
    seed: int = setting(0, high=1e9)
    device: str = setting("auto", choices=("auto", "cpu", "cuda", "mps"))  # "auto": cuda or cpu
    template: str = setting("auto", choices=("auto", "r1", "chat", "none"))  # of prompts
    template_args: dict[str, object] = field(default_factory=dict)  # --template.NAME VALUE

    @property
    def asked(self) -> dict:
        """How models are asked, for tokenizer.load."""
        return {"template": self.template, "template_args": self.template_args}


@dataclass
class Config(Asking):
    """What all other scripts can be told. A script's own Config adds its sections."""

    precision: str = setting("float32", choices=("float32", "bfloat16"))  # of forward and backward
    recompute: bool = False  # activations: compute them again in the backward pass, keep none
    sandbox: str = setting("strict", choices=("strict", "weak"))  # weak: limits time alone
    yes: bool = False  # begin a run that takes more than a day
    log: str = setting("none", choices=loggers.NAMES)  # where metrics go besides the run folder
    tokenizer: str = "corpus"  # train one on the texts; else a model folder or an encoding


def make(cls: type, preset: str = "tiny"):
    """A script's Config with the values of a preset, as far as it has these settings."""
    cfg = cls(name=preset)
    for key, value in PRESETS[preset].items():
        if key in keys(cfg):
            set_key(cfg, key, value)
    return cfg


def changed(cfg) -> dict[str, object]:
    """The settings that differ from those of the preset, or of `tiny` if it is a saved run's."""
    plain = make(type(cfg), cfg.name if cfg.name in PRESETS else "tiny")
    values = {key: operator.attrgetter(key) for key in keys(cfg)}
    return {key: of(cfg) for key, of in values.items() if of(cfg) != of(plain)}


def parse(parser, cls, quick=None, shapes=None, algorithms=None, argv=None):
    """Read the command line: (cfg of the script's Config class `cls`, its own flags).

    quick: what --quick changes, if the script has it. shapes: more names that --config takes, each
    a dict of model fields. algorithms: name -> what --algorithm NAME sets in the section grpo.
    """
    shapes, names = shapes or {}, [*PRESETS, *(shapes or {})]
    help_text = f"{', '.join(names)}, or a config.json"
    parser.add_argument("--config", default="tiny", metavar="NAME", help=help_text)
    if quick is not None:
        changes = ", ".join(f"{k} {v}" for k, v in quick.items())
        parser.add_argument("--quick", action="store_true", help=f"a few minutes: {changes}")
    if algorithms is not None:
        listed = ", ".join(algorithms)
        parser.add_argument("--algorithm", metavar="NAME", help=f"GRPO or a relative: {listed}")
    parser.set_defaults(quick=False, algorithm=None, held=[])  # held: what a config.json has
    with user_errors():
        lines = ["settings, with the values of `tiny`:", *cli.settings_help(cls())]
        parser.epilog = "\n".join(lines)
        words = sys.argv[1:] if argv is None else argv
        switches = [k for k in keys(cls()) if isinstance(operator.attrgetter(k)(cls()), bool)]
        settings, rest = cli.split_words(words, keys(cls()), parser.flags(), switches)
        args = parser.parse_args(rest)
        saved = args.config.endswith(".json")
        if args.config not in names and not saved:
            raise cli.nearest("config", args.config, names)
        cfg = make(cls, args.config if args.config in PRESETS else "tiny")
        if saved:
            args.held = cli.load(cfg, args.config)
            cfg.name = re.sub(r"[^\w-]", "", cfg.name) or "saved"  # it is in names of folders
        else:
            cfg.name = args.config
        chosen = {f"model.{k}": v for k, v in shapes.get(args.config, {}).items()}
        chosen |= quick if args.quick else {}
        name = args.algorithm or dict(settings).get("grpo.algorithm")
        if name and algorithms:
            if name not in algorithms:
                raise cli.nearest("algorithm", name, list(algorithms))
            found = {k: getattr(cls().grpo, k) for k in algorithms.get(cfg.grpo.algorithm, ())}
            found |= {"algorithm": name} | algorithms[name]  # in the place of a saved run's
            chosen |= {f"grpo.{k}": v for k, v in found.items()}
        for key, value in [*chosen.items(), *settings]:
            set_key(cfg, key, value)
        args.typed = [key for key, _ in settings]  # what the command line says of cfg
        check(cfg)
        loggers.choose(getattr(cfg, "log", "none"))
    return cfg, args


def run_folder(name: str, cfg: Config, args: argparse.Namespace) -> str:
    """Where a run goes if --out does not say: runs/NAME, runs/NAME-small, runs/NAME-quick."""
    preset = [cfg.name] if cfg.name != "tiny" else []
    return "-".join([f"runs/{name}", *preset, *(["quick"] if args.quick else [])])
