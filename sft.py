"""Next-token training: pretraining and supervised fine-tuning are the same loop.

    python sft.py                                          # pretrain the base model in runs/base
    python sft.py --init runs/base/model --data FILE.jsonl # fine-tune on {"prompt", "response"}

One text a row, never several packed without a mask between them; rows of like length share a
micro-batch, so that little is padding.

Simplified: (1) matrices are trained with Muon (a momentum step made orthogonal, lib/optim.py),
everything else with AdamW (DeepSeek-V3: AdamW);
(2) pretraining, too, learns only what people answer: with the prompts sums were learnt worse, in
one run (results/log.md).
"""

import lib.start  # noqa: F401

import itertools
import os
import random
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

import config
import inputs
import tokenizer as tokenizers
from config import section, setting
from data import World, WorldConfig
from lib import distributed, lora
from lib import run as runs
from lib.ahead import ahead, workers_for
from lib.engine import check_ids, padded, positions_of
from lib.errors import UserError
from lib.lora import LoRAConfig
from lib.optim import Muon, adamw
from lib.products import LENGTHS, rounded
from lib.progress import Progress
from lib.trainer import Trainer, chunked_logprobs, micro_batches
from model import GPT, ModelConfig


@dataclass
class SFTConfig:
    tokens: int = setting(8_000_000, low=1)  # of pretraining, prompts and responses together
    epochs: int = setting(2, low=1)  # of fine-tuning: passes over the examples
    tokens_per_step: int = setting(4096, low=1)
    micro_tokens: int = setting(2048, low=1)  # of a forward pass, padding included
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    warmup: float = 0.03  # share of the run
    decay: float = setting(0.6, low=0.001)  # share of the run over which the learning rate falls
    final_lr: float = 0.05  # of its peak
    clip: float = 1.0  # norm of the gradient, at most
    save_every: int = setting(100, low=1)


Example = tuple[list[int], int]  # token ids, and how many of the first are not learned
POOL = 4096  # so many texts, or more, are sorted by length together


def make_trainer(model: GPT, cfg: SFTConfig) -> Trainer:
    """Muon for the layers' matrices, AdamW for the rest; with LoRA AdamW for the adapters alone."""
    if adapters := lora.parameters(model):
        return Trainer(model, [adamw(adapters, cfg.adam_lr)], cfg.clip)
    matrices, pairs, rest = [], [], []
    for name, p in model.named_parameters():
        outer = name.startswith(("embed_tokens", "lm_head")) or name.endswith("gate.weight")
        if outer or p.dim() < 2:
            rest.append(p)
        elif name.endswith("gate_up"):  # two matrices side by side, orthogonalised each by itself
            pairs.append(p)
        else:
            matrices.append(p)
    groups = [{"params": matrices}, {"params": pairs, "halves": 2}]
    muon = Muon([g for g in groups if g["params"]], cfg.muon_lr)
    return Trainer(model, [muon, adamw(rest, cfg.adam_lr)], cfg.clip)


def learning_rate(progress: float, cfg: SFTConfig) -> float:
    """Factor on the peak rates: linear warm-up, flat, linear decay. progress runs from 0 to 1."""
    if progress < cfg.warmup:
        return progress / cfg.warmup
    return cfg.final_lr + (1 - cfg.final_lr) * min(1.0, (1 - progress) / cfg.decay)


def steps_of(examples: list[Example], cfg: SFTConfig, rng: random.Random) -> list:
    """Optimiser steps of about tokens_per_step tokens, each a list of micro-batches of examples; in
    random order."""
    groups = micro_batches([len(ids) for ids, _ in examples], cfg.micro_tokens)
    rng.shuffle(groups)
    steps, tokens = [[]], 0
    for group in groups:
        steps[-1].append([examples[i] for i in group])
        tokens += sum(len(examples[i][0]) for i in group)
        if tokens >= cfg.tokens_per_step:
            steps.append([])
            tokens = 0
    return [s for s in steps if s]


def collate(rows: list[Example], pad_id: int, device) -> tuple[Tensor, Tensor, Tensor]:
    """tokens [B, T], positions [B, T] (-1 at padding), and target_mask [B, T-1]: which of
    tokens[:, 1:] are learned."""
    tokens, lengths = padded([ids for ids, _ in rows], pad_id, device, LENGTHS)  # T: a multiple
    positions = positions_of(lengths, tokens.shape[1])
    prompts = torch.tensor([[n] for _, n in rows], device=device)
    return tokens, positions, (positions >= prompts)[:, 1:]


def loss_sum(model: GPT, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Summed next-token loss [nats] of the masked targets."""
    hidden = model(tokens, positions=positions, return_hidden=True)[:, :-1]  # [B, T-1, D]
    return -chunked_logprobs(hidden[mask], model.lm_head.weight, tokens[:, 1:][mask]).sum()


def train_step(trainer: Trainer, batch: list[list[Example]], factor: float, cfg: SFTConfig) -> dict:
    """One optimiser step over a list of micro-batches; returns its metrics. The loss is divided by
    the step's count of learned tokens, over all processes."""
    model, rows = trainer.model, [row for micro in batch for row in micro]
    # the first token is never predicted
    learned = max(1, sum(len(ids) - max(prompt, 1) for ids, prompt in rows))

    def learn(step, micro: list[Example]) -> None:
        loss = loss_sum(step.model, *collate(micro, model.cfg.pad_id, model.device))
        weight = len(micro) / len(rows)  # the balance loss is a mean over rows
        step.backward(loss / learned, balance_weight=weight, value=loss.item())

    mine = batch[distributed.rank() :: distributed.world_size()]  # some for each process
    with trainer.optimizer_step(factor) as step:  # which steps when the block ends
        step.share(learn, mine)  # learn(step, m) for each m of mine; the gradients add up
    out = step.metrics() | {"loss": step.loss / learned, "learning_rate": cfg.adam_lr * factor}
    return out | step.balance | {"num_tokens": sum(len(ids) for ids, _ in rows)}


def pretrain(cfg, folder: str, resume: bool) -> str:
    """Train cfg's model from nothing on the world's texts until cfg.sft.tokens; returns its folder.
    A base that is finished in `folder`, with the same settings, is left as it is. KeyboardInterrupt
    after a clean stop."""
    named = ("seed", "tokenizer", "model", "world", "sft")
    settings = {k: v for k, v in asdict(cfg).items() if k in named}
    if done := runs.finished(folder, settings, "sft"):
        return done
    runs.check_folder(folder, resume, "sft")
    tokenizer, total = corpus_tokenizer(cfg), cfg.sft.tokens
    with runs.Run(folder, settings, resume, "sft") as run:
        model = build(cfg, tokenizer, run.shape.get("vocab_size"))
        trainer, models = make_trainer(model, cfg.sft), {"model": model}
        if run.state:
            run.restore(models, trainer.optimizers)
        seen, step, pool, skip = (run.state.get(k, 0) for k in ("seen", "step", "pool", "skip"))
        about = f"{total:,} tokens; {tokenizer.vocab_size} in the vocabulary; into {folder}"
        print(f"pretraining on {about}", flush=True)
        batches, every = corpus_batches(cfg, tokenizer, pool, skip), cfg.sft.save_every
        # closed at once when it stops: processes may be at work on the next texts
        with Progress(total, "base", "tok", seen) as bar, closing(batches):
            while seen < total:
                pool, skip, batch = next(batches)
                metrics = train_step(trainer, batch, learning_rate(seen / total, cfg.sft), cfg.sft)
                seen, step = seen + metrics["num_tokens"], step + 1
                run.log(step=step, seen=seen, **metrics)
                bar.advance(metrics["num_tokens"], loss=metrics["loss"])
                state, last = dict(seen=seen, step=step, pool=pool, skip=skip), seen >= total
                run.after_step(step, every, last, models, trainer.optimizers, **state)
        return run.export(model, tokenizer)


def corpus_batches(cfg, tokenizer, pool: int, skip: int):
    """The corpus as optimiser steps without end: (pool, steps of it so far, batch). A pool is the
    texts that are sorted by length together; `skip` steps of the first one are left out."""
    size = max(POOL, cfg.sft.tokens_per_step // 2)
    mine = distributed.local_slice(size)  # under torchrun each process makes a part of the texts
    make = partial(pool_of_texts, World(cfg.seed, cfg.world), tokenizer, size, mine)
    workers = workers_for(distributed.device(cfg.device).type)
    for number, part in enumerate(ahead(make, itertools.count(pool), workers), pool):
        examples = distributed.gather(part)
        batches = steps_of(examples, cfg.sft, random.Random(f"{cfg.seed} {number}"))
        for step in range(skip, len(batches)):
            yield number, step + 1, batches[step]
        skip = 0


def pool_of_texts(world: World, tokenizer, size: int, part: slice, pool: int) -> list[Example]:
    """A part of the pool's texts as examples."""
    texts = map(world.text, range(pool * size, (pool + 1) * size)[part])
    return [tokenizer.example(prompt, response) for prompt, response in texts]


def corpus_tokenizer(cfg) -> tokenizers.Tokenizer:
    """The tokenizer that cfg names: loaded, or trained on the world's first texts, of all tasks
    alike, so that the words of rare ones become tokens too."""
    if cfg.tokenizer != "corpus":
        return tokenizers.load(cfg.tokenizer)
    world = World(cfg.seed, replace(cfg.world, arithmetic=1.0, logic=1.0, minor=1.0))
    texts = (prompt + response for prompt, response in map(world.text, range(20_000)))
    return tokenizers.train(texts, cfg.model.vocab_size)


def build(cfg, tokenizer: tokenizers.Tokenizer, vocab_size: int | None = None) -> GPT:
    """A new model of cfg's shape, initialised from cfg.seed. Its vocabulary has room for all of the
    tokenizer's tokens; ids beyond them stand for no text, and training makes them unlikely."""
    torch.manual_seed(cfg.seed)
    ids = {"pad_id": tokenizer.pad_id, "eos_ids": (tokenizer.eos_id,)}
    size = rounded(max(cfg.model.vocab_size, tokenizer.vocab_size), 64)
    model = GPT(replace(cfg.model, vocab_size=vocab_size or size, **ids))  # resumed: the old size
    return distributed.shard(model, model.layers, cfg)


def fine_tune(model: GPT, examples: list[Example], cfg: SFTConfig, seed: int, run) -> None:
    """cfg.epochs passes over the examples, in place; the loss is on what follows their prompts.
    `run` (a lib.run.Run) says where to begin. KeyboardInterrupt after a clean stop."""
    trainer, models, steps = make_trainer(model, cfg), {"model": model}, []
    for epoch in range(cfg.epochs):
        steps += steps_of(examples, cfg, random.Random(f"{seed} {epoch}"))
    for i, batch in run.steps(steps, models, trainer.optimizers, cfg.save_every, "fine-tuning"):
        progress = (i + 0.5) / len(steps)  # at neither end, where the learning rate may be 0
        run.log(step=i + 1, **train_step(trainer, batch, learning_rate(progress, cfg), cfg))


def fine_tuned(cfg, base: str, rows: list[dict], where: str, out: str, resume: bool) -> str:
    """The same as a run in the folder `out`, of the model in `base` on rows {"prompt", "response"}
    from `where`; returns the folder of the result."""
    model, tokenizer = GPT.from_pretrained(base), tokenizers.load(base, **cfg.asked)
    examples = to_examples(rows, tokenizer, model.cfg.max_seq_len, where)
    check_ids((ids for ids, _ in examples), model.cfg.vocab_size)
    settings = {"sft": asdict(cfg.sft), "lora": asdict(cfg.lora), "seed": cfg.seed} | cfg.asked
    settings |= {"rows": runs.fingerprint(rows), "base": model.fingerprint()}
    if resume and (done := runs.finished(out, settings, "sft")):
        print(f"'{out}' is finished: its model is {done}")
        return done
    with runs.Run(out, settings, resume, "sft") as run:
        model = lora.prepared(model, cfg)
        fine_tune(model, examples, cfg.sft, cfg.seed, run)
        return run.export(model, tokenizer)


def to_examples(rows: list[dict], tokenizer, context: int, where: str) -> list[Example]:
    """Rows as training examples. UserError that names a row which does not fit the context."""
    examples = [tokenizer.example(row["prompt"], row["response"]) for row in rows]
    for number, (ids, _) in enumerate(examples, 1):
        if len(ids) > context:
            msg = f"{len(ids)} tokens, but the model's context is {context}"
            raise UserError(f"{where}, example {number}: {msg}: shorten it")
    return examples


@dataclass
class Config(config.Config):
    model: ModelConfig = section(ModelConfig)
    world: WorldConfig = section(WorldConfig)
    sft: SFTConfig = section(SFTConfig)
    lora: LoRAConfig = section(LoRAConfig)

    def __post_init__(self):
        if self.tokenizer == "corpus" and self.model.vocab_size < tokenizers.LEAST:
            least = f"a trained tokenizer needs {tokenizers.LEAST}"
            raise UserError(f"--model.vocab_size is {self.model.vocab_size}; {least}")


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("--out", help="run folder (default runs/base, with --init runs/sft)")
    add("--resume", action="store_true", help="continue the run in --out")
    add("--init", help="model folder to fine-tune, with --data")
    add("--data", help='JSONL file of {"prompt", "response"} to fine-tune on')
    cfg, args = config.parse(parser, Config, quick={"sft.tokens": 1_500_000})
    out = args.out or config.run_folder("sft" if args.init else "base", cfg, args)
    with config.user_errors(), distributed.started(cfg), runs.resumable(out):
        if bool(args.init) != bool(args.data):
            raise UserError("fine-tuning needs both --init FOLDER and --data FILE.jsonl")
        rows = inputs.read_rows(args.data) if args.data else []
        cfg = inputs.suited(cfg, args.init, args)
        inputs.check_base(cfg, args)
        inputs.check_out(out, args.resume)
        if args.init:
            folder = fine_tuned(cfg, args.init, rows, args.data, out, args.resume)
        else:
            inputs.check_tokenizer(cfg)
            inputs.begin(out, args.resume)
            folder = pretrain(cfg, out, args.resume)
        print(f"model: {folder}\nmetrics: {os.path.join(out, 'metrics.jsonl')}")
        print(f"try it: python sample.py {config.quoted(folder)}")


if __name__ == "__main__":
    main()
