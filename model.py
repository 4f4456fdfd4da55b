"""The network: a mixture-of-experts GPT with multi-head latent attention, by hand.

    python model.py                            # cost report of the laptop model
    python model.py --config deepseek-v3       # 671B parameters, counted on the meta device

Everything DeepSeek-V3 [arXiv 2412.19437] needs stands here: RMSNorm, rotary positions, latent (MLA) and grouped-query
(GQA) attention with their caches, SwiGLU, the mixture of experts with its auxiliary-loss-free balancing, and
multi-token prediction. A dense model is the same config with n_experts = 0 and attention = "gqa".

Deviations from DeepSeek-V3: (1) the embedding may be tied to the head; (2) the shared experts are one wide SwiGLU, which
is the same function; (3) the laptop model has no query compression (q_lora_rank = None, as DeepSeek-V2-Lite).

Shapes: B rows, T new tokens, S tokens seen so far, D model width, H heads, E experts, K experts a token, V vocabulary.
"""

import contextlib
import math
import os
import zlib
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

import checkpoint
import parallel


@dataclass
class ModelConfig:
    """Shape of the network. The defaults are the laptop model (`tiny`)."""

    vocab_size: int = 1536
    dim: int = 128
    n_layers: int = 4
    n_heads: int = 4
    max_seq_len: int = 1024
    hidden_dim: int = 384  # width of a dense SwiGLU
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    pad_id: int = 0  # these two are set from the tokenizer
    eos_ids: tuple[int, ...] = (1,)  # any of them ends a response
    # positions
    rope_theta: float = 10000.0
    rope_interleaved: bool = True  # pairs (2j, 2j+1) as DeepSeek; False: halves (j, j + d/2) as Llama and Qwen
    rope_scaling: str = "default"  # how slow pairs are slowed down for a longer context: "default" (not), "llama3", "yarn"
    rope_factor: float = 1.0  # by how much
    rope_original: int = 0  # the context before that
    rope_low: float = 1.0  # llama3's low_freq_factor, yarn's beta_slow
    rope_high: float = 4.0  # llama3's high_freq_factor, yarn's beta_fast
    rope_mscale: float = 0.0  # yarn's, of the rotated vectors, and the next of the scores; 0: not given
    rope_mscale_all: float = 0.0
    # attention
    attention: str = "mla"  # "mla" or "gqa"
    q_lora_rank: int | None = None
    kv_lora_rank: int = 32
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    n_kv_heads: int = 4  # gqa only, like the next three
    head_dim: int = 32
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3
    # mixture of experts
    n_experts: int = 8  # 0: every layer dense
    n_shared_experts: int = 1
    n_experts_per_token: int = 2
    expert_dim: int = 96  # width of one expert
    n_dense_layers: int = 1  # the first layers stay dense
    n_groups: int = 1  # group-limited routing: experts are split in n_groups, a token may use topk_groups of them
    topk_groups: int = 1
    routed_scale: float = 1.0
    bias_update_speed: float = 1e-3  # gamma of the balancing bias [V3 2.1.2]
    balance_loss: float = 1e-4  # alpha of the sequence-wise balance loss [V3 eq 17]
    # multi-token prediction, depth 1 [V3 2.2]
    mtp: bool = False

    def __post_init__(self):
        self.eos_ids = tuple(self.eos_ids)
        if self.rope_scaling not in ("default", "llama3", "yarn"):
            raise ValueError(f"model.rope_scaling is '{self.rope_scaling}'; use 'default', 'llama3' or 'yarn'")
        if self.rope_scaling != "default" and self.rope_original < 1:
            raise ValueError(f"model.rope_scaling '{self.rope_scaling}' needs model.rope_original, the context before it")
        if self.attention not in ("mla", "gqa"):
            raise ValueError(f"model.attention is '{self.attention}'; use 'mla' or 'gqa'")
        if self.n_experts and not 0 < self.n_experts_per_token <= self.n_experts // self.n_groups * self.topk_groups:
            raise ValueError(f"model.n_experts_per_token is {self.n_experts_per_token}, but the router can reach only "
                             f"{self.n_experts // self.n_groups * self.topk_groups} experts")
        if self.attention == "gqa" and self.n_heads % self.n_kv_heads:
            raise ValueError(f"model.n_heads {self.n_heads} is not a multiple of model.n_kv_heads {self.n_kv_heads}")
        if self.n_experts % self.n_groups:
            raise ValueError(f"model.n_experts {self.n_experts} is not a multiple of model.n_groups {self.n_groups}")
        if (self.qk_rope_head_dim if self.attention == "mla" else self.head_dim) % 2:
            raise ValueError("rotary positions turn pairs: model.qk_rope_head_dim (mla) or model.head_dim (gqa) must be even")


_V3 = dict(vocab_size=129280, dim=7168, n_layers=61, n_heads=128, max_seq_len=163840, hidden_dim=18432, tie_embeddings=False,
           q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_experts=256,
           n_shared_experts=1, n_experts_per_token=8, expert_dim=2048, n_dense_layers=3, n_groups=8, topk_groups=4, routed_scale=2.5)
_QWEN = dict(attention="gqa", rope_interleaved=False, rope_theta=1e6, qkv_bias=True, n_experts=0, vocab_size=151936,
             max_seq_len=32768, norm_eps=1e-6, tie_embeddings=True)
# Published shapes, for the cost report and as templates for `--model.*`.
SHAPES = {
    "deepseek-v3": _V3,
    "qwen2.5-0.5b": _QWEN | dict(dim=896, n_layers=24, n_heads=14, n_kv_heads=2, head_dim=64, hidden_dim=4864),
    "qwen2.5-1.5b": _QWEN | dict(dim=1536, n_layers=28, n_heads=12, n_kv_heads=2, head_dim=128, hidden_dim=8960),
    "llama-3.2-1b": dict(attention="gqa", rope_interleaved=False, rope_theta=5e5, n_experts=0, vocab_size=128256, dim=2048,
                         n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, hidden_dim=8192, max_seq_len=131072, norm_eps=1e-5),
}


# ---------------------------------------------------------------------------------------------- small parts


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension [arXiv 1910.07467]."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_frequencies(cfg: ModelConfig, dim: int, device=None) -> Tensor:
    """Angle a position [dim/2]: theta^(-2j/dim) [RoFormer, arXiv 2104.09864], the slow pairs slowed down for longer contexts.

    Pairs that turn often within the original context stay as they are, pairs that do not complete a turn are divided by
    the factor, and between the two there is a ramp: over turns for llama3, over pairs for YaRN [arXiv 2309.00071].
    """
    freqs = cfg.rope_theta ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)  # [dim/2]
    if cfg.rope_scaling == "default":
        return freqs
    if cfg.rope_scaling == "llama3":
        turns = cfg.rope_original * freqs / (2 * math.pi)  # within the original context
        keep = (turns - cfg.rope_low) / (cfg.rope_high - cfg.rope_low)
    else:
        def pair(turns: float) -> float:  # that makes so many turns
            return dim * math.log(cfg.rope_original / (turns * 2 * math.pi)) / (2 * math.log(cfg.rope_theta))

        low, high = max(math.floor(pair(cfg.rope_high)), 0), min(math.ceil(pair(cfg.rope_low)), dim - 1)
        keep = 1 - (torch.arange(dim // 2, device=device) - low) / max(high - low, 0.001)
    keep = keep.clamp(0, 1)
    return freqs * (keep + (1 - keep) / cfg.rope_factor)


def yarn_magnitude(factor: float, mscale: float) -> float:
    """By how much YaRN stretches vectors so that attention over a longer context stays as sharp."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def rope_turn(positions: Tensor, dim: int, cfg: ModelConfig) -> Tensor:
    """The rotations by position * frequency, for `apply_rope`.

    Neighbours: e^(i angle), complex [B, T, 1, dim/2]. Halves: [2, B, T, 1, dim], cosines and sines of both members of a pair, the
    first's sine negative.
    """
    angles = positions.clamp(min=0)[:, :, None, None].float() * rope_frequencies(cfg, dim, positions.device)  # [B, T, 1, dim/2]
    size = torch.ones_like(angles)
    if cfg.rope_scaling == "yarn":
        both = cfg.rope_mscale and cfg.rope_mscale_all
        size *= yarn_magnitude(cfg.rope_factor, cfg.rope_mscale if both else 1.0) / (yarn_magnitude(cfg.rope_factor, cfg.rope_mscale_all) if both else 1.0)
    if cfg.rope_interleaved:
        return torch.polar(size, angles)
    cos, sin = size * angles.cos(), size * angles.sin()
    return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)))


def apply_rope(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate the pairs of x [B, T, H, d] as rope_turn() says: (a, b) -> (a cos - b sin, b cos + a sin).

    Neighbours are complex numbers times e^(i angle), which takes a third of the time of four real products; of halves every number is
    multiplied by its cosine, and its partner, half a turn of the vector away, by the sine.
    """
    y = x.float()
    if turn.is_complex():
        out = torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
    else:
        cos, sin = turn
        out = torch.addcmul(y * cos, y.roll(y.shape[-1] // 2, -1), sin)
    return out.type_as(x)


def attention_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T scale) v, written out. Same arguments as `attention`; the tests hold the two equal."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))  # [B, H, S, d]
    scores = q @ k.transpose(-1, -2) * scale  # [B, H, T, S]
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def widened(x: Tensor) -> Tensor:
    """x in float32 on CPUs, where some bfloat16 kernels are slower: attention's backward pass takes 5.6 times as long, an update with grouped products 2.6 times."""
    return x.float() if x.device.type == "cpu" else x


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The fast path of `attention_reference`.

    q [B, H, T, d], k [B, G, S, d], v [B, G, S, dv] with G dividing H; mask [B, 1, T, S] is True where a query may look,
    None means causal (T = S). Returns [B, H, T, dv].
    """
    width, kept = v.shape[-1], q.dtype
    q, k, v = widened(q), widened(k), widened(v)
    v = F.pad(v, (0, max(0, q.shape[-1] - width)))  # the fused kernels want one width; without, forward takes 1.6 to 2 times as long on CPUs
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale,
                                          enable_gqa=k.shape[1] != q.shape[1])[..., :width].to(kept)


def attend_once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The same for one new token a row, whose query heads that share keys are the M rows of q [B, G, M, d].

    mask [B, 1, 1, S] is added: 0 where the token may look, else the least number (not -inf: padding may see nothing). Two batched
    products: they read the cache nearly at the speed of memory, where the fused kernel on CPUs takes 2.5 times as long (512 rows, 4 heads
    with keys of their own, 128 slots).
    """
    scores = ((q * scale) @ k.transpose(-1, -2)).add_(mask)  # [B, G, M, S]
    return scores.softmax(-1, dtype=torch.float32).type_as(v) @ v  # [B, G, M, dv]


class Cache:
    """What attention remembers of the tokens so far: a tuple of tensors [B, heads, slots, width] for each layer.

    A token's slot is not its position: rows of a batch may have prompts of different lengths, padded on the right, and
    every row writes its next token to the same slot. `valid` [B, slots] says which slots hold a real token. Keys carry
    their rotary position already, so the order of slots does not matter.

    With a block the slots are reserved so many at a time and written in place (generation); the empty ones are not valid. `most`: how
    many there may be in the end. Without, the tensors grow by concatenation, and gradients flow back through them (training on
    responses that share a prompt).
    """

    def __init__(self, block: int | None = None, most: int = 0):
        self.block, self.most, self.length = block, most, 0
        self.layers: dict[int, tuple[Tensor, ...]] = {}
        self.valid: Tensor | None = None
        self.spare: Tensor | None = None  # memory that the last tensor to grow has left

    def expect(self, valid: Tensor) -> None:
        """Make room for new tokens, of which valid [B, T] are real."""
        if self.valid is None:
            self.valid = valid[:, :0]
        end = self.length + valid.shape[1]
        room = -(-end // self.block) * self.block if self.block else end
        if room > self.valid.shape[1]:
            self.valid = F.pad(self.valid, (0, room - self.valid.shape[1]))
            if self.block:
                self.layers = {layer: tuple(self.grow(x, room) for x in stores) for layer, stores in self.layers.items()}
        self.valid[:, self.length : end] = valid

    def grow(self, x: Tensor, room: int) -> Tensor:
        """x [B, heads, slots, width] with empty slots up to `room`.

        Whole again, not a part of something longer: batched products of parts take up to twice the time. In the memory that the tensor
        before it has left: the system gives new memory more slowly than it is filled (this makes dense rollouts of 160 tokens 1.16 times as fast).
        """
        (B, heads, slots, width), out, self.spare = x.shape, self.spare, x
        if out is None or out.untyped_storage().nbytes() < B * heads * room * width * x.element_size():
            out = x.new_empty(B, heads, max(room, self.most), width)
        out.resize_(B, heads, room, width)  # keeps the memory that it does not need yet
        out[:, :, :slots], out[:, :, slots:] = x, 0
        return out

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Store new [B, heads, T, width] tensors; return each with all slots up to and including them, for T = 1 the empty ones too."""
        if not self.block:
            old = self.layers.get(layer, [x[:, :, :0] for x in new])
            self.layers[layer] = tuple(torch.cat([a, b.to(a.dtype)], 2) for a, b in zip(old, new))
            return self.layers[layer]
        if layer not in self.layers:
            self.layers[layer] = tuple(x.new_zeros(*x.shape[:2], self.valid.shape[1], x.shape[3]) for x in new)
        T = new[0].shape[2]
        for store, x in zip(self.layers[layer], new):
            store[:, :, self.length : self.length + T] = x
        return self.layers[layer] if T == 1 else tuple(x[:, :, : self.length + T] for x in self.layers[layer])

    def select(self, rows: Tensor) -> "Cache":
        """A copy that holds the given rows [n] (repeats allowed)."""
        self.spare = None  # no more memory than a copy needs
        out = Cache(self.block, self.most)
        out.length, out.valid = self.length, self.valid[rows]
        out.layers = {layer: tuple(x.index_select(0, rows) for x in stores) for layer, stores in self.layers.items()}
        return out

    @staticmethod
    def join(caches: list["Cache"]) -> "Cache":
        """The rows of several caches together; a row's tokens move into its first slots, so that gaps between them take no more time."""
        out, held = Cache(caches[0].block, max(c.most for c in caches)), max(int(c.valid.sum(1).max()) for c in caches)
        out.length, room = held, -(-held // out.block) * out.block
        for c in caches:
            c.spare = None
        orders = [c.valid.byte().argsort(dim=1, descending=True, stable=True)[:, :held] for c in caches]  # [B, <= held]
        out.valid = torch.cat([F.pad(c.valid.gather(1, order), (0, room - order.shape[1])) for c, order in zip(caches, orders)])
        for layer in caches[0].layers:
            out.layers[layer] = tuple(torch.cat([F.pad(x.gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])), (0, 0, 0, room - order.shape[1]))
                                                 for x, order in zip(same, orders)]) for same in zip(*(c.layers[layer] for c in caches)))
        return out

    def one_layer(self, layer: int, stores: tuple[Tensor, ...]) -> "Cache":
        """A growing cache of this one's length that holds the given tensors of one layer."""
        out = Cache()
        out.length = self.length
        if stores:
            out.layers[layer] = stores
        return out

    def detached(self) -> "Cache":
        """The same contents as leaves of a new graph, which gather gradients of their own."""
        out = Cache(self.block)
        out.length, out.valid = self.length, self.valid
        out.layers = {layer: tuple(x.detach().requires_grad_() for x in stores) for layer, stores in self.layers.items()}
        return out

    def backward(self, leaves: "Cache") -> None:
        """Send on the gradients that `leaves`, from detached(), has gathered."""
        pairs = [(x, leaf.grad) for layer, stores in self.layers.items() for x, leaf in zip(stores, leaves.layers[layer]) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward(*zip(*pairs))


# ---------------------------------------------------------------------------------------------- attention


class MLA(nn.Module):
    """Multi-head latent attention [V3 2.1.1]: keys and values of all heads are read out of one small latent a token.

    The cache holds that latent c [kv_lora_rank] and one rotary key shared by the heads [qk_rope_head_dim], no more.
    """

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.n_heads, self.rank = cfg.n_heads, cfg.kv_lora_rank
        self.nope, self.rope, self.v_dim = cfg.qk_nope_head_dim, cfg.qk_rope_head_dim, cfg.v_head_dim
        self.scale = (self.nope + self.rope) ** -0.5
        if cfg.rope_scaling == "yarn":
            self.scale *= yarn_magnitude(cfg.rope_factor, cfg.rope_mscale_all) ** 2
        q_dim = cfg.n_heads * (self.nope + self.rope)
        if cfg.q_lora_rank is None:
            self.q_proj = nn.Linear(cfg.dim, q_dim, bias=False)
        else:
            self.q_a_proj = nn.Linear(cfg.dim, cfg.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(cfg.q_lora_rank, cfg.norm_eps)
            self.q_b_proj = nn.Linear(cfg.q_lora_rank, q_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(cfg.dim, self.rank + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, cfg.norm_eps)
        self.kv_b_proj = nn.Linear(self.rank, cfg.n_heads * (self.nope + self.v_dim), bias=False)
        self.o_proj = nn.Linear(cfg.n_heads * self.v_dim, cfg.dim, bias=False)

    def forward(self, x: Tensor, turn: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if hasattr(self, "q_a_proj") else self.q_proj(x)
        q_nope, q_rope = q.view(B, T, self.n_heads, -1).split([self.nope, self.rope], -1)
        q_rope = apply_rope(q_rope, turn)  # [B, T, H, rope]
        c, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], -1)
        c = self.kv_a_layernorm(c)  # [B, T, rank]
        k_rope = apply_rope(k_rope[:, :, None], turn)  # [B, T, 1, rope]: one key for all heads
        latent = torch.cat([c[:, :, None], k_rope.to(c.dtype)], -1).transpose(1, 2)  # [B, 1, T, rank + rope]
        if cache is not None:
            (latent,) = cache.append(self.layer, latent)  # [B, 1, S, rank + rope]
        if cache is not None and T == 1:
            out = self.absorbed(q_nope, q_rope, latent, mask)
        else:
            S = latent.shape[2]
            kv = self.kv_b_proj(latent[:, 0, :, : self.rank]).view(B, S, self.n_heads, -1)
            k_nope, v = kv.split([self.nope, self.v_dim], -1)  # [B, S, H, nope], [B, S, H, v]
            k_rope = latent[:, 0, :, None, self.rank :].to(k_nope.dtype).expand(-1, -1, self.n_heads, -1)
            q = torch.cat([q_nope, q_rope], -1).transpose(1, 2)  # [B, H, T, nope + rope]
            k = torch.cat([k_nope, k_rope], -1).transpose(1, 2)  # [B, H, S, nope + rope]
            out = attention(q, k, v.transpose(1, 2), mask, self.scale).transpose(1, 2)  # [B, T, H, v]
        return self.o_proj(out.reshape(B, T, -1))

    def absorbed(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, mask: Tensor | None) -> Tensor:
        """One new token a row, without ever reading out keys and values: W_UK moves into the query, W_UV behind the sum.

        (W_UK c) . q = c . (W_UK^T q), so all heads are query rows against the one latent cache. q_* [B, 1, H, .], latent
        [B, 1, S, rank + rope]; returns [B, 1, H, v].
        """
        w_uk, w_uv = self.kv_b_proj.weight.view(self.n_heads, -1, self.rank).split([self.nope, self.v_dim], 1)
        q = (q_nope[:, 0].transpose(0, 1) @ w_uk.to(q_nope.dtype)).transpose(0, 1)  # [B, H, rank]
        q = torch.cat([q[:, None], q_rope.to(q.dtype)], -1)  # [B, 1, H, rank + rope]: the heads are the query rows
        latent = latent.to(q.dtype)
        out = attend_once(q, latent, latent[..., : self.rank], mask, self.scale)  # [B, 1, H, rank]
        return (out[:, 0].transpose(0, 1) @ w_uv.to(out.dtype).transpose(1, 2)).transpose(0, 1)[:, None]


class GQA(nn.Module):
    """Grouped-query attention [arXiv 2305.13245] as in Llama (plain), Qwen2 (qkv_bias) and Qwen3 (qk_norm)."""

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads, self.head_dim = cfg.n_heads, cfg.n_kv_heads, cfg.head_dim
        self.q_proj = nn.Linear(cfg.dim, cfg.n_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.k_proj = nn.Linear(cfg.dim, cfg.n_kv_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.v_proj = nn.Linear(cfg.dim, cfg.n_kv_heads * cfg.head_dim, bias=cfg.qkv_bias)
        self.o_proj = nn.Linear(cfg.n_heads * cfg.head_dim, cfg.dim, bias=False)
        if cfg.qk_norm:
            self.q_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)
            self.k_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)

    def forward(self, x: Tensor, turn: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(B, T, self.n_kv_heads, self.head_dim)
        v = self.v_proj(x).view(B, T, self.n_kv_heads, self.head_dim)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, turn), apply_rope(k, turn)
        q, k, v = (y.transpose(1, 2) for y in (q, k.to(v.dtype), v))  # [B, heads, T, head_dim]
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B, G, S, head_dim]
        if cache is not None and T == 1:
            out = attend_once(q.view(B, self.n_kv_heads, -1, self.head_dim), k, v, mask, self.head_dim**-0.5).view_as(q)
        else:
            out = attention(q, k, v, mask, self.head_dim**-0.5)
        out = out.transpose(1, 2)  # [B, T, H, head_dim]
        return self.o_proj(out.reshape(B, T, -1))


# ---------------------------------------------------------------------------------------------- feed-forward


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x) [arXiv 2002.05202]."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Sigmoid scores; the balancing bias takes part in the choice of experts, never in their weights [V3 eq 12-16]."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.weight = nn.Parameter(torch.empty(cfg.n_experts, cfg.dim))
        self.register_buffer("e_score_correction_bias", torch.zeros(cfg.n_experts))

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, D] -> chosen experts [N, K], unless they are given; their weights [N, K], all scores [N, E]; float32 whatever x is."""
        scores = F.linear(x.float(), self.weight.float()).sigmoid()  # [N, E]
        if chosen is None:
            chosen = self.choose(scores.detach())
        weights = scores.gather(1, chosen)
        return chosen, weights / weights.sum(-1, keepdim=True).clamp(min=1e-20) * self.cfg.routed_scale, scores

    def choose(self, scores: Tensor) -> Tensor:
        """The K experts [N, K] whose biased scores are best."""
        cfg = self.cfg
        biased = scores + self.e_score_correction_bias.float()
        if cfg.n_groups > 1:  # keep the topk_groups groups whose two best experts score highest
            groups = biased.view(len(scores), cfg.n_groups, -1)
            best = groups.topk(min(2, groups.shape[-1]), -1).values.sum(-1).topk(cfg.topk_groups, -1).indices
            closed = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter(1, best, False)
            biased = groups.masked_fill(closed[..., None], float("-inf")).flatten(1)
        return biased.topk(cfg.n_experts_per_token, -1).indices


class MoE(nn.Module):
    """DeepSeekMoE: shared experts for every token plus the K best of E small routed ones; no token is ever dropped."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.gate = Router(cfg)
        self.gate_up = nn.Parameter(torch.empty(cfg.n_experts, cfg.dim, 2 * cfg.expert_dim))
        self.down = nn.Parameter(torch.empty(cfg.n_experts, cfg.expert_dim, cfg.dim))
        if cfg.n_shared_experts:
            self.shared_experts = SwiGLU(cfg.dim, cfg.n_shared_experts * cfg.expert_dim)
        # tokens each expert has seen since the last bias update; not part of the checkpoint
        self.register_buffer("counts", torch.zeros(cfg.n_experts), persistent=False)
        self.sequence_loss: Tensor | None = None
        self.chosen: Tensor | None = None  # [B, T, K] in the last forward pass
        self.again = False  # in a forward pass that only recomputes activations: its tokens have been counted

    def forward(self, x: Tensor, valid: Tensor, chosen: Tensor | None = None) -> Tensor:
        """x [B, T, D]; valid [B, T] False at padding, which is routed but neither counted nor balanced; chosen: see GPT.forward."""
        cfg, flat = self.cfg, x.flatten(0, 1)  # [N, D]
        chosen, weights, scores = self.gate(flat, chosen if chosen is None else chosen.flatten(0, 1).long())
        self.chosen = chosen.view(*valid.shape, -1)
        if self.training and torch.is_grad_enabled():
            used = F.one_hot(chosen, cfg.n_experts).sum(1).view(*valid.shape, -1) * valid[..., None]  # [B, T, E]
            loss = self.balance(used, scores.view_as(used), valid)
            if not self.again:
                self.counts += used.sum((0, 1))
                self.sequence_loss = loss
        out = self.routed(flat, chosen, weights)
        if cfg.n_shared_experts:
            out = out + self.shared_experts(flat)
        return out.view_as(x)

    def routed(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sort the (token, expert) pairs by expert, one grouped product over all experts, and put them back in order."""
        (N, D), K = x.shape, chosen.shape[1]
        experts, order = chosen.flatten().sort(stable=True)  # [N*K] pair numbers, expert by expert
        ends = torch.searchsorted(experts, torch.arange(self.cfg.n_experts, device=x.device), right=True, out_int32=True)  # [E]; bincount makes the host wait
        pairs = (order // K)[:, None].expand(-1, D)  # gather: its backward on CPU takes 0.6x the time of indexing's
        h = F.grouped_mm(widened(x).gather(0, pairs), widened(self.gate_up), offs=ends)  # [N*K, 2 expert_dim]
        gate, up = h.chunk(2, -1)
        h = F.grouped_mm(F.silu(gate) * up, widened(self.down), offs=ends).to(x.dtype)  # [N*K, D]
        h = h.gather(0, order.argsort()[:, None].expand(-1, D)).view(N, K, D)
        return (h * weights[..., None].to(h.dtype)).sum(1)

    def balance(self, used: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
        """Sequence-wise balance loss, mean over rows [V3 eq 17-20]: alpha sum_i f_i P_i; f_i carries no gradient."""
        cfg, length = self.cfg, valid.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        f = used.sum(1) * cfg.n_experts / (cfg.n_experts_per_token * length)  # [B, E]
        p = (scores / scores.sum(-1, keepdim=True) * valid[..., None]).sum(1) / length  # [B, E]
        return cfg.balance_loss * (f * p).sum(-1).mean()


class Block(nn.Module):
    """Pre-norm residual block: attention, then a dense or expert feed-forward."""

    recompute = False  # keep no activations of a training pass but the input; compute them again for the backward pass

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.input_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.self_attn = (MLA if cfg.attention == "mla" else GQA)(cfg, layer)
        self.post_attention_layernorm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.mlp = MoE(cfg) if cfg.n_experts and layer >= cfg.n_dense_layers else SwiGLU(cfg.dim, cfg.hidden_dim)

    def forward(self, x, turn, mask, cache, valid, chosen=None) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return self.compute(x, turn, mask, cache, valid, chosen)

        def pure(x: Tensor, *old: Tensor) -> tuple[Tensor, ...]:
            """The same without touching `cache`: what it held comes in, what it is to hold goes out."""
            own = cache and cache.one_layer(self.layer, old)
            return self.compute(x, turn, mask, own, valid, chosen), *(own.layers[self.layer] if own else ())

        old = cache.layers.get(self.layer, ()) if cache else ()
        x, *new = recompute(pure, x, *old, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), self.once_more()))
        if cache:
            cache.layers[self.layer] = tuple(new)
        return x

    def compute(self, x, turn, mask, cache, valid, chosen) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, mask, cache)
        h = self.post_attention_layernorm(x)
        return x + (self.mlp(h, valid, chosen) if isinstance(self.mlp, MoE) else self.mlp(h))

    @contextlib.contextmanager
    def once_more(self):
        self.mlp.again = True
        try:
            yield
        finally:
            self.mlp.again = False


class MTP(nn.Module):
    """Multi-token prediction, depth 1 [V3 eq 21-23]: one more block that sees the next token and predicts the one after."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.enorm, self.hnorm = RMSNorm(cfg.dim, cfg.norm_eps), RMSNorm(cfg.dim, cfg.norm_eps)
        self.eh_proj = nn.Linear(2 * cfg.dim, cfg.dim, bias=False)
        self.block = Block(cfg, cfg.n_layers)


# ---------------------------------------------------------------------------------------------- the model


class GPT(nn.Module):
    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.dim)
        self.layers = nn.ModuleList(Block(cfg, i) for i in range(cfg.n_layers))
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.lm_head = nn.Linear(cfg.dim, cfg.vocab_size, bias=False)
        if cfg.mtp:
            self.mtp = MTP(cfg)
        if cfg.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() > 1:
                residual = name.endswith(("o_proj.weight", "down_proj.weight", "mlp.down"))  # GPT-2's scaling with depth
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * cfg.n_layers) if residual else 0.02)

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    def forward(self, tokens: Tensor, cache: Cache | None = None, positions: Tensor | None = None, return_hidden: bool = False,
                counted: Tensor | None = None, routes: Tensor | None = None) -> Tensor:
        """tokens [B, T] -> logits [B, T, V], or the normed hidden states [B, T, D] with return_hidden.

        positions [B, T] are the tokens' places in their row, -1 at padding (only ever to the right of a row's tokens
        within one call); by default they continue the cache. With a cache the new tokens also look at what it holds.
        counted [B]: whose tokens count as experts' load (default: all rows'). routes [B, T, layers, K]: the experts to use, as
        self.routes() returned them.
        """
        B, T = tokens.shape
        start = cache.length if cache is not None else 0
        if positions is None:
            positions = torch.arange(start, start + T, device=tokens.device).expand(B, T)
        valid, mask = positions >= 0, None
        if cache is not None:
            cache.expect(valid)
            if T == 1:
                mask = (~cache.valid).float().mul(torch.finfo(torch.bfloat16).min)[:, None, None]  # [B, 1, 1, S]; finite in both precisions
            elif start:
                mask = cache.valid[:, None, None, : start + T] & torch.ones(T, start + T, dtype=torch.bool, device=valid.device).tril(start)  # [B, 1, T, S]
        cfg = self.cfg
        rope_dim = cfg.qk_rope_head_dim if cfg.attention == "mla" else cfg.head_dim
        turn = rope_turn(positions, rope_dim, cfg)
        if counted is not None:
            valid = valid & counted[:, None]
        replay = iter(()) if routes is None else iter(routes.unbind(2))  # of [B, T, K], for each layer with experts
        x = self.embed_tokens(tokens)  # [B, T, D]
        for block in self.layers:
            x = block(x, turn, mask, cache, valid, next(replay, None) if isinstance(block.mlp, MoE) else None)
        if cache is not None:
            cache.length += T
        x = self.norm(x)
        return x if return_hidden else self.lm_head(x)

    def mtp_hidden(self, tokens: Tensor, hidden: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [B, T-1, D] that predict token t+2 from the model's hidden state at t and token t+1."""
        mtp, positions = self.mtp, positions[:, 1:]
        rope_dim = self.cfg.qk_rope_head_dim if self.cfg.attention == "mla" else self.cfg.head_dim
        turn = rope_turn(positions, rope_dim, self.cfg)
        x = mtp.eh_proj(torch.cat([mtp.enorm(self.embed_tokens(tokens[:, 1:])), mtp.hnorm(hidden[:, :-1])], -1))
        return self.norm(mtp.block(x, turn, None, None, positions >= 0))

    # ------------------------------------------------------------------ experts' load

    def blocks(self) -> list[Block]:
        return [m for m in self.modules() if isinstance(m, Block)]

    def moe_layers(self) -> list[MoE]:
        return [m for m in self.modules() if isinstance(m, MoE)]

    def routes(self) -> Tensor | None:
        """The experts [B, T, layers, K] int16 that the last forward pass used; None for a dense model."""
        chosen = [block.mlp.chosen for block in self.layers if isinstance(block.mlp, MoE)]
        return torch.stack(chosen, 2).short() if chosen else None

    def balance_loss(self) -> Tensor | float:
        """Sum over layers of the last forward's sequence-wise balance loss; 0 for a dense model."""
        return sum(m.sequence_loss for m in self.moe_layers() if m.sequence_loss is not None)

    @torch.no_grad()
    def update_balance(self) -> dict[str, float]:
        """After each optimiser step: bias -= gamma where an expert was overloaded, += gamma where underloaded [V3 2.1.2].

        Uses the counts gathered since the last call, of all processes: the whole global batch. Returns the metrics
        `moe/max_load` and `moe/min_load`: the busiest and idlest expert's share of tokens, 1.0 = perfectly balanced.
        """
        loads = []
        for moe in self.moe_layers():
            moe.sequence_loss = None
            mean = parallel.add_up(moe.counts).mean()
            if mean == 0:  # the multi-token-prediction block rests during reinforcement learning
                continue
            moe.gate.e_score_correction_bias += self.cfg.bias_update_speed * (mean - moe.counts).sign()
            loads.append(moe.counts / mean)
            moe.counts.zero_()
        if not loads:
            return {}
        loads = torch.stack(loads)
        return {"moe/max_load": loads.max().item(), "moe/min_load": loads.min().item()}

    # ------------------------------------------------------------------ on disk

    def fingerprint(self) -> int:
        """A number that tells these weights from others."""
        out = 0
        for p in self.parameters():
            out = zlib.crc32(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), out)
        return out

    def save_pretrained(self, folder: str) -> None:
        """Write config.json and safetensors to `folder`, in the layout and with the names that transformers opens (checkpoint.py)."""
        state, dtype = parallel.collect(self.state_dict()), self.embed_tokens.weight.dtype
        if parallel.first():
            checkpoint.write(folder, checkpoint.views(state, self.cfg), checkpoint.write_config(self.cfg, dtype))
        parallel.wait()

    @classmethod
    def empty(cls, folder: str) -> "GPT":
        """The model of a folder without its weights, on the meta device. ValueError as from_pretrained()."""
        raw = checkpoint.read_config(folder, {f.name for f in fields(ModelConfig)})
        if raw.get("tie_embeddings") is None:
            raw["tie_embeddings"] = "lm_head.weight" not in checkpoint.places(folder)
        try:
            with torch.device("meta"):
                return cls(ModelConfig(**raw))
        except (TypeError, RuntimeError) as e:
            raise ValueError(f"{os.path.join(folder, 'config.json')} does not describe a model ({e}): restore it from a copy") from None

    @classmethod
    def from_pretrained(cls, folder: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> "GPT":
        """Read a Hugging Face folder of one of checkpoint.FAMILIES, or one of our own; float32 unless told otherwise.

        Tensor by tensor: memory never holds much more than the model. ValueError in one sentence if something is missing, damaged,
        quantised or does not fit.
        """
        model, where = cls.empty(folder), checkpoint.places(folder)
        model = model.to(dtype).to_empty(device=device)
        if model.cfg.tie_embeddings:
            model.lm_head.weight = model.embed_tokens.weight
        for moe in model.moe_layers():  # small steps are added to the bias: always float32
            moe.gate.e_score_correction_bias = torch.zeros(model.cfg.n_experts, device=device)
            moe.counts = torch.zeros(model.cfg.n_experts, device=device)
        with torch.no_grad():
            checkpoint.fill(checkpoint.views(model.state_dict(), model.cfg), where, model.cfg.n_layers)
        return model


# ---------------------------------------------------------------------------------------------- the head, in chunks


def _chunk_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = F.linear(hidden, weight).float()  # [n, V]
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")


def chunked_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0,
                     chunk: int | None = None) -> Tensor:
    """log p(target) [N] at a temperature, in nats, float32.

    hidden [N, D], weight [V, D], targets [N]. Never more than `chunk` x V logits exist (by default 2048 rows, less for vocabularies
    above 65,536): each chunk's are recomputed in the backward pass, so memory does not grow with N.
    """
    chunk = chunk or min(2048, 2**27 // len(weight))
    if len(hidden) <= chunk:
        return _chunk_logprobs(hidden, weight, targets, temperature)
    parts = [recompute(_chunk_logprobs, h, weight, t, temperature, use_reentrant=False)
             for h, t in zip(hidden.split(chunk), targets.split(chunk))]
    return torch.cat(parts)


# ---------------------------------------------------------------------------------------------- cost report


def count_parameters(model: GPT) -> tuple[int, int]:
    """(total, active for one token) parameters, without the multi-token-prediction block."""
    cfg = model.cfg
    total = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("mtp."))
    idle = cfg.n_experts - cfg.n_experts_per_token
    moe = max(cfg.n_layers - cfg.n_dense_layers, 0) if cfg.n_experts else 0
    return total, total - moe * idle * 3 * cfg.dim * cfg.expert_dim


def cost_report(cfg: ModelConfig, context: int | None = None) -> dict[str, float]:
    """Parameters, forward FLOPs a token, cache bytes a token (bf16), and bytes of memory to train and to serve.

    FLOPs: 2 a parameter of every matrix product (the embedding is a look-up) plus attention at half of `context`, the
    mean over a causal sequence. Training memory: float32 weights, gradients and two AdamW moments, activations apart.
    Serving: bf16 weights plus one full context of cache.
    """
    with torch.device("meta"):
        model = GPT(cfg)
    total, active = count_parameters(model)
    context = context or cfg.max_seq_len
    mla = cfg.attention == "mla"
    qk, v = (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim, cfg.v_head_dim) if mla else (cfg.head_dim, cfg.head_dim)
    products = active - (0 if cfg.tie_embeddings else cfg.vocab_size * cfg.dim)
    attention_flops = cfg.n_layers * cfg.n_heads * (qk + v) * 2 * context / 2
    heads_cache = cfg.n_layers * cfg.n_heads * (qk + v) * 2
    cache = (cfg.n_layers * (cfg.kv_lora_rank + cfg.qk_rope_head_dim) * 2 if mla
             else cfg.n_layers * cfg.n_kv_heads * 2 * cfg.head_dim * 2)
    return {"total parameters": total, "active parameters": active, "context": context,
            "forward FLOPs a token": 2 * products + attention_flops,
            "training FLOPs a token": 3 * (2 * products + attention_flops),
            "cache bytes a token": cache, "the same with plain multi-head": heads_cache,
            "training memory, bytes": total * 16, "serving memory, bytes": total * 2 + cache * context}


def training_memory(cfg: ModelConfig, tokens: int, precision: str = "float32", processes: int = 1, recompute: bool = False) -> dict[str, float]:
    """Bytes that one process needs at most in a training step with AdamW, by what they are for; `tokens` in a micro-batch, padding included.

    In float32 and alone: weights, gradients and two moments. Otherwise (parallel.py) the same divided among the processes, and on
    each gathered weights and float32 sums of gradients. Activations are what the backward pass of model.py keeps, counted line by line.
    """
    with torch.device("meta"):
        model = GPT(cfg)
    parameters = sum(p.numel() for p in model.parameters())
    size = 4 if precision == "float32" else 2
    mla, moe = cfg.attention == "mla", sum(1 for _ in model.moe_layers())
    if mla:  # numbers a token: latent, its parts, queries and keys before and after they are put together, values, output
        qk = cfg.n_heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim)
        attention = 4 * (cfg.kv_lora_rank + cfg.qk_rope_head_dim) + 2 * qk + 3 * cfg.n_heads * cfg.v_head_dim + 2 * (cfg.q_lora_rank or 0)
    else:
        attention = (2 * cfg.n_heads + 2 * cfg.n_kv_heads) * cfg.head_dim
    dense = 4 * cfg.hidden_dim  # gate, up, silu(gate), their product
    K = cfg.n_experts_per_token
    experts = K * (3 * cfg.dim + 4 * cfg.expert_dim) + 4 * cfg.n_shared_experts * cfg.expert_dim + 2 * cfg.n_experts
    blocks = len(model.blocks())
    common = 4 * cfg.dim + attention  # two norms' inputs and outputs
    one = max(common + dense if blocks > moe else 0, common + experts if moe else 0)
    kept = blocks * cfg.dim + one if recompute else blocks * common + (blocks - moe) * dense + moe * experts
    chunk = min(tokens, 2048, 2**27 // cfg.vocab_size)
    alone = processes == 1 and precision == "float32"
    return {"weights and optimizer": parameters * (16 if alone else 16 / processes + size + 4),
            "activations": tokens * (kept + 2 * one) * size,  # and the gradients of one block
            "logits": chunk * cfg.vocab_size * (12 if size == 4 else 14)}


def rollout_memory(cfg: ModelConfig, rows: int, length: int, precision: str = "float32", copies: float = 1.8) -> float:
    """Bytes of cache and logits for `rows` responses that grow to `length` tokens, prompt included; weights apart. copies: of the cache, at most:
    it is copied while rows leave the batch (1.8), and has gaps too where others take their places (2.2: of simulated rollouts the most is 2.06)."""
    size = 4 if precision == "float32" else 2
    cache = cost_report(cfg)["cache bytes a token"] / 2 * size
    return rows * length * cache * copies + rows * cfg.vocab_size * (size + 16)


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("--context", type=int, help="tokens of context for FLOPs and cache (default: the model's longest)")
    cfg, args = config.parse(parser, shapes=SHAPES)
    print(f"{cfg.name}: {cfg.model.n_layers} layers, width {cfg.model.dim}, attention {cfg.model.attention}, "
          f"{cfg.model.n_experts or 'no'} experts")
    for name, value in cost_report(cfg.model, args.context).items():
        unit = next((f"{value / 10**e:.4g}{s}" for e, s in ((12, "T"), (9, "G"), (6, "M"), (3, "k")) if value >= 10**e), "")
        print(f"  {name:32s} {int(value):>24,d}  {unit}")


if __name__ == "__main__":
    main()
