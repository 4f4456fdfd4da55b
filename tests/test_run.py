"""What may happen to a run's folder. Its everyday life is tested with the recipe, in
test_train_zero.py; kills at random moments in check_faults.py."""

import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import sys
import time
import weakref

import pytest
import torch
from conftest import FORKS
from conftest import run as script

import sft
import tokenizer as tokenizers
from lib import start
from lib.errors import UserError
from lib.files import load_json
from lib.run import (
    Journal,
    Run,
    check_folder,
    check_settings,
    checkpoints,
    finished,
    load_checkpoint,
    lock_settings,
    resumable,
    run_status,
)
from model import GPT

WRITING = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
READ = os.O_RDONLY | os.O_CLOEXEC
left = [0]  # operations on files before a crash, counted down; 0: none is wanted


class Crash(BaseException):
    """The process ends here, as by kill -9."""


def crash(event, args):
    if left[0] and event in WRITING and not (event == "open" and args[2] in (READ, None)):
        left[0] -= 1
        if not left[0]:
            raise Crash


sys.addaudithook(crash)


def lines(path, key):
    """One key of each line of a JSONL file."""
    with open(path) as f:
        return [json.loads(line)[key] for line in f]


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A run with the checkpoints of steps 2 and 3, its model and its optimisers."""
    trainer = sft.make_trainer(tiny_model.train(), sft.SFTConfig())
    run = Run(str(tmp_path / "run"), {"lr": 1}, False, "sft")
    for step in (1, 2, 3):
        sft.train_step(trainer, [[([5, 6, 7, 8, 9], 2)]], 1.0, sft.SFTConfig())
        run.log(step=step)
        run.save(step, {"model": tiny_model}, trainer.optimizers, step=step)
    names = [os.path.basename(c) for c in checkpoints(run.folder)]
    assert names == ["sft-00000002", "sft-00000003"]
    return run, tiny_model, trainer.optimizers


def resumed(run, settings=None):
    return Run(run.folder, settings or {"lr": 1}, True, "sft")


def test_a_full_disk_leaves_the_checkpoints_as_they_were(saved, world_tokenizer):
    run, model, optimizers = saved
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    untouched = "sft-00000003, which is untouched"
    for most in (10, 20_000):  # not a file at all; not the whole of one
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
        try:
            with pytest.raises(ValueError, match=rf"File too large.*{untouched}"):
                run.save(4, {"model": model}, optimizers, step=4)
            with pytest.raises(ValueError, match=untouched):
                run.export(model, world_tokenizer)
            message = r"cannot write '.*model.safetensors' \(File too large\): see that"
            with pytest.raises(OSError, match=message):
                model.save_pretrained(run.folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert "unfinished" not in " ".join(map(str, os.walk(run.folder)))  # it takes up room
    again = resumed(run)
    again.restore({"model": model}, optimizers)
    assert again.state["step"] == 3
    again.save(4, {"model": model}, optimizers, step=4)
    assert resumed(run).state["step"] == 4


def test_a_crash_before_any_operation_on_a_file_loses_nothing(saved, world_tokenizer, tmp_path):
    """Every third operation of a resume that makes one step, its checkpoint, and the model that
    replaces an earlier one: the next resume ends as if nothing had happened."""
    run, model, optimizers = saved
    run.export(model, world_tokenizer)
    whole, number, crashed = sorted(os.listdir(run.folder)), 1, True
    while crashed:
        folder, crashed = str(tmp_path / str(number)), False
        shutil.copytree(run.folder, folder)
        left[0] = number
        try:
            go_on(folder, model, optimizers, world_tokenizer)
        except (Crash, UserError):  # UserError: torch's writer takes it for a fault of the disk
            crashed = True
        left[0] = 0
        kept = [name for name in ("model", "model-before") if os.path.isdir(f"{folder}/{name}")]
        GPT.from_pretrained(f"{folder}/{kept[0]}")
        go_on(folder, model, optimizers, world_tokenizer)
        assert sorted(os.listdir(folder)) == whole and run_status(folder)["finished"]
        assert [int(c[-8:]) for c in checkpoints(folder)][-2:] == [3, 4]
        assert lines(f"{folder}/metrics.jsonl", "step") == [1, 2, 3, 4]
        number += 3
    assert number > 45


def go_on(folder, model, optimizers, tokenizer):
    """Resume a run, up to step 4."""
    run = Run(folder, {"lr": 1}, True, "sft")
    assert run.state["step"] in (3, 4)
    if run.state["step"] == 3:
        run.log(step=4)
        run.save(4, {"model": model}, optimizers, step=4)
    run.export(model, tokenizer)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "progress.json"])
@pytest.mark.parametrize("altered", [True, False])
def test_a_damaged_checkpoint_is_named_and_so_is_the_one_before(saved, name, altered):
    run = saved[0]
    path = os.path.join(checkpoints(run.folder)[-1], name)
    with open(path, "rb") as f:
        content = bytearray(f.read())
    middle = len(content) // 2
    content[middle] ^= 1
    with open(path, "wb") as f:
        f.write(content if altered else content[:middle])
    message = r"sft-00000003 is damaged.*remove it to go on from .*sft-00000002"
    with pytest.raises(ValueError, match=message):
        resumed(run)
    shutil.rmtree(os.path.dirname(path))
    assert resumed(run).state["step"] == 2
    assert lines(run.metrics_path, "step") == [1, 2]


def test_a_vanished_folder_and_other_settings(saved):
    run, model, optimizers = saved
    with pytest.raises(ValueError, match="--lr 1, not 2"):
        resumed(run, {"lr": 2})
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        Run(run.folder, {"lr": 1}, False, "sft")
    shutil.rmtree(run.folder)
    for write in (
        lambda: run.log(step=4),
        lambda: run.save(4, {"model": model}, optimizers, step=4),
    ):
        with pytest.raises(ValueError, match="vanished"):
            write()


def test_a_checkpoint_becomes_a_model_folder(saved, world_tokenizer, tmp_path, monkeypatch, capsys):
    run, model, _ = saved
    world_tokenizer.save(str(tmp_path / "tokenizer"))
    texts = (str(n) for n in range(10_000))  # of another tokenizer, which is larger
    tokenizers.train(texts, 3000).save(str(tmp_path / "other"))
    out, last = str(tmp_path / "out"), checkpoints(run.folder)[-1]

    def export(checkpoint, tokenizer="tokenizer"):
        flags = ("--tokenizer", str(tmp_path / tokenizer))
        return script(monkeypatch, capsys, "export", checkpoint, out, *flags)

    assert export(last)[0] == 0
    again = GPT.from_pretrained(out)
    assert again.cfg == model.cfg
    assert all(torch.equal(x, again.state_dict()[k]) for k, x in model.state_dict().items())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "tokenizer" / name).read_text()
    status, _, err = export(last)  # what is there already stays
    assert status == 2 and "is not empty: name a new folder" in err
    shutil.rmtree(out)
    for checkpoint, tokenizer, message in (
        (str(tmp_path / "none"), "tokenizer", "there is no checkpoint"),
        (last, "none", "is neither a model folder nor a tiktoken encoding"),
        (last, "other", "is not the run's tokenizer: name its base"),
        (run.folder, "tokenizer", "name a folder in the run's checkpoint/"),
    ):
        status, _, err = export(checkpoint, tokenizer)
        assert status == 2 and message in err and err.count("\n") == 1
    with pytest.raises(ValueError, match="another kind of model"):
        load_checkpoint(last, {"model.gpt.norm.weight": torch.zeros(1)})


def test_steps_that_are_not_finite_are_skipped_and_too_many_end_the_run(
    tiny_model, tmp_path, monkeypatch, threads
):
    threads(1)  # a call a step, whatever OMP_NUM_THREADS says
    real, calls = sft.loss_sum, []
    examples = [([5, 6, 7, 8, 9, 10 + i], 2) for i in range(16)]
    cfg = sft.SFTConfig(epochs=12, tokens_per_step=1000, save_every=2)

    def broken(*args):
        calls.append(len(calls) + 1)
        return real(*args) * (float("nan") if calls[-1] in (3, 8, 9, 10) else 1)

    monkeypatch.setattr(sft, "loss_sum", broken)
    message = r"not finite in 3 steps in a row.*last good checkpoint"
    with pytest.raises(ValueError, match=message), Run(str(tmp_path), {}, False, "sft") as run:
        sft.fine_tune(tiny_model, examples, cfg, 0, run)
    assert lines(run.metrics_path, "skipped_steps") == [0, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    assert all(x.isfinite().all() for x in tiny_model.state_dict().values())
    assert Run(str(tmp_path), {}, True, "sft").state["step"] == 8


def test_weights_that_are_not_finite_end_the_run(tmp_path):
    """Their responses are all alike, so no update is tried that could be skipped."""
    run = Run(str(tmp_path), {}, False, "zero")
    run.log(step=1, entropy=float("nan"), skipped_steps=0)
    run.log(step=2, entropy=0.3, skipped_steps=0)
    for step in (3, 4):
        run.log(step=step, entropy=float("nan"), skipped_steps=0)
    with pytest.raises(ValueError, match="not finite in 3 steps in a row"):
        run.log(step=5, entropy=float("nan"), skipped_steps=0)


def test_a_run_that_was_stopped_while_it_began_begins_again(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("lib.run.report.provenance", stopped)
        Run(str(tmp_path), {"lr": 1}, False, "zero")
    assert os.path.exists(tmp_path / "config.json") and not os.path.exists(tmp_path / "status.json")
    assert Run(str(tmp_path), {"lr": 1}, True, "zero").state == {}


def test_a_run_beyond_its_last_step_keeps_its_model(saved):
    """A run of 2 steps, lengthened and stopped at 3, is no finished run of 2 steps."""
    run, model, optimizers = saved
    with pytest.raises(ValueError, match="is at step 3, beyond 2: resume with 3 steps or more"):
        list(resumed(run).steps(range(2), {"model": model}, optimizers, 1, "x"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_steps_continue_with_their_state_where_a_stop_ended_them(tmp_path, number, capfd):
    """A signal in step 3 of 7: that step ends and is saved; the others are the resumed run's."""
    models = {"model": torch.nn.Linear(1, 1)}
    models["model"].cfg = type("Shape", (), {})()
    done = []

    def train(resume):
        with Run(str(tmp_path), {}, resume, "x") as run:
            for i, batch in run.steps("abcdefg", models, [], 2, "letters", {"n": "count"}):
                done.append(batch)
                run.state["seen"] = run.state.get("seen", "") + batch
                run.log(step=i + 1, count=i)
                if batch == "c" and not resume:
                    os.kill(os.getpid(), number)
                    assert "this step is finished and saved first" in capfd.readouterr().err
        return run

    with pytest.raises(KeyboardInterrupt):
        train(False)
    assert done == ["a", "b", "c"]
    run = train(True)
    assert "".join(done) == "abcdefg" and run.state == {"step": 7, "seen": "abcdefg"}
    assert lines(run.metrics_path, "step") == [1, 2, 3, 4, 5, 6, 7]
    names = [os.path.basename(c) for c in checkpoints(run.folder)]
    assert names == ["x-00000006", "x-00000007"]
    train(True)  # nothing is left to do
    assert "".join(done) == "abcdefg"


def test_a_folder_is_locked_to_its_settings(tmp_path):
    out = str(tmp_path / "r")
    lock_settings(out, {"seed": 0, "world": {"level": 1}})
    lock_settings(out, {"seed": 0, "world": {"level": 1}, "rows": 5})  # later ones are added
    lock_settings(out, {"seed": 0})
    with pytest.raises(ValueError, match=r"--world\.level 1, not 2"):
        lock_settings(out, {"seed": 0, "world": {"level": 2}})
    with pytest.raises(ValueError, match="was started with other texts: use the same, or name"):
        lock_settings(out, {"rows": 6})
    for damage in (b"", b"\xff", b"3"):
        (tmp_path / "r" / "settings.json").write_bytes(damage)
        with pytest.raises(ValueError, match=r"settings.json' is missing or damaged: restore"):
            lock_settings(out, {"rows": 5})


def test_what_a_machine_holds_at_once_may_change():
    check_settings({"grpo": {"rows": 0}}, {"grpo": {"rows": 5}}, "r")
    with pytest.raises(ValueError, match=r"--grpo\.lr 1, not 2: use the same settings"):
        check_settings({"grpo": {"lr": 1}}, {"grpo": {"lr": 2}}, "r")


def test_a_run_has_ended_when_its_model_is_complete(tmp_path):
    run = Run(str(tmp_path), {"lr": 1}, False, "x")
    assert finished(run.folder, {"lr": 1}, "x") is None
    os.makedirs(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    assert finished(run.folder, {"lr": 1}, "x") is None  # its end was never reached
    run.set_status(finished=True)
    assert finished(run.folder, {"lr": 1}, "x") == str(tmp_path / "model")
    with pytest.raises(ValueError, match="--lr 1, not 2"):
        finished(run.folder, {"lr": 2}, "x")


def test_a_run_goes_on_with_the_library_of_products_that_it_began_with(tmp_path, monkeypatch):
    """The libraries round otherwise, and which is faster is measured anew in each process."""
    monkeypatch.setenv("CPU_PRODUCTS", "onednn")
    Run(str(tmp_path), {}, False, "x")
    assert load_json(tmp_path / "status.json")["products"] == "onednn"
    monkeypatch.delenv("CPU_PRODUCTS")
    Run(str(tmp_path), {}, True, "x")
    assert os.environ["CPU_PRODUCTS"] == "onednn"
    monkeypatch.setenv("CPU_PRODUCTS", "mkl")  # who says so decides
    Run(str(tmp_path), {}, True, "x")
    assert load_json(tmp_path / "status.json")["products"] == "mkl"


def test_a_stop_after_the_last_step_is_not_forgotten(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run(str(tmp_path), {}, False, "x"):
        os.kill(os.getpid(), signal.SIGINT)
    with Run(str(tmp_path), {}, True, "x"):
        pass


def stop_twice(folder, first, second):
    with contextlib.suppress(KeyboardInterrupt), Run(folder, {}, False, "x"):
        for number in (first, second):
            os.kill(os.getpid(), number)
        time.sleep(60 if signal.SIGINT in (first, second) else 0)


@pytest.mark.parametrize("names,status", [("INT INT", 130), ("INT TERM", 130), ("TERM TERM", 0)])
def test_a_second_ctrl_c_stops_at_once_and_a_second_sigterm_does_not(tmp_path, names, status):
    """A scheduler's signal arrives twice, from itself and from torchrun; a second Ctrl-C torchrun
    passes on as SIGTERM."""
    numbers = [getattr(signal, f"SIG{name}") for name in names.split()]
    process = FORKS.Process(target=stop_twice, args=(str(tmp_path), *numbers))
    process.start()
    process.join(30)
    assert process.exitcode == status


def test_a_run_begins_without_what_an_earlier_one_left(tmp_path):
    """FSDP's reference cycles would keep its model until the collector comes by."""
    left = torch.nn.Module()
    left.itself, ref = left, weakref.ref(left)
    gc.disable()
    del left
    Run(str(tmp_path), {}, False, "x")
    gc.enable()
    assert ref() is None


def test_a_stop_between_runs_says_how_to_go_on(capfd):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped, resumable("runs/a"):
        os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.code == 130
    told = "stopped; the work so far is in 'runs/a': go on with the same command and --resume"
    assert capfd.readouterr().err == f"\nstopping\n{told}\n"
    assert signal.getsignal(signal.SIGINT) is start.stop  # a second one waits for nothing
    signal.signal(signal.SIGINT, before)
    with resumable("runs/a"):
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_of_an_earlier_version_is_known_by_its_files(saved):
    run = saved[0]
    with open(f"{run.folder}/status.json", "w") as f:
        f.write("{")  # nor may a damaged one stop a resume
    for _ in range(2):
        expected = {"stage": "sft", "saved": 3, "finished": False}
        assert run_status(run.folder) == expected and resumed(run).state["step"] == 3
        os.remove(f"{run.folder}/status.json")
    shutil.rmtree(f"{run.folder}/checkpoint")
    with open(run.metrics_path, "a") as f:
        f.write('{"stage": "s')
    with pytest.raises(ValueError, match="has lost its checkpoint of step 3"):
        resumed(run)
    with open(run.metrics_path, "w") as f:
        f.write('{"stage": "s')  # killed in its first step
    assert resumed(run).state == {}


def test_a_recipe_goes_on_with_the_responses_of_the_same_settings(tmp_path):
    result = str(tmp_path / "dev1.json")
    Journal(result, {"k": 1}).add("batch", [(0, "小明", 5, True)])
    with open(tmp_path / "dev1.stopped.jsonl", "a") as f:
        f.write('{"name": "half')
    stopped = Journal(result, {"k": 1})
    stopped.add("next", [(1, "b", 1, False)])
    found = {"batch": [(0, "小明", 5, True)], "next": [(1, "b", 1, False)]}
    assert Journal(result, {"k": 1}).batches == found
    assert Journal(result, {"k": 2}).batches == {}
    stopped.remove()
    assert os.listdir(tmp_path) == []


def work(folder, pipe):
    """A run and an evaluation, both at work."""
    Run(folder, {}, False, "sft")
    Journal(f"{folder}/eval.json", {})
    pipe.send(os.getpid())
    time.sleep(60)


def test_who_is_at_work_is_not_called_stopped(tmp_path):
    here, there = FORKS.Pipe()
    process = FORKS.Process(target=work, args=(str(tmp_path), there))
    process.start()
    here.recv()
    with pytest.raises(ValueError, match=f"process {process.pid} on .* is writing in"):
        check_folder(str(tmp_path), False, "sft")
    with pytest.raises(ValueError, match=f"process {process.pid} on .* is writing in"):
        Journal(str(tmp_path / "eval.json"), {}, False)
    process.kill()
    process.join()
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        check_folder(str(tmp_path), False, "sft")
    with pytest.raises(ValueError, match="holds a stopped evaluation: add --resume"):
        Journal(str(tmp_path / "eval.json"), {}, False)


@pytest.mark.parametrize("place", ["", "model"])
def test_a_folder_with_a_model_is_no_place_for_a_run(tiny_model, tmp_path, place):
    tiny_model.save_pretrained(str(tmp_path / place))
    before = (tmp_path / place / "config.json").read_text()
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds a model or something else's settings"):
            Run(str(tmp_path), {}, resume, "x")
    assert (tmp_path / place / "config.json").read_text() == before
