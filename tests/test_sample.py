"""Sampling against plain, cache-free recomputation; the engine against the plain loop."""

import statistics
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import token_logprobs
from torch.utils._python_dispatch import TorchDispatchMode

from lib import distributed, engine
from lib.errors import UserError
from model import GPT, ModelConfig
from sample import Rollout, SamplingParams, generate, sample_tokens, sampling_logprobs

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
DENSE = dict(vocab_size=40, dim=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=24)
DENSE |= dict(n_experts=0, attention="gqa")
MANY = SamplingParams(max_new_tokens=25, temperature=0.3, num_return_sequences=16)


def greedy_by_recomputation(model, prompt, steps):
    row = list(prompt)
    for _ in range(steps):
        row.append(model(torch.tensor([row]))[0, -1].argmax().item())
        if row[-1] in model.cfg.eos_ids:
            break
    return row


def same(a: Rollout, b: Rollout) -> None:
    """The same responses, with the same log-probabilities."""
    for name in ("tokens", "prompt_lengths", "lengths", "finished"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-4)


def plain(model, prompts, params, seed=None) -> Rollout:
    """The plain loop, which runs when somebody watches."""
    return generate(model, prompts, params, seed=seed, on_token=lambda row, token: None)


@pytest.mark.parametrize("kind", ["experts, latents", "dense, grouped queries"])
@pytest.mark.parametrize("loop", [generate, plain])
def test_greedy_equals_recomputation(tiny_model, kind, loop):
    model = tiny_model.eval() if kind.startswith("experts") else GPT(ModelConfig(**DENSE)).eval()
    out = loop(model, PROMPTS, SamplingParams(max_new_tokens=12, temperature=0))
    for i, prompt in enumerate(PROMPTS):
        row = greedy_by_recomputation(model, prompt, 12)
        assert out.tokens[i, : out.lengths[i]].tolist() == row
        assert out.finished[i].item() == (row[-1] in model.cfg.eos_ids)


@pytest.mark.parametrize("rows", [None, 10])
@pytest.mark.parametrize("settings", [{}, dict(top_k=5), dict(top_p=0.8), dict(temperature=0)])
def test_the_engine_equals_the_plain_loop(tiny_model, rows, settings):
    """Compaction and continuous batching: rows end at different times, and others take places."""
    tiny_model.cfg.eos_ids = tuple(range(0, tiny_model.cfg.vocab_size, 12))
    params = SamplingParams(max_new_tokens=40, num_return_sequences=16, rows=rows)
    params = replace(params, **settings)
    expected = plain(tiny_model, PROMPTS, params, seed=3)
    same(expected, generate(tiny_model, PROMPTS, params, seed=3))
    assert len(set(expected.lengths.tolist())) > 2


def test_each_token_is_told_as_it_is_drawn(tiny_model):
    told = []
    params = SamplingParams(max_new_tokens=9, num_return_sequences=2)
    out = generate(tiny_model, PROMPTS, params, seed=1, on_token=lambda *pair: told.append(pair))
    for i in range(6):
        new = out.tokens[i, out.prompt_lengths[i] : out.lengths[i]].tolist()
        assert [token for row, token in told if row == i] == new


def test_sampler_and_trainer_agree_on_log_probabilities(tiny_model):
    for temperature in (1.0, 0.7):
        params = SamplingParams(20, temperature, num_return_sequences=8)
        out = generate(tiny_model, PROMPTS, params, seed=3)
        slots = torch.arange(out.tokens.shape[1])
        mask = (slots >= out.prompt_lengths[:, None]) & (slots < out.lengths[:, None])
        positions = torch.where(slots < out.lengths[:, None], slots, -1)
        again = token_logprobs(tiny_model, out.tokens, temperature, mask, positions)
        assert (out.logprobs - again).abs().max() < 1e-4
        assert (out.logprobs[~mask] == 0).all()


def likely_end(model, token=5):
    """Make the end token likely, so that rows end at different times."""
    model.cfg.eos_ids = (token,)
    with torch.no_grad():
        model.embed_tokens.weight[token] *= 3


def test_layout_of_a_rollout(tiny_model):
    likely_end(tiny_model)
    out = generate(tiny_model, PROMPTS, SamplingParams(30, num_return_sequences=16), seed=0)
    assert out.tokens.shape[0] == 48
    assert out.prompt_lengths.tolist() == [3] * 16 + [1] * 16 + [5] * 16
    assert 0 < out.finished.sum() < 48
    for i in range(48):
        row, n, end = out.tokens[i].tolist(), out.prompt_lengths[i].item(), out.lengths[i].item()
        assert row[:n] == PROMPTS[i // 16]
        assert (5 in row[n:end]) == out.finished[i].item()
        assert 5 not in row[n : end - 1] and set(row[end:]) <= {tiny_model.cfg.pad_id}
        assert len(out.responses()[i]) == end - n - out.finished[i].item()


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait for a GPU, as it must know their result's value
    or shape."""

    NAMES = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        indexed = name in ("index", "index_put_")
        by_mask = indexed and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.count += by_mask or name in self.NAMES
        return func(*args, **(kwargs or {}))


def test_decoding_seldom_waits_for_the_device(tiny_model, monkeypatch):
    likely_end(tiny_model)

    def drawn(most):
        params = SamplingParams(most, num_return_sequences=16)
        with Waits() as waits:
            return generate(tiny_model, PROMPTS, params, seed=0), waits.count

    often, _ = drawn(40)
    monkeypatch.setitem(engine.ASK_EVERY, "cpu", 16)
    (seldom, many), (_, few) = drawn(40), drawn(8)
    same(often, seldom)
    # 32 tokens more: asked twice, and each time rows may leave
    assert len(often.tokens) == 48 and many - few <= 2 * 7


def test_a_seed_fixes_the_responses(tiny_model):
    params = SamplingParams(15, num_return_sequences=4)
    a, b, c = (generate(tiny_model, PROMPTS, params, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.logprobs, b.logprobs)
    assert not torch.equal(a.tokens, c.tokens)


def responses_without_end(model) -> list[list[int]]:
    """25 tokens of each row, if no token ends it."""
    model.cfg.eos_ids = ()
    whole = generate(model, PROMPTS, MANY, seed=0)
    starts = whole.prompt_lengths.tolist()
    return [whole.tokens[i, n : n + 25].tolist() for i, n in enumerate(starts)]


def test_rows_that_leave_the_batch_do_not_change_the_others(tiny_model):
    """Without an end token nobody leaves early; with one that ends most rows, the rest must go on
    as they were."""
    drawn = responses_without_end(tiny_model)
    last = statistics.mode(token for row in drawn for token in set(row))
    tiny_model.cfg.eos_ids = (last,)
    out = generate(tiny_model, PROMPTS, MANY, seed=0)
    assert 5 < out.finished.sum() < 48
    for i, row in enumerate(drawn):
        end = row.index(last) + 1 if last in row else 25
        assert out.tokens[i, out.prompt_lengths[i] : out.lengths[i]].tolist() == row[:end]


def test_stop_ids_end_rows_where_they_first_come(tiny_model):
    drawn = responses_without_end(tiny_model)
    counts = Counter(token for row in drawn for token in set(row))
    stops = tuple(token for token, _ in counts.most_common(2))
    out = generate(tiny_model, PROMPTS, replace(MANY, stop_ids=stops), seed=0)
    for i, row in enumerate(drawn):
        end = min((row.index(token) + 1 for token in stops if token in row), default=25)
        assert out.tokens[i, out.prompt_lengths[i] : out.lengths[i]].tolist() == row[:end]
        assert out.finished[i] == (row[end - 1] in stops)


@pytest.mark.parametrize("loop", [generate, plain])
def test_generating_leaves_no_trace(tiny_model, loop):
    tiny_model.train()
    state = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    random_before = torch.get_rng_state()
    loop(tiny_model, PROMPTS, SamplingParams(5), seed=0)
    assert tiny_model.training and torch.equal(random_before, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in tiny_model.state_dict().items())
    assert all(m.counts.sum() == 0 for m in tiny_model.moe_layers())


def test_temperature_top_k_top_p_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])

    def probs(**settings):
        return sampling_logprobs(p.log(), SamplingParams(**settings)).exp()[0].tolist()

    assert probs() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert probs(top_k=2) == pytest.approx([5 / 8, 3 / 8, 0, 0])
    assert probs(top_p=0.8) == pytest.approx([5 / 8, 3 / 8, 0, 0])  # reached with the second
    assert probs(top_p=0.81) == pytest.approx([50 / 95, 30 / 95, 15 / 95, 0], abs=1e-6)
    assert probs(top_p=0.01) == pytest.approx([1, 0, 0, 0])
    squared = [x * x for x in (0.5, 0.3, 0.15, 0.05)]
    assert probs(temperature=0.5) == pytest.approx([x / sum(squared) for x in squared])


def test_tokens_follow_the_distribution():
    p = torch.tensor([0.1, 0.0, 0.6, 0.3])
    logits = p.log().expand(40_000, 4)
    tokens, logprobs = sample_tokens(logits, SamplingParams(), torch.rand(40_000))
    found = torch.bincount(tokens, minlength=4) / 40_000
    assert found[1] == 0 and (found - p).abs().max() < 0.01
    torch.testing.assert_close(logprobs.exp(), p[tokens])
    edge = torch.tensor([[0.5, 0.5, 0.0]]).log(), SamplingParams(), torch.tensor([1 - 2**-24])
    assert sample_tokens(*edge)[0].item() == 1  # the largest number below 1 draws what is possible


def test_bad_prompts(tiny_model):
    with pytest.raises(ValueError, match="empty"):
        generate(tiny_model, [[]], SamplingParams(3))
    with pytest.raises(ValueError, match="1024"):
        generate(tiny_model, [[5] * 1024], SamplingParams(3))
    out = generate(tiny_model, [[5] * 1020], SamplingParams(30), seed=0)
    assert out.lengths[0] <= 1024


@pytest.mark.parametrize("kind", ["experts, latents", "dense, grouped queries"])
def test_rows_that_wait_for_a_place_say_the_same(tiny_model, kind):
    """Continuous batching: 48 responses, ten at once; they end at different times, so that places
    are taken in the middle of others' responses. The experts are recorded too."""
    dense = kind.startswith("dense")
    model = GPT(ModelConfig(**DENSE)).eval() if dense else tiny_model
    model.cfg.eos_ids, ends = tuple(range(0, model.cfg.vocab_size, 12)), []
    params = SamplingParams(40, num_return_sequences=16, record_routes=True)
    whole = generate(model, PROMPTS, params, seed=3)
    few = generate(model, PROMPTS, replace(params, rows=10), seed=3, on_end=ends.append)
    same(whole, few)
    assert len(set(whole.lengths.tolist())) > 12
    assert sum(ends) == 48 and len([n for n in ends if n]) > 10
    if dense:
        assert whole.routes is None
    else:  # the last token is never read
        known = torch.arange(whole.tokens.shape[1]) < whole.lengths[:, None] - 1
        assert torch.equal(whole.routes[known], few.routes[known])


def test_many_rows_that_wait_for_a_place_say_the_same(tiny_model):
    """With 128 rows or more some that have ended stay in the batch: they are counted once."""
    tiny_model.cfg.eos_ids, ends = tuple(range(0, tiny_model.cfg.vocab_size, 12)), []
    params = SamplingParams(30, num_return_sequences=200)
    whole = generate(tiny_model, [[5, 6, 7], [8, 9], [10]], params, seed=3)
    some = replace(params, rows=200)
    same(whole, generate(tiny_model, [[5, 6, 7], [8, 9], [10]], some, seed=3, on_end=ends.append))
    assert sum(ends) == 600


@pytest.mark.parametrize("loop", [generate, plain])
def test_every_prompt_has_its_room_in_the_context(tiny_model, loop):
    tiny_model.cfg.eos_ids = ()
    out = loop(tiny_model, [[5] * 1020, [6] * 1000, [7]], SamplingParams(30), seed=0)
    assert (out.lengths - out.prompt_lengths).tolist() == [4, 24, 30]
    assert not out.finished.any() and out.tokens.shape == (3, 1024)
    greedy = SamplingParams(30, temperature=0)
    alone = loop(tiny_model, [[5] * 1020], greedy)
    assert torch.equal(loop(tiny_model, [[5] * 1020, [7]], greedy).tokens[0], alone.tokens[0])


def test_two_teams_of_threads_say_the_same(tiny_model):
    """With two threads and many rows, halves are answered apart until few are left; rows end at
    different times, in both."""
    tiny_model.cfg.eos_ids = (0, 1, 2)
    asked, params = [[5, 6, 7], [8, 9]] * 4, SamplingParams(40, num_return_sequences=40)
    before, seen, graded = torch.get_num_threads(), [], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for rows in (None, 256):
                seen.append(generate(tiny_model, asked, replace(params, rows=rows), seed=3))
        for block in tiny_model.layers:
            distributed.recompute_activations(block)
        hook = tiny_model.register_forward_hook(
            lambda module, args, out: graded.append(torch.is_grad_enabled())
        )
        seen.append(generate(tiny_model, asked, params, seed=3))
        hook.remove()
    finally:
        torch.set_num_threads(before)
    assert graded and not any(graded)
    for other in seen[1:]:
        same(seen[0], other)
    assert len(set(seen[0].lengths.tolist())) > 20


def test_rollouts_one_after_the_other():
    def rollout(T, fill):
        lengths = torch.tensor([2, T])
        tokens, logprobs = torch.full((2, T), fill), torch.full((2, T), -1.0)
        return Rollout(tokens, torch.tensor([1, 1]), lengths, logprobs, lengths > 2)

    both = Rollout.concat([rollout(3, 7), rollout(5, 8)], pad_id=9)
    assert both.tokens.tolist() == [[7, 7, 7, 9, 9]] * 2 + [[8] * 5] * 2
    assert both.logprobs[0].tolist() == [-1, -1, -1, 0, 0] and both.lengths.tolist() == [2, 3, 2, 5]
    assert both.routes is None and both.select(torch.tensor([3])).lengths.tolist() == [5]


def test_a_token_that_the_model_does_not_have_is_named(tiny_model):
    """A tokenizer to which tokens were added, and a model that was not made larger."""
    beyond = tiny_model.cfg.vocab_size + 3
    told = f"the tokenizer has a token {beyond}, but the model's vocabulary ends at"
    with pytest.raises(UserError, match=told):
        generate(tiny_model, [[2, 3], [2, beyond]], SamplingParams(max_new_tokens=2))
