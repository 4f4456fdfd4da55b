"""GRPO's pieces against explicit float64 references."""

import doctest
import math
import random

import pytest
import torch
from conftest import token_logprobs

import grpo
from data import Problem, World, WorldConfig
from grpo import ALGORITHMS, GRPOConfig, group_advantages, policy_loss
from rewards import RewardConfig
from sample import Rollout


def test_doctests():
    assert doctest.testmod(grpo, extraglobs={"torch": torch}).failed == 0


def test_advantages_by_hand():
    a = group_advantages(torch.tensor([1.0, 2, 3, 6, 0.1, 0.1, 0.1, 0.1]), 4)
    std = math.sqrt((4 + 1 + 0 + 9) / 4)
    assert a.tolist() == pytest.approx([-2 / std, -1 / std, 0, 3 / std, 0, 0, 0, 0])


def test_advantages_of_rounding_noise_are_zero():
    r = torch.tensor([1.2, 1.2 + 1e-7, 1.2, 1.2 - 1e-7])
    assert group_advantages(r, 4).tolist() == [0, 0, 0, 0]


def test_advantages_do_not_mix_groups():
    r = torch.rand(6, 5)
    together = group_advantages(r.flatten(), 5)
    apart = torch.cat([group_advantages(g, 5) for g in r])
    torch.testing.assert_close(together, apart)
    assert together.view(6, 5).mean(1).abs().max() < 1e-6
    torch.testing.assert_close(group_advantages(r.flatten() * 3 + 7, 5), together, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="kind"):
        group_advantages(r.flatten(), 5, kind="other")


def case(B=5, T=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(B, T, generator=g, dtype=torch.float64) * 3
    old = logprobs + torch.randn(B, T, generator=g, dtype=torch.float64) * 0.3
    ref = logprobs + torch.randn(B, T, generator=g, dtype=torch.float64) * 0.3
    advantages = torch.randn(B, generator=g, dtype=torch.float64)
    starts, ends = torch.tensor([1, 2, 1, 3, 2])[:B, None], torch.tensor([7, 4, 2, 7, 6])[:B, None]
    slots = torch.arange(T)
    return logprobs, old, ref, advantages, (slots >= starts) & (slots < ends)


def explicit_loss(logprobs, old, ref, advantages, mask, cfg, token_mean):
    """The paper's formula with loops over plain numbers (tensors of one element, to keep the gradient)."""
    rows, tokens = [], []
    for b in range(len(mask)):
        terms = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                rho, A = torch.exp(logprobs[b, t] - old[b, t]), advantages[b]
                clipped = torch.clip(rho, 1 - cfg.clip_low, 1 + cfg.clip_high)
                term = torch.minimum(rho * A, clipped * A)
                r = torch.exp(ref[b, t] - logprobs[b, t])
                terms.append(term - cfg.kl_beta * (r - torch.log(r) - 1))
        rows.append(sum(terms) / len(terms))
        tokens += terms
    return -(sum(tokens) / len(tokens) if token_mean else sum(rows) / len(rows))


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("beta,low,high", [(0.0, 0.2, 0.2), (0.1, 0.2, 0.28), (0.5, 0.05, 10.0)])
def test_loss_and_gradient_in_float64(average, beta, low, high):
    cfg = GRPOConfig(average=average, kl_beta=beta, clip_low=low, clip_high=high)
    for seed in range(5):
        logprobs, old, ref, advantages, mask = case(seed=seed)
        logprobs.requires_grad_()
        loss, _ = policy_loss(logprobs, old, advantages, mask, cfg, ref)
        expected = explicit_loss(logprobs, old, ref, advantages, mask, cfg, average == "token")
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        for a, b in zip(torch.autograd.grad(loss, logprobs), torch.autograd.grad(expected, logprobs)):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
            assert (a[~mask] == 0).all()


def test_gradient_against_finite_differences():
    logprobs, old, ref, advantages, mask = case()
    cfg = GRPOConfig(kl_beta=0.1)
    assert torch.autograd.gradcheck(lambda x: policy_loss(x, old, advantages, mask, cfg, ref)[0], logprobs.requires_grad_())


def test_at_ratio_one_the_gradient_is_reinforce():
    logprobs, _, _, advantages, mask = case()
    logprobs.requires_grad_()
    loss, metrics = policy_loss(logprobs, logprobs.detach(), advantages, mask, GRPOConfig(average="sequence"))
    (got,) = torch.autograd.grad(loss, logprobs)
    reinforce = -advantages[:, None] * mask / mask.sum(1, keepdim=True) / len(mask)
    torch.testing.assert_close(got, reinforce)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0


def test_clipping_by_hand():
    """Ratio 1.5: clipped at 1.2 for a good response (no gradient), not for a bad one; ratio 0.5 the other way round."""
    cfg = GRPOConfig()
    for ratio, advantage, value, gradient in [(1.5, 1.0, -1.2, 0.0), (1.5, -1.0, 1.5, 1.5), (0.5, 1.0, -0.5, -0.5), (0.5, -1.0, 0.8, 0.0)]:
        x = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
        loss, metrics = policy_loss(x, torch.zeros_like(x), torch.tensor([advantage]), torch.ones(1, 1), cfg)
        loss.backward()
        assert loss.item() == pytest.approx(value) and x.grad.item() == pytest.approx(gradient)
        assert metrics["clip_ratio/high_mean"] == (ratio > 1 and advantage > 0) and metrics["clip_ratio/low_mean"] == (ratio < 1 and advantage < 0)


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_micro_batches_add_up(average):
    cfg = GRPOConfig(average=average)
    logprobs, old, _, advantages, mask = case()
    whole, _ = policy_loss(logprobs, old, advantages, mask, cfg)
    normalizer = 5.0 if average == "sequence" else mask.sum().item()
    parts = [policy_loss(logprobs[s], old[s], advantages[s], mask[s], cfg, normalizer=normalizer)[0] for s in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(sum(parts), whole)


def fake_rollout(model, questions=3, group=4, T=14):
    """Groups that share a prompt of 1 to 5 tokens; responses of any length."""
    B = questions * group
    lengths = torch.randint(6, T + 1, (B,))
    prompt_lengths = torch.tensor([5, 1, 3])[:questions].repeat_interleave(group)
    tokens = torch.randint(0, 100, (B, T))
    for q in range(questions):
        tokens[q * group : (q + 1) * group, : prompt_lengths[q * group]] = torch.randint(0, 100, (prompt_lengths[q * group],))
    slots = torch.arange(T)
    mask = (slots >= prompt_lengths[:, None]) & (slots < lengths[:, None])
    logprobs = token_logprobs(model, tokens, 1.0, mask).detach()
    return Rollout(tokens, prompt_lengths, lengths, logprobs, torch.ones(B, dtype=torch.bool)), mask


def gradient_of_update(model, batch, advantages, cfg):
    """The gradient that one optimiser step of `update` sees, before clipping."""
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    model.train()
    metrics = grpo.update(model, Spy(model.parameters(), lr=0.1), batch, advantages, cfg, 0.1, random.Random(0))
    return seen, metrics


def test_update_is_the_gradient_of_the_objective(tiny_model):
    """Prompts read once a group, several micro-batches, ragged rows, a group without spread = the explicit objective's gradient."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    advantages = torch.randn(12)
    advantages[4:8] = 0.0
    cfg = GRPOConfig(group_size=4, minibatches=1, micro_tokens=30, max_grad_norm=1e9, average="sequence")
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, cfg)
    logprobs = torch.stack([torch.stack([torch.zeros(())] + [tiny_model(batch.tokens[b : b + 1, :t])[0, -1].log_softmax(-1)[batch.tokens[b, t]]
                                                             for t in range(1, 14)]) for b in range(12)])
    keep = advantages != 0
    assert keep.sum() == 8
    loss = explicit_loss(logprobs[keep], batch.logprobs[keep], batch.logprobs[keep], advantages[keep], mask[keep], cfg, False)
    tiny_model.zero_grad()
    loss.backward()
    for n, p in tiny_model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(seen[n], p.grad, atol=2e-5, rtol=1e-3)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_micro_batch_size_does_not_matter(tiny_model, average):
    batch, _ = fake_rollout(tiny_model)
    advantages = torch.randn(12)
    big, _ = gradient_of_update(tiny_model, batch, advantages, GRPOConfig(group_size=4, minibatches=1, micro_tokens=10_000, average=average, max_grad_norm=1e9))
    small, _ = gradient_of_update(tiny_model, batch, advantages, GRPOConfig(group_size=4, minibatches=1, micro_tokens=1, average=average, max_grad_norm=1e9))
    for n in big:
        torch.testing.assert_close(big[n], small[n], atol=1e-5, rtol=1e-3)


def test_truncated_importance_sampling(tiny_model):
    """The sampler's log p are off by a known amount: the ratio stays 1 and each token's gradient is weighed, up to the cap."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    off = torch.randn(mask.shape) * mask
    batch.logprobs = batch.logprobs - off
    advantages = torch.randn(12)
    cfg = GRPOConfig(group_size=4, minibatches=1, micro_tokens=30, max_grad_norm=1e9, average="token", importance_cap=1.5)
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, cfg)
    logprobs = token_logprobs(tiny_model, batch.tokens, 1.0, mask)
    weights = off.exp().clamp(max=1.5)
    assert 0.1 < (weights[mask] == 1.5).float().mean() < 0.9
    tiny_model.zero_grad()
    (-(logprobs * weights * advantages[:, None] * mask).sum() / mask.sum()).backward()
    for n, p in tiny_model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(seen[n], p.grad, atol=2e-5, rtol=1e-3)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(off.abs().max().item(), abs=1e-4)


def test_recorded_experts_are_used_in_training(tiny_model, world_tokenizer):
    """After the rollout the router changes its mind; with the routes replayed, log p stay the sampler's."""
    problems = [Problem(text, "", "math") for text in ("Tom has 3", "Anna has 12 apples")]
    gaps = {}
    for replay in (True, False):
        cfg = GRPOConfig(group_size=4, minibatches=1, micro_tokens=40, max_new_tokens=8, replay_routes=replay)
        batch = grpo.rollout(tiny_model, world_tokenizer, problems, cfg, 0)
        (moe,) = tiny_model.moe_layers()
        if replay:
            lengths = batch.lengths[:, None] - 1  # the last token is drawn, never read
            read = (torch.arange(batch.tokens.shape[1]) < lengths)[..., None, None].expand_as(batch.routes)
            positions = torch.where(read[..., 0, 0], torch.arange(batch.tokens.shape[1]), -1)
            tiny_model(batch.tokens, positions=positions)
            assert batch.routes.shape == (8, batch.tokens.shape[1], 1, 2) and torch.equal(batch.routes[read], tiny_model.routes()[read])
        before = moe.gate.e_score_correction_bias.clone()
        moe.gate.e_score_correction_bias += torch.tensor([3.0, 2.0, 1.0, 0.0])  # now all tokens go to the first two
        gaps[replay] = grpo.update(tiny_model, torch.optim.SGD(tiny_model.parameters(), lr=0.0), batch, torch.randn(8), cfg, 0.0,
                                   random.Random(0))["sampling/sampling_logp_difference/max"]
        moe.gate.e_score_correction_bias.copy_(before)
    assert gaps[True] < 1e-4 < 1e-2 < gaps[False]


@pytest.mark.parametrize("kind", ["mla", "gqa"])
def test_recomputed_activations_change_nothing(tiny_model, kind):
    """Gradients and expert counts, with the prompt's cache in between."""
    import copy
    from dataclasses import replace

    from model import GPT

    model = tiny_model if kind == "mla" else GPT(replace(tiny_model.cfg, attention="gqa", n_kv_heads=1, head_dim=16))
    other = copy.deepcopy(model)
    batch, _ = fake_rollout(copy.deepcopy(model))
    advantages, cfg = torch.randn(12), GRPOConfig(group_size=4, minibatches=1, micro_tokens=30)
    for block in other.blocks():
        block.recompute = True
    (plain, a), (again, b) = (gradient_of_update(m, batch, advantages, cfg) for m in (model, other))
    assert a == pytest.approx(b, abs=1e-6) and a["moe/max_load"] == b["moe/max_load"]
    for n in plain:
        torch.testing.assert_close(plain[n], again[n])


def test_no_spread_no_step(tiny_model):
    batch, _ = fake_rollout(tiny_model)
    before = {n: p.clone() for n, p in tiny_model.named_parameters()}
    metrics = grpo.update(tiny_model, grpo.make_optimizer(tiny_model, GRPOConfig()), batch, torch.zeros(12), GRPOConfig(group_size=4), 1e-2, random.Random(0))
    assert all(torch.equal(p, before[n]) for n, p in tiny_model.named_parameters()) and metrics["grad_norm"] == 0


def test_kl_pulls_towards_the_reference(tiny_model):
    import copy

    ref = copy.deepcopy(tiny_model).requires_grad_(False)
    batch, _ = fake_rollout(tiny_model)
    cfg = GRPOConfig(group_size=4, minibatches=2, kl_beta=0.1)
    metrics = grpo.update(tiny_model, grpo.make_optimizer(tiny_model, cfg), batch, torch.randn(12), cfg, 1e-2, random.Random(0), ref)
    assert metrics["kl"] > 0  # zero before the first of the two updates, positive after it
    assert all(p.grad is None for p in ref.parameters())


def test_a_whole_step_reports_the_design_s_metrics(tiny_model, world_tokenizer, monkeypatch):
    monkeypatch.setattr(grpo.rw, "score_all", lambda problems, texts, cfg: [
        {"accuracy": len(t) % 2, "format": 0.0, "language": 1.0, "total": float(len(t) % 2)} for t in texts])
    cfg = GRPOConfig(group_size=4, max_new_tokens=12, minibatches=2)
    world = World(0, WorldConfig())
    problems = [world.problem(task, i) for i in range(2) for task in ("arithmetic", "countdown")]
    metrics, records = grpo.step(tiny_model, grpo.make_optimizer(tiny_model, cfg), world_tokenizer, problems, cfg, RewardConfig(), 0, 0)
    names = """reward reward_std rewards/accuracy/mean rewards/format/mean frac_reward_zero_std kl entropy grad_norm learning_rate num_tokens
        step_time completions/mean_length completions/min_length completions/max_length completions/clipped_ratio clip_ratio/low_mean
        clip_ratio/high_mean sampling/sampling_logp_difference/mean sampling/sampling_logp_difference/max timing/rollout_s timing/reward_s
        timing/train_s throughput/rollout_tok_s throughput/train_tok_s language_consistency reflection_words moe/max_load""".split()
    assert set(names) <= metrics.keys() and len(records) == 16
    assert [r["prompt"] for r in records[::4]] == [p.prompt for p in problems]
    assert metrics["learning_rate"] == pytest.approx(cfg.lr / 5)  # the first of five steps of warm-up
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4


def test_rewarded_token_becomes_likelier(tiny_model, world_tokenizer):
    """A reward for one token: after some steps, the model says it. The loop as a whole, on the smallest problem there is."""
    cfg = GRPOConfig(group_size=16, max_new_tokens=1, minibatches=1, lr=1e-2, warmup=1)
    target, prompt = 17, Problem("Tom", "", "math")
    optimizer = grpo.make_optimizer(tiny_model, cfg)
    with torch.no_grad():
        tiny_model.embed_tokens.weight.mul_(0.2)
    for number in range(80):
        batch = grpo.rollout(tiny_model, world_tokenizer, [prompt] * 4, cfg, number)
        said = batch.tokens[torch.arange(64), batch.prompt_lengths]
        advantages = group_advantages(-(said - target).abs().float(), 16)  # nearer is better
        grpo.update(tiny_model, optimizer, batch, advantages, cfg, cfg.lr, random.Random(number))
    assert (said - target).abs().float().mean() < 50  # a random token is 250 away


def test_a_judge_s_rewards_are_added_and_reported(tiny_model, world_tokenizer):
    problems = [World(0, WorldConfig()).problem(task, 0) for task in ("logic", "general")]
    cfg = GRPOConfig(group_size=2, max_new_tokens=4)
    batch = grpo.rollout(tiny_model, world_tokenizer, problems, cfg, 0)
    plain, _, _ = grpo.score_rollout(batch, world_tokenizer, problems, cfg, RewardConfig())
    totals, metrics, records = grpo.score_rollout(batch, world_tokenizer, problems, cfg, RewardConfig(),
                                                  lambda asked, texts: [{} if p.task == "logic" else {"helpful": 0.25, "safe": i / 8} for i, p in enumerate(asked)])
    assert (totals - plain).tolist() == pytest.approx([0, 0, 0.25 + 2 / 8, 0.25 + 3 / 8])
    assert metrics["rewards/helpful/mean"] == 0.25 and metrics["rewards/safe/mean"] == pytest.approx(2.5 / 8)  # over those that have one
    assert records[3]["rewards"]["total"] == pytest.approx(totals[3].item())


def test_the_learning_rate_rises_rests_and_falls(tiny_model, world_tokenizer, monkeypatch):
    used = []
    monkeypatch.setattr(grpo, "update", lambda *a: used.append(a[5]) or {"trained_tokens": 0.0})
    cfg = GRPOConfig(steps=20, group_size=2, max_new_tokens=2, lr=1.0, warmup=4, decay=0.5)
    for number in (*range(20), 25, 60):  # grpo.py --steps may go on beyond the schedule
        grpo.step(tiny_model, None, world_tokenizer, [World(0, WorldConfig()).problem("logic", 0)], cfg, RewardConfig(), number, 0)
    assert used[:4] == [0.25, 0.5, 0.75, 1.0] and used[4:11] == [1.0] * 7
    assert used[15] == pytest.approx(0.1 + 0.9 * 0.5) and used[19] == pytest.approx(0.1 + 0.9 * 0.1) and used[20:] == [0.1, 0.1]


# ---------------------------------------------------------------------------------------------- GRPO's relatives


def test_kinds_of_advantages_by_hand():
    rewards, groups = torch.rand(12, dtype=torch.float64), 3
    centred, rloo, batch = [], [], []
    for q in range(groups):
        own = rewards[4 * q : 4 * q + 4].tolist()
        for i, r in enumerate(own):
            centred.append(r - sum(own) / 4)
            rloo.append(r - sum(own[:i] + own[i + 1 :]) / 3)
            mean = sum(rewards.tolist()) / 12
            batch.append((r - mean) / math.sqrt(sum((x - mean) ** 2 for x in rewards.tolist()) / 12))
    for kind, expected in (("centred", centred), ("rloo", rloo), ("batch", batch)):
        assert group_advantages(rewards, 4, kind).tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(group_advantages(rewards, 4, "rloo"), group_advantages(rewards, 4, "centred") * 4 / 3)
    level = torch.tensor([1.0, 1, 3, 3])  # no group has spread, the batch has
    assert all(group_advantages(level, 2, kind).tolist() == [0, 0, 0, 0] for kind in ("grpo", "centred", "rloo"))
    assert group_advantages(level, 2, "batch").tolist() == [-1, -1, 1, 1]


def far_case(name, seed):
    """As case(), with responses whose ratio is near 1 and far from it, and an advantage a token for PPO."""
    logprobs, old, ref, advantages, mask = case(seed=seed)
    old = logprobs + (old - logprobs) * torch.tensor([1.0, 1.0, 1e-4, 1.0, 3.0], dtype=torch.float64)[:, None] + torch.tensor([0.0, 1.0, 0.0, -1.0, 1.0])[:, None]
    if name == "ppo":
        advantages = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logprobs, old, ref, advantages, mask


def papers_loss(name, logprobs, old, ref, advantages, mask, longest):
    """Each paper's objective, negated, token by token, with the paper's figures (the bounds of CISPO and V3.2 are ours); and how many tokens V3.2 masks."""

    def least(rho, A, low=0.2, high=0.2):
        return torch.minimum(rho * A, torch.clip(rho, 1 - low, 1 + high) * A)

    rows, masked = [], 0
    for b in range(len(mask)):
        inside = [t for t in range(mask.shape[1]) if mask[b, t]]
        rhos = {t: torch.exp(logprobs[b, t] - old[b, t]) for t in inside}
        drift = sum((old[b, t] - logprobs[b, t]).item() for t in inside) / len(inside)
        terms = []
        for t in inside:
            A = advantages[b, t] if name == "ppo" else advantages[b]
            if name == "dapo":
                term = least(rhos[t], A, high=0.28)
            elif name == "gspo":
                term = least(math.prod(rhos.values()) ** (1 / len(inside)), A, 3e-4, 4e-4)
            elif name == "cispo":
                term = min(rhos[t].item(), 5.0) * A * logprobs[b, t]
            elif name == "v3.2":
                away = A < 0 and drift > 0.5
                masked += away
                u = torch.exp(ref[b, t] - logprobs[b, t])
                term = (0.0 if away else least(rhos[t], A)) - 1e-3 * rhos[t] * (u - torch.log(u) - 1)
            else:
                term = least(rhos[t], A)
            terms.append(term)
        rows.append(terms)
    if name in ("gspo", "v3.2"):
        value = sum(sum(terms) / len(terms) for terms in rows) / len(rows)
    elif name in ("dr_grpo", "rloo"):
        value = sum(sum(terms) for terms in rows) / (len(rows) * longest)
    else:
        value = sum(sum(terms) for terms in rows) / sum(map(len, rows))
    return -value, masked


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_s_loss_and_gradient_are_its_paper_s(name):
    cfg = GRPOConfig(**ALGORITHMS[name], max_new_tokens=9)
    masked = tokens = 0
    for seed in range(5):
        logprobs, old, ref, advantages, mask = far_case(name, seed)
        logprobs.requires_grad_()
        loss, metrics = policy_loss(logprobs, old, advantages, mask, cfg, ref)
        expected, away = papers_loss(name, logprobs, old, ref, advantages, mask, 9)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        got, wanted = (torch.autograd.grad(x, logprobs)[0] for x in (loss, expected))
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
        assert metrics["off_policy_mask/mean"] == away and wanted.abs().max() > 0
        masked, tokens = masked + away, tokens + mask.sum().item()
    assert 0 < masked < tokens if name == "v3.2" else masked == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_at_ratio_one_every_algorithm_is_reinforce(name):
    """No bound matters; the gradient at a token is minus its advantage over what the loss is a mean of."""
    cfg = GRPOConfig(**ALGORITHMS[name], max_new_tokens=9)
    logprobs, _, _, advantages, mask = far_case(name, 0)
    logprobs.requires_grad_()
    loss, metrics = policy_loss(logprobs, logprobs.detach(), advantages, mask, cfg)
    (got,) = torch.autograd.grad(loss, logprobs)
    per = {"sequence": mask.sum(1, keepdim=True) * 5, "constant": 9 * 5}.get(cfg.average, mask.sum())
    torch.testing.assert_close(got, -advantages.view(5, -1) * mask / per)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == metrics["off_policy_mask/mean"] == 0


def test_sequences_of_one_token_have_the_token_s_ratio():
    for seed in range(5):
        logprobs, old, _, advantages, _ = case(T=7, seed=seed)
        mask = torch.arange(7) == torch.tensor([1, 2, 3, 4, 5])[:, None]
        losses = [policy_loss(logprobs, old, advantages, mask, GRPOConfig(ratio=ratio, average="sequence"))[0] for ratio in ("token", "sequence")]
        torch.testing.assert_close(*losses)


def test_only_the_unbiased_kl_has_the_kl_s_gradient():
    """Every token of a small vocabulary, weighed by how often the old policy draws it: the expected gradient, without sampling."""
    g = torch.Generator().manual_seed(0)
    logits, old, ref = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(3))
    logits.requires_grad_()

    def expected_gradient(kind):
        cfg = GRPOConfig(kl=kind, kl_beta=1.0)
        for_each = [policy_loss(logits.log_softmax(-1)[v].view(1, 1), old.log_softmax(-1)[v].view(1, 1), torch.zeros(1), torch.ones(1, 1), cfg,
                                ref.log_softmax(-1)[v].view(1, 1))[0] for v in range(6)]
        return torch.autograd.grad(sum(old.softmax(-1)[v] * loss for v, loss in enumerate(for_each)), logits)[0]

    exact = torch.autograd.grad((logits.softmax(-1) * (logits.log_softmax(-1) - ref.log_softmax(-1))).sum(), logits)[0]
    torch.testing.assert_close(expected_gradient("unbiased"), exact)
    assert (expected_gradient("k3") - exact).abs().max() > 0.1


@pytest.mark.parametrize("name", ALGORITHMS)
def test_update_follows_each_algorithm(tiny_model, name):
    """Micro-batches, shared prompts, a group left out: the gradient is that of policy_loss over the whole minibatch."""
    import copy

    tiny_model.cfg.balance_loss = 0.0
    ref = copy.deepcopy(tiny_model).requires_grad_(False)
    batch, mask = fake_rollout(tiny_model)
    batch.logprobs = batch.logprobs + 0.3 * torch.randn(mask.shape) * mask  # ratios differ from 1
    with torch.no_grad():
        ref.layers[0].self_attn.o_proj.weight.mul_(1.5)
    cfg = GRPOConfig(**ALGORITHMS[name], group_size=4, minibatches=1, micro_tokens=30, max_grad_norm=1e9, max_new_tokens=14)
    advantages = torch.randn(12, 14) * mask if name == "ppo" else torch.randn(12)  # by position in the row
    advantages[4:8] = 0.0
    lengths = batch.lengths - batch.prompt_lengths
    given = torch.stack([row.roll(-n) for row, n in zip(advantages, batch.prompt_lengths.tolist())])[:, : lengths.max()] if name == "ppo" else advantages
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({n: p.grad.clone() for n, p in tiny_model.named_parameters() if p.grad is not None})

    tiny_model.train()
    metrics = grpo.update(tiny_model, Spy(tiny_model.parameters(), lr=0.1), batch, given, cfg, 0.1, random.Random(0), ref if cfg.kl_beta else None)
    keep = [i for i in range(12) if not 4 <= i < 8]
    scaled = advantages[keep].view(8, -1)
    if cfg.average == "question":  # each question's mean over tokens, both counting the same
        of_question = [sum(lengths[keep[q : q + 4]].tolist()) for q in (0, 4)]
        scaled = scaled * torch.tensor([sum(of_question) / 2 / of_question[i // 4] for i in range(8)])[:, None]
    logprobs = token_logprobs(tiny_model, batch.tokens[keep], 1.0, mask[keep])
    loss, _ = policy_loss(logprobs, batch.logprobs[keep], scaled, mask[keep], cfg, token_logprobs(ref, batch.tokens[keep], 1.0, mask[keep]))
    tiny_model.zero_grad()
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5) and metrics["trained_tokens"] == lengths[keep].sum()
    for n, p in tiny_model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(seen[n], p.grad, atol=3e-5, rtol=1e-3)


def test_where_groups_are_not_compared_those_without_spread_train_too(tiny_model):
    batch, mask = fake_rollout(tiny_model)
    cfg = GRPOConfig(group_size=4, minibatches=1)
    rewards = torch.tensor([1.0] * 4 + [0.0] * 4 + [3.0] * 4)
    for kind, trained in (("grpo", 0), ("batch", mask.sum().item())):
        _, metrics = gradient_of_update(tiny_model, batch, group_advantages(rewards, 4, kind), cfg)
        assert metrics["trained_tokens"] == trained


def test_overlong_responses_lose_reward_by_hand(tiny_model, world_tokenizer, monkeypatch):
    """max_new_tokens 10, the last half: free up to 5 tokens, then a fifth for each; -1 if cut off, at whatever length."""
    monkeypatch.setattr(grpo.rw, "score_all", lambda problems, texts, cfg: [{"accuracy": 1.0, "format": 0.0, "language": 1.0, "total": 1.0} for _ in texts])
    lengths, finished = torch.tensor([2, 5, 6, 9, 10, 4]), torch.tensor([True, True, True, True, True, False])
    batch = Rollout(torch.full((6, 13), 50), torch.full((6,), 3), lengths + 3, torch.zeros(6, 13), finished)
    problems = [Problem("Tom has 3", "", "math") for _ in range(3)]
    totals, metrics, records = grpo.score_rollout(batch, world_tokenizer, problems, GRPOConfig(group_size=2, max_new_tokens=10, overlong=0.5), RewardConfig())
    expected = [0, 0, -0.2, -0.8, -1, -1]
    assert totals.tolist() == pytest.approx([1 + x for x in expected]) and metrics["rewards/overlong/mean"] == pytest.approx(sum(expected) / 6)
    assert [r["rewards"]["overlong"] for r in records] == pytest.approx(expected)


def test_dynamic_sampling_refills(tiny_model, world_tokenizer, monkeypatch):
    """Groups without spread give their places to further problems, twice at most; the others stay as they were."""

    def score_all(problems, texts, cfg):  # only problems about Eve tell responses apart
        return [{"accuracy": 0.0, "format": 0.0, "language": 1.0, "total": float(i % 4) if "Eve" in p.prompt else 1.0} for i, p in enumerate(problems)]

    asked, seen = [], {}

    def draw(number):
        asked.append(number)
        names = {12: ("Tom", "Eve", "Tom"), 22: ("Eve", "Eve", "Tom")}[number]
        return [Problem(f"{name} has {number} {thing}", "", "math") for name, thing in zip(names, ("apples", "pears", "cards"))]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)
    monkeypatch.setattr(grpo, "update", lambda *a: seen.update(batch=a[2], advantages=a[3]) or {"trained_tokens": 0.0})
    cfg = GRPOConfig(group_size=4, max_new_tokens=8, steps=10, dynamic=2)
    first = [Problem(text, "", "math") for text in ("Tom has 2 apples", "Eve has 2 pears", "Anna has 3 cards")]
    metrics, records = grpo.step(tiny_model, None, world_tokenizer, first, cfg, RewardConfig(), 2, 0, draw=draw)
    batch, kept = seen["batch"], grpo.rollout(tiny_model, world_tokenizer, first, cfg, 2)
    prompts = [world_tokenizer.decode(row[:n].tolist()) for row, n in zip(batch.tokens[::4], batch.prompt_lengths[::4].tolist())]
    assert asked == [12, 22]
    for prompt, said in zip(prompts, ("Eve has 22 apples", "Eve has 2 pears", "Tom has 22 cards")):
        assert said in prompt
    T = kept.tokens.shape[1]
    for i in range(4, 8):
        n = kept.lengths[i]
        assert batch.lengths[i] == n and torch.equal(batch.tokens[i, :n], kept.tokens[i, :n]) and torch.equal(batch.logprobs[i, :n], kept.logprobs[i, :n])
    assert T >= 8 and (seen["advantages"].view(3, 4) != 0).any(1).tolist() == [True, True, False]
    assert (metrics["dynamic/problems"], metrics["dynamic/frac_reward_zero_std"]) == (4, pytest.approx(1 / 3))
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 3) and [r["prompt"] for r in records[::4]] == [p.prompt for p in first]
    assert metrics["num_tokens"] == (kept.lengths - kept.prompt_lengths).sum() + metrics["dynamic/tokens"]
    asked.clear()
    grpo.step(tiny_model, None, world_tokenizer, [Problem("Eve has 1", "", "math")], cfg, RewardConfig(), 2, 0, draw=draw)
    assert asked == []  # all groups had spread


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_steps_of_every_algorithm(tiny_model, world_tokenizer, monkeypatch, name):
    import copy

    import config
    import ppo

    monkeypatch.setattr(grpo.rw, "score_all", lambda problems, texts, cfg: [
        {"accuracy": len(t) % 2, "format": 0.0, "language": 1.0, "total": float(len(t) % 2)} for t in texts])
    cfg = config.make()
    cfg.grpo = GRPOConfig(**ALGORITHMS[name], group_size=4, max_new_tokens=10, minibatches=2, warmup=1)
    before = {n: p.clone() for n, p in tiny_model.named_parameters()}
    ref = copy.deepcopy(tiny_model).requires_grad_(False) if cfg.grpo.kl_beta else None
    critic = ppo.make(copy.deepcopy(tiny_model), cfg) if name == "ppo" else None
    optimizer, world = grpo.make_optimizer(tiny_model, cfg.grpo), World(0, WorldConfig())

    def draw(number):
        return [world.problem("arithmetic", 3 * number + i) for i in range(3)]

    for number in range(2):
        metrics, _ = grpo.step(tiny_model, optimizer, world_tokenizer, draw(number), cfg.grpo, RewardConfig(), number, 0, ref, None, critic, draw)
        assert all(math.isfinite(v) for v in metrics.values()) and metrics["skipped_steps"] == 0 and metrics["grad_norm"] > 0
    assert all(p.isfinite().all() for p in tiny_model.parameters())
    assert max((p - before[n]).abs().max() for n, p in tiny_model.named_parameters()) > 1e-5
