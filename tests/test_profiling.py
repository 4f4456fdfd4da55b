import contextlib
import doctest
import json
import time

import pytest
import torch

import config
import profiling
from model import GPT, ModelConfig


def test_doctests():
    assert doctest.testmod(profiling, extraglobs={"torch": torch}).failed == 0


def test_a_phase_outside_a_profile_is_nothing():
    assert isinstance(profiling.phase("decode"), contextlib.nullcontext)


def test_time_belongs_to_the_innermost_phase():
    def one(number: int) -> int:
        with profiling.phase("decode"):
            time.sleep(0.02)
            with profiling.phase("prefill"):
                time.sleep(0.04)
        return 7

    p = profiling.Profile(torch.device("cpu"), count=False)
    assert p.run(range(3), one) == 21
    assert p.spent["decode"][0] == pytest.approx(0.06, rel=0.5) and p.spent["prefill"][0] == pytest.approx(0.12, rel=0.5)
    assert sum(s[0] for s in p.spent.values()) == pytest.approx(p.inner[0][0])
    assert profiling._taken is None


@pytest.mark.parametrize("shape", [{}, {"attention": "gqa", "n_experts": 0}], ids=["moe", "dense"])
def test_operations_of_a_training_step_by_hand(shape):
    """Two for each weight a token meets, four more backward; and the scores and sums of attention, whole squares."""
    cfg = ModelConfig(vocab_size=64, n_layers=2, **shape)
    model, B, T = GPT(cfg), 3, 16

    def one(number: int) -> int:
        with profiling.phase("forward"):
            loss = model(torch.randint(0, 64, (B, T))).sum()
        with profiling.phase("backward"):
            loss.backward()
        return B * T

    p = profiling.Profile(torch.device("cpu"), count=True)
    p.run(range(1), one)
    attn = cfg.dim * cfg.n_heads * 32 + cfg.dim * 48 + 32 * cfg.n_heads * 48 + cfg.n_heads * 32 * cfg.dim  # queries; latent; keys and values of it; output
    if cfg.attention == "gqa":
        attn = 4 * cfg.dim * cfg.dim
    dense = 3 * cfg.dim * cfg.hidden_dim
    second = 3 * cfg.dim * cfg.expert_dim * (cfg.n_experts_per_token + 1) + cfg.dim * cfg.n_experts if cfg.n_experts else dense
    weights = 2 * attn + dense + second + cfg.vocab_size * cfg.dim
    scores = 2 * B * cfg.n_heads * T * T * (2 * 32 if cfg.attention == "gqa" else 32 + 32)  # both layers: queries with keys, weights with values
    assert p.spent["forward"][1] == pytest.approx(2 * B * T * weights + scores * 2, rel=1e-6)
    assert p.spent["backward"][1] == pytest.approx(2 * p.spent["forward"][1], rel=0.1)  # flash attention computes its scores again


def test_traffic_is_what_operators_touch():
    x = torch.zeros(4, 8)
    with profiling.Traffic() as traffic:
        x.t()  # a view moves nothing
        x + x  # reads twice, writes once
    assert traffic.bytes == 3 * 4 * 8 * 4


def test_a_whole_profile(tmp_path, capsys):
    cfg = config.make("tiny")
    x = torch.randn(64, 64)

    def one(number: int) -> int:
        with profiling.phase("decode"):
            x @ x
        return 10

    found = profiling.take(cfg, 2, one, str(tmp_path / "trace.json"))
    assert set(found["phases"]) == {"decode", "the rest", "step"} and found["tokens"] == 10
    step = found["phases"]["step"]
    assert step["seconds"] == pytest.approx(sum(p["seconds"] for name, p in found["phases"].items() if name != "step"))
    assert found["phases"]["decode"]["flops_s"] == pytest.approx(2 * 64**3 / found["phases"]["decode"]["seconds"])
    assert any(e.get("name") == "aten::mm" for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"])
    profiling.save(found, cfg, "python grpo.py --profile", str(tmp_path / "p.json"))
    assert json.loads((tmp_path / "p.json").read_text())["phases"] == found["phases"] and "| decode |" in capsys.readouterr().out
