"""A few training steps as one of several processes; test_distributed.py compares them.

    python tests/together.py OUT NAME...    # alone, or with RANK, WORLD_SIZE, ... set

A name is a section and a shape, "grpo-moe", or "grpo-cut-moe" with smaller micro-batches, whose
metrics and weights go to OUT; or "run:BASE:FOLDER:STOP": the R1-Zero run in FOLDER on the model in
BASE is started or resumed, and interrupted in step STOP; "judge:BASE:FOLDER": a reward model is
trained; "fail": the main process meets an error that the others do not. "bfloat16" among the names:
all of it in that precision.
"""

import os
import random
import signal
import sys
from dataclasses import dataclass
from functools import partial

import torch

import config
import grpo
import preference
import sft
import train_zero
from algorithms import ALGORITHMS, relatives
from data import Problem
from lib import distributed, files
from lib.errors import UserError
from model import GPT
from preference import PreferenceConfig

COMMON = dict(vocab_size=300, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_seq_len=64)
COMMON |= dict(eos_ids=(1,))
MOE = dict(n_experts=4, expert_dim=16, kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=8)
DENSE = dict(attention="gqa", n_experts=0, n_kv_heads=2, head_dim=16, rope_interleaved=False)
SHAPES = {
    "moe": COMMON | MOE | dict(v_head_dim=8),
    "dense": COMMON | DENSE | dict(tie_embeddings=False),
}
ALGORITHMS["test"] = grpo.Algorithm(
    penalty=partial(relatives.overlong_penalty, part=0.5),
    resample=partial(relatives.dynamic_sampling, most=2),
)


@dataclass
class Config(train_zero.Config):
    preference: PreferenceConfig = config.section(PreferenceConfig)


class Letters:
    """A tokenizer of single bytes."""

    chat = False

    def prompt(self, text: str) -> list[int]:
        return [3 + b for b in text.encode()]

    def response(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


PRECISION = {"precision": "bfloat16" if "bfloat16" in sys.argv else "float32"}


def settings(values: dict) -> Config:
    cfg = config.make(Config)
    for key, value in (PRECISION | values).items():
        config.set_key(cfg, key, value)
    return cfg


def shaped(shape: str, values: dict) -> Config:
    return settings({f"model.{k}": v for k, v in SHAPES[shape].items()} | values)


def network(cfg: Config) -> GPT:
    torch.manual_seed(0)
    model = GPT(cfg.model)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)
    return model


def scores(problems: list[Problem], texts: list[str], cfg) -> list[dict[str, float]]:
    """Rewards that are a function of the text's length alone."""
    fixed = {"format": 0.0, "language": 1.0}
    return [{"accuracy": len(t) % 3, "total": float(len(t) % 3)} | fixed for t in texts]


def fine_tuning(out: str, shape: str, cut: bool = False) -> tuple[list[dict], GPT]:
    """Five steps of train_step, of 3 to 6 micro-batches each; with cut, of one text each."""
    cfg = shaped(shape, {"sft.tokens_per_step": 200, "sft.micro_tokens": 50})
    rng, model = random.Random(0), network(cfg)
    trainer = sft.make_trainer(distributed.shard(model, model.layers, cfg), cfg.sft)
    examples = []
    for _ in range(100):
        ids = [rng.randrange(3, 300) for _ in range(rng.randint(4, 20))]
        examples.append((ids, rng.randint(0, 3)))
    steps = sft.steps_of(examples, cfg.sft, random.Random(1))[:5]
    if cut:
        steps = [[[row] for rows in batch for row in rows] for batch in steps]
    rows = [sft.train_step(trainer, batch, 0.1, cfg.sft) for batch in steps]
    return [row | {"step_time": 0.0} for row in rows], model


def reinforcement(out: str, shape: str, micro_tokens: int = 60, **values) -> tuple[list[dict], GPT]:
    """Five steps of GRPO; the reward is a function of the tokens drawn."""
    common = dict(group_size=4, max_new_tokens=12, minibatches=2, steps=8)
    common |= dict(micro_tokens=micro_tokens, **values)
    recompute = {"recompute": common.pop("recompute", False)}
    cfg = shaped(shape, {f"grpo.{k}": v for k, v in common.items()} | recompute)
    model, base = network(cfg), os.path.join(out, f"base-{shape}")
    model.save_pretrained(base)  # where the reference and the critic start
    model = distributed.shard(model, model.layers, cfg)
    learner = grpo.Learner(model, Letters(), cfg, base)
    problems = [Problem("abcdefghij"[: 1 + 3 * i], "", "math") for i in range(3)]
    further = [Problem("klmnopqrst"[: 2 + 3 * i], "", "math") for i in range(3)]
    rows, unlike = [], ("tim", "throughput", "memory")
    for number in range(5):
        metrics, records = learner.step(number, lambda n: problems if n < 5 else further)
        assert len(records) == 12
        metrics = {k: v for k, v in metrics.items() if not any(part in k for part in unlike)}
        rows.append(metrics | {"drawn": [r["response"] for r in records]})
    return rows, model


SECTIONS = {
    "sft": fine_tuning,
    "sft-cut": partial(fine_tuning, cut=True),
    "grpo": reinforcement,
    "grpo-cut": partial(reinforcement, micro_tokens=12),  # one response each
    "grpo-ppo": partial(reinforcement, algorithm="ppo-0.95"),
    "grpo-dapo": partial(reinforcement, algorithm="test", average="token"),
    "grpo-more": partial(
        reinforcement, kl_beta=0.1, importance_cap=2.0, replay_routes=True, recompute=True
    ),
}


def zero(base: str, folder: str, stop: int) -> None:
    """Six steps of R1-Zero, a checkpoint every second."""
    values = dict(problems_per_step=3, group_size=4, max_new_tokens=16, save_every=2, steps=6)
    values |= dict(kl_beta=0.05, ref_every=3, sync_every=2, warmup=1)
    cfg, real = settings({f"grpo.{k}": v for k, v in values.items()}), grpo.Learner.step

    def step(learner, number, next_problems):
        if number + 1 == stop and distributed.is_main_process():  # one process gets the signal
            os.kill(os.getpid(), signal.SIGINT)
        return real(learner, number, next_problems)

    grpo.Learner.step = step
    try:
        train_zero.train(cfg, base, folder, True)
    except KeyboardInterrupt:
        assert stop
    grpo.Learner.step = real


def judge(base: str, folder: str) -> None:
    """Five steps on responses with a label, in the last of which there is none for the second
    process. Not on pairs: their bias has no gradient but rounding, which Adam makes a step of."""
    values = dict(examples=132, epochs=1, per_step=8, held_out=4)  # 33 of them are labelled
    cfg = settings({f"preference.{k}": v for k, v in values.items()})
    preference.train(cfg, base, folder, "safe", False)


def main(out: str, names: list[str]) -> None:
    for name in names:
        if name == "fail":
            if distributed.is_main_process():
                raise UserError("the disk is full")
            distributed.barrier()
        elif name.startswith("run:"):
            _, base, folder, stop = name.split(":")
            zero(base, folder, int(stop))
        elif name.startswith("judge:"):
            judge(*name.split(":")[1:])
        else:
            section, _, shape = name.rpartition("-")
            metrics, model = SECTIONS[section](out, shape)
            state = distributed.full_state(model.state_dict())
            if distributed.is_main_process():
                torch.save(state, os.path.join(out, f"{name}.pt"))
                files.write_json(os.path.join(out, f"{name}.json"), metrics)


if __name__ == "__main__":
    torch.set_num_threads(1)
    grpo.rw.score_all = scores
    with config.user_errors(), distributed.started(settings({})):
        main(sys.argv[1], [name for name in sys.argv[2:] if name not in ("float32", "bfloat16")])
