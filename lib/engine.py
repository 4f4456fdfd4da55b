"""Batched generation for rollouts: what sample.decode does, in less time.

Compaction: rows that have ended leave the batch. Continuous batching: if not all rows run at once,
waiting ones take the places of those that have ended. Teams: a step is hundreds of short operations
over which many threads wait for each other, so on CPUs two teams of threads with half of the rows
each are faster, until few rows are left. Tests hold the result equal to the plain loop's.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lib import profiling
from lib.cache import BlockCache
from lib.profiling import phase

# tokens after which the loop waits for the device to tell how many rows are left; 16 on GPUs
ASK_EVERY = {"cpu": 1}
TEAMS_FROM = 256  # rows from which two teams of threads are faster
JOIN_BELOW = 64  # rows that a team hands over to the joint end


def padded(rows: list[list[int]], pad_id: int, device) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor [n, T], padded on the right, and their lengths [n]."""
    T = max(map(len, rows), default=0)
    tokens = [row + [pad_id] * (T - len(row)) for row in rows]
    lengths = torch.tensor(list(map(len, rows)), dtype=torch.long, device=device)
    return torch.tensor(tokens, dtype=torch.long, device=device).view(len(rows), T), lengths


def positions_of(lengths: Tensor, T: int) -> Tensor:
    """Positions [n, T] of the tokens of rows with these lengths [n], -1 at the padding."""
    slots = torch.arange(T, device=lengths.device)
    return torch.where(slots < lengths[:, None], slots, -1)


@dataclass
class Batch:
    """The rows of a rollout that have not ended, and what is known of their next tokens."""

    rows: Tensor  # [b]
    drawn: Tensor  # [b] how many tokens of the response there are
    logits: Tensor  # [b, V] of the next token
    cache: BlockCache

    @staticmethod
    def join(parts: list["Batch"]) -> "Batch":
        tensors = (torch.cat([getattr(p, k) for p in parts]) for k in ("rows", "drawn", "logits"))
        return Batch(*tensors, BlockCache.join([p.cache for p in parts]))


class Engine:
    """Writes the responses to prompts into `out`, a sample.Rollout with room for them. uniform
    [steps, B]: random numbers in [0, 1). sample: the function (logits [b, V], params, uniform [b])
    -> (tokens [b], their log p [b]). on_end(count) is called when so many more rows have ended."""

    def __init__(self, model, prompts, out, params, uniform, sample: Callable, on_end=None):
        self.model, self.out, self.params, self.uniform = model, out, params, uniform
        self.sample, self.on_end, self.device = sample, on_end, model.device
        self.prompts, self.lengths = padded(prompts, model.cfg.pad_id, model.device)  # [n, P], [n]
        ends = (*model.cfg.eos_ids, *params.stop_ids)
        self.ends_with = torch.tensor(ends, device=model.device, dtype=torch.long)

    def run(self) -> None:
        B, threads = len(self.out.tokens), torch.get_num_threads()
        at_once, every = min(B, self.params.rows or B), torch.arange(B, device=self.device)
        # what a layer remembers of its last call (routes, shards) and counters belong to one thread
        shared = self.out.routes is not None or profiling.counting()
        shared = shared or isinstance(self.model, FSDPModule)
        if self.device.type != "cpu" or threads == 1 or at_once < TEAMS_FROM or shared:
            self.answer(every, at_once)
            return

        def team(rows: Tensor) -> Batch | None:
            torch.set_num_threads(threads // 2)  # of this thread
            return self.answer(rows, at_once // 2, JOIN_BELOW)

        with ThreadPoolExecutor(2) as pool:
            left = [batch for batch in pool.map(team, (every[::2], every[1::2])) if batch]
        if left:
            self.advance(Batch.join(left))

    @torch.no_grad()  # which holds for a thread
    def answer(self, waiting: Tensor, at_once: int, fewest: int = 0) -> Batch | None:
        """Answer the rows [b], `at_once` of them at a time, until fewer than `fewest` are left."""
        batch = None
        while len(waiting):
            free = at_once - (len(batch.rows) if batch else 0)
            new, waiting = self.begin(waiting[:free]), waiting[free:]
            batch = Batch.join([batch, new]) if batch else new
            batch = self.advance(batch, 0.8 * at_once if len(waiting) else fewest)
        return batch

    def begin(self, rows: Tensor) -> Batch:
        """Read each prompt of the rows [b] once."""
        prompts = rows // self.params.num_return_sequences
        asked, group = prompts.unique(return_inverse=True)  # [n], [b]
        lengths = self.lengths[asked]
        P = int(lengths.max())
        cache = BlockCache(block=16, most=self.out.tokens.shape[1])
        with phase("prefill"):
            tokens, positions = self.prompts[asked, :P], positions_of(lengths, P)
            hidden = self.model(tokens, cache, positions, return_hidden=True)
            last = hidden[torch.arange(len(asked), device=self.device), lengths - 1]
            logits = self.model.lm_head(last)  # [n, V] at each prompt's last token
        if self.out.routes is not None:
            self.out.routes[rows, :P] = self.model.routes()[group]
        return Batch(rows, torch.zeros_like(rows), logits[group], cache.select(group))

    def advance(self, batch: Batch, fewest: float = 0) -> Batch | None:
        """Token by token, until fewer than `fewest` rows have not ended: those are returned."""
        out, rows, drawn, logits = self.out, batch.rows, batch.drawn, batch.logits
        cache, alive = batch.cache, len(batch.rows)
        running = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        ask_every = ASK_EVERY.get(self.device.type, 16)
        for step in itertools.count():
            token, logprob = self.sample(logits, self.params, self.uniform[drawn, rows])
            # [b]; rows that have ended stay within the tensors
            position = (out.prompt_lengths[rows] + drawn).clamp(max=out.tokens.shape[1] - 1)
            for store, new in ((out.tokens, token), (out.logprobs, logprob)):
                store[rows, position] = torch.where(running, new, store[rows, position])
            ended = running & torch.isin(token, self.ends_with)
            drawn = (drawn + 1).clamp(max=len(self.uniform) - 1)
            out.finished[rows] |= ended
            out.lengths[rows] = torch.where(ended, position + 1, out.lengths[rows])
            running = running & ~ended & (position + 1 < out.lengths[rows])
            if step % ask_every == 0:
                before, alive = alive, int(running.sum())
                if self.on_end and before > alive:
                    self.on_end(before - alive)
            if alive == 0:
                return None
            if alive < max(0.8 * len(rows), fewest):  # leaving copies the cache: wait until it pays
                left = running.nonzero()[:, 0]
                rows, drawn, token, position = (x[left] for x in (rows, drawn, token, position))
                running, cache = running[left], cache.select(left)
            logits = self.model(token[:, None], cache, positions=position[:, None])[:, 0]  # [b, V]
            if out.routes is not None:
                out.routes[rows, position] = self.model.routes()[:, 0]
            if alive < fewest:
                return Batch(rows, drawn, logits, cache)
