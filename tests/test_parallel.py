"""Several processes against one, what may befall a run's files, and what recipes keep beside their stages.

The run folder's everyday life is tested with the recipe, in test_train_zero.py; kills at random moments in check_faults.py.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from conftest import run as script
from test_train_zero import small

import config
import grpo
import parallel
import preference
import sft
from data import World, WorldConfig
from model import GPT

NAMES = ("sft-moe", "sft-dense", "grpo-moe", "grpo-dense", "grpo-more-moe", "grpo-ppo-moe", "grpo-dapo-dense")
CUT = ("sft-cut-moe", "sft-cut-dense", "grpo-cut-moe", "grpo-cut-dense")


def together(processes: int, out, *names: str, status: int = 0) -> list[str]:
    """Run together.py in so many processes, as torchrun would; what each has said on stderr."""
    out.mkdir(exist_ok=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1]), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    started = [subprocess.Popen([sys.executable, os.path.join(ROOT, "tests", "together.py"), str(out), *names], stderr=subprocess.PIPE, text=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT} | (where | {"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {}))
               for r in range(processes)]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert all(process.returncode == status for process in started), said
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    together(1, out, *NAMES)
    return out


@pytest.mark.parametrize("processes,names", [(1, CUT), (2, NAMES), (4, NAMES + CUT)])
def test_processes_and_micro_batches_do_not_matter(alone, tmp_path, processes, names):
    """The same responses, losses, gradient norms and expert loads in each of five steps, and the same weights after them."""
    together(processes, tmp_path, *names)
    for name in names:
        pair = alone / name.replace("-cut", ""), tmp_path / name
        one, many = (json.loads(path.with_suffix(".json").read_text()) for path in pair)
        for a, b in zip(one, many, strict=True):
            assert a.pop("drawn", None) == b.pop("drawn", None) and a == pytest.approx(b, abs=1e-5), name
        assert name.startswith("sft") or max(step["grad_norm"] for step in one) > 0.1
        one, many = (torch.load(path.with_suffix(".pt")) for path in pair)
        assert one.keys() == many.keys()
        for key in one:
            assert (one[key] - many[key]).abs().max() < 1e-5, (name, key)


def test_what_befalls_one_process_is_said_once(tmp_path):
    first, *others = together(3, tmp_path, "fail", status=2)
    assert first == "together.py: the disk is full\n"
    assert not any("Traceback" in said or "disk" in said for said in others), others  # the library may warn of the lost connection


def test_a_run_goes_on_with_more_or_fewer_processes(tmp_path):
    base = sft.pretrain(small(sft__tokens=3000), str(tmp_path / "base"), False)
    runs = {name: str(tmp_path / name) for name in ("straight", "from 2 to 1", "from 1 to 2")}
    together(1, tmp_path, *(f"run:{base}:{runs[name]}:{stop}" for name, stop in (("straight", 0), ("from 1 to 2", 3))), f"judge:{base}:{tmp_path}/judge1")
    together(2, tmp_path, f"run:{base}:{runs['from 2 to 1']}:3", f"run:{base}:{runs['from 1 to 2']}:0", f"judge:{base}:{tmp_path}/judge2")
    together(1, tmp_path, f"run:{base}:{runs['from 2 to 1']}:0")
    straight = GPT.from_pretrained(os.path.join(runs["straight"], "model")).state_dict()
    start = GPT.from_pretrained(base).state_dict()
    assert max((straight[k] - start[k]).abs().max() for k in start) > 1e-4
    for name in ("from 2 to 1", "from 1 to 2"):
        model = GPT.from_pretrained(os.path.join(runs[name], "model")).state_dict()
        assert max((straight[k] - model[k]).abs().max() for k in straight) < 1e-5
        with open(os.path.join(runs[name], "metrics.jsonl")) as f:
            assert [json.loads(line)["step"] for line in f] == [1, 2, 3, 4, 5, 6]
        assert [os.path.basename(c) for c in parallel.checkpoints(runs[name])] == ["zero-00000004", "zero-00000006"]
    one, two = (preference.RewardModel.from_pretrained(str(tmp_path / name / "model"), "cpu").state_dict() for name in ("judge1", "judge2"))
    assert one["head.weight"].abs().max() > 1e-3 and max((one[k] - two[k]).abs().max() for k in one) < 1e-5


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A run with the checkpoints of steps 2 and 3, and what it was made of."""
    optimizers = sft.make_optimizers(tiny_model, sft.SFTConfig())
    run = parallel.Run(str(tmp_path / "run"), {"lr": 1}, False, "sft")
    for step in (1, 2, 3):
        sft.train_step(tiny_model.train(), optimizers, [[([5, 6, 7, 8, 9], 2)]], 1.0, sft.SFTConfig())
        run.log(step=step)
        run.save(step, {"model": tiny_model}, optimizers, step=step)
    assert [os.path.basename(c) for c in parallel.checkpoints(run.folder)] == ["sft-00000002", "sft-00000003"]
    return run, tiny_model, optimizers


def test_a_full_disk_leaves_the_checkpoints_as_they_were(saved, world_tokenizer):
    run, model, optimizers = saved
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (10, 20_000):  # not a file at all; not the whole of one
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
        try:
            with pytest.raises(ValueError, match=r"File too large.*sft-00000003, which is untouched"):
                run.save(4, {"model": model}, optimizers, step=4)
            with pytest.raises(ValueError, match="sft-00000003, which is untouched"):
                run.export(model, world_tokenizer)
            with pytest.raises(OSError, match=r"cannot write '.*model.safetensors' \(.*File too large.*\): see that"):
                model.save_pretrained(run.folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    again = parallel.Run(run.folder, {"lr": 1}, True, "sft")
    again.restore({"model": model}, optimizers)
    assert again.state["step"] == 3
    again.save(4, {"model": model}, optimizers, step=4)
    assert parallel.Run(run.folder, {"lr": 1}, True, "sft").state["step"] == 4


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "progress.json"])
@pytest.mark.parametrize("altered", [True, False])
def test_a_damaged_checkpoint_is_named_and_so_is_the_one_before(saved, name, altered):
    run = saved[0]
    path = os.path.join(parallel.checkpoints(run.folder)[-1], name)
    with open(path, "rb") as f:
        content = f.read()
    middle = len(content) // 2
    with open(path, "wb") as f:
        f.write(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if altered else content[:middle])
    with pytest.raises(ValueError, match=r"sft-00000003 is damaged.*remove it to go on from .*sft-00000002"):
        parallel.Run(run.folder, {"lr": 1}, True, "sft")
    shutil.rmtree(os.path.dirname(path))
    assert parallel.Run(run.folder, {"lr": 1}, True, "sft").state["step"] == 2
    with open(run.metrics_path) as f:
        assert [json.loads(line)["step"] for line in f] == [1, 2]


def test_a_vanished_folder_and_other_settings(saved):
    run, model, optimizers = saved
    with pytest.raises(ValueError, match="--lr 1, not 2"):
        parallel.Run(run.folder, {"lr": 2}, True, "sft")
    shutil.rmtree(run.folder)
    for write in (lambda: run.log(step=4), lambda: run.save(4, {"model": model}, optimizers, step=4)):
        with pytest.raises(ValueError, match="vanished"):
            write()


def test_a_checkpoint_becomes_a_model_folder(saved, world_tokenizer, tmp_path, monkeypatch, capsys):
    run, model, _ = saved
    world_tokenizer.save(str(tmp_path / "tokenizer"))
    status, _, _ = script(monkeypatch, capsys, "checkpoint", parallel.checkpoints(run.folder)[-1], str(tmp_path / "out"), "--tokenizer", str(tmp_path / "tokenizer"))
    again = GPT.from_pretrained(str(tmp_path / "out"))
    assert status == 0 and all(torch.equal(x, again.state_dict()[k]) for k, x in model.state_dict().items())
    status, _, err = script(monkeypatch, capsys, "checkpoint", str(tmp_path / "none"), str(tmp_path / "out"), "--tokenizer", str(tmp_path / "tokenizer"))
    assert status == 2 and "there is no checkpoint" in err and err.count("\n") == 1
    with pytest.raises(ValueError, match="another kind of model"):
        parallel.load(parallel.checkpoints(run.folder)[-1], {"model.gpt.norm.weight": torch.zeros(1)})


def test_steps_that_are_not_finite_are_skipped_and_too_many_end_the_run(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    real, calls = sft.loss_sum, []
    examples, cfg = [([5, 6, 7, 8, 9, 10 + i], 2) for i in range(16)], sft.SFTConfig(epochs=12, tokens_per_step=1000, save_every=2)

    def broken(*args):
        calls.append(len(calls) + 1)
        loss, plain = real(*args)
        return (loss * float("nan"), plain) if calls[-1] in (3, 8, 9, 10) else (loss, plain)

    monkeypatch.setattr(sft, "loss_sum", broken)
    with pytest.raises(ValueError, match=r"not finite in 3 steps in a row.*last good checkpoint"), parallel.Run(str(tmp_path), {}, False, "sft") as run:
        sft.fine_tune(tiny_model, examples, cfg, 0, run)
    with open(run.metrics_path) as f:
        assert [json.loads(line)["skipped_steps"] for line in f] == [0, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    assert all(x.isfinite().all() for x in tiny_model.state_dict().values())
    assert parallel.Run(str(tmp_path), {}, True, "sft").state["step"] == 8


def test_what_cannot_fit_is_refused_with_need_have_and_mend(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "memory", lambda cfg: 2.0 * 2**30)
    status, out, err = script(monkeypatch, capsys, "train_zero", "--config", "big", "--precision", "float32", "--out", str(tmp_path / "r"))
    assert status == 2 and "GiB of memory a process, and there are 2.0: use more GPUs (torchrun" in err and err.count("\n") == 1
    assert "parameters" in out and "hours" in out and not os.path.exists(tmp_path / "r")
    status, _, err = script(monkeypatch, capsys, "train_zero", "--config", "big", "--precision", "float32", "--model.dim", "64", "--model.n_layers", "2", "--model.vocab_size",
                            "512", "--out", str(tmp_path / "r"))
    assert status == 2 and "lower --grpo." in err


def test_rollouts_of_fewer_rows_at_once_need_less_memory_and_say_the_same(tiny_model, world_tokenizer, capsys):
    cfg = config.make()
    cfg.eval.rows = 1
    for rows in (0, 128, 10**6):
        cfg.grpo.rows = rows
        grpo.check_room(cfg, cfg.model, 0, 1)
    needs = [float(n) for n in re.findall(r"rollouts ([0-9.]+)", capsys.readouterr().out)]
    assert needs[0] == needs[2] > 3 * needs[1]  # 512 responses, or 128 of them
    own, problems = replace(cfg.grpo, group_size=4, max_new_tokens=12), World(0, WorldConfig()).problems("arithmetic", 6)
    tiny_model.cfg.eos_ids = tuple(range(0, tiny_model.cfg.vocab_size, 12))
    whole, parts = (grpo.rollout(tiny_model, world_tokenizer, problems, replace(own, rows=rows), 0) for rows in (0, 5))
    assert torch.equal(whole.tokens, parts.tokens) and torch.equal(whole.lengths, parts.lengths)
    assert not parallel._differences({"grpo": {"rows": 0}}, {"grpo": {"rows": 5}})  # a run may go on with other ones


MANY = """
import torch; torch.set_num_threads(2)
import config, parallel
from model import GPT, ModelConfig
from sample import generate
cfg = config.make()
cfg.device, cfg.precision = "cpu", "bfloat16"
with parallel.started(cfg):
    model = GPT(ModelConfig(vocab_size=64, dim=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=24, n_experts=0, attention="gqa"))
    model = parallel.shard(model, model.blocks(), cfg)
    print(len(generate(model, [[5, 6, 7], [8]] * 16, num_generations=16, max_new_tokens=12, seed=0).tokens))
"""


def test_many_rows_of_a_sharded_model_without_torchrun():
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split()[-1:] == ["512"], done.stderr


def test_the_hours_are_those_of_the_work_that_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "matrix_speed", lambda cfg: 1e9)
    hours = []
    for learnt, steps, asked in ((10**9, 0, 0), (2 * 10**9, 0, 0), (0, 100, 0), (0, 100, 10**6)):
        grpo.check_room(config.make(), config.make().model, learnt, steps, asked)
        hours.append(float(re.search(r"up to ([\d,.]+) hours", capsys.readouterr().out)[1].replace(",", "")))
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.1) and 0 < hours[2] < hours[3]


def test_a_folder_is_claimed_by_its_settings(tmp_path):
    out = str(tmp_path / "r")
    parallel.claim(out, {"seed": 0, "world": {"level": 1}})
    parallel.claim(out, {"seed": 0, "world": {"level": 1}, "rows": 5})  # what comes later is added
    parallel.claim(out, {"seed": 0})
    with pytest.raises(ValueError, match=r"--world\.level 1, not 2"):
        parallel.claim(out, {"seed": 0, "world": {"level": 2}})
    with pytest.raises(ValueError, match="--rows 5, not 6"):
        parallel.claim(out, {"rows": 6})


def test_stopwatches_add_up_and_are_set_back(tmp_path, monkeypatch):
    out, clock = str(tmp_path), iter((0, 60, 100, 220, 300, 330))
    monkeypatch.setattr(parallel.time, "time", lambda: next(clock))
    with parallel.stopwatch(out, "a"):
        pass
    with pytest.raises(KeyboardInterrupt), parallel.stopwatch(out, "a"):
        raise KeyboardInterrupt
    with parallel.stopwatch(out, "b"):
        pass
    assert parallel.minutes(out) == {"a": 3.0, "b": 0.5}
    parallel.forget(out, ["a"])
    assert parallel.minutes(out) == {"b": 0.5}


def test_a_stop_after_the_last_step_is_not_forgotten(tmp_path):
    with pytest.raises(KeyboardInterrupt), parallel.Run(str(tmp_path), {}, False, "x"):
        os.kill(os.getpid(), signal.SIGINT)
    with parallel.Run(str(tmp_path), {}, True, "x"):
        pass
