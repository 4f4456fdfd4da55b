"""Next-token training: pretraining and supervised fine-tuning are the same loop.

    python sft.py                                          # pretrain the laptop's base model into runs/base
    python sft.py --init runs/base/model --data FILE.jsonl # fine-tune on {"prompt", "response"} lines, loss on the response only

One text a row, never several packed without a mask between them; rows of like length share a micro-batch, so little is
padding. Deviations: (1) matrices are trained with Muon, everything else with AdamW (DeepSeek-V3: AdamW throughout); (2) pretraining,
too, learns only what people answer: the problems' numbers are dice, and learning to predict them cost the copying of the steps
two thirds of its accuracy at 4M tokens (results/log.md).
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

import parallel
import tokenizer as tokenizers
from data import World
from model import GPT, chunked_logprobs


@dataclass
class SFTConfig:
    tokens: int = 8_500_000  # pretraining budget, prompts and responses together
    epochs: int = 2  # fine-tuning: passes over the examples
    tokens_per_step: int = 8192
    micro_tokens: int = 2048  # per forward pass, padding included; small enough for a CPU's cache
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.03  # share of the run
    decay: float = 0.6  # share of the run over which the learning rate falls linearly
    final_lr: float = 0.05  # of its peak
    clip: float = 1.0
    mtp_weight: float = 0.3  # of the second-next-token loss, if the model has that head [V3 4.2]
    save_every: int = 100


Example = tuple[list[int], int]  # token ids, and how many of the first are not to be learnt


# ---------------------------------------------------------------------------------------------- optimiser


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised [K. Jordan 2024; arXiv 2502.16982]: every singular value of the update becomes about 1.

    Here and not torch.optim.Muon because that takes 2-D parameters only: an experts' stack [E, in, out] is E matrices.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = parallel.by_matrix(orthogonalise, p.grad.lerp(m, group["momentum"]))  # Nesterov
                scale = max(1, p.shape[-2] / p.shape[-1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration: g [..., m, n] = U S V^T -> about U V^T. bf16 on GPUs is enough, as the iteration corrects itself."""
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


def make_optimizers(model: GPT, cfg: SFTConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW (0.9, 0.95) for embedding, head, router, norms and biases."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inner = p.dim() >= 2 and not name.startswith(("embed_tokens", "lm_head")) and not name.endswith("gate.weight")
        (matrices if inner else rest).append(p)
    return [Muon(matrices, cfg.muon_lr, weight_decay=cfg.weight_decay),
            torch.optim.AdamW(rest, cfg.adam_lr, betas=(0.9, 0.95), weight_decay=cfg.weight_decay, fused=True)]


def learning_rate(progress: float, cfg: SFTConfig) -> float:
    """Factor on the peak learning rate: linear warm-up, flat, linear decay. progress runs from 0 to 1."""
    if progress < cfg.warmup:
        return progress / cfg.warmup
    return cfg.final_lr + (1 - cfg.final_lr) * min(1.0, (1 - progress) / cfg.decay)


# ---------------------------------------------------------------------------------------------- batches


def micro_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices of rows grouped by like length, so that rows x longest <= budget (at least one row)."""
    groups: list[list[int]] = [[]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > budget:
            groups.append([])
        groups[-1].append(i)
    return groups


def steps_of(examples: list[Example], cfg: SFTConfig, rng: random.Random) -> list[list[list[Example]]]:
    """Optimiser steps of about tokens_per_step tokens, each a list of micro-batches; in random order."""
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
    """tokens [B, T], positions [B, T] (-1 at padding), and target_mask [B, T-1]: which of tokens[:, 1:] are learnt."""
    T = max(len(ids) for ids, _ in rows)
    tokens = torch.tensor([ids + [pad_id] * (T - len(ids)) for ids, _ in rows], device=device)
    slots = torch.arange(T, device=device)
    lengths = torch.tensor([[len(ids)] for ids, _ in rows], device=device)
    prompts = torch.tensor([[n] for _, n in rows], device=device)
    positions = torch.where(slots < lengths, slots, -1)
    return tokens, positions, ((slots >= prompts) & (slots < lengths))[:, 1:]


def loss_sum(model: GPT, tokens: Tensor, positions: Tensor, mask: Tensor, mtp_weight: float) -> tuple[Tensor, float]:
    """Summed next-token loss [nats] of the masked targets (with the MTP loss, if any), and its plain part as a number."""
    hidden = model(tokens, positions=positions, return_hidden=True)  # [B, T, D]
    loss = -chunked_logprobs(hidden[:, :-1][mask], model.lm_head.weight, tokens[:, 1:][mask]).sum()
    plain = loss.item()
    if model.cfg.mtp and mtp_weight:
        second = model.mtp_hidden(tokens, hidden, positions)  # [B, T-1, D]: predicts tokens t+2
        targets, known = tokens[:, 2:], mask[:, 1:]
        loss = loss - mtp_weight * chunked_logprobs(second[:, :-1][known], model.lm_head.weight, targets[known]).sum()
    return loss, plain


def train_step(model: GPT, optimizers: list, batch: list[list[Example]], factor: float, cfg: SFTConfig) -> dict[str, float]:
    """One optimiser step over a list of micro-batches. The normaliser is the step's count of learnt tokens."""
    total = sum(len(ids) - max(prompt, 1) for rows in batch for ids, prompt in rows)
    plain = 0.0
    with parallel.gathered(model):
        for rows in batch[parallel.rank() :: parallel.size()]:  # under torchrun each process takes some of them
            tokens, positions, mask = collate(rows, model.cfg.pad_id, model.device)
            loss, part = loss_sum(model, tokens, positions, mask, cfg.mtp_weight)
            loss = loss / total + model.balance_loss() * (len(rows) / sum(map(len, batch)))
            loss.backward()
            plain += part
        parallel.sum_gradients(model, torch.zeros(1, 1, dtype=torch.long, device=model.device))
    (plain,) = parallel.total([plain])
    for optimizer, peak in zip(optimizers, (cfg.muon_lr, cfg.adam_lr)):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor
    norm, sound = parallel.step(model, optimizers, cfg.clip, plain)
    return {"loss": plain / total, "grad_norm": norm, "skipped_steps": int(not sound), "learning_rate": cfg.adam_lr * factor,
            "num_tokens": sum(len(ids) for rows in batch for ids, _ in rows)} | model.update_balance()


# ---------------------------------------------------------------------------------------------- the two uses
POOL = 4096  # texts that are sorted by length together


def pretrain(cfg, folder: str, resume: bool) -> str:
    """Train cfg's model from nothing on the world's texts until cfg.sft.tokens; returns the model's folder.

    cfg is a config.Config. A base that is already finished in `folder`, with the same settings, is returned as it is.
    KeyboardInterrupt after a clean stop.
    """
    settings = {k: v for k, v in asdict(cfg).items() if k in ("seed", "tokenizer", "model", "world", "sft")}
    if done := parallel.finished(folder, settings):
        return done
    with parallel.Run(folder, settings, resume, "sft") as run:
        world = World(cfg.seed, cfg.world)
        tokenizer = corpus_tokenizer(cfg)
        model = build(cfg, tokenizer)
        optimizers = make_optimizers(model, cfg.sft)
        seen, step, pool, skip = 0, 0, 0, 0
        count = max(POOL, cfg.sft.tokens_per_step // 2)  # enough for several steps
        if run.state:
            run.restore({"model": model}, optimizers)
            seen, step, pool, skip = (run.state[k] for k in ("seen", "step", "pool", "skip"))
        print(f"pretraining on {cfg.sft.tokens:,} tokens; {tokenizer.vocab_size} in the vocabulary; into {folder}", flush=True)
        with tqdm(total=cfg.sft.tokens, initial=seen, unit="tok", unit_scale=True, desc="base") as bar:
            while seen < cfg.sft.tokens:
                texts = (world.text(i) for i in range(pool * count, (pool + 1) * count))
                examples = [tokenizer.example(*t) for t in texts]
                for batch in steps_of(examples, cfg.sft, random.Random(f"{cfg.seed} {pool}"))[skip:]:
                    t0 = time.perf_counter()
                    metrics = train_step(model, optimizers, batch, learning_rate(seen / cfg.sft.tokens, cfg.sft), cfg.sft)
                    seen, step, skip = seen + metrics["num_tokens"], step + 1, skip + 1
                    run.log(step=step, seen=seen, step_time=time.perf_counter() - t0, **metrics)
                    bar.update(metrics["num_tokens"])
                    bar.set_postfix(loss=f"{metrics['loss']:.3f}")
                    run.after_step(step, cfg.sft.save_every, seen >= cfg.sft.tokens, {"model": model}, optimizers, seen=seen, step=step, pool=pool, skip=skip)
                    if seen >= cfg.sft.tokens:
                        break
                else:
                    pool, skip = pool + 1, 0
        return run.export(model, tokenizer)


def corpus_tokenizer(cfg) -> tokenizers.Tokenizer:
    """The tokenizer that cfg names: trained on the world's first texts, of all tasks alike so that rare ones find their words; or loaded."""
    if cfg.tokenizer != "corpus":
        return tokenizers.load(cfg.tokenizer)
    world = World(cfg.seed, replace(cfg.world, arithmetic=1.0, minor=1.0))
    return tokenizers.train((prompt + response for prompt, response in (world.text(i) for i in range(20_000))), cfg.model.vocab_size)


def build(cfg, tokenizer: tokenizers.Tokenizer) -> GPT:
    """A new model of cfg's shape for the tokenizer, initialised from cfg.seed."""
    torch.manual_seed(cfg.seed)
    shape = replace(cfg.model, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.eos_id,))
    model = GPT(shape)
    return parallel.shard(model, model.blocks(), cfg)


def fine_tune(model: GPT, examples: list[Example], cfg: SFTConfig, seed: int, run: parallel.Run) -> None:
    """cfg.epochs passes over the examples, in place; the loss is on what follows each example's prompt.

    Checkpoints go to `run`, and its checkpoint, if it has one, is where this goes on. KeyboardInterrupt after a clean stop.
    """
    optimizers = make_optimizers(model, cfg)
    steps = [batch for e in range(cfg.epochs) for batch in steps_of(examples, cfg, random.Random(f"{seed} {e}"))]
    run_steps(model, optimizers, steps, lambda batch, progress: train_step(model, optimizers, batch, learning_rate(progress, cfg), cfg),
              cfg.save_every, run, "fine-tuning")


def fine_tuned(cfg, base: str, rows: list[dict], where: str, out: str, resume: bool) -> str:
    """The same as a run in the folder `out`, of the model in `base` on rows {"prompt", "response"} from `where`; returns the folder of the result."""
    model, tokenizer = GPT.from_pretrained(base), tokenizers.load(base)
    examples = to_examples(rows, tokenizer, model.cfg.max_seq_len, where)
    settings = {"sft": asdict(cfg.sft), "seed": cfg.seed, "rows": parallel.fingerprint(rows), "base": model.fingerprint()}
    with parallel.Run(out, settings, resume, "sft") as run:
        model = parallel.shard(model, model.blocks(), cfg)
        fine_tune(model, examples, cfg.sft, cfg.seed, run)
        return run.export(model, tokenizer)


def run_steps(model: torch.nn.Module, optimizers: list, steps: list, one: Callable[[object, float], dict[str, float]], save_every: int,
              run: parallel.Run, name: str) -> None:
    """metrics = one(step, progress) for each of the steps, with log and checkpoints; goes on where the run's checkpoint ends."""
    done = 0
    if run.state:
        run.restore({"model": model}, optimizers)
        done = run.state["step"]
    with tqdm(total=len(steps), initial=done, unit="step", desc=name) as bar:
        for i in range(done, len(steps)):
            t0 = time.perf_counter()
            metrics = one(steps[i], (i + 0.5) / len(steps))  # at neither end, where the learning rate may be 0
            run.log(step=i + 1, step_time=time.perf_counter() - t0, **metrics)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            run.after_step(i + 1, save_every, i + 1 == len(steps), {"model": model}, optimizers, step=i + 1)


def read_rows(path: str) -> list[dict]:
    """Lines {"prompt", "response"} of a JSONL file. ValueError that names a line which is not one."""

    def parse(row: dict) -> dict:
        if not isinstance(row["prompt"], str) or not isinstance(row["response"], str):
            raise TypeError
        return row

    return parallel.read_lines(path, "an object with the texts 'prompt' and 'response'", parse)


def to_examples(rows: list[dict], tokenizer: tokenizers.Tokenizer, context: int, where: str) -> list[Example]:
    """Rows {"prompt", "response"} as training examples. ValueError that names a row which does not fit the context."""
    examples = [tokenizer.example(row["prompt"], row["response"]) for row in rows]
    for number, (ids, _) in enumerate(examples, 1):
        if len(ids) > context:
            raise ValueError(f"{where}, line {number}: {len(ids)} tokens, but the model's context is {context}: shorten it")
    return examples


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("--out", help="run folder (default runs/base, with --init runs/sft; with --config or --quick: runs/base-THAT)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--init", help="model folder to fine-tune, with --data")
    parser.add_argument("--data", help='JSONL file of {"prompt", "response"} to fine-tune on')
    cfg, args = config.parse(parser, quick={"sft.tokens": 1_500_000})
    with config.user_errors(), parallel.started(cfg):
        if bool(args.init) != bool(args.data):
            raise ValueError("fine-tuning needs both --init FOLDER and --data FILE.jsonl; pretraining neither")
        out = args.out or config.folder("sft" if args.init else "base", cfg, args)
        folder = fine_tuned(cfg, args.init, read_rows(args.data), args.data, out, args.resume) if args.init else pretrain(cfg, out, args.resume)
        print(f"model: {folder}\nmetrics: {os.path.join(out, 'metrics.jsonl')}\ntry it: python sample.py {folder}")


if __name__ == "__main__":
    main()
