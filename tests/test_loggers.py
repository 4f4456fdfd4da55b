"""--log: what other programs are told, with stand-ins for them."""

import sys
import types

import pytest

import config
import grpo
from lib import loggers
from lib import run as runs
from lib.errors import UserError


@pytest.fixture(autouse=True)
def none_chosen(monkeypatch):
    monkeypatch.setattr(loggers, "chosen", "none")


def recorder(monkeypatch, name: str) -> list[tuple]:
    """A module that notes its calls."""
    calls, module = [], types.ModuleType(name)
    for function in ("init", "log", "finish"):

        def note(*args, function=function, **more):
            calls.append((function, *args, more))

        setattr(module, function, note)
    monkeypatch.setitem(sys.modules, name, module)
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_online(name, monkeypatch, tmp_path):
    calls, folder = recorder(monkeypatch, name), str(tmp_path / "a")
    loggers.choose(name)
    with runs.Run(folder, {"seed": 3}, False, "sft") as run:
        run.log(step=1, loss=0.5, note="text")
        run.log(step=2, loss=0.25)
    assert calls == [
        ("init", {"project": "pocket-r1", "name": folder, "config": {"seed": 3}}),
        ("log", {"loss": 0.5}, {"step": 1}),
        ("log", {"loss": 0.25}, {"step": 2}),
        ("finish", {}),
    ]  # fmt: skip


def test_tensorboard(monkeypatch, tmp_path):
    seen, module = [], types.ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, *row):
            seen.append(row)

        def close(self):
            seen.append("closed")

    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    loggers.choose("tensorboard")
    with runs.Run(str(tmp_path), {}, False, "sft") as run:
        run.log(step=7, loss=0.5, skipped_steps=0)
    expected = [
        (str(tmp_path / "tensorboard"), 1),
        ("loss", 0.5, 7),
        ("skipped_steps", 0, 7),
        "closed",
    ]
    assert seen == expected


def test_an_error_ends_the_logger_too(monkeypatch, tmp_path):
    calls = recorder(monkeypatch, "wandb")
    loggers.choose("wandb")
    with pytest.raises(KeyError), runs.Run(str(tmp_path), {}, False, "sft"):
        raise KeyError
    assert [c[0] for c in calls] == ["init", "finish"]


def test_a_logger_that_does_not_start_leaves_no_run(monkeypatch, tmp_path):
    recorder(monkeypatch, "wandb")

    def init(**settings):
        raise RuntimeError("no key")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    loggers.choose("wandb")
    with pytest.raises(UserError, match=r"--log wandb does not start \(RuntimeError: no key\)"):
        runs.Run(str(tmp_path), {}, False, "sft")
    loggers.choose("none")
    runs.Run(str(tmp_path), {}, False, "sft")  # the same command, without --log


def test_a_logger_that_fails_does_not_end_the_training(monkeypatch, tmp_path, capsys):
    calls = recorder(monkeypatch, "wandb")

    def log(metrics, step):
        raise ConnectionError("gone")

    monkeypatch.setattr(sys.modules["wandb"], "log", log)
    loggers.choose("wandb")
    with runs.Run(str(tmp_path), {}, False, "sft") as run:
        run.log(step=1, loss=0.5)
        run.log(step=2, loss=0.5)
    assert [c[0] for c in calls] == ["init"]
    assert capsys.readouterr().out.count("ConnectionError: gone; going on without it") == 1


def test_a_logger_that_fails_at_the_end_does_not_end_the_script(monkeypatch, tmp_path):
    recorder(monkeypatch, "wandb")

    def finish():
        raise ConnectionError("gone")

    monkeypatch.setattr(sys.modules["wandb"], "finish", finish)
    loggers.choose("wandb")
    with runs.Run(str(tmp_path), {}, False, "sft"):
        pass


def test_a_missing_package_is_named_before_any_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--log wandb needs a package .*: pip install wandb, or"):
        loggers.choose("wandb")
    with pytest.raises(SystemExit) as stopped:
        config.parse(config.Parser("x"), grpo.Config, argv=["--log", "wandb"])
    assert stopped.value.code == 2 and "pip install wandb" in capsys.readouterr().err


def test_without_one_nothing_is_told(tmp_path):
    with runs.Run(str(tmp_path), {}, False, "sft") as run:
        run.log(step=1, loss=0.5)
        assert run.logger is None
