"""A few training steps, as one of several processes: run by test_parallel.py, which compares what comes out.

    python tests/together.py OUT NAME...        # with RANK, WORLD_SIZE, ... in the environment, or alone

A name is a section and a shape, "grpo-moe", or "grpo-cut-moe" with smaller micro-batches, whose metrics and weights go to OUT; or "run:BASE:FOLDER:STOP": the R1-Zero run in FOLDER
on the model in BASE is begun or gone on with, and interrupted in step STOP; "judge:BASE:FOLDER": a reward model is trained; "fail": the first process meets an error that
the others do not.
"""

import os
import random
import signal
import sys

import torch

import config
import grpo
import parallel
import ppo
import preference
import sft
import train_zero
from data import Problem
from model import GPT

SHAPES = {
    "moe": dict(n_experts=4, expert_dim=16, kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, mtp=True),
    "dense": dict(attention="gqa", n_experts=0, n_kv_heads=2, head_dim=16, rope_interleaved=False, tie_embeddings=False),
}
COMMON = {"vocab_size": 300, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_seq_len": 64, "eos_ids": (1,)}


class Letters:
    """A tokenizer of single bytes."""

    chat = False

    def prompt(self, text: str) -> list[int]:
        return [3 + b for b in text.encode()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def settings(shape: str, **more) -> config.Config:
    cfg = config.make()
    for key, value in ({f"model.{k}": v for k, v in (COMMON | SHAPES[shape]).items()} | {k.replace("__", "."): v for k, v in more.items()}).items():
        config.set_key(cfg, key, value)
    return cfg


def network(cfg: config.Config) -> GPT:
    torch.manual_seed(0)
    model = GPT(cfg.model)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)
    return model


def build(cfg: config.Config) -> GPT:
    model = network(cfg)
    return parallel.shard(model, model.blocks(), cfg)


def fine_tuning(shape: str, cut: bool = False, **more) -> tuple[list[dict], GPT]:
    """Five steps of train_step, of 3 to 6 micro-batches each; with cut, of one text each."""
    cfg, rng = settings(shape, **more), random.Random(0)
    model = build(cfg)
    optimizers = sft.make_optimizers(model, cfg.sft)
    examples = [([rng.randrange(3, 300) for _ in range(rng.randint(4, 20))], rng.randint(0, 3)) for _ in range(100)]
    steps = sft.steps_of(examples, cfg.sft, random.Random(1))[:5]
    if cut:
        steps = [[[row] for rows in batch for row in rows] for batch in steps]
    return [sft.train_step(model.train(), optimizers, batch, 0.1, cfg.sft) for batch in steps], model


def reinforcement(shape: str, micro_tokens: int = 60, **more) -> tuple[list[dict], GPT]:
    """Five steps of grpo.step; the reward is a function of the tokens drawn."""
    cfg = settings(shape, grpo__group_size=4, grpo__max_new_tokens=12, grpo__minibatches=2, grpo__micro_tokens=micro_tokens, grpo__steps=8, **more)
    model = build(cfg)
    grpo.rw.score_all = lambda problems, texts, cfg: [{"accuracy": len(t) % 3, "format": 0.0, "language": 1.0, "total": float(len(t) % 3)} for t in texts]
    ref = build(cfg).requires_grad_(False) if cfg.grpo.kl_beta else None
    critic = ppo.make(network(cfg), cfg) if cfg.grpo.advantage == "gae" else None
    optimizer = grpo.make_optimizer(model, cfg.grpo)
    problems = [Problem("abcdefghij"[: 1 + 3 * i], "", "math") for i in range(3)]
    further = [Problem("klmnopqrst"[: 2 + 3 * i], "", "math") for i in range(3)]
    out = []
    for number in range(5):
        metrics, records = grpo.step(model, optimizer, Letters(), problems, cfg.grpo, cfg.rewards, number, 0, ref, None, critic, lambda number: further)
        assert len(records) == 12
        out.append({k: v for k, v in metrics.items() if not any(part in k for part in ("tim", "throughput", "memory"))} | {"drawn": [r["response"] for r in records]})
    return out, model


def zero(base: str, folder: str, stop: int) -> None:
    """Six steps of R1-Zero, a checkpoint every second."""
    cfg = config.make()
    for key, value in {"grpo.problems_per_step": 3, "grpo.group_size": 4, "grpo.max_new_tokens": 16, "grpo.save_every": 2, "grpo.steps": 6,
                       "grpo.kl_beta": 0.05, "grpo.ref_every": 3, "grpo.warmup": 1}.items():
        config.set_key(cfg, key, value)
    real = grpo.step

    def step(*args):
        if args[6] + 1 == stop:  # only one process is told
            os.kill(os.getpid(), signal.SIGINT) if parallel.first() else None
        return real(*args)

    grpo.step = step
    grpo.rw.score_all = lambda problems, texts, cfg: [{"accuracy": len(t) % 3, "format": 0.0, "language": 1.0, "total": float(len(t) % 3)} for t in texts]
    try:
        train_zero.train(cfg, base, folder, True)
    except KeyboardInterrupt:
        assert stop
    grpo.step = real


def judge(base: str, folder: str) -> None:
    """Five steps on responses with a label, in the last of which there is none for the second process."""
    cfg = config.make()
    for key, value in {"preference.examples": 33, "preference.epochs": 1, "preference.per_step": 8, "preference.held_out": 4}.items():
        config.set_key(cfg, key, value)
    preference.train(cfg, base, folder, "safe", False)  # a pair's bias has no gradient but rounding, which Adam makes a step of


SECTIONS = {
    "sft": lambda shape: fine_tuning(shape, sft__tokens_per_step=200, sft__micro_tokens=50),
    "sft-cut": lambda shape: fine_tuning(shape, True, sft__tokens_per_step=200, sft__micro_tokens=50),
    "grpo": lambda shape: reinforcement(shape),
    "grpo-cut": lambda shape: reinforcement(shape, micro_tokens=12),  # one response each
    "grpo-ppo": lambda shape: reinforcement(shape, grpo__advantage="gae", grpo__gae_lambda=0.95),
    "grpo-dapo": lambda shape: reinforcement(shape, grpo__average="token", grpo__overlong=0.5, grpo__dynamic=2),
    "grpo-more": lambda shape: reinforcement(shape, grpo__kl_beta=0.1, grpo__importance_cap=2.0, grpo__replay_routes=True, recompute=True),
}

if __name__ == "__main__":
    out, *names = sys.argv[1:]
    torch.set_num_threads(1)
    with config.user_errors(), parallel.started(config.make()):
        for name in names:
            if name == "fail":
                if parallel.first():
                    raise OSError("the disk is full")
                parallel.wait()
            if name.startswith("run:"):
                zero(*name.split(":")[1:3], int(name.split(":")[3]))
                continue
            if name.startswith("judge:"):
                judge(*name.split(":")[1:])
                continue
            section, _, shape = name.rpartition("-")
            metrics, model = SECTIONS[section](shape)
            state = parallel.collect(model.state_dict())
            if parallel.first():
                torch.save(state, os.path.join(out, f"{name}.pt"))
                parallel.write_json(os.path.join(out, f"{name}.json"), metrics)
