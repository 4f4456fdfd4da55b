"""Several processes against one: the same numbers, whoever computes them."""

import copy
import json
import os
import socket

import pytest
import torch
from conftest import start_script

import config
import sft
from lib import distributed
from lib.run import checkpoints
from model import GPT
from reward_model import RewardModel

NAMES = ("sft-moe", "sft-dense", "grpo-moe", "grpo-dense")
NAMES += ("grpo-more-moe", "grpo-ppo-moe", "grpo-dapo-dense")
CUT = ("sft-cut-moe", "sft-cut-dense", "grpo-cut-moe", "grpo-cut-dense")
IN_BFLOAT16 = ("sft-moe", "grpo-ppo-dense")  # the critic never uses its head for tokens
HOST = "127.0.0.1"


def start(processes: int, out, *names: str) -> list:
    """Start together.py in so many processes, as torchrun would; returns them."""
    out.mkdir(exist_ok=True)
    with socket.socket() as s:
        s.bind((HOST, 0))
        port = s.getsockname()[1]
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    size |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(port)}
    started, several = [], processes > 1
    for r in range(processes):
        env = size | {"RANK": str(r), "LOCAL_RANK": str(r)} if several else {}
        told = dict(printed=out / f"printed-{r}", env=env, fresh=several)
        started.append(start_script("tests/together.py", str(out), *names, **told))
    return started


def finish(started: list, out, status: int = 0) -> list[str]:
    """Wait for what start() returned; returns the processes' stderr."""
    try:
        for process in started:
            process.join(timeout=400)
    finally:
        for process in started:
            process.kill()  # if one hangs
    printed = [(out / f"printed-{r}").read_text() for r in range(len(started))]
    assert all(process.exitcode == status for process in started), printed
    return printed


def together(processes: int, out, *names: str) -> None:
    """Run together.py in so many processes."""
    finish(start(processes, out, *names), out)


def begin(tmp_path_factory) -> dict[object, tuple]:
    """How many processes -> (they, their folder): what is computed beside the other tests."""
    names = {1: NAMES + CUT, 2: NAMES, 3: ("fail",), 4: NAMES + CUT}
    folders = {n: tmp_path_factory.mktemp(f"processes{n}") for n in names}
    started = {n: (start(n, out, *names[n]), out) for n, out in folders.items()}
    for n in (1, 2):
        out = tmp_path_factory.mktemp(f"processes{n}-bfloat16")
        started[f"bfloat16 {n}"] = start(n, out, "bfloat16", *IN_BFLOAT16), out
    return started


@pytest.mark.parametrize("processes,names", [(1, CUT), (2, NAMES), (4, NAMES + CUT)])
def test_processes_and_micro_batches_do_not_matter(begun, processes, names):
    """The same responses, losses, gradient norms and expert loads in each of five steps, and the
    same weights after them."""
    for n in {1, processes}:
        finish(*begun[n])
    alone, out = begun[1][1], begun[processes][1]
    for name in names:
        pair = alone / name.replace("-cut", ""), out / name
        one, many = (json.loads(path.with_suffix(".json").read_text()) for path in pair)
        for a, b in zip(one, many, strict=True):
            assert a.pop("drawn", None) == b.pop("drawn", None), name
            assert a == pytest.approx(b, abs=1e-5), name
        assert name.startswith("sft") or max(step["grad_norm"] for step in one) > 0.1
        one, many = (torch.load(path.with_suffix(".pt")) for path in pair)
        assert one.keys() == many.keys()
        for key in one:
            assert (one[key] - many[key]).abs().max() < 1e-5, (name, key)


def test_processes_do_not_matter_in_bfloat16(begun):
    """Fine-tuning's steps, and the first one of PPO, whose drawn tokens then part by rounding."""
    for n in (1, 2):
        finish(*begun[f"bfloat16 {n}"])
    for name, steps in zip(IN_BFLOAT16, (5, 1)):
        paths = (begun[f"bfloat16 {n}"][1] / f"{name}.json" for n in (1, 2))
        one, two = (json.loads(path.read_text())[:steps] for path in paths)
        for a, b in zip(one, two, strict=True):
            assert a.pop("drawn", None) == b.pop("drawn", None)
            for key in ("loss", "grad_norm"):
                assert a[key] == pytest.approx(b[key], rel=5e-3) and a[key] != 0


def test_an_error_of_one_process_is_printed_once(begun):
    first, *others = finish(*begun[3], status=2)
    assert first == "together.py: the disk is full\n"
    # the library may warn of the lost connection
    assert not any("Traceback" in printed or "disk" in printed for printed in others), others


def weights(folder) -> dict[str, torch.Tensor]:
    return GPT.from_pretrained(os.path.join(folder, "model")).state_dict()


def test_a_run_resumes_with_more_or_fewer_processes(known_tokenizer, tmp_path):
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
    model = distributed.shard(model, model.layers, cfg)
    assert len(generate(model, [[5, 6, 7], [8]] * 16, params, seed=0).tokens) == 512
"""


def test_many_rows_of_a_sharded_model_without_torchrun(tmp_path):
    (tmp_path / "many.py").write_text(MANY)
    finish([start_script(tmp_path / "many.py", printed=tmp_path / "printed-0")], tmp_path)


def test_a_copy_of_a_recomputed_model_has_weights_of_its_own(tiny_model):
    for block in tiny_model.layers:
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
    with pytest.raises(ValueError, match="--device is 'tpu'; use auto, cpu, cuda or mps"):
        distributed.device("tpu")
    assert distributed.device("cpu") == torch.device("cpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="--device mps: this machine has no usable GPU"):
            distributed.device("mps")


def test_a_gpu_has_a_number_without_torchrun_too(monkeypatch):
    """set_device refuses one without, so that a single process in bfloat16 would end at once."""
    chosen = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert distributed.device("auto") == distributed.device("cuda") == torch.device("cuda:0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    cfg = config.make(config.Config)
    cfg.precision = "bfloat16"
    with distributed.started(cfg):
        assert chosen == [torch.device("cuda:0")] and chosen[0].index == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.device("cuda") == torch.device("cuda:1")
