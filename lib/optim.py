"""AdamW as it is set here, and Muon: momentum whose every matrix is orthogonalised."""

import torch
from torch import Tensor

from lib import distributed


def adamw(parameters, lr: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


class Muon(torch.optim.Optimizer):
    """Every singular value of the update becomes about 1 [K. Jordan 2024; arXiv 2502.16982].
    torch.optim.Muon takes 2-D parameters only, but a stack of experts [E, in, out] is E matrices.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                nesterov = p.grad.lerp(m, group["momentum"])
                update = distributed.by_matrix(orthogonalise, nesterov)
                scale = max(1, p.shape[-2] / p.shape[-1]) ** 0.5
                p.add_(update, alpha=-group["lr"] * scale)


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
