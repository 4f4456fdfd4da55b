"""What differs from the laptop's defaults: --config long, and small and big for GPUs."""

# Each preset is what differs from `tiny`, the defaults in the dataclasses: lines of "key value".
_SMALL = """
model.dim 768  model.n_layers 12  model.n_heads 12  model.hidden_dim 2048  model.vocab_size 4096
model.max_seq_len 4096  model.kv_lora_rank 256  model.qk_nope_head_dim 64  model.qk_rope_head_dim 32
model.v_head_dim 64  model.n_experts 16  model.n_experts_per_token 4  model.expert_dim 256
world.level 2  precision bfloat16  sft.tokens 1_000_000_000  sft.tokens_per_step 262_144
sft.micro_tokens 16_384  sft.adam_lr 1e-3  grpo.steps 300  grpo.problems_per_step 64
grpo.max_new_tokens 1024  grpo.micro_tokens 16_384  grpo.lr 5e-5  grpo.warmup 10
eval.max_new_tokens 1024  r1.cold_prompts 8000  r1.reject_prompts 20_000  r1.steps 200
r1.preference_steps 60  r1.general 0.5  r1.tokens_per_step 65_536
distill.prompts 12_000  distill.rl_steps 150
"""
_BIG = """
model.dim 1536  model.n_layers 24  model.n_heads 16  model.hidden_dim 4096  model.vocab_size 100352
model.max_seq_len 32768  model.kv_lora_rank 512  model.qk_nope_head_dim 128
model.qk_rope_head_dim 64  model.v_head_dim 128  model.n_experts 32  model.n_experts_per_token 4
model.expert_dim 256  tokenizer cl100k_base  world.level 3  precision bfloat16  recompute true
sft.tokens 4_000_000_000  sft.tokens_per_step 524_288  sft.micro_tokens 32_768  sft.muon_lr 0.01
sft.adam_lr 5e-4  grpo.steps 500  grpo.problems_per_step 16  grpo.max_new_tokens 2048
grpo.micro_tokens 32_768  grpo.lr 2e-5  grpo.warmup 10  grpo.kl_beta 1e-3  grpo.ref_every 25
eval.max_new_tokens 2048  eval.rows 256  r1.cold_prompts 8000  r1.reject_prompts 20_000
r1.steps 300  r1.preference_steps 80  r1.general 0.5  r1.tokens_per_step 131_072
distill.prompts 20_000  distill.rl_steps 200
"""
# the laptop's run for nearly four times as long, with the limit on length doubled on the way
_LONG = """
grpo.steps 300  grpo.problems_per_step 16  grpo.doubled_from 100  eval.max_new_tokens 800
"""
PRESETS: dict[str, dict[str, str]] = {"tiny": {}}
for _name, _text in (("long", _LONG), ("small", _SMALL), ("big", _BIG)):
    _words = _text.split()
    PRESETS[_name] = dict(zip(_words[::2], _words[1::2]))
