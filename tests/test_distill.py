import json
import os
import shutil
from dataclasses import replace

import pytest
from conftest import run
from test_train_r1 import FLAGS, small

import distill
import sft
import stages
from data import REASONING
from lib import shape
from model import GPT, ModelConfig

OWN = {"prompts": 8, "general": 4, "rl_steps": 1}
FLAGS = [*FLAGS, *(x for k, v in OWN.items() for x in (f"--distill.{k}", str(v)))]


def test_students_are_dense_and_smaller_than_the_teacher():
    cfg, count = small(), {}
    cfg.model = ModelConfig()
    for name in distill.STUDENTS:
        model = GPT.empty(shape.student(cfg.model, cfg.name, name))
        count[name] = sum(p.numel() for p in model.parameters())
        assert not model.moe_layers() and model.cfg.attention == "gqa"
        assert not model.cfg.rope_interleaved
        biased = [n for n, _ in model.named_parameters() if n.endswith("q_proj.bias")]
        assert bool(biased) == name.startswith("qwen")
    teacher = sum(p.numel() for p in GPT.empty(ModelConfig()).parameters())
    assert count["qwen-s"] < count["qwen-m"] < teacher


def test_the_teacher_is_asked_everything(monkeypatch):
    given = {}

    def harvest(folder, problems, *rest):
        given.update(folder=folder, tasks=[p.task for p in problems], judge=rest[-1])
        return []

    monkeypatch.setattr(distill, "harvest", harvest)
    monkeypatch.setattr(distill.preference, "Judge", lambda folders, *where: folders)
    cfg = small(**{f"distill__{k}": v for k, v in OWN.items()})
    distill.teach(cfg, "run/r1/model", "p")
    assert "general" not in given["tasks"] and given["judge"] is None  # nobody to choose replies
    monkeypatch.setattr(distill.inputs, "is_model", lambda folder: True)
    distill.teach(cfg, "run/r1/model", "p")
    tasks = given["tasks"]
    assert [tasks.count(t) for t in (*REASONING, "general")] == [2, 2, 2, 2, 4]
    assert given["folder"] == "run/r1/model"
    assert given["judge"] == {k: f"run/{k}/model" for k in distill.preference.KINDS}


ROW = {"prompt": "Tom has 3", "response": "<think>a</think><answer>3</answer>"}


def test_the_recipe_with_a_saved_data_set(known_tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with open("rows.jsonl", "w") as f:
        f.write(json.dumps(ROW) + "\n")
    flags = ["--data", "rows.jsonl", "--out", "d", "--students", "llama-s,qwen-s", *FLAGS]
    status, out, _ = run(monkeypatch, capsys, "distill", *flags)
    assert status == 0 and "| llama-s, distilled-RL |" in out
    with open("d/distill.json") as f:
        figures = json.load(f)["figures"]
    ways = ["base", "distilled", "RL-alone", "distilled-RL"]  # on-policy needs the teacher itself
    assert list(figures["llama-s"]) == ways
    assert list(figures["qwen-s"]) == ["base", "distilled"]
    assert GPT.from_pretrained("d/qwen-s/distilled/model").cfg.qkv_bias
    assert run(monkeypatch, capsys, "distill", *flags)[0] == 2
    before = os.path.getmtime("d/llama-s/distilled/model/model.safetensors")
    assert run(monkeypatch, capsys, "distill", "--resume", *flags)[0] == 0
    with open("other.jsonl", "w") as f:
        f.write(json.dumps(ROW | {"prompt": "Tom has 4"}) + "\n")
    status, _, err = run(
        monkeypatch, capsys, "distill", "--resume", *flags, "--data", "other.jsonl"
    )
    assert status == 2 and "other texts" in err
    for folder, student in (("a", "llama-s"), ("b", "qwen-s")):  # two students of one name
        os.makedirs(folder)
        shutil.copytree(f"d/{student}/base/model", f"{folder}/model")
    status, _, err = run(monkeypatch, capsys, "distill", "--init", "a/model", *flags[:4], *FLAGS)
    assert status == 2 and "--model.dim is 64 in the model that --init names" in err
    flags = ["--data", "rows.jsonl", "--out", "other", *FLAGS[6:]]  # not those of the shape
    assert run(monkeypatch, capsys, "distill", "--init", "a/model", *flags)[0] == 0
    status, _, err = run(monkeypatch, capsys, "distill", "--init", "b/model", "--resume", *flags)
    assert status == 2 and "init" in err and err.count("\n") == 1
    assert os.path.getmtime("d/llama-s/distilled/model/model.safetensors") == before


def test_the_teacher_judges_a_student_s_tokens(known_tokenizer, tmp_path, monkeypatch, capsys):
    """With a teacher that has the student's tokens; one of another seed's world only writes."""
    monkeypatch.chdir(tmp_path)
    cfg = small()
    cfg.seed = 0
    for seed in (0, 1):
        tokenizer = sft.corpus_tokenizer(stages.own_base(replace(cfg, seed=seed)))
        model = sft.build(cfg, tokenizer)
        model.save_pretrained(f"t{seed}/r1/model")
        tokenizer.save(f"t{seed}/r1/model")
    monkeypatch.setattr(distill, "harvest", lambda *_: [ROW])
    room, planned = stages.check_room, []
    monkeypatch.setattr(stages, "check_room", lambda cfg, *a, **k: planned.append(cfg.grpo))
    flags = ["--teacher", "t0/r1/model", "--students", "llama-s", *FLAGS]
    status, out, err = run(monkeypatch, capsys, "distill", "--out", "d", *flags)
    assert status == 0 and "no on-policy distillation" not in out, err
    assert planned[0].reference == "t0/r1/model" and planned[0].kl_beta  # it takes memory too
    monkeypatch.setattr(stages, "check_room", room)
    with open("d/distill.json") as f:
        content = json.load(f)
    assert list(content["figures"]["llama-s"]) == ["base", *distill.WAYS]
    assert content["teacher_flops"] is None  # its training was elsewhere
    with open("d/llama-s/on-policy/config.json") as f:
        judged = json.load(f)["grpo"]
    assert judged["algorithm"] == distill.ON_POLICY and judged["reference"] == "t0/r1/model"
    with open("d/llama-s/RL-alone/config.json") as f:
        assert json.load(f)["grpo"]["reference"] == ""
    with open("d/llama-s/base/config.json") as f:  # it read what its teacher's base did
        own = json.load(f)
    assert own["sft"]["tokens"] == stages.own_base(cfg).sft.tokens > cfg.sft.tokens
    assert own["world"]["logic"] == cfg.r1.logic
    flags[1] = "t1/r1/model"
    status, out, _ = run(monkeypatch, capsys, "distill", "--out", "e", *flags)
    assert status == 0 and "no on-policy distillation" in out
    assert not os.path.exists("e/llama-s/on-policy")


MISTAKES = [
    ("--algorithm on-policy-distillation --data rows.jsonl", "needs --grpo.reference"),
    ("--students gemma", "gemma"),
    ("--data none.jsonl", "none.jsonl"),
    ("--data bad.jsonl", "line 1"),
    ("--data rows.jsonl --init nowhere", "no model at 'nowhere'"),
    ("--teacher nowhere", "nowhere"),
    ("--data rows.jsonl --resume", "there is no run in 'd'"),
    ("--data rows.jsonl --out zero", "'zero' holds a run of the stage 'zero', not 'distill'"),
]


@pytest.mark.parametrize("words, message", MISTAKES)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero").mkdir()
    status = {"stage": "zero", "saved": 2, "finished": False}
    (tmp_path / "zero" / "status.json").write_text(json.dumps(status))
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3}\n')
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    status, _, err = run(monkeypatch, capsys, "distill", "--out", "d", *words.split(), *FLAGS)
    assert status == 2 and message in err and err.count("\n") == 1
