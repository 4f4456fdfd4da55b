"""PPO's critic against explicit references, and its runs."""

import copy
import doctest
import json
import math
import os
import random
import signal

import pytest
import torch
from conftest import run
from test_grpo import fake_rollout

import config
import grpo
import parallel
import ppo
from data import Problem
from grpo import GRPOConfig


def test_doctests():
    assert doctest.testmod(ppo, extraglobs={"torch": torch}).failed == 0


def settings(**more):
    cfg = config.make()
    cfg.grpo = GRPOConfig(**({"advantage": "gae", "group_size": 4, "minibatches": 1, "micro_tokens": 30, "max_new_tokens": 14, "max_grad_norm": 1e9} | more))
    return cfg


def critic_with_opinions(model, cfg):
    """A critic whose head is not 0."""
    critic = ppo.make(copy.deepcopy(model), cfg)
    with torch.no_grad():
        critic.head.weight.normal_()
        critic.head.bias.fill_(0.3)
    return critic


def explicit_gae(reward, values, lam):
    """The sum of all later errors, lam^l each: lists over one response's tokens."""
    n = len(values)
    delta = [(reward if t == n - 1 else 0.0) + (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [sum(lam**later * delta[t + later] for later in range(n - t)) for t in range(n)]


def explicit_values(critic, batch):
    """For each response, V before each of its tokens, from the tokens up to there and nothing else."""
    critic.eval()
    with torch.no_grad():
        out = [[(critic.gpt(row[None, :t], return_hidden=True)[0, -1] @ critic.head.weight[0] + critic.head.bias[0]).item() for t in range(start, end)]
               for row, start, end in zip(batch.tokens, batch.prompt_lengths.tolist(), batch.lengths.tolist())]
    critic.train()
    return out


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_against_the_sum(lam):
    g = torch.Generator().manual_seed(0)
    values, rewards = torch.randn(5, 6, generator=g, dtype=torch.float64), torch.randn(5, generator=g, dtype=torch.float64)
    lengths = [6, 1, 3, 2, 5]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    got = ppo.gae(rewards, values, mask, lam)
    for b, n in enumerate(lengths):
        assert got[b, :n].tolist() == pytest.approx(explicit_gae(rewards[b].item(), values[b, :n].tolist(), lam), abs=1e-12)
        assert (got[b, n:] == 0).all()
        if lam == 1:
            assert got[b, :n].tolist() == pytest.approx((rewards[b] - values[b, :n]).tolist())


def test_without_values_and_with_lambda_one_ppo_is_reinforce():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert ppo.gae(torch.tensor([2.0, -1.0]), torch.zeros(2, 3), mask, 1.0).tolist() == [[2, 2, 0], [-1, -1, -1]]


@pytest.mark.parametrize("lam", [0.95, 1.0])
def test_values_advantages_and_returns_of_a_rollout(tiny_model, lam):
    cfg = settings(gae_lambda=lam)
    critic, rewards = critic_with_opinions(tiny_model, cfg), torch.randn(12)
    batch, _ = fake_rollout(tiny_model)
    advantages, returns, metrics = critic.advantages(batch, rewards, cfg.grpo)
    values = explicit_values(critic, batch)
    raw = [explicit_gae(r, v, lam) for r, v in zip(rewards.tolist(), values)]
    flat = [x for row in raw for x in row]
    mean = sum(flat) / len(flat)
    std = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat))
    for b, row in enumerate(raw):
        n = len(row)
        assert advantages[b, :n].tolist() == pytest.approx([(x - mean) / std for x in row], abs=1e-3) and (advantages[b, n:] == 0).all()
        assert returns[b, :n].tolist() == pytest.approx([x + v for x, v in zip(row, values[b])], abs=1e-3)
    errors, wanted = (torch.tensor([r - (v if kind else 0) for r, row in zip(rewards.tolist(), values) for v in row]) for kind in (1, 0))
    assert metrics["critic/explained_variance"] == pytest.approx(1 - (errors.var() / wanted.var()).item(), rel=1e-3)


def test_the_critic_s_gradient_is_that_of_the_squared_error(tiny_model):
    cfg = settings()
    critic, seen = critic_with_opinions(tiny_model, cfg), {}
    batch, mask = fake_rollout(tiny_model)
    R = int((batch.lengths - batch.prompt_lengths).max())
    returns = torch.randn(12, R)

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({n: p.grad.clone() for n, p in critic.named_parameters() if p.grad is not None})

    critic.optimizer = Spy(critic.parameters(), lr=0.1)
    metrics = critic.fit(batch, returns, cfg.grpo, 0.1, random.Random(0))
    critic.eval()
    total = 0.0
    for row, start, end, wanted in zip(batch.tokens, batch.prompt_lengths.tolist(), batch.lengths.tolist(), returns):
        hidden = critic.gpt(row[None, : end - 1], return_hidden=True)[0, start - 1 :]  # after the token before each of the response's
        total = total + (hidden @ critic.head.weight[0] + critic.head.bias[0] - wanted[: end - start]).square().sum()
    loss = total / mask.sum()
    critic.zero_grad()
    loss.backward()
    assert metrics["critic/loss"] == pytest.approx(loss.item(), rel=1e-4)
    for n, p in critic.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(seen[n], p.grad, atol=1e-3, rtol=1e-3)


def test_the_critic_learns_what_to_expect(tiny_model):
    """The reward is the prompt's number: after some passes it is known before the first token."""
    cfg = settings(critic_lr=5e-3, minibatches=3, max_grad_norm=1.0)
    critic, rewards = ppo.make(copy.deepcopy(tiny_model), cfg), torch.arange(3.0).repeat_interleave(4)
    batch, _ = fake_rollout(tiny_model)
    explained = []
    for number in range(25):
        _, returns, metrics = critic.advantages(batch, rewards, cfg.grpo)
        explained.append(metrics["critic/explained_variance"])
        critic.fit(batch, returns, cfg.grpo, cfg.grpo.critic_lr, random.Random(number))
    assert explained[0] == pytest.approx(0, abs=1e-6) and explained[-1] > 0.9


def test_groups_without_spread_train_too(tiny_model):
    cfg = settings()
    critic = critic_with_opinions(tiny_model, cfg)
    batch, mask = fake_rollout(tiny_model)
    advantages, _, _ = critic.advantages(batch, torch.ones(12), cfg.grpo)
    metrics = grpo.update(tiny_model, grpo.make_optimizer(tiny_model, cfg.grpo), batch, advantages, cfg.grpo, 1e-3, random.Random(0))
    assert metrics["trained_tokens"] == mask.sum() and metrics["grad_norm"] > 0


def test_a_run_stopped_and_resumed_is_bit_identical(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    base, cfg = str(tmp_path / "base"), settings(minibatches=2, max_grad_norm=1.0, steps=4, save_every=2, gae_lambda=0.95)
    world_tokenizer.save(base)
    tiny_model.save_pretrained(base)
    monkeypatch.setattr(grpo.rw, "score_all", lambda problems, texts, cfg: [
        {"accuracy": len(t) % 2, "format": 0.0, "language": 1.0, "total": float(len(t) % 2)} for t in texts])

    def train(out, resume, stop=None):
        torch.manual_seed(9 if resume else 0)

        def draw(number):
            if number == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return [Problem(f"Tom has {number} {thing}", "", "math") for thing in ("apples", "cards")]

        return grpo.train(cfg, base, str(tmp_path / out), resume, "zero", draw)

    train("straight", False)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", False, stop=2)
    train("stopped", True)
    ends = []
    for out in ("straight", "stopped"):
        last = parallel.checkpoints(str(tmp_path / out))[-1]
        known = parallel.dcp.FileSystemReader(last).read_metadata().state_dict_metadata
        ends.append(parallel.load(last, {k: torch.zeros(x.size, dtype=x.properties.dtype) for k, x in known.items()}))
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(x, ends[1][k]) for k, x in ends[0].items())
    assert ends[0]["critic.head.weight"].abs().max() > 0 and ends[0]["moments.critic.head.weight.exp_avg"].abs().max() > 0
    logs = [[json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()] for out in ("straight", "stopped")]
    timing = ("time", "timing", "throughput")
    a, b = ([{k: v for k, v in row.items() if not any(t in k for t in timing)} for row in log] for log in logs)
    assert a == b and [row["step"] for row in a] == [1, 2, 3, 4]
    assert all(row["timing/critic_s"] > 0 and row["memory/critic_gib"] > 0 for row in logs[0])


def test_a_critic_needs_a_model(monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, "grpo", "--profile", "--algorithm", "ppo")
    assert status == 2 and "a critic begins as a copy of the model" in err and err.count("\n") == 1
