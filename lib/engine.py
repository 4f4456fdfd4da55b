"""Batched generation for rollouts: what sample.decode does, in less time.

Compaction: rows that have ended leave the batch. Continuous batching: if not all rows run at once,
waiting ones take the places of those that have ended. Teams: a step is hundreds of short operations
over which many threads wait for each other, so on CPUs two teams of threads with half of the rows
each are faster, until few rows are left. CUDA graphs: a GPU would wait for the host, which starts a
step's operations one by one; so a step is recorded once and repeated as long as its shapes stay,
until the cache grows or rows leave. Tests hold the result equal to the plain loop's.
"""

import functools
import itertools
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lib import products, profiling
from lib.cache import BlockCache
from lib.errors import UserError, say_once
from lib.profiling import phase

# tokens after which the loop waits for the device to tell how many rows are left; 16 on GPUs
ASK_EVERY = {"cpu": 1}
STATIC = {"cpu": False}  # whether all of a step's values are on the device (BlockCache)
GRAPHS = ["cuda"]  # devices whose steps are recorded and repeated
WORTH = 8  # recording takes the time of two or three steps: do it where more than so many follow
TEAMS_FROM = 256  # rows from which two teams of threads are faster
JOIN_BELOW = 64  # rows that a team hands over to the joint end


def padded(rows: list[list[int]], pad_id: int, device, multiple=1) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor [n, T], padded on the right to a multiple of `multiple`, and
    their lengths [n]."""
    T = products.rounded(max(map(len, rows), default=0), multiple)
    tokens = [row + [pad_id] * (T - len(row)) for row in rows]
    lengths = torch.tensor(list(map(len, rows)), dtype=torch.long, device=device)
    return torch.tensor(tokens, dtype=torch.long, device=device).view(len(rows), T), lengths


def check_ids(rows: Iterable[list[int]], vocab_size: int) -> None:
    """UserError for a token that the model does not have: its tokenizer has more."""
    most = max((max(row, default=0) for row in rows), default=0)
    if most >= vocab_size:
        msg = f"the tokenizer has a token {most}, but the model's vocabulary ends at {vocab_size}"
        raise UserError(f"{msg}: the folder's files do not belong together")


def positions_of(lengths: Tensor, T: int) -> Tensor:
    """Positions [n, T] of the tokens of rows with these lengths [n], -1 at the padding."""
    slots = torch.arange(T, device=lengths.device)
    return torch.where(slots < lengths[:, None], slots, -1)


def host_waits(work: Callable[[], object]) -> int:
    """How often the host waits for the GPU in work()."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("called a synchronizing" in str(w.message) for w in seen)


def record(step: Callable[[], None], old):
    """Take a step, and return a CUDA graph that repeats it from the state that it has left; None if
    that cannot be. old: the graph before it or None, whose memory is used again."""
    if host_waits(step):
        say_once("decoding without CUDA graphs: in this model the host must wait for the GPU")
        return None
    graph, pool = torch.cuda.CUDAGraph(), old and old.pool()
    try:
        # thread_local: nccl's threads may call CUDA meanwhile. The outer context restores the
        # current stream, which a failure would leave changed
        recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        with torch.cuda.stream(torch.cuda.current_stream()), recording:
            step()
    except RuntimeError as e:
        first = str(e.__context__ or e).splitlines()[0]  # the end of a broken recording fails too
        say_once(f"decoding without CUDA graphs: {first}")
        return None
    return graph


@dataclass
class Batch:
    """Rows of a rollout in progress. The tensors are changed in place, for a CUDA graph knows them
    by their memory."""

    cache: BlockCache
    rows: Tensor  # [b]
    drawn: Tensor  # [b] how many tokens of the response there are
    token: Tensor  # [b] the newest of them, which is not in the cache yet
    running: Tensor  # [b] whether the row goes on

    def tensors(self) -> tuple[Tensor, ...]:
        return self.rows, self.drawn, self.token, self.running

    def select(self, index: Tensor) -> "Batch":
        return Batch(self.cache.select(index), *(x[index] for x in self.tensors()))

    @staticmethod
    def join(parts: list["Batch"]) -> "Batch":
        tensors = map(torch.cat, zip(*(part.tensors() for part in parts)))
        return Batch(BlockCache.join([part.cache for part in parts]), *tensors)


class Engine:
    """Writes the responses to prompts into `out`, a sample.Rollout with room for them. uniform
    [steps, B]: random numbers in [0, 1). sample: the function (logits [b, V], params, uniform [b])
    -> (tokens [b], their log p [b]). on_end(count) is called when so many more rows have ended."""

    def __init__(self, model, prompts, out, params, uniform, sample: Callable, on_end=None):
        self.model, self.out, self.params, self.uniform = model, out, params, uniform
        self.sample, self.on_end, self.device = sample, on_end, model.device
        self.prompts, self.lengths = padded(prompts, model.cfg.pad_id, model.device)  # [n, P], [n]
        ends = [i for i in (*model.cfg.eos_ids, *params.stop_ids) if i < model.cfg.vocab_size]
        self.is_end = torch.zeros(model.cfg.vocab_size, dtype=torch.bool, device=model.device)
        self.is_end[ends] = True
        self.static = STATIC.get(self.device.type, True)
        # what a layer remembers of its last call (routes) is not in a graph, and belongs to one
        # thread; counters count calls, of one thread
        self.watched = out.routes is not None or profiling.counting()
        self.graphs = self.static and self.device.type in GRAPHS and not self.watched
        self.graph = None  # the newest; the next one uses its memory

    def run(self) -> None:
        B, threads = len(self.out.tokens), torch.get_num_threads()
        at_once, every = min(B, self.params.rows or B), torch.arange(B, device=self.device)
        shared = self.watched or isinstance(self.model, FSDPModule)  # shards are one thread's, too
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
        block = 64 if self.static else 16  # each growth ends a graph
        cache = BlockCache(block, self.out.tokens.shape[1], self.static)
        with phase("prefill"):
            tokens, positions = self.prompts[asked, :P], positions_of(lengths, P)
            hidden = self.model(tokens, cache, positions, return_hidden=True)
            last = hidden[torch.arange(len(asked), device=self.device), lengths - 1]
            logits = self.model.lm_head(last)  # [n, V] at each prompt's last token
        if self.out.routes is not None:
            self.out.routes[rows, :P] = self.model.routes()[group]
        running = torch.ones_like(rows, dtype=torch.bool)
        zeros = torch.zeros_like(rows)
        batch = Batch(cache.select(group), rows, zeros, zeros.clone(), running)
        self.draw(batch, logits[group])
        return batch

    def draw(self, batch: Batch, logits: Tensor) -> None:
        """Draw each row's next token from logits [b, V], and write it down."""
        out, rows, running = self.out, batch.rows, batch.running
        token, logprob = self.sample(logits, self.params, self.uniform[batch.drawn, rows])
        # [b]; rows that have ended stay within the tensors
        position = (out.prompt_lengths[rows] + batch.drawn).clamp(max=out.tokens.shape[1] - 1)
        for store, new in ((out.tokens, token), (out.logprobs, logprob)):
            store[rows, position] = torch.where(running, new, store[rows, position])
        ended = running & self.is_end[token]
        out.finished[rows] |= ended
        out.lengths[rows] = torch.where(ended, position + 1, out.lengths[rows])
        batch.token.copy_(token)
        batch.drawn.add_(1).clamp_(max=len(self.uniform) - 1)
        running &= ~ended & (position + 1 < out.lengths[rows])

    def step(self, batch: Batch) -> None:
        """Read each row's newest token and draw the next. On a GPU no operation here may need a
        value from it, nor put its result anywhere but into the memory that is there."""
        out, rows = self.out, batch.rows
        position = (out.prompt_lengths[rows] + batch.drawn - 1).clamp(max=out.tokens.shape[1] - 1)
        # without the hooks of FSDP, which make streams wait for each other
        logits = self.model.forward(batch.token[:, None], batch.cache, position[:, None])
        if out.routes is not None:
            out.routes[rows, position] = self.model.routes()[:, 0]
        self.draw(batch, logits[:, 0])

    def step_or_record(self, batch: Batch, most: int):
        """Take a step, the first of at most `most`; returns a graph of the next ones, if it pays
        and is possible."""
        step = functools.partial(self.step, batch)
        room = batch.cache.room() or batch.cache.block  # the step makes room where there is none
        if not self.graphs or min(room, most) <= WORTH:
            step()
            return None
        graph = record(step, self.graph)
        self.graphs, self.graph = graph is not None, graph
        return graph

    def advance(self, batch: Batch, fewest: float = 0) -> Batch | None:
        """Token by token, until fewer than `fewest` rows have not ended: those are returned."""
        graph, alive, ask_every = None, len(batch.rows), ASK_EVERY.get(self.device.type, 16)
        for step in itertools.count():
            if step % ask_every == 0:
                before, alive = alive, int(batch.running.sum())
                if self.on_end and before > alive:
                    self.on_end(before - alive)
            if alive == 0:
                return None
            if alive < fewest:
                return batch.select(batch.running.nonzero()[:, 0])
            if alive < 0.8 * len(batch.rows):  # copies the cache: wait until it pays
                # some that have ended stay, so that there are few shapes
                count = products.rounded(alive, 32 if alive >= products.LEAST else 1)
                first = batch.running.byte().argsort(descending=True, stable=True)[:count]
                batch, graph = batch.select(first), None
            length = batch.cache.length + 1
            if graph and batch.cache.room() > 0:
                graph.replay()
            else:
                graph = self.step_or_record(batch, len(self.uniform) - 1 - step)
            batch.cache.length = length  # a replay does not tell the host, a recording tells twice
