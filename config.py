"""Presets and the command line that every script shares.

    python train_zero.py --config small --grpo.lr 1e-6 --world.tasks countdown

A preset fills every field; `--section.field value` changes one. A key that does not exist is an error that names the
nearest one. The sections are the dataclasses at the top of model.py, data.py, rewards.py, sft.py, grpo.py and eval.py.
"""

import argparse
import contextlib
import difflib
import json
import os
import sys
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass

from data import WorldConfig
from eval import EvalConfig
from grpo import GRPOConfig
from model import ModelConfig
from rewards import RewardConfig
from sft import SFTConfig


@dataclass
class Config:
    name: str = "tiny"
    seed: int = 0
    device: str = "auto"  # "auto": the GPU if there is one
    tokenizer: str = "corpus"  # "corpus": train one on the texts; else a model folder or a tiktoken encoding
    model: ModelConfig = field(default_factory=ModelConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    rewards: RewardConfig = field(default_factory=RewardConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


# Each preset is what differs from `tiny`, the defaults in the dataclasses.
PRESETS: dict[str, dict[str, object]] = {
    "tiny": {},
    "small": {
        "model.dim": 768, "model.n_layers": 12, "model.n_heads": 12, "model.hidden_dim": 2048, "model.vocab_size": 4096,
        "model.max_seq_len": 4096, "model.kv_lora_rank": 256, "model.qk_nope_head_dim": 64, "model.qk_rope_head_dim": 32,
        "model.v_head_dim": 64, "model.n_experts": 16, "model.n_experts_per_token": 4, "model.expert_dim": 256,
        "world.level": 2,
    },
    "big": {
        "model.dim": 1536, "model.n_layers": 24, "model.n_heads": 16, "model.hidden_dim": 4096, "model.vocab_size": 100352,
        "model.max_seq_len": 32768, "model.kv_lora_rank": 512, "model.qk_nope_head_dim": 128, "model.qk_rope_head_dim": 64,
        "model.v_head_dim": 128, "model.n_experts": 32, "model.n_experts_per_token": 4, "model.expert_dim": 256,
        "tokenizer": "cl100k_base", "world.level": 3,
    },
}


def set_key(cfg: Config, key: str, value: object) -> None:
    """Set 'section.field' (or 'field'); text is converted to the field's type. ValueError if unknown or unfit."""
    *path, name = key.split(".")
    target = cfg
    for part in path:
        target = getattr(target, part, None) if is_dataclass(target) else None
    known = {f.name: f for f in fields(target)} if is_dataclass(target) else {}
    if name not in known or is_dataclass(getattr(target, name)):
        near = difflib.get_close_matches(key, keys(cfg), 1, 0.0)[0]
        raise ValueError(f"there is no setting '--{key}'; the nearest is '--{near}'")
    if isinstance(value, str):
        value = _convert(value, typing.get_type_hints(type(target))[name], key)
    setattr(target, name, value)


def keys(cfg: Config) -> list[str]:
    """All 'section.field' names of a config."""
    out = []
    for f in fields(cfg):
        value = getattr(cfg, f.name)
        out += [f"{f.name}.{k}" for k in keys(value)] if is_dataclass(value) else [f.name]
    return out


def _convert(text: str, kind: type, key: str) -> object:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    kind = options[0]
    if typing.get_origin(kind) is tuple:
        return tuple(text.split(","))
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    try:
        if kind is bool:
            raise ValueError
        return kind(text)
    except ValueError:
        raise ValueError(f"--{key} should be a {kind.__name__}, not '{text}'") from None


def make(name: str = "tiny", **overrides: object) -> Config:
    """A preset, with overrides given as section__field=value or through set_key."""
    cfg = Config(name=name)
    for key, value in PRESETS[name].items():
        set_key(cfg, key, value)
    for key, value in overrides.items():
        set_key(cfg, key.replace("__", "."), value)
    return cfg


@contextlib.contextmanager
def user_errors():
    """Turn a ValueError into one sentence on stderr and exit status 2."""
    try:
        yield
    except ValueError as e:
        sys.exit(_complain(str(e)))


def _complain(message: str) -> int:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    return 2


def parse(parser: argparse.ArgumentParser, quick: dict[str, object] | None = None,
          shapes: dict[str, dict] | None = None, argv: list[str] | None = None) -> tuple[Config, argparse.Namespace]:
    """Read the command line: the script's own flags, --config, --seed, and any --section.field value.

    quick: what --quick changes, if the script has it. shapes: more names --config takes, as model fields.
    """
    shapes = shapes or {}
    defaults = Config()
    parser.add_argument("--config", default="tiny", metavar="NAME", help=f"preset: {', '.join([*PRESETS, *shapes])} (default tiny)")
    parser.add_argument("--seed", type=int, help="seed of everything random (default 0)")
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help="a few minutes, same curves: " + ", ".join(f"{k} {v}" for k, v in quick.items()))
    parser.epilog = "settings, with the values of `tiny`:\n" + "\n".join(f"  --{k} {_get(defaults, k)}" for k in keys(defaults))
    args, rest = parser.parse_known_args(argv)
    with user_errors():
        if args.config not in PRESETS and args.config not in shapes:
            near = difflib.get_close_matches(args.config, [*PRESETS, *shapes], 1, 0.0)[0]
            raise ValueError(f"there is no config '{args.config}'; the nearest is '{near}'")
        cfg = make(args.config if args.config in PRESETS else "tiny")
        cfg.name = args.config
        for key, value in shapes.get(args.config, {}).items():
            setattr(cfg.model, key, value)
        if quick is not None and args.quick:
            for key, value in quick.items():
                set_key(cfg, key, value)
        if args.seed is not None:
            cfg.seed = args.seed
        while rest:
            flag = rest.pop(0)
            if not flag.startswith("--"):
                raise ValueError(f"'{flag}' is not understood: settings are written --section.field value")
            key, equals, value = flag[2:].partition("=")
            if not equals:
                if key not in keys(cfg):
                    options = [s[2:] for a in parser._actions for s in a.option_strings if s.startswith("--")]
                    near = difflib.get_close_matches(key, keys(cfg) + options, 1, 0.0)[0]
                    raise ValueError(f"there is no setting '--{key}'; the nearest is '--{near}'")
                if not rest:
                    raise ValueError(f"--{key} needs a value")
                value = rest.pop(0)
            set_key(cfg, key, value)
        cfg.model.__post_init__()  # overrides may have made a shape that cannot be
    return cfg, args


def _get(cfg: Config, key: str) -> object:
    for part in key.split("."):
        cfg = getattr(cfg, part)
    return ",".join(cfg) if isinstance(cfg, tuple) else cfg


def save(cfg: Config, path: str) -> None:
    with open(path + ".tmp", "w") as f:
        json.dump(asdict(cfg), f, indent=1)
    os.replace(path + ".tmp", path)
