"""Presets and the command line that every script shares.

    python train_zero.py --config small --grpo.lr 1e-6 --world.tasks countdown

A preset fills every field; `--section.field value` changes one. A key that does not exist is an error that names the
nearest one. The sections are the dataclasses at the top of model.py, data.py, rewards.py, sft.py, grpo.py,
preference.py, train_r1.py, distill.py, search.py and eval.py.
"""

import argparse
import contextlib
import difflib
import os
import sys
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass

from data import WorldConfig
from distill import DistillConfig
from eval import EvalConfig
from grpo import ALGORITHMS, GRPOConfig
from model import ModelConfig
from preference import PreferenceConfig
from rewards import RewardConfig
from search import SearchConfig
from sft import SFTConfig
from train_r1 import R1Config


@dataclass
class Config:
    name: str = "tiny"
    seed: int = 0
    device: str = "auto"  # "auto": the GPU if there is one
    precision: str = "float32"  # of forward and backward passes: "float32" or "bfloat16"; weights that are kept stay float32
    recompute: bool = False  # activations: compute them again in the backward pass instead of keeping them
    tokenizer: str = "corpus"  # "corpus": train one on the texts; else a model folder or a tiktoken encoding
    model: ModelConfig = field(default_factory=ModelConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    rewards: RewardConfig = field(default_factory=RewardConfig)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    r1: R1Config = field(default_factory=R1Config)
    distill: DistillConfig = field(default_factory=DistillConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


# Each preset is what differs from `tiny`, the defaults in the dataclasses.
PRESETS: dict[str, dict[str, object]] = {
    "tiny": {},
    "small": {
        "model.dim": 768, "model.n_layers": 12, "model.n_heads": 12, "model.hidden_dim": 2048, "model.vocab_size": 4096,
        "model.max_seq_len": 4096, "model.kv_lora_rank": 256, "model.qk_nope_head_dim": 64, "model.qk_rope_head_dim": 32,
        "model.v_head_dim": 64, "model.n_experts": 16, "model.n_experts_per_token": 4, "model.expert_dim": 256,
        "world.level": 2, "precision": "bfloat16", "sft.tokens": 1_000_000_000, "sft.tokens_per_step": 262_144, "sft.micro_tokens": 16_384,
        "sft.adam_lr": 1e-3, "grpo.steps": 300, "grpo.problems_per_step": 64, "grpo.max_new_tokens": 1024, "grpo.micro_tokens": 16_384, "grpo.lr": 5e-5,
        "grpo.warmup": 10, "eval.max_new_tokens": 1024, "r1.cold_prompts": 8000, "r1.reject_prompts": 10_000, "r1.dev2_steps": 200,
        "r1.final_steps": 150, "r1.preference_steps": 60, "r1.tokens_per_step": 65_536, "preference.examples": 12_000, "distill.prompts": 12_000,
        "distill.tokens": 500_000_000, "distill.rl_steps": 150,
    },
    "big": {
        "model.dim": 1536, "model.n_layers": 24, "model.n_heads": 16, "model.hidden_dim": 4096, "model.vocab_size": 100352,
        "model.max_seq_len": 32768, "model.kv_lora_rank": 512, "model.qk_nope_head_dim": 128, "model.qk_rope_head_dim": 64,
        "model.v_head_dim": 128, "model.n_experts": 32, "model.n_experts_per_token": 4, "model.expert_dim": 256,
        "tokenizer": "cl100k_base", "world.level": 3, "precision": "bfloat16", "recompute": True, "sft.tokens": 4_000_000_000, "sft.tokens_per_step": 524_288,
        "sft.micro_tokens": 32_768, "sft.muon_lr": 0.01, "sft.adam_lr": 5e-4, "grpo.steps": 500, "grpo.problems_per_step": 16, "grpo.max_new_tokens": 2048, "grpo.micro_tokens": 32_768,
        "grpo.lr": 2e-5, "grpo.warmup": 10, "grpo.kl_beta": 1e-3, "grpo.ref_every": 400, "eval.max_new_tokens": 2048, "eval.rows": 256, "r1.cold_prompts": 8000,
        "r1.reject_prompts": 20_000, "r1.dev2_steps": 300, "r1.final_steps": 200, "r1.preference_steps": 80, "r1.tokens_per_step": 131_072,
        "preference.examples": 20_000, "distill.prompts": 20_000, "distill.tokens": 1_000_000_000, "distill.rl_steps": 200,
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
        return tuple(_convert(part, typing.get_args(kind)[0], key) for part in text.split(","))
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    try:
        if kind is bool:
            raise ValueError
        return kind(text)
    except ValueError:
        raise ValueError(f"--{key} should be a {kind.__name__}, not '{text}'") from None


def make(name: str = "tiny") -> Config:
    """A preset."""
    cfg = Config(name=name)
    for key, value in PRESETS[name].items():
        set_key(cfg, key, value)
    return cfg


@contextlib.contextmanager
def user_errors():
    """Turn what a user can mend into one sentence on stderr and exit status 2, and Ctrl-C into status 130."""
    try:
        yield
    except (ValueError, OSError) as e:
        print(f"{os.path.basename(sys.argv[0])}: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


class Parser(argparse.ArgumentParser):
    """A script's flags, explained by its docstring; a wrong one gets one sentence and exit status 2."""

    def __init__(self, doc: str):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        print(f"{self.prog}: {message} (--help explains)", file=sys.stderr)
        sys.exit(2)


def parse(parser: Parser, quick: dict[str, object] | None = None,
          shapes: dict[str, dict] | None = None, argv: list[str] | None = None, algorithm: bool = False) -> tuple[Config, argparse.Namespace]:
    """Read the command line: the script's own flags, --config, --seed, and any --section.field value.

    quick: what --quick changes, if the script has it. shapes: more names --config takes, as model fields. algorithm: whether the script
    has --algorithm.
    """
    shapes = shapes or {}
    defaults = Config()
    parser.add_argument("--config", default="tiny", metavar="NAME", help=f"preset: {', '.join([*PRESETS, *shapes])} (default tiny)")
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help="a few minutes, same curves: " + ", ".join(f"{k} {v}" for k, v in quick.items()))
    if algorithm:
        told = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in chosen.items()) or 'the settings below'}" for name, chosen in ALGORITHMS.items())
        parser.add_argument("--algorithm", default="grpo", metavar="NAME", help=f"what it sets in grpo: {told}")
    parser.set_defaults(quick=False)  # of scripts without it
    parser.epilog = "settings, with the values of `tiny`:\n" + "\n".join(f"  --{k} {_get(defaults, k)}" for k in keys(defaults))
    own = [s[2:] for action in parser._actions for s in action.option_strings if s.startswith("--")]
    with user_errors():
        settings, rest = _settings(sys.argv[1:] if argv is None else argv, keys(defaults), own)
        args = parser.parse_args(rest)
        chosen = [("config", args.config, [*PRESETS, *shapes])] + ([("algorithm", args.algorithm, list(ALGORITHMS))] if algorithm else [])
        for what, name, names in chosen:
            if name not in names:
                raise ValueError(f"there is no {what} '{name}'; the nearest is '{difflib.get_close_matches(name, names, 1, 0.0)[0]}'")
        cfg = make(args.config if args.config in PRESETS else "tiny")
        cfg.name = args.config
        for key, value in shapes.get(args.config, {}).items():
            setattr(cfg.model, key, value)
        for key, value in (quick.items() if quick is not None and args.quick else ()):
            set_key(cfg, key, value)
        for key, value in (ALGORITHMS[args.algorithm].items() if algorithm else ()):
            set_key(cfg, f"grpo.{key}", value)
        for key, value in settings:
            set_key(cfg, key, value)
        check(cfg)
    return cfg, args


def folder(name: str, cfg: Config, args: argparse.Namespace) -> str:
    """Where a script's run goes if --out does not say: runs/NAME for the laptop's, runs/NAME-small, runs/NAME-quick for those with other models."""
    return "-".join([f"runs/{name}", *([cfg.name] if cfg.name != "tiny" else []), *(["quick"] if args.quick else [])])


def zero_folder(out: str, cfg: Config, args: argparse.Namespace) -> str:
    """Where the Zero of train_r1.py's run in `out` is by default; --quick has one of its own, as train_zero.py's quick base knows one task alone."""
    return os.path.join(out, "zero") if args.quick else folder("zero", cfg, args)


def _settings(argv: list[str], known: list[str], own: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Split a command line into its settings and the rest. ValueError for a flag that is neither a setting nor the script's."""
    settings, rest, argv = [], [], list(argv)
    while argv:
        word = argv.pop(0)
        key, equals, value = word[2:].partition("=")
        if not word.startswith("--") or key in own:
            rest.append(word)
        elif key not in known:
            near = difflib.get_close_matches(key, known + own, 1, 0.0)[0]
            raise ValueError(f"there is no setting '--{key}'; the nearest is '--{near}'")
        elif not equals and not argv:
            raise ValueError(f"--{key} needs a value")
        else:
            settings.append((key, value if equals else argv.pop(0)))
    return settings, rest


def check(cfg: Config) -> None:
    """ValueError for values that no run could use."""
    for section in (cfg.model, cfg.grpo, cfg.search):
        section.__post_init__()
    if cfg.precision not in ("float32", "bfloat16"):
        raise ValueError(f"--precision is '{cfg.precision}'; use float32 or bfloat16")
    least = {"model.dim": 1, "model.n_layers": 1, "model.n_heads": 1, "model.hidden_dim": 1, "model.n_groups": 1, "model.max_seq_len": 2,
             "model.vocab_size": 256 + 9, "sft.tokens": 1, "sft.epochs": 1, "sft.tokens_per_step": 1, "sft.micro_tokens": 1, "sft.save_every": 1,
             "grpo.steps": 1, "grpo.problems_per_step": 1, "grpo.group_size": 2, "grpo.max_new_tokens": 1, "grpo.rows": 0, "grpo.minibatches": 1,
             "grpo.micro_tokens": 1, "grpo.importance_cap": 0, "grpo.off_policy_mask": 0, "grpo.dynamic": 0, "grpo.critic_lr": 0, "grpo.save_every": 1, "grpo.temperature": 0.01, "eval.problems": 1, "eval.k": 1, "eval.max_new_tokens": 1,
             "eval.rows": 1, "eval.temperature": 0, "sft.decay": 0.001, "world.max_tries": 2, "world.arithmetic": 0.01, "world.minor": 0.01, "preference.examples": 2, "preference.epochs": 1,
             "preference.per_step": 1, "preference.held_out": 2, "r1.cold_prompts": 4, "r1.cold_samples": 1, "r1.dev2_steps": 1, "r1.reject_prompts": 4,
             "r1.reject_samples": 1, "r1.most_kept": 1, "r1.demonstrations": 0, "r1.final_steps": 1, "r1.preference_steps": 0, "r1.epochs": 1,
             "r1.tokens_per_step": 1, "distill.prompts": 4, "distill.general": 0, "distill.samples": 1, "distill.most_kept": 1, "distill.tokens": 1,
             "distill.rl_steps": 1, "search.problems": 1, "search.expansions": 1, "search.exploration": 0, "search.step_tokens": 1, "search.train_problems": 4,
             "search.train_samples": 1, "search.completions": 1, "search.held_out": 4}
    for key, value in least.items():
        if _get(cfg, key) < value:
            raise ValueError(f"--{key} is {_get(cfg, key)}; it must be at least {value}")
    if not 0 < cfg.eval.top_p <= 1:
        raise ValueError(f"--eval.top_p is {cfg.eval.top_p}; it must be above 0, and at most 1")
    shares = ("direct", "direct_countdown", "direct_other", "careless", "wrong", "tags", "broken_tags", "slip", "uncaught", "mixed", "unfinished")
    for key in [*(f"world.{name}" for name in shares), "r1.general", "grpo.overlong", "grpo.gae_lambda"]:
        if not 0 <= _get(cfg, key) <= 1:
            raise ValueError(f"--{key} is {_get(cfg, key)}; it is a share, between 0 and 1")
    if cfg.r1.preference_steps > cfg.r1.final_steps:
        raise ValueError(f"--r1.preference_steps is {cfg.r1.preference_steps}; they are the last of --r1.final_steps, {cfg.r1.final_steps}")


def _get(cfg: Config, key: str) -> object:
    for part in key.split("."):
        cfg = getattr(cfg, part)
    return ",".join(map(str, cfg)) if isinstance(cfg, tuple) else cfg
