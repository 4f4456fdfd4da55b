"""The critic that GRPO does without: proximal policy optimisation, its baseline [1707.06347].

    python train_zero.py --algorithm ppo

Only the advantages differ from GRPO's. A second network of the policy's size, initialised as its
copy, predicts before each token what reward to expect, and generalised advantage estimation
[1506.02438] says how much better things went. The whole reward comes with a response's last token,
and nothing is discounted (gamma = 1). Simplified: the critic's loss is the plain squared error, not
clipped around the old values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from grpo import GRPOConfig
from lib import distributed, metrics
from lib.cache import GrowingCache
from lib.optim import adamw
from lib.profiling import phase
from lib.trainer import LocalWork, Responses, Trainer, micro_batches_of, minibatches
from model import GPT
from reward_model import RewardModel
from sample import Rollout


def gae(rewards: Tensor, values: Tensor, mask: Tensor, lam: float) -> Tensor:
    """A_t = delta_t + lam A_{t+1}, delta_t = r_t + V_{t+1} - V_t [1506.02438, eq 16 with gamma 1].

    rewards [B], earned at each row's last token; values [B, T], V_t is expected before token t is
    drawn; mask [B, T] bool, the response's tokens. Returns [B, T], 0 outside the responses.

    >>> mask = torch.tensor([[True, True, False]])
    >>> gae(torch.tensor([1.0]), torch.tensor([[0.5, 0.25, 9.0]]), mask, 0.5).tolist()
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
    """GPT with a number at every token: the reward to expect once it has been read."""

    trainer: Trainer
    gae_lambda: float

    def forward(self, tokens: Tensor, cache=None, positions=None, counted=None, **_) -> Tensor:
        """tokens [B, T] -> [B, T] float32; not with recorded experts, which are the policy's."""
        hidden = self.gpt(tokens, cache, positions, return_hidden=True, counted=counted)
        return self.head(hidden)[..., 0].float()

    def values(self, prompts: GrowingCache, rows, which, responses) -> tuple[Tensor, Tensor]:
        """(values [b, R] before the response tokens of a micro-batch, their mask [b, R])."""
        R = max(responses.lengths[i] for i in rows.tolist())
        positions = responses.positions[rows, :R]
        return self(responses.inputs[rows, :R], prompts.select(which), positions), positions >= 0

    @torch.no_grad()
    def advantages(self, batch: Rollout, rewards: Tensor, cfg: GRPOConfig):
        """rewards [B] -> (advantages [B, R], over all tokens of mean 0 and deviation 1, returns
        [B, R] to learn from, metrics)."""
        responses = Responses.of(batch)
        mask = responses.positions >= 0  # [B, R]
        values = torch.zeros(mask.shape, device=mask.device)
        questions = list(range(len(mask) // cfg.group_size))
        work = LocalWork.of(questions, responses, cfg.group_size, cfg.micro_tokens)
        with distributed.gathered(self), phase("scoring"):
            for rows, which, prompts in micro_batches_of(self, batch, work):
                found, inside = self.values(prompts, rows, which, responses)
                values[rows, : found.shape[1]] = found.masked_fill(~inside, 0.0)
        distributed.all_reduce(values)  # each process has those of its rows
        raw = gae(rewards, values, mask, self.gae_lambda)
        scaled = (raw - raw[mask].mean()) / raw[mask].std(correction=0).clamp(min=1e-8)
        rest = (rewards[:, None] - values)[mask].var(correction=0).item()
        spread = rewards[:, None].expand_as(values)[mask].var(correction=0).item()
        logged = {"critic/explained_variance": 1 - rest / spread if spread else 0.0}
        return scaled.masked_fill(~mask, 0.0), raw + values, logged

    def fit(self, batch: Rollout, returns: Tensor, cfg: GRPOConfig, factor: float, rng):
        """cfg.minibatches steps over a rollout, on the mean over tokens of (V - return)^2, with a
        factor on the learning rate; returns metrics."""
        responses, G, steps = Responses.of(batch), cfg.group_size, []
        questions = list(range(len(returns) // G))
        minis = minibatches(questions, len(questions) / cfg.minibatches, rng)
        for questions in minis:
            tokens = sum(responses.lengths[q * G + j] for q in questions for j in range(G))
            work = LocalWork.of(questions, responses, G, cfg.micro_tokens)
            with self.trainer.optimizer_step(factor) as step:
                for rows, which, prompts in micro_batches_of(self, batch, work):
                    with phase("forward"):
                        values, mask = self.values(prompts, rows, which, responses)
                        errors = (values - returns[rows, : mask.shape[1]])[mask]
                        loss = errors.square().sum() / tokens
                    step.backward(loss)
            steps.append(step)
        # this process's part of weights, gradients and two moments, in float32
        held = 16 * sum(p.numel() for p in self.parameters()) / distributed.world_size()
        logged = metrics.of_steps(steps)
        out = {f"critic/{name}": logged[name] for name in ("loss", "grad_norm")}
        return out | {"memory/critic_gib": held / 2**30, "skipped_steps": logged["skipped_steps"]}


def make_critic(folder: str, cfg, gae_lambda: float = 1.0, critic_lr: float = 1e-3) -> Critic:
    """A critic that begins as the model in a folder and expects nothing (its head is 0)."""
    gpt = GPT.from_pretrained(folder)
    critic = distributed.shard(Critic(gpt), gpt.layers, cfg)
    optimizers = [adamw(critic.parameters(), critic_lr)]
    critic.trainer = Trainer(critic, optimizers, cfg.grpo.max_grad_norm)
    critic.gae_lambda = gae_lambda
    return critic
