import contextlib
import doctest
import json
import re
import time

import profile_grpo
import pytest
import torch

import config
from lib import profiling
from model import GPT, ModelConfig


def test_doctests():
    assert doctest.testmod(profile_grpo, extraglobs={"torch": torch}).failed == 0


def test_a_phase_outside_a_profile_is_nothing():
    assert isinstance(profiling.phase("decode"), contextlib.nullcontext)


def test_time_belongs_to_the_innermost_phase():
    def one(number: int) -> int:
        with profiling.phase("decode"):
            time.sleep(0.02)
            with profiling.phase("prefill"):
                time.sleep(0.04)
        return 7

    p = profile_grpo.Profile(torch.device("cpu"), count=False)
    assert p.run(range(3), one) == 21
    assert p.spent["decode"][0] == pytest.approx(0.06, rel=0.5)
    assert p.spent["prefill"][0] == pytest.approx(0.12, rel=0.5)
    assert sum(s[0] for s in p.spent.values()) == pytest.approx(p.inner[0][0])
    assert profiling.active is None


@pytest.mark.parametrize("shape", [{}, {"attention": "gqa", "n_experts": 0}], ids=["moe", "dense"])
def test_operations_of_a_training_step_by_hand(shape):
    """Two for each weight a token meets, four more backward; and the scores and sums of attention,
    whole squares."""
    cfg = ModelConfig(vocab_size=64, n_layers=2, **shape)
    model, B, T, H, D = GPT(cfg), 3, 16, cfg.n_heads, cfg.dim

    def one(number: int) -> int:
        with profiling.phase("forward"):
            loss = model(torch.randint(0, 64, (B, T))).sum()
        with profiling.phase("backward"):
            loss.backward()
        return B * T

    p = profile_grpo.Profile(torch.device("cpu"), count=True)
    p.run(range(1), one)
    # queries; latent; keys and values of it; output
    attention = D * H * 32 + D * 48 + 32 * H * 48 + H * 32 * D
    if cfg.attention == "gqa":
        attention = 4 * D * D
    dense = second = 3 * D * cfg.hidden_dim
    if cfg.n_experts:
        second = 3 * D * cfg.expert_dim * (cfg.n_experts_per_token + 1) + D * cfg.n_experts
    weights = 2 * attention + dense + second + cfg.vocab_size * D
    # in each of both layers: queries with keys, weights with values
    scores = 2 * B * H * T * T * (2 * 32 if cfg.attention == "gqa" else 32 + 32)
    assert p.spent["forward"][1] == pytest.approx(2 * B * T * weights + scores * 2, rel=1e-6)
    # flash attention computes its scores again
    assert p.spent["backward"][1] == pytest.approx(2 * p.spent["forward"][1], rel=0.1)


def test_traffic_is_what_operators_touch():
    x = torch.zeros(4, 8)
    with profile_grpo.Traffic() as traffic:
        x.t()  # a view moves nothing
        x + x  # reads twice, writes once
    assert traffic.bytes == 3 * 4 * 8 * 4


def test_a_whole_profile(tmp_path, capsys):
    cfg = config.make(config.Config)
    x = torch.randn(64, 64)

    def one(number: int) -> int:
        with profiling.phase("decode"):
            x @ x
        return 10

    found = profile_grpo.take(cfg, 2, one, str(tmp_path / "trace.json"))
    phases = found["phases"]
    assert set(phases) == {"decode", "the rest", "step"} and found["tokens"] == 10
    parts = sum(p["seconds"] for name, p in phases.items() if name != "step")
    assert phases["step"]["seconds"] == pytest.approx(parts)
    decode = phases["decode"]
    assert decode["flops_s"] == pytest.approx(2 * 64**3 / decode["seconds"])
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(e.get("name") == "aten::mm" for e in events)
    profile_grpo.save(found, cfg, "python bench/profile_grpo.py", str(tmp_path / "p.json"))
    assert json.loads((tmp_path / "p.json").read_text())["phases"] == phases
    assert re.search(r"\| decode +\|", capsys.readouterr().out)
