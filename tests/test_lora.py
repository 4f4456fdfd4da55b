"""LoRA against a model whose weights are W + alpha / rank * B A, written out; its runs."""

import copy
import json
import os
import random
from dataclasses import asdict, replace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import run
from test_grpo import fake_rollout, make_learner
from test_inputs import chat, parsed  # noqa: F401
from torch.func import functional_call

import config
import grpo
import inputs
import sft
import train_zero
from data import World, WorldConfig
from lib import distributed, lora, memory
from lib.cache import GrowingCache
from lib.errors import UserError
from lib.lora import LoRAConfig
from lib.run import check_settings, checkpoints
from model import GPT, ModelConfig
from sample import SamplingParams, generate

DENSE = {
    "mla": dict(n_experts=0, q_lora_rank=6),
    "gqa": dict(n_experts=0, attention="gqa", n_kv_heads=1, head_dim=16, qkv_bias=True),
}
SHAPES = DENSE | {"moe": {}}


def adapted(model, rank=3, alpha=32.0, moved=True):
    """The model with adapters; moved: as if they had been trained."""
    lora.add(model, LoRAConfig(rank, alpha), seed=0)
    for p in lora.parameters(model) if moved else ():
        torch.nn.init.normal_(p, std=0.1)
    return model


@pytest.fixture(params=SHAPES)
def shaped(request, tiny_model):
    """A model of each kind of layer."""
    model = GPT(replace(tiny_model.cfg, **SHAPES[request.param]))
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.0 if p.dim() > 1 else 1.0, 0.15)
    return model


def merged_weights(model, leaves=None) -> dict:
    """name -> W + alpha / rank * B A, of all weights with adapters; leaves: other A^T and B^T."""
    named = dict(model.named_parameters())
    leaves, out = leaves or named, {}
    for name, weight in named.items():
        host, _, key = name.rpartition(".")
        stem = f"{host}.lora.{key}"
        if f"{stem}.a" in named:
            a, b = leaves[f"{stem}.a"], leaves[f"{stem}.b"]
            change = torch.einsum("...ir,...ro->...io", a, b) * 32.0 / a.shape[-1]
            out[name] = weight.detach() + (change if weight.dim() == 3 else change.T)
    return out


def plain_copy(model) -> GPT:
    """Another model, whose weights are the merged ones."""
    out = GPT(model.cfg).to(next(model.parameters()).dtype)
    state = {k: x for k, x in model.state_dict().items() if ".lora." not in k}
    out.load_state_dict(state | {k: x.detach() for k, x in merged_weights(model).items()})
    return out


# ------------------------------------------------------------------------------ the mathematics


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_an_adapter_of_a_stack_is_one_of_each_expert(rank):
    """Rows by expert, one of them idle, against float64 sums; also the gradients."""
    weight, x = torch.randn(4, 8, 12), torch.randn(9, 8, requires_grad=True)
    adapter = lora.Adapter(weight, LoRAConfig(rank, 5.0), torch.Generator())
    torch.nn.init.normal_(adapter.b)
    ends, factor = torch.tensor([2, 2, 7, 9], dtype=torch.int32), torch.randn(9, 12)
    out = adapter(x, ends)
    found = torch.autograd.grad((out * factor).sum(), (x, adapter.a, adapter.b))
    a, b = (p.detach().double().requires_grad_() for p in (adapter.a, adapter.b))
    rows, owners = x.detach().double().requires_grad_(), [0, 0, 2, 2, 2, 2, 2, 3, 3]
    want = torch.stack([row @ (a[e] @ b[e]) * 5.0 / rank for row, e in zip(rows, owners)])
    wanted = torch.autograd.grad((want * factor.double()).sum(), (rows, a, b))
    for got, expected in zip((out, *found), (want, *wanted)):
        torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-4)
    merged = adapter.merge(weight)
    torch.testing.assert_close(merged, (weight + a @ b * 5.0 / rank).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", DENSE)
def test_a_model_in_float64(tiny_model, monkeypatch, kind):
    """Output, and the gradients of all A and B, are those of the written-out weights."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = adapted(GPT(replace(tiny_model.cfg, **DENSE[kind])))
    model.double()
    compare(model, 1e-10)


def test_a_mixture_of_experts(tiny_model):
    compare(adapted(tiny_model, rank=2).train(), 1e-3)


def compare(model, tolerance):
    tokens, factor = torch.randint(0, 100, (3, 11)), torch.randn(3, 11, model.cfg.vocab_size)
    leaves = {k: p.detach().clone() for k, p in model.named_parameters() if ".lora." in k}
    leaves = {k: p.requires_grad_() for k, p in leaves.items()}
    plain, weights = plain_copy(model).train(), merged_weights(model, leaves)
    want, out = functional_call(plain, weights, (tokens,)), model(tokens)
    assert (out - model_without(model, tokens)).abs().max() > 0.1
    torch.testing.assert_close(out, want, atol=tolerance, rtol=tolerance)
    (out * factor).sum().backward()
    (want * factor).sum().backward()
    for name, p in model.named_parameters():
        if ".lora." in name:
            torch.testing.assert_close(p.grad, leaves[name].grad, atol=tolerance, rtol=tolerance)
        else:
            assert p.grad is None and not p.requires_grad


def model_without(model, tokens):
    with lora.plain(model, merged=False):
        return model(tokens)


def test_one_token_after_a_cached_prompt_in_float64(tiny_model, monkeypatch):
    """There latent attention uses kv_b_proj's weight directly."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = adapted(GPT(replace(tiny_model.cfg, **DENSE["mla"])))
    model.double()
    tokens, grads = torch.randint(0, 100, (2, 6)), []
    for cached in (True, False):
        cache = GrowingCache() if cached else None
        if cached:
            model(tokens[:, :5], cache, return_hidden=True)
        out = model(tokens[:, 5:] if cached else tokens, cache)[:, -1]
        found = torch.autograd.grad(out.square().sum(), lora.parameters(model))
        grads.append([out, *found])
    for got, want in zip(*grads, strict=True):  # its softmax is float32
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


def test_adapters_begin_as_nothing_and_by_their_seed(shaped):
    tokens, other = torch.randint(0, 100, (2, 7)), copy.deepcopy(shaped)
    before, count = shaped(tokens), sum(p.numel() for p in shaped.parameters())
    adapted(shaped, moved=False)
    assert torch.equal(shaped(tokens), before)
    lora.add(other, LoRAConfig(3), seed=1)
    pairs = list(zip(lora.parameters(shaped), lora.parameters(other), strict=True))
    assert all(p.any() and not torch.equal(p, q) for p, q in pairs[::2])  # A
    assert not any(p.any() for p, _ in pairs[1::2])  # B
    # all matrices of the layers have them, and what the estimate of memory counts is there
    state = shaped.state_dict().items()
    left = {k for k, x in state if x.dim() > 1 and ".lora." not in k} - merged_weights(
        shaped
    ).keys()
    assert {k.rpartition("layers.")[2][1:] for k in left} - {".mlp.gate.weight"} == {
        "mbed_tokens.weight",
        "m_head.weight",
    }
    adapters = sum(p.numel() for p in lora.parameters(shaped))
    covered = sum(x.numel() for x in merged_weights(shaped).values())
    assert memory.adapters_of(GPT.empty(shaped.cfg), 3) == (adapters, covered)
    assert count == sum(p.numel() for p in shaped.parameters()) - adapters


@pytest.mark.parametrize("recompute", [False, True])
def test_an_update_leaves_all_but_adapters_as_it_was(tiny_model, recompute):
    before = copy.deepcopy(tiny_model)
    batch, _ = fake_rollout(copy.deepcopy(tiny_model))
    adapted(tiny_model, moved=False)
    for block in tiny_model.layers if recompute else ():
        distributed.recompute_activations(block)
    learner = make_learner(tiny_model.train(), group_size=4, minibatches=2, micro_tokens=30)
    learner.update(batch, torch.randn(12), 1.0, random.Random(0))
    with lora.plain(tiny_model, merged=False):
        for (name, p), (_, q) in zip(tiny_model.named_parameters(), before.named_parameters()):
            assert torch.equal(p, q), name
    assert all(p.any() for p in lora.parameters(tiny_model)[1::2])  # every B has moved


def test_without_a_rank_nothing_is_added(tiny_model):
    cfg = config.make(train_zero.Config)
    before = {k: x.clone() for k, x in tiny_model.state_dict().items()}
    model = lora.prepared(tiny_model, cfg)
    assert cfg.lora.rank == 0 and model is tiny_model and not lora.parameters(model)
    assert all(p.requires_grad for p in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert not any(m._forward_hooks for m in model.modules())
    check_settings({"seed": 0}, {"seed": 0, "lora": asdict(cfg.lora)}, "r")  # an earlier version's
    with pytest.raises(UserError, match=r"--lora\.rank 0, not 8"):
        check_settings({"seed": 0}, {"seed": 0, "lora": asdict(LoRAConfig(8))}, "r")


# ------------------------------------------------------------------------------ merged


def test_rollouts_are_the_merged_model_s(shaped, monkeypatch):
    adapted(shaped)
    plain, prompts = plain_copy(shaped), [[5, 6, 7], [8, 9]]
    params = SamplingParams(12, num_return_sequences=3)
    kept = {k: (x.data_ptr(), x.clone()) for k, x in shaped.state_dict().items()}
    with monkeypatch.context() as m:
        m.setattr(lora.Adapter, "forward", None)  # no adapter is at work
        found, want = (generate(model, prompts, params, seed=1) for model in (shaped, plain))
    assert torch.equal(found.tokens, want.tokens)
    torch.testing.assert_close(found.logprobs, want.logprobs, atol=1e-5, rtol=1e-5)
    for key, x in shaped.state_dict().items():  # the same tensors, not restored ones
        assert x.data_ptr() == kept[key][0] and torch.equal(x, kept[key][1])
    again = shaped(found.tokens).log_softmax(-1)[:, :-1]
    again = again.gather(2, found.tokens[:, 1:, None])[..., 0]
    drawn = torch.arange(1, found.tokens.shape[1]) >= found.prompt_lengths[:, None]
    drawn &= torch.arange(1, found.tokens.shape[1]) < found.lengths[:, None]
    assert (again - found.logprobs[:, 1:])[drawn].abs().max() < 1e-3  # in training, not merged


def test_merging_ends_with_an_error_too(tiny_model):
    adapted(tiny_model)
    before = {k: x.clone() for k, x in tiny_model.state_dict().items()}
    with pytest.raises(KeyError), lora.plain(tiny_model):
        with lora.plain(tiny_model):  # there is nothing left to merge
            assert not lora.parameters(tiny_model) and torch.is_grad_enabled()
        raise KeyError
    assert all(torch.equal(x, before[k]) for k, x in tiny_model.state_dict().items())


def test_a_saved_folder_is_an_ordinary_one(shaped, tmp_path):
    plain = copy.deepcopy(shaped)
    plain.save_pretrained(str(tmp_path / "plain"))
    adapted(shaped)
    with lora.plain(shaped):
        want = {k: x.clone() for k, x in shaped.state_dict().items()}
    shaped.save_pretrained(str(tmp_path / "merged"))
    for name in ("config.json", "README.md", "generation_config.json"):
        texts = [(tmp_path / folder / name).read_text() for folder in ("plain", "merged")]
        assert texts[0] == texts[1]
    again = GPT.from_pretrained(str(tmp_path / "merged"))
    assert again.state_dict().keys() == plain.state_dict().keys() == want.keys()
    assert all(torch.equal(x, want[k]) for k, x in again.state_dict().items())
    written = merged_weights(shaped)
    for key, x in written.items():
        torch.testing.assert_close(again.state_dict()[key], x.detach(), atol=1e-6, rtol=1e-6)


def test_the_reference_is_the_base(tiny_model):
    """Its KL, and the step that follows from it, are those with a second model, even after the
    router's bias has moved."""
    base = copy.deepcopy(tiny_model).requires_grad_(False)
    batch, _ = fake_rollout(copy.deepcopy(tiny_model))
    for moe in adapted(tiny_model).moe_layers():
        moe.gate.e_score_correction_bias += torch.tensor([0.5, -0.5, 0.2, 0.0])
    other, advantages, found = copy.deepcopy(tiny_model), torch.randn(12), []
    for model in (tiny_model, other):
        learner = make_learner(model.train(), group_size=4, minibatches=2, kl_beta=0.1)
        learner.ref = model if model is tiny_model else base
        found.append(learner.update(batch, advantages, 1.0, random.Random(0))["kl"])
    assert found[0] == found[1] > 0
    pairs = zip(lora.parameters(tiny_model), lora.parameters(other), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


# ------------------------------------------------------------------------------ runs

SETTINGS = """grpo.steps 4 grpo.problems_per_step 2 grpo.group_size 4 grpo.max_new_tokens 8
 grpo.save_every 2 grpo.kl_beta 0.05 grpo.lr 0.01 sft.epochs 2 sft.tokens_per_step 100
 sft.micro_tokens 100
 sft.save_every 2 sft.adam_lr 0.01 lora.rank 4""".split()
SETTINGS = dict(zip(SETTINGS[::2], SETTINGS[1::2]))
ROWS = [{"prompt": f"Tom has {i}", "response": f"<answer>{i + 2}</answer>"} for i in range(40)]


def settings(**more):
    cfg = config.make(train_zero.Config)
    for key, value in (SETTINGS | {k.replace("__", "."): v for k, v in more.items()}).items():
        config.set_key(cfg, key, value)
    config.check(cfg)
    return cfg


@pytest.fixture
def base(tiny_model, world_tokenizer, tmp_path):
    folder = str(tmp_path / "base")
    world_tokenizer.save(folder)
    tiny_model.save_pretrained(folder)
    return folder


class Crash(BaseException):
    """The process ends here, as by kill -9."""


def trained(stage, cfg, base, out, resume=False):
    if stage == "sft":
        return sft.fine_tuned(cfg, base, ROWS, "rows", out, resume)
    world = World(0, WorldConfig())

    def next_problems(step):
        return [world.problem("arithmetic", 2 * step + i) for i in range(2)]

    return grpo.train(cfg, base, out, resume, "zero", next_problems)


def crash_after(monkeypatch, module, name, steps):
    real, left = getattr(module, name), [steps]

    def counted(*args, **kw):
        left[0] -= 1
        if left[0] < 0:
            raise Crash
        return real(*args, **kw)

    monkeypatch.setattr(module, name, counted)


@pytest.fixture
def scored(monkeypatch):
    """Rewards that differ within a group."""

    def score_all(problems, texts, cfg):
        scores = [float(sum(map(ord, t)) % 3) for t in texts]
        return [{"accuracy": s, "format": 0.0, "language": 1.0, "total": s} for s in scores]

    monkeypatch.setattr(grpo.rw, "score_all", score_all)


@pytest.mark.parametrize("stage", ["sft", "zero"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    stage, base, tmp_path, monkeypatch, scored, capsys
):
    cfg, weights = settings(), GPT.from_pretrained(base).state_dict()
    whole = GPT.from_pretrained(trained(stage, cfg, base, str(tmp_path / "a"))).state_dict()
    with monkeypatch.context() as m, pytest.raises(Crash):
        crash_after(m, *((sft, "train_step") if stage == "sft" else (grpo.Learner, "step")), 3)
        trained(stage, cfg, base, str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"--lora\.rank 4, not 5"):
        trained(stage, settings(lora__rank=5), base, str(tmp_path / "b"), resume=True)
    model = trained(stage, cfg, base, str(tmp_path / "b"), resume=True)
    capsys.readouterr()
    again = GPT.from_pretrained(model).state_dict()
    assert all(torch.equal(x, again[k]) for k, x in whole.items())
    moved = {k for k, x in whole.items() if not torch.equal(x, weights[k])}
    model = adapted(GPT.from_pretrained(base))
    biases = {k for k in weights if k.endswith("correction_bias")}
    assert moved == merged_weights(model).keys() | biases  # nothing else has
    # a checkpoint holds what moves
    last = checkpoints(str(tmp_path / "b"))[-1]
    held = dcp.FileSystemReader(last).read_metadata().state_dict_metadata
    names = {k.removeprefix("model.") for k in held if k.startswith("model.")}
    assert names == {k for k, _ in model.named_parameters() if ".lora." in k} | biases
    assert not any(k.startswith("ref.") for k in held)
    # and a folder can be made of it and the base, but of no other
    flags = ["export", last, str(tmp_path / "out"), "--tokenizer"]
    status, _, err = run(monkeypatch, capsys, *flags, str(tmp_path / "a" / "model"))
    assert status == 2 and "is another model" in err and err.count("\n") == 1
    assert run(monkeypatch, capsys, *flags, base)[0] == 0
    out = GPT.from_pretrained(str(tmp_path / "out")).state_dict()
    assert all(torch.equal(x, out[k]) for k, x in whole.items())


def test_a_checkpoint_has_the_size_of_the_adapters(base, tmp_path):
    """Above what the format takes for each tensor: float32 weights and two moments."""
    sizes = []
    for rank in (1, 9, 0):
        out = tmp_path / str(rank)
        trained("sft", settings(lora__rank=rank, sft__epochs=1), base, str(out))
        last = checkpoints(str(out))[-1]
        sizes.append(sum(os.path.getsize(os.path.join(last, f)) for f in os.listdir(last)))
    numbers = memory.adapters_of(GPT.from_pretrained(base, device="meta"), 8)[0]
    assert sizes[1] - sizes[0] == pytest.approx(12 * numbers, rel=0.05)
    assert sizes[0] < 0.4 * sizes[2]


@pytest.mark.parametrize("rank", [1, 8])
def test_the_loss_falls(rank, base, tmp_path):
    cfg = settings(lora__rank=rank, sft__epochs=30, sft__save_every=500)
    trained("sft", cfg, base, str(tmp_path / "r"))
    with open(tmp_path / "r" / "metrics.jsonl") as f:
        losses = [json.loads(line)["loss"] for line in f]
    assert losses[-1] < 0.7 * losses[0]  # a random head, which stays, allows about 4 of 6.9


@pytest.mark.parametrize("stage", ["sft", "zero"])
def test_in_bfloat16_only_adapters_are_float32(stage, base, tmp_path, scored, monkeypatch):
    seen, real = [], lora.prepared

    def prepared(model, cfg):
        seen.append(real(model, cfg))
        return seen[-1]

    monkeypatch.setattr(lora, "prepared", prepared)
    cfg = settings(precision="bfloat16", grpo__steps=2, sft__epochs=1)
    with distributed.started(cfg):
        folder = trained(stage, cfg, base, str(tmp_path / "r"))
    for name, p in seen[0].named_parameters():
        assert p.dtype == (torch.float32 if ".lora." in name else torch.bfloat16)
    assert all(p.any() for p in lora.parameters(seen[0])[1::2])
    with open(tmp_path / "r" / "metrics.jsonl") as f:
        assert all(json.loads(line)["skipped_steps"] == 0 for line in f)
    saved = GPT.from_pretrained(folder, torch.bfloat16).state_dict()
    with lora.plain(seen[0]):
        assert all(torch.equal(x, saved[k]) for k, x in seen[0].state_dict().items())


# ------------------------------------------------------------------------------ what it asks for


def test_learning_rates_are_ten_times_those_of_all_weights(chat, monkeypatch):  # noqa: F811
    monkeypatch.setattr(inputs.GPT, "from_pretrained", lambda *_, **__: None)
    cfg, args = parsed(train_zero.Config, "--lora.rank", "8")
    found = inputs.suited(cfg, chat, args)
    assert (found.grpo.lr, found.sft.adam_lr) == pytest.approx((1e-4, 2e-4))
    cfg, args = parsed(train_zero.Config, "--lora.rank", "8", "--grpo.lr", "3e-6")
    assert inputs.suited(cfg, chat, args).grpo.lr == 3e-6


REFUSED = [
    ("train_zero", "--lora.rank 8", "is for a model that --init names"),
    ("sft", "--lora.rank 8", "is for a model that --init names"),
    ("train_zero", "--lora.rank 8 --init BASE --algorithm ppo", "has a critic"),
    ("train_r1", "--lora.rank 8 --init BASE --zero OUT", "reward models are trained whole"),
    (
        "train_zero",
        "--lora.rank 8 --init BASE --grpo.kl_beta 0.1 --grpo.ref_every 5",
        "add --grpo.ref_every 0",
    ),
    ("sft", "--lora.alpha 0", "it must be above 0"),
]


@pytest.mark.parametrize("script, words, message", REFUSED)
def test_what_cannot_be_is_refused(script, words, message, base, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "out")
    words = words.replace("BASE", base).replace("OUT", out).split()
    status, _, err = run(monkeypatch, capsys, script, *words, "--out", out)
    assert status == 2 and message in err and err.count("\n") == 1 and not os.path.exists(out)


def test_several_processes_are_refused(base, monkeypatch, capsys):
    monkeypatch.setattr(inputs.distributed, "world_size", lambda: 2)
    status, _, err = run(monkeypatch, capsys, "grpo", base, "--lora.rank", "8")
    assert status == 2 and "works in one process" in err and err.count("\n") == 1


def test_memory_of_a_billion_weights():
    """Frozen weights have neither gradients nor moments; rollouts hold the merged ones too."""
    model = GPT.empty(ModelConfig(**memory.SHAPES["qwen2.5-1.5b"]))
    total = sum(p.numel() for p in model.parameters())
    # 28 layers, rank 8: q and o 1536 to 1536, k and v to 256, three of 1536 to 8960
    adapters = 28 * 8 * (2 * 3072 + 2 * 1792 + 3 * (1536 + 8960))
    for precision, weight, each in (("float32", 4, 16), ("bfloat16", 2, 18)):
        parts = memory.training_memory(model, 1024, precision, rank=8)
        assert parts["weights and optimizer"] == total * weight + adapters * each
        whole = memory.training_memory(model, 1024, precision)
        assert parts["activations"] == whole["activations"]
        head = model.cfg.vocab_size * model.cfg.dim  # frozen, it has no gradient, here 8 bytes each
        assert whole["logits"] - parts["logits"] == 8 * head
        rollouts = [memory.rollout_memory(model, 4, 64, precision, rank=r) for r in (0, 8)]
        matrices = 28 * (2 * 1536 * 1536 + 2 * 1536 * 256 + 3 * 1536 * 8960)
        assert rollouts[1] - rollouts[0] == matrices * weight


def test_the_room_of_a_run(monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e15)
    cfg, told = config.make(train_zero.Config, "small"), []
    cfg.yes, cfg.grpo.kl_beta = True, 0.1
    for cfg.lora.rank in (0, 8):
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 1)
        told.append(capsys.readouterr().out)
    held = [float(line.split("optimizer ")[1].split(",")[0]) for line in told]
    assert held[1] < 0.2 * held[0]
