"""Against transformers itself, both ways. It is not one of the project's packages: where it is missing, the golden files of
test_checkpoint.py stand for it. To run this: pip install transformers in the environment, then pytest tests/test_transformers.py."""

import os

import pytest
import torch
from families import CASES, make

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: the golden files of test_checkpoint.py stand for it")

import tokenizer as T  # noqa: E402
from model import GPT, ModelConfig  # noqa: E402
from sample import generate  # noqa: E402


def opened(folder):
    """transformers' model in a folder; nothing may be missing or left over."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@torch.no_grad()
def same(ours, theirs, tokens):
    assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-4
    ours.cfg.eos_ids = ()
    greedy = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert torch.equal(generate(ours, tokens.tolist(), max_new_tokens=20, temperature=0).tokens, greedy)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_their_models_here_and_back(name, seed, tmp_path):
    theirs, tokens = make(name, seed), torch.randint(1, 39, (2, 120))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = GPT.from_pretrained(str(tmp_path / "theirs")).eval()
    same(ours, theirs, tokens)
    ours.save_pretrained(str(tmp_path / "ours"))
    same(ours, opened(tmp_path / "ours"), tokens)


@pytest.mark.parametrize("changes,kind", [
    (dict(), "DeepseekV3ForCausalLM"), (dict(n_groups=4, topk_groups=2, q_lora_rank=16, routed_scale=2.5), "DeepseekV3ForCausalLM"),
    (dict(attention="gqa", n_experts=0, rope_interleaved=False), "LlamaForCausalLM"),
    (dict(attention="gqa", n_experts=0, rope_interleaved=False, n_kv_heads=2, qkv_bias=True), "Qwen2ForCausalLM"),
    (dict(attention="gqa", n_experts=0, rope_interleaved=False, n_kv_heads=1, qk_norm=True), "Qwen3ForCausalLM")])
def test_our_shapes_there(changes, kind, tmp_path):
    torch.manual_seed(0)
    ours = GPT(ModelConfig(**dict(vocab_size=60) | changes)).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2 if p.dim() == 1 else 0.1)
    ours.save_pretrained(str(tmp_path))
    theirs = opened(tmp_path)
    assert type(theirs).__name__ == kind
    same(ours, theirs, torch.randint(0, 60, (2, 30)))


def test_our_tokenizer_there(world_tokenizer, tmp_path):
    world_tokenizer.save(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Tom has 12 apples, finds 3.", "小明有5个苹果,捡到3。A比B高", "\x00\n\n émile 🙂  (3+4)*2=14", "<think>a</think><answer>3</answer><|end|>"):
        assert theirs(text)["input_ids"] == world_tokenizer.encode(text, trusted=True)
        assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == world_tokenizer.decode(world_tokenizer.encode(text, trusted=True))
    asked = theirs.apply_chat_template([{"role": "user", "content": "How many now?"}], add_generation_prompt=True)["input_ids"]
    assert asked == world_tokenizer.prompt("How many now?")
    assert (theirs.eos_token_id, theirs.pad_token_id) == (world_tokenizer.eos_id, world_tokenizer.pad_id)
    assert T.load(str(tmp_path)).template == world_tokenizer.template
