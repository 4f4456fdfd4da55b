"""Against transformers itself, both ways. It is not one of the project's packages: where it is
missing, the golden files of test_hf.py stand for it. To run this: pip install transformers in the
environment, then pytest tests/test_transformers.py."""

import os

import pytest
import torch
from families import CASES, make
from test_hf_tokenizer import BOS, DEEPSEEK, LEVEL, NFC, NOTHING, RENDERED, chat_folder

import tokenizer as tokenizers
from model import GPT, ModelConfig
from sample import SamplingParams, generate

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: test_hf.py's golden files stand for it"
)


def opened(folder):
    """transformers' model in a folder; nothing may be missing or left over."""
    auto = transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@torch.no_grad()
def same(ours, theirs, tokens):
    assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-4
    ours.cfg.eos_ids = ()
    options = dict(max_new_tokens=20, do_sample=False, eos_token_id=None)
    greedy = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    params = SamplingParams(max_new_tokens=20, temperature=0)
    assert torch.equal(generate(ours, tokens.tolist(), params).tokens, greedy)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_their_models_here_and_back(name, seed, tmp_path):
    theirs, tokens = make(name, seed), torch.randint(1, 39, (2, 120))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = GPT.from_pretrained(str(tmp_path / "theirs")).eval()
    same(ours, theirs, tokens)
    ours.save_pretrained(str(tmp_path / "ours"))
    same(ours, opened(tmp_path / "ours"), tokens)


GROUPED = dict(n_groups=4, topk_groups=2, q_lora_rank=16, routed_scale=2.5)
GQA = dict(attention="gqa", n_experts=0, rope_interleaved=False)


@pytest.mark.parametrize(
    "changes,kind",
    [
        ({}, "DeepseekV3ForCausalLM"),
        (GROUPED, "DeepseekV3ForCausalLM"),
        (GQA, "LlamaForCausalLM"),
        (GQA | dict(n_kv_heads=2, qkv_bias=True), "Qwen2ForCausalLM"),
        (GQA | dict(n_kv_heads=1, qk_norm=True), "Qwen3ForCausalLM"),
    ],
)
def test_our_shapes_there(changes, kind, tmp_path):
    torch.manual_seed(0)
    ours = GPT(ModelConfig(**dict(vocab_size=60) | changes)).eval()
    for p in ours.parameters():
        norm = p.dim() == 1
        torch.nn.init.normal_(p, 1.0 if norm else 0.0, 0.2 if norm else 0.1)
    ours.save_pretrained(str(tmp_path))
    theirs = opened(tmp_path)
    assert type(theirs).__name__ == kind
    same(ours, theirs, torch.randint(0, 60, (2, 30)))


TEXTS = ["Tom has 12 apples, finds 3.", "小明有5个苹果,捡到3。A比B高"]
TEXTS += ["\x00\n\n émile 🙂  (3+4)*2=14", "<think>a</think><answer>3</answer><|end|>"]


def test_our_tokenizer_there(world_tokenizer, tmp_path):
    world_tokenizer.save(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ids == world_tokenizer.encode(text, trusted=True)
        assert theirs.decode(ids, skip_special_tokens=True) == world_tokenizer.decode(ids)
    question = [{"role": "user", "content": "How many now?"}]
    ids = theirs.apply_chat_template(question, add_generation_prompt=True)["input_ids"]
    assert ids == world_tokenizer.prompt("How many now?")
    special = (world_tokenizer.eos_id, world_tokenizer.pad_id)
    assert (theirs.eos_token_id, theirs.pad_token_id) == special
    assert tokenizers.load(str(tmp_path)).template == world_tokenizer.template


@pytest.mark.parametrize("template", RENDERED)
def test_their_chat_templates_here(template, tmp_path):
    folder = chat_folder(tmp_path / "chat", decoder=None)
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "{prompt}"}]
    text = theirs.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert text == RENDERED[template] == tokenizers.load(folder).template


SPLIT = dict(type="Split", behavior="Isolated", invert=False)
CUT = [SPLIT | dict(pattern={"Regex": pattern}) for pattern in DEEPSEEK]
CUT.append(LEVEL | dict(add_prefix_space=False, use_regex=False))
CUT = {"type": "Sequence", "pretokenizers": CUT}


@pytest.mark.parametrize("normalizer", [None, NFC, NOTHING, NOTHING | {"normalizers": [NFC]}])
@pytest.mark.parametrize("post", [None, BOS, {"type": "Sequence", "processors": [LEVEL, BOS]}])
def test_their_tokenizers_here(normalizer, post, tmp_path):
    """What stands before a text, what is normalised, DeepSeek-V3's way of cutting words."""
    parts = dict(normalizer=normalizer, post_processor=post, pre_tokenizer=CUT, decoder=None)
    folder = chat_folder(tmp_path / "chat", **parts)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = tokenizers.load(folder, template="r1")
    for text in [*TEXTS, "e\u0301 $80,000 = 12345x\r\n"]:
        assert theirs(text)["input_ids"] == ours.bos + ours.encode(text, trusted=True)
