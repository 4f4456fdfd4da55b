"""Sampling from a model, and a small chat on top of it.

    python sample.py runs/zero/model "Tom has 3 apples, finds 4. How many now?"
    python sample.py runs/zero/model                 # chat: a question a line, Ctrl-D ends
    python sample.py runs/zero/model --json < questions.txt

The loop is in `decode`: read each prompt once, copy its cache for all of its responses, then one
token at a time. For rollouts lib/engine.py does the same in less time. Under torchrun each process
answers its share of the prompts, and all get the whole rollout.
"""

import lib.start  # noqa: F401

import argparse
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import config
import tokenizer as tokenizers
from lib import distributed, engine, lora
from lib.cache import GrowingCache
from lib.chat import Chat
from lib.errors import UserError
from lib.profiling import phase
from lib.rows import Rows
from model import GPT


@dataclass(frozen=True)
class SamplingParams:
    """How responses are drawn."""

    max_new_tokens: int = 400
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    num_return_sequences: int = 1  # responses to each prompt
    stop_ids: tuple[int, ...] = ()  # tokens that end a response as the model's own end tokens do
    rows: int | None = None  # responses that each process generates at once; None: all
    record_routes: bool = False  # keep the experts that each token was sent to


@dataclass
class Rollout(Rows):
    """B = prompts x num_return_sequences rows, a prompt's side by side; padded with pad_id."""

    tokens: Tensor  # [B, T] int64, prompt and response
    prompt_lengths: Tensor  # [B]
    lengths: Tensor  # [B] prompt and response together, with the end token; at first: the limit
    logprobs: Tensor  # [B, T] float32: log p of each response token as it was drawn, else 0
    finished: Tensor  # [B] bool: ended by an end token, not by max_new_tokens or the context
    routes: Tensor | None = None  # [B, T, layers, K] int16: the experts of each token

    def responses(self) -> list[list[int]]:
        """Response token ids of each row, without the end token."""
        starts, ends = self.prompt_lengths.tolist(), (self.lengths - self.finished.long()).tolist()
        return [row[a:b] for row, a, b in zip(self.tokens.tolist(), starts, ends)]


def sampling_logprobs(logits: Tensor, params: SamplingParams) -> Tensor:
    """Log-probabilities [B, V] of what is drawn from: temperature, then top-k, then top-p."""
    logp = (logits.float() / params.temperature).log_softmax(-1)
    if params.top_k:
        least = logp.topk(min(params.top_k, logp.shape[-1]), -1).values[:, -1:]
        logp = logp.masked_fill(logp < least, float("-inf"))
    if params.top_p < 1.0:
        ranked, order = logp.sort(-1, descending=True)
        p = ranked.softmax(-1)
        outside = p.cumsum(-1) - p >= params.top_p  # the token that crosses top_p still belongs
        outside = torch.zeros_like(outside).scatter(1, order, outside)
        logp = logp.masked_fill(outside, float("-inf"))
    return logp.log_softmax(-1) if params.top_k or params.top_p < 1.0 else logp


def sample_tokens(logits: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row [B] and its log p [B], from logits [B, V] and random numbers [B] in [0, 1).
    Drawn by inverting the cumulative distribution: one random number a row, not V."""
    if params.temperature == 0:
        logp = logits.float().log_softmax(-1)
        token = logp.argmax(-1)
    else:
        logp = sampling_logprobs(logits, params)
        cumulative = logp.exp().cumsum(-1)
        level = (uniform * cumulative[:, -1])[:, None]  # the sum is 1 only up to rounding
        token = torch.searchsorted(cumulative, level, right=True)[:, 0]
        token = token.clamp(max=logp.shape[-1] - 1)
    return token, logp.gather(1, token[:, None])[:, 0]


def decode(model: GPT, prompts, out: Rollout, params: SamplingParams, uniform, on_token):
    """Write the responses to prompts into `out`, token by token; uniform [steps, B] in [0, 1)."""
    n, index = params.num_return_sequences, torch.arange(len(prompts), device=model.device)
    tokens, lengths = engine.padded(prompts, model.cfg.pad_id, model.device)  # [prompts, P]
    cache, positions = GrowingCache(), engine.positions_of(lengths, tokens.shape[1])
    # prefill: each prompt is read once, and its last token's logits give the first new token
    hidden = model(tokens, cache, positions, return_hidden=True)
    logits = model.lm_head(hidden[index, lengths - 1])  # [prompts, V]
    # the group's rows start from copies of their prompt's cache
    group = index.repeat_interleave(n)  # [B]
    cache, logits = cache.select(group), logits[group]
    running = torch.ones(len(group), dtype=torch.bool, device=model.device)
    ends_with = torch.tensor((*model.cfg.eos_ids, *params.stop_ids), device=model.device)
    for step in range(len(uniform)):
        token, logprob = sample_tokens(logits, params, uniform[step])
        position = out.prompt_lengths + step  # [B]
        rows = running.nonzero()[:, 0]
        out.tokens[rows, position[rows]] = token[rows]
        out.logprobs[rows, position[rows]] = logprob[rows]
        for row in rows.tolist():
            on_token(row, int(token[row]))
        ended = running & torch.isin(token, ends_with)
        out.finished |= ended
        out.lengths = torch.where(ended, position + 1, out.lengths)
        # out.lengths: of a row that goes on, the most that it may have (empty_rollout)
        running = running & ~ended & (position + 1 < out.lengths)
        if not running.any():
            return
        # rows that have ended are padding from now on
        here = torch.where(running, position, -1)
        logits = model(token[:, None], cache, here[:, None])[:, 0]  # [B, V]


@torch.no_grad()
def generate(model: GPT, prompts, params: SamplingParams, seed=None, on_token=None, on_end=None):
    """Sample params.num_return_sequences responses to each prompt (a list of token ids): a Rollout.

    Row i's random numbers depend neither on which other rows are running nor on the process, so a
    seed fixes every response. With on_token the plain loop runs, and calls on_token(row, token) for
    each; otherwise the engine, which calls on_end(count) when so many more rows have ended.
    UserError for an empty prompt or one that leaves no room in the model's context; a response that
    fills the context ends there.
    """
    if not prompts or not all(prompts):
        raise UserError("a prompt is empty: give at least one token")
    longest, context = max(map(len, prompts)), model.cfg.max_seq_len
    if longest >= context:
        msg = f"a prompt of {longest} tokens leaves no room in the model's context of {context}"
        raise UserError(f"{msg}: shorten it")
    engine.check_ids(prompts, model.cfg.vocab_size)
    steps = min(params.max_new_tokens, context - min(map(len, prompts)))
    generator, n = torch.Generator(model.device), params.num_return_sequences
    generator.seed() if seed is None else generator.manual_seed(seed)
    mine = distributed.local_slice(len(prompts))
    # drawn for the rows of all processes, so that ours do not depend on how many there are
    uniform = torch.rand(steps, len(prompts) * n, generator=generator, device=model.device)
    uniform, prompts = uniform[:, mine.start * n : mine.stop * n], prompts[mine]
    out = empty_rollout(model, prompts, params, steps)
    was_training = model.training
    model.eval()
    with distributed.gathered(model), lora.plain(model), phase("decode"):
        if on_token:
            decode(model, prompts, out, params, uniform, on_token)
        elif prompts:
            engine.Engine(model, prompts, out, params, uniform, sample_tokens, on_end).run()
    model.train(was_training)
    out = out.trimmed()
    if distributed.world_size() == 1:
        return out
    parts = distributed.gather([out.to("cpu")])
    return Rollout.concat(parts, model.cfg.pad_id).to(model.device)


def empty_rollout(model: GPT, prompts, params: SamplingParams, steps: int) -> Rollout:
    """The prompts, each params.num_return_sequences times, with room for `steps` new tokens."""
    cfg, device, n = model.cfg, model.device, params.num_return_sequences
    tokens, lengths = engine.padded(prompts, cfg.pad_id, device)
    tokens, lengths = tokens.repeat_interleave(n, 0), lengths.repeat_interleave(n)
    B, P = tokens.shape
    T = min(P + steps, cfg.max_seq_len)
    tokens = F.pad(tokens, (0, T - P), value=cfg.pad_id)  # [B, T]
    routes, layers = None, len(model.moe_layers())
    if params.record_routes and layers:
        shape = (B, T, layers, cfg.n_experts_per_token)
        routes = torch.zeros(shape, dtype=torch.int16, device=device)
    finished = torch.zeros(B, dtype=torch.bool, device=device)
    logprobs = torch.zeros(B, T, device=device)
    limits = (lengths + steps).clamp(max=cfg.max_seq_len)  # of a row's length, until it has ended
    return Rollout(tokens, lengths, limits, logprobs, finished, routes)


def asking(model: GPT, args: argparse.Namespace):
    """A function (ids, on_token) -> (response ids, whether it ended); on_token(id) sees each id."""
    params = SamplingParams(args.max_new_tokens, args.temperature, args.top_p, args.top_k)

    def respond(ids: list[int], on_token=None) -> tuple[list[int], bool]:
        show = on_token and (lambda row, token: on_token(token))
        rollout = generate(model, [ids], params, seed=args.seed, on_token=show)
        return rollout.responses()[0], bool(rollout.finished[0])

    return respond


@dataclass
class Config(config.Asking):
    seed: int | None = config.setting(None, high=1e9)  # none: another answer each time


def main() -> None:
    parser = config.Parser(__doc__)
    add, number = parser.add_argument, config.number
    add("model", help="model folder, such as runs/zero/model")
    add("prompt", nargs="?", help="one question; without it, a chat")
    help_text = "0: greedy (default 0.6, as the paper)"
    add("--temperature", type=number(float), default=0.6, help=help_text)
    add("--top-p", type=number(float, above=0, high=1), default=0.95)
    add("--top-k", type=number(int), default=0, help="0: all")
    add("--max-new-tokens", type=number(int, low=1), default=400)
    add("--hide-thinking", dest="thinking", action="store_false", help="print only the answer")
    help_text = "one object a line: question, reasoning_content, content, finished"
    add("--json", action="store_true", help=help_text)
    cfg, args = config.parse(parser, Config)
    with config.user_errors():
        if args.prompt is not None and not args.prompt.strip():
            raise UserError("the prompt is empty: ask something")
        device = distributed.device(cfg.device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = GPT.from_pretrained(args.model, dtype, device)
        tokenizer = tokenizers.load(args.model, **cfg.asked)
        args.seed = cfg.seed
        limits = model.cfg.max_seq_len, args.max_new_tokens
        chat = Chat(tokenizer, asking(model, args), *limits, args.thinking, args.json)
        if args.prompt is None:
            chat.run()
        else:
            chat.ask(args.prompt)


if __name__ == "__main__":
    main()
