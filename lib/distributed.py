"""One process or many: devices, communication, sharded weights.

    torchrun --nproc-per-node 8 train_zero.py --config big      # eight GPUs, the same script

Without torchrun (and in float32) every function here that concerns other processes does nothing.
With it the processes divide the rows of a global batch and sum gradients, expert counts and
metrics. Each draws random numbers for the whole batch: the result does not depend on their number.

Weights, gradients and optimiser moments are sharded with FSDP2, block by block. Unlike its usual
use, the weights are gathered once for a whole phase (all rollouts, or all micro-batches of an
optimiser step) and gradients are summed once at its end: within a phase no process waits for
another. That takes 2 bytes a parameter for bf16 weights and 4 for gradients on every GPU, whatever
their number; 16 bytes are sharded.
"""

import atexit
import contextlib
import datetime
import os
import sys
import types
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from lib.cache import GrowingCache
from lib.errors import UserError


def device(name: str) -> torch.device:
    """What "auto", "cpu", "cuda" or "mps" means here. UserError if this machine has none."""
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name not in ("auto", "cpu", *there):
        raise UserError(f"--device is '{name}'; use auto, cpu, cuda or mps")
    if name in there and not there[name]():
        raise UserError(f"--device {name}: this machine has no usable GPU; use --device cpu")
    if name == "mps":
        return torch.device(name)
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if local and int(local) >= count:
        problem = f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes for {count} GPUs"
        raise UserError(f"{problem}: use --nproc-per-node {count}")
    return torch.device(f"cuda:{local or 0}")


def dtype(cfg) -> torch.dtype:
    """Of models that are only evaluated, never trained."""
    return getattr(torch, cfg.precision)


@contextlib.contextmanager
def started(cfg):
    """Join the processes that torchrun has started; bfloat16 needs sharding's machinery even for
    one. Inside, only the main process prints. Only the first process that meets an error raises it:
    the others have the same one, or have lost the connection."""
    # all of them: one may be left from another program
    torchrun = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    here = device(cfg.device)
    if not torchrun and cfg.precision == "float32":
        yield
        return
    if here.type == "mps":
        raise UserError("--device mps: it works in float32, without torchrun")
    if here.type == "cuda":
        torch.cuda.set_device(here)
    single = {} if torchrun else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    # torchrun ends all when one dies; the others may wait long for a rollout or a large checkpoint
    backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(hours=2), **single)
    try:
        with open(os.devnull, "w") as null, contextlib.ExitStack() as silence:
            if not is_main_process():
                silence.enter_context(contextlib.redirect_stdout(null))
                silence.enter_context(contextlib.redirect_stderr(null))
            yield
            barrier()  # nobody leaves before all have finished
        if torchrun:
            atexit.register(_exit_cleanly)
    except Exception:
        try:
            later = dist.distributed_c10d._get_default_store().add("ended", 1) > 1
        except dist.DistNetworkError:  # the main process held the store, and has ended
            later = True
        if later:
            sys.exit(2)
        raise
    finally:
        if not torchrun:
            dist.destroy_process_group()


def _exit_cleanly() -> None:
    """Exit here, after all went well: shutting gloo's threads down sometimes aborts the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    sum_floats([0.0])


def all_reduce(x: Tensor) -> Tensor:
    """x, replaced in place by its sum over processes."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def sum_floats(values: list[float]) -> list[float]:
    """Each number's sum over processes."""
    return all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()


def gather(local: list) -> list:
    """All processes' lists, one after the other, on each of them."""
    if not dist.is_initialized():
        return local
    lists: list = [None] * world_size()
    dist.all_gather_object(lists, local)
    return [x for items in lists for x in items]


def local_slice(count: int) -> slice:
    """Which of `count` items in a row this process works on."""
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def balanced_indices(weights: list[int]) -> list[int]:
    """Which items this process works on, if their weights differ: indices, in order."""
    by_weight = sorted(range(len(weights)), key=weights.__getitem__)  # neighbours are split up
    return sorted(by_weight[rank() :: world_size()])


def shard(model: nn.Module, blocks: Iterable[nn.Module], cfg, alone=False) -> nn.Module:
    """Move the model to its device and, among processes, shard it: block by block, then the rest.
    Forward and backward are in cfg.precision; stored weights and sums over processes are float32.
    alone: only move it; for LoRA, which one process does."""
    here, blocks = device(cfg.device), list(blocks)
    for block in blocks if cfg.recompute else ():
        recompute_activations(block)
    if alone or not dist.is_initialized():
        return model.to(here)
    policy = MixedPrecisionPolicy(dtype(cfg), torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(here.type, (world_size(),))
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        # losses are divided by global counts: the sum is wanted, not the mean
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    model.set_reshard_after_backward(False)
    model.set_requires_gradient_sync(False)
    return model


def recompute_activations(block: nn.Module) -> None:
    """Keep no activations of the block's training pass but its input: recompute the others."""
    block.forward = types.MethodType(_checkpointed, block)


def _checkpointed(block, x, freqs_cis, mask, cache, valid, chosen=None) -> Tensor:
    """The block's forward pass under activation checkpointing."""
    forward = type(block).forward
    if not torch.is_grad_enabled():
        return forward(block, x, freqs_cis, mask, cache, valid, chosen)

    def pure(x: Tensor, *old: Tensor) -> tuple[Tensor, ...]:
        """Without side effects: the layer's cache comes in, its next state goes out."""
        layer_cache = cache and GrowingCache(cache.length, {block.layer: old} if old else {})
        x = forward(block, x, freqs_cis, mask, layer_cache, valid, chosen)
        return x, *(layer_cache.layers[block.layer] if cache else ())

    old = cache.layers.get(block.layer, ()) if cache else ()
    passes = contextlib.nullcontext(), _second_pass(block)
    x, *new = checkpoint(pure, x, *old, use_reentrant=False, context_fn=lambda: passes)
    if cache:
        cache.layers[block.layer] = tuple(new)
    return x


@contextlib.contextmanager
def _second_pass(block: nn.Module):
    block.mlp.again = True  # the experts have counted these tokens
    try:
        yield
    finally:
        block.mlp.again = False


@contextlib.contextmanager
def gathered(model: nn.Module):
    """Inside, every process holds the model's full weights."""
    shards = [m for m in model.modules() if isinstance(m, FSDPModule)]
    try:
        for m in shards:
            m.unshard()
        yield
    finally:
        for m in shards:
            m.reshard()


def sum_gradients(model: nn.Module) -> None:
    """Sum gradients over processes; within gathered(), after the last backward pass. FSDP2 sums at
    the end of one: these, of a single token, do nothing else, and all processes run them. After the
    first every weight has a float32 gradient, as the sum wants it: a critic's head for tokens has
    had none, and a process without micro-batches none at all."""
    if not isinstance(model, FSDPModule):
        return
    token = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    model.eval()  # the experts do not count this token
    for last in (False, True):
        model.set_requires_gradient_sync(last)
        (0 * (model(token).sum() + sum(p.sum() for p in model.parameters()))).backward()
    model.set_requires_gradient_sync(False)
    model.train()


def full_tensor(x: Tensor) -> Tensor:
    """x itself, or the tensor that all processes' shards of it make together."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def full_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's full tensors, in the main process's CPU memory; nothing in the others'."""
    if not dist.is_initialized():
        return state
    out = {}
    for name, x in state.items():
        full = full_tensor(x)  # all processes take part
        if is_main_process():
            out[name] = full.cpu()
    return out


def by_matrix(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) of each whole matrix of x [..., m, n]; x may be sharded over dimension 0."""
    if not isinstance(x, DTensor):
        return function(x)
    mesh, placements = x.device_mesh, x.placements
    if x.dim() > 2:  # every matrix lies in one shard
        local = function(x.to_local())
        return DTensor.from_local(local, mesh, placements, shape=x.shape, stride=x.stride())
    return distribute_tensor(function(x.full_tensor()), mesh, placements, src_data_rank=None)
