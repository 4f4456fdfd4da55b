"""Models of a billion parameters next to what the device can do.

    python bench/bench_billion.py                       # a GPU, bfloat16; results/billion-gpu.json
    python bench/bench_billion.py --transformers        # also transformers' generate, if installed
    python bench/bench_billion.py --tiny --device cpu   # the same path in seconds

Weights are random. Decoding, against the memory's speed: seconds of a token for 64 and 512 rows,
and the bytes that it must read: all weights but the embedding's, and the rows' caches. Training,
against matrix products: texts of 4,096 tokens, the arithmetic that the shape asks for. Ragged: 256
prompts of 32 to 512 tokens; responses end by chance, at about 200 tokens on average, or at 512.
"""

import random
import tempfile
import time

import torch
from common import parser, save
from profile_grpo import memory_speed

import config
import sft
from lib import distributed
from lib.memory import cost_report, matrix_speed
from model import GPT, ModelConfig
from sample import SamplingParams, generate

GQA = dict(attention="gqa", n_experts=0, max_seq_len=8192, rope_interleaved=False)
WIDE = dict(vocab_size=32768, dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64)
BILLION = {
    "dense": ModelConfig(**GQA, **WIDE, hidden_dim=8192),
    "experts": config.make(sft.Config, "big").model,
}
TINY = {
    "dense": ModelConfig(**GQA, vocab_size=512),
    "experts": ModelConfig(vocab_size=512, max_seq_len=8192),
}


def seconds_of(work) -> float:
    """The fastest of three calls; work() waits for the device."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def decoding(model: GPT, rows: int, prompt: int, new: int) -> dict[str, float]:
    """Seconds of a token for `rows` rows: the difference between long and short responses, so that
    reading the prompts does not count."""
    prompts = torch.randint(3, model.cfg.vocab_size, (rows, prompt)).tolist()

    def respond(count: int) -> None:
        lengths = generate(model, prompts, SamplingParams(max_new_tokens=count)).lengths
        assert int(lengths.sum()) == rows * (prompt + count)

    respond(new)
    short = new // 4
    longer = seconds_of(lambda: respond(new)) - seconds_of(lambda: respond(short))
    seconds = longer / (new - short)
    slots = prompt + (new + short) / 2  # on average over the tokens that differ
    size = torch.finfo(model.embed_tokens.weight.dtype).bits // 8
    weights = sum(p.numel() for p in model.parameters())
    if not model.cfg.tie_embeddings:
        weights -= model.embed_tokens.weight.numel()
    cache = rows * slots * cost_report(model)["cache bytes a token"] / 2
    figures = {"seconds a token": seconds, "tokens a second": rows / seconds}
    return figures | {"bytes a second": size * (weights + cache) / seconds}


def training(shape: ModelConfig, cfg, length: int, texts: int) -> dict[str, float]:
    """Tokens and operations a second of optimiser steps on some texts, one micro-batch each."""
    model = GPT(shape)
    model = distributed.shard(model, model.blocks(), cfg)
    trainer = sft.make_trainer(model, cfg.sft)
    rows = torch.randint(3, shape.vocab_size, (texts, length)).tolist()
    batch = [[(row, 0)] for row in rows]

    def step() -> None:
        sft.train_step(trainer, batch, 0.1, cfg.sft)

    step()  # the first is slow
    tokens = length * texts / seconds_of(step)
    flops = cost_report(GPT.empty(shape), length)["training FLOPs a token"]
    return {"tokens a second": tokens, "operations a second": tokens * flops}


def ragged(model: GPT, compare: bool, rows: int, longest: int) -> dict[str, float]:
    """Tokens a second, up to each response's end, of prompts and responses of all lengths; and of
    transformers with the same weights."""
    rng, vocab = random.Random(0), model.cfg.vocab_size
    lengths = [rng.randint(longest // 16, longest) for _ in range(rows)]
    prompts = [[rng.randrange(3, vocab) for _ in range(length)] for length in lengths]
    ends = rng.sample(range(3, vocab), max(1, round(vocab * 2.5 / longest)))
    model.cfg.eos_ids = tuple(ends)

    def ours() -> int:
        out = generate(model, prompts, SamplingParams(max_new_tokens=longest))
        return int((out.lengths - out.prompt_lengths).sum())

    figures = {"ours, tokens a second": fastest(ours)}
    if not compare:
        return figures
    theirs = fastest(in_transformers(model, prompts, longest))
    figures["transformers, tokens a second"] = theirs
    return figures | {"ratio": figures["ours, tokens a second"] / theirs}


def fastest(work) -> float:
    """The best rate of three calls of work(), which returns how many tokens it has made."""
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        tokens = work()
        rates.append(tokens / (time.perf_counter() - start))
    return max(rates)


def in_transformers(model: GPT, prompts: list[list[int]], longest: int):
    """A function that samples responses with transformers' generate and counts their tokens."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        auto, dtype = transformers.AutoModelForCausalLM, model.embed_tokens.weight.dtype
        theirs = auto.from_pretrained(folder, dtype=dtype).to(model.device).eval()
    width, device = max(map(len, prompts)), model.device
    tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    ends = torch.tensor(model.cfg.eos_ids, device=device)
    options = dict(max_new_tokens=longest, do_sample=True, top_k=0, pad_token_id=0)

    def respond() -> int:
        with torch.inference_mode():
            out = theirs.generate(
                tokens, attention_mask=mask, eos_token_id=ends.tolist(), **options
            )
        is_end = torch.isin(out[:, width:], ends).long()
        after = is_end.cumsum(1) - is_end > 0  # beyond the first end
        return int((~after).sum())

    return respond


def measure(shape: ModelConfig, cfg, tiny: bool, compare: bool, memory: float, matrix: float):
    """All figures of one shape. memory, matrix: bytes and operations a second of the device."""
    torch.manual_seed(0)
    model = GPT(shape).to(distributed.device(cfg.device), torch.bfloat16).eval()
    model.cfg.eos_ids = (shape.vocab_size,)  # no response ends
    figures: dict[str, object] = {"parameters": sum(p.numel() for p in model.parameters())}
    tokens = 16 if tiny else 256
    for rows in (4, 8) if tiny else (64, 512):
        found = decoding(model, rows, tokens, tokens)
        share = found["bytes a second"] / memory
        figures[f"decoding, {rows} rows"] = found | {"share of the memory's speed": share}
    figures["ragged"] = ragged(model, compare, 8 if tiny else 256, 32 if tiny else 512)
    del model
    found = training(shape, cfg, 64 if tiny else 4096, 4)
    share = found["operations a second"] / matrix
    return figures | {"training": found | {"share of the matrix product": share}}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--device", default="cuda")
    flags.add_argument("--tiny", action="store_true")
    flags.add_argument("--transformers", action="store_true")
    args = flags.parse_args()
    cfg = config.make(sft.Config)
    cfg.device, cfg.precision = args.device, "bfloat16"
    with config.user_errors(), distributed.started(cfg):
        device, content = distributed.device(cfg.device), {}
        matrix, memory = matrix_speed(cfg), memory_speed(device)
        for name, shape in (TINY if args.tiny else BILLION).items():
            content[name] = measure(shape, cfg, args.tiny, args.transformers, memory, matrix)
            print(name, content[name], flush=True)
        content["matrix product, operations a second"] = matrix
        content["memory, bytes a second"] = memory
        if not args.tiny:
            command = "python bench/bench_billion.py" + " --transformers" * args.transformers
            name = "billion-" + ("gpu" if device.type == "cuda" else "cpu")
            print("figures:", save(name, content, command))


if __name__ == "__main__":
    main()
