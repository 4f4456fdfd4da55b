"""GRPO's relatives against their papers' formulas in float64, and their runs."""

import copy
import doctest
import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import token_logprobs
from test_grpo import assert_gradient, case, fake_rollout, gradient_of_update, make_learner

import config
import grpo
from algorithms import ALGORITHMS, relatives
from algorithms.relatives import batch_advantages, centred, leave_one_out
from data import Problem, World, WorldConfig
from grpo import GRPOConfig, group_advantages
from lib.trainer import minibatches
from sample import Rollout


def test_doctests():
    assert doctest.testmod(relatives, extraglobs={"torch": torch}).failed == 0


def settings_of(name, **more):
    return GRPOConfig(**ALGORITHMS[name].settings, **more)


# ------------------------------------------------------------------------------ advantages


def test_kinds_of_advantages_by_hand():
    rewards, groups = torch.rand(12, dtype=torch.float64), 3
    values, others, batch = [], [], []
    for q in range(groups):
        group = rewards[4 * q : 4 * q + 4].tolist()
        for i, r in enumerate(group):
            values.append(r - sum(group) / 4)
            others.append(r - sum(group[:i] + group[i + 1 :]) / 3)
            mean = sum(rewards.tolist()) / 12
            variance = sum((x - mean) ** 2 for x in rewards.tolist()) / 12
            batch.append((r - mean) / math.sqrt(variance))
    pairs = (centred, values), (leave_one_out, others), (batch_advantages, batch)
    for function, expected in pairs:
        assert function(rewards, 4).tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(leave_one_out(rewards, 4), centred(rewards, 4) * 4 / 3)
    level = torch.tensor([1.0, 1, 3, 3])  # no group has spread, the batch has
    for function in (group_advantages, centred, leave_one_out):
        assert function(level, 2).tolist() == [0, 0, 0, 0]
    assert batch_advantages(level, 2).tolist() == [-1, -1, 1, 1]


# ------------------------------------------------------------------------------ losses


def far_case(name, seed):
    """As case(), with responses whose ratio is near 1 and far from it, and an advantage a token for
    PPO."""
    logprobs, old, ref, advantages, mask = case(seed=seed)
    factors = torch.tensor([1.0, 1.0, 1e-4, 1.0, 3.0], dtype=torch.float64)[:, None]
    old = logprobs + (old - logprobs) * factors + torch.tensor([0.0, 1, 0, -1, 1])[:, None]
    if name.startswith("ppo"):
        g = torch.Generator().manual_seed(seed)
        advantages = torch.randn(mask.shape, generator=g, dtype=torch.float64)
    return logprobs, old, ref, advantages, mask


# those that learn from rewards, whatever the reference model says
REWARDED = [name for name in ALGORITHMS if name != "on-policy-distillation"]
PAPERS = (
    "on-policy-distillation grpo dr_grpo dapo gspo cispo rloo reinforce++ v3.2 ppo ppo-0.95".split()
)


def papers_loss(name, logprobs, old, ref, advantages, mask, longest):
    """Each paper's objective, negated, token by token, with the paper's figures (the bounds of
    CISPO and V3.2 are ours); and how many tokens V3.2 masks."""

    def least(rho, A, low=0.2, high=0.2):
        return torch.minimum(rho * A, torch.clip(rho, 1 - low, 1 + high) * A)

    rows, masked = [], 0
    for b in range(len(mask)):
        inside = [t for t in range(mask.shape[1]) if mask[b, t]]
        rhos = {t: torch.exp(logprobs[b, t] - old[b, t]) for t in inside}
        drift = sum((old[b, t] - logprobs[b, t]).item() for t in inside) / len(inside)
        terms = []
        for t in inside:
            A = advantages[b, t] if name.startswith("ppo") else advantages[b]
            if name == "dapo":
                term = least(rhos[t], A, high=0.28)
            elif name == "gspo":
                term = least(math.prod(rhos.values()) ** (1 / len(inside)), A, 3e-4, 4e-4)
            elif name == "cispo":
                term = min(rhos[t].item(), 5.0) * A * logprobs[b, t]
            elif name == "on-policy-distillation":
                term = least(rhos[t], ref[b, t] - old[b, t])
            elif name == "v3.2":
                away = A < 0 and drift > 0.5
                masked += away
                u = torch.exp(ref[b, t] - logprobs[b, t])
                kl = rhos[t] * (u - torch.log(u) - 1)
                term = (0.0 if away else least(rhos[t], A)) - 1e-3 * kl
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


NEW_LOSS = [name for name, a in ALGORITHMS.items() if a.loss is not grpo.policy_loss]


@pytest.mark.parametrize("name", list(dict.fromkeys([*PAPERS, *NEW_LOSS])))
def test_each_algorithm_s_loss_and_gradient_are_its_paper_s(name):
    assert name in PAPERS, (
        f"write the formula of '{name}' into papers_loss, and its name into PAPERS"
    )
    cfg = settings_of(name, max_new_tokens=9)
    masked = tokens = 0
    for seed in range(5):
        logprobs, old, ref, advantages, mask = far_case(name, seed)
        logprobs.requires_grad_()
        weights, left, algorithm = None, 0, ALGORITHMS[name]
        if algorithm.keep:  # old is the sampler's
            weights = algorithm.keep(((old - logprobs) * mask).detach(), advantages[:, None], mask)
            left = (mask * ~weights).sum().item()
        loss, _ = algorithm.loss(logprobs, old, advantages, mask, cfg, ref, weights=weights)
        expected, away = papers_loss(name, logprobs, old, ref, advantages, mask, 9)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        got, wanted = (torch.autograd.grad(x, logprobs)[0] for x in (loss, expected))
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
        assert left == away and wanted.abs().max() > 0
        masked, tokens = masked + away, tokens + mask.sum().item()
    assert 0 < masked < tokens if name == "v3.2" else masked == 0


@pytest.mark.parametrize("name", REWARDED)
def test_at_ratio_one_every_algorithm_is_reinforce(name):
    """No bound matters; the gradient at a token is minus its advantage over what the loss is a mean
    of."""
    cfg = settings_of(name, max_new_tokens=9)
    logprobs, _, _, advantages, mask = far_case(name, 0)
    logprobs.requires_grad_()
    loss, metrics = ALGORITHMS[name].loss(logprobs, logprobs.detach(), advantages, mask, cfg)
    (got,) = torch.autograd.grad(loss, logprobs)
    sequences = {"sequence": mask.sum(1, keepdim=True) * 5, "constant": 9 * 5}
    per = sequences.get(cfg.average, mask.sum())
    torch.testing.assert_close(got, -advantages.view(5, -1) * mask / per)
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0
    keep = ALGORITHMS[name].keep
    assert not keep or keep(torch.zeros_like(logprobs), advantages.view(5, -1), mask).all()


def test_v32_leaves_out_what_the_sampler_found_likelier(tiny_model):
    """A wrong response whose sampler is 0.6 nats a token ahead of the policy teaches nothing, also
    in a rollout's first part, where the trainer's ratio is 1; others do, however far."""
    tiny_model.cfg.balance_loss = 0.0
    batch, mask = fake_rollout(tiny_model)
    near, far = 0.4 * mask[:6], 0.6 * mask[6:]
    batch.logprobs = batch.logprobs + torch.cat([near, far])
    advantages = torch.tensor([1.0, -1.0] * 6)
    kept = (advantages > 0) | (torch.arange(12) < 6)
    settings = dict(algorithm="v3.2", average="sequence")
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, **settings)
    logprobs = token_logprobs(tiny_model, batch.tokens, 1.0, mask)
    terms = (logprobs * mask).sum(1) / mask.sum(1)
    assert_gradient(tiny_model, -(terms * advantages * kept).sum() / 12, seen)
    share = mask[~kept].sum() / mask.sum()
    assert metrics["off_policy_mask/mean"] == pytest.approx(share.item()) and 0.1 < share < 0.5


def test_v32_leaves_out_what_its_own_updates_have_left(tiny_model):
    """The sampler's weights are the policy's; the first part's step moves these, and the second
    part's wrong responses count how far."""
    moved, advantages = copy.deepcopy(tiny_model), torch.tensor([1.0, -1.0] * 6)
    batch, mask = fake_rollout(tiny_model)

    class Jump(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(3)

    learner = make_learner(tiny_model.train(), algorithm="v3.2", group_size=4, minibatches=2)
    learner.trainer.optimizers = [Jump(tiny_model.parameters(), lr=0.1)]
    metrics = learner.update(batch, advantages, 1.0, random.Random(0))
    with torch.no_grad():
        next(moved.parameters()).mul_(3)
        drift = (batch.logprobs - token_logprobs(moved, batch.tokens, 1.0, mask)) * mask
    second = minibatches([0, 1, 2], 1.5, random.Random(0))[1]
    rows = [4 * q + i for q in second for i in range(4)]
    left = (advantages < 0) & (drift.sum(1) / mask.sum(1) > 0.5)
    masked = mask[rows][left[rows]].sum() / mask.sum()
    assert metrics["off_policy_mask/mean"] == pytest.approx(masked.item()) and masked > 0


@pytest.mark.parametrize("name", REWARDED)
def test_every_loss_applies_the_weights_of_tokens_but_not_to_the_kl(name):
    """Weights [B, 1] scale a row's gradient; the KL's stays as it is without them."""
    cfg = replace(settings_of(name, max_new_tokens=9), kl_beta=0.1)
    logprobs, old, ref, advantages, mask = far_case(name, 0)
    logprobs.requires_grad_()
    weights = torch.tensor([[0.5], [1.0], [2.0], [3.0], [0.0]], dtype=logprobs.dtype)

    def gradient(ref=None, weights=None):
        loss, _ = ALGORITHMS[name].loss(logprobs, old, advantages, mask, cfg, ref, weights=weights)
        return torch.autograd.grad(loss, logprobs)[0]

    plain, kl = gradient(), gradient(ref) - gradient()
    assert kl.abs().max() > 0
    torch.testing.assert_close(gradient(ref, weights), plain * weights + kl)


def test_sequences_of_one_token_have_the_token_s_ratio():
    cfg = GRPOConfig(average="sequence")
    for seed in range(5):
        logprobs, old, _, advantages, _ = case(T=7, seed=seed)
        mask = torch.arange(7) == torch.tensor([1, 2, 3, 4, 5])[:, None]
        losses = grpo.policy_loss, relatives.gspo_loss
        one, other = (loss(logprobs, old, advantages, mask, cfg)[0] for loss in losses)
        torch.testing.assert_close(one, other)


def test_only_the_unbiased_kl_has_the_kl_s_gradient():
    """Every token of a small vocabulary, weighed by how often the old policy draws it: the expected
    gradient, without sampling."""
    g = torch.Generator().manual_seed(0)
    logits, old, ref = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(3))
    logits.requires_grad_()

    def expected_gradient(loss_fn):
        cfg, total = GRPOConfig(kl_beta=1.0), 0.0
        for v in range(6):
            one, other, third = (x.log_softmax(-1)[v].view(1, 1) for x in (logits, old, ref))
            loss, _ = loss_fn(one, other, torch.zeros(1), torch.ones(1, 1), cfg, third)
            total = total + old.softmax(-1)[v] * loss
        return torch.autograd.grad(total, logits)[0]

    kl = (logits.softmax(-1) * (logits.log_softmax(-1) - ref.log_softmax(-1))).sum()
    exact = torch.autograd.grad(kl, logits)[0]
    torch.testing.assert_close(expected_gradient(relatives.v32_loss), exact)
    assert (expected_gradient(grpo.policy_loss) - exact).abs().max() > 0.1


def test_on_policy_distillation_follows_the_reverse_kl():
    """The same in a first update, where the student itself draws: -KL(student, teacher)'s gradient
    after given tokens; the loss's weights of tokens scale it, and "kl" is what is left of it."""
    g = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    student, ref = logits.log_softmax(-1), teacher.log_softmax(-1)
    total = left = 0.0
    for v in range(6):
        one, other = student[v].view(1, 1), ref[v].view(1, 1)
        arguments = one, one.detach(), torch.ones(1), torch.ones(1, 1), GRPOConfig(kl_beta=1.0)
        loss, metrics = relatives.reverse_kl_loss(
            *arguments, other, weights=torch.full((1, 1), 2.0)
        )
        total = total + student[v].exp().detach() * loss
        left += student[v].exp().item() * metrics["kl"]
    kl = (student.exp() * (student - ref)).sum()
    assert left == pytest.approx(kl.item())
    teach_all = ALGORITHMS["on-policy-distillation"].advantages
    assert teach_all(torch.ones(8), 4).tolist() == [1.0] * 8  # rewards without spread
    (got,), (exact,) = (torch.autograd.grad(x, logits, retain_graph=True) for x in (total, kl))
    torch.testing.assert_close(got, 2 * exact)


# ------------------------------------------------------------------------------ updates


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "ppo-0.95"])
def test_update_follows_each_algorithm(tiny_model, name, monkeypatch):
    """Micro-batches, shared prompts, a group left out, and a second part, where ratios differ from
    1: the gradient is that of the loss over the whole part."""
    tiny_model.cfg.balance_loss = tiny_model.cfg.bias_update_speed = 0.0
    ref = copy.deepcopy(tiny_model).requires_grad_(False)
    batch, mask = fake_rollout(tiny_model, questions=5)
    noise = 0.3 * torch.randn(mask.shape) * mask
    batch.logprobs = batch.logprobs + noise  # pi_old of the second part
    with torch.no_grad():
        ref.layers[0].self_attn.o_proj.weight.mul_(1.5)
    # by position in the row; the update takes them by position in the response
    advantages = torch.randn(20, 14) * mask if name == "ppo" else torch.randn(20)
    advantages[4:8] = 0.0
    lengths, given = batch.lengths - batch.prompt_lengths, advantages
    if name == "ppo":
        rows = [row.roll(-n) for row, n in zip(advantages, batch.prompt_lengths.tolist())]
        given = torch.stack(rows)[:, : lengths.max()]
    without = replace(ALGORITHMS[name], critic=None)
    monkeypatch.setitem(ALGORITHMS, name, without)
    settings = ALGORITHMS[name].settings | dict(algorithm=name, max_new_tokens=14, minibatches=2)
    kl = settings.get("kl_beta")
    seen, metrics = gradient_of_update(tiny_model, batch, given, ref if kl else None, **settings)
    cfg, losses = GRPOConfig(**settings), []
    for part in minibatches([0, 2, 3, 4], 2.5, random.Random(0)):
        rows = [4 * q + i for q in part for i in range(4)]
        given, weights = advantages[rows].view(8, -1), None
        if cfg.average == "question":  # each question's mean over tokens, both counting the same
            of_question = [sum(lengths[4 * q : 4 * q + 4].tolist()) for q in part]
            factors = [sum(of_question) / 2 / of_question[i // 4] for i in range(8)]
            weights = torch.tensor(factors)[:, None]
        logprobs, ref_logprobs = (
            token_logprobs(m, batch.tokens[rows], 1.0, mask[rows]) for m in (tiny_model, ref)
        )
        old = batch.logprobs[rows] if losses else logprobs.detach()
        arguments = logprobs, old, given, mask[rows], cfg, ref_logprobs
        losses.append(without.loss(*arguments, weights=weights)[0])
    assert metrics["loss"] == pytest.approx(sum(losses).item() / 2, abs=1e-5)
    assert metrics["trained_tokens"] == lengths.sum() - lengths[4:8].sum()
    assert_gradient(tiny_model, losses[1], seen, atol=3e-5)


@pytest.mark.parametrize("name", ["grpo", "gspo"])
def test_the_gap_to_the_sampler_clips_nothing(tiny_model, name):
    """GSPO's range is narrower than a bfloat16 sampler's rounding, here 1e-3 nats."""
    batch, mask = fake_rollout(tiny_model)
    advantages, settings = torch.randn(12), ALGORITHMS[name].settings | dict(algorithm=name)
    exact, _ = gradient_of_update(tiny_model, batch, advantages, **settings)
    batch.logprobs = batch.logprobs + 1e-3 * torch.randn(mask.shape) * mask
    seen, metrics = gradient_of_update(tiny_model, batch, advantages, **settings)
    assert all(torch.equal(seen[n], x) for n, x in exact.items())
    assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0
    assert metrics["sampling/sampling_logp_difference/max"] > 1e-3


def test_where_groups_are_not_compared_those_without_spread_train_too(tiny_model):
    batch, mask = fake_rollout(tiny_model)
    rewards = torch.tensor([1.0] * 4 + [0.0] * 4 + [3.0] * 4)
    for function, trained in ((group_advantages, 0), (batch_advantages, mask.sum().item())):
        _, metrics = gradient_of_update(tiny_model, batch, function(rewards, 4), micro_tokens=4096)
        assert metrics["trained_tokens"] == trained


def test_overlong_responses_lose_reward_by_hand(tiny_model, world_tokenizer, monkeypatch):
    """max_new_tokens 10, the last half: free up to 5 tokens, then a fifth for each; -1 if cut off,
    at whatever length."""

    def score_all(problems, texts, cfg):
        return [{"accuracy": 1.0, "format": 0.0, "language": 1.0, "total": 1.0} for _ in texts]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)
    half = partial(relatives.overlong_penalty, part=0.5)
    monkeypatch.setitem(ALGORITHMS, "test", grpo.Algorithm(penalty=half))
    lengths = torch.tensor([2, 5, 6, 9, 10, 4])
    finished = torch.tensor([True, True, True, True, True, False])
    prompts = torch.full((6,), 3)
    tokens, logprobs = torch.full((6, 13), 50), torch.zeros(6, 13)
    batch = Rollout(tokens, prompts, lengths + 3, logprobs, finished)
    problems = [Problem("Tom has 3", "", "math") for _ in range(3)]
    settings = dict(algorithm="test", group_size=2, max_new_tokens=10)
    learner = make_learner(tiny_model, world_tokenizer, **settings)
    totals, metrics, records = learner.score(batch, problems)
    expected = [0, 0, -0.2, -0.8, -1, -1]
    assert totals.tolist() == pytest.approx([1 + x for x in expected])
    assert metrics["rewards/overlong/mean"] == pytest.approx(sum(expected) / 6)
    assert [r["rewards"]["overlong"] for r in records] == pytest.approx(expected)


def test_dynamic_sampling_refills(tiny_model, world_tokenizer, monkeypatch):
    """Groups without spread give their places to further problems, twice at most; the others stay
    as they were."""

    def score_all(problems, texts, cfg):  # only problems about Eve tell responses apart
        totals = [float(i % 4) if "Eve" in p.prompt else 1.0 for i, p in enumerate(problems)]
        fixed = {"accuracy": 0.0, "format": 0.0, "language": 1.0}
        return [fixed | {"total": total} for total in totals]

    drawn, seen = [], {}
    first = [Problem(f"{x}", "", "math") for x in ("Tom has 2 apples", "Eve has 2 pears")]
    first.append(Problem("Anna has 3 cards", "", "math"))
    names = {12: ("Tom", "Eve", "Tom"), 22: ("Eve", "Eve", "Tom")}

    def next_problems(number):
        if number == 2:
            return first
        drawn.append(number)
        pairs = zip(names[number], ("apples", "pears", "cards"))
        return [Problem(f"{name} has {number} {thing}", "", "math") for name, thing in pairs]

    def update(self, batch, advantages, *_):
        seen.update(batch=batch, advantages=advantages)
        return {"trained_tokens": 0.0}

    monkeypatch.setattr(grpo.rw, "score_all", score_all)
    monkeypatch.setattr(grpo.Learner, "update", update)
    twice = partial(relatives.dynamic_sampling, most=2)
    monkeypatch.setitem(ALGORITHMS, "test", grpo.Algorithm(resample=twice))
    settings = dict(algorithm="test", group_size=4, max_new_tokens=8, steps=10)
    learner = make_learner(tiny_model, world_tokenizer, **settings)
    metrics, records = learner.step(2, next_problems)
    batch, kept = seen["batch"], learner.rollout(first, 2)
    rows = zip(batch.tokens[::4], batch.prompt_lengths[::4].tolist())
    prompts = [world_tokenizer.decode(row[:n].tolist()) for row, n in rows]
    assert drawn == [12, 22]
    for prompt, said in zip(prompts, ("Eve has 22 apples", "Eve has 2 pears", "Tom has 22 cards")):
        assert said in prompt
    for i in range(4, 8):
        n = kept.lengths[i]
        assert batch.lengths[i] == n and torch.equal(batch.tokens[i, :n], kept.tokens[i, :n])
        assert torch.equal(batch.logprobs[i, :n], kept.logprobs[i, :n])
    assert kept.tokens.shape[1] >= 8
    assert (seen["advantages"].view(3, 4) != 0).any(1).tolist() == [True, True, False]
    assert metrics["dynamic/problems"] == 4
    assert metrics["dynamic/frac_reward_zero_std"] == pytest.approx(1 / 3)
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 3)
    assert [r["prompt"] for r in records[::4]] == [p.prompt for p in first]
    sampled = (kept.lengths - kept.prompt_lengths).sum()
    assert metrics["num_tokens"] == sampled + metrics["dynamic/tokens"]
    drawn.clear()
    first = [Problem("Eve has 1", "", "math")]
    learner.step(2, next_problems)
    assert drawn == []  # all groups had spread


@pytest.mark.parametrize("name", REWARDED)
def test_two_steps_of_every_algorithm(tiny_model, world_tokenizer, monkeypatch, tmp_path, name):
    def score_all(problems, texts, cfg):
        scores = [float(len(t) % 2) for t in texts]
        return [{"accuracy": s, "format": 0.0, "language": 1.0, "total": s} for s in scores]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)
    cfg, base = config.make(grpo.Config), str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    short = dict(group_size=4, max_new_tokens=10, minibatches=2, warmup=1)
    cfg.grpo = settings_of(name, algorithm=name, **short)
    learner = grpo.Learner(tiny_model, world_tokenizer, cfg, base)
    assert bool(learner.ref) == bool(cfg.grpo.kl_beta)
    assert bool(learner.critic) == name.startswith("ppo")
    before = {n: p.clone() for n, p in tiny_model.named_parameters()}
    world = World(0, WorldConfig())

    def next_problems(number):
        return [world.problem("arithmetic", 3 * number + i) for i in range(3)]

    for number in range(2):
        metrics, _ = learner.step(number, next_problems)
        assert all(math.isfinite(v) for v in metrics.values())
        assert metrics["skipped_steps"] == 0 and metrics["grad_norm"] > 0
    assert all(p.isfinite().all() for p in tiny_model.parameters())
    after = dict(tiny_model.named_parameters())
    assert max((after[n] - p).abs().max() for n, p in before.items()) > 1e-5


def test_an_algorithm_with_wrong_parts_is_named(monkeypatch):
    wrong = grpo.Algorithm({"clip_hihg": 1.0}), grpo.Algorithm(loss=None), grpo.Algorithm(critic=3)
    told = "sets grpo.clip_hihg", "its part 'loss' is not", "its part 'critic' is not"
    for algorithm, message in zip(wrong, told):
        monkeypatch.setitem(grpo.ALGORITHMS, "new", algorithm)
        with pytest.raises(ValueError, match=f"the algorithm 'new'.* ?{message}"):
            grpo.GRPOConfig(algorithm="new")
