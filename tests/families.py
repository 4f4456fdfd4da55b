"""One small random model of each family as transformers makes it, and what it says: golden files.

    python tests/families.py    # writes tests/golden/ anew; needs transformers, which is not ours

Each folder holds config.json and model.safetensors as transformers writes them, and
expected.safetensors: tokens, logits, and a greedy continuation. test_hf.py reads them.
"""

import os

import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
SMALL = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
SMALL |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)
SMALL |= dict(pad_token_id=0, bos_token_id=None, eos_token_id=39)
V3 = SMALL | dict(num_key_value_heads=4, moe_intermediate_size=8, n_routed_experts=8)
V3 |= dict(n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1, n_group=4)
V3 |= dict(topk_group=2, routed_scaling_factor=2.5, kv_lora_rank=12, qk_nope_head_dim=8)
V3 |= dict(qk_rope_head_dim=4, v_head_dim=6)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=32)
YARN |= dict(beta_fast=32.0, beta_slow=1.0)
V3_YARN = YARN | dict(mscale=1.0, mscale_all_dim=1.0)


def case(kind: str, shape: dict, rope: dict, theta: float, **settings) -> tuple[str, dict]:
    """transformers' config class, and its settings."""
    return f"{kind}Config", shape | dict(rope_parameters=rope | dict(rope_theta=theta)) | settings


PLAIN = dict(rope_type="default")
CASES = {
    "llama": case("Llama", SMALL, LLAMA3, 500000.0, tie_word_embeddings=True),
    "qwen2": case("Qwen2", SMALL, PLAIN, 1e6, tie_word_embeddings=False),
    "qwen2-yarn": case("Qwen2", SMALL, YARN, 1e6, tie_word_embeddings=True),
    "qwen3": case("Qwen3", SMALL | dict(head_dim=8), PLAIN, 1e6, tie_word_embeddings=True),
    "deepseek-v3": case("DeepseekV3", V3, V3_YARN, 10000.0, q_lora_rank=10),
    "deepseek-v3-plain": case("DeepseekV3", V3, PLAIN, 10000.0, q_lora_rank=None),
}


def make(name: str, seed: int = 0):
    """transformers' model of a case, with weights that fit bf16 and let every part matter."""
    import transformers

    kind, settings = CASES[name]
    torch.manual_seed(seed)
    cfg = getattr(transformers, kind)(**settings)
    model = transformers.AutoModelForCausalLM.from_config(cfg, dtype=torch.float32).eval()
    buffers = [(k, b) for k, b in model.named_buffers() if k.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for key, x in [*model.named_parameters(), *buffers]:
            scale = 0.1 if key.endswith("bias") else 0.3 if x.dim() > 1 else 0.2
            x.normal_(1.0 if "norm" in key else 0.0, scale)
            x.copy_(x.bfloat16())
    return model


def main() -> None:
    from safetensors.torch import load_file, save_file

    for name in CASES:
        model, folder = make(name), os.path.join(HERE, name)
        model.save_pretrained(folder)
        path = os.path.join(folder, "model.safetensors")
        tensors = load_file(path)
        for key, x in tensors.items():
            tensors[key] = x if key.endswith("e_score_correction_bias") else x.bfloat16()
        save_file(tensors, path)
        tokens = torch.randint(1, 39, (2, 100))
        settings = dict(max_new_tokens=20, do_sample=False, eos_token_id=None)
        with torch.no_grad():
            logits = model(tokens).logits[:, -20:].contiguous()
            mask = torch.ones_like(tokens)
            greedy = model.generate(tokens, attention_mask=mask, **settings)
        out = {"tokens": tokens, "logits": logits, "greedy": greedy}
        save_file(out, os.path.join(folder, "expected.safetensors"))
        if os.path.exists(extra := os.path.join(folder, "generation_config.json")):
            os.remove(extra)
    print(f"wrote {len(CASES)} models to {HERE}")


if __name__ == "__main__":
    main()
