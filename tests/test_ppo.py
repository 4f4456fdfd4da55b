"""PPO's critic against explicit references, and its runs."""

import doctest
import json
import math
import os
import random
import signal

import pytest
import torch
from conftest import run
from test_grpo import fake_rollout, make_learner

import config
import grpo
from algorithms import ppo
from data import Problem
from grpo import GRPOConfig
from lib import run as runs
from lib.trainer import Trainer


def test_doctests():
    assert doctest.testmod(ppo, extraglobs={"torch": torch}).failed == 0


def settings(**more):
    cfg = config.make(grpo.Config)
    given = {"group_size": 4, "minibatches": 1, "micro_tokens": 30, "max_new_tokens": 14}
    cfg.grpo = GRPOConfig(**(given | {"max_grad_norm": 1e9} | more))
    return cfg


@pytest.fixture
def base(tiny_model, tmp_path):
    """The folder of the small model."""
    folder = str(tmp_path / "base")
    tiny_model.save_pretrained(folder)
    return folder


def critic_with_opinions(base, cfg, gae_lambda=1.0):
    """A critic whose head is not 0."""
    critic = ppo.make_critic(base, cfg, gae_lambda)
    with torch.no_grad():
        critic.head.weight.normal_()
        critic.head.bias.fill_(0.3)
    return critic


def explicit_gae(reward, values, lam):
    """The sum of all later errors, lam^l each: lists over one response's tokens."""
    n = len(values)
    ahead, rewards = [*values[1:], 0.0], [0.0] * (n - 1) + [reward]
    delta = [r + v_next - v for r, v_next, v in zip(rewards, ahead, values)]
    return [sum(lam**later * delta[t + later] for later in range(n - t)) for t in range(n)]


def explicit_values(critic, batch):
    """For each response, V before each of its tokens, from the tokens before it alone."""
    critic.eval()
    out = []
    with torch.no_grad():
        starts, ends = batch.prompt_lengths.tolist(), batch.lengths.tolist()
        for row, start, end in zip(batch.tokens, starts, ends):
            out.append([])
            for t in range(start, end):
                hidden = critic.gpt(row[None, :t], return_hidden=True)[0, -1]
                out[-1].append((hidden @ critic.head.weight[0] + critic.head.bias[0]).item())
    critic.train()
    return out


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_against_the_sum(lam):
    g = torch.Generator().manual_seed(0)
    values = torch.randn(5, 6, generator=g, dtype=torch.float64)
    rewards = torch.randn(5, generator=g, dtype=torch.float64)
    lengths = [6, 1, 3, 2, 5]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    got = ppo.gae(rewards, values, mask, lam)
    for b, n in enumerate(lengths):
        expected = explicit_gae(rewards[b].item(), values[b, :n].tolist(), lam)
        assert got[b, :n].tolist() == pytest.approx(expected, abs=1e-12)
        assert (got[b, n:] == 0).all()
        if lam == 1:
            assert got[b, :n].tolist() == pytest.approx((rewards[b] - values[b, :n]).tolist())


def test_without_values_and_with_lambda_one_ppo_is_reinforce():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    advantages = ppo.gae(torch.tensor([2.0, -1.0]), torch.zeros(2, 3), mask, 1.0)
    assert advantages.tolist() == [[2, 2, 0], [-1, -1, -1]]


@pytest.mark.parametrize("lam", [0.95, 1.0])
def test_values_advantages_and_returns_of_a_rollout(tiny_model, base, lam):
    cfg = settings()
    critic, rewards = critic_with_opinions(base, cfg, lam), torch.randn(12)
    batch, _ = fake_rollout(tiny_model)
    advantages, returns, metrics = critic.advantages(batch, rewards, cfg.grpo)
    values = explicit_values(critic, batch)
    raw = [explicit_gae(r, v, lam) for r, v in zip(rewards.tolist(), values)]
    flat = [x for row in raw for x in row]
    mean = sum(flat) / len(flat)
    std = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat))
    for b, row in enumerate(raw):
        n = len(row)
        scaled = [(x - mean) / std for x in row]
        assert advantages[b, :n].tolist() == pytest.approx(scaled, abs=1e-3)
        assert (advantages[b, n:] == 0).all()
        wanted = [x + v for x, v in zip(row, values[b])]
        assert returns[b, :n].tolist() == pytest.approx(wanted, abs=1e-3)
    pairs = [(r, v) for r, row in zip(rewards.tolist(), values) for v in row]
    errors, wanted = torch.tensor([r - v for r, v in pairs]), torch.tensor([r for r, _ in pairs])
    explained = 1 - (errors.var() / wanted.var()).item()
    assert metrics["critic/explained_variance"] == pytest.approx(explained, rel=1e-3)


def test_the_critic_s_gradient_is_that_of_the_squared_error(tiny_model, base):
    cfg = settings()
    critic, seen = critic_with_opinions(base, cfg), {}
    batch, mask = fake_rollout(tiny_model)
    R = int((batch.lengths - batch.prompt_lengths).max())
    returns = torch.randn(12, R)

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            grads = {n: p.grad for n, p in critic.named_parameters() if p.grad is not None}
            seen.update({n: g.clone() for n, g in grads.items()})

    critic.trainer = Trainer(critic, [Spy(critic.parameters(), lr=0.1)], 1e9)
    metrics = critic.fit(batch, returns, cfg.grpo, 1.0, random.Random(0))
    critic.eval()
    total = 0.0
    rows = zip(batch.tokens, batch.prompt_lengths.tolist(), batch.lengths.tolist(), returns)
    for row, start, end, wanted in rows:  # the value after the token before each of the response's
        hidden = critic.gpt(row[None, : end - 1], return_hidden=True)[0, start - 1 :]
        values = hidden @ critic.head.weight[0] + critic.head.bias[0]
        total = total + (values - wanted[: end - start]).square().sum()
    loss = total / mask.sum()
    critic.zero_grad()
    loss.backward()
    assert metrics["critic/loss"] == pytest.approx(loss.item(), rel=1e-4)
    for n, p in critic.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(seen[n], p.grad, atol=1e-3, rtol=1e-3)


def test_the_critic_learns_what_to_expect(tiny_model, base):
    """The reward is the prompt's number: after some passes it is known before the first token."""
    cfg = settings(minibatches=3, max_grad_norm=1.0)
    critic = ppo.make_critic(base, cfg, critic_lr=5e-3)
    rewards = torch.arange(3.0).repeat_interleave(4)
    batch, _ = fake_rollout(tiny_model)
    explained = []
    for number in range(25):
        _, returns, metrics = critic.advantages(batch, rewards, cfg.grpo)
        explained.append(metrics["critic/explained_variance"])
        critic.fit(batch, returns, cfg.grpo, 1.0, random.Random(number))
    assert explained[0] == pytest.approx(0, abs=1e-6) and explained[-1] > 0.9


def test_the_learning_rate_follows_the_policy_s(tiny_model, base):
    cfg = settings()
    critic = ppo.make_critic(base, cfg)
    batch, _ = fake_rollout(tiny_model)
    _, returns, _ = critic.advantages(batch, torch.randn(12), cfg.grpo)
    for factor in (0.5, 0.1):
        critic.fit(batch, returns, cfg.grpo, factor, random.Random(0))
        assert critic.trainer.optimizers[0].param_groups[0]["lr"] == 1e-3 * factor


def test_groups_without_spread_train_too(tiny_model, base):
    cfg = settings()
    critic = critic_with_opinions(base, cfg)
    batch, mask = fake_rollout(tiny_model)
    advantages, _, _ = critic.advantages(batch, torch.ones(12), cfg.grpo)
    learner = make_learner(tiny_model, group_size=4, minibatches=1, lr=1e-3)
    metrics = learner.update(batch, advantages, 1.0, random.Random(0))
    assert metrics["trained_tokens"] == mask.sum() and metrics["grad_norm"] > 0


def end_of(folder):
    """All tensors of a run's last checkpoint."""
    last = runs.checkpoints(folder)[-1]
    known = runs.dcp.FileSystemReader(last).read_metadata().state_dict_metadata
    empty = {k: torch.zeros(x.size, dtype=x.properties.dtype) for k, x in known.items()}
    return runs.load_checkpoint(last, empty)


def test_a_run_stopped_and_resumed_is_bit_identical(base, world_tokenizer, tmp_path, monkeypatch):
    more = dict(minibatches=2, max_grad_norm=1.0, steps=4, save_every=2, algorithm="ppo-0.95")
    cfg = settings(**more)
    world_tokenizer.save(base)

    def score_all(problems, texts, cfg):
        scores = [float(len(t) % 2) for t in texts]
        return [{"accuracy": s, "format": 0.0, "language": 1.0, "total": s} for s in scores]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)

    def train(out, resume, stop=None):
        torch.manual_seed(9 if resume else 0)

        def next_problems(number):
            if number == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return [Problem(f"Tom has {number} {x}", "", "math") for x in ("apples", "cards")]

        return grpo.train(cfg, base, str(tmp_path / out), resume, "zero", next_problems)

    train("straight", False)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", False, stop=2)
    train("stopped", True)
    a, b = (end_of(str(tmp_path / out)) for out in ("straight", "stopped"))
    assert a.keys() == b.keys() and all(torch.equal(x, b[k]) for k, x in a.items())
    assert a["critic.head.weight"].abs().max() > 0
    assert a["moments.critic.head.weight.exp_avg"].abs().max() > 0
    logs = []
    for out in ("straight", "stopped"):
        lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
    assert all(row["timing/critic_s"] > 0 and row["memory/critic_gib"] > 0 for row in logs[0])
    timing = ("time", "timing", "throughput")
    for log in logs:
        for row in log:
            for key in [k for k in row if any(t in k for t in timing)]:
                del row[key]
    assert logs[0] == logs[1] and [row["step"] for row in logs[0]] == [1, 2, 3, 4]


def test_a_critic_needs_a_model(monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, "profile_grpo", "--algorithm", "ppo")
    assert status == 2 and "a critic starts from a model" in err and err.count("\n") == 1
