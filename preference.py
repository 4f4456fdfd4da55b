"""Reward models for what no rule can check: is a reply helpful, is a response safe?

    python preference.py runs/zero/base/model       # train both on the world's judgements

Both are our network with one number in place of the vocabulary, read at the last token. "helpful":
which of two replies do people prefer? [DeepSeek-R1, 2501.12948v1, section 2.3.4; the loss is that
of Bradley and Terry] It reads the final answer only. Most of its pairs are replies of the model
that is to be trained, as the paper's are of models: it says wrong things that nobody would make up.
In half of the others the better reply is the shorter, so that length earns nothing. "safe" judges
single responses and reads all of them, thinking included.

Only differences of "helpful" scores of one prompt mean anything: pairs do not fix a zero. Where one
number is needed the sigmoid squashes it, and above 1/2 means no more than above the head's start.

What is simpler than in the paper: (1) the judgements are made by rule, by tasks/general.py; (2)
both rewards are added for every general request, where R1 v2 gives each request one of them.
"""

import lib.start  # noqa: F401

import os
import random
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import config
import inputs
import rewards as rw
import tokenizer as tokenizers
from data import Problem, World, WorldConfig
from eval import EvalConfig
from lib import distributed, files
from lib.optim import adamw
from lib.run import Run, check_folder, finished, lock_settings, resumable
from lib.trainer import Trainer
from model import GPT
from rejection import sampled
from reward_model import RewardModel
from sft import SFTConfig
from tasks import general

KINDS = ("helpful", "safe")
FIRST, REPLIES = 800_000, 4  # of the requests that the model itself answers; to each
PAIR = ("prompt", "better", "worse")


@dataclass
class PreferenceConfig:
    examples: int = config.setting(20_000, low=8)  # pairs; a quarter as many labelled responses
    own: float = config.setting(0.9, low=0, high=1)  # requests to the model itself, over examples
    epochs: int = config.setting(4, low=1)
    per_step: int = config.setting(32, low=1)
    lr: float = 5e-4
    held_out: int = config.setting(256, low=2)  # examples that the accuracy is measured on


@dataclass
class Config(config.Config):
    world: WorldConfig = config.section(WorldConfig)
    sft: SFTConfig = config.section(SFTConfig)
    eval: EvalConfig = config.section(EvalConfig)
    preference: PreferenceConfig = config.section(PreferenceConfig)


def loss_of(scores: Tensor, labels: list[bool] | None) -> Tensor:
    """Mean loss. Pairs (labels None): -log sigmoid(better - worse), where scores [2 n] are those of
    the n better texts, then of the n worse ones. Else -log p(label), scores [n].

    >>> loss_of(torch.ones(2), None).item() == loss_of(torch.zeros(1), [True]).item()  # log 2
    True
    """
    if labels is None:
        better, worse = scores.chunk(2)
        return -F.logsigmoid(better - worse).mean()
    targets = torch.tensor(labels, dtype=scores.dtype, device=scores.device)
    return F.binary_cross_entropy_with_logits(scores, targets)


def drawn(cfg) -> int:
    """How many responses own_pairs() draws for a reward model."""
    p = cfg.preference
    return REPLIES * (round(p.own * p.examples) + p.held_out) if p.own else 0


def own_pairs(cfg, base: str, world: World, path: str, split: str, count: int) -> list[dict]:
    """Pairs of replies by the model in folder `base`, {"prompt", "better", "worse"}: for each of
    `count` requests two of its replies, if one serves better by the world's rule. They are saved in
    the JSONL file `path`; if it exists, they are read from there."""
    if os.path.exists(path):
        return files.read_lines(path, "a pair", lambda row: {key: row[key] for key in PAIR})
    problems = world.problems("general", count, split, FIRST)
    samples, journal = sampled(base, problems, REPLIES, cfg, path, cfg.seed)
    replies = [(s["helpfulness"], rw.reply(s["response"])) for s in samples]
    rows, rng = [], random.Random(cfg.seed)
    for i, problem in enumerate(problems):
        group = replies[i * REPLIES : (i + 1) * REPLIES]
        if pairs := [(a, b) for x, a in group for y, b in group if x > y]:
            rows.append(dict(zip(PAIR, (problem.prompt, *rng.choice(pairs)))))
    print(f"{len(rows)} pairs of its own replies to {count} requests ({split})", flush=True)
    if rows:
        files.write_lines(path, rows)
    journal.remove()
    return rows


def examples_of(kind: str, world: World, tokenizer, count: int, split: str, own=()):
    """Judgements: ([better texts, worse texts], None) or ([responses], labels). own: own_pairs(),
    which take the place of as many of the world's."""

    def read(rows: list[tuple], place: int) -> list[list[int]]:
        return [tokenizer.example(row[0], row[place])[0] for row in rows]

    if kind == "helpful":
        rows = [tuple(row.values()) for row in own]
        for i in range(count - len(own)):
            problem, *texts = general.preference(world, i, split)
            rows.append((problem.prompt, *texts))
        return [read(rows, 1), read(rows, 2)], None
    judged = [general.safety(world, i, split) for i in range(count)]
    rows = [(problem.prompt, text) for problem, text, _ in judged]
    return [read(rows, 1)], [safe for _, _, safe in judged]


def accuracy(model: RewardModel, texts: list[list], labels: list[bool] | None) -> float:
    """Share of examples_of() a kind in the right order, or with the right label."""
    with distributed.gathered(model):
        scores = model.score([ids for column in texts for ids in column]).float().cpu()
    if labels is None:
        better, worse = scores.chunk(2)
        return (better > worse).float().mean().item()
    return ((scores > 0) == torch.tensor(labels)).float().mean().item()


def train(cfg, base: str, out: str, kind: str, resume: bool) -> str:
    """Train the reward model `kind` from the model in folder `base`; returns its folder. One that
    is finished, with the same settings, is left as it is."""
    gpt, p = GPT.from_pretrained(base), cfg.preference
    settings = {"preference": asdict(p), "world": asdict(cfg.world)}
    settings |= {"seed": cfg.seed, "base": gpt.fingerprint()}
    if done := finished(out, settings, kind):
        return done
    torch.manual_seed(cfg.seed)
    tokenizer = tokenizers.load(base, **cfg.asked)
    model, world, own = RewardModel(gpt), World(cfg.seed, cfg.world), {"train": [], "dev": []}
    if kind == "helpful" and p.own:
        check_folder(out, resume, kind)  # before they are drawn
        lock_settings(out, settings | {"eval": asdict(cfg.eval)} | cfg.asked)
        for split, count in (("train", round(p.own * p.examples)), ("dev", p.held_out)):
            path = os.path.join(out, f"pairs-{split}.jsonl")
            own[split] = own_pairs(cfg, base, world, path, split, count)
    count = p.examples if kind == "helpful" else p.examples // 4
    texts, labels = examples_of(kind, world, tokenizer, count, "train", own["train"])

    def loss(indices: list[int]) -> Tensor:
        rows = [column[i] for column in texts for i in indices]
        return loss_of(model.read(rows).float(), labels and [labels[i] for i in indices])

    with Run(out, settings, resume, kind) as run:
        fit(cfg, model, count, loss, run, f"reward model: {kind}")
        right = accuracy(model, *examples_of(kind, world, tokenizer, p.held_out, "dev"))
        figures, n = {"held_out": p.held_out, "accuracy": right}, len(own["dev"])
        print(f"reward model '{kind}': {right:.1%} of {p.held_out} held-out examples right")
        if n:
            right = accuracy(model, *examples_of(kind, world, tokenizer, n, "dev", own["dev"]))
            figures |= {"own_pairs": n, "own_accuracy": right}
            print(f"and {right:.1%} of {n} pairs of the model's own replies")
        files.write_json(os.path.join(out, "accuracy.json"), figures)
        return run.export(model, tokenizer)


def fit(cfg, model: RewardModel, count: int, loss, run: Run, name: str) -> None:
    """cfg.preference.epochs passes over `count` examples; the learning rate falls linearly to 0.
    loss(indices): the model's mean loss over some of them. KeyboardInterrupt after a clean stop."""
    size, batches = cfg.preference.per_step, []
    for epoch in range(cfg.preference.epochs):
        order = random.Random(f"{cfg.seed} {epoch}").sample(range(count), count)
        batches += [order[i : i + size] for i in range(0, count, size)]
    distributed.shard(model, model.gpt.layers, cfg)
    trainer = Trainer(model, [adamw(model.parameters(), cfg.preference.lr)], 1.0)
    models, every = {"model": model}, cfg.sft.save_every
    for i, batch in run.steps(batches, models, trainer.optimizers, every, name):
        local = batch[distributed.local_slice(len(batch))]  # of this process
        with trainer.optimizer_step(1 - (i + 0.5) / len(batches)) as step:
            if local:
                step.backward(loss(local) * (len(local) / len(batch)))
        run.log(step=i + 1, **step.metrics())


class Judge:
    """The reward models (kind -> folder) as a judge for grpo.train(): {"helpful", "safe"} between 0
    and 1 for each response to a general request, {} for one to another problem."""

    def __init__(self, folders: dict[str, str], device, dtype=torch.float32):
        self.models = {}
        for kind, folder in folders.items():
            self.models[kind] = RewardModel.from_pretrained(folder, device, dtype)
            self.tokenizer = tokenizers.load(folder)

    def __call__(self, problems: list[Problem], responses: list[str]) -> list[dict[str, float]]:
        places = [i for i, p in enumerate(problems) if p.task == "general"]
        out: list[dict[str, float]] = [{} for _ in problems]
        if not places:
            return out
        for kind, model in self.models.items():
            texts = [rw.reply(text) if kind == "helpful" else text for text in responses]
            rows = [self.tokenizer.example(problems[i].prompt, texts[i])[0] for i in places]
            scores = model.score([ids[: model.gpt.cfg.max_seq_len] for ids in rows])
            for i, score in zip(places, scores.sigmoid().tolist()):
                out[i][kind] = score
        return out


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("base", help="model folder to start from; it is not changed")
    add("--out", help="for both run folders (default runs/preference[-PRESET])")
    add("--resume", action="store_true", help="go on with the runs in --out")
    cfg, args = config.parse(parser, Config)
    out = args.out or config.run_folder("preference", cfg, args)
    with config.user_errors(), distributed.started(cfg), resumable(out):
        inputs.check_model(args.base)
        inputs.begin(out, args.resume)
        for kind in KINDS:
            print("model:", train(cfg, args.base, os.path.join(out, kind), kind, args.resume))


if __name__ == "__main__":
    main()
