"""Several processes against one: the same numbers, whoever computes them."""

import copy
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import config
import sft
from lib import distributed
from lib.run import checkpoints
from model import GPT
from reward_model import RewardModel

NAMES = ("sft-moe", "sft-dense", "grpo-moe", "grpo-dense")
NAMES += ("grpo-more-moe", "grpo-ppo-moe", "grpo-dapo-dense")
CUT = ("sft-cut-moe", "sft-cut-dense", "grpo-cut-moe", "grpo-cut-dense")
HOST = "127.0.0.1"


def together(processes: int, out, *names: str, status: int = 0) -> list[str]:
    """Run together.py in so many processes, as torchrun would; returns their stderr."""
    out.mkdir(exist_ok=True)
    with socket.socket() as s:
        s.bind((HOST, 0))
        port = s.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
    if processes > 1:
        size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        shared |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(port)} | size
    command = [sys.executable, os.path.join(ROOT, "tests", "together.py"), str(out), *names]
    started = []
    for r in range(processes):
        rank = {"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {}
        env = os.environ | shared | rank
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env))
    try:
        printed = [process.communicate(timeout=400)[1] for process in started]
    finally:
        for process in started:
            process.kill()  # if another one hangs
    assert all(process.returncode == status for process in started), printed
    return printed


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    together(1, out, *NAMES)
    return out


@pytest.mark.parametrize("processes,names", [(1, CUT), (2, NAMES), (4, NAMES + CUT)])
def test_processes_and_micro_batches_do_not_matter(alone, tmp_path, processes, names):
    """The same responses, losses, gradient norms and expert loads in each of five steps, and the
    same weights after them."""
    together(processes, tmp_path, *names)
    for name in names:
        pair = alone / name.replace("-cut", ""), tmp_path / name
        one, many = (json.loads(path.with_suffix(".json").read_text()) for path in pair)
        for a, b in zip(one, many, strict=True):
            assert a.pop("drawn", None) == b.pop("drawn", None), name
            assert a == pytest.approx(b, abs=1e-5), name
        assert name.startswith("sft") or max(step["grad_norm"] for step in one) > 0.1
        one, many = (torch.load(path.with_suffix(".pt")) for path in pair)
        assert one.keys() == many.keys()
        for key in one:
            assert (one[key] - many[key]).abs().max() < 1e-5, (name, key)


def test_an_error_of_one_process_is_printed_once(tmp_path):
    first, *others = together(3, tmp_path, "fail", status=2)
    assert first == "together.py: the disk is full\n"
    # the library may warn of the lost connection
    assert not any("Traceback" in printed or "disk" in printed for printed in others), others


def weights(folder) -> dict[str, torch.Tensor]:
    return GPT.from_pretrained(os.path.join(folder, "model")).state_dict()


def test_a_run_resumes_with_more_or_fewer_processes(tmp_path):
    cfg = config.make(sft.Config)
    shape = dict(dim=32, n_layers=2, n_heads=2, hidden_dim=48, expert_dim=16, n_experts=4)
    values = {f"model.{k}": v for k, v in shape.items()}
    for key, value in (values | {"sft.tokens": 3000, "sft.tokens_per_step": 3000}).items():
        config.set_key(cfg, key, value)
    base = sft.pretrain(cfg, str(tmp_path / "base"), False)
    runs = {name: str(tmp_path / name) for name in ("straight", "from 2 to 1", "from 1 to 2")}
    names = {name: f"run:{base}:{folder}" for name, folder in runs.items()}
    judges = [str(tmp_path / name) for name in ("judge1", "judge2")]
    first, second = names["from 1 to 2"], names["from 2 to 1"]
    together(1, tmp_path, f"{names['straight']}:0", f"{first}:3", f"judge:{base}:{judges[0]}")
    together(2, tmp_path, f"{second}:3", f"{first}:0", f"judge:{base}:{judges[1]}")
    together(1, tmp_path, f"{second}:0")
    straight, start = weights(runs["straight"]), GPT.from_pretrained(base).state_dict()
    assert max((straight[k] - start[k]).abs().max() for k in start) > 1e-4
    for name in ("from 2 to 1", "from 1 to 2"):
        model = weights(runs[name])
        assert max((straight[k] - model[k]).abs().max() for k in straight) < 1e-5
        with open(os.path.join(runs[name], "metrics.jsonl")) as f:
            assert [json.loads(line)["step"] for line in f] == [1, 2, 3, 4, 5, 6]
        saved = [os.path.basename(c) for c in checkpoints(runs[name])]
        assert saved == ["zero-00000004", "zero-00000006"]
    models = [RewardModel.from_pretrained(os.path.join(f, "model"), "cpu") for f in judges]
    one, two = (model.state_dict() for model in models)
    assert one["head.weight"].abs().max() > 1e-3
    assert max((one[k] - two[k]).abs().max() for k in one) < 1e-5


MANY = """
import torch; torch.set_num_threads(2)
import config
from lib import distributed
from model import GPT, ModelConfig
from sample import SamplingParams, generate
cfg = config.make(config.Config)
cfg.device, cfg.precision = "cpu", "bfloat16"
shape = dict(vocab_size=64, dim=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=24)
params = SamplingParams(num_return_sequences=16, max_new_tokens=12)
with distributed.started(cfg):
    model = GPT(ModelConfig(**shape, n_experts=0, attention="gqa"))
    model = distributed.shard(model, model.blocks(), cfg)
    print(len(generate(model, [[5, 6, 7], [8]] * 16, params, seed=0).tokens))
"""


def test_many_rows_of_a_sharded_model_without_torchrun():
    command = [sys.executable, "-c", MANY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split()[-1:] == ["512"], done.stderr


def test_a_copy_of_a_recomputed_model_has_weights_of_its_own(tiny_model):
    for block in tiny_model.blocks():
        distributed.recompute_activations(block)
    tokens, other = torch.tensor([[5, 6, 7]]), copy.deepcopy(tiny_model)
    before = tiny_model(tokens)
    assert torch.equal(other(tokens), before)
    with torch.no_grad():
        for p in other.layers.parameters():
            p.zero_()
    assert torch.equal(tiny_model(tokens), before)
    assert not torch.equal(other(tokens), before)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="--device is 'tpu'; use auto, cpu or cuda"):
        distributed.device("tpu")
    assert distributed.device("cpu") == torch.device("cpu")
