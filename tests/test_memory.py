"""What a model costs: published figures, and what a run that cannot fit is told."""

import contextlib
import os
import re
from dataclasses import replace

import pytest
import torch
from conftest import run

import config
import stages
import train_zero
from data import Problem, World, WorldConfig
from grpo import Learner
from lib import memory
from lib.errors import UserError
from lib.run import check_settings
from model import GPT, ModelConfig


def report(name: str) -> dict:
    return memory.cost_report(GPT.empty(ModelConfig(**memory.SHAPES[name])))


@pytest.mark.parametrize(
    "name,total,active",
    [
        ("deepseek-v3", 671_026_404_352, 37.55e9),
        ("qwen2.5-0.5b", 494_032_768, 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304, 1_543_714_304),
        ("llama-3.2-1b", 1_235_814_400, 1_235_814_400),
    ],
)
def test_published_parameter_counts(name, total, active):
    assert report(name)["total parameters"] == total
    assert report(name)["active parameters"] == pytest.approx(active, rel=0.02)


def test_cost_report_of_deepseek_v3_cache():
    figures = report("deepseek-v3")
    assert figures["cache bytes a token"] == 61 * (512 + 64) * 2
    assert figures["the same with plain multi-head"] == 61 * 128 * (192 + 128) * 2


def test_the_report_on_the_command_line(monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "model", "--config", "deepseek-v3")
    assert status == 0 and "61 layers, width 7168, attention mla, 256 experts" in out
    assert re.search(r"total parameters +671,026,404,352  671B\n", out)


def test_what_cannot_fit_is_refused_with_need_have_and_fix(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 2.0 * 2**30)
    big = ("--config", "big", "--precision", "float32", "--out", str(tmp_path / "r"))
    status, out, err = run(monkeypatch, capsys, "train_zero", *big)
    refusal = "GiB of memory a process, and there are 2.0: use more GPUs (torchrun"
    assert status == 2 and refusal in err and err.count("\n") == 1
    assert "parameters" in out and "hours" in out and not os.path.exists(tmp_path / "r")
    narrow = ("--model.dim", "64", "--model.n_layers", "2", "--model.vocab_size", "512")
    status, _, err = run(monkeypatch, capsys, "train_zero", *big, *narrow)
    assert status == 2 and "lower --grpo." in err


def test_rollouts_of_fewer_rows_at_once_need_less_memory_and_say_the_same(
    tiny_model, world_tokenizer, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    cfg = config.make(train_zero.Config, "small")
    cfg.yes, cfg.eval.rows, cfg.precision = True, 1, "float32"
    for rows in (0, 128, 10**6):
        cfg.grpo.rows = rows
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 1)
    needs = [float(n) for n in re.findall(r"rollouts ([0-9.]+)", capsys.readouterr().out)]
    assert needs[0] == needs[2] > 3 * needs[1]  # 1024 responses, or 128 of them

    problems = World(0, WorldConfig()).problems("arithmetic", 6)
    tiny_model.cfg.eos_ids = tuple(range(0, tiny_model.cfg.vocab_size, 12))

    def rollout(rows: int):
        settings = replace(cfg.grpo, group_size=4, max_new_tokens=12, rows=rows)
        learner = Learner(tiny_model, world_tokenizer, replace(cfg, grpo=settings))
        return learner.rollout(problems, 0)

    whole, parts = rollout(0), rollout(5)
    assert torch.equal(whole.tokens, parts.tokens) and torch.equal(whole.lengths, parts.lengths)
    check_settings({"grpo": {"rows": 0}}, {"grpo": {"rows": 5}}, "r")  # may change in a run


def test_the_hours_are_those_of_the_work_that_is_planned(monkeypatch, capsys):
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e9)
    cfg, hours = config.make(train_zero.Config, "small"), []
    cfg.yes = True
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    for learnt, steps, asked in ((10**9, 0, 0), (2 * 10**9, 0, 0), (0, 100, 0), (0, 100, 10**6)):
        memory.check_room(cfg, GPT.empty(cfg.model), learnt, steps, asked)
        found = re.search(r"up to ([\d,.]+) hours", capsys.readouterr().out)
        hours.append(float(found[1].replace(",", "")))
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.1) and 0 < hours[2] < hours[3]
    cfg.grpo.kl_beta, cfg.recompute, passes = 0.0, False, []
    for cfg.precision, cfg.grpo.kl_beta, cfg.recompute in (
        ("float32", 0.0, False),
        ("float32", 0.1, False),
        ("float32", 0.1, True),
        ("bfloat16", 0.1, True),
    ):  # 4 forward passes for a token: 1 to sample it, 3 to learn it; and one more each time
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 100)
        found = re.search(r"up to ([\d,.]+) hours", capsys.readouterr().out)
        passes.append(float(found[1].replace(",", "")))
    assert [h / passes[0] for h in passes] == pytest.approx([1, 5 / 4, 6 / 4, 7 / 4], rel=0.05)


def test_a_critic_doubles_weights_and_training(monkeypatch, capsys):
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e9)
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    cfg, found = config.make(train_zero.Config, "small"), []
    cfg.yes = True
    for networks in (1, 2):
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 1, networks=networks)
        out = capsys.readouterr().out.replace(",", "")
        numbers = re.search(r"optimizer ([\d.]+).*up to ([\d.]+) hours", out).groups()
        found.append([float(x) for x in numbers])
    assert found[1] == pytest.approx([2 * x for x in found[0]], rel=0.05)


def test_a_reference_takes_the_memory_of_its_own_weights(monkeypatch, capsys):
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e9)
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    teacher = GPT.empty(config.make(train_zero.Config, "big").model)
    monkeypatch.setattr(GPT, "from_pretrained", lambda folder, device: teacher)
    cfg, found = config.make(train_zero.Config, "small"), []
    cfg.yes = True
    for beta, reference in ((0.0, ""), (1.0, "teacher")):
        cfg.grpo.kl_beta, cfg.grpo.reference = beta, reference
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 1)
        found.append(float(re.search(r"optimizer ([\d.]+)", capsys.readouterr().out)[1]))
    cfg.lora.rank = 4  # whose own reference costs nothing
    for cfg.grpo.reference in ("", "teacher"):
        memory.check_room(cfg, GPT.empty(cfg.model), 0, 1)
        found.append(float(re.search(r"optimizer ([\d.]+)", capsys.readouterr().out)[1]))
    assert found[3] - found[2] == pytest.approx(found[1] - found[0], abs=0.11)
    numbers = sum(p.numel() for p in teacher.parameters())
    assert found[1] - found[0] == pytest.approx(6 * numbers / 2**30, abs=0.1)  # bfloat16: 4 + 2


def test_longer_prompts_need_more_memory(monkeypatch, capsys):
    """A chunk of them beside a micro-batch of responses, each with a copy of its prompt's cache."""
    model = GPT.empty(ModelConfig())
    plain, read, both = (
        memory.training_memory(model, 4096, read=n, group_size=g)["activations"]
        for n, g in ((0, 0), (4096, 0), (4096, 16))
    )
    copies = 4096 * 16 * model.cfg.n_layers * 48 * 4  # 48 numbers a token and layer, in float32
    assert read == 2 * plain and both - read == copies

    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e12)
    cfg, needs = config.make(train_zero.Config, "small"), []
    cfg.yes = True
    for words in (0, 200, 2000, 20_000):  # of five bytes each: three bytes count as a token
        problems = [Problem("Tom ", "", "math"), Problem("have " * words, "", "math")]
        stages.check_room(cfg, None, 0, 1, problems=problems)
        found = re.search(r"training ([0-9.]+)", capsys.readouterr().out)
        needs.append(float(found[1]))
    # 256 and 333 tokens; then as much as the budget of a chunk and the model's context allow
    assert needs[0] < needs[1] < needs[2] <= needs[3] < 4 * needs[0]


def test_work_of_days_is_begun_only_if_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e12)
    out = str(tmp_path / "r")
    status, _, err = run(monkeypatch, capsys, "train_zero", "--config", "small", "--out", out)
    assert status == 2 and re.search(r"takes up to [\d,]+ hours .* --yes", err)
    assert err.count("\n") == 1 and not os.path.exists(out)
    assert not torch.distributed.is_initialized()
    cfg = config.make(train_zero.Config, "small")
    for sure in (False, True):
        cfg.yes = sure
        with contextlib.nullcontext() if sure else pytest.raises(UserError):
            memory.check_room(cfg, GPT.empty(cfg.model), 10**9, 100)


def test_memory_that_others_use_is_not_there(tmp_path, monkeypatch):
    told = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4 kB\n"}
    told |= {f"/sys/fs/cgroup/memory.{k}": v for k, v in (("max", "3000"), ("current", "1000"))}
    told["/sys/fs/cgroup/memory.stat"] = "anon 7\ninactive_file 500\n"
    monkeypatch.setattr(memory, "read_text", lambda path: told[path])
    assert memory.free_memory() == 2500  # what files take is given back
    told["/sys/fs/cgroup/memory.max"] = "max"
    assert memory.free_memory() == 4096


def test_an_older_sampler_takes_the_memory_of_its_weights(monkeypatch, capsys):
    monkeypatch.setattr(memory, "matrix_speed", lambda cfg: 1e9)
    monkeypatch.setattr(memory, "available_memory", lambda cfg: 1e15)
    cfg, found = config.make(train_zero.Config, "small"), []
    cfg.yes, model = True, GPT.empty(cfg.model)
    gib = sum(p.numel() for p in model.parameters()) / 2**30
    cases = [("float32", 0, 4), ("bfloat16", 0, 6), ("float32", 8, 4), ("bfloat16", 8, 2)]
    for cfg.precision, cfg.lora.rank, size in cases:
        for cfg.grpo.sync_every in (1, 4):
            memory.check_room(cfg, model, 0, 1)
            found.append(float(re.search(r"optimizer ([\d.]+)", capsys.readouterr().out)[1]))
        assert found[-1] - found[-2] == pytest.approx(size * gib, abs=0.11)
    cfg.precision, cfg.lora.rank, cfg.grpo.sync_every, found = "bfloat16", 0, 1, []
    for added in (None, 0.0):  # general requests, which two reward models judge
        stages.check_room(cfg, None, 0, 1, added=added)
        found.append(float(re.search(r"optimizer ([\d.]+)", capsys.readouterr().out)[1]))
    assert found[1] - found[0] == pytest.approx(2 * 2 * gib, abs=0.11)
