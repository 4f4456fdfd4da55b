"""The generation engine against plain, cache-free recomputation."""

import statistics
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from conftest import token_logprobs
from torch.utils._python_dispatch import TorchDispatchMode

import sample
from model import GPT, Cache, ModelConfig
from sample import draw, generate, sampling_logprobs

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def greedy_by_recomputation(model, prompt, steps):
    row = list(prompt)
    for _ in range(steps):
        row.append(model(torch.tensor([row]))[0, -1].argmax().item())
        if row[-1] in model.cfg.eos_ids:
            break
    return row


def test_greedy_equals_recomputation(tiny_model):
    tiny_model.eval()
    out = generate(tiny_model, PROMPTS, max_new_tokens=12, temperature=0)
    for i, prompt in enumerate(PROMPTS):
        row = greedy_by_recomputation(tiny_model, prompt, 12)
        assert out.tokens[i, : out.lengths[i]].tolist() == row
        assert out.finished[i].item() == (row[-1] in tiny_model.cfg.eos_ids)


def test_sampler_and_trainer_agree_on_log_probabilities(tiny_model):
    for temperature in (1.0, 0.7):
        out = generate(tiny_model, PROMPTS, num_generations=8, max_new_tokens=20, temperature=temperature, seed=3)
        slots = torch.arange(out.tokens.shape[1])
        mask = (slots >= out.prompt_lengths[:, None]) & (slots < out.lengths[:, None])
        positions = torch.where(slots < out.lengths[:, None], slots, -1)
        again = token_logprobs(tiny_model, out.tokens, temperature, mask, positions)
        assert (out.logprobs - again).abs().max() < 1e-4
        assert (out.logprobs[~mask] == 0).all()


def test_layout_of_a_rollout(tiny_model):
    tiny_model.cfg.eos_ids = (5,)
    with torch.no_grad():  # make the end token likely, so that rows end at different times
        tiny_model.embed_tokens.weight[5] *= 3
    out = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=30, seed=0)
    assert out.tokens.shape[0] == 48 and out.prompt_lengths.tolist() == [3] * 16 + [1] * 16 + [5] * 16
    assert 0 < out.finished.sum() < 48
    for i in range(48):
        row, n, end = out.tokens[i].tolist(), out.prompt_lengths[i].item(), out.lengths[i].item()
        assert row[:n] == PROMPTS[i // 16]
        assert (5 in row[n:end]) == out.finished[i].item()
        assert 5 not in row[n : end - 1] and set(row[end:]) <= {tiny_model.cfg.pad_id}
        assert len(out.responses()[i]) == end - n - out.finished[i].item()


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait for a GPU: those whose result's value or shape it must know."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func._schema.name in ("aten::index", "aten::index_put_") and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.count += by_mask or func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::bincount", "aten::masked_select", "aten::_unique2")
        return func(*args, **(kwargs or {}))


def test_decoding_seldom_waits_for_the_device(tiny_model, monkeypatch):
    tiny_model.cfg.eos_ids = (5,)
    with torch.no_grad():
        tiny_model.embed_tokens.weight[5] *= 3

    def drawn(most):
        with Waits() as waits:
            return generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=most, seed=0), waits.count

    often, _ = drawn(40)
    monkeypatch.setitem(sample.ASK_EVERY, "cpu", 16)
    (seldom, many), (_, few) = drawn(40), drawn(8)
    for name in ("tokens", "lengths", "logprobs", "finished"):
        assert torch.allclose(getattr(often, name).float(), getattr(seldom, name).float(), atol=1e-5)
    assert len(often.tokens) == 48 and many - few <= 2 * 7  # 32 tokens more: asked twice, and each time rows may leave


def test_a_seed_fixes_the_responses(tiny_model):
    a = generate(tiny_model, PROMPTS, num_generations=4, max_new_tokens=15, seed=1)
    b = generate(tiny_model, PROMPTS, num_generations=4, max_new_tokens=15, seed=1)
    c = generate(tiny_model, PROMPTS, num_generations=4, max_new_tokens=15, seed=2)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.logprobs, b.logprobs)
    assert not torch.equal(a.tokens, c.tokens)


def test_rows_that_leave_the_batch_do_not_change_the_others(tiny_model):
    """With an end token nobody can leave early; with one that ends most rows, the rest must go on as they were."""
    tiny_model.cfg.eos_ids = ()
    whole = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=25, temperature=0.3, seed=0)
    drawn = [whole.tokens[i, n : n + 25].tolist() for i, n in enumerate(whole.prompt_lengths.tolist())]
    tiny_model.cfg.eos_ids = (statistics.mode(token for row in drawn for token in set(row)),)
    out = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=25, temperature=0.3, seed=0)
    assert 5 < out.finished.sum() < 48
    for i, row in enumerate(drawn):
        (last,) = tiny_model.cfg.eos_ids
        end = row.index(last) + 1 if last in row else 25
        assert out.tokens[i, out.prompt_lengths[i] : out.lengths[i]].tolist() == row[:end]


def test_stops_end_rows_where_they_first_come(tiny_model):
    tiny_model.cfg.eos_ids = ()
    whole = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=25, temperature=0.3, seed=0)
    drawn = [whole.tokens[i, n : n + 25].tolist() for i, n in enumerate(whole.prompt_lengths.tolist())]
    stops = tuple(token for token, _ in Counter(token for row in drawn for token in set(row)).most_common(2))
    out = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=25, temperature=0.3, seed=0, stops=stops)
    for i, row in enumerate(drawn):
        end = min((row.index(token) + 1 for token in stops if token in row), default=25)
        assert out.tokens[i, out.prompt_lengths[i] : out.lengths[i]].tolist() == row[:end] and out.finished[i] == (row[end - 1] in stops)


def test_generating_leaves_no_trace(tiny_model):
    tiny_model.train()
    state = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    random_before = torch.get_rng_state()
    generate(tiny_model, PROMPTS, max_new_tokens=5, seed=0)
    assert tiny_model.training and torch.equal(random_before, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in tiny_model.state_dict().items())
    assert all(m.counts.sum() == 0 for m in tiny_model.moe_layers())


def test_temperature_top_k_top_p_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])

    def probs(**kw):
        return sampling_logprobs(p.log(), **(dict(temperature=1.0, top_k=0, top_p=1.0) | kw)).exp()[0].tolist()

    assert probs() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert probs(top_k=2) == pytest.approx([5 / 8, 3 / 8, 0, 0])
    assert probs(top_p=0.8) == pytest.approx([5 / 8, 3 / 8, 0, 0])  # 0.8 is reached with the second
    assert probs(top_p=0.81) == pytest.approx([50 / 95, 30 / 95, 15 / 95, 0], abs=1e-6)
    assert probs(top_p=0.01) == pytest.approx([1, 0, 0, 0])
    squared = [x * x for x in (0.5, 0.3, 0.15, 0.05)]
    assert probs(temperature=0.5) == pytest.approx([x / sum(squared) for x in squared])


def test_draw_follows_the_distribution():
    logp = torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(40_000, 4)
    tokens = draw(logp, torch.rand(40_000))
    shares = torch.bincount(tokens, minlength=4) / 40_000
    assert shares[1] == 0 and (shares - torch.tensor([0.1, 0, 0.6, 0.3])).abs().max() < 0.01
    edge = draw(torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([1 - 2**-24]))
    assert edge.item() == 1  # the largest number below 1 never draws an impossible token


def test_bad_prompts(tiny_model):
    with pytest.raises(ValueError, match="empty"):
        generate(tiny_model, [[]], max_new_tokens=3)
    with pytest.raises(ValueError, match="1024"):
        generate(tiny_model, [[5] * 1024], max_new_tokens=3)
    out = generate(tiny_model, [[5] * 1020], max_new_tokens=30, seed=0)
    assert out.lengths[0] <= 1024


def test_rows_decode_on_a_model_without_experts():
    model = GPT(ModelConfig(vocab_size=40, dim=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=24, n_experts=0,
                            attention="gqa", rope_interleaved=False)).eval()
    out = generate(model, PROMPTS, max_new_tokens=8, temperature=0)
    for i, prompt in enumerate(PROMPTS):
        assert out.tokens[i, : out.lengths[i]].tolist() == greedy_by_recomputation(model, prompt, 8)


@pytest.mark.parametrize("model", ["experts, latents", "dense, grouped queries"])
def test_rows_that_wait_for_a_place_say_the_same(tiny_model, model):
    """Continuous batching: 48 responses, ten at once; they end at different times, so that places are taken in the middle of others' responses."""
    if model.startswith("dense"):
        tiny_model = GPT(ModelConfig(vocab_size=40, dim=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=24, n_experts=0, attention="gqa")).eval()
    tiny_model.cfg.eos_ids, ends = tuple(range(0, tiny_model.cfg.vocab_size, 12)), []
    whole = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=40, seed=3, record_routes=True)
    few = generate(tiny_model, PROMPTS, num_generations=16, max_new_tokens=40, seed=3, record_routes=True, rows=10, on_end=ends.append)
    assert len(set(whole.lengths.tolist())) > 12 and sum(ends) == 48 and len([n for n in ends if n]) > 10
    assert torch.equal(whole.tokens, few.tokens) and torch.equal(whole.lengths, few.lengths) and torch.equal(whole.finished, few.finished)
    torch.testing.assert_close(whole.logprobs, few.logprobs)
    known = torch.arange(whole.tokens.shape[1]) < whole.lengths[:, None] - 1  # the last token is never read
    assert (whole.routes is None) == model.startswith("dense") and (whole.routes is None or torch.equal(whole.routes[known], few.routes[known]))


def test_joined_caches_have_no_gaps(tiny_model):
    """Two rows that began with 4 and 2 tokens, padded to 5, and have come 3 tokens further, beside a new one: one more token, together and apart."""
    rows = [torch.randint(3, 40, (n,)) for n in (7, 5, 20)]
    caches = Cache(block=4), Cache(block=4)
    with torch.no_grad():
        tiny_model.eval()
        begun = torch.stack([F.pad(rows[0][:4], (0, 1)), F.pad(rows[1][:2], (0, 3))])
        tiny_model(begun, caches[0], positions=torch.tensor([[0, 1, 2, 3, -1], [0, 1, -1, -1, -1]]))
        for i in range(3):
            tiny_model(torch.stack([rows[0][4 + i], rows[1][2 + i]])[:, None], caches[0], positions=torch.tensor([[4 + i], [2 + i]]))
        tiny_model(rows[2][None], caches[1])
        both = Cache.join(list(caches))
        assert caches[0].length == 8 and both.length == 20 and both.valid.shape == (3, 20)
        assert [v.nonzero()[:, 0].tolist() for v in both.valid] == [list(range(n)) for n in (7, 5, 20)]
        together = tiny_model(torch.tensor([[7], [8], [9]]), both, positions=torch.tensor([[7], [5], [20]]))[:, 0]
        apart = [tiny_model(torch.cat([row, new])[None])[0, -1] for row, new in zip(rows, torch.tensor([[7], [8], [9]]))]
    torch.testing.assert_close(together, torch.stack(apart), atol=1e-5, rtol=1e-4)


def test_every_prompt_has_its_own_room_in_the_context(tiny_model):
    tiny_model.cfg.eos_ids = ()
    out = generate(tiny_model, [[5] * 1020, [6] * 1000, [7]], max_new_tokens=30, seed=0)
    assert (out.lengths - out.prompt_lengths).tolist() == [4, 24, 30] and not out.finished.any() and out.tokens.shape == (3, 1024)
    alone = generate(tiny_model, [[5] * 1020], max_new_tokens=30, temperature=0)
    assert torch.equal(generate(tiny_model, [[5] * 1020, [7]], max_new_tokens=30, temperature=0).tokens[0], alone.tokens[0])


def test_two_teams_of_threads_say_the_same(tiny_model):
    """With two threads and many rows, halves are answered apart until few are left; rows end at different times, in both."""
    tiny_model.cfg.eos_ids = (0, 1, 2)
    asked = [[5, 6, 7], [8, 9]] * 4
    before, seen, graded = torch.get_num_threads(), [], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seen += [generate(tiny_model, asked, num_generations=40, max_new_tokens=40, seed=3, rows=rows) for rows in (None, 256)]
        tiny_model.apply(lambda m: setattr(m, "recompute", True))
        hook = tiny_model.register_forward_hook(lambda module, args, out: graded.append(torch.is_grad_enabled()))
        seen.append(generate(tiny_model, asked, num_generations=40, max_new_tokens=40, seed=3))
        hook.remove()
    finally:
        torch.set_num_threads(before)
    assert graded and not any(graded)
    one = seen[0]
    for other in seen[1:]:
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.lengths, other.lengths) and torch.equal(one.finished, other.finished)
        torch.testing.assert_close(one.logprobs, other.logprobs)
    assert len(set(one.lengths.tolist())) > 20
