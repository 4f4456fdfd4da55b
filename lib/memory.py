"""What a model costs, from its shape alone: `model` is always a GPT on the meta device."""

import contextlib
import math
import os
import re

import torch

from lib import products
from lib.distributed import device, dtype, world_size
from lib.errors import UserError
from lib.lora import targets

_GQA = dict(attention="gqa", rope_interleaved=False, n_experts=0)
_QWEN = _GQA | dict(vocab_size=151936, max_seq_len=32768, rope_theta=1e6, n_kv_heads=2)
_QWEN |= dict(qkv_bias=True, tie_embeddings=True, norm_eps=1e-6)
# Published shapes, for the cost report and as templates for `--model.*`.
SHAPES = {
    "deepseek-v3": dict(vocab_size=129280, dim=7168, n_layers=61, hidden_dim=18432, n_heads=128)
    | dict(q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64)
    | dict(v_head_dim=128, max_seq_len=163840, tie_embeddings=False, n_dense_layers=3)
    | dict(n_experts=256, n_shared_experts=1, n_experts_per_token=8, expert_dim=2048)
    | dict(n_groups=8, topk_groups=4, routed_scale=2.5),
    "qwen2.5-0.5b": _QWEN | dict(dim=896, n_layers=24, n_heads=14, head_dim=64, hidden_dim=4864),
    "qwen2.5-1.5b": _QWEN | dict(dim=1536, n_layers=28, n_heads=12, head_dim=128, hidden_dim=8960),
    "llama-3.2-1b": dict(_GQA, vocab_size=128256, max_seq_len=131072, rope_theta=5e5, norm_eps=1e-5)
    | dict(dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, hidden_dim=8192),
}


def _size(model) -> int:
    return sum(p.numel() for p in model.parameters())


def cost_report(model, context: int | None = None) -> dict[str, float]:
    """Parameters, FLOPs a token, cache bytes a token (bf16), bytes of memory to train and to serve.

    FLOPs: 2 a parameter of every matrix product (the embedding is a look-up), and attention over
    half of `context`, the mean of a causal sequence. Training: float32 weights, gradients and two
    AdamW moments, no activations. Serving: bf16 weights and the cache of one full context.
    """
    cfg, context = model.cfg, context or model.cfg.max_seq_len
    if cfg.attention == "mla":
        head = cfg.qk_nope_head_dim + cfg.qk_rope_head_dim + cfg.v_head_dim  # a key and a value
        cached = cfg.kv_lora_rank + cfg.qk_rope_head_dim  # numbers a token and layer
    else:
        head, cached = 2 * cfg.head_dim, cfg.n_kv_heads * 2 * cfg.head_dim
    total = _size(model)
    idle = len(model.moe_layers()) * (cfg.n_experts - cfg.n_experts_per_token)  # experts
    active = total - idle * 3 * cfg.dim * cfg.expert_dim
    multiplied = active - (0 if cfg.tie_embeddings else cfg.vocab_size * cfg.dim)
    all_heads, cache = cfg.n_layers * cfg.n_heads * head * 2, cfg.n_layers * cached * 2
    forward = 2 * multiplied + all_heads * context / 2
    return {
        "total parameters": total,
        "active parameters": active,
        "context": context,
        "forward FLOPs a token": forward,
        "training FLOPs a token": 3 * forward,
        "cache bytes a token": cache,
        "the same with plain multi-head": all_heads,
        "training memory, bytes": total * 16,
        "serving memory, bytes": total * 2 + cache * context,
    }


def print_report(name: str, model) -> None:
    """The cost report as a table, with units."""
    cfg, units = model.cfg, {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
    layers = f"{cfg.n_layers} layers, width {cfg.dim}, attention {cfg.attention}"
    print(f"{name}: {layers}, {cfg.n_experts or 'no'} experts")
    print("  (FLOPs: mean over a full context; cache and serving in bf16, training in float32)")
    for key, value in cost_report(model).items():
        short = next((f"{value / size:.4g}{u}" for u, size in units.items() if value >= size), "")
        short = short.replace("G", "B") if "parameters" in key else short  # billions
        print(f"  {key:32s} {int(value):>24,d}  {short}")


def training_memory(
    model, tokens, precision="float32", processes=1, recompute=False, read=0, group_size=0, rank=0
) -> dict[str, float]:
    """Most bytes that a process needs in a training step with AdamW, by what they are for.

    tokens: in a micro-batch, padding included; read: in the chunk of prompts that its responses go
    on from, up to group_size from each. Alone and in float32: weights, gradients and two moments.
    Else these are divided among processes, each with full weights and float32 gradients. With LoRA
    of a rank, which one process does: the weights, and all four of the adapters in float32.
    """
    cfg, size = model.cfg, 4 if precision == "float32" else 2
    parameters = _size(model)
    # numbers a token that a block keeps for its backward pass: norms and attention, MLP or experts
    if cfg.attention == "mla":  # latent; queries and keys, in parts and joined; values and output
        qk = cfg.n_heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim)
        attention = 4 * (cfg.kv_lora_rank + cfg.qk_rope_head_dim) + 2 * (cfg.q_lora_rank or 0)
        attention += 2 * qk + 3 * cfg.n_heads * cfg.v_head_dim + 4 * cfg.dim
    else:
        attention = (2 * cfg.n_heads + 2 * cfg.n_kv_heads) * cfg.head_dim + 4 * cfg.dim
    dense = 4 * cfg.hidden_dim  # gate, up, silu(gate), their product
    experts = cfg.n_experts_per_token * (3 * cfg.dim + 4 * cfg.expert_dim) + 2 * cfg.n_experts
    experts += 4 * cfg.n_shared_experts * cfg.expert_dim
    blocks, moe = len(model.layers), len(model.moe_layers())
    largest = max(attention + dense if blocks > moe else 0, attention + experts if moe else 0)
    kept = blocks * attention + (blocks - moe) * dense + moe * experts
    if recompute:
        kept = blocks * cfg.dim + largest
    cached = cost_report(model)["cache bytes a token"] / 2
    chunk = min(tokens, 2048, 2**27 // cfg.vocab_size)  # rows of logits at a time
    alone = processes == 1 and precision == "float32"
    held = parameters * (16 if alone else 16 / processes + size + 4)
    if rank:  # in bfloat16 a copy of the adapters too
        held = parameters * size + adapters_of(model, rank)[0] * (16 if alone else 16 + size)
    return {
        "weights and optimizer": held,
        # with the gradients of one block, and for each response a copy of its prompt's cache
        "activations": ((tokens + read) * (kept + 2 * largest) + read * group_size * cached) * size,
        # with the head's gradient, which is summed in float32
        "logits": cfg.vocab_size
        * ((12 if size == 4 else 14) * chunk + (0 if rank else 8) * cfg.dim),
    }


def adapters_of(model, rank: int) -> tuple[int, int]:
    """How many numbers LoRA's adapters of a rank have, and how many the weights beside them."""
    weights = [getattr(m, name) for m, names in targets(model) for name in names]
    adapters = sum(w.shape[:-2].numel() * sum(w.shape[-2:]) * rank for w in weights)
    return adapters, sum(w.numel() for w in weights)


def rollout_memory(model, rows, length, precision="float32", copies=1.8, rank=0) -> float:
    """Bytes of cache and logits of `rows` responses that grow to `length` tokens, prompt included.

    copies of the cache, at most: 1.8 while rows leave the batch, 2.2 where others replace them.
    With LoRA of a rank the merged weights are there beside the others.
    """
    size = 4 if precision == "float32" else 2
    cache = cost_report(model)["cache bytes a token"] / 2 * size
    merged = adapters_of(model, rank)[1] * size if rank else 0
    return rows * length * cache * copies + rows * model.cfg.vocab_size * (size + 16) + merged


def available_memory(cfg) -> float:
    """Bytes that this process may use."""
    if (here := device(cfg.device)).type == "cuda":
        return 0.95 * torch.cuda.mem_get_info(here)[1]
    return 0.95 * free_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def free_memory() -> float:
    """Bytes that nobody uses on this machine, or in the container around us; infinity where the
    system does not tell."""
    found = [math.inf]
    if os.path.exists("/proc/meminfo"):
        (kib,) = re.findall(r"^MemAvailable: *(\d+)", read_text("/proc/meminfo"), re.M)
        found.append(int(kib) * 1024)
    elif hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit, used, parts = (f"/sys/fs/cgroup/memory.{name}" for name in ("max", "current", "stat"))
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        cached = re.search(r"^inactive_file (\d+)", read_text(parts), re.M)  # of files: given back
        found.append(int(read_text(limit)) - int(read_text(used)) + int(cached[1] if cached else 0))
    return min(found)


def read_text(path: str) -> str:
    with open(path) as f:
        return f.read()


def matrix_speed(cfg) -> float:
    """Operations a second of a large matrix product, as the model makes them, on this device: the
    best of ten."""
    here = device(cfg.device)
    n = 8192 if here.type == "cuda" else 1024
    x = torch.ones(n, n, dtype=dtype(cfg), device=here)
    # item() waits for the device
    return 2 * n**3 / products.seconds(lambda: products.linear(x, x)[0, 0].item())


def _beside(cfg, model, n: int, judges: int) -> float:
    """Bytes of the reference model and of an older policy that samples: of each its shard, and all
    of its weights while in use; and of reward models, which every process has whole."""
    grpo, single = cfg.grpo, cfg.precision == "float32"
    each, out = 4 if single else 4 / n + 2, judges * (4 if single else 2) * _size(model)
    if grpo.kl_beta and grpo.reference:
        out += each * _size(type(model).from_pretrained(grpo.reference, device="meta"))
    elif grpo.kl_beta and not cfg.lora.rank:
        out += each * _size(model)
    if grpo.sync_every > 1:
        held = 4 if single else 2  # beside adapters
        out += (held if cfg.lora.rank else each) * _size(model)
    return out


def check_room(cfg, model, learnt, steps, asked=0, networks=1, prompt=256, judges=0) -> None:
    """Print what a run of a large model will take: memory of each process, and time. UserError if
    it does not fit, or if it takes more than a day and cfg.yes is not set.

    learnt: tokens of next-token training; steps: of reinforcement learning; asked: responses only
    drawn; networks: that learn together, 2 with a critic; prompt: tokens of the longest; judges:
    reward models. The time is the arithmetic's at 40% of a large matrix product's speed, if no
    response ends early.
    """
    grpo, n, limit, rank = cfg.grpo, world_size(), model.cfg.max_seq_len, cfg.lora.rank
    rows, prompt = -(-grpo.problems_per_step // n) * grpo.group_size, min(prompt, limit)
    rows, copies = (grpo.rows, 2.2) if 0 < grpo.rows < rows else (rows, 1.8)
    drawn = grpo.max_new_tokens * (2 if grpo.doubled_from else 1)
    length, longest = (min(new + prompt, limit) for new in (drawn, cfg.eval.max_new_tokens))
    evaluation = rollout_memory(model, -(-cfg.eval.rows // n), longest, cfg.precision, 2.2)
    cache = max(evaluation, rollout_memory(model, rows, length, cfg.precision, copies, rank))
    tokens, report = max(cfg.sft.micro_tokens, grpo.micro_tokens), cost_report(model, length)
    read = -(-grpo.problems_per_step // grpo.minibatches) * prompt
    read, own = min(read, max(grpo.micro_tokens, prompt)), -(-grpo.group_size // n)
    parts = training_memory(model, tokens, cfg.precision, n, cfg.recompute, read, own, rank)
    fixed, training = parts.pop("weights and optimizer") * networks, sum(parts.values())
    fixed += _beside(cfg, model, n, judges)
    # CPUs need more than the tensors: their allocators give little back (bench/check_memory.py)
    spare = 1.0 if device(cfg.device).type == "cuda" else 1.2 if cfg.precision == "float32" else 1.4
    need, have, gib = spare * (fixed + max(training, cache)), available_memory(cfg), 2**30
    large = report["total parameters"] > 1e7  # smaller ones stop early, and the bound is far off
    if large or need > have / 4:
        trained = steps * grpo.problems_per_step * grpo.group_size * drawn * networks
        share = 2 / 3 if rank else 1  # LoRA computes no gradients of weights
        flops = (learnt + trained) * report["training FLOPs a token"] * share
        # of pi_old in bfloat16, of the reference, and of activations that were not kept
        old = cfg.precision == "bfloat16" and grpo.minibatches > 1
        passes = 1 + sum((old, bool(grpo.kl_beta), cfg.recompute))  # the first: to sample
        forward = trained * passes + learnt * cfg.recompute + asked * cfg.eval.max_new_tokens
        flops += forward * report["forward FLOPs a token"]
        hours = float(f"{flops / n / (0.4 * matrix_speed(cfg)) / 3600:.2g}")
        memory = f"{need / gib:.1f} of {have / gib:.1f} GiB (weights and optimizer"
        memory += f" {fixed / gib:.1f}, training {training / gib:.1f}, rollouts {cache / gib:.1f})"
        run = f"{report['total parameters'] / 1e6:,.0f}M parameters, {n} process{'es' * (n > 1)}"
        print(f"{run}; memory of each: {memory}; arithmetic: up to {hours:,.10g} hours", flush=True)
        if need <= have and hours > 24 and large and not cfg.yes:
            fix = "use GPUs, another --config or fewer steps, or add --yes to begin"
            raise UserError(f"this takes up to {hours:,.10g} hours on this machine: {fix}")
    if need <= have:
        return
    gpus = "use a larger GPU" if rank else "use more GPUs (torchrun --nproc-per-node N)"
    if fixed > have:
        fix = f"{gpus}, GPUs with more memory, or a smaller model (--model.*)"
    elif cache <= training:
        fix = "lower --grpo.micro_tokens and --sft.micro_tokens, or add --recompute true"
    elif cache == evaluation:
        fix = f"lower --eval.rows, or {gpus}"
    elif rows > 1:
        fix = f"set --grpo.rows (responses generated at once) below {rows}, or {gpus}"
    else:
        fix = f"lower --grpo.max_new_tokens, or {gpus}"
    needs = f"'{cfg.name}' needs about {need / gib:.1f} GiB of memory a process"
    raise UserError(f"{needs}, and there are {have / gib:.1f}: {fix}")
