import contextlib
import json
import os

import pytest
from conftest import run

import config
import distill
import preference
import rejection
import stages
import train_r1
from data import REASONING

SETTINGS = """model.dim 32 model.n_layers 2 model.n_heads 2 sft.tokens 6000 sft.tokens_per_step 2000
 grpo.steps 1 grpo.problems_per_step 6 grpo.group_size 2 grpo.max_new_tokens 12 grpo.minibatches 1
 eval.problems 4 eval.k 2 eval.max_new_tokens 12 preference.examples 32 preference.epochs 1
 preference.held_out 8 r1.cold_prompts 8 r1.reject_prompts 8 r1.steps 2
 r1.preference_steps 1""".split()
SETTINGS = dict(zip(SETTINGS[::2], SETTINGS[1::2]))
FLAGS = [x for k, v in SETTINGS.items() for x in (f"--{k}", v)]


def small(**more) -> distill.Config:
    cfg = config.make(distill.Config)
    more = {k.replace("__", "."): v for k, v in more.items()}
    for key, value in (SETTINGS | more).items():
        config.set_key(cfg, key, value)
    return cfg


def test_problems_of_the_stages(monkeypatch):
    """Reasoning tasks one after the other, as many in each stage; general requests with them in
    some steps of the last stage only; no problem in two stages."""
    drawn, judges = {}, {}

    def train(cfg, start, out, resume, stage, next_problems, judge):
        assert cfg.rewards.language == (stage != "zero") and cfg.grpo.steps == 4
        drawn[stage], judges[stage] = [next_problems(step) for step in range(4)], judge
        return out

    monkeypatch.setattr(train_r1.grpo, "train", train)
    more = {"r1__steps": 4, "r1__preference_steps": 2, "r1__general": 1 / 3}
    cfg = small(grpo__problems_per_step=12, **more)
    train_r1.zero(cfg, {"base": "m"}, "o", False)
    train_r1.dev2(cfg, {"dev1": "m"}, "o", False)
    train_r1.reinforce(cfg, "m", "o", False, "r1", 1.0, "judge")
    assert judges == {"zero": None, "dev2": None, "r1": "judge"}
    for step in drawn["zero"] + drawn["dev2"] + drawn["r1"][:2]:
        assert [p.task for p in step] == list(REASONING) * 3
    for step in drawn["r1"][2:]:
        assert [p.task for p in step] == list(REASONING) * 3 + ["general"] * 4
    tasks, seen = ("arithmetic", "code"), {}
    for stage, steps in drawn.items():
        seen[stage] = {p.prompt for step in steps for p in step if p.task in tasks}
    assert len(seen["dev2"]) == 24 and not seen["dev2"] & (seen["r1"] | seen["zero"])
    cfg.grpo.problems_per_step = 3  # fewer than tasks: all come, one after the other
    train_r1.dev2(cfg, {"dev1": "m"}, "o", False)
    assert [p.task for step in drawn["dev2"] for p in step] == list(REASONING) * 3


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--init base", "no model at 'base'"),
        ("--zero nowhere", "there is no finished Zero in 'nowhere'"),
        ("--world.tasks arithmetic", "--r1.tasks has code, which the base would never read about"),
    ],
)
def test_what_is_not_there(flags, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "train_r1", *flags.split())
    assert status == 2 and told in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_a_zero_s_folder_is_not_taken_for_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = '{"stage": "zero", "saved": 2, "finished": false}'
    (tmp_path / "status.json").write_text(status)
    told = "'.' holds a run of the stage 'zero', not 'r1': name another with --out"
    for flags in ((), ("--resume",)):
        status, _, err = run(monkeypatch, capsys, "train_r1", "--out", ".", *flags)
        assert status == 2 and told in err and err.count("\n") == 1
    assert set(os.listdir(tmp_path)) <= {"status.json", ".lock"}


def test_a_crash_while_stages_are_set_aside_leaves_no_model_without_its_origin(
    tmp_path, monkeypatch
):
    names = [f"{name}/model/config.json" for name in (*train_r1.STAGES, "helpful", "safe")]
    names += ["stages.json", "settings.json", "eval/base.json", "eval/dev2.json", "eval/r1.json"]
    origins = {"dev3": "dev2", "helpful": "dev3", "safe": "dev3", "r1": "dev3"}
    rename, calls = os.rename, []
    for stop in range(10):
        out = tmp_path / str(stop)
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(name)

        def crash(*paths, stop=stop):
            calls.append(paths)
            if len(calls) > stop:
                raise KeyboardInterrupt
            rename(*paths)

        calls.clear()
        monkeypatch.setattr(os, "rename", crash)
        with contextlib.suppress(KeyboardInterrupt):
            stages.set_aside(str(out), ["dev2", "dev3", "r1"], preference.KINDS)
        there = set(os.listdir(out))
        assert all(origins[name] in there for name in there & origins.keys()), (stop, there)
        kept = [path.read_text() for path in out.rglob("*") if path.is_file()]
        assert sorted(kept) == sorted(names)  # under whatever name
    assert len(calls) == 9
    assert {name for name in there if "-" not in name} == {"zero", "dev1", "eval"}
    assert {name for name in os.listdir(out / "eval") if "-" not in name} == {"base.json"}


def written() -> list[float]:
    """When each stage's model was written."""
    return [os.path.getmtime(f"r/{stage}/model/model.safetensors") for stage in train_r1.STAGES]


def test_the_recipe_from_nothing_again_from_a_stage_and_resumed(
    known_tokenizer, tmp_path, monkeypatch, capsys
):
    """The whole path with models too small to be right: what they would be taught comes from the
    world instead."""

    def harvest(folder, problems, samples, most, cfg, path, seed, judge=None):
        with pytest.raises(ValueError, match="clean enough"):
            rejection.harvest(folder, problems, samples, most, cfg, path, seed)
        rows = [{"prompt": p.prompt, "task": p.task} for p in problems]
        for row, p in zip(rows, problems):
            row["response"] = f"<think>x</think><answer>{p.answer}</answer>"
        return rows

    monkeypatch.setattr(train_r1, "harvest", harvest)
    monkeypatch.chdir(tmp_path)
    flags = ["--out", "r", *FLAGS]
    status, _, err = run(monkeypatch, capsys, "train_r1", "--from", "dev2", *flags)
    assert status == 2 and "zero" in err and not os.listdir()
    status, out, _ = run(monkeypatch, capsys, "train_r1", *flags)
    assert status == 0 and "pretraining one first" in out and "\n| R1 " in out
    for stage in train_r1.STAGES:
        assert os.path.exists(f"r/{stage}/model/model.safetensors")
        assert os.path.exists(f"r/eval/{stage}.json")
    with open("r/stages.json") as f:
        figures = json.load(f)["figures"]
    assert list(figures) == ["base", "zero", "dev1", "dev2", "dev3", "r1"]
    assert figures["base"]["wins_over_base"] == 0.5 and figures["base"]["tokens"] > 0
    for key in ("reasoning", "helpfulness", "follows", "declined_harmful", "language_consistency"):
        assert 0 <= figures["r1"][key] <= 1
    with open("r/dev2/metrics.jsonl") as f:
        last = json.loads(f.readlines()[-1])
    assert figures["dev2"]["tokens"] == last["num_tokens"]
    assert figures["dev3"]["tokens"] > 500 and figures["dev3"]["minutes"] > 0
    assert os.path.exists("r/stages.png") and os.path.exists("r/helpful/accuracy.json")
    with open("r/report.html", encoding="utf-8") as f:
        text = f.read()
    assert "Held-out problems" in text and all(f"{s}/report.html" in text for s in train_r1.STAGES)

    status, _, err = run(monkeypatch, capsys, "train_r1", *flags)
    assert status == 2 and "--resume" in err
    first = written()
    status, _, err = run(monkeypatch, capsys, "train_r1", "--resume", *flags, "--seed", "7")
    assert status == 2 and "--seed 0, not 7" in err
    assert run(monkeypatch, capsys, "train_r1", "--resume", *flags)[0] == 0
    assert written() == first
    assert run(monkeypatch, capsys, "train_r1", "--from", "dev3", *flags)[0] == 0
    assert [a == b for a, b in zip(written(), first)] == [True, True, True, False, False]
    assert any(name.startswith("dev3-") for name in os.listdir("r"))

    for flag in ("--resume", "--from=r1"):
        another = ("--init", "r/dev1/model", *FLAGS[6:])
        status, _, err = run(monkeypatch, capsys, "train_r1", flag, "--out", "r", *another)
        assert status == 2 and "'r' was made from another base: name it with --init" in err
    assert os.path.exists("r/settings.json")

    os.makedirs("z")  # another run's Zero
    os.rename("r/zero/model", "z/model")
    other = ("--zero", "z", "--init", "r/base/model", "--out", "r", *FLAGS[6:])
    status, _, err = run(monkeypatch, capsys, "train_r1", "--resume", *other)
    assert status == 2 and "'r' was made from another zero: name it with --zero" in err
    flags[1] = "r2"
    status, _, err = run(monkeypatch, capsys, "train_r1", "--zero", "z", *flags)
    assert status == 2 and "there is no base in 'z/base/model': name it with --init" in err
    again = ["--zero", "z", "--init", "r/base/model", *flags[:2], *FLAGS[6:]]
    assert run(monkeypatch, capsys, "train_r1", *again)[0] == 0
    assert not os.path.exists("r2/zero") and os.path.exists("r2/r1/model/model.safetensors")
