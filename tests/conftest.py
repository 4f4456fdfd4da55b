import importlib
import multiprocessing
import os
import runpy
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: two threads take twice as long
# else each process measures which library multiplies faster, and two may decide differently
os.environ.setdefault("CPU_PRODUCTS", "mkl")
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "bench")]  # some of what bench/ measures with is tested

SHARED_DATA = os.path.join(ROOT, "..", "shared", "data")  # benchmark files, if they are there
SMALL = dict(dim=32, n_layers=2, n_heads=2, hidden_dim=48, expert_dim=16, n_experts=4)
SMALL |= dict(kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)

# Processes are started by one that no test changes and that has loaded torch, which takes seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp"])
TOKENIZERS = {}  # of known_tokenizer
# the last compares what processes compute beside the other tests; the one before it starts some,
# which beside those takes a minute
LATE = ("test_ahead.py", "test_distributed.py")


def pytest_configure(config):
    quiet = "ignore:torch.distributed is disabled"  # a single process needs none
    config.addinivalue_line("filterwarnings", quiet)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LATE.index(item.path.name) if item.path.name in LATE else -1)


@pytest.fixture(scope="session", autouse=True)
def begun(request, tmp_path_factory):
    """Before the first test: what the last file begins, if any of its tests is to be run."""
    last = (item.module for item in request.session.items if item.path.name == LATE[-1])
    module = next(last, None)
    yield module and module.begin(tmp_path_factory)
    for process in multiprocessing.active_children():
        process.kill()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """Sets how many threads torch has; undone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world_tokenizer():
    import tokenizer
    from data import World, WorldConfig

    world = World(0, WorldConfig())
    return tokenizer.train((p + r for p, r in (world.text(i) for i in range(2000))), 1024)


@pytest.fixture
def known_tokenizer(monkeypatch):
    """For tests of whole recipes: the same tokenizer is trained once for all of them."""
    import sft

    real = sft.corpus_tokenizer

    def corpus_tokenizer(cfg):
        key = repr((cfg.seed, cfg.tokenizer, cfg.world, cfg.model.vocab_size))
        if key not in TOKENIZERS:
            TOKENIZERS[key] = real(cfg)
        return TOKENIZERS[key]

    monkeypatch.setattr(sft, "corpus_tokenizer", corpus_tokenizer)


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


def start_script(path, *argv, printed, env=None, fresh=False):
    """Start a script in a process of its own, as `python path argv` would. The result has join(),
    kill() and exitcode. printed: the file for what it writes to stderr. fresh: with an interpreter
    of its own, so that sets have another order; slower."""
    told = (os.path.join(ROOT, path), list(argv), str(printed), env or {}, fresh)
    process = FORKS.Process(target=_run_script, args=told, daemon=True)
    process.start()
    return process


def _run_script(path, argv, printed, env, fresh):
    os.chdir(ROOT)
    os.environ.update(env | {"PYTHONPATH": ROOT})
    with open(printed, "w") as err, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(err.fileno(), 2)
    if fresh:
        os.execv(sys.executable, [sys.executable, path, *argv])
    sys.argv = [path, *argv]
    runpy.run_path(path, run_name="__main__")
