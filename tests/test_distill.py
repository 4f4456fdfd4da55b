import json
import os
import shutil

import pytest
from conftest import run
from test_train_r1 import FLAGS, small

import distill
import train_r1
from data import REASONING
from model import GPT, ModelConfig

OWN = {"distill.prompts": 8, "distill.general": 4, "distill.tokens": 4000, "distill.rl_steps": 1}
FLAGS = [*FLAGS, *(x for k, v in OWN.items() for x in (f"--{k}", str(v)))]


def test_students_are_dense_and_smaller_than_the_teacher():
    count = {name: sum(p.numel() for p in GPT(ModelConfig(**shape)).parameters()) for name, shape in distill.STUDENTS.items()}
    for name, shape in distill.STUDENTS.items():
        model = GPT(ModelConfig(**shape))
        assert not model.moe_layers() and model.cfg.attention == "gqa" and not model.cfg.rope_interleaved
        biased = [n for n, _ in model.named_parameters() if n.endswith("q_proj.bias")]
        assert bool(biased) == name.startswith("qwen")
    assert count["qwen-s"] < count["qwen-m"] < sum(p.numel() for p in GPT(ModelConfig()).parameters())


def test_the_teacher_is_asked_everything(monkeypatch):
    asked = {}
    monkeypatch.setattr(train_r1, "harvest", lambda folder, problems, *rest: asked.update(folder=folder, problems=problems, rest=rest) or [])
    monkeypatch.setattr(distill.preference, "Judge", lambda folders, *where: folders)
    cfg = small(**{k.replace(".", "__"): v for k, v in OWN.items()})
    distill.teach(cfg, "t", {"helpful": "h"}, "p")
    tasks = [p.task for p in asked["problems"]]
    assert [tasks.count(t) for t in (*REASONING, "general")] == [2, 2, 2, 2, 4] and asked["folder"] == "t" and asked["rest"][-1] == {"helpful": "h"}
    distill.teach(cfg, "t", {}, "p")
    assert "general" not in [p.task for p in asked["problems"]] and asked["rest"][-1] is None  # nobody to choose among replies


def test_the_recipe_with_a_saved_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with open("rows.jsonl", "w") as f:
        f.write(json.dumps({"prompt": "Tom has 3", "response": "<think>a</think><answer>3</answer>"}) + "\n")
    flags = ["--data", "rows.jsonl", "--out", "d", "--students", "llama-s,qwen-s", *FLAGS]
    status, out, _ = run(monkeypatch, capsys, "distill", *flags)
    assert status == 0 and "| llama-s, distilled + RL |" in out
    with open("d/distill.json") as f:
        figures = json.load(f)["figures"]
    assert list(figures["llama-s"]) == ["base", "distilled", "RL alone", "distilled + RL"] and list(figures["qwen-s"]) == ["base", "distilled"]
    assert GPT.from_pretrained("d/qwen-s/distilled/model").cfg.qkv_bias
    assert run(monkeypatch, capsys, "distill", *flags)[0] == 2
    before = os.path.getmtime("d/llama-s/distilled/model/model.safetensors")
    assert run(monkeypatch, capsys, "distill", "--resume", *flags)[0] == 0
    with open("other.jsonl", "w") as f:
        f.write(json.dumps({"prompt": "Tom has 4", "response": "<think>a</think><answer>4</answer>"}) + "\n")
    status, _, err = run(monkeypatch, capsys, "distill", "--resume", *flags, "--data", "other.jsonl")
    assert status == 2 and "rows" in err
    os.makedirs("a"), os.makedirs("b")  # two students of one name
    for folder, student in (("a", "llama-s"), ("b", "qwen-s")):
        shutil.copytree(f"d/{student}/base/model", f"{folder}/model")
    own = ["--data", "rows.jsonl", "--out", "own", *FLAGS]
    assert run(monkeypatch, capsys, "distill", "--init", "a/model", *own)[0] == 0
    status, _, err = run(monkeypatch, capsys, "distill", "--init", "b/model", "--resume", *own)
    assert status == 2 and "init" in err and err.count("\n") == 1
    assert os.path.getmtime("d/llama-s/distilled/model/model.safetensors") == before


@pytest.mark.parametrize(("argv", "message"), [(["--students", "gemma"], "gemma"), (["--data", "none.jsonl"], "none.jsonl"),
                                               (["--data", "bad.jsonl"], "line 1"), (["--data", "rows.jsonl", "--init", "nowhere"], "no model at 'nowhere'"), (["--teacher", "nowhere"], "nowhere")])
def test_mistakes(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3}\n')
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    status, _, err = run(monkeypatch, capsys, "distill", "--out", "d", *argv, *FLAGS)
    assert status == 2 and message in err and err.count("\n") == 1
