"""Where the time of a GRPO step goes, beside what this machine can do: `python grpo.py --profile`.

The program marks its parts with `with phase("decode"):`. Unless a profile is being taken that is one comparison and an empty
context. A profile runs one step under torch's operator hooks, which count arithmetic and traffic but take long, and then a few
steps against the clock alone.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import parallel

PHASES = ("prefill", "decode", "reward", "scoring", "forward", "backward", "optimiser", "the rest")  # of a step, in their order
_taken: "Profile | None" = None  # the profile being taken
_NOTHING = contextlib.nullcontext()


def phase(name: str):
    """A context whose time belongs to this phase of the step; a phase within another takes its time away from it."""
    return _taken.measure(name) if _taken else _NOTHING


def _grouped_mm(a, b, offs=None, bias=None, out_shape=None, **_) -> int:
    """[N, K] x [E, K, M], or for its weights' gradient [K, N] x [N, M]: each of the N rows meets one matrix."""
    return 2 * a[0] * a[1] * b[-1]


def counting() -> bool:
    """Whether operations are being counted, which sees this thread's alone."""
    return _taken is not None and _taken.flops is not None


# what torch's own table lacks: the products of the experts, and attention on CPUs
aten = torch.ops.aten
FLOPS = {aten._grouped_mm: _grouped_mm,
         aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
         aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)}


class Traffic(TorchDispatchMode):
    """Counts the bytes of the tensors that operators read and write; what stays in a processor's cache between two of them counts too."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(size(x) for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor))
        return out


def size(x: torch.Tensor) -> int:
    """Bytes of a tensor's numbers, those that are repeated by expand() once.

    >>> size(torch.zeros(3, 1).expand(3, 5))
    12
    """
    numbers = 1
    for n, stride in zip(x.shape, x.stride()):
        numbers *= n if stride or n == 0 else 1
    return numbers * x.element_size()


class Profile:
    """Seconds, floating-point operations and bytes by phase, summed; each belongs to the innermost phase alone."""

    def __init__(self, device: torch.device, count: bool):
        self.device, self.spent = device, defaultdict(lambda: np.zeros(3))
        self.inner = [np.zeros(3)]  # what phases within the current one, and within those around it, have taken
        self.flops, self.traffic = (FlopCounterMode(display=False, custom_mapping=FLOPS), Traffic()) if count else (None, None)

    def now(self) -> np.ndarray:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return np.array([time.perf_counter(), self.flops.get_total_flops() if self.flops else 0, self.traffic.bytes if self.traffic else 0])

    @contextlib.contextmanager
    def measure(self, name: str):
        self.inner.append(np.zeros(3))
        before = self.now()
        try:
            yield
        finally:
            took = self.now() - before
            self.spent[name] += took - self.inner.pop()
            self.inner[-1] += took

    def run(self, steps: range, one: Callable[[int], int]) -> int:
        """one(number) for each step, measured; returns the sum of what it returns."""
        global _taken
        _taken = self
        try:
            with self.flops or _NOTHING, self.traffic or _NOTHING, self.measure("the rest"):
                return sum(one(number) for number in steps)
        finally:
            _taken = None


def memory_speed(device: torch.device) -> float:
    """Bytes a second, read and written together, of copying a quarter of a GiB on this device: the best of five."""
    x = torch.ones(2**26, device=device)
    y, best = x.clone(), 0.0
    for _ in range(5):
        t0 = time.perf_counter()
        y.copy_(x)
        y[0].item()  # waits for the device
        best = max(best, 2 * size(x) / (time.perf_counter() - t0))
    return best


def take(cfg, steps: int, one: Callable[[int], int], trace: str | None = None) -> dict:
    """The profile of `steps` steps after a first one, which counts; one(number) makes a step and returns how many tokens it sampled.

    cfg is a config.Config. trace: one step more, as a Chrome trace in that file. Returns the figures of an average step:
    phase -> seconds, share, tokens_s, flops_s, bytes_s and their shares of this machine's ceilings.
    """
    device = parallel.device(cfg.device)
    counted = Profile(device, count=True)
    tokens_counted = counted.run(range(1), one)
    timed = Profile(device, count=False)
    tokens = timed.run(range(1, steps + 1), one)
    if trace:
        with torch.profiler.profile() as record:
            one(steps + 1)
        record.export_chrome_trace(trace)
    matrix, memory = parallel.matrix_speed(cfg), memory_speed(device)
    phases = {}
    for p in (counted, timed):
        p.spent["step"] = p.inner[0]
    for name in (*(n for n in PHASES if n in timed.spent), "step"):
        seconds, (_, flops, traffic) = timed.spent[name][0], counted.spent[name] * tokens / tokens_counted
        phases[name] = {"seconds": seconds / steps, "share": seconds / timed.spent["step"][0], "tokens_s": tokens / seconds, "flops_s": flops / seconds,
                        "bytes_s": traffic / seconds, "of_matrix_ceiling": flops / seconds / matrix, "of_memory_ceiling": traffic / seconds / memory}
    return {"steps": steps, "tokens": tokens / steps, "matrix_ceiling_flops_s": matrix, "memory_ceiling_bytes_s": memory, "phases": phases}


def table(profile: dict) -> str:
    """A profile as Markdown."""
    lines = ["| phase | seconds | share | tokens/s | GFLOP/s | of the ceiling | GB/s | of the ceiling |", "|---|---|---|---|---|---|---|---|"]
    for name, p in profile["phases"].items():
        lines.append(f"| {name} | {p['seconds']:.3f} | {100 * p['share']:.1f}% | {p['tokens_s']:,.0f} | {p['flops_s'] / 1e9:,.1f} | "
                     f"{100 * p['of_matrix_ceiling']:.0f}% | {p['bytes_s'] / 1e9:,.1f} | {100 * p['of_memory_ceiling']:.0f}% |")
    ceilings = f"{profile['matrix_ceiling_flops_s'] / 1e9:,.0f} GFLOP/s, {profile['memory_ceiling_bytes_s'] / 1e9:,.0f} GB/s"
    return "\n".join([*lines, "", f"{profile['steps']} steps of {profile['tokens']:,.0f} sampled tokens, on average; ceilings measured on this machine: {ceilings}.",
                      "Bytes are those of all tensors that operators touch: what a processor's cache serves counts, so more than 100% is possible."])


def save(profile: dict, cfg, command: str, path: str) -> None:
    parallel.write_json(path, parallel.provenance(command) | {"config": cfg.name} | profile)
    print(f"{table(profile)}\n\nfigures: {path}")
