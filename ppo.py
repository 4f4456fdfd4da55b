"""The critic that GRPO does without: proximal policy optimisation, the baseline it is compared with [1707.06347].

    python grpo.py runs/zero/base/model --algorithm ppo
    python train_zero.py --algorithm ppo --grpo.gae_lambda 0.95

The objective is grpo.policy_loss; only the advantages differ. A second network of the policy's size, begun as its copy, says before
each token what reward to expect, and generalised advantage estimation [1506.02438] says how much better things went than that. The
whole reward comes with a response's last token and nothing is discounted (gamma = 1).

Deviations from the paper: (1) the critic's loss is the plain squared error, not clipped around the old values; (2) the critic goes
through its minibatches after the policy has: the two share no weights, so the order changes nothing.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

import parallel
from grpo import GRPOConfig, Responses, minibatches, read_prompts, share
from model import GPT, Cache
from preference import RewardModel
from profiling import phase
from sample import Rollout


def gae(rewards: Tensor, values: Tensor, mask: Tensor, lam: float) -> Tensor:
    """A_t = delta_t + lam A_{t+1}, delta_t = r_t + V_{t+1} - V_t [1506.02438, eq 16 with gamma 1]: [B, T], 0 beyond the responses.

    rewards [B], each earned at its row's last token; values [B, T]: V_t, what is expected before token t is drawn; mask [B, T] bool,
    the response's tokens. lam = 1: the reward less the value.

    >>> gae(torch.tensor([1.0]), torch.tensor([[0.5, 0.25, 9.0]]), torch.tensor([[True, True, False]]), 0.5).tolist()
    [[0.125, 0.75, 0.0]]
    """
    values = values.masked_fill(~mask, 0.0)
    following = F.pad(values, (0, 1))[:, 1:]  # after the last token there is nothing to expect
    last = mask & ~F.pad(mask, (0, 1))[:, 1:]
    delta = rewards[:, None] * last + following - values
    out, ahead = torch.zeros_like(values), torch.zeros_like(rewards)
    for t in reversed(range(mask.shape[1])):
        out[:, t] = ahead = delta[:, t] + lam * ahead
    return out


class Critic(RewardModel):
    """GPT with a number at every token: the reward to expect once it has been read. `optimizer` is its own."""

    optimizer: torch.optim.Optimizer

    def forward(self, tokens: Tensor, cache: Cache | None = None, positions: Tensor | None = None, counted: Tensor | None = None, **_) -> Tensor:
        """tokens [B, T] -> [B, T] float32. Arguments as GPT.forward's; recorded experts, which are the policy's, have no effect."""
        return self.head(self.gpt(tokens, cache, positions, return_hidden=True, counted=counted))[..., 0].float()

    def values(self, prompts: Cache, which: Tensor, responses: Responses, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(values [b, R] before each response token of some rows, their mask [b, R]); row i continues prompts[which[i]]."""
        R = max(responses.lengths[i] for i in rows.tolist())
        positions = responses.positions[rows, :R]
        return self(responses.inputs[rows, :R], prompts.select(which), positions), positions >= 0

    @torch.no_grad()
    def advantages(self, batch: Rollout, rewards: Tensor, cfg: GRPOConfig) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(advantages [B, R] with mean 0 and deviation 1 over the rollout's tokens, returns [B, R] to learn from, metrics); rewards [B]."""
        responses = Responses.of(batch)
        mask = responses.positions >= 0  # [B, R]
        values = torch.zeros(mask.shape, device=mask.device)
        asked, counted, micro = share(list(range(len(mask) // cfg.group_size)), responses, cfg)
        with parallel.gathered(self), phase("scoring"):
            prompts = read_prompts(self, batch, asked, counted) if asked else Cache()
            for rows, which in micro:
                found, inside = self.values(prompts, which, responses, rows)
                values[rows, : found.shape[1]] = found.masked_fill(~inside, 0.0)
        values = parallel.add_up(values)  # each process has those of its rows
        raw = gae(rewards, values, mask, cfg.gae_lambda)
        returns = raw + values
        scaled = (raw - raw[mask].mean()) / raw[mask].std(correction=0).clamp(min=1e-8)
        left, spread = (rewards[:, None] - values)[mask].var(correction=0).item(), rewards[:, None].expand_as(values)[mask].var(correction=0).item()
        return scaled.masked_fill(~mask, 0.0), returns, {"critic/explained_variance": 1 - left / spread if spread else 0.0}

    def fit(self, batch: Rollout, returns: Tensor, cfg: GRPOConfig, lr: float, rng: random.Random) -> dict[str, float]:
        """cfg.minibatches optimiser steps over a rollout, on the mean over tokens of (V - return)^2; see grpo.update."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        responses, G, losses, norms, skipped = Responses.of(batch), cfg.group_size, 0.0, 0.0, 0
        minis = minibatches(list(range(len(returns) // G)), cfg, rng)
        for mini in minis:
            tokens = sum(responses.lengths[q * G + j] for q in mini for j in range(G))
            asked, counted, micro = share(mini, responses, cfg)
            total = 0.0
            with parallel.gathered(self):
                with phase("forward"):
                    prompts = read_prompts(self, batch, asked, counted) if asked else Cache()
                leaves = prompts.detached()
                for rows, which in micro:
                    with phase("forward"):
                        values, mask = self.values(leaves, which, responses, rows)
                        loss = (values - returns[rows, : mask.shape[1]])[mask].square().sum() / tokens
                    with phase("backward"):
                        loss.backward()
                    total += loss.item()
                with phase("backward"):
                    prompts.backward(leaves)
                    parallel.sum_gradients(self, batch.tokens[:1, :1])
            (total,) = parallel.total([total])
            with phase("optimiser"):
                norm, sound = parallel.step(self, [self.optimizer], cfg.max_grad_norm, total)
            if sound:
                losses, norms = losses + total, norms + norm
            skipped += not sound
            self.gpt.update_balance()
        taken = max(len(minis) - skipped, 1)
        # weights, gradients and two moments of this process's share, in float32
        held = 16 * sum(p.numel() for p in self.parameters()) / parallel.size()
        return {"critic/loss": losses / taken, "critic/grad_norm": norms / taken, "memory/critic_gib": held / 2**30, "skipped_steps": skipped}


def make(gpt: GPT, cfg) -> Critic:
    """A critic that begins as this network and expects nothing (its head is 0); cfg is a config.Config."""
    critic = parallel.shard(Critic(gpt), gpt.blocks(), cfg)
    critic.optimizer = torch.optim.AdamW(critic.parameters(), cfg.grpo.critic_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return critic
