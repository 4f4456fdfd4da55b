"""Presets and the command line that every script shares.

    python train_zero.py --config small --grpo.lr 1e-6 --world.tasks countdown
    python train_zero.py --config runs/zero/config.json --seed 1      # the settings of a saved run

A script declares a Config made of the sections that it uses, and --help lists those alone. A preset
fills every field, `--section.field value` or `--section.field=value` changes one. A key that does
not exist is an error that names the nearest one. This file imports none of the scripts.
"""

import argparse
import re
import sys
from dataclasses import dataclass

from lib import cli

# fields with limits, and one sentence for an error: scripts take these from here
Parser, user_errors, check = cli.Parser, cli.user_errors, cli.check
number, path = cli.number, cli.path
section, setting, keys, set_key = cli.section, cli.setting, cli.keys, cli.set_key


@dataclass
class Config:
    """What all scripts can be told. A script's own Config adds its sections."""

    name: str = "tiny"
    seed: int = setting(0, high=1e9)
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))  # "auto": a GPU if there is one
    precision: str = setting("float32", choices=("float32", "bfloat16"))  # of forward and backward
    recompute: bool = False  # activations: compute them again in the backward pass, keep none
    yes: bool = False  # begin a run that takes more than a day
    tokenizer: str = "corpus"  # train one on the texts; else a model folder or an encoding


# Each preset is what differs from `tiny`, the defaults in the dataclasses: lines of "key value".
_SMALL = """
model.dim 768  model.n_layers 12  model.n_heads 12  model.hidden_dim 2048  model.vocab_size 4096
model.max_seq_len 4096  model.kv_lora_rank 256  model.qk_nope_head_dim 64  model.qk_rope_head_dim 32
model.v_head_dim 64  model.n_experts 16  model.n_experts_per_token 4  model.expert_dim 256
world.level 2  precision bfloat16  sft.tokens 1_000_000_000  sft.tokens_per_step 262_144
sft.micro_tokens 16_384  sft.adam_lr 1e-3  grpo.steps 300  grpo.problems_per_step 64
grpo.max_new_tokens 1024  grpo.micro_tokens 16_384  grpo.lr 5e-5  grpo.warmup 10
eval.max_new_tokens 1024  r1.cold_prompts 8000  r1.reject_prompts 10_000  r1.dev2_steps 200
r1.final_steps 150  r1.preference_steps 60  r1.tokens_per_step 65_536  preference.examples 12_000
distill.prompts 12_000  distill.tokens 500_000_000  distill.rl_steps 150
"""
_BIG = """
model.dim 1536  model.n_layers 24  model.n_heads 16  model.hidden_dim 4096  model.vocab_size 100352
model.max_seq_len 32768  model.kv_lora_rank 512  model.qk_nope_head_dim 128
model.qk_rope_head_dim 64  model.v_head_dim 128  model.n_experts 32  model.n_experts_per_token 4
model.expert_dim 256  tokenizer cl100k_base  world.level 3  precision bfloat16  recompute true
sft.tokens 4_000_000_000  sft.tokens_per_step 524_288  sft.micro_tokens 32_768  sft.muon_lr 0.01
sft.adam_lr 5e-4  grpo.steps 500  grpo.problems_per_step 16  grpo.max_new_tokens 2048
grpo.micro_tokens 32_768  grpo.lr 2e-5  grpo.warmup 10  grpo.kl_beta 1e-3  grpo.ref_every 25
eval.max_new_tokens 2048  eval.rows 256  r1.cold_prompts 8000  r1.reject_prompts 20_000
r1.dev2_steps 300  r1.final_steps 200  r1.preference_steps 80  r1.tokens_per_step 131_072
preference.examples 20_000  distill.prompts 20_000  distill.tokens 1_000_000_000
distill.rl_steps 200
"""
PRESETS: dict[str, dict[str, str]] = {"tiny": {}}
for _name, _text in (("small", _SMALL), ("big", _BIG)):
    _words = _text.split()
    PRESETS[_name] = dict(zip(_words[::2], _words[1::2]))


def make(cls: type, preset: str = "tiny"):
    """A script's Config with the values of a preset, as far as it has these settings."""
    cfg = cls(name=preset)
    for key, value in PRESETS[preset].items():
        if key in keys(cfg):
            set_key(cfg, key, value)
    return cfg


def parse(parser, cls, quick=None, shapes=None, algorithms=None, argv=None):
    """Read the command line: (cfg of the script's Config class `cls`, its own flags).

    quick: what --quick changes, if the script has it. shapes: more names that --config takes, each
    a dict of model fields. algorithms: name -> what --algorithm NAME sets in the section grpo.
    """
    shapes, names = shapes or {}, [*PRESETS, *(shapes or {})]
    told = f"{', '.join(names)}, or a config.json"
    parser.add_argument("--config", default="tiny", metavar="NAME", help=told)
    if quick is not None:
        told = ", ".join(f"{k} {v}" for k, v in quick.items())
        parser.add_argument("--quick", action="store_true", help=f"a few minutes: {told}")
    if algorithms is not None:
        told = ", ".join(algorithms)
        parser.add_argument("--algorithm", metavar="NAME", help=f"GRPO or a relative: {told}")
    parser.set_defaults(quick=False, algorithm=None)  # of scripts without them
    with user_errors():
        told = ["settings, with the values of `tiny`:", *cli.settings_help(cls())]
        parser.epilog = "\n".join(told)
        words = sys.argv[1:] if argv is None else argv
        switches = [key for key in keys(cls()) if cli.is_switch(cls(), key)]
        settings, rest = cli.split_words(words, keys(cls()), parser.flags(), switches)
        args = parser.parse_args(rest)
        saved = args.config.endswith(".json")
        if args.config not in names and not saved:
            raise cli.nearest("config", args.config, names)
        cfg = make(cls, args.config if args.config in PRESETS else "tiny")
        if saved:
            cli.load(cfg, args.config)
            cfg.name = re.sub(r"[^\w-]", "", cfg.name) or "saved"  # it is in names of folders
        else:
            cfg.name = args.config
        chosen = {f"model.{k}": v for k, v in shapes.get(args.config, {}).items()}
        chosen |= quick if args.quick else {}
        name = args.algorithm or dict(settings).get("grpo.algorithm")
        if name and algorithms:
            if name not in algorithms:
                raise cli.nearest("algorithm", name, list(algorithms))
            found = {"algorithm": name} | algorithms[name]
            chosen |= {f"grpo.{k}": v for k, v in found.items()}
        for key, value in [*chosen.items(), *settings]:
            set_key(cfg, key, value)
        args.typed = [key for key, _ in settings]  # what the command line says of cfg
        check(cfg)
    return cfg, args


def run_folder(name: str, cfg: Config, args: argparse.Namespace) -> str:
    """Where a run goes if --out does not say: runs/NAME, runs/NAME-small, runs/NAME-quick."""
    preset = [cfg.name] if cfg.name != "tiny" else []
    return "-".join([f"runs/{name}", *preset, *(["quick"] if args.quick else [])])
