"""The recipe end to end, on a model that trains in seconds; interrupted, killed and resumed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run, start_script

import config
import grpo
import sft
import tokenizer as tokenizers
import train_zero
from data import Problem
from lib.run import Run, checkpoints
from model import GPT

SMALL = """model.dim 32 model.n_layers 2 model.n_heads 2 model.hidden_dim 48 model.expert_dim 16
 model.n_experts 4 sft.tokens 30000 sft.tokens_per_step 3000 sft.save_every 3
 grpo.problems_per_step 4 grpo.group_size 4 grpo.max_new_tokens 16 grpo.save_every 2 grpo.steps 6
 eval.problems 4 eval.k 2 eval.max_new_tokens 16 rewards.language 1""".split()
SMALL = dict(zip(SMALL[::2], SMALL[1::2]))
FLAGS = [x for k, v in SMALL.items() for x in (f"--{k}", v)]


def small(**more):
    cfg = config.make(train_zero.Config)
    more = {k.replace("__", "."): v for k, v in more.items()}
    for key, value in (SMALL | more).items():
        config.set_key(cfg, key, value)
    config.check(cfg)
    return cfg


def weights(folder):
    return GPT.from_pretrained(str(folder)).state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def without_times(row):
    timing = ("time", "timing", "throughput")
    return {k: v for k, v in row.items() if not any(t in k for t in timing)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return sft.pretrain(small(), str(tmp_path_factory.mktemp("base")), False)


class StopAfter:
    """Ask the run to stop after n optimiser steps, as Ctrl-C would."""

    def __init__(self, monkeypatch, module, name, n):
        real, self.calls = getattr(module, name), 0

        def counted(*args, **kw):
            self.calls += 1
            if self.calls == n:
                os.kill(os.getpid(), signal.SIGINT)
            return real(*args, **kw)

        monkeypatch.setattr(module, name, counted)


def test_pretraining_stopped_and_resumed_is_bit_identical(base, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        StopAfter(m, sft, "train_step", 4)
        with pytest.raises(KeyboardInterrupt):
            sft.pretrain(small(), str(tmp_path), False)
    assert len(rows(tmp_path / "metrics.jsonl")) == 4  # the step in progress was ended, not lost
    assert same(weights(sft.pretrain(small(), str(tmp_path), True)), weights(base))


def test_pretraining_that_ended_before_its_export_makes_no_further_step(
    base, tmp_path, monkeypatch
):
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Run, "export", lambda *args: os.kill(os.getpid(), signal.SIGINT))
        sft.pretrain(small(tokenizer=base), str(tmp_path), False)
    steps = len(rows(tmp_path / "metrics.jsonl"))
    again = sft.pretrain(small(tokenizer=base), str(tmp_path), True)
    assert same(weights(again), weights(base))
    assert len(rows(tmp_path / "metrics.jsonl")) == steps


@pytest.mark.parametrize("kl, sync", [(0.0, 1), (0.05, 1), (0.0, 2)])
def test_zero_stopped_and_resumed_is_bit_identical(base, tmp_path, monkeypatch, kl, sync):
    cfg = small(grpo__kl_beta=kl, grpo__ref_every=2, grpo__sync_every=sync)
    straight = train_zero.train(cfg, base, str(tmp_path / "a"), False)
    with monkeypatch.context() as m:
        StopAfter(m, train_zero.grpo.Learner, "step", 3)
        with pytest.raises(KeyboardInterrupt):
            train_zero.train(cfg, base, str(tmp_path / "b"), False)
    again = train_zero.train(cfg, base, str(tmp_path / "b"), True)
    assert same(weights(straight), weights(again))
    a, b = (rows(tmp_path / x / "metrics.jsonl") for x in "ab")
    assert [without_times(r) for r in a] == [without_times(r) for r in b]


def test_killed_and_resumed_is_bit_identical(base, tmp_path):
    """kill -9 in the middle of a run of the script itself: the steps since the last checkpoint are
    done again."""
    command = ("train_zero.py", "--init", base, "--out", str(tmp_path / "b"), *FLAGS)
    process, deadline = start_script(*command, printed=os.devnull), time.time() + 120
    while not checkpoints(str(tmp_path / "b"), "zero"):
        assert process.is_alive() and time.time() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    printed = tmp_path / "printed"
    process = start_script(*command, "--resume", printed=printed)
    straight = train_zero.train(small(), base, str(tmp_path / "a"), False)
    process.join(timeout=240)
    assert process.exitcode == 0, printed.read_text()
    assert same(weights(straight), weights(tmp_path / "b" / "model"))
    assert [r["step"] for r in rows(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    made = "config.json metrics.jsonl samples.jsonl checkpoint model curves.png eval.json".split()
    assert set(made) <= set(os.listdir(tmp_path / "b"))


def test_a_run_is_never_overwritten_or_mixed_up(base, tmp_path):
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)
    with pytest.raises(ValueError, match="already holds a"):
        train_zero.train(small(), base, str(tmp_path), False)
    with pytest.raises(ValueError, match=r"--grpo\.lr 0\.0003, not 0\.1"):
        train_zero.train(small(grpo__lr=0.1), base, str(tmp_path), True)
    checkpoint = tmp_path / "checkpoint" / "zero-00000001" / "__0_0.distcp"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="damaged"):
        train_zero.train(small(grpo__steps=2), base, str(tmp_path), True)


def test_a_copied_run_goes_on_without_touching_the_original(base, tmp_path):
    train_zero.train(small(grpo__steps=2), base, str(tmp_path / "a"), False)
    before = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with open(tmp_path / "b" / "metrics.jsonl", "a") as f:
        f.write('{"torn')
    train_zero.train(small(grpo__steps=3), base, str(tmp_path / "b"), True)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before
    assert [r["step"] for r in rows(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3]


def test_killed_before_the_first_checkpoint(base, tmp_path, capsys):
    class Killed(BaseException):
        pass

    def killed(step, cfg, dataset):
        if step == 1:
            raise Killed
        return problems_of(step, cfg, dataset)

    problems_of = train_zero.problems_of
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train_zero, "problems_of", killed)
        train_zero.train(small(grpo__steps=2), base, str(tmp_path), False)
    train_zero.train(small(grpo__steps=2), base, str(tmp_path), True)
    assert "begins again" in capsys.readouterr().out
    assert [r["step"] for r in rows(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_run_that_lost_its_checkpoint_is_not_begun_again(base, tmp_path):
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)
    shutil.rmtree(tmp_path / "checkpoint")
    before = (tmp_path / "metrics.jsonl").read_text()
    for status in (True, False):  # as an earlier version left it
        with pytest.raises(ValueError, match="has lost its checkpoint of step 1: restore"):
            train_zero.train(small(grpo__steps=2), base, str(tmp_path), True)
        if status:
            os.remove(tmp_path / "status.json")
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_what_is_finished_is_not_written_over(base, tmp_path, capsys):
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)
    found = (
        weights(tmp_path / "model"),
        os.stat(tmp_path / "model" / "model.safetensors").st_mtime_ns,
    )
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), True)
    assert "is finished: its model is" in capsys.readouterr().out
    out = str(tmp_path)  # known before a base is made
    with pytest.raises(ValueError, match="already holds a finished run"):
        train_zero.recipe(small(), None, f"{out}/base", out, False)
    assert not os.path.exists(f"{out}/base")
    folder = os.path.dirname(base)  # a finished run of another stage
    with pytest.raises(ValueError, match="holds a run of the stage 'sft', not 'zero'"):
        train_zero.train(small(grpo__steps=1), base, folder, True)
    again = (
        weights(tmp_path / "model"),
        os.stat(tmp_path / "model" / "model.safetensors").st_mtime_ns,
    )
    assert same(found[0], again[0]) and found[1] == again[1]


def test_one_process_writes_in_a_folder(base, tmp_path):
    code = f"import time, lib.files; lib.files.lock({str(tmp_path)!r}); print(1, flush=True)"
    command = [sys.executable, "-c", f"{code}; time.sleep(60)"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    with pytest.raises(ValueError, match=f"process {other.pid} on .* is writing in"):
        train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)
    other.kill()
    other.wait()  # a crash leaves no lock behind
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)


def test_other_data_or_another_base_is_another_run(base, tmp_path):
    data = [Problem("1+1?", "2", "math"), Problem("1+2?", "3", "math")]
    train_zero.train(small(grpo__steps=1), base, str(tmp_path / "a"), False, data)
    with pytest.raises(ValueError, match="other problems"):
        train_zero.train(small(grpo__steps=2), base, str(tmp_path / "a"), True, data[:1])
    shorter = small(tokenizer=base, sft__tokens=3000)
    other = sft.pretrain(shorter, str(tmp_path / "other"), False)
    with pytest.raises(ValueError, match="--init"):
        train_zero.train(small(grpo__steps=2), other, str(tmp_path / "a"), True, data)
    with pytest.raises(ValueError, match="context of 1024"):
        long = Problem("x " * 3000, "1", "math")
        train_zero.train(small(), base, str(tmp_path / "c"), False, [long])


def test_samples_show_every_task(base, tmp_path):
    train_zero.train(small(grpo__steps=1), base, str(tmp_path), False)
    assert {r["task"] for r in rows(tmp_path / "samples.jsonl")} == {"arithmetic", "countdown"}


def test_each_step_takes_its_own_problems():
    cfg = small()
    first, second = (train_zero.problems_of(step, cfg, None) for step in (0, 1))
    assert [p.task for p in first] == ["arithmetic", "countdown"] * 2
    assert not {p.prompt for p in first} & {p.prompt for p in second}
    data = [Problem(str(i), "", "math") for i in range(6)]
    epoch = [p.prompt for s in range(3) for p in train_zero.problems_of(s, cfg, data)]
    assert sorted(epoch[:6]) == sorted(epoch[6:]) == list("012345") and epoch[:6] != epoch[6:]
    assert "".join(epoch) == "251340153240"


def test_a_data_set_is_shuffled_once_an_epoch(monkeypatch):
    """Three steps of four: two epochs of six."""
    shuffled, real = [], random.Random

    def counted(seed):
        shuffled.append(seed)
        return real(seed)

    monkeypatch.setattr(random, "Random", counted)
    cfg, data = small(seed=77), [Problem(str(i), "", "math") for i in range(6)]
    for step in range(3):
        train_zero.problems_of(step, cfg, data)
    assert shuffled == ["77 0", "77 1"]


MISTAKES = [
    ("train_zero --init nowhere --out OUT", "no model at 'nowhere'"),
    ("train_zero --data none.jsonl", "cannot read 'none.jsonl'"),
    ("eval nowhere", "no model at 'nowhere'"),
    ("sample nowhere hi", "no model at 'nowhere'"),
    ("sample BASE BLANK", "prompt is empty"),
    ("sample BASE LONG", "leaves no room"),
    ("grpo nowhere", "no model at"),
    ("sft --init BASE", "needs both"),
    ("eval BASE --task chess", "chess"),
    ("train_zero --device tpu --out OUT", "--device is tpu"),
    ("train_zero --world.tasks logic --out OUT", "which the base would never read about"),
    ("train_zero --tokenizer nonsense --out OUT", "'nonsense' is neither a model folder nor"),
    ("train_zero --init BASE --model.dim 64 --out OUT", "--model.dim is 32 in the model that"),
    ("train_zero --data= --out OUT", "argument --data: that is no name of a file or folder"),
    ("train_r1 --zero BASE --out OUT", "is no run folder of train_zero.py: correct --zero"),
    ("distill --data x.jsonl --teacher BASE", "--data takes the place of --teacher"),
    ("sample BASE hi --top-p nan", "argument --top-p: it is nan; it must be a finite number"),
    ("grpo BASE --steps 0", "argument --steps: it is 0; it must be at least 1"),
    ("data --count -3", "argument --count: it is -3; it must be at least 1"),
    ("preference nowhere", "no model at 'nowhere'"),
]


@pytest.mark.parametrize("words, message", MISTAKES)
def test_mistakes_on_the_command_line(base, tmp_path, words, message, monkeypatch, capsys):
    meant = {"BASE": base, "OUT": str(tmp_path / "o"), "BLANK": " ", "LONG": "Tom " * 3000}
    status, _, err = run(monkeypatch, capsys, *(meant.get(w, w) for w in words.split()))
    assert status == 2 and message in err and err.count("\n") == 1 and len(err) <= 201
    assert not os.listdir(tmp_path)


def test_every_script_explains_itself(monkeypatch, capsys):
    scripts = [path for path in Path(ROOT).glob("*.py") if "(__doc__" in path.read_text()]
    assert len(scripts) >= 12
    for script in (path.stem for path in scripts):
        status, out, _ = run(monkeypatch, capsys, script, "--help")
        assert status == 0 and f"python {script}.py" in out, script


def test_sample_streams_thinking_apart_from_the_answer(base, tmp_path, monkeypatch, capsys):
    tokenizer = tokenizers.load(base)
    model = GPT.from_pretrained(base)
    example = tokenizer.example("hi", "<think>买 it</think><answer>7</answer>")
    cfg = sft.SFTConfig(epochs=150, tokens_per_step=50)
    with Run(str(tmp_path / "run"), {}, False, "sft") as log:
        sft.fine_tune(model, [example] * 8, cfg, 0, log)
    model.save_pretrained(str(tmp_path))
    tokenizer.save(str(tmp_path))
    capsys.readouterr()
    told = [str(tmp_path), "hi", "--temperature", "0"]
    assert run(monkeypatch, capsys, "sample", *told)[1] == "thinking: 买 it\nanswer: 7\n"
    assert run(monkeypatch, capsys, "sample", *told, "--hide-thinking")[1] == "answer: 7\n"


def test_a_broken_advantage_shows_its_traceback(base, tmp_path, monkeypatch, capsys):
    """What a student sees who breaks group_advantages: the error itself, with its place."""

    def broken(rewards, group_size):
        one, _two = rewards[:3]
        return one

    monkeypatch.setitem(grpo.ALGORITHMS, "grpo", grpo.Algorithm(advantages=broken))
    kept = [w for k, v in SMALL.items() if not k.startswith("model") for w in (f"--{k}", v)]
    words = ["--init", base, "--out", str(tmp_path / "r"), *kept]
    with pytest.raises(ValueError, match="too many values to unpack"):
        run(monkeypatch, capsys, "train_zero", *words)
