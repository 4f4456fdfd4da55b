"""Steps that the host does not look into: slots on the device, and CUDA graphs, played on CPUs."""

import contextlib
import warnings
import weakref
from dataclasses import replace

import pytest
import torch
from test_sample import DENSE, PROMPTS, Waits, plain, same
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib import engine
from model import GPT, ModelConfig
from sample import SamplingParams, generate

ASKED = [*PROMPTS, list(range(3, 33))]  # 1 to 30 tokens
PARAMS = SamplingParams(110, num_return_sequences=12)  # up to 140: the cache grows at 64 and 128


class Tape(TorchDispatchMode):
    """What a CUDA graph is: the operations of a step with the host's values as they were, between
    the same memory. Recording does not count as a step, and must not wait for the device."""

    replays = 0  # of all tapes

    def __init__(self, step):
        super().__init__()
        self.calls, (batch,) = [], step.args
        self.batch = weakref.ref(batch)
        out = step.func.__self__.out
        state = [*batch.tensors(), batch.cache.slot, batch.cache.valid]
        state += [*tree_leaves(batch.cache.layers), out.tokens, out.logprobs]
        state += [out.finished, out.lengths]
        before = [x.clone() for x in state]
        with self, Waits() as waits:
            step()
        assert waits.count == 0
        for x, old in zip(state, before):
            x.copy_(old)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        Tape.replays += 1
        assert self.batch()  # a graph does not keep the memory that it works on
        for func, args, kwargs, out in self.calls:
            new = func(*args, **kwargs)
            if not func._schema.is_mutable:
                for place, x in zip(tree_leaves(out), tree_leaves(new)):
                    place.copy_(x)

    @staticmethod
    def record(step, old):
        step()
        return Tape(step)


@pytest.fixture
def like_a_gpu(monkeypatch):
    monkeypatch.setitem(engine.STATIC, "cpu", True)
    monkeypatch.setitem(engine.ASK_EVERY, "cpu", 16)
    monkeypatch.setattr(Tape, "replays", 0)


def network(kind: str, tiny_model) -> GPT:
    """One that ends about every fiftieth token, so that rows end at different times."""
    model = tiny_model if kind == "experts, latents" else GPT(ModelConfig(**DENSE))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5 if p.dim() > 1 and kind == "experts, latents" else 1)
    model.cfg.eos_ids = tuple(range(5, model.cfg.vocab_size, 50))
    return model.eval()


@pytest.mark.parametrize("kind", ["experts, latents", "dense, grouped queries"])
@pytest.mark.parametrize("rows", [None, 20])
@pytest.mark.parametrize("graphs", [True, False])
def test_static_steps_equal_the_plain_loop(tiny_model, like_a_gpu, monkeypatch, kind, rows, graphs):
    """With compaction, continuous batching, growing caches, end tokens and responses cut off."""
    monkeypatch.setattr(engine, "GRAPHS", ["cpu"] if graphs else [])
    monkeypatch.setattr(engine, "record", Tape.record)
    model = network(kind, tiny_model)
    expected = plain(model, ASKED, PARAMS, seed=3)
    lengths = (expected.lengths - expected.prompt_lengths).tolist()
    assert 0 < expected.finished.sum() < len(lengths) and len(set(lengths)) > 15
    same(expected, generate(model, ASKED, replace(PARAMS, rows=rows), seed=3))
    assert (Tape.replays > 100) if graphs else Tape.replays == 0


def test_what_a_graph_cannot_hold_is_not_recorded(tiny_model, like_a_gpu, monkeypatch):
    """Recorded experts; and a few last tokens, for which it does not pay."""
    monkeypatch.setattr(engine, "GRAPHS", ["cpu"])
    monkeypatch.setattr(engine, "record", Tape.record)
    params = SamplingParams(30, num_return_sequences=4, record_routes=True)
    routes = generate(tiny_model, ASKED, params, seed=0).routes
    generate(tiny_model, ASKED, SamplingParams(engine.WORTH + 1), seed=0)
    assert routes is not None and Tape.replays == 0


@pytest.mark.parametrize("waits", [True, False])
def test_a_model_that_cannot_be_recorded_goes_on_without(
    tiny_model, like_a_gpu, monkeypatch, capsys, waits
):
    """An operation makes the host wait, or recording fails, after a part of the step. One line is
    printed, and no response changes."""

    @contextlib.contextmanager
    def broken(graph, pool, capture_error_mode):
        before = [x.clone() for x in batches[-1].tensors()]
        length = batches[-1].cache.length
        yield
        for x, old in zip(batches[-1].tensors(), before):  # nothing has run
            x.copy_(old)
        batches[-1].cache.slot -= batches[-1].cache.length - length
        raise RuntimeError("no such capture\nat all")

    def step(self, batch):
        batches.append(batch)
        if waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        real(self, batch)

    batches, real = [], engine.Engine.step
    monkeypatch.setattr(engine, "GRAPHS", ["cpu"])
    monkeypatch.setattr(engine.Engine, "step", step)
    told = dict(get_sync_debug_mode=lambda: 0, set_sync_debug_mode=lambda mode: None)
    told |= dict(CUDAGraph=object, graph=broken, current_stream=lambda: None)
    told |= dict(stream=lambda stream: contextlib.nullcontext())
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, value)
    engine.say_once.cache_clear()
    params = SamplingParams(30, num_return_sequences=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            out = generate(tiny_model, ASKED, params, seed=0)
    same(plain(tiny_model, ASKED, params, seed=0), out)
    why = "in this model the host must wait for the GPU" if waits else "no such capture"
    assert capsys.readouterr().out == f"decoding without CUDA graphs: {why}\n"
