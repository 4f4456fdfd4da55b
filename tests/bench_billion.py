"""Models of a billion parameters beside what the device can do: decoding against its memory, training against its matrix products.

    python tests/bench_billion.py                       # on a GPU, in bfloat16; results/billion-gpu.json
    python tests/bench_billion.py --transformers        # beside transformers' generate too, where that is installed
    python tests/bench_billion.py --tiny --device cpu   # the same path in seconds

Weights are random. Decoding: seconds of a token for 64 and 512 rows, and the bytes that it must read, which are all weights but the
embedding's and the rows' caches. Training: texts of 4,096 tokens, the arithmetic that the shape asks for. Ragged: 256 prompts of 32 to
512 tokens, whose responses end by chance, at about 200 tokens on average, or at 512.
"""

import argparse
import random
import tempfile
import time

import torch
from conftest import ROOT  # noqa: F401  the project's modules are found from here on

import config
import experiments
import parallel
import profiling
import sft
from model import GPT, ModelConfig, cost_report
from sample import generate

BILLION = {"dense": ModelConfig(vocab_size=32768, dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, hidden_dim=8192, attention="gqa", n_experts=0,
                                max_seq_len=8192, rope_interleaved=False),
           "experts": config.make("big").model}
TINY = {"dense": ModelConfig(vocab_size=512, attention="gqa", n_experts=0, max_seq_len=8192, rope_interleaved=False), "experts": ModelConfig(vocab_size=512, max_seq_len=8192)}


def seconds_of(work) -> float:
    """The fastest of three calls; work() waits for the device."""
    times = []
    for _ in range(3):
        t0 = time.perf_counter()
        work()
        times.append(time.perf_counter() - t0)
    return min(times)


def decoding(model: GPT, rows: int, prompt: int, new: int) -> dict[str, float]:
    """A token's seconds for `rows` rows: the difference between long and short responses, so that reading the prompts does not count."""
    asked = torch.randint(3, model.cfg.vocab_size, (rows, prompt)).tolist()

    def draw(count: int) -> None:
        assert int(generate(model, asked, max_new_tokens=count).lengths.sum()) == rows * (prompt + count)

    draw(new)
    seconds = (seconds_of(lambda: draw(new)) - seconds_of(lambda: draw(new // 4))) / (new - new // 4)
    slots = prompt + (new + new // 4) / 2  # on average over the tokens that differ
    size = torch.finfo(model.embed_tokens.weight.dtype).bits // 8
    weights = size * (sum(p.numel() for p in model.parameters()) - (0 if model.cfg.tie_embeddings else model.embed_tokens.weight.numel()))
    cache = rows * slots * cost_report(model.cfg)["cache bytes a token"] * size / 2
    return {"seconds a token": seconds, "tokens a second": rows / seconds, "bytes a second": (weights + cache) / seconds}


def training(shape: ModelConfig, cfg, length: int, texts: int) -> dict[str, float]:
    """Tokens and operations a second of optimiser steps on `texts` texts, one micro-batch each."""
    model = GPT(shape)
    model = parallel.shard(model, model.blocks(), cfg)
    optimizers = sft.make_optimizers(model, cfg.sft)
    batch = [[(torch.randint(3, shape.vocab_size, (length,)).tolist(), 0)] for _ in range(texts)]
    sft.train_step(model, optimizers, batch, 0.1, cfg.sft)
    tokens = length * texts / seconds_of(lambda: sft.train_step(model, optimizers, batch, 0.1, cfg.sft))
    return {"tokens a second": tokens, "operations a second": tokens * cost_report(shape, length)["training FLOPs a token"]}


def ragged(model: GPT, beside: bool, rows: int, longest: int) -> dict[str, float]:
    """Tokens a second, up to each response's end, of prompts and responses of all lengths; and of transformers with the same weights."""
    rng, vocab = random.Random(0), model.cfg.vocab_size
    asked = [[rng.randrange(3, vocab) for _ in range(rng.randint(longest // 16, longest))] for _ in range(rows)]
    model.cfg.eos_ids = tuple(rng.sample(range(3, vocab), max(1, round(vocab * 2.5 / longest))))

    def ours() -> float:
        t0 = time.perf_counter()
        out = generate(model, asked, max_new_tokens=longest)
        return int((out.lengths - out.prompt_lengths).sum()) / (time.perf_counter() - t0)

    figures = {"ours, tokens a second": max(ours() for _ in range(3))}
    if not beside:
        return figures
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=model.embed_tokens.weight.dtype).to(model.device).eval()
    width = max(map(len, asked))
    tokens = torch.tensor([[0] * (width - len(p)) + p for p in asked], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked], device=model.device)
    ends = torch.tensor(model.cfg.eos_ids, device=model.device)

    def others() -> float:
        t0 = time.perf_counter()
        with torch.inference_mode():
            drawn = theirs.generate(tokens, attention_mask=mask, max_new_tokens=longest, do_sample=True, top_k=0, eos_token_id=ends.tolist(), pad_token_id=0)[:, width:]
        after = torch.isin(drawn, ends).cumsum(1) - torch.isin(drawn, ends).long() > 0  # beyond the first end
        return int((~after).sum()) / (time.perf_counter() - t0)

    figures["transformers, tokens a second"] = max(others() for _ in range(3))
    return figures | {"ratio": figures["ours, tokens a second"] / figures["transformers, tokens a second"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--transformers", action="store_true")
    args = parser.parse_args()
    cfg = config.make("tiny")
    cfg.device, cfg.precision = args.device, "bfloat16"
    with config.user_errors(), parallel.started(cfg):
        device, content = parallel.device(cfg.device), {}
        matrix, memory = parallel.matrix_speed(cfg), profiling.memory_speed(device)
        for name, shape in (TINY if args.tiny else BILLION).items():
            torch.manual_seed(0)
            model = GPT(shape).to(device, torch.bfloat16).eval()
            model.cfg.eos_ids = (shape.vocab_size,)  # no response ends
            figures: dict[str, dict] = {"parameters": sum(p.numel() for p in model.parameters())}
            for rows in (4, 8) if args.tiny else (64, 512):
                found = decoding(model, rows, 16 if args.tiny else 256, 16 if args.tiny else 256)
                figures[f"decoding, {rows} rows"] = found | {"share of the memory's speed": found["bytes a second"] / memory}
            figures["ragged"] = ragged(model, args.transformers, 8 if args.tiny else 256, 32 if args.tiny else 512)
            del model
            found = training(shape, cfg, 64 if args.tiny else 4096, 4)
            figures["training"] = found | {"share of the matrix product": found["operations a second"] / matrix}
            content[name] = figures
            print(name, figures, flush=True)
        content |= {"matrix product, operations a second": matrix, "memory, bytes a second": memory}
        if not args.tiny:
            print("figures:", experiments.save("billion-" + ("gpu" if device.type == "cuda" else "cpu"), content, "python tests/bench_billion.py" + " --transformers" * args.transformers))


if __name__ == "__main__":
    main()
