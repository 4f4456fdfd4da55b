"""Whether the numbers of a model's shape go together, and the shapes of students."""

from dataclasses import replace

from lib.errors import UserError

SIZES = {  # of small and medium students by preset: dim, n_layers, n_heads, head_dim, hidden_dim
    "tiny": {"s": (64, 3, 4, 16, 192), "m": (96, 4, 4, 24, 256)},
    "small": {"s": (384, 8, 6, 64, 1024), "m": (576, 12, 8, 72, 1536)},
    "big": {"s": (768, 12, 12, 64, 2048), "m": (1024, 16, 16, 64, 2816)},
}


def student(cfg, preset: str, name: str):
    """A teacher's ModelConfig for one of distill.STUDENTS: dense, with grouped-query attention;
    Qwen2 has biases on q, k and v, Llama has none."""
    names = ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim")
    size = dict(zip(names, SIZES.get(preset, SIZES["tiny"])[name[-1]]))
    kind = dict(attention="gqa", n_experts=0, n_kv_heads=2, rope_interleaved=False)
    return replace(cfg, **size, **kind, qkv_bias=name.startswith("qwen"))


def check(cfg) -> None:
    """UserError for a ModelConfig that describes no network."""
    known = {"rope_scaling": ("default", "llama3", "yarn"), "attention": ("mla", "gqa")}
    for name, values in known.items():
        if (value := getattr(cfg, name)) not in values:
            raise UserError(f"model.{name} is '{value}'; use one of {', '.join(values)}")
    if cfg.rope_scaling != "default" and cfg.rope_original < 1:
        raise UserError(f"model.rope_scaling '{cfg.rope_scaling}' needs model.rope_original")
    if cfg.rope_scaling != "default" and not 0 < cfg.rope_low < cfg.rope_high:
        raise UserError("model.rope_low must be above 0 and below model.rope_high")
    if cfg.pad_id >= cfg.vocab_size:
        raise UserError(f"model.pad_id {cfg.pad_id} is not below model.vocab_size")
    multiples = [("n_experts", "n_groups")]
    multiples += [("n_heads", "n_kv_heads")] if cfg.attention == "gqa" else []
    if cfg.topk_groups > cfg.n_groups:
        raise UserError(f"model.topk_groups is {cfg.topk_groups}; use up to model.n_groups")
    for whole, part in multiples:
        if (a := getattr(cfg, whole)) % (b := getattr(cfg, part)):
            raise UserError(f"model.{whole} {a} is not a multiple of model.{part} {b}")
    reach = cfg.n_experts // cfg.n_groups * cfg.topk_groups
    if cfg.n_experts and not 0 < cfg.n_experts_per_token <= reach:
        msg = f"model.n_experts_per_token is {cfg.n_experts_per_token}"
        raise UserError(f"{msg}, but the router can reach only {reach} experts")
    if cfg.n_experts and (cfg.dim % 4 or cfg.expert_dim % 4):  # F.grouped_mm: rows of 16 bytes
        raise UserError("model.dim and model.expert_dim must be multiples of 4 with experts")
    if cfg.rope_dim % 2:
        raise UserError("model.qk_rope_head_dim (mla) or model.head_dim (gqa) must be even")
