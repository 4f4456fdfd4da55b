"""Reward models for what no rule can check: is a reply helpful, is a response safe?

    python preference.py runs/zero/base/model              # train both on the world's judgements, report held-out accuracy

Both are our own network with one number in place of the vocabulary, read at the last token. "helpful" is pairwise
[Bradley-Terry; DeepSeek-R1, 2501.12948, section 2.3.4]: which of two replies do people prefer? It reads the final answer only,
and in half of its pairs the better reply is the shorter, so that length earns nothing. "safe" is pointwise: it reads the whole
response, thinking included.
"""

import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import parallel
import rewards as rw
import sft
import tokenizer as tokenizers
from data import Problem, World
from model import GPT

KINDS = ("helpful", "safe")


@dataclass
class PreferenceConfig:
    examples: int = 10_000  # pairs, or responses with a label
    epochs: int = 2
    per_step: int = 32
    lr: float = 5e-4
    held_out: int = 256


class RewardModel(nn.Module):
    """GPT with a scalar head: rows of token ids -> score [B] at each row's last token, or at several tokens of each."""

    def __init__(self, gpt: GPT):
        super().__init__()
        self.gpt, self.head = gpt, nn.Linear(gpt.cfg.dim, 1, device=gpt.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: list[list[int]], ends: list[list[int]] | None = None) -> Tensor:
        """ends: after how many tokens each row is scored; then the scores of all rows come in one line."""
        tokens, positions, _ = sft.collate([(ids, 0) for ids in rows], self.gpt.cfg.pad_id, self.gpt.device)
        hidden = self.gpt(tokens, positions=positions, return_hidden=True)  # [B, T, D]
        read = [(row, end - 1) for row, many in enumerate(ends or [[len(ids)] for ids in rows]) for end in many]
        row, slot = torch.tensor(read, device=hidden.device).T
        return self.head(hidden[row, slot])[:, 0]

    @torch.no_grad()
    def score(self, rows: list[list[int]], ends: list[list[int]] | None = None, per_call: int = 256) -> Tensor:
        """What forward gives for many rows, a part at a time."""
        return torch.cat([self(rows[i : i + per_call], ends and ends[i : i + per_call]) for i in range(0, len(rows), per_call)])

    def save_pretrained(self, folder: str) -> None:
        """The model's folder, with the head in a file of its own beside it."""
        os.makedirs(folder, exist_ok=True)
        head = parallel.collect(self.head.state_dict())
        if parallel.first():
            with parallel.beside(os.path.join(folder, "score.safetensors")) as aside:
                save_file({k: v.contiguous().cpu() for k, v in head.items()}, aside)
        self.gpt.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str, device, dtype: torch.dtype = torch.float32) -> "RewardModel":
        model = cls(GPT.from_pretrained(folder, device=device, dtype=dtype)).to(dtype)
        path = os.path.join(folder, "score.safetensors")
        try:
            model.head.load_state_dict(load_file(path, device=str(device)))
        except (OSError, RuntimeError, SafetensorError) as e:
            raise ValueError(f"{path} is missing or damaged ({type(e).__name__}): train the reward model again") from None
        return model


# ---------------------------------------------------------------------------------------------- training


def loss_of(scores: Tensor, labels: list[bool] | None) -> Tensor:
    """Mean loss. Pairs (labels None): scores [2 n], the n better ones first; -log sigmoid(better - worse). Else -log p(label).

    >>> loss_of(torch.tensor([1.0, 1.0]), None).item() == loss_of(torch.tensor([0.0]), [True]).item()   # log 2: undecided
    True
    """
    if labels is None:
        better, worse = scores.chunk(2)
        return -F.logsigmoid(better - worse).mean()
    return F.binary_cross_entropy_with_logits(scores, torch.tensor(labels, dtype=scores.dtype, device=scores.device))


def examples_of(kind: str, world: World, tokenizer: tokenizers.Tokenizer, count: int, split: str) -> tuple[list[list[list[int]]], list[bool] | None]:
    """(token ids, a list of one or two texts for each example; labels)."""
    if kind == "helpful":
        pairs = [world.preference(i, split) for i in range(count)]
        return [[tokenizer.example(p.prompt, text)[0] for text in (better, worse)] for p, better, worse in pairs], None
    rows = [world.safety(i, split) for i in range(count)]
    return [[tokenizer.example(p.prompt, text)[0]] for p, text, _ in rows], [safe for _, _, safe in rows]


def batch(texts: list[list[list[int]]], labels: list[bool] | None, indices: list[int]) -> tuple[list[list[int]], list[bool] | None]:
    """Some of the examples, as loss_of wants them: all first texts, then all second ones."""
    rows = [texts[i][j] for j in range(len(texts[0])) for i in indices]
    return rows, None if labels is None else [labels[i] for i in indices]


def accuracy(model: RewardModel, kind: str, world: World, tokenizer: tokenizers.Tokenizer, count: int) -> float:
    """Share of held-out pairs put in the right order, or of held-out responses labelled rightly."""
    texts, labels = examples_of(kind, world, tokenizer, count, "test")
    rows, labels = batch(texts, labels, list(range(count)))
    with parallel.gathered(model):
        scores = model.score(rows).float()
    if labels is None:
        better, worse = scores.chunk(2)
        return (better > worse).float().mean().item()
    return ((scores > 0).cpu() == torch.tensor(labels)).float().mean().item()


def train(cfg, base: str, out: str, kind: str, resume: bool) -> str:
    """Train the reward model `kind` from the model in folder `base`; returns its folder. A finished one is returned as it is."""
    gpt = GPT.from_pretrained(base)
    settings = {"preference": asdict(cfg.preference), "world": asdict(cfg.world), "seed": cfg.seed, "base": gpt.fingerprint()}
    if done := parallel.finished(out, settings):
        return done
    torch.manual_seed(cfg.seed)
    model, tokenizer, world, own = RewardModel(gpt), tokenizers.load(base), World(cfg.seed, cfg.world), cfg.preference
    texts, labels = examples_of(kind, world, tokenizer, own.examples, "train")

    def loss(indices: list[int]) -> Tensor:
        rows, wanted = batch(texts, labels, indices)
        return loss_of(model(rows).float(), wanted)

    with parallel.Run(out, settings, resume, kind) as run:
        fit(cfg, model, own.examples, loss, run, f"reward model: {kind}")
        share = accuracy(model, kind, world, tokenizer, own.held_out)
        parallel.write_json(os.path.join(out, "accuracy.json"), {"held_out": own.held_out, "accuracy": share})
        print(f"reward model '{kind}': {100 * share:.1f}% of {own.held_out} held-out {'pairs' if labels is None else 'responses'} right")
        return run.export(model, tokenizer)


def fit(cfg, model: RewardModel, count: int, loss: Callable[[list[int]], Tensor], run: parallel.Run, name: str) -> None:
    """cfg.preference.epochs passes over `count` examples, in place; loss(indices) is the model's mean loss over some of them.

    Checkpoints go to `run`, and its checkpoint, if it has one, is where this goes on. KeyboardInterrupt after a clean stop.
    """
    own = cfg.preference
    orders = [random.Random(f"{cfg.seed} {e}").sample(range(count), count) for e in range(own.epochs)]
    steps = [order[i : i + own.per_step] for order in orders for i in range(0, count, own.per_step)]
    parallel.shard(model, model.gpt.blocks(), cfg)
    optimizer = torch.optim.AdamW(model.parameters(), own.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def one(indices: list[int], progress: float) -> dict[str, float]:
        mine, value = indices[parallel.part(len(indices))], 0.0
        with parallel.gathered(model):
            if mine:
                part = loss(mine) * (len(mine) / len(indices))
                part.backward()
                value = part.item()
            parallel.sum_gradients(model, [[0]])
        (value,) = parallel.total([value])
        for group in optimizer.param_groups:
            group["lr"] = own.lr * (1 - progress)
        norm, sound = parallel.step(model, [optimizer], 1.0, value)
        model.gpt.update_balance()
        return {"loss": value, "grad_norm": norm, "skipped_steps": int(not sound)}

    sft.run_steps(model, [optimizer], steps, one, cfg.sft.save_every, run, name)


class Judge:
    """Both reward models as rewards for general requests: {"helpful", "safe"}, each between 0 and 1; {} for other tasks."""

    def __init__(self, folders: dict[str, str], device, dtype: torch.dtype = torch.float32):
        self.models = {kind: RewardModel.from_pretrained(folder, device, dtype) for kind, folder in folders.items()}
        self.tokenizer = tokenizers.load(next(iter(folders.values())))

    def __call__(self, problems: list[Problem], responses: list[str]) -> list[dict[str, float]]:
        general = [i for i, p in enumerate(problems) if p.task == "general"]
        out: list[dict[str, float]] = [{} for _ in problems]
        for kind, model in self.models.items() if general else ():
            read = rw.reply if kind == "helpful" else str
            rows = [self.tokenizer.example(problems[i].prompt, read(responses[i]))[0][: model.gpt.cfg.max_seq_len] for i in general]
            for i, s in zip(general, model.score(rows).sigmoid().tolist()):
                out[i][kind] = s
        return out


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("base", help="model folder to start from; it is not changed")
    parser.add_argument("--out", help="where the two run folders go (default runs/preference; with --config: runs/preference-THAT)")
    parser.add_argument("--resume", action="store_true", help="go on with the runs in --out")
    cfg, args = config.parse(parser)
    out = args.out or config.folder("preference", cfg, args)
    with config.user_errors(), parallel.started(cfg):
        for kind in KINDS:
            print(f"model: {train(cfg, args.base, os.path.join(out, kind), kind, args.resume)}")


if __name__ == "__main__":
    main()
