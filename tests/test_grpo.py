"""GRPO's pieces against explicit float64 references; its relatives are in test_algorithms.py."""

import copy
import doctest
import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import token_logprobs

import config
import grpo
from data import Problem, World, WorldConfig
from grpo import GRPOConfig, Learner, group_advantages, policy_loss
from lib import distributed, lora, metrics
from lib import trainer as training
from model import GPT
from sample import Rollout


def test_doctests():
    assert doctest.testmod(grpo, extraglobs={"torch": torch}).failed == 0


# ------------------------------------------------------------------------------ advantages


def test_advantages_by_hand():
    a = group_advantages(torch.tensor([1.0, 2, 3, 6, 0.1, 0.1, 0.1, 0.1]), 4)
    std = math.sqrt((4 + 1 + 0 + 9) / 4)
    assert a.tolist() == pytest.approx([-2 / std, -1 / std, 0, 3 / std, 0, 0, 0, 0])


def test_advantages_of_rounding_noise_are_zero():
    r = torch.tensor([1.2, 1.2 + 1e-7, 1.2, 1.2 - 1e-7])
    assert group_advantages(r, 4).tolist() == [0, 0, 0, 0]
    assert grpo.without_spread(torch.cat([r, torch.rand(4)]), 4).tolist() == [True, False]


def test_advantages_do_not_mix_groups():
    r = torch.rand(6, 5)
    together = group_advantages(r.flatten(), 5)
    apart = torch.cat([group_advantages(g, 5) for g in r])
    torch.testing.assert_close(together, apart)
    assert together.view(6, 5).mean(1).abs().max() < 1e-6
    other_units = group_advantages(r.flatten() * 3 + 7, 5)
    torch.testing.assert_close(other_units, together, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------ the loss


def case(B=5, T=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(B, T, generator=g, dtype=torch.float64) * 3
    old = logprobs + torch.randn(B, T, generator=g, dtype=torch.float64) * 0.3
    ref = logprobs + torch.randn(B, T, generator=g, dtype=torch.float64) * 0.3
    advantages = torch.randn(B, generator=g, dtype=torch.float64)
    starts, ends = torch.tensor([1, 2, 1, 3, 2])[:B, None], torch.tensor([7, 4, 2, 7, 6])[:B, None]
    slots = torch.arange(T)
    return logprobs, old, ref, advantages, (slots >= starts) & (slots < ends)


def explicit_loss(logprobs, old, ref, advantages, mask, cfg):
    """The paper's formula with loops over plain numbers (tensors of one element, which keep the
    gradient); cfg.average is "sequence" or "token"."""
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
    return -(sum(tokens) / len(tokens) if cfg.average == "token" else sum(rows) / len(rows))


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("beta,low,high", [(0.0, 0.2, 0.2), (0.1, 0.2, 0.28), (0.5, 0.05, 10.0)])
def test_loss_and_gradient_in_float64(average, beta, low, high):
    cfg = GRPOConfig(average=average, kl_beta=beta, clip_low=low, clip_high=high)
    for seed in range(5):
        logprobs, old, ref, advantages, mask = case(seed=seed)
        logprobs.requires_grad_()
        loss, _ = policy_loss(logprobs, old, advantages, mask, cfg, ref)
        expected = explicit_loss(logprobs, old, ref, advantages, mask, cfg)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        got, wanted = (torch.autograd.grad(x, logprobs)[0] for x in (loss, expected))
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
        assert (got[~mask] == 0).all()


def test_gradient_against_finite_differences():
    logprobs, old, ref, advantages, mask = case()
    cfg = GRPOConfig(kl_beta=0.1)

    def loss(x):
        return policy_loss(x, old, advantages, mask, cfg, ref)[0]

    assert torch.autograd.gradcheck(loss, logprobs.requires_grad_())


def test_at_ratio_one_the_gradient_is_reinforce():
    logprobs, _, _, advantages, mask = case()
    logprobs.requires_grad_()
    cfg = GRPOConfig(average="sequence")
    loss, metrics = policy_loss(logprobs, logprobs.detach(), advantages, mask, cfg)
    (got,) = torch.autograd.grad(loss, logprobs)
    reinforce = -advantages[:, None] * mask / mask.sum(1, keepdim=True) / len(mask)
    torch.testing.assert_close(got, reinforce)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0


@pytest.mark.parametrize(
    "ratio,advantage,value,gradient",
    [(1.5, 1.0, -1.2, 0.0), (1.5, -1.0, 1.5, 1.5), (0.5, 1.0, -0.5, -0.5), (0.5, -1.0, 0.8, 0.0)],
)
def test_clipping_by_hand(ratio, advantage, value, gradient):
    """Ratio 1.5: clipped at 1.2 for a good response (no gradient), not for a bad one; ratio 0.5 the
    other way round."""
    x = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    old, ones = torch.zeros_like(x), torch.ones(1, 1)
    loss, metrics = policy_loss(x, old, torch.tensor([advantage]), ones, GRPOConfig())
    loss.backward()
    assert loss.item() == pytest.approx(value) and x.grad.item() == pytest.approx(gradient)
    assert metrics["clip_ratio/high_mean"] == (ratio > 1 and advantage > 0)
    assert metrics["clip_ratio/low_mean"] == (ratio < 1 and advantage < 0)


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_micro_batches_add_up(average):
    cfg = GRPOConfig(average=average)
    logprobs, old, _, advantages, mask = case()
    whole, _ = policy_loss(logprobs, old, advantages, mask, cfg)
    n = 5.0 if average == "sequence" else mask.sum().item()
    parts = 0
    for s in (slice(0, 2), slice(2, 5)):
        part = policy_loss(logprobs[s], old[s], advantages[s], mask[s], cfg, normalizer=n)
        parts = parts + part[0]
    torch.testing.assert_close(parts, whole)


# ------------------------------------------------------------------------------ an update


def make_learner(model, tokenizer=None, judge=None, **settings) -> Learner:
    """settings: of the section grpo."""
    cfg = config.make(grpo.Config)
    cfg.grpo = GRPOConfig(**settings)
    return Learner(model, tokenizer, cfg, judge=judge)


def places(problems, texts):
    return [{"place": float(i % 3)} for i in range(len(texts))]


@pytest.mark.parametrize("rank", [0, 2])
def test_an_older_policy_samples(tiny_model, world_tokenizer, tmp_path, monkeypatch, rank):
    """With sync_every 2 rollouts are made with the weights of steps 0, 0, 2, 2; pi_old is the
    trainer's own nevertheless, and importance sampling sees how far the two are apart."""
    tiny_model.save_pretrained(str(tmp_path))
    cfg, used = config.make(grpo.Config), []
    cfg.lora.rank = rank
    sizes = dict(problems_per_step=2, group_size=4, max_new_tokens=8, lr=0.03, warmup=0)
    cfg.grpo = GRPOConfig(**sizes, sync_every=2, minibatches=2)
    model, real, trained = lora.prepared(tiny_model, cfg), grpo.generate, []
    learner = Learner(model, world_tokenizer, cfg, str(tmp_path), judge=places)

    def weights(model):
        return {name: value.clone() for name, value in model.state_dict().items()}

    def generate(model, *args, **kwargs):
        used.append(weights(model))
        return real(model, *args, **kwargs)

    monkeypatch.setattr(grpo, "generate", generate)
    gaps, fixed = [], learner.fixed_logprobs

    def fixed_logprobs(batch, responses, works):
        ref, old = fixed(batch, responses, works)
        gap = (old - responses.logprobs)[works[1].rows].abs().max().item()
        gaps.append([gap])
        return ref, old

    learner.fixed_logprobs = fixed_logprobs
    for number in range(4):
        trained.append(weights(learner.model))
        logged, _ = learner.step(number, lambda step: grpo.problems_in_order(cfg, step))
        gaps[number].append(logged["sampling/sampling_logp_difference/max"])
    for number, wanted in enumerate((0, 0, 2, 2)):
        assert all(torch.equal(v, trained[wanted][n]) for n, v in used[number].items())
    assert any(not torch.equal(v, trained[1][n]) for n, v in used[1].items())
    assert max(gaps[0] + gaps[2]) < 1e-4 < 1e-3 < min(gaps[1] + gaps[3])


def test_a_named_reference_is_the_one_that_is_asked(tiny_model, tmp_path):
    """Also with adapters, where the model without them would be the reference otherwise."""
    base, other = str(tmp_path / "base"), str(tmp_path / "other")
    tiny_model.save_pretrained(base)
    with torch.no_grad():
        tiny_model.layers[0].self_attn.o_proj.weight.mul_(1.5)
    tiny_model.save_pretrained(other)
    for rank in (0, 2):
        cfg = config.make(grpo.Config)
        cfg.lora.rank = rank
        for name, wanted in ((other, other), ("", base)):
            cfg.grpo = GRPOConfig(kl_beta=0.1, reference=name)
            model = lora.prepared(GPT.from_pretrained(base), cfg)
            learner = Learner(model, None, cfg, base)
            assert (learner.ref is model) == bool(rank and not name)
            with lora.plain(model, merged=False):
                assert learner.ref.fingerprint() == GPT.from_pretrained(wanted).fingerprint()


def test_gaps_to_the_sampler_by_hand():
    parts = [torch.tensor([-0.5, 0.1]), torch.tensor([0.3])]
    found = metrics.of_gaps(parts)
    ratios = [math.exp(x) for x in (-0.5, 0.1, 0.3)]
    wanted = {"sampling_logp_difference/mean": 0.3, "sampling_logp_difference/max": 0.5}
    names = [f"importance_sampling_ratio/{name}" for name in ("min", "max", "mean")]
    wanted |= dict(zip(names, (ratios[0], ratios[2], sum(ratios) / 3)))
    assert found == pytest.approx({f"sampling/{name}": value for name, value in wanted.items()})
    assert metrics.of_gaps([]) == {}


def test_responses_may_be_twice_as_long_later(tiny_model, world_tokenizer, monkeypatch):
    sampled, limits = grpo.generate, []

    def generate(model, prompts, params, seed):
        limits.append(params.max_new_tokens)
        return sampled(model, prompts, params, seed)

    monkeypatch.setattr(grpo, "generate", generate)
    settings = dict(group_size=2, max_new_tokens=3, doubled_from=2, lr=0.0)
    learner = make_learner(tiny_model, world_tokenizer, **settings)
    world = World(0, WorldConfig())
    for number in range(4):
        learner.step(number, lambda _: [world.problem("arithmetic", 0)])
    assert limits == [3, 3, 6, 6]


def fake_rollout(model, questions=3, group=4, T=14):
    """Groups that share a prompt of 1 to 5 tokens; responses of any length."""
    B = questions * group
    lengths = torch.randint(6, T + 1, (B,))
    prompt_lengths = torch.tensor([5, 1, 3, 4, 2])[:questions].repeat_interleave(group)
    tokens = torch.randint(0, 100, (B, T))
    for q in range(questions):
        n = prompt_lengths[q * group]
        tokens[q * group : (q + 1) * group, :n] = torch.randint(0, 100, (n,))
    slots = torch.arange(T)
    mask = (slots >= prompt_lengths[:, None]) & (slots < lengths[:, None])
    logprobs = token_logprobs(model, tokens, 1.0, mask).detach()
    return Rollout(tokens, prompt_lengths, lengths, logprobs, torch.ones(B, dtype=torch.bool)), mask


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def gradient_of_update(model, batch, advantages, ref=None, **settings):
    """The gradient that one optimiser step of an update sees, before clipping; and the metrics."""
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.update(gradients(model))

    settings = dict(group_size=4, minibatches=1, micro_tokens=30, max_grad_norm=1e9) | settings
    learner = make_learner(model.train(), **settings)
    learner.ref, learner.trainer.optimizers = ref, [Spy(model.parameters(), lr=0.1)]
    return seen, learner.update(batch, advantages, 1.0, random.Random(0))


def assert_gradient(model, loss, seen, atol=2e-5) -> None:
    """That the loss has the gradient that was seen."""
    model.zero_grad()
    loss.backward()
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(seen[name], wanted, atol=atol, rtol=1e-3)


def test_update_is_the_gradient_of_the_objective(tiny_model):
    """Prompts read once a group, several micro-batches, ragged rows, a group without spread = the
    explicit objective's gradient."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    advantages = torch.randn(12)
    advantages[4:8] = 0.0
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, average="sequence")

    def logprob(b, t):
        logits = tiny_model(batch.tokens[b : b + 1, :t])[0, -1]
        return logits.log_softmax(-1)[batch.tokens[b, t]]

    rows = [[torch.zeros(())] + [logprob(b, t) for t in range(1, 14)] for b in range(12)]
    logprobs, keep = torch.stack([torch.stack(row) for row in rows]), advantages != 0
    assert keep.sum() == 8
    old = batch.logprobs[keep]
    cfg = GRPOConfig(average="sequence")
    loss = explicit_loss(logprobs[keep], old, old, advantages[keep], mask[keep], cfg)
    assert_gradient(tiny_model, loss, seen)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("average", ["question", "sequence", "token", "constant"])
def test_micro_batch_size_does_not_matter(tiny_model, average):
    batch, _ = fake_rollout(tiny_model)
    told, advantages = dict(average=average), torch.randn(12)
    big, _ = gradient_of_update(tiny_model, batch, advantages, micro_tokens=10_000, **told)
    small, _ = gradient_of_update(tiny_model, batch, advantages, micro_tokens=1, **told)
    for n in big:
        torch.testing.assert_close(big[n], small[n], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("average", ["token", "question"])
def test_truncated_importance_sampling(tiny_model, average):
    """The sampler's log p are off by a known amount: the ratio stays 1 and each token's gradient is
    weighed, up to the cap."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    off = torch.randn(mask.shape) * mask
    batch.logprobs = batch.logprobs - off
    advantages, told = torch.randn(12), dict(average=average, importance_cap=1.5)
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, **told)
    logprobs = token_logprobs(tiny_model, batch.tokens, 1.0, mask)
    weights = off.exp().clamp(max=1.5)
    assert 0.1 < (weights[mask] == 1.5).float().mean() < 0.9
    terms, count = logprobs * weights * advantages[:, None] * mask, mask.sum()
    loss = -terms.sum() / count
    if average == "question":  # the mean over the three questions of their means
        loss = -(terms.view(3, -1).sum(1) / mask.view(3, -1).sum(1)).mean()
    assert_gradient(tiny_model, loss, seen)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0
    widest = metrics["sampling/sampling_logp_difference/max"]
    assert widest == pytest.approx(off.abs().max().item(), abs=1e-4)
    ratios = off.exp()[mask]
    for name in ("min", "mean", "max"):
        wanted = getattr(ratios, name)().item()
        assert metrics[f"sampling/importance_sampling_ratio/{name}"] == pytest.approx(wanted, 1e-4)


def test_the_kl_has_no_weights_of_questions(tiny_model):
    """The clipped term is a mean over questions, the KL one over tokens."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    ref, advantages = GPT(tiny_model.cfg), torch.randn(12)
    seen, _ = gradient_of_update(
        tiny_model, batch, advantages, ref, average="question", kl_beta=0.5
    )
    logprobs = token_logprobs(tiny_model, batch.tokens, 1.0, mask)
    with torch.no_grad():
        d = token_logprobs(ref, batch.tokens, 1.0, mask)
    terms, d = logprobs * advantages[:, None] * mask, (d - logprobs) * mask
    loss = -(terms.view(3, -1).sum(1) / mask.view(3, -1).sum(1)).mean()
    assert_gradient(tiny_model, loss + 0.5 * (d.exp() - d - 1).sum() / mask.sum(), seen)


@pytest.mark.parametrize("cap", [0.0, 1.5])
@pytest.mark.parametrize("kind", ["mla", "gqa"])
def test_an_update_in_float64(tiny_model, monkeypatch, kind, cap):
    """Two parts, prompts in several chunks, a sampler whose log p are off: the weights after it are
    those of one pass for each response, and of ratios to the policy that the rollout began with.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    shape = dict(attention=kind, n_kv_heads=1, head_dim=16, n_experts=0)
    model = GPT(replace(tiny_model.cfg, **shape)).double()
    batch, mask = fake_rollout(model, questions=5)
    batch.logprobs = batch.logprobs + 0.5 * torch.randn(mask.shape).double() * mask
    settings = dict(group_size=4, minibatches=2, micro_tokens=8, max_grad_norm=1e9)
    settings |= dict(average="token", clip_low=0.01, clip_high=0.01, importance_cap=cap)
    learner, slow = make_learner(copy.deepcopy(model), **settings), model
    learner.cfg.precision = "bfloat16"  # as if sampler and trainer differed by its rounding
    learner.trainer.optimizers = [torch.optim.SGD(learner.model.parameters(), lr=0.1)]
    advantages = torch.randn(20).double()
    metrics = learner.update(batch, advantages, 1.0, random.Random(0))

    def terms(b):  # log p of response b's tokens
        end, start = batch.lengths[b], batch.prompt_lengths[b]
        tokens = batch.tokens[b : b + 1, :end]
        return token_logprobs(slow, tokens)[0, start:], batch.logprobs[b, start:end]

    old, clipped, trained = {b: terms(b)[0].detach() for b in range(20)}, [], 0
    for part in training.minibatches(list(range(5)), 2.5, random.Random(0)):
        losses, clips = [], 0
        for b in (4 * q + i for q in part for i in range(4)):
            logprobs, drawn = terms(b)
            rho, A = (logprobs - old[b]).exp(), advantages[b]
            term = torch.min(rho * A, rho.clip(0.99, 1.01) * A)
            losses.append(-term * ((old[b] - drawn).exp().clamp(max=cap) if cap else 1.0))
            clips += (term < rho * A).sum().item()
        slow.zero_grad()
        torch.cat(losses).mean().backward()
        with torch.no_grad():
            for p in slow.parameters():
                p -= 0.1 * p.grad
        clipped.append(clips)
        trained += len(torch.cat(losses))
    for p, wanted in zip(learner.model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(p, wanted, atol=1e-10, rtol=1e-10)
    found = metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"]
    assert clipped[0] == 0 < clipped[1] and found == pytest.approx(sum(clipped) / trained)


def test_memory_does_not_grow_with_the_number_of_prompts(tiny_model):
    """What backward passes need is kept of one chunk of prompts at a time."""

    class Kept:
        now = most = 0

        def __init__(self, x):
            self.x = x.detach()
            Kept.now += x.nbytes
            Kept.most = max(Kept.most, Kept.now)

        def __del__(self):
            Kept.now -= self.x.nbytes

    def peak(questions, budget):
        Kept.most, B = 0, 2 * questions
        tokens = torch.randint(0, 100, (questions, 64)).repeat_interleave(2, 0)
        lengths, ones = torch.full((B,), 64), torch.ones(B, dtype=torch.bool)
        batch = Rollout(tokens, lengths - 4, lengths, torch.zeros(B, 64), ones)
        settings = dict(group_size=2, minibatches=1, micro_tokens=budget)
        learner = make_learner(copy.deepcopy(tiny_model), **settings)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            learner.update(batch, torch.randn(B), 1.0, random.Random(0))
        return Kept.most

    assert peak(2, 128) == pytest.approx(peak(8, 128), rel=0.01)
    assert peak(8, 1024) > 2 * peak(8, 128)


def test_recorded_experts_are_used_in_training(tiny_model, world_tokenizer):
    """After the rollout the router changes its mind; with the routes replayed, log p stay the
    sampler's."""
    problems = [Problem(text, "", "math") for text in ("Tom has 3", "Anna has 12 apples")]
    (moe,) = tiny_model.moe_layers()
    bias, gaps = moe.gate.e_score_correction_bias, {}
    settings = dict(group_size=4, minibatches=1, micro_tokens=40, max_new_tokens=8, lr=0.0)
    for replay in (True, False):
        learner = make_learner(tiny_model, world_tokenizer, replay_routes=replay, **settings)
        batch = learner.rollout(problems, 0)
        if replay:
            T = batch.tokens.shape[1]
            read = torch.arange(T) < batch.lengths[:, None] - 1  # the last token is never read
            tiny_model(batch.tokens, positions=torch.where(read, torch.arange(T), -1))
            assert batch.routes.shape == (8, T, 1, 2)
            assert torch.equal(batch.routes[read], tiny_model.routes()[read])
        before = bias.clone()
        bias += torch.tensor([3.0, 2.0, 1.0, 0.0])  # now all tokens go to the first two
        metrics = learner.update(batch, torch.randn(8), 0.0, random.Random(0))
        gaps[replay] = metrics["sampling/sampling_logp_difference/max"]
        bias.copy_(before)
    assert gaps[True] < 1e-4 < 1e-2 < gaps[False]


@pytest.mark.parametrize("kind", ["mla", "gqa"])
def test_recomputed_activations_change_nothing(tiny_model, kind):
    """Gradients and expert counts, with the prompt's cache in between."""
    model = tiny_model
    if kind == "gqa":
        model = GPT(replace(tiny_model.cfg, attention="gqa", n_kv_heads=1, head_dim=16))
    other = copy.deepcopy(model)
    batch, _ = fake_rollout(copy.deepcopy(model))
    advantages = torch.randn(12)
    for block in other.layers:
        distributed.recompute_activations(block)
    (plain, a), (again, b) = (gradient_of_update(m, batch, advantages) for m in (model, other))
    assert a == pytest.approx(b, abs=1e-6) and a["moe/max_load"] == b["moe/max_load"]
    for n in plain:
        torch.testing.assert_close(plain[n], again[n])


def test_no_spread_no_step(tiny_model):
    batch, _ = fake_rollout(tiny_model)
    before = {n: p.clone() for n, p in tiny_model.named_parameters()}
    learner = make_learner(tiny_model, group_size=4, lr=1e-2)
    metrics = learner.update(batch, torch.zeros(12), 1.0, random.Random(0))
    assert all(torch.equal(p, before[n]) for n, p in tiny_model.named_parameters())
    assert metrics["grad_norm"] == 0


def test_kl_pulls_towards_the_reference(tiny_model):
    ref = copy.deepcopy(tiny_model).requires_grad_(False)
    batch, _ = fake_rollout(tiny_model)
    learner = make_learner(tiny_model, group_size=4, minibatches=2, kl_beta=0.1, lr=1e-2)
    learner.ref = ref
    metrics = learner.update(batch, torch.randn(12), 1.0, random.Random(0))
    assert metrics["kl"] > 0  # zero before the first of the two updates, positive after it
    assert all(p.grad is None for p in ref.parameters())


# ------------------------------------------------------------------------------ a step

METRICS = """reward reward_std rewards/accuracy/mean rewards/format/mean frac_reward_zero_std kl
 entropy grad_norm learning_rate num_tokens step_time completions/mean_length completions/min_length
 completions/max_length completions/clipped_ratio clip_ratio/low_mean clip_ratio/high_mean
 sampling/sampling_logp_difference/mean sampling/sampling_logp_difference/max
 sampling/importance_sampling_ratio/min sampling/importance_sampling_ratio/mean
 sampling/importance_sampling_ratio/max timing/rollout_s
 timing/reward_s timing/train_s throughput/rollout_tok_s throughput/train_tok_s language_consistency
 reflection_words moe/max_load"""


def test_a_whole_step_reports_its_metrics(tiny_model, world_tokenizer, monkeypatch):
    def score_all(problems, texts, cfg):
        scores = [float(len(t) % 2) for t in texts]
        return [{"accuracy": s, "format": 0.0, "language": 1.0, "total": s} for s in scores]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)
    settings = dict(group_size=4, max_new_tokens=12, minibatches=2)
    learner, world = make_learner(tiny_model, world_tokenizer, **settings), World(0, WorldConfig())
    problems = [world.problem(task, i) for i in range(2) for task in ("arithmetic", "countdown")]
    metrics, records = learner.step(0, lambda step: problems)
    assert set(METRICS.split()) <= metrics.keys() and len(records) == 16
    assert [r["prompt"] for r in records[::4]] == [p.prompt for p in problems]
    lr = learner.cfg.grpo.lr / 5  # the first of five steps of warm-up
    assert metrics["learning_rate"] == pytest.approx(lr)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4


def test_rewarded_token_becomes_likelier(tiny_model, world_tokenizer):
    """A reward for one token: after some steps, the model says it. The loop as a whole, on the
    smallest problem there is."""
    settings = dict(group_size=16, max_new_tokens=1, minibatches=1, lr=1e-2, warmup=1)
    learner = make_learner(tiny_model, world_tokenizer, **settings)
    target, prompt = 17, Problem("Tom", "", "math")
    with torch.no_grad():
        tiny_model.embed_tokens.weight.mul_(0.2)
    for number in range(80):
        batch = learner.rollout([prompt] * 4, number)
        said = batch.tokens[torch.arange(64), batch.prompt_lengths]
        advantages = group_advantages(-(said - target).abs().float(), 16)  # nearer is better
        learner.update(batch, advantages, 1.0, random.Random(number))
    assert (said - target).abs().float().mean() < 50  # a random token is 250 away


def test_a_judge_s_rewards_are_added_and_reported(tiny_model, world_tokenizer):
    problems = [World(0, WorldConfig()).problem(task, 0) for task in ("logic", "general")]

    def judge(problems, texts):
        scores = [{"helpful": 0.25, "safe": i / 8} for i in range(len(texts))]
        return [{} if p.task == "logic" else s for p, s in zip(problems, scores)]

    learner = make_learner(tiny_model, world_tokenizer, group_size=2, max_new_tokens=4)
    batch = learner.rollout(problems, 0)
    plain, _, _ = learner.score(batch, problems)
    learner.judge = judge
    totals, metrics, records = learner.score(batch, problems)
    assert (totals - plain).tolist() == pytest.approx([0, 0, 0.25 + 2 / 8, 0.25 + 3 / 8])
    # means over those that have one
    assert metrics["rewards/helpful/mean"] == 0.25
    assert metrics["rewards/safe/mean"] == pytest.approx(2.5 / 8)
    assert records[3]["rewards"]["total"] == pytest.approx(totals[3].item())


def test_the_learning_rate_rises_rests_and_falls(tiny_model, world_tokenizer, monkeypatch):
    used = []

    def update(self, batch, advantages, factor, rng):
        used.append(self.cfg.grpo.lr * factor)
        return {"trained_tokens": 0.0}

    monkeypatch.setattr(Learner, "update", update)
    settings = dict(steps=20, group_size=2, max_new_tokens=2, lr=1.0, warmup=4, decay=0.5)
    learner = make_learner(tiny_model, world_tokenizer, **settings)
    problem = World(0, WorldConfig()).problem("logic", 0)
    for number in (*range(20), 25, 60):  # grpo.py --steps may go on beyond the schedule
        learner.step(number, lambda step: [problem])
    assert used[:4] == [0.25, 0.5, 0.75, 1.0] and used[4:11] == [1.0] * 7
    assert used[15] == pytest.approx(0.1 + 0.9 * 0.5)
    assert used[19] == pytest.approx(0.1 + 0.9 * 0.1) and used[20:] == [0.1, 0.1]
