"""One small random model of each family as transformers makes it, and what it says: the golden file of the checkpoint tests.

    python tests/families.py        # writes tests/golden/ anew; needs transformers, which the project itself does not

Each folder holds config.json and model.safetensors as transformers writes them, and expected.safetensors: tokens, logits, and a
greedy continuation.
"""

import os

import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
_SMALL = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=256,
              num_key_value_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=39)
_V3 = _SMALL | dict(num_key_value_heads=4, moe_intermediate_size=8, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1,
                    n_group=4, topk_group=2, routed_scaling_factor=2.5, kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)
CASES = {  # name -> (transformers' config class, its settings)
    "llama": ("LlamaConfig", _SMALL | dict(rope_parameters=LLAMA3 | dict(rope_theta=500000.0), tie_word_embeddings=True)),
    "qwen2": ("Qwen2Config", _SMALL | dict(rope_parameters=dict(rope_type="default", rope_theta=1e6), tie_word_embeddings=False)),
    "qwen2-yarn": ("Qwen2Config", _SMALL | dict(rope_parameters=YARN | dict(rope_theta=1e6), tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", _SMALL | dict(head_dim=8, rope_parameters=dict(rope_type="default", rope_theta=1e6), tie_word_embeddings=True)),
    "deepseek-v3": ("DeepseekV3Config", _V3 | dict(q_lora_rank=10, rope_parameters=YARN | dict(rope_theta=10000.0, mscale=1.0, mscale_all_dim=1.0))),
    "deepseek-v3-plain": ("DeepseekV3Config", _V3 | dict(q_lora_rank=None, rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
}


def make(name: str, seed: int = 0):
    """transformers' model of a case, with weights drawn so that every part of it matters, and representable in bf16."""
    import transformers

    kind, settings = CASES[name]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings), dtype=torch.float32).eval()
    with torch.no_grad():
        for key, x in [*model.named_parameters(), *((k, b) for k, b in model.named_buffers() if k.endswith("e_score_correction_bias"))]:
            x.normal_(1.0 if "norm" in key else 0.0, 0.1 if key.endswith("bias") else 0.3 if x.dim() > 1 else 0.2)
            x.copy_(x.bfloat16())
    return model


def main() -> None:
    from safetensors.torch import load_file, save_file

    for name in CASES:
        model, folder = make(name), os.path.join(HERE, name)
        model.save_pretrained(folder)
        path = os.path.join(folder, "model.safetensors")
        save_file({k: v if k.endswith("e_score_correction_bias") else v.bfloat16() for k, v in load_file(path).items()}, path)
        tokens = torch.randint(1, 39, (2, 100))
        with torch.no_grad():
            logits = model(tokens).logits[:, -20:].contiguous()
            greedy = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=20, do_sample=False, eos_token_id=None)
        save_file({"tokens": tokens, "logits": logits, "greedy": greedy}, os.path.join(folder, "expected.safetensors"))
        if os.path.exists(extra := os.path.join(folder, "generation_config.json")):
            os.remove(extra)
    print(f"wrote {len(CASES)} models to {HERE}")


if __name__ == "__main__":
    main()
