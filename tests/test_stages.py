import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import run

import config
import distill
import inputs
import sft
import stages
import train_r1
from data import Problem, World
from eval import summarise
from lib import distributed
from lib import report as reports_lib
from lib.errors import UserError
from lib.files import write_lines


def sample(correct):
    s = {"problem": 0, "response": "", "answer": "1", "correct": correct, "format": 1.0}
    s |= {"length": 10, "finished": correct, "language_consistency": 0.5}
    return s | {"reflection_words": 2}


def report(task, pass1, qualities=()):
    samples = []
    for i, q in enumerate(qualities):
        more = {"helpfulness": q, "declined": q == 2, "harmful": i == 0}
        samples.append(sample(pass1) | more)
    r = summarise([Problem("", "1", task)], samples or [sample(True)], max(1, len(qualities)))
    r.pass1 = pass1
    return r


def test_win_rate_by_hand():
    ours, theirs = report("general", 0, (2, 1, 0, 2)), report("general", 0, (1, 1, 2, 0))
    assert stages.win_rate(ours, theirs) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert stages.win_rate(ours, ours) == 0.5


def test_stage_figures_and_table_by_hand():
    models = (("base", 0.1, 0.3, (0, 1)), ("one", 0.5, 0.7, (1, 1)), ("two", 0.9, 0.7, (1, 0)))
    reports = {}
    for name, a, b, q in models:
        tasks = {"arithmetic": report("arithmetic", a), "logic": report("logic", b)}
        reports[name] = tasks | {"general": report("general", 0, q)}
    figures = stages.stage_figures(reports)
    assert [figures[n]["reasoning"] for n in figures] == pytest.approx([0.2, 0.6, 0.8])
    assert [figures[n]["wins_over_base"] for n in figures] == [0.5, 0.75, 0.5]
    assert [figures[n]["wins_over_previous"] for n in figures] == [0.5, 0.75, 0.25]
    table = reports_lib.stage_table(figures)
    row = next(line for line in table.split("\n") if line.startswith("| two"))
    cells = [cell.strip() for cell in row.split("|")][2:5]
    assert cells == ["90.0 ± 0.0, 100.0", "70.0 ± 0.0, 100.0", "80.0"]
    assert len({line.count("|") for line in table.split("\n")}) == 1
    columns = reports_lib.REASONING_COLUMNS
    assert "wins" not in reports_lib.stage_table(figures, columns=columns)


def test_the_problem_with_the_largest_gain_is_shown():
    problems = [Problem("first?", "1", "logic"), Problem("second?", "1", "logic")]

    def of(*verdicts):
        samples = [sample(right) | {"response": f"{right} {i}"} for i, right in enumerate(verdicts)]
        return summarise(problems, samples, 2)

    text = stages.before_after(problems, of(True, False, False, False), of(True, True, False, True))
    assert text.split("\n") == [
        "[logic] first?",
        "  base (1 of 2 right): False 1",
        "  Zero (2 of 2 right): True 0",
    ]
    text = stages.before_after(problems, of(True, False, False, False), of(True, True, True, True))
    assert text.startswith("[logic] second?") and "base (0 of 2 right): False 2" in text


def base_args(init=None, *typed):
    return SimpleNamespace(init=init, typed=list(typed))


def test_what_the_base_comes_from_is_read_first(tiny_model, world_tokenizer, tmp_path):
    folder, cfg = str(tmp_path / "model"), config.make(sft.Config)
    tiny_model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"has no tokenizer|no model at"):
        inputs.check_base(cfg, base_args(folder))
    world_tokenizer.save(folder)
    inputs.check_base(cfg, base_args(folder))
    cfg.model.dim = 64
    inputs.check_base(cfg, base_args(folder))  # a preset's, nobody asked for it
    with pytest.raises(UserError, match=r"--model.dim is 32 in the model that --init names: drop"):
        inputs.check_base(cfg, base_args(folder, "model.dim"))
    cfg.model.dim = 32
    inputs.check_base(cfg, base_args(folder, "model.dim"))
    cfg.tokenizer = "nonsense"
    with pytest.raises(UserError, match="--tokenizer comes with"):
        inputs.check_base(cfg, base_args(folder, "tokenizer"))
    with pytest.raises(UserError, match="'nonsense' is neither"):
        inputs.check_tokenizer(cfg)


COMMANDS = """train_zero --yes
train_r1 --yes
distill --yes --data sft.jsonl
distill --yes --data sft.jsonl --init model
sft
sft --init model --data sft.jsonl
preference model
experiments.search model""".split("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_there_has_to_be_something_to_resume(
    command, tiny_model, world_tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("model")
    world_tokenizer.save("model")
    with open("sft.jsonl", "w") as f:
        f.write('{"prompt": "a", "response": "b"}\n')
    before, words = sorted(os.listdir()), command.split()
    status, _, err = run(monkeypatch, capsys, *words, "--resume", "--out", "nowhere")
    assert status == 2 and "no run in 'nowhere' to go on with" in err and err.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_a_folder_of_something_else_is_not_resumed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(UserError, match="to go on with: correct --out"):
            inputs.check_out(folder, True)
    (tmp_path / "status.json").write_text("{}")
    inputs.check_out(str(tmp_path), True)


def test_a_variable_left_from_another_program_starts_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    with distributed.started(config.make(sft.Config)):
        assert not torch.distributed.is_initialized()


def test_the_flops_of_runs_by_hand(tiny_model, tmp_path):
    """Of a parameter in use 2 for a token that is sampled, 6 for one that is learnt."""
    shape = tiny_model.cfg
    idle = len(tiny_model.moe_layers()) * (shape.n_experts - shape.n_experts_per_token)
    used = sum(p.numel() for p in tiny_model.parameters()) - idle * 3 * shape.dim * shape.expert_dim
    used -= 0 if shape.tie_embeddings else shape.vocab_size * shape.dim
    attention = stages.memory.cost_report(tiny_model, 1)["forward FLOPs a token"] - 2 * used
    assert 0 <= attention < 0.02 * used  # of one token
    rl = {"reward": 1.0, "timing/train_s": 2.0}
    steps = {"base": [{"num_tokens": 100}, {"num_tokens": 50}]}  # the second: the count so far
    steps["RL-alone"] = [rl | {"num_tokens": n, "throughput/train_tok_s": 10.0} for n in (40, 70)]
    for way, rows in steps.items():
        rows = [r | {"stage": "x", "step": k, "step_time": 30.0} for k, r in enumerate(rows)]
        tiny_model.save_pretrained(str(tmp_path / "d" / way / "model"))
        write_lines(str(tmp_path / "d" / way / "metrics.jsonl"), rows)
    own = stages.effort(str(tmp_path / "d/RL-alone"))
    assert (own["tokens"], own["minutes"]) == (70, 1.0)
    forward = 2 * used + attention
    assert own["flops"] == pytest.approx(forward * 70 + 3 * forward * 40)
    both = 3 * forward * 150 + own["flops"]
    assert distill.flops(str(tmp_path / "d"), "RL-alone") == pytest.approx(both)
    assert stages.effort(str(tmp_path / "nowhere")) == {}
    os.remove(tmp_path / "d/base/model/config.json")  # somebody made room
    assert stages.effort(str(tmp_path / "d/base")).keys() == {"tokens", "minutes"}


def test_r1_s_own_base_reads_more_of_the_other_tasks_and_zero_s_does_not():
    cfg = config.make(train_r1.Config)
    own = stages.own_base(cfg)
    assert own.sft.tokens == 14_800_000 and cfg.sft.tokens == 8_000_000
    assert own.world == replace(cfg.world, logic=1.5, minor=0.6)
    assert cfg.world.logic == cfg.world.minor == 0.15


def test_an_evaluation_is_kept_for_its_own_problems(tiny_model, world_tokenizer, tmp_path):
    folder, path = str(tmp_path / "m"), str(tmp_path / "eval.json")
    tiny_model.save_pretrained(folder)
    world_tokenizer.save(folder)
    cfg = config.make(train_r1.Config)
    cfg.eval = replace(cfg.eval, k=2, max_new_tokens=4)
    easy = World(0, cfg.world).problems("arithmetic", 3, "test")
    sets = {"few": easy[:1], "more": easy}

    def asked(sets):
        found = stages.evaluate_stage(cfg, "m", folder, path, sets=sets)
        return {name: r.problems for name, r in found.items()}

    assert asked(sets) == {"few": 1, "more": 3}
    with pytest.MonkeyPatch.context() as m:
        m.delattr(stages.evaluation, "evaluate_folder")
        assert asked(sets) == {"few": 1, "more": 3}
    assert asked({"few": easy[1:]}) == {"few": 2}
