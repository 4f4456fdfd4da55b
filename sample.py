"""The generation engine, and a small chat on top of it.

    python sample.py runs/zero/model "Tom has 3 apples, finds 4. How many now?"
    python sample.py runs/zero/model                 # chat: a question a line, Ctrl-D ends

Every prompt is read once for all of its responses that begin together; then all rows take one token at a time through the cache.
Prompts of different lengths share a batch without left padding (see model.Cache), finished rows leave it, and if not all rows run at
once, waiting ones take their places. Under torchrun each process answers its share of the prompts, and all get the whole rollout.
"""

import argparse
import codecs
import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

import parallel
import profiling
import tokenizer as tokenizers
from model import GPT, Cache
from profiling import phase


@dataclass
class Rollout:
    """B = prompts x num_generations rows; the rows of one prompt stand together. Beyond a row's length: pad tokens, 0."""

    tokens: Tensor  # [B, T] int64, prompt and response
    prompt_lengths: Tensor  # [B]
    lengths: Tensor  # [B] prompt and response together, the end token included
    logprobs: Tensor  # [B, T] float32: log p of each response token as it was drawn (0 at prompt and padding)
    finished: Tensor  # [B] bool: ended by an end token (or one of the caller's stops), not by max_new_tokens
    routes: Tensor | None = None  # [B, T, layers, K] int16: the experts each token was sent to, if they were recorded

    def responses(self) -> list[list[int]]:
        """Response token ids of each row, without the end token."""
        ends = self.lengths - self.finished.long()
        return [row[a:b] for row, a, b in zip(self.tokens.tolist(), self.prompt_lengths.tolist(), ends.tolist())]

    def select(self, rows: Tensor) -> "Rollout":
        """The given rows [n]."""
        return Rollout(*(None if x is None else x[rows] for x in vars(self).values()))

    def to(self, device) -> "Rollout":
        return Rollout(*(None if x is None else x.to(device) for x in vars(self).values()))


def sampling_logprobs(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Log-probabilities [B, V] of the distribution that is drawn from: temperature, then top-k, then top-p (nucleus)."""
    logp = (logits.float() / temperature).log_softmax(-1)
    if top_k:
        least = logp.topk(min(top_k, logp.shape[-1]), -1).values[:, -1:]
        logp = logp.masked_fill(logp < least, float("-inf"))
    if top_p < 1.0:
        ranked, order = logp.sort(-1, descending=True)
        p = ranked.softmax(-1)
        outside = p.cumsum(-1) - p >= top_p  # the token that crosses top_p still belongs
        logp = logp.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), float("-inf"))
    return logp.log_softmax(-1) if top_k or top_p < 1.0 else logp


def join(parts: list[Rollout], pad_id: int) -> Rollout:
    """Rollouts as one, their rows one after the other."""

    def rows(tensors: tuple[Tensor, ...], fill: float) -> Tensor:
        T = max(x.shape[1] for x in tensors)
        out = tensors[0].new_full((sum(map(len, tensors)), T, *tensors[0].shape[2:]), fill)
        for own, x in zip(out.split(list(map(len, tensors))), tensors):
            own[:, : x.shape[1]] = x
        return out

    tokens, prompt_lengths, lengths, logprobs, finished, routes = zip(*(vars(part).values() for part in parts))
    return Rollout(rows(tokens, pad_id), torch.cat(prompt_lengths), torch.cat(lengths), rows(logprobs, 0), torch.cat(finished),
                   None if routes[0] is None else rows(routes, 0))


def gather(mine: Rollout, pad_id: int) -> Rollout:
    """The whole rollout on every process, from their parts."""
    return join(parallel.gather([mine.to("cpu")]), pad_id).to(mine.tokens.device)


def draw(logp: Tensor, uniform: Tensor) -> Tensor:
    """One token a row [B] by inverting the cumulative distribution at uniform [B] in [0, 1): one random number a row, not V."""
    cumulative = logp.exp().cumsum(-1)
    token = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]
    return token.clamp(max=logp.shape[-1] - 1)


@torch.no_grad()
def generate(model: GPT, prompts: list[list[int]], *, num_generations: int = 1, max_new_tokens: int, temperature: float = 1.0,
             top_p: float = 1.0, top_k: int = 0, seed: int | None = None, stops: tuple[int, ...] = (),
             on_token: Callable[[int, int], None] | None = None, on_end: Callable[[int], None] | None = None, record_routes: bool = False,
             rows: int | None = None) -> Rollout:
    """Sample num_generations responses to each prompt (token ids); temperature 0 is greedy.

    Row i's random numbers do not depend on which other rows are still running, nor on which process answers them, so a seed fixes
    every response. rows: how many are answered at once (by each process); the others wait, and take the places of those that end
    (continuous batching). stops: token ids that end a row as the model's own end tokens do. on_token(row, token) is called for each token
    as it is drawn, on_end(count) when so many more rows have ended. ValueError for an empty prompt or one that leaves no room in the model's context; a
    response that fills the context ends there.
    """
    if not prompts or not all(prompts):
        raise ValueError("a prompt is empty: give at least one token")
    longest, context = max(map(len, prompts)), model.cfg.max_seq_len
    if longest >= context:
        raise ValueError(f"a prompt of {longest} tokens leaves no room in the model's context of {context}: shorten it")
    steps = min(max_new_tokens, context - min(map(len, prompts)))
    generator = torch.Generator(model.device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    own, total = parallel.part(len(prompts)), len(prompts) * num_generations
    # drawn for the rows of all processes, so that ours do not depend on how many there are
    uniform = torch.rand(steps, total, generator=generator, device=model.device)[:, own.start * num_generations : own.stop * num_generations]
    was_training = model.training
    model.eval()
    with parallel.gathered(model), phase("decode"):
        mine = answer(model, prompts[own], num_generations, temperature, top_p, top_k, uniform, stops, on_token, on_end, record_routes, rows)
    model.train(was_training)
    return gather(mine, model.cfg.pad_id) if parallel.size() > 1 else mine


def answer(model: GPT, prompts: list[list[int]], num_generations: int, temperature: float, top_p: float, top_k: int, uniform: Tensor, stops: tuple[int, ...],
           on_token: Callable[[int, int], None] | None, on_end: Callable[[int], None] | None, record_routes: bool, rows: int | None) -> Rollout:
    """The part of generate() that no other process takes part in: as many new tokens for every row, at most, as uniform [steps, B] has."""
    device, pad_id, context = model.device, model.cfg.pad_id, model.cfg.max_seq_len
    lengths = torch.tensor([len(p) for p in prompts], dtype=torch.long, device=device)  # [n]
    group = torch.arange(len(prompts), device=device).repeat_interleave(num_generations)  # [B]
    B, P = len(group), max(map(len, prompts), default=0)
    T = min(P + len(uniform), context)
    asked = torch.tensor([p + [pad_id] * (P - len(p)) for p in prompts], dtype=torch.long, device=device).view(len(prompts), P)  # [n, P] padded on the right
    out = Rollout(torch.full((B, T), pad_id, device=device), lengths[group], (lengths[group] + len(uniform)).clamp(max=context),
                  torch.zeros(B, T, device=device), torch.zeros(B, dtype=torch.bool, device=device))
    out.tokens[:, :P] = asked[group]
    if record_routes and (layers := sum(hasattr(b.mlp, "chosen") for b in model.layers)):
        out.routes = torch.zeros(B, T, layers, model.cfg.n_experts_per_token, dtype=torch.int16, device=device)

    def begin(rows: Tensor) -> Running:
        """Read each prompt of the rows [b] once."""
        ask, group_of = group[rows].unique(return_inverse=True)  # [n'], [b]
        slots = torch.arange(int(lengths[ask].max()), device=device)
        cache = Cache(block=16, most=T)
        with phase("prefill"):
            hidden = model(asked[ask, : len(slots)], cache, positions=torch.where(slots < lengths[ask, None], slots, -1), return_hidden=True)
            logits = model.lm_head(hidden[torch.arange(len(ask), device=device), lengths[ask] - 1])  # [n', V] at each prompt's last token
        if out.routes is not None:
            out.routes[rows, : len(slots)] = model.routes()[group_of]
        return Running(rows, torch.zeros_like(rows), logits[group_of], cache.select(group_of))

    def advance(running: Running, fewest: float = 0) -> Running | None:
        return decode(model, out, running, fewest, uniform, temperature, top_p, top_k, stops, on_token, on_end)

    def go_on(waiting: Tensor, most: int, fewest: int = 0) -> Running | None:
        """Answer the rows [b], `most` at once, until fewer than `fewest` are left."""
        running = None
        while len(waiting):
            free = most - len(running.rows) if running else most
            new, waiting = begin(waiting[:free]), waiting[free:]
            running = Running.join([running, new]) if running else new
            running = advance(running, 0.8 * most if len(waiting) else fewest)
        return running

    # A step is hundreds of short operations, over which many threads wait for each other: on CPUs two teams of threads with half of the
    # rows each are 1.2 times as fast, until few are left. What a layer remembers of its last call (routes, shards) and counters belong to one.
    threads, most = torch.get_num_threads(), min(B, rows or B)
    every = torch.arange(B, device=device)
    if device.type == "cpu" and threads > 1 and most >= 256 and not (on_token or record_routes or profiling.counting() or isinstance(model, FSDPModule)):
        @torch.no_grad()  # which holds for a thread
        def team(rows: Tensor) -> Running | None:
            torch.set_num_threads(threads // 2)  # of this thread
            return go_on(rows, most // 2, 64)

        with ThreadPoolExecutor(2) as both:
            left = [running for running in both.map(team, (every[::2], every[1::2])) if running]
        if left:
            advance(Running.join(left))
    elif B:
        go_on(every, most)
    T = int(out.lengths.max()) if B else 0
    return Rollout(out.tokens[:, :T], out.prompt_lengths, out.lengths, out.logprobs[:, :T], out.finished, None if out.routes is None else out.routes[:, :T])


@dataclass
class Running:
    """The rows of a rollout that have not ended, and what is known of their next tokens."""

    rows: Tensor  # [b]
    drawn: Tensor  # [b] how many tokens of the response there are
    logits: Tensor  # [b, V] of the next
    cache: Cache

    @classmethod
    def join(cls, parts: list["Running"]) -> "Running":
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "drawn", "logits")), Cache.join([p.cache for p in parts]))


ASK_EVERY = {"cpu": 1}  # tokens after which the loop asks how many rows are left, else 16: it waits for the device then, and nowhere else


@torch.no_grad()
def decode(model: GPT, out: Rollout, batch: Running, fewest: float, uniform: Tensor, temperature: float, top_p: float, top_k: int,
           stops: tuple[int, ...], on_token: Callable[[int, int], None] | None, on_end: Callable[[int], None] | None) -> Running | None:
    """Write responses into `out`, token by token, until fewer than `fewest` have not ended: those are returned. uniform [steps, B]."""
    ends_with = torch.tensor((*model.cfg.eos_ids, *stops), device=out.tokens.device, dtype=torch.long)
    rows, drawn, logits, cache = batch.rows, batch.drawn, batch.logits, batch.cache
    running = torch.ones(len(rows), dtype=torch.bool, device=rows.device)  # of the rows still in the batch
    every, alive = 1 if on_token else ASK_EVERY.get(out.tokens.device.type, 16), len(rows)
    for step in itertools.count():
        if temperature == 0:
            logp = logits.float().log_softmax(-1)
            token = logp.argmax(-1)
        else:
            logp = sampling_logprobs(logits, temperature, top_k, top_p)
            token = draw(logp, uniform[drawn, rows])
        position = (out.prompt_lengths[rows] + drawn).clamp(max=out.tokens.shape[1] - 1)  # [b]; those that have ended stay within the tensors
        for own, new in ((out.tokens, token), (out.logprobs, logp.gather(1, token[:, None])[:, 0])):
            own[rows, position] = torch.where(running, new, own[rows, position])
        if on_token:
            for r, i in zip(rows[running].tolist(), token[running].tolist()):
                on_token(r, i)
        ended, drawn = running & torch.isin(token, ends_with), (drawn + 1).clamp(max=len(uniform) - 1)
        out.finished[rows] |= ended
        out.lengths[rows] = torch.where(ended, position + 1, out.lengths[rows])
        running = running & ~ended & (position + 1 < out.lengths[rows])
        if step % every == 0:
            before, alive = alive, int(running.sum())
            if on_end and before > alive:
                on_end(before - alive)
        if alive == 0:
            return None
        if alive < max(0.8 * len(rows), fewest):  # leaving the batch copies the cache, so wait until it pays
            rows, drawn, token, position, cache = rows[running], drawn[running], token[running], position[running], cache.select(running.nonzero()[:, 0])
            running = running[running]
        logits = model(token[:, None], cache, positions=position[:, None])[:, 0]  # [b, V]
        if out.routes is not None:
            out.routes[rows, position] = model.routes()[:, 0]
        if alive < fewest:
            return Running(rows, drawn, logits, cache)


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("model", help="model folder, such as runs/zero/model")
    parser.add_argument("prompt", nargs="?", help="one question; without it, a chat")
    parser.add_argument("--temperature", type=float, default=0.6, help="0 is greedy (default 0.6, as the paper's evaluations)")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--top-k", type=int, default=0, help="0: all")
    parser.add_argument("--max-new-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--show-thinking", dest="thinking", action="store_true", default=True, help="print the thinking too (default)")
    shown.add_argument("--hide-thinking", dest="thinking", action="store_false", help="print only the answer")
    args = parser.parse_args()
    with config.user_errors():
        if args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0 or args.max_new_tokens < 1:
            raise ValueError("--temperature and --top-k must not be negative, --top-p is in (0, 1], --max-new-tokens at least 1")
        if args.prompt is not None and not args.prompt.strip():
            raise ValueError("the prompt is empty: ask something")
        device = parallel.device("auto")
        model, tokenizer = GPT.from_pretrained(args.model, torch.bfloat16 if device.type == "cuda" else torch.float32, device), tokenizers.load(args.model)
        if args.prompt is not None:
            respond(model, tokenizer, args.prompt, args)
        while args.prompt is None:
            try:
                prompt = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                break
            if prompt:
                try:
                    respond(model, tokenizer, prompt, args)
                except ValueError as e:  # a question too long ends itself, not the chat
                    print(e)


TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def respond(model: GPT, tokenizer: tokenizers.Tokenizer, prompt: str, args: argparse.Namespace) -> None:
    """Stream one response to stdout: the thinking dim (on a terminal) and set apart, if it is wanted; then the answer."""
    dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
    marks = dict(zip(TAGS, (dim + "thinking: ", plain + "\n", "answer: ", "")))
    utf8, text = codecs.getincrementaldecoder("utf-8")("replace"), ""  # a character, or a tag, may come in several tokens
    hidden = not args.thinking and tokenizer.template.rstrip().endswith("<think>")  # some templates open it themselves

    def write(said: str) -> None:
        if not hidden:
            print(said, end="", flush=True)

    def show(_: int, token: int) -> None:
        nonlocal text, hidden
        text += utf8.decode(tokenizer.decode_bytes(token)) if token not in tokenizer.hidden else ""
        while tag := min((t for t in TAGS if t in text), key=text.find, default=None):
            before, _, text = text.partition(tag)
            write(before)
            if not args.thinking and tag in TAGS[:2]:
                hidden = tag == "<think>"
            else:
                write(marks[tag])
        held = max((n for n in range(1, len(text) + 1) for t in TAGS if t.startswith(text[-n:])), default=0)
        write(text[: len(text) - held])
        text = text[len(text) - held :]

    rollout = generate(model, [tokenizer.prompt(prompt)], max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_p=args.top_p,
                       top_k=args.top_k, seed=args.seed, on_token=show)
    write(text)
    print(plain, "" if rollout.finished[0] else "[cut off at --max-new-tokens or the context]", sep="")


if __name__ == "__main__":
    main()
