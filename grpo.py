"""Group relative policy optimisation: roll out, score, compare within the group, update.

    python grpo.py runs/zero/base/model --steps 5        # a few updates of a saved model, with the metrics of each
    python grpo.py runs/zero/base/model --algorithm dapo # ... of one of GRPO's relatives: the names are in ALGORITHMS below
    python grpo.py runs/zero/model --profile             # where their time goes
    python train_zero.py                                 # the whole R1-Zero recipe on the laptop

For each question G responses are drawn; a response's advantage is how much better than its group it did, so no critic is
needed [DeepSeekMath, arXiv 2402.03300; DeepSeek-R1, 2501.12948, eq 1-3]. --algorithm sets what its relatives change: Dr. GRPO
[2503.20783], DAPO [2503.14476], GSPO [2507.18071], CISPO [2506.13585], RLOO [2402.14740], REINFORCE++ [2501.03262], DeepSeek-V3.2's
changes [2512.02556], and PPO [1707.06347], whose critic is in ppo.py.

Deviations from the paper: (1) the ratio and the KL are per token (DeepSeekMath and every public trainer), not per output;
(2) groups whose responses all earned the same carry no gradient and are left out, and counted (not with "reinforce++" and "ppo", which
do not compare within the group); (3) the reference model and its KL are off by default on the laptop (kl_beta = 0): a model this small
has little to forget; (4) the loss is a mean over the tokens of each question's group, then over questions. A mean over sequences (the
paper) lets long failures off lightly: each of their tokens counts less, and Countdown answers then grow until they are cut off. A mean
over all tokens [DAPO] gives the task with the longest answers most of the gradient (results/log.md has the figures of all three). The
weights of this mean are put on the advantages, so that a KL penalty is a mean over all tokens.
"""

import random
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

import parallel
import profiling
import rewards as rw
import sft
import tokenizer as tokenizers
from data import TASKS, Problem, World, load_jsonl, prompt_ids
from model import GPT, Cache, ModelConfig, chunked_logprobs, cost_report, rollout_memory, training_memory
from profiling import phase
from rewards import RewardConfig
from sample import Rollout, generate, join
from tokenizer import Tokenizer


@dataclass
class GRPOConfig:
    tasks: tuple[str, ...] = ("arithmetic", "countdown")  # of the world; problems are drawn from them in turn
    steps: int = 60
    problems_per_step: int = 32
    group_size: int = 16
    max_new_tokens: int = 400
    rows: int = 0  # responses each process generates at once, for want of memory; 0: all
    temperature: float = 1.0
    minibatches: int = 4  # optimiser steps a rollout is split into; from the second on the ratios differ from 1
    micro_tokens: int = 4096  # response tokens of a forward pass, padding included (a minibatch's prompts are one pass)
    lr: float = 3e-4
    warmup: int = 5  # rollouts over which the learning rate rises
    decay: float = 0.5  # last share of the run, over which it falls linearly to a tenth
    clip_low: float = 0.2
    clip_high: float = 0.2
    importance_cap: float = 0.0  # truncated importance sampling: weigh tokens by min(p_trainer / p_sampler, this) [e.g. 2]; 0: not at all
    replay_routes: bool = False  # in training, send each token to the experts it was sent to in the rollout
    average: str = "question"  # a mean over each "question"'s tokens, all "token"s, each "sequence"'s (the paper); "constant": as if all were as long as allowed
    advantage: str = "grpo"  # see group_advantages; "gae": of a critic (ppo.py)
    ratio: str = "token"  # of each "token", or of the "sequence"
    objective: str = "clip"  # "cispo": clip the weight of a token's gradient, not the gradient
    off_policy_mask: float = 0.0  # leave out responses with a negative advantage that have become less likely by more than this a token, in nats; 0: none
    overlong: float = 0.0  # last share of max_new_tokens in which a response's reward falls, by up to 1; 0: none
    dynamic: int = 0  # times at most that a step draws further problems in place of those whose group has no spread
    gae_lambda: float = 1.0
    critic_lr: float = 1e-3
    kl_beta: float = 0.0
    kl: str = "k3"  # "unbiased": k3 times the ratio, whose gradient is that of the KL
    ref_every: int = 0  # refresh the reference model every so many rollouts (R1-Zero: 400); 0: never
    max_grad_norm: float = 1.0
    save_every: int = 10

    def __post_init__(self):
        if unknown := set(self.tasks) - set(TASKS):
            raise ValueError(f"grpo.tasks has '{unknown.pop()}'; the tasks are {', '.join(TASKS)}")
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"grpo.{name} is '{value}'; use {', '.join(map(repr, known[:-1]))} or '{known[-1]}'")


CHOICES = {"average": ("question", "token", "sequence", "constant"), "advantage": ("grpo", "centred", "rloo", "batch", "gae"),
           "ratio": ("token", "sequence"), "objective": ("clip", "cispo"), "kl": ("k3", "unbiased")}

# What --algorithm sets. The rest stays as it is: the ratio is clipped in all of them, from a rollout's second minibatch on.
ALGORITHMS: dict[str, dict[str, object]] = {
    "grpo": {},  # with the deviations above
    "dr_grpo": {"advantage": "centred", "average": "constant", "kl_beta": 0.0},
    "dapo": {"clip_high": 0.28, "average": "token", "kl_beta": 0.0, "overlong": 0.2, "dynamic": 3},  # section 4.1: 4096 of 20480 tokens
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "average": "sequence", "kl_beta": 0.0},  # section 5.1
    "cispo": {"objective": "cispo", "clip_low": 1.0, "clip_high": 4.0, "average": "token", "kl_beta": 0.0, "overlong": 0.2, "dynamic": 3},  # no lower bound; the upper is ours
    "rloo": {"advantage": "rloo", "average": "constant"},  # a response is one action: its tokens' log p add up; without the KL in the reward
    "reinforce++": {"advantage": "batch", "average": "token"},  # without the KL in the reward
    # delta and beta are ours; without the sampler's top-p mask
    "v3.2": {"advantage": "centred", "average": "sequence", "kl": "unbiased", "kl_beta": 1e-3, "off_policy_mask": 0.5, "replay_routes": True},
    "ppo": {"advantage": "gae"},  # differs from "grpo" in nothing else
}


# ---------------------------------------------------------------------------------------------- the mathematics


def group_advantages(rewards: Tensor, group_size: int, kind: str = "grpo") -> Tensor:
    """How much better than its group each response did: (r - mean) / std over the group [eq 3].

    rewards [B], the group_size responses to a question side by side; returns [B]. A group without spread gets zeros.
    std is the population's. Other kinds: "centred", r - mean [Dr. GRPO]; "rloo", r - mean of the group's others [RLOO];
    "batch", as "grpo" with the whole batch as the group [REINFORCE++].

    >>> group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0]), 4).tolist()
    [1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    if kind not in ("grpo", "centred", "rloo", "batch"):
        raise ValueError(f"there is no group advantage of kind '{kind}'; use 'grpo', 'centred', 'rloo' or 'batch'")
    groups = rewards.view(-1, len(rewards) if kind == "batch" else group_size)
    centred = groups - groups.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    spread = std > 1e-6 * groups.abs().amax(1, keepdim=True).clamp(min=1)  # below is rounding, not a difference
    unit = {"centred": 1.0, "rloo": 1 - 1 / group_size}.get(kind, std.clamp(min=1e-30))  # r - (G mean - r) / (G - 1) = (r - mean) G / (G - 1)
    return torch.where(spread, centred / unit, 0.0).flatten()


def without_spread(rewards: Tensor, group_size: int) -> Tensor:
    """[questions] bool: whose responses all earned the same."""
    return (group_advantages(rewards, group_size) == 0).view(-1, group_size).all(1)


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, cfg: GRPOConfig,
                ref_logprobs: Tensor | None = None, normalizer: float | None = None, weights: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
    """The clipped objective with its KL penalty, negated [eq 1-2]; returns (loss, summed metrics).

    logprobs, old_logprobs, ref_logprobs, mask [B, T] (mask: 1 at the response's tokens), advantages [B], or [B, T] with a critic.
    normalizer: what the sum is divided by - the number of sequences (or of tokens, as cfg.average says) in the whole
    optimiser step, so that micro-batches and ranks add up to one loss; by default those of this call. For "question" this is
    the mean over tokens, and `update` has scaled the advantages by question_weights; "constant" counts every sequence as
    max_new_tokens long. weights [B, T]: factors on the tokens' terms.

    >>> lp = torch.tensor([[0.0, 0.0]]).log_softmax(-1)
    >>> loss, _ = policy_loss(lp, lp, torch.tensor([2.0]), torch.ones(1, 2), GRPOConfig())
    >>> loss.item()                       # at ratio 1 the loss is minus the mean advantage
    -2.0
    """
    mask = mask.to(logprobs.dtype)
    lengths = mask.sum(1).clamp(min=1)  # [B]
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = of_tokens = log_ratio.exp()  # [B, T]
    if cfg.ratio == "sequence":  # (pi(o) / pi_old(o))^(1/|o|), the same for all tokens of a response [GSPO]
        ratio = (log_ratio.sum(1) / lengths).exp()[:, None].expand_as(mask)
    advantage = advantages.view(len(mask), -1)[:, : mask.shape[1]].to(logprobs.dtype)  # [B, 1], or [B, T]
    clipped = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    if cfg.objective == "cispo":  # every token keeps its gradient, with a bounded weight [CISPO]
        per_token = -clipped.detach() * advantage * logprobs
    else:
        per_token = -torch.min(ratio * advantage, clipped * advantage)  # [B, T]
    masked = torch.zeros_like(mask, dtype=torch.bool)
    if cfg.off_policy_mask:  # bad responses that the policy has left behind: log(pi_old / pi) > delta, a mean over tokens [V3.2]
        masked = (-log_ratio.detach().sum(1) / lengths > cfg.off_policy_mask)[:, None] & (advantage < 0)
        per_token = per_token.masked_fill(masked, 0.0)
    if weights is not None:
        per_token = per_token * weights
    kl = torch.zeros_like(per_token)
    if ref_logprobs is not None and cfg.kl_beta:
        d = (ref_logprobs - logprobs) * mask
        kl = d.exp() - d - 1  # k3 [eq 2]: never negative, zero where the two agree
        if cfg.kl == "unbiased":  # the ratio's gradient is what k3's alone lacks: together they follow the KL's [V3.2]
            kl = of_tokens * kl
        per_token = per_token + cfg.kl_beta * kl
    if cfg.average == "sequence":
        total, count = ((per_token * mask).sum(1) / lengths).sum(), float(len(mask))
    else:
        total, count = (per_token * mask).sum(), float(len(mask) * cfg.max_new_tokens) if cfg.average == "constant" else mask.sum().item()
    with torch.no_grad():
        either = cfg.objective == "cispo"  # which bounds the weight whatever the advantage
        metrics = {"clip_ratio/low_mean": ((ratio < 1 - cfg.clip_low) & ((advantage < 0) | either)).mul(mask).sum().item(),
                   "clip_ratio/high_mean": ((ratio > 1 + cfg.clip_high) & ((advantage > 0) | either)).mul(mask).sum().item(),
                   "off_policy_mask/mean": (masked * mask).sum().item(), "kl": (kl * mask).sum().item(), "tokens": mask.sum().item()}
    return total / (normalizer or count), metrics


def overlong_penalty(lengths: Tensor, longest: int, share: float) -> Tensor:
    """[B] from 0 down to -1 for lengths [B] in the last share of `longest` tokens [DAPO eq 13].

    >>> overlong_penalty(torch.tensor([10, 80, 85, 100]), 100, 0.2).tolist()
    [0.0, 0.0, -0.25, -1.0]
    """
    return ((1 - share) * longest - lengths).div(share * longest).clamp(-1, 0)


def question_weights(lengths: list[int], group_size: int) -> Tensor:
    """[B] factors on the advantages under which a mean over all tokens becomes one over questions of their means over tokens.

    >>> question_weights([1, 1, 3, 3], 2).tolist()      # 2 and 6 tokens, 4 on average
    [2.0, 2.0, 0.6666666865348816, 0.6666666865348816]
    """
    tokens = torch.tensor(lengths, dtype=torch.float32).view(-1, group_size).sum(1)  # [questions]
    return (tokens.mean() / tokens.clamp(min=1)).repeat_interleave(group_size)


# ---------------------------------------------------------------------------------------------- what a run takes


def check_room(cfg, shape: ModelConfig, learnt: int, steps: int, asked: int = 0) -> None:
    """Print what a run will take with a model of this shape: memory of each process, and time. ValueError if the memory is not there.

    cfg is a config.Config; learnt: tokens of next-token training; steps: of reinforcement learning; asked: responses that are only
    drawn. The time is that of the arithmetic alone, at 40% of the speed of a large matrix product on this device, if no response ends early.
    """
    own, n = cfg.grpo, parallel.size()
    rows = -(-own.problems_per_step // n) * own.group_size
    rows, copies = (own.rows, 2.2) if 0 < own.rows < rows else (rows, 1.8)
    length = min(own.max_new_tokens + 256, shape.max_seq_len)  # a generous prompt
    parts = training_memory(shape, max(cfg.sft.micro_tokens, own.micro_tokens), cfg.precision, n, cfg.recompute)
    evaluation = rollout_memory(shape, -(-cfg.eval.rows // n), min(cfg.eval.max_new_tokens + 256, shape.max_seq_len), cfg.precision, 2.2)
    cache = max(evaluation, rollout_memory(shape, rows, length, cfg.precision, copies))
    fixed = parts.pop("weights and optimizer") * (2 if own.advantage == "gae" else 1)  # the critic's are as large
    if own.kl_beta:  # the reference model: its shard, and its weights while it is asked
        fixed += cost_report(shape)["total parameters"] * (4 if cfg.precision == "float32" else 4 / n + 2)
    need, have = fixed + max(sum(parts.values()), cache), parallel.memory(cfg)
    report = cost_report(shape, length)
    trained = steps * own.problems_per_step * own.group_size * own.max_new_tokens * (2 if own.advantage == "gae" else 1)
    flops = (learnt + trained) * report["training FLOPs a token"] + (trained + asked * cfg.eval.max_new_tokens) * report["forward FLOPs a token"]
    hours = float(f"{flops / n / (0.4 * parallel.matrix_speed(cfg)) / 3600:.2g}")
    gib = 2**30
    print(f"{report['total parameters'] / 1e6:,.0f}M parameters, {n} {'process' if n == 1 else 'processes'}; memory of each: {need / gib:.1f} of {have / gib:.1f} GiB "
          f"(weights and optimizer {fixed / gib:.1f}, training {sum(parts.values()) / gib:.1f}, rollouts {cache / gib:.1f}); "
          f"arithmetic: up to {hours:,.10g} hours", flush=True)
    if need <= have:
        return
    if fixed > have:
        mend = "use more GPUs (torchrun --nproc-per-node N), GPUs with more memory, or a smaller model (--model.*)"
    elif cache > sum(parts.values()):
        fewer = "lower --eval.rows" if cache == evaluation else f"set --grpo.rows (responses generated at once) below {rows}" if rows > 1 else "lower --grpo.max_new_tokens"
        mend = fewer + ", or use more GPUs (torchrun --nproc-per-node N)"
    else:
        mend = "lower --grpo.micro_tokens and --sft.micro_tokens, or add --recompute true"
    raise ValueError(f"'{cfg.name}' needs about {need / gib:.1f} GiB of memory a process, and there are {have / gib:.1f}: {mend}")


# ---------------------------------------------------------------------------------------------- one step


def rollout(model: GPT, tokenizer: Tokenizer, problems: list[Problem], cfg: GRPOConfig, seed: int) -> Rollout:
    """group_size responses to each problem, the group's side by side."""
    return generate(model, [prompt_ids(p, tokenizer) for p in problems], num_generations=cfg.group_size,
                    max_new_tokens=cfg.max_new_tokens, temperature=cfg.temperature, seed=seed, record_routes=cfg.replay_routes, rows=cfg.rows or None)


# (problem, response) of a whole rollout -> rewards by name that are added to the rules', one dict a response
Judge = Callable[[list[Problem], list[str]], list[dict[str, float]]]


def score_rollout(batch: Rollout, tokenizer: Tokenizer, problems: list[Problem], cfg: GRPOConfig, reward_cfg: RewardConfig,
                  judge: Judge | None = None) -> tuple[Tensor, dict[str, float], list[dict]]:
    """(total rewards [B], metrics, one record a response); under torchrun each process scores its share of the responses."""
    own = parallel.part(len(batch.tokens))
    texts = [tokenizer.decode(ids) for ids in batch.responses()]
    asked = [p for p in problems for _ in range(cfg.group_size)]
    asked, texts = asked[own], texts[own]
    records = [{"task": p.task, "prompt": p.prompt, "response": text, "rewards": scores, "language_consistency": scores["language"],
                "reflection_words": rw.reflection_words(text)} for p, text, scores in zip(asked, texts, rw.score_all(asked, texts, reward_cfg))]
    lengths = (batch.lengths - batch.prompt_lengths).float()
    added = judge(asked, texts) if judge else [{} for _ in records]
    if cfg.overlong:  # what was cut off would have been longer
        penalties = overlong_penalty(lengths, cfg.max_new_tokens, cfg.overlong).masked_fill(~batch.finished, -1.0)
        added = [more | {"overlong": penalty} for more, penalty in zip(added, penalties[own].tolist())]
    for record, more in zip(records, added):
        record["rewards"] |= more | {"total": record["rewards"]["total"] + sum(more.values())}
    records = parallel.gather(records)
    totals = torch.tensor([r["rewards"]["total"] for r in records])
    groups = totals.view(-1, cfg.group_size)
    metrics = {"reward": totals.mean().item(), "reward_std": groups.std(1, correction=0).mean().item(),
               "frac_reward_zero_std": without_spread(totals, cfg.group_size).float().mean().item(),
               "completions/mean_length": lengths.mean().item(), "completions/min_length": lengths.min().item(),
               "completions/max_length": lengths.max().item(),
               "completions/clipped_ratio": 1 - batch.finished.float().mean().item(),
               # the mean of -log p over drawn tokens is an unbiased estimate of the policy's entropy a token, in nats
               "entropy": -batch.logprobs.sum().item() / lengths.sum().item()}
    for name in sorted({name for r in records for name in r["rewards"]} - {"total"}):
        metrics[f"rewards/{name}/mean"] = _mean(r["rewards"][name] for r in records if name in r["rewards"])
    metrics["language_consistency"] = metrics["rewards/language/mean"]
    metrics["reflection_words"] = _mean(r["reflection_words"] for r in records)
    for task in sorted({p.task for p in problems}):
        mine = [i for i, r in enumerate(records) if r["task"] == task]
        if task != "general":
            metrics[f"{task}/accuracy"] = _mean(records[i]["rewards"]["accuracy"] for i in mine)
        metrics[f"{task}/format"] = _mean(records[i]["rewards"]["format"] for i in mine)
        metrics[f"{task}/mean_length"] = lengths[mine].mean().item()
        metrics[f"{task}/language_consistency"] = _mean(records[i]["language_consistency"] for i in mine)
    return totals, metrics, records


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


@dataclass
class Responses:
    """A rollout's responses, shifted to the left edge: column j is response token j, whatever the prompt's length."""

    inputs: Tensor  # [B, R] the token before: the prompt's last one, then the response's
    targets: Tensor  # [B, R]
    positions: Tensor  # [B, R] of the inputs, -1 beyond the end
    logprobs: Tensor  # [B, R] as they were drawn
    lengths: list[int]
    routes: Tensor | None  # [B, R, layers, K] of the inputs

    @classmethod
    def of(cls, batch: Rollout) -> "Responses":
        lengths = batch.lengths - batch.prompt_lengths  # [B]
        index = (batch.prompt_lengths - 1)[:, None] + torch.arange(int(lengths.max()), device=lengths.device)  # [B, R]
        inside = index < (batch.lengths - 1)[:, None]
        here, after = index.clamp(max=batch.tokens.shape[1] - 1), (index + 1).clamp(max=batch.tokens.shape[1] - 1)
        routes = None if batch.routes is None else batch.routes[torch.arange(len(here), device=here.device)[:, None], here]
        return cls(batch.tokens.gather(1, here), batch.tokens.gather(1, after), torch.where(inside, index, -1),
                   batch.logprobs.gather(1, after), lengths.tolist(), routes)


def read_prompts(model: GPT, batch: Rollout, rows: list[int], counted: list[bool]) -> Cache:
    """What the model remembers of the prompts of these rows, all but their last tokens; gradients flow through it.

    counted: which of them count as experts' load; under torchrun several processes may read the same prompt.
    """
    cache = Cache()
    ends = batch.prompt_lengths[rows] - 1  # [n]
    slots = torch.arange(max(1, int(ends.max())), device=ends.device)
    model(batch.tokens[rows, : len(slots)], cache, torch.where(slots < ends[:, None], slots, -1), return_hidden=True,
          counted=torch.tensor(counted, device=ends.device), routes=None if batch.routes is None else batch.routes[rows, : len(slots)])
    return cache


def response_logprobs(model: GPT, prompts: Cache, which: Tensor, responses: Responses, rows: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log p [b, R] of the response tokens of some rows, their mask [b, R]); row i continues prompts[which[i]]."""
    R = max(responses.lengths[i] for i in rows.tolist())
    positions = responses.positions[rows, :R]
    mask = positions >= 0
    routes = None if responses.routes is None else responses.routes[rows, :R]
    hidden = model(responses.inputs[rows, :R], prompts.select(which), positions, return_hidden=True, routes=routes)
    picked = chunked_logprobs(hidden[mask], model.lm_head.weight, responses.targets[rows, :R][mask], temperature)
    return torch.zeros(mask.shape, dtype=picked.dtype, device=mask.device).masked_scatter(mask, picked), mask


def minibatches(questions: list[int], cfg: GRPOConfig, rng: random.Random) -> list[list[int]]:
    """The questions, shuffled in place, in cfg.minibatches parts of like size: fewer parts where rounding up fills them sooner (9 questions in 4: 3, 3, 3)."""
    rng.shuffle(questions)
    size = max(1, -(-len(questions) // cfg.minibatches))  # rounded up
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def share(mini: list[int], responses: Responses, cfg: GRPOConfig) -> tuple[list[int], list[bool], list[tuple[Tensor, Tensor]]]:
    """What this process trains on of a minibatch of questions; without torchrun all of it.

    Returns the prompts' rows in the rollout, which of them count as experts' load, and micro-batches (rows in the rollout, places
    of their prompts). Responses are dealt out one by one, so a question's may go to several processes: the first one's counts its prompt.
    """
    G, device = cfg.group_size, responses.inputs.device
    rows = [q * G + j for q in mini for j in range(G)]
    mine = parallel.deal([responses.lengths[i] for i in rows])
    asked = sorted({i // G for i in mine})
    groups = sft.micro_batches([responses.lengths[rows[i]] for i in mine], cfg.micro_tokens) if mine else []
    return ([mini[q] * G for q in asked], [q * G in mine for q in asked],
            [(torch.tensor([rows[mine[j]] for j in group], device=device), torch.tensor([asked.index(mine[j] // G) for j in group], device=device))
             for group in groups])


@torch.no_grad()
def trainer_logprobs(model: GPT, batch: Rollout, responses: Responses, minis: list[list[int]], cfg: GRPOConfig) -> Tensor:
    """log p [B, R] of the responses before the update, by the model as it trains; of the rows that this process trains on."""
    out = torch.zeros_like(responses.logprobs)
    with parallel.gathered(model), phase("scoring"):
        for mini in minis:
            asked, counted, micro = share(mini, responses, cfg)
            prompts = read_prompts(model, batch, asked, counted) if asked else None
            for part, which in micro:
                logprobs, mask = response_logprobs(model, prompts, which, responses, part, cfg.temperature)
                out[part, : mask.shape[1]] = logprobs
    return out


def update(model: GPT, optimizer: torch.optim.Optimizer, batch: Rollout, advantages: Tensor, cfg: GRPOConfig, lr: float,
           rng: random.Random, ref: GPT | None = None) -> dict[str, float]:
    """cfg.minibatches optimiser steps over one rollout, a question's group never split between them; advantages [B], or [B, R] with a critic.

    Groups without an advantage are never run through the model, and each prompt is read once for its whole group: the
    responses' gradients are gathered at the prompt's cache and sent on through it together.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    G, device = cfg.group_size, model.device
    minis = minibatches(advantages.reshape(len(advantages) // G, -1).abs().sum(1).nonzero()[:, 0].tolist(), cfg, rng)
    responses = Responses.of(batch)
    trainer = trainer_logprobs(model, batch, responses, minis, cfg) if cfg.importance_cap else None
    advantages = advantages.reshape(len(advantages), -1).clone()  # [B, 1], or [B, R] with a critic
    sums = dict.fromkeys(("clip_ratio/low_mean", "clip_ratio/high_mean", "off_policy_mask/mean", "kl", "tokens", "gap"), 0.0)
    total_loss, grad_norm, widest_gap, load, skipped = 0.0, 0.0, 0.0, {}, 0
    for number, mini in enumerate(minis):
        rows = [q * G + j for q in mini for j in range(G)]
        lengths = [responses.lengths[i] for i in rows]
        normalizer = float({"sequence": len(rows), "constant": len(rows) * cfg.max_new_tokens}.get(cfg.average, sum(lengths)))
        if cfg.average == "question":
            advantages[rows] *= question_weights(lengths, G).to(device)[:, None]
        asked, counted, micro = share(mini, responses, cfg)
        mini_loss = 0.0
        with parallel.gathered(model, ref):
            with phase("forward"):
                prompts = read_prompts(model, batch, asked, counted) if asked else Cache()
            leaves = prompts.detached()
            if ref and asked:
                with torch.no_grad(), phase("scoring"):
                    ref_prompts = read_prompts(ref, batch, asked, counted)
            for part, which in micro:
                ref_logprobs = None
                if ref:
                    with torch.no_grad(), phase("scoring"):
                        ref_logprobs, _ = response_logprobs(ref, ref_prompts, which, responses, part, cfg.temperature)
                with phase("forward"):
                    logprobs, mask = response_logprobs(model, leaves, which, responses, part, cfg.temperature)
                    sampled = responses.logprobs[part, : mask.shape[1]]
                    old, weights = sampled, None
                    if trainer is not None:  # the ratio is to the trainer's own log p; what the sampler's differs by becomes a weight
                        old = trainer[part, : mask.shape[1]]
                        weights = ((old - sampled) * mask).exp().clamp(max=cfg.importance_cap)
                    loss, metrics = policy_loss(logprobs, old, advantages[part], mask, cfg, ref_logprobs, normalizer, weights)
                    loss_and_balance = loss + model.balance_loss() * (len(part) / len(rows))
                with phase("backward"):
                    loss_and_balance.backward()
                mini_loss += loss.item()
                if number == 0:  # before the first update the two should agree: what is left is the engines' difference
                    gap = (logprobs.detach() - sampled)[mask].abs()
                    widest_gap = max(widest_gap, gap.max().item())
                    metrics["gap"] = gap.sum().item() / sum(lengths)
                for k, v in metrics.items():
                    sums[k] += v
            with phase("backward"):
                prompts.backward(leaves)
                parallel.sum_gradients(model, batch.tokens[:1, :1])
        (mini_loss,) = parallel.total([mini_loss])
        with phase("optimiser"):
            norm, sound = parallel.step(model, [optimizer], cfg.max_grad_norm, mini_loss)
        if sound:
            total_loss, grad_norm = total_loss + mini_loss, grad_norm + norm
        skipped += not sound
        load = model.update_balance()
    sums = dict(zip(sums, parallel.total(list(sums.values()))))
    widest_gap, taken = max(parallel.gather([widest_gap])), max(len(minis) - skipped, 1)
    tokens = sums.pop("tokens")
    out = {k: sums[k] / max(tokens, 1.0) for k in ("clip_ratio/low_mean", "clip_ratio/high_mean", "off_policy_mask/mean", "kl")}
    return out | {"loss": total_loss / taken, "grad_norm": grad_norm / taken, "skipped_steps": skipped, "learning_rate": lr,
                  "sampling/sampling_logp_difference/mean": sums["gap"], "sampling/sampling_logp_difference/max": widest_gap,
                  "trained_tokens": tokens} | load


def make_optimizer(model: GPT, cfg: GRPOConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), cfg.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def reference(folder: str, cfg) -> GPT | None:
    """The frozen model that the KL penalty is measured from; None if there is no penalty."""
    if not cfg.grpo.kl_beta:
        return None
    ref = GPT.from_pretrained(folder).requires_grad_(False)
    return parallel.shard(ref, ref.blocks(), cfg)


def critic_of(folder: str, cfg) -> nn.Module | None:
    """The ppo.Critic that PPO's advantages come from, begun as a copy of the model in the folder; None if groups are compared."""
    if cfg.grpo.advantage != "gae":
        return None
    import ppo  # which needs this file

    return ppo.make(GPT.from_pretrained(folder), cfg)


def refill(model: GPT, tokenizer: Tokenizer, batch: Rollout, totals: Tensor, cfg: GRPOConfig, reward_cfg: RewardConfig, number: int, seed: int,
           judge: Judge | None, draw: Callable[[int], list[Problem]]) -> tuple[Rollout, Tensor, dict[str, float]]:
    """Dynamic sampling: a group without spread makes room for that of a further problem, cfg.dynamic times at most [DAPO, section 3.2].

    The paper leaves out groups that are all right or all wrong; these are groups whose whole reward, the format's too, is the same.
    Returns (rollout, its total rewards, metrics). Further problems are those that step `number` would have had in runs that follow
    this one, draw(number + cfg.steps) and so on; each takes the place of the one that has its place in the step, and so its task.
    """
    G, rows, tokens = cfg.group_size, 0, 0
    for again in range(1, cfg.dynamic + 1):
        idle = without_spread(totals, G).nonzero()[:, 0].tolist()
        if not idle:
            break
        further = number + again * cfg.steps
        drawn = draw(further)
        problems = [drawn[q] for q in idle]
        more = rollout(model, tokenizer, problems, cfg, seed * 1_000_003 + further)
        with phase("reward"):
            scores, _, _ = score_rollout(more, tokenizer, problems, cfg, reward_cfg, judge)
        order = torch.arange(len(totals)).view(-1, G)
        order[idle] = len(totals) + torch.arange(len(scores)).view(-1, G)
        batch, totals = join([batch, more], model.cfg.pad_id).select(order.flatten()), torch.cat([totals, scores])[order.flatten()]
        rows, tokens = rows + len(scores), tokens + (more.lengths - more.prompt_lengths).sum().item()
    return batch, totals, {"dynamic/problems": rows // G, "dynamic/tokens": tokens, "dynamic/frac_reward_zero_std": without_spread(totals, G).float().mean().item()}


def step(model: GPT, optimizer: torch.optim.Optimizer, tokenizer: Tokenizer, problems: list[Problem], cfg: GRPOConfig,
         reward_cfg: RewardConfig, number: int, seed: int, ref: GPT | None = None, judge: Judge | None = None,
         critic: nn.Module | None = None, draw: Callable[[int], list[Problem]] | None = None) -> tuple[dict[str, float], list[dict]]:
    """One whole step: rollout, rewards, advantages, update. Returns (metrics, one record a response).

    Everything random is a function of (seed, number), so a resumed run goes on as if it had never stopped. critic: a ppo.Critic, if
    cfg.advantage is "gae". draw: for dynamic sampling, whose further responses are trained on but not among the metrics of rewards nor
    the records: those are of `problems` alone.
    """
    t0 = time.perf_counter()
    batch = rollout(model, tokenizer, problems, cfg, seed * 1_000_003 + number)
    t1 = time.perf_counter()
    with phase("reward"):
        totals, metrics, records = score_rollout(batch, tokenizer, problems, cfg, reward_cfg, judge)
    drawn = (batch.lengths - batch.prompt_lengths).sum().item()
    t2 = time.perf_counter()
    if cfg.dynamic:
        batch, totals, found = refill(model, tokenizer, batch, totals, cfg, reward_cfg, number, seed, judge, draw)
        metrics |= found | {"timing/dynamic_s": time.perf_counter() - t2}
    t3 = time.perf_counter()
    if critic:
        advantages, returns, found = critic.advantages(batch, totals.to(model.device), cfg)
        metrics |= found
    else:
        advantages = group_advantages(totals, cfg.group_size, cfg.advantage).to(model.device)
    t4 = time.perf_counter()
    factor = min(1.0, (number + 1) / max(cfg.warmup, 1), 0.1 + 0.9 * max(0.0, 1 - number / cfg.steps) / max(cfg.decay, 1e-9))
    metrics |= update(model, optimizer, batch, advantages, cfg, cfg.lr * factor, random.Random(f"{seed} {number}"), ref)
    t5 = time.perf_counter()
    if critic:
        found = critic.fit(batch, returns, cfg, cfg.critic_lr * factor, random.Random(f"{seed} {number}"))
        metrics["skipped_steps"] += found.pop("skipped_steps")
        metrics |= found | {"timing/critic_s": t4 - t3 + time.perf_counter() - t5}
    metrics |= {"num_tokens": drawn + metrics.get("dynamic/tokens", 0), "step_time": time.perf_counter() - t0, "timing/rollout_s": t1 - t0,
                "timing/reward_s": t2 - t1, "timing/train_s": t5 - t4, "throughput/rollout_tok_s": drawn / (t1 - t0),
                "throughput/train_tok_s": metrics.pop("trained_tokens") / (t5 - t4)}
    return metrics, records


def train(cfg, base: str, out: str, resume: bool, stage: str, draw: Callable[[int], list[Problem]], judge: Judge | None = None,
          **settings) -> str:
    """cfg.grpo.steps steps on the model in folder `base`, with the problems draw(step); returns the folder of the result.

    Dynamic sampling draws beyond the last step too (see refill). cfg is a config.Config; `settings` is whatever else the result
    depends on. With resume, goes on where the run's checkpoint ends. KeyboardInterrupt after a clean stop.
    """
    model, tokenizer = GPT.from_pretrained(base), tokenizers.load(base)
    # another base under the same name would be another run
    settings["init"] = model.fingerprint()
    with parallel.Run(out, asdict(cfg) | settings, resume, stage) as run:
        model = parallel.shard(model, model.blocks(), cfg)
        ref, critic, optimizer = reference(base, cfg), critic_of(base, cfg), make_optimizer(model, cfg.grpo)
        models, optimizers = {"model": model, "ref": ref, "critic": critic}, [optimizer, *([critic.optimizer] if critic else [])]
        done, tokens = 0, 0
        if run.state:
            run.restore(models, optimizers)
            done, tokens = run.state["step"], run.state["tokens"]
        with tqdm(total=cfg.grpo.steps, initial=done, unit="step", desc=stage) as bar:
            for number in range(done, cfg.grpo.steps):
                if ref and cfg.grpo.ref_every and number and number % cfg.grpo.ref_every == 0:
                    ref.load_state_dict(model.state_dict())
                metrics, records = step(model, optimizer, tokenizer, draw(number), cfg.grpo, cfg.rewards, number, cfg.seed, ref, judge, critic, draw)
                tokens = metrics["num_tokens"] = tokens + metrics["num_tokens"]
                run.log(step=number + 1, **metrics)
                if number % 10 == 0:
                    run.sample(number + 1, [r for task in sorted({r["task"] for r in records}) for r in [r for r in records if r["task"] == task][:: cfg.grpo.group_size][:4]])
                bar.update()
                bar.set_postfix(reward=f"{metrics['reward']:.2f}", accuracy=f"{metrics.get('rewards/accuracy/mean', 0):.2f}", format=f"{metrics['rewards/format/mean']:.2f}",
                                length=f"{metrics['completions/mean_length']:.0f}")
                run.after_step(number + 1, cfg.grpo.save_every, number + 1 == cfg.grpo.steps, models, optimizers, step=number + 1, tokens=tokens)
        return run.export(model, tokenizer)


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("model", nargs="?", help="model folder to start from; it is not changed (--profile does without: a new model of --config's shape)")
    parser.add_argument("--steps", type=int, default=5, help="updates to make (default 5)")
    parser.add_argument("--data", help="JSONL file of problems, instead of the world's")
    parser.add_argument("--profile", nargs="?", const="profile.json", metavar="FILE", help="measure the steps' phases instead; figures into FILE (default profile.json)")
    parser.add_argument("--trace", metavar="FILE", help="with --profile: one step as a Chrome trace")
    cfg, args = config.parse(parser, algorithm=True)
    with config.user_errors(), parallel.started(cfg):
        if not args.model and not args.profile:
            raise ValueError("name a model folder to start from, such as runs/zero/model")
        if args.trace and not args.profile:
            raise ValueError("--trace belongs to --profile: add it")
        if cfg.grpo.advantage == "gae" and not args.model:
            raise ValueError("a critic begins as a copy of the model: name a model folder, such as runs/zero/model")
        if args.model:
            model, tokenizer, judge = GPT.from_pretrained(args.model), tokenizers.load(args.model), None
            model = parallel.shard(model, model.blocks(), cfg)
        else:  # a new model earns nothing, and groups without spread cost nothing: each response earns a number by its text
            tokenizer = sft.corpus_tokenizer(cfg)
            model, judge = sft.build(cfg, tokenizer), lambda problems, texts: [{"number": zlib.crc32(text.encode()) % 7} for text in texts]
        dataset = load_jsonl(args.data) if args.data else None
        world, ref, optimizer, n = World(cfg.seed, cfg.world), reference(args.model, cfg) if args.model else None, make_optimizer(model, cfg.grpo), cfg.grpo.problems_per_step
        critic = critic_of(args.model, cfg)

        def draw(number: int) -> list[Problem]:
            indices = range(number * n, (number + 1) * n)
            return ([dataset[i % len(dataset)] for i in indices] if dataset
                    else [world.problem(cfg.grpo.tasks[i % len(cfg.grpo.tasks)], i) for i in indices])

        def one(number: int) -> tuple[dict[str, float], list[dict]]:
            return step(model, optimizer, tokenizer, draw(number), cfg.grpo, cfg.rewards, number, cfg.seed, ref, judge, critic, draw)

        if args.profile:
            found = profiling.take(cfg, args.steps, lambda number: one(number)[0]["num_tokens"], args.trace)
            profiling.save(found, cfg, " ".join(["python", *sys.argv]), args.profile)
            return
        for number in range(args.steps):
            metrics, records = one(number)
            best = max(records, key=lambda r: r["rewards"]["total"])
            print(f"--- step {number + 1}")
            print("  ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
            print(f"best of {len(records)}: {best['prompt']}\n  {best['response']}  {best['rewards']}", flush=True)


if __name__ == "__main__":
    main()
