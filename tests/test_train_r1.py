import json
import os

import pytest
from conftest import run

import config
import rewards as rw
import train_r1
from data import REASONING, Problem, World, WorldConfig

SETTINGS = {"model.dim": 32, "model.n_layers": 2, "model.n_heads": 2, "sft.tokens": 6000, "sft.tokens_per_step": 2000, "grpo.steps": 1,
            "grpo.problems_per_step": 6, "grpo.group_size": 2, "grpo.max_new_tokens": 12, "grpo.minibatches": 1, "eval.problems": 4, "eval.k": 2,
            "eval.max_new_tokens": 12, "preference.examples": 32, "preference.epochs": 1, "preference.held_out": 8, "r1.cold_prompts": 8,
            "r1.reject_prompts": 8, "r1.demonstrations": 8, "r1.dev2_steps": 1, "r1.final_steps": 2, "r1.preference_steps": 1}
FLAGS = [x for k, v in SETTINGS.items() for x in (f"--{k}", str(v))]


def small(**more) -> config.Config:
    cfg = config.make("tiny")
    for key, value in (SETTINGS | {k.replace("__", "."): v for k, v in more.items()}).items():
        config.set_key(cfg, key, value)
    return cfg


EN = Problem("Tom has 3, finds 4. How many now?", "7", "arithmetic", "en")
PUZZLE = Problem("A is taller than C. C is shorter than A. B is taller than A. Who is tallest?", "B", "logic", "en", {"order": ["B", "A", "C"]})
ZH = Problem("小明有3个,捡到4。现在几个?", "7", "arithmetic", "zh")


@pytest.mark.parametrize(("problem", "thinking", "answer", "right", "why"), [
    (EN, "3 at first, finds 4 makes 7", "7", True, ""),
    (EN, "3 at first, finds 4 makes 8", "8", False, "wrong"),
    (EN, "3 at first, 捡到4就是7", "7", True, "language"),
    (ZH, "起初3,捡到4就是7", "7", True, ""),
    (ZH, "起初3,finds 4 makes 7", "7", True, "language"),
    (EN, "3 at first, finds 4 makes 7, finds 4 makes 7", "7", True, "repetition"),
    (EN, "3 low,4 high,3 low,4 high,3 low", "7", True, "repetition"),
    (PUZZLE, "A over C so A>C,B over A so A>B wait no B>A>C", "B", True, ""),
    (PUZZLE, "A over C so A>C,B over A so B>C>A", "B", True, "unfounded"),
    (PUZZLE, "A over C so A>C", "B", True, "unfounded"),
    (PUZZLE, "maybe B", "B", True, "unfounded"),
    (EN, "so Tom,Ben,Mia wait no Mia,Ben,Tom", "7", True, ""),
    (Problem("", "def f(x): return 1", "code"), "first x+3,then max(x+3,5),then max(x+3,5)*2", "def f(x): return 1", True, ""),
    (Problem("", "def f(x): return max(x+3,2)", "code", "zh"), "先x+3,再max(x+3,2)", "def f(x): return max(x+3,2)", True, "")])
def test_the_filters(problem, thinking, answer, right, why):
    assert train_r1.flaw(problem, f"<think>{thinking}</think><answer>{answer}</answer>", right) == why


def test_the_form_filter():
    assert train_r1.flaw(EN, "<think>3 at first, finds 4 makes 7</think>7", True) == "form"
    assert train_r1.flaw(EN, "<answer>7</answer><think>3</think>", True) == "form"


def test_the_readable_form_keeps_thinking_and_answer():
    assert train_r1.readable(EN, "<think> 3 at first</think><answer>7</answer>") == "<think>3 at first</think><answer>The answer is 7.</answer>"
    world = World(0, WorldConfig())
    for task in REASONING:
        for p in world.problems(task, 20):
            text = train_r1.readable(p, f"<think>x</think><answer>{p.answer}</answer>")
            assert rw.score(p, text, rw.RewardConfig(format=2.0))["total"] == 3.0 and train_r1.readable(p, text) == text


def test_harvest_counts_and_caps(tmp_path, monkeypatch, capsys):
    def said(thinking, answer):
        return f"<think>{thinking}</think><answer>{answer}</answer>"

    responses = [said("a b", 7), said("a c", 7), said("a b", 7), said("a d", 7), said("a b", 8), said("五", 7),  # the first problem
                 "7", said("中 cc", 7), said("中", 7), said("中,中", 7), said("国", 8), said("国", 8)]
    samples = [{"problem": i // 6, "response": r, "correct": "8" not in r} for i, r in enumerate(responses)]
    monkeypatch.setattr(train_r1.GPT, "from_pretrained", lambda *a, **k: None)
    monkeypatch.setattr(train_r1.tokenizers, "load", lambda *a: None)
    monkeypatch.setattr(train_r1.evaluation, "evaluate", lambda *a: type("Report", (), {"samples": samples}))
    path = str(tmp_path / "rows.jsonl")
    rows = train_r1.harvest("zero", [EN, ZH], 6, 2, small(), path, 0)
    assert [r["response"] for r in rows] == [train_r1.readable(EN, responses[0]), train_r1.readable(EN, responses[1]), train_r1.readable(ZH, responses[8])]
    out = capsys.readouterr().out
    for part in ("12 responses", "3 wrong", "1 form", "2 language", "1 repetition", "1 same as another", "1 enough of this problem", "3 kept"):
        assert part in out, out
    monkeypatch.setattr(train_r1.evaluation, "evaluate", None)
    assert train_r1.harvest("zero", [EN, ZH], 6, 2, small(), path, 0) == rows  # already sampled
    monkeypatch.setattr(train_r1.evaluation, "evaluate", lambda *a: type("Report", (), {"samples": samples[4:5] * 12}))
    with pytest.raises(ValueError, match="clean enough"):
        train_r1.harvest("zero", [EN, ZH], 6, 2, small(), str(tmp_path / "none.jsonl"), 0)


def test_general_requests_are_chosen_by_the_judge(tmp_path, monkeypatch):
    p = Problem("Hi", "Hello.", "general", "en", {"kind": "who"})
    samples = [{"problem": 0, "response": f"<think>x</think><answer>{a}</answer>", "correct": False} for a in "abc"]
    monkeypatch.setattr(train_r1.GPT, "from_pretrained", lambda *a, **k: None)
    monkeypatch.setattr(train_r1.tokenizers, "load", lambda *a: None)
    monkeypatch.setattr(train_r1.evaluation, "evaluate", lambda *a: type("Report", (), {"samples": samples}))
    scores = [{"helpful": 0.9, "safe": 0.9}, {"helpful": 0.9, "safe": 0.4}, {"helpful": 0.2, "safe": 0.9}]
    rows = train_r1.harvest("r1", [p], 3, 3, small(), str(tmp_path / "rows.jsonl"), 0, lambda problems, texts: scores)
    assert [r["response"] for r in rows] == [samples[0]["response"]]


def test_problems_of_the_stages(monkeypatch):
    """Reasoning tasks in turn; general requests only where the stage asks for them; no problem in two stages."""
    drawn = {}

    def train(cfg, start, out, resume, stage, draw, judge):
        assert cfg.rewards.language == 1.0 and cfg.grpo.steps == 4
        drawn[stage] = [draw(step) for step in range(4)]
        return out

    monkeypatch.setattr(train_r1.grpo, "train", train)
    cfg = small(grpo__problems_per_step=12)
    train_r1.reinforce(cfg, "m", "o", False, "dev2", 4, 300_000)
    train_r1.reinforce(cfg, "m", "o", False, "r1", 4, 400_000, lambda step: 4 if step >= 2 else 0)
    assert all([p.task for p in step] == list(REASONING) * 3 for step in drawn["dev2"] + drawn["r1"][:2])
    assert all([p.task for p in step] == list(REASONING) * 2 + ["general"] * 4 for step in drawn["r1"][2:])
    seen = {stage: {p.prompt for step in steps for p in step if p.task in ("arithmetic", "code")} for stage, steps in drawn.items()}
    assert len(seen["dev2"]) == 24 and not seen["dev2"] & seen["r1"]
    cfg.grpo.problems_per_step = 3  # fewer than tasks: each has its turn all the same
    train_r1.reinforce(cfg, "m", "o", False, "dev2", 4, 300_000)
    assert [p.task for step in drawn["dev2"] for p in step] == list(REASONING) * 3


def test_a_base_of_one_s_own_needs_the_folder_of_its_zero(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "train_r1", "--init", "base")
    assert status == 2 and "(--zero FOLDER" in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_the_recipe_from_nothing_again_from_a_stage_and_resumed(tmp_path, monkeypatch, capsys):
    """The whole path with models too small to be right: what they would be taught is taken from the world instead."""
    real = train_r1.harvest

    def harvest(folder, problems, samples, most, cfg, path, seed, judge=None):
        with pytest.raises(ValueError, match="clean enough"):
            real(folder, problems, samples, most, cfg, path, seed)
        return [{"prompt": p.prompt, "response": f"<think>x</think><answer>{p.answer}</answer>", "task": p.task} for p in problems]

    monkeypatch.setattr(train_r1, "harvest", harvest)
    monkeypatch.chdir(tmp_path)
    flags = ["--zero", "z", "--out", "r", *FLAGS]
    status, _, err = run(monkeypatch, capsys, "train_r1", "--from", "dev2", *flags)
    assert status == 2 and "dev1" in err and not os.path.exists("z")
    status, out, _ = run(monkeypatch, capsys, "train_r1", *flags)
    assert status == 0 and "making it first" in out and "| R1 |" in out
    for stage in train_r1.STAGES:
        assert os.path.exists(f"r/{stage}/model/model.safetensors") and os.path.exists(f"r/eval/{stage}.json")
    with open("r/stages.json") as f:
        figures = json.load(f)["figures"]
    assert list(figures) == ["base", "zero", "dev1", "dev2", "dev3", "r1"] and figures["base"]["wins_over_base"] == 0.5
    assert all(0 <= figures["r1"][key] <= 1 for key in ("reasoning", "helpfulness", "declined_harmful", "language_consistency"))
    assert os.path.exists("r/stages.png") and os.path.exists("r/helpful/accuracy.json")

    status, _, err = run(monkeypatch, capsys, "train_r1", *flags)
    assert status == 2 and "--resume" in err
    kept = {stage: os.path.getmtime(f"r/{stage}/model/model.safetensors") for stage in train_r1.STAGES}
    status, _, err = run(monkeypatch, capsys, "train_r1", "--resume", *flags, "--seed", "7")
    assert status == 2 and "--seed 0, not 7" in err
    with open("r/minutes.json") as f:
        first = json.load(f)
    assert {*train_r1.STAGES, "evaluation"} == first.keys()
    assert run(monkeypatch, capsys, "train_r1", "--resume", *flags)[0] == 0
    with open("r/minutes.json") as f:
        assert {k: v for k, v in json.load(f).items() if k != "evaluation"} == {k: v for k, v in first.items() if k != "evaluation"}
    assert kept == {stage: os.path.getmtime(f"r/{stage}/model/model.safetensors") for stage in train_r1.STAGES}
    assert run(monkeypatch, capsys, "train_r1", "--from", "dev3", *flags)[0] == 0
    now = {stage: os.path.getmtime(f"r/{stage}/model/model.safetensors") for stage in train_r1.STAGES}
    assert [now[s] == kept[s] for s in train_r1.STAGES] == [True, True, False, False]
    assert any(name.startswith("dev3-") for name in os.listdir("r"))
