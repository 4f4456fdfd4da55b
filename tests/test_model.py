"""The network against slow, explicit implementations."""

import math
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import model as M
from lib import rope
from lib.cache import BlockCache
from lib.trainer import balance_experts, chunked_logprobs
from model import GPT, MLA, ModelConfig, MoE, RMSNorm

SMALL = dict(vocab_size=50, dim=24, hidden_dim=32, max_seq_len=64)
MLA_SMALL = SMALL | dict(n_layers=3, n_heads=3, kv_lora_rank=10, qk_nope_head_dim=6)
MLA_SMALL |= dict(
    qk_rope_head_dim=4, v_head_dim=8, n_experts=6, n_experts_per_token=2, expert_dim=8
)
GQA_SMALL = SMALL | dict(n_layers=2, n_heads=4, n_kv_heads=2, head_dim=6, attention="gqa")
GQA_SMALL |= dict(n_experts=0, rope_interleaved=False)
GROUPED = dict(n_groups=3, topk_groups=2, routed_scale=2.5)
KINDS = {
    "mla": MLA_SMALL,
    "mla with compressed queries": MLA_SMALL | dict(q_lora_rank=9),
    "mla, grouped routing, untied": MLA_SMALL | GROUPED | dict(tie_embeddings=False),
    "llama": GQA_SMALL,
    "qwen2": GQA_SMALL | dict(qkv_bias=True),
    "qwen3": GQA_SMALL | dict(qk_norm=True),
    "gqa with experts": GQA_SMALL | dict(n_experts=4, expert_dim=8),
}


def make(**shape) -> GPT:
    net = GPT(ModelConfig(**shape))
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.3) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    return net.eval()


def test_rms_norm():
    norm, x = RMSNorm(5, 1e-6), torch.randn(3, 5)
    norm.weight.data = torch.arange(5.0)
    rows = [row / math.sqrt(sum(v * v for v in row.tolist()) / 5 + 1e-6) for row in x]
    torch.testing.assert_close(norm(x), torch.stack(rows) * norm.weight)


# ------------------------------------------------------------------------------ positions


@pytest.mark.parametrize("interleaved", [True, False])
def test_rope_is_a_rotation_of_complex_pairs(interleaved):
    d, theta = 8, 100.0
    x, positions = torch.randn(1, 5, 2, d), torch.tensor([[0, 1, 2, 7, 30]])
    cfg = ModelConfig(qk_rope_head_dim=d, rope_theta=theta, rope_interleaved=interleaved)
    out = M.apply_rope(x, M.rope_rotations(positions, cfg))
    for t in range(5):
        for j in range(d // 2):
            a, b = (2 * j, 2 * j + 1) if interleaved else (j, j + d // 2)
            angle = positions[0, t].item() * theta ** (-2 * j / d)
            z = complex(x[0, t, 1, a], x[0, t, 1, b]) * complex(math.cos(angle), math.sin(angle))
            assert out[0, t, 1, a].item() == pytest.approx(z.real, abs=1e-5)
            assert out[0, t, 1, b].item() == pytest.approx(z.imag, abs=1e-5)


def test_rope_scores_depend_on_distance_only():
    q, k, cfg = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8), ModelConfig(qk_rope_head_dim=8)

    def score(i, j):
        a = M.apply_rope(q, M.rope_rotations(torch.tensor([[i]]), cfg))
        return (a * M.apply_rope(k, M.rope_rotations(torch.tensor([[j]]), cfg))).sum()

    torch.testing.assert_close(score(3, 1), score(40, 38), atol=1e-5, rtol=0)


def test_yarn_keeps_fast_pairs_and_slows_down_slow_ones():
    yarn = dict(rope_scaling="yarn", rope_factor=40.0, rope_original=4096, rope_high=32.0)
    plain, scaled = ModelConfig(qk_rope_head_dim=64), ModelConfig(qk_rope_head_dim=64, **yarn)
    a, b = M.rope_frequencies(plain), M.rope_frequencies(scaled)
    assert a[0] == b[0]
    torch.testing.assert_close(b[-1] * 40, a[-1])
    assert rope.magnitude(plain) == 1.0
    assert rope.magnitude(scaled) == pytest.approx(0.1 * math.log(40) + 1)


# ------------------------------------------------------------------------------ attention


def attention_reference(q, k, v, mask, scale):
    """softmax(q k^T scale) v, written out; arguments as model.attention's."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))  # [B, H, S, d]
    scores = q @ k.transpose(-1, -2) * scale  # [B, H, T, S]
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("heads,kv_heads,dv", [(4, 4, 6), (4, 2, 6), (4, 1, 10)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_fast_equals_reference(heads, kv_heads, dv, masked):
    q, k = torch.randn(2, heads, 7, 6), torch.randn(2, kv_heads, 7, 6)
    v = torch.randn(2, kv_heads, 7, dv)
    mask = (torch.rand(2, 1, 7, 7) > 0.4) | torch.eye(7, dtype=torch.bool) if masked else None
    expected = attention_reference(q, k, v, mask, 0.3)
    torch.testing.assert_close(M.attention(q, k, v, mask, 0.3), expected)


def test_attention_reference_by_hand():
    q = torch.tensor([[[[1.0], [2.0]]]])
    v = torch.tensor([[[[10.0], [20.0]]]])
    p = math.exp(2) / (math.exp(2) + math.exp(4))  # second query: scores 2*1 and 2*2
    for attend in (attention_reference, M.attention):
        out = attend(q, q, v, None, 1.0)
        assert out.flatten().tolist() == pytest.approx([10.0, 10 * p + 20 * (1 - p)])


def test_mla_against_one_head_at_a_time():
    cfg = ModelConfig(**MLA_SMALL, q_lora_rank=9)
    net = MLA(cfg, 0).double()
    T, x = 5, torch.randn(1, 5, cfg.dim, dtype=torch.float64)
    out = net(x, M.rope_rotations(torch.arange(T)[None], cfg), None)

    def rms(y):
        return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def rotate(y):  # [T, 4], neighbours are pairs
        freqs = torch.tensor([1.0, 10000**-0.5], dtype=torch.float64)
        angles = torch.arange(T)[:, None] * freqs
        z = torch.view_as_complex(y.reshape(T, 2, 2).contiguous())
        z = z * torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(z).reshape(T, 4)

    q = rms(x[0] @ net.q_a_proj.weight.T) @ net.q_b_proj.weight.T  # [T, 3 * 10]
    kv_a = x[0] @ net.kv_a_proj_with_mqa.weight.T
    c, k_rope = rms(kv_a[:, :10]), rotate(kv_a[:, 10:])
    kv = c @ net.kv_b_proj.weight.T  # [T, 3 * 14]
    heads = []
    for h in range(3):
        qh, kvh = q[:, 10 * h : 10 * h + 10], kv[:, 14 * h : 14 * h + 14]
        scores = (qh[:, :6] @ kvh[:, :6].T + rotate(qh[:, 6:]) @ k_rope.T) / math.sqrt(10)
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -1e30)
        heads.append(scores.softmax(-1) @ kvh[:, 6:])
    expected = torch.cat(heads, -1) @ net.o_proj.weight.T
    torch.testing.assert_close(out[0], expected, atol=1e-6, rtol=1e-5)  # rope's angles are float32


# ------------------------------------------------------------------------------ with a cache


@pytest.mark.parametrize("kind", KINDS)
def test_cache_gives_the_same_logits(kind):
    """Prefill of ragged prompts and then one token at a time (absorbed weights, grouped heads) =
    the whole row at once."""
    net = make(**KINDS[kind])
    lengths, new = [5, 2, 7], 6
    rows = [torch.randint(0, 50, (n + new,)) for n in lengths]
    whole = [net(r[None])[0] for r in rows]
    P = max(lengths)
    prompts = torch.stack([F.pad(r[:n], (0, P - n)) for r, n in zip(rows, lengths)])
    positions = torch.tensor([[t if t < n else -1 for t in range(P)] for n in lengths])
    cache = BlockCache(block=4, most=0)
    logits = net(prompts, cache, positions)
    for i, n in enumerate(lengths):
        torch.testing.assert_close(logits[i, :n], whole[i][:n], atol=2e-5, rtol=1e-4)
    for t in range(new):
        token = torch.stack([r[n + t] for r, n in zip(rows, lengths)])[:, None]
        logits = net(token, cache, torch.tensor([[n + t] for n in lengths]))
        for i, n in enumerate(lengths):
            torch.testing.assert_close(logits[i, 0], whole[i][n + t], atol=2e-5, rtol=1e-4)
        if t == 2:  # leaving the batch and coming back in another order changes nothing
            order = [2, 0, 1]
            cache = cache.select(torch.tensor(order))
            rows, lengths, whole = ([x[i] for i in order] for x in (rows, lengths, whole))


def test_several_tokens_through_a_filled_cache():
    net = make(**MLA_SMALL)
    row, cache = torch.randint(0, 50, (2, 9)), BlockCache(block=4, most=0)
    net(row[:, :4], cache)
    torch.testing.assert_close(net(row[:, 4:], cache), net(row)[:, 4:], atol=2e-5, rtol=1e-4)


def test_cache_holds_latent_and_rotary_key_only():
    net, cache = make(**MLA_SMALL), BlockCache(block=4, most=0)

    def shapes():
        return {tuple(x.shape for x in layer) for layer in cache.layers.values()}

    net(torch.randint(0, 50, (2, 4)), cache)
    assert shapes() == {((2, 1, 4, 10 + 4),)}
    net(torch.randint(0, 50, (2, 1)), cache)
    assert shapes() == {((2, 1, 8, 10 + 4),)}
    assert cache.valid.tolist() == [[True] * 5 + [False] * 3] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_sees_nothing_is_a_number(dtype):
    """Padding may have no key at all; its output is thrown away, but must not spoil a sum."""
    net = GPT(ModelConfig(vocab_size=20, dim=16, n_layers=2, n_heads=2)).to(dtype).eval()
    cache, nowhere = BlockCache(block=4, most=0), torch.tensor([[-1]])
    assert net(torch.tensor([[3]]), cache, positions=nowhere).isfinite().all()


def test_padding_changes_nothing():
    net = make(**MLA_SMALL)
    row = torch.randint(0, 50, (1, 6))
    padded = F.pad(row, (0, 3), value=7)
    out = net(padded, positions=torch.tensor([[0, 1, 2, 3, 4, 5, -1, -1, -1]]))
    torch.testing.assert_close(out[:, :6], net(row), atol=2e-5, rtol=1e-4)


# ------------------------------------------------------------------------------ experts


def explicit_moe(net: MoE, x: torch.Tensor) -> torch.Tensor:
    """Token by token, expert by expert."""
    cfg, out = net.cfg, torch.zeros_like(x)
    size = cfg.n_experts // cfg.n_groups
    for n, token in enumerate(x):
        s = 1 / (1 + (-(net.gate.weight @ token)).exp())
        biased = s + net.gate.e_score_correction_bias
        groups = [biased[g * size : (g + 1) * size].tolist() for g in range(cfg.n_groups)]
        strength = [sum(sorted(group)[-2:]) for group in groups]
        best = sorted(range(cfg.n_groups), key=lambda g: -strength[g])[: cfg.topk_groups]
        allowed = [e for g in best for e in range(g * size, (g + 1) * size)]
        chosen = sorted(allowed, key=lambda e: -biased[e].item())[: cfg.n_experts_per_token]
        total = sum(s[j] for j in chosen)
        for e in chosen:
            gate, up = (token @ net.gate_up[e]).chunk(2)
            out[n] += s[e] / total * cfg.routed_scale * ((F.silu(gate) * up) @ net.down[e])
        out[n] += net.shared_experts(token)
    return out


@pytest.mark.parametrize("extra", [{}, GROUPED])
def test_moe_against_token_by_token(extra):
    cfg = ModelConfig(**(MLA_SMALL | extra))
    net = make(**(MLA_SMALL | extra)).layers[1].mlp
    net.gate.e_score_correction_bias += torch.randn(cfg.n_experts) * 0.2
    x = torch.randn(1, 40, cfg.dim)
    out = net(x, torch.ones(1, 40, dtype=torch.bool))[0]
    torch.testing.assert_close(out, explicit_moe(net, x[0]), atol=1e-5, rtol=1e-4)


def test_moe_gradients_against_token_by_token():
    net = make(**MLA_SMALL).layers[1].mlp
    x = torch.randn(1, 12, 24, requires_grad=True)
    weight = torch.randn(12, 24)
    (net(x, torch.ones(1, 12, dtype=torch.bool))[0] * weight).sum().backward()
    got = [p.grad.clone() for p in net.parameters()] + [x.grad.clone()]
    net.zero_grad()
    x.grad = None
    (explicit_moe(net, x[0]) * weight).sum().backward()
    for a, b in zip(got, [p.grad for p in net.parameters()] + [x.grad]):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_bias_moves_the_choice_but_not_the_weights():
    router = make(**MLA_SMALL).layers[1].mlp.gate
    x = torch.randn(5, 24)
    router.e_score_correction_bias[3] = 100.0
    chosen, weights, scores = router(x)
    assert (chosen == 3).any(1).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    picked = scores.gather(1, chosen)
    torch.testing.assert_close(weights, picked / picked.sum(1, keepdim=True))


def test_bias_update_follows_the_counts_of_real_tokens():
    net = make(**MLA_SMALL).train()
    moe = net.layers[1].mlp
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, -1, -1, -1]])
    net(torch.randint(0, 50, (2, 5)), positions=positions)
    net(torch.randint(0, 50, (1, 3)))
    assert moe.counts.sum() == (7 + 3) * 2  # every real token, twice; none dropped, no padding
    counts, mean = moe.counts.clone(), 20 / 6
    metrics = balance_experts(net)
    expected = [0.001 if c < mean else -0.001 if c > mean else 0.0 for c in counts.tolist()]
    torch.testing.assert_close(moe.gate.e_score_correction_bias, torch.tensor(expected))
    assert moe.counts.sum() == 0
    assert metrics["moe/max_load"] >= counts.max().item() / mean - 1e-6
    net.eval()(torch.randint(0, 50, (1, 3)))
    assert moe.counts.sum() == 0


def test_every_layer_is_balanced_by_its_own_counts():
    """Shares of 2, 1, 0 in one layer, of 1.5, 1.5, 0 in the other: those told are the extremes."""
    net = make(**MLA_SMALL | dict(n_experts=3, n_experts_per_token=1)).train()
    for moe, counts in zip(net.moe_layers(), ([6.0, 3.0, 0.0], [3.0, 3.0, 0.0]), strict=True):
        moe.counts.copy_(torch.tensor(counts))
    assert balance_experts(net) == {"moe/max_load": 2.0, "moe/min_load": 0.0}
    biases = torch.stack([moe.gate.e_score_correction_bias for moe in net.moe_layers()])
    torch.testing.assert_close(biases, 0.001 * torch.tensor([[-1.0, 0, 1], [-1, -1, 1]]))
    assert all((moe.counts == 0).all() for moe in net.moe_layers())


def test_balance_loss_by_hand():
    """Two tokens, three experts, one each: f = E/(K T) counts, P = mean normalised score."""
    shape = MLA_SMALL | dict(n_experts=3, n_experts_per_token=1, balance_loss=0.5)
    used = torch.tensor([[[1, 0, 0], [1, 0, 0], [0, 0, 0]]])
    scores = torch.tensor([[[0.6, 0.2, 0.2], [0.4, 0.4, 0.8], [9.0, 9.0, 9.0]]])
    loss = MoE(ModelConfig(**shape)).balance(used, scores, torch.tensor([[True, True, False]]))
    # f = [3, 0, 0], P_0 = (0.6 + 0.25) / 2
    assert loss.item() == pytest.approx(0.5 * 3.0 * (0.6 + 0.25) / 2)


# ------------------------------------------------------------------------------ the rest


def test_chunked_logprobs_equal_the_whole():
    hidden = torch.randn(37, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 20, (37,))
    out = chunked_logprobs(hidden, weight, targets, 0.7, chunk=5)
    rows = [(h @ weight.T / 0.7, t) for h, t in zip(hidden, targets)]
    explicit = torch.stack([row[t] - row.exp().sum().log() for row, t in rows])
    torch.testing.assert_close(out.double(), explicit, atol=1e-5, rtol=1e-5)
    grads = []
    for x in (out, explicit):
        loss = x.double().square().sum()
        grads.append(torch.autograd.grad(loss, (hidden, weight), retain_graph=True))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind, tmp_path):
    net = make(**KINDS[kind])
    if net.cfg.n_experts:
        net.moe_layers()[0].gate.e_score_correction_bias += torch.randn(net.cfg.n_experts)
    net.save_pretrained(str(tmp_path))
    again = GPT.from_pretrained(str(tmp_path))
    tokens = torch.randint(0, 50, (1, 9))
    assert torch.equal(net(tokens), again(tokens)) and again.cfg == net.cfg
    again.train()(tokens).sum().backward()  # a loaded model can be trained
    shape = GPT.from_pretrained(str(tmp_path), device="meta")
    assert shape.cfg == net.cfg and shape.device.type == "meta"


def test_files_have_hugging_face_names(tmp_path):
    make(**MLA_SMALL).save_pretrained(str(tmp_path))
    with safe_open(os.path.join(tmp_path, "model.safetensors"), "pt") as f:
        names = set(f.keys())
        expert = f.get_tensor("model.layers.1.mlp.experts.5.gate_proj.weight")
    assert expert.shape == (8, 24)
    expected = """embed_tokens.weight norm.weight layers.0.self_attn.kv_a_proj_with_mqa.weight
        layers.0.mlp.gate_proj.weight layers.2.mlp.gate.e_score_correction_bias
        layers.1.mlp.shared_experts.down_proj.weight"""
    assert {f"model.{name}" for name in expected.split()} <= names
    assert "lm_head.weight" not in names  # tied


def test_bad_folders_are_named(tmp_path):
    folder = str(tmp_path)
    with pytest.raises(ValueError, match="no model at"):
        GPT.from_pretrained(str(tmp_path / "none"))
    make(**MLA_SMALL).save_pretrained(folder)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        GPT.from_pretrained(folder)
    make(**(MLA_SMALL | dict(hidden_dim=40))).save_pretrained(folder)
    config = tmp_path / "config.json"
    narrow = config.read_text().replace('"intermediate_size": 40', '"intermediate_size": 32')
    config.write_text(narrow)
    with pytest.raises(ValueError, match=r"layers.0.mlp.down_proj.weight.*\[24, 40\].*\[24, 32\]"):
        GPT.from_pretrained(folder)
    config.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        GPT.from_pretrained(folder)


def test_shapes_that_cannot_be():
    with pytest.raises(ValueError, match="attention"):
        ModelConfig(attention="mlp")
    with pytest.raises(ValueError, match="reach only 2"):
        ModelConfig(n_experts=8, n_groups=4, topk_groups=1, n_experts_per_token=3)
