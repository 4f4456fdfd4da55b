"""Aggregation over seeds, on runs written by hand; the rule of the verdicts; every experiment, tiny."""

import itertools
import json
import math
import os
import re
import shutil
import sys

import pytest

import config
import eval as evaluation
import experiments
import findings
import grpo
import preference
import rewards as rw
import search
import sft
import train_r1
from data import Problem


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
                                         "figures": {"qwen-m": {"base": figures(0.1), "distilled": figures(value), "RL alone": figures(0.15), "distilled + RL": figures(value + 0.1)}}
                                         | ({"llama-s": {"base": figures(0.3)}} if folder == "runs/distill" else {})})
    out = main(monkeypatch, capsys, "distill", "--seeds", "0,1")
    assert "30.0 ± 14.1" in next(line for line in out.split("\n") if line.startswith("| qwen-m, distilled |"))
    assert "| 30.0 |" in next(line for line in out.split("seed 0:")[1].split("\n") if line.startswith("| llama-s, base |"))  # of one seed
    with open("results/distill.json") as f:
        assert json.load(f)["mean"]["qwen-m, distilled"]["reasoning"] == pytest.approx(0.3)


def test_list_and_mistakes(monkeypatch, capsys):
    assert "zero" in main(monkeypatch, capsys, "list")
    for argv, told in ((("chess",), "there is no experiment 'chess'; the experiments are zero,"), (("zero", "--seeds", "a"), "--seeds should be numbers")):
        with pytest.raises(SystemExit) as stop:
            main(monkeypatch, capsys, *argv)
        assert stop.value.code == 2 and told in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(("differences", "expected"), [
    ([1.0, 2.0, 3.0], "seen"),  # mean 2, deviation 1, standard error 0.577
    ([0.0, 1.0, 2.0], "not seen"),  # mean 1, twice the error 1.155
    ([0.2, 1.2, 2.2], "seen"),  # mean 1.2
    ([-0.2, -1.2, -2.2], "the opposite"),
    ([0.0, -1.0, -2.0], "not seen"),
    ([0.5, 0.5], "seen"), ([-0.5, -0.5], "the opposite"), ([0.0, 0.0], "not seen"), ([9.0], "not seen")])
def test_the_rule_by_hand(differences, expected):
    assert findings.verdict(differences) == expected


def test_comparisons_are_seed_by_seed():
    row = findings.compare("c", "p", [0.2, 0.5, 0.8], [0.1, 0.4, 0.7])  # seeds differ far more than the two do in one of them
    assert row == {"claim": "c", "paper": "p", "ours": "50.0 ± 30.0 against 40.0 ± 30.0; difference 10.0 ± 0.0", "verdict": "seen"}
    assert findings.compare("c", "p", [0.1, 0.5], [0.5, 0.1])["verdict"] == "not seen"
    behind = [0.46, 0.47, 0.48], [0.5, 0.5, 0.5]  # 3 behind, standard error 0.577
    assert findings.compare("c", "p", *behind)["verdict"] == "the opposite" and findings.compare("c", "p", *behind, margin=0.05)["verdict"] == "seen"
    assert findings.compare("c", "p", [3.0, 5.0], unit=1)["ours"] == "4 ± 1.4"
    assert findings.compare("c", "p", [30.0, 50.0], 10.0, unit=1)["ours"] == "40 ± 14 against 10; difference 30 ± 14"
    assert findings.compare("c", "p", [0.3], [0.1])["ours"] == "30 (one seed) against 10 (one seed); difference 20 (one seed)"


def test_the_table_of_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = {"claim": "critics cost", "paper": "yes", "ours": "2 against 1", "verdict": "seen"}
    write("results/ppo.json", {"minutes": 12.4, "claims": [row, row | {"claim": "lambda matters", "verdict": "not seen"}]})
    write("results/search.json", {"claims": [row | {"claim": "trees fail"}]})
    stages = [{"zero": v, "dev1": v - 0.1, "dev2": v, "dev3": v, "r1": v + d} for v, d in ((0.5, 0.1), (0.6, 0.2))]
    write("results/r1.json", {"minutes": [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}],
                              "runs": [{m: dict.fromkeys(("reasoning", "helpfulness", "language_consistency"), v) for m, v in s.items()} for s in stages]})
    value = {key: {"values": [0.1, 0.2]} for key in ("pass1", "mean_length", "cons")}
    write("results/zero.json", {"k": 4, "figures": {"code": {"base": value, "zero": value}}, "training_minutes": {s: {"values": [1.0, 2.0]} for s in ("base", "zero")}})
    out = main(monkeypatch, capsys, "table")
    assert out.startswith(findings.RULE)
    assert "| critics cost | yes | 2 against 1 | seen | `python experiments.py ppo` | 12 |" in out and "| lambda matters | yes | 2 against 1 | not seen |" in out
    assert "| trees fail | yes | 2 against 1 | seen | `python experiments.py search` |  |" in out
    line = {line.split(" | ")[0]: line for line in out.split("\n")}
    assert "| 60.0 ± 14.1 |" not in out and "70.0 ± 14.1 against 55.0 ± 7.1; difference 15.0 ± 7.1 | seen | `python experiments.py r1` | 10 |" in line["| R1 reasons better than Dev3"]
    assert "| seen |" in line["| Dev1 loses reasoning against Zero"] and "| not seen |" in line["| Dev3 reasons better than Dev2"]
    assert "| not seen | `python experiments.py zero` | 6 |" in line["| code: RL alone raises pass@1"]
    missing = out.split("missing: ")[1]
    assert "`python experiments.py distill`" in missing and "experiments.py ppo" not in missing and "search" not in missing


# ---------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize(("n", "c", "k"), [(12, 3, 8), (16, 1, 8), (18, 2, 16), (16, 0, 16), (16, 5, 12)])
def test_pass_at_large_k_is_the_share_of_all_choices(n, c, k):
    choices = [min(chosen) < c for chosen in itertools.combinations(range(n), k)]  # the first c samples are right
    assert evaluation.pass_at_k(n, c, k) == pytest.approx(sum(choices) / len(choices))


def test_votes_of_every_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = findings.make(0, ["--quick"])
    problem = evaluation.held_out(cfg.world, findings.replace(cfg.eval, problems=1), ("arithmetic",))["arithmetic"][0]
    texts = [f"<think>x</think><answer>{a}</answer>" for a in ("999", problem.answer, problem.answer, problem.answer)] * 4
    report = evaluation.summarise([problem], evaluation.score_texts([problem], [(0, t, 5, True) for t in texts]), 16)
    monkeypatch.setattr(findings, "both", lambda seed, flags: {"Zero": {"arithmetic": report}})
    content, _ = findings.voting([0], ["--quick"])
    # alone 3 of 4 are right; of two, wrong and right is a tie, which the first wins; of four, three win
    assert content["runs"][0]["arithmetic"] == {"1": 0.75, "2": 0.5, "4": 1.0}


def test_journeys_and_shortcuts_tell_of_the_same_problems():
    cfg = config.make("tiny")
    rows = findings.journeys(cfg, 40)
    assert len(rows["journey"]) == len(rows["shortcut"]) == 40
    seen = set()
    for long, brief in zip(rows["journey"], rows["shortcut"]):
        assert long["prompt"] == brief["prompt"] and rw.reflection_words(long["response"]) and not rw.reflection_words(brief["response"])
        seen.add(is_countdown := long["prompt"].startswith(("Use", "用")))
        answers = [rw.extract_answer(row["response"]) for row in (long, brief)]
        assert all(rw.format_reward(row["response"]) for row in (long, brief))
        if is_countdown:
            *numbers, target = map(int, re.findall(r"\d+", long["prompt"]))
            assert all(rw.countdown_correct(a, numbers, target) for a in answers) and findings.tries(brief["response"]) == 1
        else:
            start, *changes = re.findall(r"(?:(loses|sells|gives|breaks|丢了|卖掉|送出|打破) ?)?(\d+)", long["prompt"])
            assert answers == [str(int(start[1]) + sum(-int(n) if verb else int(n) for verb, n in changes))] * 2
    assert seen == {True, False}


def test_how_a_model_searches():
    def sample(problem, n, right):
        return {"problem": problem, "response": "<think>" + ",".join(["1+1=2 want 3 low"] * n) + "</think>", "correct": right}

    samples = [sample(0, 1, True), sample(0, 3, False), sample(1, 2, True), sample(1, 2, False), sample(1, 4, True), sample(2, 0, False)]
    r = evaluation.Report(task="countdown", problems=3, k=2, pass1=0.5, pass1_se=0, cons=0, passk=0, format=0, language_consistency=0, mean_length=7.0, clipped=0,
                          reflection_words=0, samples=samples)
    assert findings.search_figures(r) == {"accuracy": 0.5, "length": 7.0, "tries": 2.0, "retries": 4 / 6, "right_if_retried": 0.5, "right_within_3": 2 / 6, "right_within_10": 0.5}
    assert findings.hits(r, 4) == [1 / 5, 1 / 4, 0.0, 1.0] and math.isnan(findings.hits(r, 5)[4])
    assert findings.tries("<think>1+1=2要3小了,1+2=3要3对了</think><answer>1+2</answer>") == 2


def test_blind_guessing():
    def chance(task, prompt, **tests):
        return findings.blind(Problem(prompt, "", task, tests=tests), 1)

    assert chance("arithmetic", "") == 1 / 21 and chance("code", "") == 0
    assert chance("logic", "F比B高。C比B矮。谁最矮?") == chance("logic", "B is taller than A. A is taller than C. Who is tallest?") == 1 / 3
    assert chance("countdown", "", numbers=[2, 2], target=4) == pytest.approx(1 / 2, abs=0.05)  # of +, -, *, / two


# ---------------------------------------------------------------------------------------------- every experiment

TINY = {"model.dim": 16, "model.n_layers": 2, "model.n_heads": 2, "model.hidden_dim": 24, "model.n_experts": 4, "model.expert_dim": 8, "model.kv_lora_rank": 8,
        "model.qk_nope_head_dim": 8, "model.qk_rope_head_dim": 8, "model.v_head_dim": 8, "grpo.tasks": "arithmetic", "grpo.steps": 1, "grpo.problems_per_step": 2,
        "grpo.group_size": 2, "grpo.max_new_tokens": 6, "sft.tokens": 600, "sft.tokens_per_step": 300, "eval.problems": 2, "eval.k": 2, "eval.max_new_tokens": 6}


@pytest.fixture
def workplace(tmp_path, monkeypatch, world_tokenizer):
    """A folder with what the recipes would have left: untrained models, and metrics written by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(findings, "QUICK", TINY)
    monkeypatch.setattr(findings, "recipe", lambda script, seed, out, result, flags: None if os.path.exists(out) else pytest.fail(f"{out} is missing"))
    monkeypatch.setattr(experiments.parallel, "provenance", lambda command: {"command": command})
    monkeypatch.setattr(sft, "corpus_tokenizer", lambda cfg: world_tokenizer)
    cfg = findings.make(0, ["--quick"])

    def model(folder, score=False):
        gpt = sft.build(cfg, world_tokenizer)
        (preference.RewardModel(gpt) if score else gpt).save_pretrained(folder)
        world_tokenizer.save(folder)

    model("runs/zero-0-quick/base/model")
    for folder in ("runs/zero-0-quick/model", "runs/r1-0-quick/r1/model"):
        shutil.copytree("runs/zero-0-quick/base/model", folder)
    for kind in preference.KINDS:
        model(f"runs/r1-0-quick/{kind}/model", True)
    with open("runs/zero-0-quick/metrics.jsonl", "w") as f:
        f.writelines(json.dumps({"step": i, "step_time": 1.0, "code/accuracy": 0.1 + 0.02 * i, "code/mean_length": 20.0 + i % 2, "reflection_words": 0.3 - 0.01 * i,
                                 "language_consistency": 1 - 0.05 * i}) + "\n" for i in range(1, 11))
    write("runs/findings/search-0-quick/search.json", {"reward_models": {}, "table": [{"method": m, "budget": b, "accuracy": 0.4 + 0.1 * b, "tokens": 10.0 * b}
                                                                             for m in search.METHODS for b in (1, 2)]})
    write("runs/zero-0-quick/eval.json", {"reports": [{"model": m, "language_consistency": v} for m, v in (("base", 0.9), ("zero", 0.7), ("zero", 0.5))]})


def finite(x):
    return all(map(finite, x.values() if isinstance(x, dict) else x)) if isinstance(x, dict | list) else not isinstance(x, float) or math.isfinite(x)


@pytest.mark.parametrize("name", [n for n in experiments.EXPERIMENTS if n not in ("zero", "r1", "language", "distill")])
def test_every_experiment_tiny(workplace, monkeypatch, capsys, name):
    monkeypatch.setattr(train_r1, "harvest", lambda folder, problems, samples, most, cfg, path, seed: findings.journeys(cfg, 20)["shortcut"])
    out = main(monkeypatch, capsys, name, "--quick")
    with open(f"results/{name}-quick.json") as f:
        result = json.load(f)
    assert result["command"] == f"python experiments.py {name} --seeds 0 --quick" and result["seeds"] == [0] and result["minutes"] >= 0
    assert result["mean"] and finite(result) and all(result["runs"][0][m].keys() == row.keys() for m, row in result["mean"].items())
    assert result["claims"] and all(set(c) == {"claim", "paper", "ours", "verdict"} and c["verdict"] == "not seen" for c in result["claims"])  # one seed
    assert all(f"| {c['claim']} |" in out for c in result["claims"])
    with open(f"results/{name}-quick.png", "rb") as f:
        assert f.read(8) == b"\x89PNG\r\n\x1a\n"
    if name == "growth":
        assert result["mean"]["code/accuracy"] == pytest.approx({"slope_of_10_steps": 0.2, "first": 0.16, "last": 0.26})
        assert result["mean"]["reflection_words"]["slope_of_10_steps"] == pytest.approx(-0.1)
    if name == "search":
        assert "difference -10 (one seed)" in next(c["ours"] for c in result["claims"] if "chooses worse" in c["claim"])
        assert result["mean"]["beam, 2"] == pytest.approx({"accuracy": 0.6, "tokens": 20.0})
    if name == "mixing":
        assert result["mean"] == {"training": pytest.approx({"first": 0.85, "last": 0.6, "lowest": 0.5}), "held out": pytest.approx({"base": 0.9, "zero": 0.6})}
    if name == "ppo":
        assert result["mean"]["ppo"]["critic_mib"] > 0 == result["mean"]["grpo"]["critic_mib"]
        monkeypatch.setattr(grpo, "step", lambda *a, **k: pytest.fail("a finished run was made again"))
        assert findings.ppo([0], ["--quick"])[0]["mean"] == result["mean"]


def test_a_run_with_other_settings_is_not_taken_for_this_one(workplace):
    base, out = "runs/zero-0-quick/base/model", "runs/findings/x"
    findings.reinforce(findings.make(0, ["--quick"]), base, out)
    with pytest.raises(ValueError, match=r"grpo.*lr"):
        findings.reinforce(findings.make(0, ["--quick"], {"grpo.lr": 1e-5}), base, out)
