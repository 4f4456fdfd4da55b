"""LoRA [2106.09685]: beside each weight matrix W a small product of two is trained, not W itself.

    W' = W + alpha / rank * B A        W [out, in], A [rank, in], B [out, rank]

W has neither gradient nor optimiser state. A begins at random and B at zero, so that W' begins as
W. As "LoRA Without Regret" advises (thinkingmachines.ai/blog/lora), all matrices of the layers have
adapters, each expert its own, and alpha stays 32 whatever the rank: then the best learning rate is
about the same for all ranks, ten times that of training W. Embedding, head, router and norms stay.
In training a layer computes W x + alpha / rank * B (A x): no gradient has W's size.
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import distributed
from lib.cli import setting


@dataclass
class LoRAConfig:
    rank: int = setting(0, high=4096)  # of adapters on a model that is given; 0: train all weights
    alpha: float = setting(32.0, above=0)  # what they add is scaled by alpha / rank


class Adapter(nn.Module):
    """The correction of a weight [out, in], or of each in a stack [E, in, out]; kept as the stacks
    are, from input to output: a is A^T [.., in, rank], b is B^T [.., rank, out], in float32."""

    def __init__(self, weight: Tensor, cfg: LoRAConfig, generator: torch.Generator):
        super().__init__()
        *stack, n_in, n_out = weight.shape if weight.dim() > 2 else weight.T.shape
        self.scale, bound = cfg.alpha / cfg.rank, n_in**-0.5  # the bound that nn.Linear has
        a = torch.empty(*stack, n_in, cfg.rank).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(weight.device))
        self.b = nn.Parameter(torch.zeros(*stack, cfg.rank, n_out, device=weight.device))

    def forward(self, x: Tensor, ends: Tensor | None = None) -> Tensor:
        """What is added to the product of x [.., in] and the weight: [.., out]. Of a stack: expert
        e's rows of x end at ends[e]."""
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        if ends is None:
            return (x @ a * self.scale) @ b
        more = -a.shape[-1] % 8  # grouped_mm wants rows of a multiple of 16 bytes
        a, b = F.pad(a, (0, more)), F.pad(b, (0, 0, 0, more))
        return F.grouped_mm(F.grouped_mm(x, a, offs=ends) * self.scale, b, offs=ends)

    def merge(self, weight: Tensor) -> Tensor:
        """W', in the weight's precision."""
        change = self.a @ self.b * self.scale  # [.., in, out]
        return (weight + (change if weight.dim() > 2 else change.T)).to(weight.dtype)


def targets(model) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """The modules of a GPT whose weights get adapters, and the names of these weights."""
    linear = [(m, ("weight",)) for m in model.layers.modules() if isinstance(m, nn.Linear)]
    return linear + [(moe, ("gate_up", "down")) for moe in model.moe_layers()]


def prepared(model, cfg):
    """A GPT on its device, ready to be trained: whole, or if cfg.lora.rank is not 0 its adapters,
    beside weights that are held in cfg.precision."""
    model = distributed.shard(model, model.layers, cfg, alone=cfg.lora.rank > 0)
    return add(model, cfg.lora, cfg.seed, distributed.dtype(cfg)) if cfg.lora.rank else model


def add(model, cfg: LoRAConfig, seed: int, dtype: torch.dtype = torch.float32):
    """Freeze a GPT's weights, which are held in dtype from now on, and give it adapters."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.requires_grad_(False)
        p.data = p.data.to(dtype)
    for module, names in targets(model):
        new = {name: Adapter(getattr(module, name), cfg, generator) for name in names}
        module.lora = nn.ModuleDict(new)
        if isinstance(module, nn.Linear):
            module.register_forward_hook(_add_to_output)
        else:  # for the base as it was: the balancing bias goes on moving
            bias = module.gate.e_score_correction_bias.clone()
            module.lora.register_buffer("base_bias", bias, persistent=False)
    return model


def _add_to_output(linear: nn.Linear, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    return out if linear.lora is None else out + linear.lora["weight"](inputs[0])


def parameters(model) -> list[nn.Parameter]:
    """The adapters' parameters; none if the model has no adapters."""
    return [p for name, p in model.named_parameters() if ".lora." in name]


def weight_of(linear: nn.Linear) -> Tensor:
    """W', with gradients to its adapter; W if it has none."""
    adapters = getattr(linear, "lora", None)
    return linear.weight if adapters is None else adapters["weight"].merge(linear.weight)


@contextlib.contextmanager
def plain(model, merged: bool = True):
    """Inside, the model has no adapters: with W' in W's place, for rollouts at full speed and for
    saving; or merged = False, the base. Afterwards all is as it was, to the last digit."""
    before = []

    def put(thing, name: str, value) -> None:
        before.append((thing, name, getattr(thing, name)))
        setattr(thing, name, value)

    adapted = [m for m in model.modules() if getattr(m, "lora", None) is not None]
    try:
        for module in adapted:
            adapters = module.lora
            for name, adapter in adapters.items() if merged else ():
                weight = getattr(module, name)
                put(weight, "data", adapter.merge(weight).detach())
            if hasattr(adapters, "base_bias") and not merged:
                put(module.gate, "e_score_correction_bias", adapters.base_bias)
            put(module, "lora", None)
        yield
    finally:
        for thing, name, value in reversed(before):
            setattr(thing, name, value)
