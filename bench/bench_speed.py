"""How fast rollouts and whole GRPO steps are, of a dense and a mixture-of-experts model.

    python bench/bench_speed.py                              # ours alone
    python bench/bench_speed.py --peers "PYTHON peers.py"    # and transformers' and TRL's

--peers is a program that prints JSON lines with the times of the others. Keep the machine idle
meanwhile. A rollout is 160 new tokens for each of 512 prompts of 26; a step is 64 new tokens for
each of 16 responses to 32 prompts, and one optimiser step on them, in float32 and in bfloat16
(weights kept in float32). Medians of five, into results/bench-cpu.json (bench-gpu.json on a GPU).
Then one rollout each of six other shapes, for which nothing was tuned.
"""

import json
import random
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch
from common import parser, save

import config
import grpo
from lib import distributed
from model import GPT, ModelConfig
from sample import SamplingParams, generate

QWEN2 = dict(attention="gqa", n_experts=0, qkv_bias=True, rope_interleaved=False)
SHAPES = {
    "qwen2": ModelConfig(vocab_size=161, **QWEN2),
    "deepseek_v3": ModelConfig(vocab_size=161, qk_nope_head_dim=32),
}
ROUNDS, BATCH, GROUP, PROMPT, NEW, STEP_NEW = 5, 512, 16, 26, 160, 64
# dim, layers, heads, rows, tokens of a prompt, new tokens
OTHERS = ((64, 3, 4, 768, 26, 100), (96, 4, 4, 512, 40, 60), (128, 6, 4, 640, 20, 40))
OTHERS += ((160, 5, 5, 384, 40, 120), (256, 4, 8, 256, 30, 160), (384, 4, 8, 128, 26, 400))


def build(shape: ModelConfig) -> GPT:
    """A new model that never ends a response."""
    torch.manual_seed(0)
    model = GPT(shape).to(distributed.device("auto"))
    model.cfg.eos_ids = (shape.vocab_size,)
    return model


def learner_of(model: GPT, precision: str = "float32", **settings) -> grpo.Learner:
    """A learner with one optimiser step a rollout. settings: of GRPO."""
    cfg = config.make(grpo.Config)
    cfg.precision = precision
    cfg.grpo = grpo.GRPOConfig(minibatches=1, lr=1e-4, **settings)
    return grpo.Learner(distributed.shard(model, model.layers, cfg), None, cfg)


def random_prompts(count: int, length: int = PROMPT) -> list[list[int]]:
    return torch.randint(3, 160, (count, length)).tolist()


def rollout(model: GPT, rows: int = BATCH, prompt: int = PROMPT, new: int = NEW) -> float:
    """Tokens a second of one rollout."""
    prompts, start = random_prompts(rows, prompt), time.perf_counter()
    lengths = generate(model, prompts, SamplingParams(max_new_tokens=new)).lengths
    assert lengths.sum().item() == rows * (prompt + new)  # waits for the device
    return rows * new / (time.perf_counter() - start)


def parts(learner: grpo.Learner, prompts: list, seed: int | None = None) -> tuple:
    """One step, rewarded by its tokens: seconds of the rollout, of the update, its metrics."""
    cfg, start = learner.cfg.grpo, time.perf_counter()
    params = SamplingParams(cfg.max_new_tokens, num_return_sequences=cfg.group_size)
    batch = generate(learner.model, prompts, params, seed=seed)
    rewards = torch.tensor([float(sum(ids) % 7) for ids in batch.responses()])  # waits
    middle = time.perf_counter()
    advantages = grpo.group_advantages(rewards, cfg.group_size).to(learner.model.device)
    learner.model.train()
    metrics = learner.update(batch, advantages, 1.0, random.Random(0))
    return middle - start, time.perf_counter() - middle, metrics


def steps(learner: grpo.Learner, count: int) -> list[float]:
    """Seconds of each of some steps."""
    seconds = []
    for _ in range(count):
        rollout_s, update_s, metrics = parts(learner, random_prompts(BATCH // GROUP))
        assert metrics["trained_tokens"] == BATCH * STEP_NEW
        seconds.append(rollout_s + update_s)
    return seconds


def bfloat16_steps(shape: ModelConfig) -> list[float]:
    """Seconds of steps with --precision bfloat16; the first, which is slow, is left out."""
    cfg = config.make(grpo.Config)
    cfg.precision = "bfloat16"
    with distributed.started(cfg):
        learner = learner_of(build(shape), "bfloat16", group_size=GROUP, max_new_tokens=STEP_NEW)
        return steps(learner, ROUNDS + 1)[1:]


def peer(command: str, *flags: str) -> dict:
    """The last JSON line that a program prints."""
    done = subprocess.run([*shlex.split(command), *flags], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        sys.exit(f"{command} ended with status {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(name: str, shape: ModelConfig, peers: str | None) -> dict:
    """All times of one shape: ours, and the peers' if there is a command for them."""
    model = build(shape)
    learner = learner_of(model, group_size=GROUP, max_new_tokens=STEP_NEW)
    rollout(model), steps(learner, 1)  # the first are slow
    ours, theirs = {"rollout_tokens_s": []}, {"rollout_tokens_s": []}
    flags = ("--arch", name, "--what")
    for _ in range(ROUNDS):  # alternating, so that a slow minute of the machine hits both
        ours["rollout_tokens_s"].append(rollout(model))
        if peers:
            speed = peer(peers, *flags, "generate", "--new", str(NEW))["tok_per_s"]
            theirs["rollout_tokens_s"].append(speed)
    ours["step_s"] = steps(learner, ROUNDS)
    ours["step_bfloat16_s"] = bfloat16_steps(shape)
    figures = {"parameters": sum(p.numel() for p in model.parameters()), "ours": ours}
    if peers:
        more = ("step", "--new", str(STEP_NEW), "--steps", str(ROUNDS + 1))
        theirs["step_s"] = peer(peers, *flags, *more)["step_s"][1:]
        figures["peers"] = theirs
    return figures


def other_shape(name: str, dim, layers, heads, rows, prompt, new) -> ModelConfig:
    """The family's shape at another width, as peers.py makes it."""
    sizes = dict(dim=dim, n_layers=layers, n_heads=heads, hidden_dim=3 * dim)
    sizes |= dict(n_kv_heads=heads, head_dim=dim // heads, expert_dim=3 * dim // 4)
    sizes |= dict(kv_lora_rank=dim // 4, qk_nope_head_dim=dim // heads, v_head_dim=dim // heads)
    return replace(SHAPES[name], **sizes)


def others(name: str, peers: str | None) -> list[dict]:
    """Tokens a second of a rollout of each of OTHERS, ours and the peer's."""
    out = []
    for sizes in OTHERS:
        dim, layers, heads, rows, prompt, new = sizes
        model = build(other_shape(name, *sizes))
        rollout(model, rows, prompt, 8)  # the first is slow
        row = {"sizes": sizes, "ours": rollout(model, rows, prompt, new)}
        if peers:
            flags = dict(arch=name, what="generate", dim=dim, layers=layers, heads=heads)
            flags |= dict(ffn=3 * dim, expert=3 * dim // 4, batch=rows, prompt=prompt, new=new)
            words = [str(word) for key, value in flags.items() for word in (f"--{key}", value)]
            row["peer"] = peer(peers, *words)["tok_per_s"]
        out.append(row)
    return out


def summary(figures: dict) -> str:
    """Adds medians and ratios to the figures; returns them as a line of text."""
    sides = {who: figures[who] for who in ("ours", "peers") if who in figures}
    medians = {s: {k: statistics.median(v) for k, v in t.items()} for s, t in sides.items()}
    ours, theirs = medians["ours"], medians.get("peers")
    line = f"rollout {ours['rollout_tokens_s']:,.0f} tokens/s, step {ours['step_s']:.2f} s"
    line += f", in bfloat16 {ours['step_bfloat16_s']:.2f} s"
    if theirs:
        ratios = {"rollout": ours["rollout_tokens_s"] / theirs["rollout_tokens_s"]}
        ratios |= {k: theirs["step_s"] / ours[f"{k}_s"] for k in ("step", "step_bfloat16")}
        line += f"; transformers {theirs['rollout_tokens_s']:,.0f} tokens/s: "
        line += f"{ratios['rollout']:.1f}x; TRL {theirs['step_s']:.2f} s: {ratios['step']:.1f}x"
        line += f", {ratios['step_bfloat16']:.1f}x"
        figures["ratios"] = ratios
    figures["medians"] = medians
    return line


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--peers", help="command of a program with --arch, --what and --new")
    peers, shapes = flags.parse_args().peers, {}
    for name, shape in SHAPES.items():
        shapes[name] = measure(name, shape, peers)
        print(f"{name}: {summary(shapes[name])}", flush=True)
        shapes[name]["others"] = rows = others(name, peers)
        for row in rows:
            told = f"; transformers {row['peer']:,.0f}" if peers else ""
            print(f"  {row['sizes']}: {row['ours']:,.0f} tokens/s{told}", flush=True)
        if peers:
            ratio = statistics.geometric_mean(row["ours"] / row["peer"] for row in rows)
            shapes[name]["ratios"]["rollout, other shapes"] = ratio
            print(f"  {ratio:.1f}x on average", flush=True)
    content = {"batch": BATCH, "prompt": PROMPT, "new": NEW, "step_new": STEP_NEW}
    command = "python bench/bench_speed.py" + (" --peers PEERS" if peers else "")
    device = "gpu" if torch.cuda.is_available() else "cpu"
    print("figures:", save(f"bench-{device}", content | {"shapes": shapes}, command))


if __name__ == "__main__":
    main()
