"""GRPO's relatives: what each of them replaces in grpo.py.

In all of them a ratio is clipped from a rollout's second minibatch on; __init__.py says which
algorithm takes which function.
"""

from dataclasses import replace

import torch
from torch import Tensor

import grpo
from lib.metrics import clip_counts
from sample import Rollout


def centred(rewards: Tensor, group_size: int) -> Tensor:
    """r - mean over the group [Dr. GRPO, 2503.20783]."""
    difference, _, spread = grpo.group_statistics(rewards, group_size)
    return torch.where(spread, difference, 0.0).flatten()


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """r - mean of the group's others, which is (r - mean) G / (G - 1) [RLOO, 2402.14740]."""
    return centred(rewards, group_size) / (1 - 1 / group_size)


def batch_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """(r - mean) / std over the whole batch [REINFORCE++, 2501.03262]; over its responses, where
    public code (verl) counts every token."""
    return grpo.group_advantages(rewards, len(rewards))


def loss_of(formula):
    """A loss with the arguments of grpo.policy_loss. formula(log_ratio, advantages, logprobs, mask,
    cfg), all [B, T], gives what each token adds to it, the summed metrics, a factor on the KL."""

    def loss(
        logprobs, old, advantages, mask, cfg, ref_logprobs=None, normalizer=None, weights=None
    ):
        mask = mask.to(logprobs.dtype)
        advantages = grpo.per_token(advantages, mask).expand_as(mask)
        log_ratio = (logprobs - old) * mask  # log(pi / pi_old)
        terms, metrics, factor = formula(log_ratio, advantages, logprobs, mask, cfg)
        if weights is not None:
            terms = terms * weights
        if ref_logprobs is not None and cfg.kl_beta:
            kl = factor * grpo.k3(logprobs, ref_logprobs, mask)
            terms = terms + cfg.kl_beta * kl
            metrics["kl"] = (kl * mask).sum().item()
        return grpo.average(terms, mask, cfg, normalizer), metrics

    return loss


def response_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[B, 1] mean over each response's tokens."""
    return x.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def clipped(ratio: Tensor, advantages: Tensor, cfg) -> Tensor:
    """-min(rho A, clip(rho) A), as in GRPO."""
    inside = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    return -torch.min(ratio * advantages, inside * advantages)


@loss_of
def gspo_loss(log_ratio, advantages, logprobs, mask, cfg):
    """-min(s A, clip(s) A), where s = (pi(o) / pi_old(o))^(1/|o|) is the ratio of the response and
    the same for all of its tokens [GSPO, 2507.18071, eq 5-7]."""
    ratio = response_mean(log_ratio, mask).exp().expand_as(mask)
    metrics = clip_counts(ratio, advantages, mask, cfg)
    return clipped(ratio, advantages, cfg), metrics, 1.0


@loss_of
def cispo_loss(log_ratio, advantages, logprobs, mask, cfg):
    """-stop_gradient(clip(rho)) A log pi: every token keeps its gradient, with a bounded weight
    [CISPO, 2506.13585, eq 4-5]."""
    ratio = log_ratio.exp()
    weight = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high).detach()
    metrics = clip_counts(ratio, -torch.ones_like(ratio), mask, cfg)  # whatever the advantage
    metrics["clip_ratio/high_mean"] = (ratio > 1 + cfg.clip_high).mul(mask).sum().item()
    return -weight * advantages * logprobs, metrics, 1.0


@loss_of
def v32_loss(log_ratio, advantages, logprobs, mask, cfg):
    """GRPO's with another KL: rho k3, whose gradient, unlike that of k3 alone, is the KL's, where
    pi_old is what sampled [DeepSeek-V3.2, 2512.02556]."""
    ratio = log_ratio.exp()
    return clipped(ratio, advantages, cfg), clip_counts(ratio, advantages, mask, cfg), ratio


def not_left_behind(drift: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """[B, 1] bool: not a response with A < 0 that the policy has left, where the mean of
    log(pi_sampler / pi), drift [B, R], is above 0.5 nats (ours) [DeepSeek-V3.2, eq 9]."""
    return (response_mean(drift, mask) <= 0.5) | (advantages >= 0)


def ones(rewards: Tensor, group_size: int) -> Tensor:
    """An advantage that leaves no question out."""
    return torch.ones_like(rewards)


def reverse_kl_loss(
    logprobs, old, advantages, mask, cfg, ref_logprobs=None, normalizer=None, weights=None
):
    """On-policy distillation [MiniLLM, 2306.08543; GKD, 2306.13649]: what a token earns is how much
    likelier the teacher, which is the reference model, finds it than the student that sampled it.
    After given tokens the expected gradient of that is -KL(student, teacher)'s."""
    likelier = ref_logprobs - old  # [B, R]
    loss, metrics = grpo.policy_loss(
        logprobs, old, likelier, mask, replace(cfg, kl_beta=0.0), None, normalizer, weights
    )
    return loss, metrics | {"kl": -(likelier * mask).sum().item()}


def overlong_penalty(lengths: Tensor, finished: Tensor, longest: int, part: float = 0.2) -> Tensor:
    """[B] from 0 down to -1 for lengths [B] in the last part of `longest` tokens, -1 for responses
    that were cut off [DAPO, 2503.14476, eq 13; section 4.1: 4096 of 20480 tokens].

    >>> lengths, finished = torch.tensor([10, 80, 85, 100, 5]), torch.tensor([True] * 4 + [False])
    >>> overlong_penalty(lengths, finished, 100).tolist()
    [0.0, 0.0, -0.25, -1.0, -1.0]
    """
    penalties = ((1 - part) * longest - lengths).div(part * longest).clamp(-1, 0)
    return penalties.masked_fill(~finished, -1.0)


def dynamic_sampling(learner, batch: Rollout, rewards: Tensor, step: int, next_problems, most=3):
    """A group without spread makes room for that of a further problem, `most` times at most [DAPO,
    section 3.2]: (rollout, its total rewards, metrics).

    The paper leaves out groups that are all right or all wrong; here the whole reward is the same.
    Further problems are those of step + cfg.steps and so on, each for one in its place there.
    """
    cfg, G, groups, tokens = learner.cfg.grpo, learner.cfg.grpo.group_size, 0, 0
    for again in range(1, most + 1):
        idle = grpo.without_spread(rewards, G).nonzero()[:, 0].tolist()
        if not idle:
            break
        candidates = next_problems(step + again * cfg.steps)
        problems = [candidates[q] for q in idle]
        more = learner.rollout(problems, step + again * cfg.steps)
        rewards = torch.cat([rewards, learner.score(more, problems)[0]])
        order = torch.arange(len(rewards)).view(-1, G)  # the new groups come last
        order[idle] = order[-len(idle) :].clone()
        order = order[: -len(idle)].flatten()
        batch = Rollout.concat([batch, more], learner.model.cfg.pad_id).select(order)
        rewards = rewards[order]
        groups += len(idle)
        tokens += (more.lengths - more.prompt_lengths).sum().item()
    metrics = {"dynamic/problems": groups, "dynamic/tokens": tokens}
    idle = grpo.without_spread(rewards, G).float().mean().item()
    return batch, rewards, metrics | {"dynamic/frac_reward_zero_std": idle}
