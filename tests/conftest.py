import importlib
import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: two threads take twice as long
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "bench")]  # some of what bench/ measures with is tested

SHARED_DATA = os.path.join(ROOT, "..", "shared", "data")  # benchmark files, if they are there
SMALL = dict(dim=32, n_layers=2, n_heads=2, hidden_dim=48, expert_dim=16, n_experts=4)
SMALL |= dict(kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)


def pytest_configure(config):
    quiet = "ignore:torch.distributed is disabled"  # a single process needs none
    config.addinivalue_line("filterwarnings", quiet)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def world_tokenizer():
    import tokenizer
    from data import World, WorldConfig

    world = World(0, WorldConfig())
    return tokenizer.train((p + r for p, r in (world.text(i) for i in range(2000))), 1024)


@pytest.fixture
def tiny_model(world_tokenizer):
    """A small model for the world's tokenizer, its weights so large that every path matters."""
    from model import GPT, ModelConfig

    t = world_tokenizer
    ids = dict(vocab_size=t.vocab_size, pad_id=t.pad_id, eos_ids=(t.eos_id,))
    model = GPT(ModelConfig(**SMALL, **ids))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)
    return model


def token_logprobs(model, tokens, temperature=1.0, mask=None, positions=None):
    """log p [B, T] of each token given those before it, written out; 0 at the first, and where mask
    is 0."""
    logp = (model(tokens, positions=positions)[:, :-1] / temperature).log_softmax(-1)
    out = torch.nn.functional.pad(logp.gather(2, tokens[:, 1:, None])[..., 0], (1, 0))
    return out if mask is None else out.masked_fill(~mask.bool(), 0.0)


def run(monkeypatch, capsys, script, *argv):
    """(status, stdout, stderr) of a script's main(); script: a module's name."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *argv])
    try:
        importlib.import_module(script).main()
        status = 0
    except SystemExit as e:
        status = e.code or 0
    return (status, *capsys.readouterr())
