"""Matrix products on CPUs, by the faster of two libraries.

PyTorch gives float32 products to MKL, which takes a slow path on AMD's processors. oneDNN, which
PyTorch has too, is as exact, and was 1.4 to 2.4 times as fast on one of them (results/log.md). It
prepares each new shape, for about a millisecond: so rows are taken in multiples of ROUND where that
costs nothing, and products of fewer than LEAST rows stay with MKL. Which of the two is faster is
measured once, at the first product that is large enough.

    CPU_PRODUCTS=mkl python train_zero.py      # or onednn, where the choice is not to be measured
    y = products.linear(x, w)                  # as F.linear; products.Linear as nn.Linear
    y = products.grouped_mm(x, w, ends)        # as F.grouped_mm
"""

import os
import threading
import timeit
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.errors import UserError

ROUND, LEAST = 128, 128
LENGTHS = 4  # batches in training have lengths that are multiples of this: fewer shapes
MOST = 2**26  # numbers in the products of all rows with all experts, at most, where those are made
MARGIN = 1.2  # by how much oneDNN has to be faster: no choice between equals, which chance decides
_measuring = threading.Lock()


def use_onednn() -> bool:
    wanted = os.environ.get("CPU_PRODUCTS", "auto")
    if wanted not in ("auto", "mkl", "onednn"):
        raise UserError(f"CPU_PRODUCTS is '{wanted}': use auto, mkl or onednn")
    with _measuring:
        return is_faster() if wanted == "auto" else wanted == "onednn"


def library() -> str:
    return "onednn" if use_onednn() else "mkl"


def keep(name: str | None) -> None:
    """Go on with the library that a run has begun with, since the other rounds otherwise; what the
    environment says holds."""
    if name in ("mkl", "onednn"):
        os.environ.setdefault("CPU_PRODUCTS", name)


@lru_cache(maxsize=1)
def is_faster() -> bool:
    """Whether oneDNN is faster here, on a product of a laptop model by one thread, whoever asks
    first: takes some milliseconds."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x, w, threads = torch.ones(1024, 128), torch.ones(384, 128), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return seconds(F.linear, x, w) > MARGIN * seconds(onednn, x, w)
    finally:
        torch.set_num_threads(threads)


def seconds(product, *factors: Tensor) -> float:
    """The least time of ten calls."""
    return min(timeit.repeat(lambda: product(*factors), number=1, repeat=10))


def onednn(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in], w [out, in] -> [..., out]; both may be transposed views."""
    return torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")


def pays(x: Tensor, rows: int) -> bool:
    """Whether oneDNN is to multiply so many rows of x."""
    return rows >= LEAST and x.device.type == "cpu" and x.dtype == torch.float32 and use_onednn()


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """As F.linear."""
    if w.dtype != x.dtype or not pays(x, x.numel() // x.shape[-1]):
        return F.linear(x, w, bias)
    return _Linear.apply(x, w, bias) if torch.is_grad_enabled() else onednn(x, w, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, bias):
        ctx.save_for_backward(x, w)
        return onednn(x, w, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # [..., out]
        x, w = ctx.saved_tensors
        rows = grad.flatten(0, -2)  # [N, out]
        to_x, to_w, to_bias = ctx.needs_input_grad
        dx = onednn(grad, w.t()) if to_x else None
        dw = transposed(rows, x.flatten(0, -2)) if to_w else None
        return dx, dw, rows.sum(0) if to_bias else None


def transposed(a: Tensor, b: Tensor) -> Tensor:
    """a^T b of a [N, out], b [N, in]: oneDNN's for a multiple of ROUND rows, MKL's for the rest."""
    whole = len(a) // ROUND * ROUND
    if not pays(a, whole):
        return a.t() @ b
    x, y = a[:whole], b[:whole]
    # the first factor, of which oneDNN makes a copy, is the smaller one
    small = x.shape[1] <= y.shape[1]
    out = onednn(x.t(), y.t()) if small else onednn(y.t(), x.t()).t()
    return out if whole == len(a) else out.addmm_(a[whole:].t(), b[whole:])


def rounded(count: int, multiple: int) -> int:
    """count, rounded up."""
    return -(-count // multiple) * multiple


# ------------------------------------------------------------------------------ experts


def grouped_mm(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    """As F.grouped_mm: x [N, in], of which each expert has rows up to its end [E], and w
    [E, in, out] -> [N, out]."""
    if x.is_cuda and x.dtype == torch.float32 and len(x) * w[:, 0].numel() <= MOST:
        return of_every_expert(x, w, ends)
    if not pays(x, len(x)):
        return F.grouped_mm(x, w, offs=ends)
    if torch.is_grad_enabled():
        return _Grouped.apply(x, w, ends.tolist())
    return by_expert(x, w, ends.tolist())


def of_every_expert(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    """Each row times every expert's matrix, of which one result is kept: E times the arithmetic,
    which is nothing on a GPU, but one operation, where F.grouped_mm in float32 makes the host wait
    for `ends` and starts a product an expert."""
    rows = torch.arange(len(x), device=x.device)
    expert = torch.searchsorted(ends, rows, right=True)  # [N]
    every = x @ w  # [N, in] @ [E, in, out] -> [E, N, out]
    return every.gather(0, expert[None, :, None].expand(1, -1, w.shape[2]))[0]


def parts(ends: list[int], rows: int):
    """(expert, first row, end, end for oneDNN or None if MKL is to multiply) of experts that have
    rows. For oneDNN rows are rounded up: it reads into those of the next expert."""
    start = 0
    for expert, end in enumerate(ends):
        if end > start:
            until = start + rounded(end - start, ROUND)
            yield expert, start, end, until if end - start >= LEAST and until <= rows else None
        start = end


def by_expert(x: Tensor, w: Tensor, ends: list[int]) -> Tensor:
    out = x.new_empty(len(x), w.shape[2])
    for e, start, end, until in parts(ends, len(x)):
        if until:
            out[start:end] = onednn(x[start:until], w[e].t())[: end - start]
        else:
            torch.mm(x[start:end], w[e], out=out[start:end])
    return out


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, ends):
        ctx.save_for_backward(x, w)
        ctx.ends = ends
        return by_expert(x, w, ends)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # [N, out]
        (x, w), grad = ctx.saved_tensors, grad.contiguous()
        to_x, to_w, _ = ctx.needs_input_grad
        dw = torch.zeros_like(w) if to_w else None
        for e, start, end, _ in parts(ctx.ends, len(x)) if to_w else ():
            dw[e] = transposed(x[start:end], grad[start:end])
        return by_expert(grad, w.mT, ctx.ends) if to_x else None, dw, None
