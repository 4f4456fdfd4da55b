"""AdamW as it is set here, and Muon: momentum whose every matrix is orthogonalised."""

from functools import partial

import torch
from torch import Tensor

from lib import distributed


def adamw(parameters, lr: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


class Muon(torch.optim.Optimizer):
    """Every singular value of the update becomes about 1 [K. Jordan 2024; arXiv 2502.16982].
    torch.optim.Muon takes 2-D parameters only, but a stack of experts [E, in, out] is E matrices;
    of a group of parameters with `halves` = 2, which hold two matrices side by side, twice as many.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum, halves=1))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                nesterov = p.grad.lerp(m, group["momentum"])
                function = partial(of_stack, halves=group["halves"]) if p.dim() > 2 else of_matrix
                p.add_(distributed.by_matrix(function, nesterov), alpha=-group["lr"])


def of_matrix(g: Tensor) -> Tensor:
    """The update for g [..., out, in]: orthogonal, and larger where the output is wider."""
    return orthogonalise(g) * max(1, g.shape[-2] / g.shape[-1]) ** 0.5


def of_stack(g: Tensor, halves: int) -> Tensor:
    """The same for g [E, in, halves * out]."""
    matrices = g.mT.unflatten(1, (halves, -1))  # [E, halves, out, in]
    return of_matrix(matrices).flatten(1, 2).mT


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration: g [..., m, n] = U S V^T -> about U V^T. bf16 on GPUs is enough, as
    the iteration corrects itself."""
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)
