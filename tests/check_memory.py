"""Peak memory, measured: the head in chunks against the plain one, and training steps against model.training_memory.

    python tests/check_memory.py                 # on the CPU; each measurement in a process of its own
    python tests/check_memory.py --device cuda   # on a GPU, in bfloat16
"""

import argparse
import multiprocessing
import resource
import sys
import threading
import time

import torch
from conftest import ROOT

import config
import experiments
import model as M
import parallel
import sft

SHAPES = {  # (fields, tokens in the micro-batch)
    "dense": (dict(attention="gqa", n_experts=0, rope_interleaved=False, n_kv_heads=4, head_dim=32, dim=256, n_heads=8, n_layers=8, hidden_dim=1024, vocab_size=8192), 1024),
    "mixture of experts": (dict(dim=256, n_heads=8, n_layers=6, hidden_dim=768, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, n_experts=16,
                                n_experts_per_token=4, expert_dim=128, vocab_size=4096), 1024),
    "dense, a vocabulary of 151,936": (dict(attention="gqa", n_experts=0, rope_interleaved=False, n_kv_heads=2, head_dim=32, dim=64, n_heads=2, n_layers=4, hidden_dim=256,
                                            vocab_size=151936), 1024),
}


def peak_of(work, device: str) -> float:
    """Bytes at the highest point of work(), above those before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(resident())
            time.sleep(0.001)

    before = resident()
    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return max(seen) - before


def resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def head(kind: str, backward: bool, device: str, queue) -> None:
    """Scoring, or loss and gradient, of 4,096 tokens with a vocabulary of 151,936 and width 32."""
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    hidden, weight = (torch.randn(n, 32, device=device, dtype=dtype, requires_grad=backward) for n in (4096, 151936))
    targets = torch.randint(0, 151936, (4096,), device=device)

    def work():
        with torch.set_grad_enabled(backward):
            out = (M.chunked_logprobs(hidden, weight, targets) if kind == "chunked"
                   else torch.nn.functional.linear(hidden, weight).float().log_softmax(-1).gather(1, targets[:, None])[:, 0])
        if backward:
            out.sum().backward()

    queue.put(peak_of(work, device))


def training(name: str, device: str, queue) -> None:
    """Two steps with AdamW, the second with everything in place."""
    fields, tokens = SHAPES[name]
    cfg = config.make()
    cfg.model, cfg.device, cfg.precision = M.ModelConfig(**fields), device, "float32" if device == "cpu" else "bfloat16"
    with parallel.started(cfg):
        def work():
            torch.manual_seed(0)
            model = M.GPT(cfg.model)
            model = parallel.shard(model, model.blocks(), cfg)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
            rows = [([3 + (i * 7 + j) % 4000 for j in range(256)], 0) for i in range(tokens // 256)]
            for _ in range(2):
                sft.train_step(model, [optimizer], [rows], 1.0, sft.SFTConfig())

        queue.put((peak_of(work, device), sum(M.training_memory(cfg.model, tokens, cfg.precision).values())))


def alone(function, *args):
    """function(*args, queue)'s answer, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=function, args=(*args, queue))
    process.start()
    answer = queue.get()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    content: dict[str, dict[str, float]] = {}
    for backward, what in ((False, "scoring"), (True, "loss and gradient")):
        plain, chunked = (alone(head, kind, backward, device) / 2**20 for kind in ("plain", "chunked"))
        content[what] = {"plain": plain, "chunked": chunked}
        print(f"{what} of 4,096 tokens, vocabulary 151,936: plain {plain:,.0f} MiB, chunked {chunked:,.0f} MiB", flush=True)
    for name in SHAPES:
        peak, estimate = (x / 2**20 for x in alone(training, name, device))
        content[f"training step, {name}"] = {"measured": peak, "estimated": estimate}
        print(f"training step, {name}: measured {peak:,.0f} MiB, estimated {estimate:,.0f} MiB ({100 * (estimate / peak - 1):+.0f}%)", flush=True)
    print("figures:", experiments.save(f"memory-{device}", {"unit": "MiB, peak above what was there before"} | content, f"python tests/check_memory.py --device {device}"))


if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    main()
