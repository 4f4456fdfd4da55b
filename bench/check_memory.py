"""Peak memory, measured: the head in chunks and whole; training steps and lib/memory.py's estimate.

python bench/check_memory.py                 # on the CPU, each measurement in its process
python bench/check_memory.py --device cuda   # on a GPU, in bfloat16
"""

import multiprocessing
import queue as queues
import resource
import threading
import time

import torch
from common import parser, save

import config
import sft
from lib import distributed, lora
from lib.memory import training_memory
from lib.trainer import Trainer, chunked_logprobs
from model import GPT, ModelConfig

GQA = dict(attention="gqa", n_experts=0, rope_interleaved=False, head_dim=32)
MOE = dict(dim=256, n_heads=8, n_layers=6, hidden_dim=768, vocab_size=4096)
MOE |= dict(kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32)
MOE |= dict(n_experts=16, n_experts_per_token=4, expert_dim=128)
DENSE = dict(dim=256, n_heads=8, n_kv_heads=4, n_layers=8, hidden_dim=1024, vocab_size=8192)
WIDE_HEAD = dict(dim=64, n_heads=2, n_kv_heads=2, n_layers=4, hidden_dim=256, vocab_size=151936)
SHAPES = {
    "dense": GQA | DENSE,
    "mixture of experts": MOE,
    "dense, a vocabulary of 151,936": GQA | WIDE_HEAD,
}
TRAININGS = [(name, 0) for name in SHAPES] + [("dense", 8), ("mixture of experts", 8)]  # LoRA ranks
TOKENS = 1024  # in a micro-batch
UNIT = {"unit": "MiB, peak above what was there before"}


def precision(device: str) -> str:
    return "float32" if device == "cpu" else "bfloat16"


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
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def head(kind: str, backward: bool, device: str, queue) -> None:
    """Scoring, or loss and gradient, of 4,096 tokens with a vocabulary of 151,936 and width 32."""
    torch.manual_seed(0)
    options = dict(device=device, dtype=getattr(torch, precision(device)), requires_grad=backward)
    hidden, weight = (torch.randn(n, 32, **options) for n in (4096, 151936))
    targets = torch.randint(0, 151936, (4096,), device=device)

    def work():
        with torch.set_grad_enabled(backward):
            if kind == "chunked":
                out = chunked_logprobs(hidden, weight, targets)
            else:
                logits = torch.nn.functional.linear(hidden, weight).float()
                out = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        if backward:
            out.sum().backward()

    queue.put(peak_of(work, device))


def training(name: str, rank: int, device: str, queue) -> None:
    """(measured, estimated) bytes of two steps with AdamW, the second with all moments there; of
    LoRA's adapters, if there is a rank."""
    cfg = config.make(sft.Config)
    cfg.model, cfg.device, cfg.lora.rank = ModelConfig(**SHAPES[name]), device, rank
    cfg.precision = precision(device)

    def work():
        torch.manual_seed(0)
        model = GPT(cfg.model)
        model = lora.prepared(model, cfg)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
        trainer = Trainer(model, [optimizer], cfg.sft.clip)
        rows = [([3 + (i * 7 + j) % 4000 for j in range(256)], 0) for i in range(TOKENS // 256)]
        for _ in range(2):
            sft.train_step(trainer, [rows], 1.0, cfg.sft)

    with distributed.started(cfg):
        estimate = training_memory(GPT.empty(cfg.model), TOKENS, cfg.precision, rank=rank)
        queue.put((peak_of(work, device), sum(estimate.values())))


def in_a_process(function, *args):
    """What function(*args, queue) puts into the queue, in a new process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=function, args=(*args, queue))
    process.start()
    while True:
        try:
            answer = queue.get(timeout=1)
            break
        except queues.Empty:
            if process.exitcode:  # it has printed why
                raise RuntimeError(f"{args}: the process ended with {process.exitcode}") from None
    process.join()
    return answer


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = flags.parse_args().device
    content: dict[str, dict[str, float]] = {}
    for backward, what in ((False, "scoring"), (True, "loss and gradient")):
        plain = in_a_process(head, "plain", backward, device) / 2**20
        chunked = in_a_process(head, "chunked", backward, device) / 2**20
        content[what] = {"plain": plain, "chunked": chunked}
        tokens = f"{what} of 4,096 tokens, vocabulary 151,936"
        print(f"{tokens}: plain {plain:,.0f} MiB, chunked {chunked:,.0f} MiB", flush=True)
    for name, rank in TRAININGS:
        peak, estimate = (x / 2**20 for x in in_a_process(training, name, rank, device))
        what, off = f"training step, {name}", 100 * (estimate / peak - 1)
        what += f", LoRA of rank {rank}" if rank else ""
        content[what] = {"measured": peak, "estimated": estimate}
        figures = f"measured {peak:,.0f} MiB, estimated {estimate:,.0f} MiB ({off:+.0f}%)"
        print(f"{what}: {figures}", flush=True)
    command = f"python bench/check_memory.py --device {device}"
    print("figures:", save(f"memory-{device}", UNIT | content, command))


if __name__ == "__main__":
    main()
