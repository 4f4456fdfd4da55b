"""Aggregation over seeds, on runs written by hand."""

import json
import os
import sys

import pytest

import experiments


def fake_run(folder, pass1):
    os.makedirs(os.path.join(folder, "base"))
    row = dict(task="arithmetic", k=4, pass1_se=0.01, cons=0.9, passk=1.0, format=0.5, language_consistency=1.0, mean_length=20.0, reflection_words=0.1)
    with open(os.path.join(folder, "eval.json"), "w") as f:
        json.dump({"reports": [row | {"model": "base", "pass1": 0.1}, row | {"model": "zero", "pass1": pass1}], "minutes": 1.0}, f)
    for place, times in (("base", [60, 60]), ("", [30])):
        with open(os.path.join(folder, place, "metrics.jsonl"), "w") as f:
            f.writelines(json.dumps({"step_time": t}) + "\n" for t in times)
    with open(os.path.join(folder, "curves.png"), "wb") as f:
        f.write(b"png")


def main(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["experiments.py", *argv])
    experiments.main()
    return capsys.readouterr().out


def test_mean_and_spread_over_finished_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments.subprocess, "run", lambda *a, **k: pytest.fail("a finished seed was run again"))
    monkeypatch.setattr(experiments.parallel, "provenance", lambda command: {"command": command, "date": "today", "hardware": "a machine"})  # asks the system by a subprocess
    fake_run("runs/zero", 0.7)
    fake_run("runs/zero-1", 0.9)
    out = main(monkeypatch, capsys, "zero", "--seeds", "0,1")
    assert "| arithmetic | zero | 80.0 ± 14.1 |" in out and "| arithmetic | base | 10.0 ± 0.0 |" in out
    with open("results/zero.json") as f:
        result = json.load(f)
    assert result["figures"]["arithmetic"]["zero"]["pass1"]["values"] == [0.7, 0.9] and result["seeds"] == [0, 1]
    assert result["training_minutes"]["base"]["mean"] == 2.0 and result["training_minutes"]["zero"]["mean"] == 0.5
    assert {"date", "hardware", "command"} <= result.keys() and os.path.exists("results/zero.png")


def figures(reasoning):
    keys = [f"{t}{suffix}" for t in ("arithmetic", "countdown", "code", "logic") for suffix in ("", "_se", "_cons", "_length")]
    return dict.fromkeys([*keys, *(key for key, _ in experiments.evaluation.STAGE_COLUMNS), "mean_length"], 0.5) | {"reasoning": reasoning}


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(content, f)


def test_the_stage_table_and_the_students_over_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments.subprocess, "run", lambda *a, **k: pytest.fail("a finished seed was run again"))
    monkeypatch.setattr(experiments.parallel, "provenance", lambda command: {"command": command, "date": "today", "hardware": "a machine"})
    os.makedirs("results")
    for folder, value in (("runs/r1", 0.6), ("runs/r1-1", 0.8)):
        write(f"{folder}/stages.json", {"minutes": {"all": 1.0}, "figures": {name: figures(value) for name in experiments.train_r1.NAMES}})
        for kind in ("helpful", "safe"):
            write(f"{folder}/{kind}/accuracy.json", {"held_out": 8, "accuracy": value})
    out = main(monkeypatch, capsys, "r1", "--seeds", "0,1")
    row = next(line for line in out.split("\n") if line.startswith("| R1 |"))
    assert "| 70.0 ± 14.1 |" in row and "| 50.0 ± 0.0, 50.0 |" in row and os.path.exists("results/r1.png")
    for folder, value in (("runs/distill", 0.2), ("runs/distill-1", 0.4)):
        write(f"{folder}/distill.json", {"minutes": {"all": 1.0}, "examples": 5, "budget": {}, "parameters": {"qwen-m": 9},
                                         "figures": {"qwen-m": {"base": figures(0.1), "distilled": figures(value)}}
                                         | ({"llama-s": {"base": figures(0.3)}} if folder == "runs/distill" else {})})
    out = main(monkeypatch, capsys, "distill", "--seeds", "0,1")
    assert "30.0 ± 14.1" in next(line for line in out.split("\n") if line.startswith("| qwen-m, distilled |"))
    assert "| 30.0 |" in next(line for line in out.split("seed 0:")[1].split("\n") if line.startswith("| llama-s, base |"))  # of one seed
    with open("results/distill.json") as f:
        assert json.load(f)["mean"]["qwen-m, distilled"]["reasoning"] == pytest.approx(0.3)


def test_list_and_mistakes(monkeypatch, capsys):
    assert "zero" in main(monkeypatch, capsys, "list")
    for argv in (("chess",), ("zero", "--seeds", "a")):
        with pytest.raises(SystemExit) as stop:
            main(monkeypatch, capsys, *argv)
        assert stop.value.code == 2
