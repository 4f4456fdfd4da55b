"""How fast rollouts and whole GRPO steps are, for a dense and a mixture-of-experts shape; beside others, if a command for them is given.

    python tests/bench_speed.py                                    # ours alone
    python tests/bench_speed.py --peers "PYTHON peers.py"          # a program that prints JSON lines of transformers' and TRL's times

Keep the machine idle meanwhile. A rollout is 160 new tokens for each of 512 prompts of 26; a step is 64 new tokens for each of 16
responses to 32 prompts, and one optimiser step on them, in float32 and once more with --precision bfloat16 (weights kept in float32).
Medians of five, figures into results/bench-cpu.json (bench-gpu.json on a GPU).
"""

import argparse
import json
import random
import shlex
import statistics
import subprocess
import sys
import time

import torch
from conftest import ROOT  # noqa: F401  the project's modules are found from here on

import config
import experiments
import grpo
import parallel
from model import GPT, ModelConfig
from sample import generate

SHAPES = {"qwen2": ModelConfig(vocab_size=161, attention="gqa", n_experts=0, qkv_bias=True, rope_interleaved=False),
          "deepseek_v3": ModelConfig(vocab_size=161, qk_nope_head_dim=32)}
ROUNDS, BATCH, GROUP, PROMPT, NEW, STEP_NEW = 5, 512, 16, 26, 160, 64
CONFIG = grpo.GRPOConfig(group_size=GROUP, minibatches=1, max_new_tokens=STEP_NEW)


def build(shape: ModelConfig) -> GPT:
    """A new model that never ends a response."""
    torch.manual_seed(0)
    model = GPT(shape).to(parallel.device("auto"))
    model.cfg.eos_ids = (shape.vocab_size,)
    return model


def prompts(count: int) -> list[list[int]]:
    return torch.randint(3, 160, (count, PROMPT)).tolist()


def rollout(model: GPT) -> float:
    """Tokens a second of one rollout."""
    asked, t0 = prompts(BATCH), time.perf_counter()
    lengths = generate(model, asked, max_new_tokens=NEW).lengths.sum().item()  # waits for the device
    assert lengths == BATCH * (PROMPT + NEW)
    return BATCH * NEW / (time.perf_counter() - t0)


def parts(model: GPT, optimizer: torch.optim.Optimizer, asked: list[list[int]], cfg: grpo.GRPOConfig, seed: int | None = None) -> tuple[float, float, dict]:
    """One step, with a reward by the text: seconds of the rollout, of the update, and its metrics."""
    t0 = time.perf_counter()
    batch = generate(model, asked, num_generations=cfg.group_size, max_new_tokens=cfg.max_new_tokens, seed=seed)
    rewards = torch.tensor([float(sum(ids) % 7) for ids in batch.responses()])  # waits for the device
    t1 = time.perf_counter()
    metrics = grpo.update(model.train(), optimizer, batch, grpo.group_advantages(rewards, cfg.group_size).to(model.device), cfg, 1e-4, random.Random(0))
    return t1 - t0, time.perf_counter() - t1, metrics


def step(model: GPT, optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one step."""
    rollout_s, update_s, metrics = parts(model, optimizer, prompts(BATCH // GROUP), CONFIG)
    assert metrics["trained_tokens"] == BATCH * STEP_NEW
    return rollout_s + update_s


def half_steps(shape: ModelConfig) -> list[float]:
    """Seconds of steps with --precision bfloat16."""
    cfg = config.make("tiny")
    cfg.precision = "bfloat16"
    with parallel.started(cfg):
        model = build(shape)
        model = parallel.shard(model, model.blocks(), cfg)
        optimizer = grpo.make_optimizer(model, CONFIG)
        return [step(model, optimizer) for _ in range(ROUNDS + 1)][1:]


def peer(command: str, *flags: str) -> dict:
    """The last JSON line that a program prints."""
    done = subprocess.run([*shlex.split(command), *flags], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="command of a program with the flags of shared/tools/peers.py")
    args = parser.parse_args()
    figures = {}
    for name, shape in SHAPES.items():
        model = build(shape)
        optimizer = grpo.make_optimizer(model, CONFIG)
        rollout(model), step(model, optimizer)  # the first are slow
        ours, theirs = {"rollout_tokens_s": [], "step_s": []}, {"rollout_tokens_s": [], "step_s": []}
        for _ in range(ROUNDS):  # in turn, so that a slow minute of the machine is everybody's
            ours["rollout_tokens_s"].append(rollout(model))
            if args.peers:
                theirs["rollout_tokens_s"].append(peer(args.peers, "--arch", name, "--what", "generate", "--new", str(NEW))["tok_per_s"])
        ours["step_s"] = [step(model, optimizer) for _ in range(ROUNDS)]
        ours["step_bfloat16_s"] = half_steps(shape)
        if args.peers:
            theirs["step_s"] = peer(args.peers, "--arch", name, "--what", "step", "--new", str(STEP_NEW), "--steps", str(ROUNDS + 1))["step_s"][1:]
        figures[name] = {"parameters": sum(p.numel() for p in model.parameters()), "ours": ours} | ({"peers": theirs} if args.peers else {})
        medians = {who: {k: statistics.median(v) for k, v in times.items()} for who, times in (("ours", ours), *([("peers", theirs)] if args.peers else []))}
        line = f"{name}: rollout {medians['ours']['rollout_tokens_s']:,.0f} tokens/s, step {medians['ours']['step_s']:.2f} s, in bfloat16 {medians['ours']['step_bfloat16_s']:.2f} s"
        if args.peers:
            ratios = {"rollout": medians["ours"]["rollout_tokens_s"] / medians["peers"]["rollout_tokens_s"], "step": medians["peers"]["step_s"] / medians["ours"]["step_s"],
                      "step_bfloat16": medians["peers"]["step_s"] / medians["ours"]["step_bfloat16_s"]}
            line += (f"; transformers {medians['peers']['rollout_tokens_s']:,.0f} tokens/s: {ratios['rollout']:.1f}x; "
                     f"TRL {medians['peers']['step_s']:.2f} s: {ratios['step']:.1f}x, {ratios['step_bfloat16']:.1f}x")
            figures[name]["ratios"] = ratios
        figures[name]["medians"] = medians
        print(line, flush=True)
    path = experiments.save("bench-gpu" if torch.cuda.is_available() else "bench-cpu", {"batch": BATCH, "prompt": PROMPT, "new": NEW, "step_new": STEP_NEW, "shapes": figures},
                            "python tests/bench_speed.py" + (" --peers PEERS" if args.peers else ""))
    print(f"figures: {path}")


if __name__ == "__main__":
    main()
