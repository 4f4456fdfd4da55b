"""Where the time of a GRPO step goes, next to what the machine can do.

    python bench/profile_grpo.py runs/zero/model         # table, and figures in profile.json
    python bench/profile_grpo.py --config small          # a new model of that shape

One step under torch's operator hooks, which count arithmetic and traffic but are slow, and then a
few steps against the clock alone.
"""

import contextlib
import math
import sys
import time
import zlib
from dataclasses import dataclass

import common  # noqa: F401  makes the project's modules importable
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import config
import grpo
import sft
import tokenizer as tokenizers
from algorithms import ALGORITHM_SETTINGS
from lib import distributed, profiling
from lib.errors import UserError
from lib.files import write_json
from lib.memory import matrix_speed
from lib.report import markdown_table, provenance
from model import GPT

PHASES = "prefill decode reward scoring forward backward optimiser".split() + ["the rest"]
_NOTHING = contextlib.nullcontext()

# what torch's table lacks: the experts' products, in which each row of N meets one matrix
# ([N, K] x [E, K, M], or of their gradient [K, N] x [N, M]), oneDNN's, and attention on CPUs
aten, attention = torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"
FLOPS = {
    aten._grouped_mm: lambda a, b, *_, **__: 2 * a[0] * a[1] * b[-1],
    getattr(aten, attention): lambda *x, **_: sdpa_flop_count(*x[:3]),
    getattr(aten, attention + "_backward"): lambda *x, **_: sdpa_backward_flop_count(*x[:4]),
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    onednn = torch.ops.mkldnn._linear_pointwise
    FLOPS[onednn] = lambda x, w, *_, **__: 2 * math.prod(x) * w[0]


class Traffic(TorchDispatchMode):
    """Counts the bytes of the tensors that operators read and write, those in CPU caches too."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = (x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor))
            self.bytes += sum(map(size, tensors))
        return out


def size(x: torch.Tensor) -> int:
    """Bytes of a tensor's numbers; what expand() repeats counts once.

    >>> size(torch.zeros(3, 1).expand(3, 5))
    12
    """
    return x.itemsize * int(np.prod([n for n, s in zip(x.shape, x.stride()) if s or n == 0]))


class Profile:
    """Seconds, FLOPs and bytes by phase, summed; each belongs to the innermost phase alone."""

    def __init__(self, where: torch.device, count: bool):
        self.where, self.spent = where, {}
        self.inner = [np.zeros(3)]  # for each open phase: what the phases inside it took
        self.flops = FlopCounterMode(display=False, custom_mapping=FLOPS) if count else None
        self.traffic = Traffic() if count else None

    def now(self) -> np.ndarray:
        if self.where.type == "cuda":
            torch.cuda.synchronize(self.where)
        flops = self.flops.get_total_flops() if self.flops else 0
        return np.array([time.perf_counter(), flops, self.traffic.bytes if self.traffic else 0])

    @contextlib.contextmanager
    def measure(self, name: str):
        self.inner.append(np.zeros(3))
        before = self.now()
        try:
            yield
        finally:
            took = self.now() - before
            self.spent[name] = self.spent.get(name, 0.0) + took - self.inner.pop()
            self.inner[-1] += took

    def run(self, steps: range, one) -> int:
        """one(number) for each step, measured; returns the sum of what it returns."""
        profiling.active = self
        try:
            with self.flops or _NOTHING, self.traffic or _NOTHING, self.measure("the rest"):
                return sum(one(number) for number in steps)
        finally:
            profiling.active = None


def memory_speed(where: torch.device) -> float:
    """Bytes a second, read plus written, of copying a quarter of a GiB: the best of five."""
    x = torch.ones(2**26, device=where)
    y, best = x.clone(), 0.0
    for _ in range(5):
        start = time.perf_counter()
        y.copy_(x)
        y[0].item()  # waits for the device
        best = max(best, 2 * size(x) / (time.perf_counter() - start))
    return best


def take(cfg, steps: int, one, trace: str | None = None) -> dict:
    """Figures of an average step by phase, of `steps` steps after a first one, which is counted.

    one(number) makes a step and returns how many tokens it sampled. trace: file of a Chrome trace.
    """
    counted, timed = (Profile(distributed.device(cfg.device), count) for count in (True, False))
    tokens_counted, tokens = counted.run(range(1), one), timed.run(range(1, steps + 1), one)
    if trace:
        with torch.profiler.profile() as record:
            one(steps + 1)
        record.export_chrome_trace(trace)
    matrix, memory = matrix_speed(cfg), memory_speed(timed.where)
    counted.spent["step"], timed.spent["step"] = counted.inner[0], timed.inner[0]
    whole, phases = timed.spent["step"][0], {}
    for name in (n for n in (*PHASES, "step") if n in timed.spent):
        seconds = timed.spent[name][0]
        _, flops, traffic = counted.spent.get(name, np.zeros(3)) * tokens / tokens_counted / seconds
        phases[name] = {"seconds": seconds / steps, "share": seconds / whole}
        phases[name] |= {"tokens_s": tokens / seconds, "flops_s": flops, "bytes_s": traffic}
        phases[name] |= {"of_matrix_ceiling": flops / matrix, "of_memory_ceiling": traffic / memory}
    ceilings = {"matrix_ceiling_flops_s": matrix, "memory_ceiling_bytes_s": memory}
    return {"steps": steps, "tokens": tokens / steps} | ceilings | {"phases": phases}


def table(profile: dict) -> str:
    """A profile as Markdown."""
    of, rows = "of the ceiling", []
    head = ["phase", "seconds", "share", "tokens/s", "GFLOP/s", of, "GB/s", of]
    for name, p in profile["phases"].items():
        cells = [name, f"{p['seconds']:.3f}", f"{p['share']:.1%}", f"{p['tokens_s']:,.0f}"]
        cells += [f"{p['flops_s'] / 1e9:,.1f}", f"{p['of_matrix_ceiling']:.0%}"]
        rows.append(cells + [f"{p['bytes_s'] / 1e9:,.1f}", f"{p['of_memory_ceiling']:.0%}"])
    ceilings = f"measured on this machine: {profile['matrix_ceiling_flops_s'] / 1e9:,.0f} GFLOP/s, "
    ceilings += f"{profile['memory_ceiling_bytes_s'] / 1e9:,.0f} GB/s"
    steps = f"{profile['steps']} steps of {profile['tokens']:,.0f} sampled tokens, on average"
    note = "Bytes are those of all tensors that operators touch; caches allow more than 100%."
    return f"{markdown_table(head, rows)}\n\n{steps}; ceilings {ceilings}.\n{note}"


def save(profile: dict, cfg, command: str, path: str) -> None:
    write_json(path, provenance(command) | {"config": cfg.name} | profile)
    print(f"{table(profile)}\n\nfigures: {path}")


@dataclass
class Config(grpo.Config, sft.Config):
    """The sections of both scripts: a new model is built as sft.py does."""


def reward_by_text(problems, texts: list[str]) -> list[dict[str, float]]:
    """A number that depends on the text alone: a new model earns nothing, and groups without spread
    would cost nothing."""
    return [{"number": zlib.crc32(text.encode()) % 7} for text in texts]


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("model", nargs="?", help="model folder (without: a new model of --config's shape)")
    add("--steps", type=int, default=5, help="steps against the clock (default 5)")
    add("--out", default="profile.json", help="where the figures go (default profile.json)")
    add("--trace", metavar="FILE", help="one step more, as a Chrome trace")
    cfg, args = config.parse(parser, Config, algorithms=ALGORITHM_SETTINGS)
    with config.user_errors(), distributed.started(cfg):
        if grpo.ALGORITHMS[cfg.grpo.algorithm].critic and not args.model:
            raise UserError("a critic starts from a model: name a folder, such as runs/zero/model")
        if args.model:
            model, tokenizer = GPT.from_pretrained(args.model), tokenizers.load(args.model)
            model, judge = distributed.shard(model, model.layers, cfg), None
        else:
            tokenizer = sft.corpus_tokenizer(cfg)
            model, judge = sft.build(cfg, tokenizer), reward_by_text
        learner = grpo.Learner(model, tokenizer, cfg, args.model, judge)

        def one(step: int) -> int:
            logged, _ = learner.step(step, lambda step: grpo.problems_in_order(cfg, step))
            return logged["num_tokens"]

        found = take(cfg, args.steps, one, args.trace)
        save(found, cfg, " ".join(["python", *sys.argv]), args.out)


if __name__ == "__main__":
    main()
