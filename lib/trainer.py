"""The one optimiser step of the project, and the log-probabilities that losses are made of.

    trainer = Trainer(model, [optimizer], max_grad_norm=1.0)
    def learn(step, rows):
        step.backward(loss(step.model, rows))           # sums gradients

    with trainer.optimizer_step(factor) as step:        # gathers sharded weights
        step.share(learn, micro_batches)                # among threads, if that pays
    step.metrics()                                      # summed over processes, clipped, stepped

Responses to one prompt share it: the prompt is read once, its cache is copied for each response,
and the responses' gradients are gathered at that cache and sent on through the prompt together.
"""

import contextlib
import copy
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule

from lib import distributed, products, profiling
from lib.cache import GrowingCache
from lib.engine import positions_of
from lib.profiling import phase


class Trainer:
    """A model and its optimisers; the learning rates that these come with are those at factor 1."""

    def __init__(self, model: nn.Module, optimizers: list, max_grad_norm: float):
        self.model, self.optimizers, self.max_grad_norm = model, optimizers, max_grad_norm
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.peaks = [(group, group["lr"]) for group in groups]
        self.twins = Twins(model)

    @contextlib.contextmanager
    def optimizer_step(self, factor: float = 1.0):
        """Inside, all weights of the model are there, and losses are added with Step.backward; at
        the end the gradient's norm is clipped and the weights change, at `factor` of the peak
        rates, unless loss or norm is not finite."""
        step = Step(self.model, self.twins)
        with distributed.gathered(self.model):
            yield step
            with phase("backward"):
                distributed.sum_gradients(self.model)
        (step.loss,) = distributed.sum_floats([step.loss])  # of all, so that all decide alike
        with phase("optimiser"):
            for group, peak in self.peaks:
                group["lr"] = peak * factor
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            step.grad_norm = distributed.full_tensor(norm).item()
            step.skipped = not (math.isfinite(step.grad_norm) and math.isfinite(step.loss))
            for optimizer in () if step.skipped else self.optimizers:
                optimizer.step()
            self.model.zero_grad(set_to_none=True)
        step.balance = balance_experts(self.model)


class Step:
    """What one optimiser step gathers, and then tells of itself."""

    def __init__(self, model: nn.Module, twins: "Twins"):
        self.model, self.loss, self.grad_norm, self.skipped = model, 0.0, 0.0, False
        self.start, self.twins = time.perf_counter(), twins
        self.balance: dict[str, float] = {}  # metrics of the experts' load

    def share(self, learn: Callable[["Step", list], None], micro_batches: list[list]) -> None:
        """learn(step, micro-batch) for each; on CPUs, for a small model, by one thread a core, for
        which micro-batches are cut so that all have as much to do."""
        threads = self.twins.threads(sum(map(len, micro_batches)))
        cut = threads // math.gcd(threads, max(1, len(micro_batches)))
        parts = [micro[i::cut] for micro in micro_batches for i in range(cut) if micro[i:]]
        count = max(1, min(threads, len(parts)))
        steps = [self] + [Step(model, self.twins) for model in self.twins.models(count - 1)]
        self.twins.run(lambda i: [learn(steps[i], part) for part in parts[i::count]], count)
        for other in steps[1:]:
            self.loss += other.loss
            self.twins.collect(other.model)

    def backward(self, loss: Tensor, balance_weight: float = 0.0, value: float | None = None):
        """Add the gradient of a micro-batch's loss plus balance_weight times the experts' balance
        loss; `value`, by default the loss, is added to self.loss."""
        with phase("forward"):
            total = loss + self.model.balance_loss() * balance_weight if balance_weight else loss
        with phase("backward"):
            total.backward()
        self.loss += loss.item() if value is None else value

    def metrics(self) -> dict[str, float]:
        """What is logged of it, the experts' load apart."""
        out = {"loss": self.loss, "grad_norm": self.grad_norm, "skipped_steps": int(self.skipped)}
        return out | {"step_time": time.perf_counter() - self.start}


class Twins:
    """Copies of a model that share its weights but not its gradients, so that each thread can send
    its own micro-batches forward and back. A small model's operations are too short for several
    threads to work on one of them together."""

    # width and vocabulary at most: each thread has activations, logits and gradients of its own;
    # threads: Python runs one at a time
    SMALL, TOKENS, MOST = 256, 8192, 4

    def __init__(self, model: nn.Module):
        self.model, self.copies, self.pool = model, [], None

    def threads(self, parts: int) -> int:
        """How many threads are to share so many parts."""
        cfg, device = self.model.cfg, self.model.device.type
        alone = isinstance(self.model, FSDPModule) or profiling.active is not None
        if alone or device != "cpu" or cfg.dim > self.SMALL or cfg.vocab_size > self.TOKENS:
            return 1
        return max(1, min(torch.get_num_threads(), parts, self.MOST))

    def models(self, count: int) -> list[nn.Module]:
        while len(self.copies) < count:
            own = {}  # what is in a checkpoint is shared; what a step counts is not
            for value in self.model.state_dict(keep_vars=True).values():
                trained = isinstance(value, nn.Parameter)
                twin = nn.Parameter(value.detach(), value.requires_grad) if trained else value
                own[id(value)] = twin
            for moe in expert_layers(self.model):
                moe.sequence_loss = None  # of an earlier pass, which cannot be copied
            self.copies.append(copy.deepcopy(self.model, own))
            for moe in expert_layers(self.copies[-1]):
                moe.counts.zero_()
        return self.copies[:count]

    def run(self, work: Callable[[int], object], count: int) -> None:
        """work(i) for i below count, each in a thread of its own."""
        if count == 1:
            work(0)
            return
        if self.pool is None:  # kept, as each thread prepares products of its own
            self.pool = ThreadPoolExecutor(torch.get_num_threads())
        threads = torch.get_num_threads() // count

        def alone(i: int) -> None:
            torch.set_num_threads(threads)  # of this thread
            work(i)

        list(self.pool.map(alone, range(count)))

    def collect(self, twin: nn.Module) -> None:
        """Add a copy's gradients and counts to the model's."""
        for p, q in zip(self.model.parameters(), twin.parameters()):
            if q.grad is not None:
                p.grad = q.grad if p.grad is None else p.grad.add_(q.grad)
                q.grad = None
        for moe, its in zip(expert_layers(self.model), expert_layers(twin)):
            moe.counts += its.counts
            its.counts.zero_()
            its.sequence_loss = None


def expert_layers(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if hasattr(m, "sequence_loss")]


@torch.no_grad()
def balance_experts(model: nn.Module) -> dict[str, float]:
    """After each step: bias -= gamma where an expert was overloaded, += gamma where underloaded
    [V3 2.1.2], by the counts of all processes since the last call: the whole global batch. Returns
    the busiest and the idlest expert's share of tokens, 1.0 = perfectly balanced."""
    layers = expert_layers(model)
    if not layers:
        return {}
    counts = distributed.all_reduce(torch.stack([moe.counts for moe in layers]))  # [layers, E]
    mean = counts.mean(1, keepdim=True)
    for moe, signs in zip(layers, (mean - counts).sign()):
        moe.gate.e_score_correction_bias += moe.cfg.bias_update_speed * signs
        moe.sequence_loss = None
        moe.counts.zero_()
    load = counts / mean
    most, least = torch.stack([load.max(), load.min()]).tolist()  # waits for the device once
    return {"moe/max_load": most, "moe/min_load": least}


def chunked_logprobs(hidden, weight, targets, temperature=1.0, chunk: int | None = None) -> Tensor:
    """log p(target) [N] at a temperature, in nats, float32; hidden [N, D], weight [V, D], targets
    [N]. So that memory does not grow with N, never more than `chunk` x V logits exist (by default
    2048 rows, fewer for vocabularies above 65,536): the backward pass computes them again."""
    chunk, count = chunk or min(2048, 2**27 // len(weight)), len(hidden)
    more = products.rounded(count, products.ROUND) - count  # rows of zeros: few shapes
    hidden, targets = F.pad(hidden, (0, 0, 0, more)), F.pad(targets, (0, more))
    return _LogProbs.apply(hidden, weight, targets, temperature, chunk)[:count]


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk):
        out, sums = [], []
        for h, t in zip(hidden.split(chunk), targets.split(chunk)):
            logits = _logits(h, weight, temperature)
            picked = logits.gather(1, t[:, None])[:, 0]
            most = logits.amax(1, keepdim=True)
            sums.append(logits.sub_(most).exp_().sum(1).log_() + most[:, 0])
            out.append(picked - sums[-1])
        ctx.save_for_backward(hidden, weight, targets, torch.cat(sums))
        ctx.temperature, ctx.chunk = temperature, chunk
        return torch.cat(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # [N]
        """d log p(t) / d logits = onehot(t) - p."""
        hidden, weight, targets, sums = ctx.saved_tensors
        to_hidden, to_weight = torch.empty_like(hidden), None
        if ctx.needs_input_grad[1]:  # a sum over chunks: not in bfloat16
            to_weight = torch.zeros_like(weight, dtype=grad.dtype)
        for start in range(0, len(hidden), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            h, g = hidden[rows], grad[rows, None] / ctx.temperature  # [n, D], [n, 1]
            p = _logits(h, weight, ctx.temperature).sub_(sums[rows, None]).exp_()  # [n, V]
            to_logits = p.mul_(-g).scatter_add_(1, targets[rows, None], g)
            to_logits = to_logits.to(h.dtype)
            to_hidden[rows] = products.linear(to_logits, weight.t())
            if to_weight is not None:
                to_weight += products.transposed(to_logits, h)
        to_weight = None if to_weight is None else to_weight.to(weight.dtype)
        return to_hidden, to_weight, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = products.linear(hidden, weight)  # [n, V]
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    return logits if temperature == 1 else logits.div_(temperature)


@dataclass
class Responses:
    """A rollout's responses, shifted to the left edge: column j is response token j."""

    inputs: Tensor  # [B, R] the token before: the prompt's last one, then the response's
    targets: Tensor  # [B, R]
    positions: Tensor  # [B, R] of the inputs, -1 beyond the end
    logprobs: Tensor  # [B, R] as they were drawn
    lengths: list[int]
    routes: Tensor | None  # [B, R, layers, K] of the inputs

    @classmethod
    def of(cls, batch) -> "Responses":
        """Those of a sample.Rollout."""
        lengths = batch.lengths - batch.prompt_lengths  # [B]
        width = products.rounded(int(lengths.max()), products.LENGTHS)
        columns = torch.arange(width, device=lengths.device)
        index = (batch.prompt_lengths - 1)[:, None] + columns  # [B, R]
        inside = index < (batch.lengths - 1)[:, None]
        last = batch.tokens.shape[1] - 1
        here, after = index.clamp(max=last), (index + 1).clamp(max=last)
        inputs, targets = batch.tokens.gather(1, here), batch.tokens.gather(1, after)
        routes = batch.routes
        if routes is not None:
            routes = routes[torch.arange(len(here), device=here.device)[:, None], here]
        positions, logprobs = torch.where(inside, index, -1), batch.logprobs.gather(1, after)
        return cls(inputs, targets, positions, logprobs, lengths.tolist(), routes)


def read_prompts(model: nn.Module, batch, chunk: "Chunk") -> GrowingCache:
    """What the model remembers of a chunk's prompts, all but their last tokens; gradients flow
    through it."""
    cache, ends = GrowingCache(), batch.prompt_lengths[chunk.prompts] - 1  # [n]
    T = products.rounded(max(1, int(ends.max())), products.LENGTHS)
    T = min(T, batch.tokens.shape[1])
    tokens, positions = batch.tokens[chunk.prompts, :T], positions_of(ends, T)
    counted = torch.tensor(chunk.counted, device=ends.device)
    routes = None if batch.routes is None else batch.routes[chunk.prompts, :T]
    model(tokens, cache, positions, return_hidden=True, counted=counted, routes=routes)
    return cache


def micro_batches_of(model: nn.Module, batch, work: "LocalWork"):
    """Each micro-batch of `work`: (rows in the rollout [b], which of the cache's prompts each
    follows [b], the cache). When all of a chunk have been through the backward pass, the gradients
    that they left at the cache go on through the prompts: activations of only one chunk are alive
    at a time."""
    for chunk in work.chunks:
        with phase("forward"):
            cache = read_prompts(model, batch, chunk)
        leaves = cache.detached()
        for rows, which in chunk.micro:
            yield rows, which, leaves
        with phase("backward"):
            cache.backward(leaves)


def response_logprobs(model, prompts: GrowingCache, rows, which, responses, temperature: float):
    """(log p [b, R] of the response tokens of a micro-batch, their mask [b, R])."""
    R = products.rounded(max(responses.lengths[i] for i in rows.tolist()), products.LENGTHS)
    positions = responses.positions[rows, :R]
    mask = positions >= 0
    routes = None if responses.routes is None else responses.routes[rows, :R]
    inputs, cache = responses.inputs[rows, :R], prompts.select(which)
    hidden = model(inputs, cache, positions, return_hidden=True, routes=routes)
    targets = responses.targets[rows, :R][mask]
    picked = chunked_logprobs(hidden[mask], model.lm_head.weight, targets, temperature)
    out = torch.zeros(mask.shape, dtype=picked.dtype, device=mask.device)
    return out.masked_scatter(mask, picked), mask


@torch.no_grad()
def score_responses(model, batch, responses: Responses, works: list, temperature: float) -> Tensor:
    """log p [B, R] by the model as it trains, of the rows that this process trains on."""
    out = torch.zeros_like(responses.logprobs)
    with distributed.gathered(model), phase("scoring"):
        for work in works:
            for rows, which, cache in micro_batches_of(model, batch, work):
                picked, mask = response_logprobs(model, cache, rows, which, responses, temperature)
                out[rows, : mask.shape[1]] = picked
    return out


def micro_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices of rows, grouped by like length so that rows x longest <= budget (or one row)."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = products.rounded(lengths[i], products.LENGTHS)
        if not groups or (len(groups[-1]) + 1) * longest > budget:
            groups.append([])
        groups[-1].append(i)
    return groups


def minibatches(questions: list[int], size: float, rng: random.Random) -> list[list[int]]:
    """The questions, shuffled in place, in parts of about `size`, as equal as possible: 9 in parts
    of about 4 are 5, 4; 3 are one part. AdamW's step is as large whatever the gradient: on a
    single question it would be noise."""
    rng.shuffle(questions)
    count = min(len(questions), max(1, round(len(questions) / size)))
    return [questions[i::count] for i in range(count)]


@dataclass
class Chunk:
    """Prompts that are read in one forward pass, and micro-batches of their responses."""

    prompts: list[int]  # rows in the rollout, the first of each group
    counted: list[bool]  # which of them count as experts' load: one process counts each
    micro: list[list[Tensor]]  # rows in the rollout [b], places of their prompts above [b]


@dataclass
class LocalWork:
    """What this process trains on of a minibatch of questions; without torchrun all of it. The
    responses are divided one by one, so a question's may go to several processes."""

    rows: list[int]  # the minibatch's rows in the rollout, of all processes
    chunks: list[Chunk]  # of this process's prompts

    @classmethod
    def of(cls, questions: list[int], responses: Responses, group_size: int, budget: int):
        """budget: tokens of a forward pass, of prompts or of responses, padding included."""
        every = [q * group_size + j for q in questions for j in range(group_size)]
        lengths, device = responses.lengths, responses.inputs.device
        mine = [every[i] for i in distributed.balanced_indices([lengths[row] for row in every])]
        first = {row: row - row % group_size for row in mine}  # of its group, whose prompt is read
        prompts, chunks = list(dict.fromkeys(first.values())), []
        read = responses.positions[prompts, 0].tolist()  # tokens of each prompt but the last
        for places in micro_batches(read, budget):
            chosen, micro = [prompts[i] for i in sorted(places)], []
            theirs = [row for row in mine if first[row] in chosen]
            for group in micro_batches([lengths[row] for row in theirs], budget):
                rows = [theirs[i] for i in group]
                which = [chosen.index(first[row]) for row in rows]
                micro.append([torch.tensor(x, device=device) for x in (rows, which)])
            chunks.append(Chunk(chosen, [row in mine for row in chosen], micro))
        return cls(every, chunks)
