"""The network: a mixture-of-experts GPT with multi-head latent attention, by hand.

    python model.py                            # cost report of the laptop model
    python model.py --config deepseek-v3       # 671B parameters, counted on the meta device

Everything DeepSeek-V3 [arXiv 2412.19437] needs to answer stands here: rotary positions, latent
(MLA) and grouped-query (GQA) attention, SwiGLU, and the mixture of experts with its balancing: a
bias on the choice of experts, which lib/trainer.py moves after each optimiser step, and a small
loss within a sequence. The key-value cache is in lib/cache.py. A dense model is the same config
with n_experts = 0 and attention = "gqa".

Simplified: (1) the embedding may be tied to the head; (2) the shared experts are one wide SwiGLU,
which is the same function; (3) the laptop model has no query compression (q_lora_rank = None, as
DeepSeek-V2-Lite); (4) multi-token prediction is left out: answers do not need it [V3 2.2].

Shapes: B rows, T new tokens (N = B T), S tokens in the cache with them, D model width, H heads, G
key-value heads, d one head's width (or a part's), E experts, K experts a token, V vocabulary.
"""

import lib.start  # noqa: F401

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import RMSNorm  # x / rms(x) * weight over the last dimension [arXiv 1910.07467]

import config
from config import section, setting
from lib import hf, lora, memory, rope, shape
from lib.products import Linear, grouped_mm


@dataclass
class ModelConfig:
    """Shape of the network. The defaults are the laptop model (`tiny`)."""

    vocab_size: int = setting(1536, low=1)
    dim: int = setting(128, low=1)
    n_layers: int = setting(4, low=1, high=1000)
    n_heads: int = setting(4, low=1)
    max_seq_len: int = setting(1024, low=2)
    hidden_dim: int = setting(384, low=1)  # width of a dense SwiGLU
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    pad_id: int = 0  # these two are set from the tokenizer
    eos_ids: tuple[int, ...] = (1,)  # any of them ends a response
    # positions
    rope_theta: float = setting(10000.0, above=1)
    rope_interleaved: bool = True  # pairs (2j, 2j+1), as DeepSeek's; else (j, j + d/2), as Llama's
    rope_scaling: str = "default"  # for longer contexts: llama3, yarn
    rope_factor: float = setting(1.0, above=0)  # by how much slow pairs are slowed down
    rope_original: int = 0  # the context before that
    rope_low: float = 1.0  # llama3's low_freq_factor, yarn's beta_slow
    rope_high: float = 4.0  # llama3's high_freq_factor, yarn's beta_fast
    rope_mscale: float = 0.0  # yarn's, of the rotated vectors; 0: not given
    rope_mscale_all: float = 0.0  # yarn's, of the scores
    # attention
    attention: str = "mla"  # or gqa
    q_lora_rank: int | None = setting(None, low=1)  # of a compressed query; not an adapter's rank
    kv_lora_rank: int = setting(32, low=1)  # numbers of the latent
    qk_nope_head_dim: int = setting(16, low=1)  # of a head's query and key: without position
    qk_rope_head_dim: int = setting(16, low=2)  # with position
    v_head_dim: int = setting(32, low=1)
    n_kv_heads: int = setting(4, low=1)  # gqa only, like the next three
    head_dim: int = setting(32, low=2)
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3
    # mixture of experts
    n_experts: int = 8  # 0: every layer dense
    n_shared_experts: int = 1
    n_experts_per_token: int = setting(2, low=1)
    expert_dim: int = setting(96, low=1)  # width of one expert
    n_dense_layers: int = 1  # the first layers stay dense
    n_groups: int = setting(1, low=1)  # groups of experts; a token may use topk_groups of them
    topk_groups: int = setting(1, low=1)
    routed_scale: float = 1.0
    bias_update_speed: float = 1e-3  # gamma of the balancing bias [V3 2.1.2]
    balance_loss: float = 1e-4  # alpha of the sequence-wise balance loss [V3 eq 17]

    @property
    def rope_dim(self) -> int:
        """How many numbers of a query or key are rotated."""
        return self.qk_rope_head_dim if self.attention == "mla" else self.head_dim

    def __post_init__(self):
        self.eos_ids = tuple(self.eos_ids)
        shape.check(self)


def rope_frequencies(cfg: ModelConfig, device=None) -> Tensor:
    """Angle per position [d/2]: theta^(-2j/d), d = rope_dim [RoFormer, 2104.09864]; or scaled."""
    exponents = torch.arange(0, cfg.rope_dim, 2, device=device, dtype=torch.float32) / cfg.rope_dim
    freqs = cfg.rope_theta**-exponents
    return freqs if cfg.rope_scaling == "default" else rope.scaled(freqs, cfg)


def rope_rotations(positions: Tensor, cfg: ModelConfig) -> Tensor:
    """The rotations for `apply_rope`, by position * frequency, at positions [B, T].

    Interleaved pairs: e^(i angle), complex [B, T, 1, d/2]. Halves: [2, B, T, 1, d], cosines and
    sines of both members of a pair, the first's sine negative.
    """
    freqs = rope_frequencies(cfg, positions.device)
    angles = positions.clamp(min=0)[:, :, None, None].float() * freqs  # [B, T, 1, d/2]
    size = torch.full_like(angles, rope.magnitude(cfg))  # 1, but for yarn
    if cfg.rope_interleaved:
        return torch.polar(size, angles)
    cos, sin = size * angles.cos(), size * angles.sin()
    return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)))


def apply_rope(x: Tensor, freqs_cis: Tensor) -> Tensor:
    """Rotate the pairs of x [B, T, H, d]: (a, b) -> (a cos - b sin, b cos + a sin).

    An interleaved pair is a complex number, times e^(i angle). With halves each number is
    multiplied by its cosine, and its partner, half the vector away, by the sine.
    """
    y = x.float()
    if freqs_cis.is_complex():
        pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
        out = torch.view_as_real(pairs * freqs_cis).flatten(-2)
    else:
        cos, sin = freqs_cis
        out = torch.addcmul(y * cos, y.roll(y.shape[-1] // 2, -1), sin)
    return out.type_as(x)


def float32_on_cpu(x: Tensor) -> Tensor:
    """x in float32 on CPUs, where some bfloat16 kernels are slower (results/log.md)."""
    return x.float() if x.device.type == "cpu" else x


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T scale) v.

    q [B, H, T, d], k [B, G, S, d], v [B, G, S, dv] with G dividing H; mask [B, 1, T, S] is True
    where a query may look, None means causal (T = S). Returns [B, H, T, dv].
    """
    width, dtype = v.shape[-1], q.dtype
    q, k, v = float32_on_cpu(q), float32_on_cpu(k), float32_on_cpu(v)
    v = F.pad(v, (0, q.shape[-1] - width)) if width < q.shape[-1] else v  # kernels want one width
    grouped = k.shape[1] != q.shape[1]
    if grouped and mask is not None and q.is_cuda:  # together no fused kernel of CUDA takes them
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        grouped = False
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )
    return out[..., :width].to(dtype)


def attend_once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The same for one new token a row, as two batched products, which read the cache faster.

    The query heads that share keys are the M rows of q [B, G, M, d]. mask [B, 1, 1, S] is added:
    0 where the token may look, else the least number (rows of -inf alone, padding's, make NaN).
    """
    scores = ((q * scale) @ k.transpose(-1, -2)).add_(mask)  # [B, G, M, S]
    return scores.softmax(-1, dtype=torch.float32).type_as(v) @ v  # [B, G, M, dv]


class MLA(nn.Module):
    """Multi-head latent attention [V3 2.1.1]. Plain attention caches a key and a value of each
    head. Here a token is compressed to one latent vector c [kv_lora_rank], from which all heads'
    keys W_UK c and values W_UV c are made. The cache holds c and one small rotated key, shared by
    all heads [qk_rope_head_dim], which carries the position: if W_UK's keys were rotated, the
    rotation would stand between W_UK and the query, and `absorbed` could not join the two."""

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.n_heads, self.rank = layer, cfg.n_heads, cfg.kv_lora_rank
        # the parts of a head's query or key that stay and that are rotated, and its value's size
        self.nope, self.rope = cfg.qk_nope_head_dim, cfg.qk_rope_head_dim
        self.v_dim = cfg.v_head_dim
        self.scale = (self.nope + self.rope) ** -0.5
        if cfg.rope_scaling == "yarn":
            self.scale *= rope.yarn_magnitude(cfg.rope_factor, cfg.rope_mscale_all) ** 2
        q_dim = cfg.n_heads * (self.nope + self.rope)
        if cfg.q_lora_rank is None:
            self.q_proj = Linear(cfg.dim, q_dim, bias=False)
        else:
            self.q_a_proj = Linear(cfg.dim, cfg.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(cfg.q_lora_rank, 1e-6)
            self.q_b_proj = Linear(cfg.q_lora_rank, q_dim, bias=False)
        # DeepSeek's names, as in its checkpoints; a: down, b: up, nope: without position
        self.kv_a_proj_with_mqa = Linear(cfg.dim, self.rank + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, 1e-6)  # whatever norm_eps, as in DeepSeek's code
        kv_dim = cfg.n_heads * (self.nope + self.v_dim)
        self.kv_b_proj = Linear(self.rank, kv_dim, bias=False)
        self.o_proj = Linear(cfg.n_heads * self.v_dim, cfg.dim, bias=False)

    def forward(self, x: Tensor, freqs_cis: Tensor, mask: Tensor | None, cache=None) -> Tensor:
        B, T, _ = x.shape
        compressed = hasattr(self, "q_a_proj")
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if compressed else self.q_proj(x)
        q_nope, q_rope = q.view(B, T, self.n_heads, -1).split([self.nope, self.rope], -1)
        q_rope = apply_rope(q_rope, freqs_cis)  # [B, T, H, rope]
        c, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], -1)
        c = self.kv_a_layernorm(c)  # [B, T, rank]
        k_rope = apply_rope(k_rope[:, :, None], freqs_cis)  # [B, T, 1, rope]: one key for all heads
        latent = torch.cat([c[:, :, None], k_rope.to(c.dtype)], -1).transpose(1, 2)  # [B, 1, T, .]
        if cache is not None:
            (latent,) = cache.append(self.layer, latent)  # c and key so far [B, 1, S, rank + rope]
        if cache is not None and T == 1:
            out = self.absorbed(q_nope, q_rope, latent, mask)
        else:
            S = latent.shape[2]
            kv = self.kv_b_proj(latent[:, 0, :, : self.rank]).view(B, S, self.n_heads, -1)
            k_nope, v = kv.split([self.nope, self.v_dim], -1)  # [B, S, H, nope], [B, S, H, v]
            k_rope = latent[:, 0, :, None, self.rank :].to(k_nope.dtype)
            k_rope = k_rope.expand(-1, -1, self.n_heads, -1)  # [B, S, H, rope]
            q = torch.cat([q_nope, q_rope], -1).transpose(1, 2)  # [B, H, T, nope + rope]
            k = torch.cat([k_nope, k_rope], -1).transpose(1, 2)  # [B, H, S, nope + rope]
            out = attention(q, k, v.transpose(1, 2), mask, self.scale).transpose(1, 2)
        return self.o_proj(out.reshape(B, T, -1))  # from [B, T, H, v]

    def absorbed(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, mask: Tensor) -> Tensor:
        """One new token a row, without ever computing keys and values: W_UK moves into the query,
        W_UV behind the sum, since (W_UK c) . q = c . (W_UK^T q).

        All heads are query rows against the one latent cache. q_* [B, 1, H, .], latent
        [B, 1, S, rank + rope]; returns [B, 1, H, v].
        """
        weight = lora.weight_of(self.kv_b_proj).view(self.n_heads, -1, self.rank)
        # kv_b_proj has, head by head, W_UK's rows and then W_UV's: [H, nope, rank], [H, v, rank]
        w_uk, w_uv = weight.split([self.nope, self.v_dim], 1)
        q = (q_nope[:, 0].transpose(0, 1) @ w_uk.to(q_nope.dtype)).transpose(0, 1)  # [B, H, rank]
        q = torch.cat([q[:, None], q_rope.to(q.dtype)], -1)  # [B, 1, H, rank + rope]
        latent = latent.to(q.dtype)
        out = attend_once(q, latent, latent[..., : self.rank], mask, self.scale)  # [B, 1, H, rank]
        w_uv = w_uv.to(out.dtype).transpose(1, 2)  # [H, rank, v]
        return (out[:, 0].transpose(0, 1) @ w_uv).transpose(0, 1)[:, None]


class GQA(nn.Module):
    """Grouped-query attention [2305.13245]: Llama (plain), Qwen2 (qkv_bias), Qwen3 (qk_norm)."""

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.n_heads, self.n_kv_heads = layer, cfg.n_heads, cfg.n_kv_heads
        self.head_dim = cfg.head_dim
        self.q_proj = Linear(cfg.dim, cfg.n_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.k_proj = Linear(cfg.dim, cfg.n_kv_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.v_proj = Linear(cfg.dim, cfg.n_kv_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.o_proj = Linear(cfg.n_heads * cfg.head_dim, cfg.dim, bias=False)
        if cfg.qk_norm:
            self.q_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)
            self.k_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)

    def forward(self, x: Tensor, freqs_cis: Tensor, mask: Tensor | None, cache=None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(B, T, self.n_kv_heads, self.head_dim)
        v = self.v_proj(x).view(B, T, self.n_kv_heads, self.head_dim)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, freqs_cis), apply_rope(k, freqs_cis)
        q, k, v = (y.transpose(1, 2) for y in (q, k.to(v.dtype), v))  # [B, heads, T, head_dim]
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B, G, S, head_dim]
        scale = self.head_dim**-0.5
        if cache is not None and T == 1:
            rows = q.view(B, self.n_kv_heads, -1, self.head_dim)  # [B, G, H/G, head_dim]
            out = attend_once(rows, k, v, mask, scale).view_as(q)
        else:
            out = attention(q, k, v, mask, scale)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x) [arXiv 2002.05202]."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate_proj = Linear(dim, hidden, bias=False)
        self.up_proj = Linear(dim, hidden, bias=False)
        self.down_proj = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Sigmoid scores; a bias helps to choose experts, never to weigh them [V3 eq 12-16]."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.weight = nn.Parameter(torch.empty(cfg.n_experts, cfg.dim))
        self.register_buffer("e_score_correction_bias", torch.zeros(cfg.n_experts))

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, D] -> experts [N, K] (`chosen` if given), their weights [N, K], all scores [N, E];
        float32 whatever x is."""
        scores = F.linear(x.float(), self.weight.float()).sigmoid()  # [N, E]
        if chosen is None:
            chosen = self.choose(scores.detach())
        weights = scores.gather(1, chosen)
        total = weights.sum(-1, keepdim=True).clamp(min=1e-20)
        return chosen, weights / total * self.cfg.routed_scale, scores

    def choose(self, scores: Tensor) -> Tensor:
        """The K experts [N, K] whose biased scores are best."""
        cfg = self.cfg
        biased = scores + self.e_score_correction_bias.float()
        if cfg.n_groups > 1:  # keep the topk_groups groups whose two best experts score highest
            groups = biased.view(len(scores), cfg.n_groups, -1)
            two = groups.topk(min(2, groups.shape[-1]), -1).values.sum(-1)  # [N, groups]
            best = two.topk(cfg.topk_groups, -1).indices
            closed = torch.ones_like(two, dtype=torch.bool).scatter(1, best, False)
            biased = groups.masked_fill(closed[..., None], float("-inf")).flatten(1)
        return biased.topk(cfg.n_experts_per_token, -1).indices


class MoE(nn.Module):
    """DeepSeekMoE: shared experts for every token plus the K best of E small routed ones. No token
    is ever dropped."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.gate = Router(cfg)  # not the gates of SwiGLU: those are half of gate_up
        self.gate_up = nn.Parameter(torch.empty(cfg.n_experts, cfg.dim, 2 * cfg.expert_dim))
        self.down = nn.Parameter(torch.empty(cfg.n_experts, cfg.expert_dim, cfg.dim))
        if cfg.n_shared_experts:
            self.shared_experts = SwiGLU(cfg.dim, cfg.n_shared_experts * cfg.expert_dim)
        # tokens each expert has seen since the last bias update; not part of the checkpoint
        self.register_buffer("counts", torch.zeros(cfg.n_experts), persistent=False)
        self.sequence_loss: Tensor | None = None
        self.chosen: Tensor | None = None  # [B, T, K] in the last forward pass
        # set by lib/distributed.py while activations are recomputed: their tokens have been counted
        self.again = False
        self.lora: nn.ModuleDict | None = None  # the stacks' adapters, set by lib/lora.py

    def forward(self, x: Tensor, valid: Tensor, chosen: Tensor | None = None) -> Tensor:
        """x [B, T, D]; valid [B, T] is False at padding, which is neither counted nor balanced;
        chosen [B, T, K]: the experts to use."""
        cfg, flat = self.cfg, x.flatten(0, 1)  # [N, D]
        given = None if chosen is None else chosen.flatten(0, 1).long()
        chosen, weights, scores = self.gate(flat, given)
        self.chosen = chosen.view(*valid.shape, -1)
        if self.training and torch.is_grad_enabled():
            used = F.one_hot(chosen, cfg.n_experts).sum(1).view(*valid.shape, -1)
            used = used * valid[..., None]  # [B, T, E]
            loss = self.balance(used, scores.view_as(used), valid)
            if not self.again:
                self.counts += used.sum((0, 1))
                self.sequence_loss = loss
        out = self.routed(flat, chosen, weights)
        if cfg.n_shared_experts:
            out = out + self.shared_experts(flat)
        return out.view_as(x)

    def routed(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sort the (token, expert) pairs by expert, one grouped product over all experts, and put
        the results back into the tokens' order."""
        (N, D), K = x.shape, chosen.shape[1]
        # [N*K] the experts in order, and where each stood: place p is of token p // K
        experts, order = chosen.flatten().sort(stable=True)
        every = torch.arange(self.cfg.n_experts, device=x.device)
        # where each expert's pairs end [E]; bincount would make the host wait for the device
        ends = torch.searchsorted(experts, every, right=True, out_int32=True)
        tokens = (order // K)[:, None].expand(-1, D)  # gather's backward is faster than indexing's
        h = float32_on_cpu(x).gather(0, tokens)
        h = self.product(h, "gate_up", ends)  # [N*K, 2 expert_dim]
        gate, up = h.chunk(2, -1)
        h = self.product(F.silu(gate) * up, "down", ends).to(x.dtype)
        h = h.gather(0, order.argsort()[:, None].expand(-1, D)).view(N, K, D)  # order undone
        return (h * weights[..., None].to(h.dtype)).sum(1)

    def product(self, x: Tensor, name: str, ends: Tensor) -> Tensor:
        """Rows of x [N*K, in], sorted by expert, times their expert's matrix of a stack."""
        out = grouped_mm(x, float32_on_cpu(getattr(self, name)), ends)
        return out if self.lora is None else out + self.lora[name](x, ends)

    def balance(self, used: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
        """Sequence-wise balance loss, mean over rows: alpha sum_i f_i P_i [V3 eq 17-20]; f_i: uses
        of expert i over its even share (eq 18: without the bias), P_i: its mean share of scores."""
        cfg, length = self.cfg, valid.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        f = used.sum(1) * cfg.n_experts / (cfg.n_experts_per_token * length)  # [B, E], no gradient
        shares = scores / scores.sum(-1, keepdim=True) * valid[..., None]
        p = shares.sum(1) / length  # [B, E]
        return cfg.balance_loss * (f * p).sum(-1).mean()


class Block(nn.Module):
    """Pre-norm residual block: attention, then a dense or expert feed-forward."""

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.input_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.self_attn = (MLA if cfg.attention == "mla" else GQA)(cfg, layer)
        self.post_attention_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        sparse = cfg.n_experts and layer >= cfg.n_dense_layers
        self.mlp = MoE(cfg) if sparse else SwiGLU(cfg.dim, cfg.hidden_dim)

    def forward(self, x, freqs_cis, mask, cache, valid, chosen=None) -> Tensor:
        """x [B, T, D]; valid and chosen as MoE.forward's."""
        x = x + self.self_attn(self.input_layernorm(x), freqs_cis, mask, cache)
        h = self.post_attention_layernorm(x)
        return x + (self.mlp(h, valid, chosen) if isinstance(self.mlp, MoE) else self.mlp(h))


class GPT(nn.Module):
    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.dim)
        self.layers = nn.ModuleList(Block(cfg, i) for i in range(cfg.n_layers))
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.lm_head = Linear(cfg.dim, cfg.vocab_size, bias=False)
        if cfg.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() > 1:  # GPT-2's scaling with depth, of what is added to the residual
                added = name.endswith(("o_proj.weight", "down_proj.weight", "mlp.down"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * cfg.n_layers) if added else 0.02)

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    def forward(
        self, tokens, cache=None, positions=None, return_hidden=False, counted=None, routes=None
    ) -> Tensor:
        """tokens [B, T] -> logits [B, T, V], or with return_hidden hidden states [B, T, D].

        positions [B, T] are the tokens' places in their row, -1 at padding (only ever to the right
        of a row's tokens within one call); by default they continue the cache. With a cache the new
        tokens also look at what it holds. counted [B]: whose tokens count as experts' load (all
        rows' by default). routes [B, T, layers, K]: the experts to use, as from self.routes().
        """
        B, T = tokens.shape
        start = cache.length if cache is not None else 0
        if positions is None:
            positions = torch.arange(start, start + T, device=tokens.device).expand(B, T)
        valid, mask = positions >= 0, None
        if cache is not None:
            cache.expect(valid)
            mask = self.mask(cache, start, T)
        freqs_cis = rope_rotations(positions, self.cfg)
        if counted is not None:
            valid = valid & counted[:, None]
        given = iter([] if routes is None else routes.unbind(2))  # for each MoE layer a [B, T, K]
        x = self.embed_tokens(tokens)  # [B, T, D]
        for block in self.layers:
            chosen = next(given, None) if isinstance(block.mlp, MoE) else None
            # sharding needs the hooks of a module's call, in training only; forward skips them
            run = block if torch.is_grad_enabled() else block.forward
            x = run(x, freqs_cis, mask, cache, valid, chosen)
        if cache is not None:
            cache.length += T
        x = self.norm(x)
        return x if return_hidden else self.lm_head(x)

    @staticmethod
    def mask(cache, start: int, T: int) -> Tensor | None:
        """Where T new tokens may look, of the cache's slots: for attend_once() numbers to add, for
        attention() True or False, or None: what stands to the left (padding is to the right)."""
        if T == 1:  # [B, 1, 1, S]; finite in both precisions
            least = torch.finfo(torch.bfloat16).min
            return (~cache.valid).float().mul(least)[:, None, None]
        if not start:
            return None
        causal = torch.ones(T, start + T, dtype=torch.bool, device=cache.valid.device).tril(start)
        return cache.valid[:, None, None, : start + T] & causal  # [B, 1, T, S]

    def moe_layers(self) -> list[MoE]:
        return [block.mlp for block in self.layers if isinstance(block.mlp, MoE)]

    def routes(self) -> Tensor | None:
        """The experts [B, T, layers, K] int16 of the last forward pass; None for a dense model."""
        chosen = [moe.chosen for moe in self.moe_layers()]
        return torch.stack(chosen, 2).short() if chosen else None

    def balance_loss(self) -> Tensor | float:
        """Sum over layers of the last forward's sequence-wise balance loss; 0 for a dense model."""
        return sum(m.sequence_loss for m in self.moe_layers() if m.sequence_loss is not None)

    def fingerprint(self) -> int:
        """A number that tells these weights from others."""
        return hf.checksum(self.parameters())

    def save_pretrained(self, folder: str) -> None:
        """Write config.json and safetensors, as transformers opens them; adapters are merged."""
        with lora.plain(self):
            hf.save(self, folder)

    @classmethod
    def empty(cls, cfg: ModelConfig) -> "GPT":
        """A model without weights, on the meta device."""
        with torch.device("meta"):
            return cls(cfg)

    @classmethod
    def from_pretrained(cls, folder: str, dtype=torch.float32, device="cpu") -> "GPT":
        """Read a Hugging Face folder of one of hf.FAMILIES, or one of ours; float32 by default.

        Tensor by tensor, so that memory never holds much more than the model. On the device "meta"
        no weights are read. UserError in one sentence if something is missing, damaged or unknown.
        """
        return hf.load(cls, ModelConfig, folder, dtype, device)


@dataclass
class Config(config.Config):
    model: ModelConfig = section(ModelConfig)


def main() -> None:
    parser = config.Parser(__doc__)
    cfg, _ = config.parse(parser, Config, shapes=memory.SHAPES)
    memory.print_report(cfg.name, GPT.empty(cfg.model))


if __name__ == "__main__":
    main()
