"""Model folders: golden models of every family, what we write, and what is wrong with a folder."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from families import CASES, HERE
from safetensors.torch import load_file, save_file

import model as M
from lib import hf
from lib import rope as rope_module
from lib.errors import UserError
from model import GPT, ModelConfig
from sample import SamplingParams, generate


@pytest.mark.parametrize("name", CASES)
def test_models_of_every_family_say_what_transformers_says(name):
    folder = os.path.join(HERE, name)
    net = GPT.from_pretrained(folder).eval()
    golden = load_file(os.path.join(folder, "expected.safetensors"))
    with torch.no_grad():
        logits = net(golden["tokens"])[:, -20:]
    assert (logits - golden["logits"]).abs().max() < 1e-4 and golden["logits"].abs().max() > 1
    net.cfg.eos_ids = ()
    params = SamplingParams(max_new_tokens=20, temperature=0)
    out = generate(net, golden["tokens"].tolist(), params)
    assert torch.equal(out.tokens, golden["greedy"])


@pytest.mark.parametrize("name", CASES)
def test_what_was_read_is_written_as_it_was(name, tmp_path):
    folder = os.path.join(HERE, name)
    net = GPT.from_pretrained(folder)
    net.save_pretrained(str(tmp_path))
    ours = load_file(tmp_path / "model.safetensors")
    theirs = load_file(os.path.join(folder, "model.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k].float()) for k in ours)
    assert GPT.from_pretrained(str(tmp_path)).cfg == net.cfg
    with open(os.path.join(folder, "config.json")) as f:
        family = json.load(f)["model_type"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family


DENSE = dict(attention="gqa", n_experts=0, rope_interleaved=False)
LLAMA3 = dict(rope_scaling="llama3", rope_factor=8.0, rope_original=64)
SHAPES = [
    (dict(), "deepseek_v3"),
    (dict(attention="gqa"), "pocket_r1"),
    (dict(n_shared_experts=0), "pocket_r1"),
    (DENSE, "llama"),
    (dict(attention="gqa", n_experts=0), "pocket_r1"),
    (DENSE | dict(qkv_bias=True), "qwen2"),
    (DENSE | dict(qk_norm=True), "qwen3"),
    (LLAMA3 | dict(eos_ids=(1, 7)), "deepseek_v3"),
]


@pytest.mark.parametrize("changes,family", SHAPES)
def test_every_shape_of_ours_is_read_as_it_was_written(changes, family, tmp_path):
    torch.manual_seed(0)
    small = dict(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=24, expert_dim=8)
    net = GPT(ModelConfig(**small | dict(max_seq_len=64) | changes)).eval()
    net.save_pretrained(str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
    again = GPT.from_pretrained(str(tmp_path)).eval()
    tokens = torch.randint(0, 50, (1, 9))
    assert torch.equal(net(tokens), again(tokens))
    assert again.cfg.eos_ids == net.cfg.eos_ids and again.cfg.max_seq_len == 64


def test_llama3_frequencies_against_the_published_rule():
    """Llama 3.1's rule: by wavelength, three cases (long, short, between)."""
    scaling = LLAMA3 | dict(rope_original=8192, rope_low=1.0, rope_high=4.0)
    cfg = ModelConfig(rope_theta=5e5, qk_rope_head_dim=128, **scaling)
    ours = M.rope_frequencies(cfg).tolist()
    assert len(ours) == 64
    for j, found in enumerate(ours):
        freq = 5e5 ** (-2 * j / 128)
        wavelength = 2 * math.pi / freq
        smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
        expected = (1 - smooth) * freq / 8 + smooth * freq
        if wavelength > 8192 / 1.0:
            expected = freq / 8
        elif wavelength < 8192 / 4.0:
            expected = freq
        assert found == pytest.approx(expected, rel=1e-5)


def test_yarn_leaves_fast_pairs_and_slows_slow_ones():
    scaling = dict(rope_scaling="yarn", rope_factor=40.0, rope_original=4096, rope_low=1.0)
    scaling |= dict(rope_high=32.0, rope_mscale=1.0, rope_mscale_all=1.0)
    cfg = ModelConfig(qk_rope_head_dim=64, **scaling)
    plain = M.rope_frequencies(ModelConfig(qk_rope_head_dim=64))
    yarn, turns = M.rope_frequencies(cfg), 4096 * plain / (2 * math.pi)
    assert torch.equal(yarn[turns > 60], plain[turns > 60])
    assert torch.allclose(yarn[turns < 0.5], plain[turns < 0.5] / 40)
    assert rope_module.yarn_magnitude(40.0, 1.0) == pytest.approx(1.3689, abs=1e-4)  # DeepSeek-V3's
    # both mscale alike: only the scores are stretched
    assert (M.rope_rotations(torch.zeros(1, 1), cfg) == 1.0).all()


def copy(name, tmp_path, **config):
    """A golden model's folder with changes to its config.json, and its tensors."""
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(os.path.join(HERE, name), folder)
    raw = json.loads((folder / "config.json").read_text()) | config
    raw = {k: v for k, v in raw.items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(raw))
    return str(folder), load_file(folder / "model.safetensors")


PLAIN = dict(rope_type="default", rope_theta=1e4)
UNKNOWN = [
    (dict(model_type="gpt2"), "type 'gpt2' cannot be opened; the types are llama, qwen2"),
    (dict(hidden_size="absent"), "has no 'hidden_size'"),
    (dict(hidden_act="gelu"), "hidden_act is 'gelu'; only 'silu'"),
    (dict(attention_bias=True), "attention_bias is True"),
    (dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4)), "rope scaling 'dynamic'"),
    (dict(rope_parameters=dict(rope_type="default")), "no 'rope_theta'"),
    (
        dict(rope_parameters=PLAIN, rope_scaling=dict(rope_type="yarn", factor=4.0)),
        "has both rope_parameters and rope_scaling: put what you mean into",
    ),
    (dict(quantization_config=dict(quant_method="fp8")), r"quantised \(fp8\): convert"),
    (dict(layer_types=["sliding_attention"]), "layer_types"),
    (dict(hidden_size="wide"), "hidden_size is 'wide'; it must be a whole number: restore"),
    (dict(n_group=3), "not a multiple"),
    (dict(model_type=["llama"]), "of type"),
    (dict(num_hidden_layers=-2), "num_hidden_layers is -2; it must be at least 1"),
    (dict(num_hidden_layers=10**6), "num_hidden_layers is 1000000; it must be .* at most 1000"),
    (dict(vocab_size=True), "vocab_size is True; it must be a whole number"),
    (dict(rms_norm_eps=math.nan), "rms_norm_eps is nan; it must be a finite number"),
    (dict(rope_parameters=dict(rope_theta="abc")), "rope_theta is 'abc'; it must be a number"),
    (dict(rope_parameters="abc"), "rope_parameters is 'abc'"),
    (dict(rope_parameters=dict(rope_theta=1e4, rope_type=[])), r"rope scaling '\[\]' is none of"),
    (dict(layer_types=5), "layer_types is 5"),
    (dict(quantization_config="fp8"), "quantization_config is 'fp8'"),
    (dict(eos_token_id="</s>"), "eos_token_id is .'</s>'.; it must be"),
    (dict(pad_token_id="0"), "pad_token_id is '0'; it must be a whole number"),
    (dict(tie_word_embeddings="yes"), "tie_word_embeddings is 'yes'; it must be true or false"),
    (dict(topk_group=9), "topk_groups is 9; use up to model.n_groups"),
    (dict(quantization_config={}), r"quantised \(unknown\): convert"),
    (dict(rope_parameters=PLAIN | dict(attn_factor=1.0)), "rope's attn_factor is 1.0: this cannot"),
    (dict(rope_parameters=PLAIN | dict(attention_factor=2.0)), "rope's attention_factor is 2.0"),
    (dict(rope_parameters=PLAIN | dict(beta_fast=32)), "rope's beta_fast is 32"),
    (dict(rope_parameters=PLAIN | dict(type="yarn")), "rope's type is 'yarn'"),
    (dict(rope_parameters=PLAIN | dict(truncate=False)), "rope's truncate is False"),
    (
        dict(rope_parameters="absent", rope_theta=1e4, partial_rotary_factor=0.5),
        "rope's partial_rotary_factor is 0.5",
    ),
]


@pytest.mark.parametrize("config,message", UNKNOWN)
def test_configs_that_cannot_be_opened_are_named(config, message, tmp_path):
    folder, _ = copy("deepseek-v3", tmp_path, **config)
    with pytest.raises(ValueError, match=message):
        GPT.from_pretrained(folder)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no model at '.*none' \(config.json not found\): give"):
        GPT.from_pretrained(str(tmp_path / "none"))


def test_a_run_is_told_from_a_model(tmp_path):
    """A run's folder has a config.json too: its settings."""
    inside = tmp_path / "zero" / "base" / "model"
    shutil.copytree(os.path.join(HERE, "llama"), inside)
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "zero" / name).write_text('{"seed": 0}')
    with pytest.raises(UserError, match=r"holds runs: give the model of one, .*base/model$"):
        GPT.from_pretrained(str(tmp_path / "zero"))
    with pytest.raises(UserError, match=r"'.*base' is a run: its model is .*base/model$"):
        GPT.from_pretrained(str(tmp_path / "zero" / "base"))
    shutil.rmtree(inside)
    with pytest.raises(UserError, match="is a run without a finished model: go on"):
        GPT.from_pretrained(str(tmp_path / "zero"))
    with pytest.raises(UserError, match=r"it is a file\): give a folder"):
        GPT.from_pretrained(str(tmp_path / "zero" / "config.json"))


@pytest.mark.parametrize("changes", [dict(), DENSE, DENSE | dict(qk_norm=True)])
def test_a_field_that_no_family_knows_is_not_lost(changes, tmp_path, monkeypatch):
    @dataclasses.dataclass
    class Wider(ModelConfig):
        dropout: float = 0.0

    monkeypatch.setattr(M, "ModelConfig", Wider)
    small = dict(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=24, expert_dim=8)
    for dropout in (0.0, 0.5):  # at its default the family says all there is
        net = GPT(Wider(**small | changes, dropout=dropout, kv_lora_rank=16))
        net.save_pretrained(str(tmp_path))
        assert GPT.from_pretrained(str(tmp_path)).cfg.dropout == dropout
        family = json.loads((tmp_path / "config.json").read_text())["model_type"]
        assert (family == "pocket_r1") == (dropout > 0)


def test_a_config_of_ours_is_complete(tmp_path):
    shape = dict(vocab_size=20, dim=8, n_layers=2, n_heads=2, expert_dim=8)
    GPT(ModelConfig(**shape, attention="gqa", n_kv_heads=2, head_dim=4)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    assert raw["model_type"] == "pocket_r1"
    path.write_text(json.dumps({k: v for k, v in raw.items() if k != "rope_theta"}))
    with pytest.raises(ValueError, match="lacks rope_theta"):
        GPT.from_pretrained(str(tmp_path))
    path.write_text(json.dumps(raw | {"mtp": False}))  # a field that older models had
    assert GPT.from_pretrained(str(tmp_path)).cfg.attention == "gqa"


def test_tensors_that_do_not_fit_are_named(tmp_path):
    def broken(message, change):
        folder, tensors = copy("qwen2", tmp_path)
        change(tensors)
        save_file(tensors, os.path.join(folder, "model.safetensors"))
        with pytest.raises(ValueError, match=message):
            GPT.from_pretrained(folder)

    name, extra = "model.layers.1.self_attn.k_proj.bias", "model.layers.1.mlp.extra.weight"
    message = rf"'{name}' is \[8, 1\], the config asks for \[8\]"
    broken(f"'{name}' is missing", lambda t: t.pop(name))
    broken(f"'{extra}' is not part", lambda t: t.update({extra: torch.ones(1)}))
    broken(message, lambda t: t.update({name: t[name][:, None]}))
    eighth = torch.float8_e4m3fn
    broken(f"'{name}' is F8_E4M3: convert", lambda t: t.update({name: t[name].to(eighth)}))


def test_what_other_files_may_hold_besides(tmp_path):
    """A prediction layer behind the last one, old rotary buffers; a tied head that is saved; an
    untied config that does not say so."""
    folder, tensors = copy("deepseek-v3-plain", tmp_path, tie_word_embeddings="absent")
    tensors["model.layers.2.eh_proj.weight"] = torch.ones(2, 2)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    golden = load_file(os.path.join(folder, "expected.safetensors"))
    net = GPT.from_pretrained(folder).eval()
    logits = net(golden["tokens"])[:, -20:]
    assert not net.cfg.tie_embeddings and torch.allclose(logits, golden["logits"], atol=1e-4)
    folder, tensors = copy("llama", tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    assert GPT.from_pretrained(folder).cfg.tie_embeddings


def test_what_a_config_may_say_besides(tmp_path):
    """Nothing of quantisation; rotary settings that change nothing."""
    rope = PLAIN | dict(type="default", attention_factor=None, partial_rotary_factor=1.0)
    folder, _ = copy("qwen2", tmp_path, quantization_config=None, rope_parameters=rope)
    assert GPT.from_pretrained(folder).cfg.rope_theta == 1e4


@pytest.mark.parametrize("shape", ["same", "other"])
def test_a_head_that_a_tied_config_does_not_tell_of(shape, tmp_path):
    """The tensors decide, as in transformers: the head of the file is the model's."""
    folder, tensors = copy("llama", tmp_path)
    assert GPT.from_pretrained(folder).cfg.tie_embeddings
    embedding = tensors["model.embed_tokens.weight"]
    head = 2 * embedding if shape == "same" else embedding[:, :-1].contiguous()
    save_file(tensors | {"lm_head.weight": head}, os.path.join(folder, "model.safetensors"))
    if shape == "other":
        with pytest.raises(UserError, match=r"'lm_head.weight' is \[40, 15\], the config asks"):
            GPT.from_pretrained(folder)
        return
    net = GPT.from_pretrained(folder)
    assert not net.cfg.tie_embeddings and torch.equal(net.lm_head.weight, head.float())
    assert torch.equal(net.embed_tokens.weight, embedding.float())
    net.save_pretrained(folder)
    assert not GPT.from_pretrained(folder).cfg.tie_embeddings


def tokenizer_files(folder, **about):
    """What a tokenizer's two files say of special tokens."""
    added = [{"content": t, "id": i} for t, i in (("<end>", 38), ("<pad>", 5), ("<far>", 40))]
    for name, content in (("", {"added_tokens": added}), ("_config", about)):
        with open(os.path.join(folder, f"tokenizer{name}.json"), "w") as f:
            json.dump(content, f)


@pytest.mark.parametrize(
    "pad,about,expected",
    [
        (7, {}, 7),
        (-1, {}, 39),  # the model's end token
        (40, {}, 39),  # the vocabulary has 40 tokens
        (None, {}, 39),
        (-1, dict(eos_token="<end>"), 38),
        (-1, dict(eos_token={"content": "<end>"}, pad_token="<pad>"), 5),
        (-1, dict(eos_token="<end>", pad_token="<far>"), 38),
    ],
)
def test_a_pad_id_that_is_none(pad, about, expected, tmp_path):
    folder, _ = copy("qwen2", tmp_path, pad_token_id=pad)
    tokenizer_files(folder, **about)
    assert GPT.from_pretrained(folder).cfg.pad_id == expected


def test_no_id_to_pad_with(tmp_path):
    folder, _ = copy("qwen2", tmp_path, pad_token_id=-1, eos_token_id=None)
    assert GPT.from_pretrained(folder).cfg.pad_id == 0


def test_every_end_token_that_a_folder_names_ends_a_response(tmp_path):
    folder, _ = copy("qwen2", tmp_path, eos_token_id=[39, 7])
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": [7, 3]}, f)
    assert set(GPT.from_pretrained(folder).cfg.eos_ids) == {39, 7, 3}
    tokenizer_files(folder, eos_token="<end>")
    net = GPT.from_pretrained(folder)
    assert sorted(net.cfg.eos_ids) == [3, 7, 38, 39]
    for damaged in ("[]", "{", '{"added_tokens": 5}', '{"added_tokens": [5]}'):
        with open(os.path.join(folder, "tokenizer.json"), "w") as f:
            f.write(damaged)  # the tokenizer's error, when it is loaded
        assert set(GPT.from_pretrained(folder).cfg.eos_ids) == {39, 7, 3}
    net.save_pretrained(folder)
    assert GPT.from_pretrained(folder).cfg.eos_ids == net.cfg.eos_ids


def test_what_a_folder_says_of_its_model(tmp_path):
    """How it is sampled, and a card; a card that is there already stays."""
    net = GPT.from_pretrained(os.path.join(HERE, "qwen2"))
    net.cfg.eos_ids, net.cfg.pad_id = (39, 7), 5
    net.save_pretrained(str(tmp_path))
    said = json.loads((tmp_path / "generation_config.json").read_text())
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    assert said == sampling | {"eos_token_id": [39, 7], "pad_token_id": 5}
    card = (tmp_path / "README.md").read_text()
    assert "qwen2 model, made by pocket-R1" in card and "python sample.py THIS_FOLDER" in card
    with open(os.path.join(ROOT, "sample.py")) as f:  # the defaults of its flags
        script = f.read()
    assert all(f"default={sampling[k]}" in script for k in ("temperature", "top_p"))
    (tmp_path / "README.md").write_text("mine")
    net.save_pretrained(str(tmp_path))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_older_spelling_of_rope_and_several_ends(tmp_path):
    rope = dict(type="yarn", factor=40.0, original_max_position_embeddings=32)
    rope |= dict(beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
    older = dict(rope_parameters="absent", rope_theta=10000.0, rope_scaling=rope)
    folder, _ = copy("deepseek-v3", tmp_path, **older, eos_token_id=[39, 38])
    cfg = GPT.from_pretrained(folder).cfg
    golden = GPT.from_pretrained(os.path.join(HERE, "deepseek-v3")).cfg
    assert cfg == ModelConfig(**(golden.__dict__ | dict(eos_ids=(39, 38))))
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": [7]}, f)
    assert GPT.from_pretrained(folder).cfg.eos_ids == (7, 39, 38)


def test_what_older_configs_leave_unsaid(tmp_path):
    """rope_theta is 10000, and Llama 1 has as many heads of keys as of queries."""
    unsaid = dict.fromkeys(("rope_parameters", "num_key_value_heads"), "absent")
    folder, _ = copy("llama", tmp_path, **unsaid)
    cfg = ModelConfig(**hf.read_config(folder, ModelConfig))
    assert cfg.rope_theta == 10000.0 and cfg.n_kv_heads == cfg.n_heads


def test_yarn_without_its_stretch(tmp_path):
    """As DeepSeek-R1-0528-Qwen3-8B has it: 0.878 is one over YaRN's 1.139."""
    rope = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    rope |= dict(attn_factor=0.8782488562869419)
    unsaid = dict(rope_parameters="absent", rope_theta=1e6)
    folder, _ = copy("qwen3", tmp_path, **unsaid, rope_scaling=rope)
    cfg = ModelConfig(**hf.read_config(folder, ModelConfig))
    assert rope["attn_factor"] * rope_module.yarn_magnitude(4.0, 1.0) == pytest.approx(1.0)
    assert rope_module.magnitude(cfg) == 1.0
    del rope["attn_factor"]
    folder, _ = copy("qwen3", tmp_path / "plain", **unsaid, rope_scaling=rope)
    cfg = ModelConfig(**hf.read_config(folder, ModelConfig))
    assert rope_module.magnitude(cfg) == pytest.approx(1 / 0.8782488562869419)


def test_shards(tmp_path, monkeypatch):
    net = GPT.from_pretrained(os.path.join(HERE, "deepseek-v3"))
    net.save_pretrained(str(tmp_path))
    whole = load_file(tmp_path / "model.safetensors")
    monkeypatch.setattr(hf, "SHARD", 8000)
    net.save_pretrained(str(tmp_path))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2 and not (tmp_path / "model.safetensors").exists()
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in whole.values())
    assert all((tmp_path / f).stat().st_size < 12000 for f in files)
    assert index["weight_map"].keys() == whole.keys()
    again = GPT.from_pretrained(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), net.parameters()))
    (tmp_path / sorted(files)[1]).unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-.* is missing or damaged"):
        GPT.from_pretrained(str(tmp_path))
    monkeypatch.undo()
    net.save_pretrained(str(tmp_path))
    files = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    assert sorted(os.listdir(tmp_path)) == files


def test_half_precision_keeps_the_balancing_bias_exact():
    net = GPT.from_pretrained(os.path.join(HERE, "deepseek-v3"), dtype=torch.bfloat16)
    gate = net.layers[1].mlp.gate
    assert gate.weight.dtype == torch.bfloat16
    assert gate.e_score_correction_bias.dtype == torch.float32


PEAK = """
import sys, torch
from model import GPT

def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

GPT.from_pretrained(sys.argv[2])  # what PyTorch loads of itself on the way is not the model's
before = peak()
model = GPT.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read there")
def test_loading_holds_little_more_than_the_model(tmp_path):
    shape = dict(vocab_size=60_000, dim=512, n_layers=2, n_heads=4, hidden_dim=1024)
    net = GPT(ModelConfig(**shape, attention="gqa", n_experts=0)).to(torch.bfloat16)
    net.save_pretrained(str(tmp_path))
    command = [sys.executable, "-c", PEAK, str(tmp_path), os.path.join(HERE, "qwen2")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(run.stdout) < 1.2
