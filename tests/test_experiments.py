"""Aggregation over seeds, on runs written by hand; the rule of verdicts; every experiment, tiny.

test_algorithms.py, test_ppo.py and test_search.py are about the other files of the package."""

import doctest
import importlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
import time

import pytest
from conftest import FORKS, run

import config
import grpo
import preference
import rejection
import rewards as rw
import sft
import stages
import train_r1
import train_zero
from data import Problem, World, split_of
from experiments import __main__ as experiments
from experiments import behaviour, common, controls, recipes, search, settings, training_data
from experiments.common import Plan, claims, compare, verdict
from lib import report
from lib.errors import UserError
from lib.files import load_json
from lib.memory import cost_report
from lib.stats import pass_at_k
from model import GPT
from reward_model import RewardModel


def test_doctests():
    assert doctest.testmod(common).failed == 0


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(content, f)


def main(monkeypatch, capsys, *argv):
    """What the command prints, without the spaces that align tables."""
    status, out, err = run(monkeypatch, capsys, "experiments.__main__", *argv)
    assert status == 0, err
    return "\n".join(" ".join(line.split()) for line in out.split("\n"))


@pytest.fixture
def nothing_runs(tmp_path, monkeypatch):
    """In an empty folder, where no recipe may be run."""
    monkeypatch.chdir(tmp_path)

    def fail(*args, **kwargs):
        pytest.fail("a finished seed was run again")

    def provenance(command):  # the real one asks the system by a subprocess
        return {"command": command, "date": "today", "hardware": "a machine"}

    monkeypatch.setattr(common, "run_script", fail)
    monkeypatch.setattr(report, "provenance", provenance)


# ------------------------------------------------------------------------------ the recipes


def fake_run(folder, pass1):
    row = dict(task="arithmetic", k=4, pass1_se=0.01, cons=0.9, passk=1.0, format=0.5)
    row |= dict(language_consistency=1.0, mean_length=20.0, reflection_words=0.1)
    reports = [row | {"model": "base", "pass1": 0.1}, row | {"model": "zero", "pass1": pass1}]
    write(f"{folder}/eval.json", {"reports": reports, "minutes": 1.0})
    did = {"reasoned": 0.5, "right_reasoned": None, "right_blurted": 0.1, "did": {"steps": pass1}}
    parts = dict(mode=0.1, finishing=0.0, sharpening=0.2, rest=pass1 - 0.4)
    gain = {"gains": {"arithmetic": parts}, "reports": [r | did for r in reports]}
    write(f"{folder}/gain.json", gain)
    os.makedirs(f"{folder}/base")
    for place, times in (("base", [60, 60]), ("", [30])):
        rows = [{"stage": "any", "step": i, "step_time": t} for i, t in enumerate(times)]
        with open(os.path.join(folder, place, "metrics.jsonl"), "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
    with open(f"{folder}/curves.png", "wb") as f:
        f.write(b"png")


def test_mean_and_spread_over_finished_runs(nothing_runs, monkeypatch, capsys):
    fake_run("runs/zero", 0.7)
    fake_run("runs/zero-1", 0.9)
    out = main(monkeypatch, capsys, "zero", "--seeds", "0,1")
    assert "| arithmetic | zero | 80.0 ± 127.1 |" in out
    assert "| arithmetic | base | 10.0 ± 0.0 |" in out
    with open("runs/results/zero.json") as f:
        result = json.load(f)
    assert result["figures"]["arithmetic"]["zero"]["pass1"]["values"] == [0.7, 0.9]
    assert result["seeds"] == [0, 1]
    assert result["gains"]["arithmetic"]["rest"]["values"] == pytest.approx([0.3, 0.5])
    assert "| +10.0 ± 0.0 | +0.0 ± 0.0 | +20.0 ± 0.0 | +40.0 ± 127.1 |" in out
    assert result["behaviour"]["arithmetic, zero"]["steps"]["mean"] == pytest.approx(0.8)
    assert "right_reasoned" not in result["behaviour"]["arithmetic, base"]
    minutes = result["training_minutes"]
    assert minutes["base"]["mean"] == 2.0 and minutes["zero"]["mean"] == 0.5
    assert {"date", "hardware", "command"} <= result.keys()
    assert os.path.exists("runs/results/zero.png") and not os.path.exists("results")


def test_a_run_of_an_earlier_version_is_named(nothing_runs, monkeypatch, capsys):
    fake_run("runs/zero", 0.7)
    os.remove("runs/zero/gain.json")
    argv = ["experiments.__main__", "zero", "--seeds", "0"]
    status, _, err = run(monkeypatch, capsys, *argv)
    assert status == 2 and "an earlier version made the run in 'runs/zero'" in err


def test_a_result_of_more_seeds_is_not_replaced(nothing_runs, monkeypatch, capsys):
    stored = {"seeds": [0, 1, 2], "claims": []}
    for folder in ("results", "runs/results"):
        write(f"{folder}/zero.json", stored)
        flags = ["--out", folder] if folder == "results" else []
        argv = ["experiments.__main__", "zero", "--seeds", "0,1,0", *flags]
        status, _, err = run(monkeypatch, capsys, *argv)
        told = f"'{folder}/zero.json' has 3 seeds, and this run would replace them by 2"
        assert status == 2 and told in err and "--out" in err
        assert load_json(f"{folder}/zero.json") == stored
    for i in range(3):
        fake_run(f"runs/zero-{i}" if i else "runs/zero", 0.7)
    main(monkeypatch, capsys, "zero", "--out", "results")
    assert "figures" in load_json("results/zero.json")
    assert load_json("runs/results/zero.json") == stored
    with open("results/zero.json", "w") as f:
        f.write("{")
    for argv in (["zero", "--out", "results"], ["table"]):
        status, _, err = run(monkeypatch, capsys, "experiments.__main__", *argv)
        assert status == 2 and "'results/zero.json' is damaged: restore it" in err
    os.mkdir("one")
    shutil.copy(os.path.join(os.path.dirname(config.__file__), "results", "few.json"), "one")
    assert "missing: " in main(monkeypatch, capsys, "table", "--out", "one")
    status, _, err = run(monkeypatch, capsys, "experiments.__main__", "table", "--out", "elsewhere")
    assert status == 2 and "there are no results in 'elsewhere': correct --out" in err


CHILD = """
import os, signal, sys, time

def stop(number, frame):
    with open("signals", "a") as f:
        f.write(f"{number} ")

signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
open("started", "w").close()
while not os.path.exists("signals"):
    time.sleep(0.01)
time.sleep(0.5)  # the step is finished
open("saved", "w").close()
sys.exit(130)
"""


def run_in_terminal(folder):
    os.setsid()  # a process group of its own, as a terminal's command has
    os.chdir(folder)
    with open("err", "w") as err:
        os.dup2(err.fileno(), 2)
    sys.argv = ["experiments/__main__.py", "zero", "--seeds", "0"]
    experiments.main()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_recipe_save(tmp_path, number):
    """Ctrl-C goes to both processes of the terminal's group, SIGTERM to the parent alone."""
    (tmp_path / "train_zero.py").write_text(CHILD)
    process = FORKS.Process(target=run_in_terminal, args=(str(tmp_path),))
    process.start()
    while not (tmp_path / "started").exists():
        assert process.is_alive()
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130 and (tmp_path / "saved").exists()
    assert (tmp_path / "signals").read_text().split() == [str(int(number))]
    told = "stopped; the work so far is in runs/: go on with the same command, "
    assert (tmp_path / "err").read_text().strip() == f"{told}python -m experiments zero ..."


def test_a_recipe_that_fails_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_zero.py").write_text("import sys; sys.exit(7)")
    status, _, err = run(monkeypatch, capsys, "experiments.__main__", "zero")
    assert status == 2 and "train_zero.py for 'runs/zero' ended with status 7" in err
    assert not os.path.exists("runs/results/zero.json")


def figures(reasoning):
    tasks = ("arithmetic", "countdown", "code", "logic")
    keys = [f"{t}{suffix}" for t in tasks for suffix in ("", "_se", "_cons", "_length")]
    row = dict.fromkeys([*keys, *report.STAGE_COLUMNS, "mean_length"], 0.5)
    return row | {"reasoning": reasoning, "flops": 1e13}


def line_of(text, start):
    return next(line for line in text.split("\n") if line.startswith(start))


def test_the_stage_table_and_the_students_over_seeds(nothing_runs, monkeypatch, capsys):
    for folder, value in (("runs/r1", 0.6), ("runs/r1-1", 0.8)):
        rows = {name: figures(value) for name in train_r1.NAMES}
        write(f"{folder}/stages.json", {"figures": rows})
        for kind in ("helpful", "safe"):
            write(f"{folder}/{kind}/accuracy.json", {"held_out": 8, "accuracy": value})
    out = main(monkeypatch, capsys, "r1", "--seeds", "0,1")
    row = line_of(out, "| R1 |")
    assert "| 70.0 ± 127.1 |" in row and "| 50.0 ± 0.0, 50.0 |" in row
    assert os.path.exists("runs/results/r1.png")
    for folder, value in (("runs/distill", 0.2), ("runs/distill-1", 0.4)):
        ways = {"base": figures(0.1), "distilled": figures(value), "RL-alone": figures(0.15)}
        students = {"qwen-m": ways | dict.fromkeys(("distilled-RL", "on-policy"), figures(value))}
        students["llama-s"] = {"base": figures(value + 0.1)}
        content = {"examples": 5, "budget": {}, "parameters": {"qwen-m": 9}, "figures": students}
        content["teacher_flops"] = 4e14
        write(f"{folder}/distill.json", content)
    own = {"runs/distill": 0.1, "runs/distill-1": 0.2}
    monkeypatch.setattr(recipes, "own_samples", lambda plan, seed, run: figures(own[run]))
    out = main(monkeypatch, capsys, "distill", "--seeds", "0,1")
    assert "30.0 ± 127.1" in line_of(out, "| qwen-m, distilled |")
    assert "| 30.0 |" in line_of(out.split("seed 0:")[1], "| llama-s, base |")  # of one seed
    with open("runs/results/distill.json") as f:
        result = json.load(f)
    assert result["mean"]["qwen-m, distilled"]["reasoning"] == pytest.approx(0.3)
    assert result["mean"]["qwen-m, own-samples"]["reasoning"] == pytest.approx(0.15)
    assert "difference 15.0 ±" in result["claims"][-1]["ours"]
    assert list(result["others"]) == ["llama-s, base"] and result["examples"] == [5, 5]
    assert result["teacher_flops"] == [4e14, 4e14]


def test_the_commands_that_recipes_are_run_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr(common, "run_script", lambda command: commands.append(command[1:]))
    plan = Plan("search", [0, 1])
    assert plan.zero(0) == "runs/zero" and plan.r1(1) == "runs/r1-1"
    os.makedirs("runs/zero-1-quick")  # an interrupted run
    assert Plan("zero", [1], True).zero(1) == "runs/zero-1-quick"
    write("runs/zero/eval.json", {})
    write("runs/zero/config.json", {"seed": 1})
    with pytest.raises(UserError, match="'runs/zero' holds a run of seed 1, and seed 0 belongs"):
        plan.zero(0)
    write("runs/zero/config.json", {"seed": 0})
    assert plan.zero(0) == "runs/zero"
    flags, (first, second, third) = "--seed 1 --out", (" ".join(c) for c in commands)
    assert first == "train_zero.py --seed 0 --out runs/zero"
    assert second == f"train_r1.py {flags} runs/r1-1"
    assert third.startswith(f"train_zero.py {flags} runs/zero-1-quick --sft.tokens=4000000 --world")
    assert third.endswith(" --resume")


@pytest.mark.parametrize("name", ["train_zero", "train_r1", "distill", "experiments.search"])
def test_recipes_know_their_few_minute_settings(name):
    quicks = {"train_zero": train_zero.QUICK, "train_r1": common.R1_QUICK}
    quicks |= {"distill": common.R1_QUICK | recipes.QUICK, "experiments.search": search.QUICK}
    cfg = importlib.import_module(name).Config()
    for key, value in quicks[name].items():
        config.set_key(cfg, key, str(value))
    config.check(cfg)


def test_check_misses_nothing_that_is_stored(tmp_path):
    with open(os.path.join(os.path.dirname(config.__file__), "results", "few.json")) as f:
        good = json.load(f)

    def checked(change):
        content = json.loads(json.dumps(good))
        change(content)
        write(str(tmp_path / "few.json"), content)
        return experiments.check(str(tmp_path))

    assert checked(lambda c: None) == []
    assert checked(lambda c: c["claims"].clear()) == ["few: 0 claims, not 4"]
    assert checked(lambda c: c.update(seeds=[0, 1])) == ["few: 2 seeds, not 3"]
    assert checked(lambda c: c["mean"].update(ghost={"x": 1.0})) == ["few: mean of ghost, x"]
    assert len(checked(lambda c: c.pop("half"))) > 50
    for change in (
        lambda c: c.update(stated=None),
        lambda c: [c.pop(k) for k in list(c) if k != "seeds"],
    ):
        with pytest.raises(UserError, match="is damaged: restore it"):
            checked(change)
    os.remove(tmp_path / "few.json")
    with pytest.raises(UserError, match="there are no results in"):
        experiments.check(str(tmp_path))


def test_a_base_of_other_settings_is_kept_and_the_advice_fits(workplace, monkeypatch, capsys):
    def base(self, seed):
        raise UserError("'runs/zero/base' was started with --seed 1: name another --out")

    monkeypatch.setattr(Plan, "base", base)
    status, _, err = run(monkeypatch, capsys, "experiments.__main__", "few", "--quick")
    assert status == 2 and err.strip().endswith("--seed 1: move the folder away")


def test_list_and_mistakes(monkeypatch, capsys):
    listed = main(monkeypatch, capsys, "list").split("\n")
    assert [line.split()[0] for line in listed if line] == list(experiments.EXPERIMENTS)
    assert "a small dense student of R1, by RL alone, by both" in "".join(listed)
    mistakes = {
        ("chess",): "there is no experiment 'chess'; there are list, table, zero,",
        ("pask",): "the nearest is 'passk'",
        ("zero", "--seeds", "a"): "--seeds should be numbers",
        ("zero", "--seeds", "0,9999999999"): "--seeds should be numbers below 1e9",
        ("few", "--check"): "--check belongs to table",
        ("list", "--seeds", "0"): "--seeds and --quick belong to an experiment",
        ("tabel",): "the nearest is 'table'",
    }
    for argv, told in mistakes.items():
        status, _, err = run(monkeypatch, capsys, "experiments.__main__", *argv)
        assert status == 2 and told in err
    monkeypatch.setattr(sys, "argv", [experiments.__file__, "chess"])  # as python -m has it
    with pytest.raises(SystemExit):
        experiments.main()
    assert capsys.readouterr().err.startswith("experiments: there is no")
    with pytest.raises(SystemExit):
        monkeypatch.setattr(sys, "argv", [experiments.__file__, "--help"])
        experiments.main()
    assert capsys.readouterr().out.startswith("usage: python -m experiments ")


# ------------------------------------------------------------------------------ claims


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.5, 2.5, 3.5], "seen"),  # mean 2.5, deviation 1, half of the interval 4.303 * 0.577
        ([1.4, 2.4, 3.4], "inconclusive"),  # 2.4 < 2.484
        ([-1.5, -2.5, -3.5], "the opposite"),
        ([-1.4, -2.4, -3.4], "inconclusive"),
        ([0.5, 0.5], "seen"),
        ([-0.5, -0.5], "the opposite"),
        ([0.0, 0.0], "inconclusive"),
        ([9.0], "inconclusive"),
    ],
)
def test_the_rule_by_hand(differences, expected):
    assert verdict(differences) == expected


def test_comparisons_are_seed_by_seed():
    # seeds differ far more than the two do in one of them
    row = compare("c", "p", [0.2, 0.5, 0.8], [0.1, 0.4, 0.7])
    ours = "50.0 ± 74.5 against 40.0 ± 74.5; difference 10.0 ± 0.0"
    assert row == {"claim": "c", "paper": "p", "ours": ours, "verdict": "seen", "p": 0.0}
    assert compare("c", "p", [0.1, 0.5], [0.5, 0.1])["verdict"] == "inconclusive"
    behind = [0.465, 0.47, 0.475], [0.5, 0.5, 0.5]  # 3 behind, half of the interval 1.24
    assert compare("c", "p", *behind)["verdict"] == "the opposite"
    assert compare("c", "p", *behind, margin=0.05)["verdict"] == "seen"
    assert compare("c", "p", [3.0, 5.0], unit=1)["ours"] == "4 ± 12.7"
    against = compare("c", "p", [30.0, 50.0], [10.0, 10.0], unit=1)["ours"]
    assert against == "40 ± 127 against 10 ± 0; difference 30 ± 127"
    one = compare("c", "p", [0.3], [0.1])["ours"]
    assert one == "30.0 (one seed) against 10.0 (one seed); difference 20.0 (one seed)"


def test_claims_are_read_from_their_text():
    b = {"accuracy": 0.2, "length": 10.0}
    runs = [{"a": {"accuracy": v, "length": 30.0}, "b": b} for v in (0.54, 0.56)]
    text = """
a > b: a is better | paper 1: x
length of a > 2 x b: a is longer
a ~ b | paper 2
a - b: there is a difference
0.9 > a
"""
    rows = claims(runs, text)
    told = [(row["claim"], row["paper"], row["ours"]) for row in rows]
    assert told == [
        ("a is better", "paper 1: x", "55.0 ± 12.7 against 20.0 ± 0.0; difference 35.0 ± 12.7"),
        ("a is longer", "paper 1: x", "30 ± 0 against 20 ± 0; difference 10 ± 0"),
        ("a is about as good as b", "paper 2", told[0][2]),
        ("there is a difference", "paper 2", "35.0 ± 12.7"),
        ("0.9 ends above a", "paper 2", "90.0 ± 0.0 against 55.0 ± 12.7; difference 35.0 ± 12.7"),
    ]
    assert claims(runs, "b ~ a")[0]["verdict"] == "the opposite"
    close = [{"a": {"accuracy": 0.5}, "b": {"accuracy": 0.5 + d}} for d in (0.02, 0.021)]
    assert [claims(close, f"a {sign} b")[0]["verdict"] for sign in ">~"] == ["the opposite", "seen"]


def test_the_table_of_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = {
        "claim": "critics cost",
        "paper": "yes",
        "ours": "2 against 1",
        "verdict": "seen",
        "p": 0,
    }
    other = row | {"claim": "lambda matters", "verdict": "inconclusive"}
    write("results/ppo.json", {"minutes": 12.4, "claims": [row, other]})
    write("results/search.json", {"claims": [row | {"claim": "trees fail", "p": 0.049}]})
    runs, keys = [], ("reasoning", "helpfulness", "language_consistency", "follows")
    for v, d in ((0.54, 0.1), (0.56, 0.11)):
        values = {"zero": v, "dev1": v - 0.1, "dev2": v, "dev3": v, "r1": v + d}
        runs.append({m: dict.fromkeys(keys, value) for m, value in values.items()})
    write("results/r1.json", {"runs": runs, "stated": common.CLAIMS["r1"]})
    keys = ("pass1", "mean_length", "cons", "language_consistency")
    value = {key: {"values": [0.1, 0.2]} for key in keys}
    write("results/zero.json", {"k": 4, "figures": {"code": {"base": value, "zero": value}}})
    out = main(monkeypatch, capsys, "table")
    assert out.startswith(common.RULE)
    command = "`python -m experiments"
    assert f"| critics cost | yes | 2 against 1 | seen | {command} ppo` |" in out
    assert "| lambda matters | yes | 2 against 1 | inconclusive |" in out
    assert f"| trees fail | yes | 2 against 1 | seen * | {command} search` |" in out
    line = {line.split(" | ")[0]: line for line in out.split("\n")}
    told = "65.5 ± 19.1 against 55.0 ± 12.7; difference 10.5 ± 6.4 | seen *"
    assert f"{told} | {command} r1` |" in line["| R1 reasons better than Dev3"]
    assert "| seen |" in line["| Dev1 loses reasoning against Zero"]
    assert "| inconclusive |" in line["| Dev3 reasons better than Dev2"]
    assert f"| inconclusive | {command} zero` |" in line["| code: RL alone raises pass@1"]
    missing = out.split("missing: ")[1]
    assert f"{command} distill`" in missing
    assert "experiments ppo" not in missing and "search" not in missing


def test_the_table_of_the_stored_results(monkeypatch, capsys):
    monkeypatch.chdir(os.path.dirname(RESULTS))
    assert "arithmetic: RL alone raises pass@1" in main(monkeypatch, capsys, "table")


RESULTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "results")


def test_the_stored_results_are_what_their_seeds_give(monkeypatch, capsys):
    monkeypatch.chdir(os.path.dirname(RESULTS))
    assert "claim again" in main(monkeypatch, capsys, "table", "--check")


@pytest.mark.parametrize("part", ["mean", "half", "claims"])
def test_a_figure_that_its_seeds_do_not_give_is_told(part, tmp_path):
    runs = [{"a": {"accuracy": x}, "b": {"accuracy": x / 2}} for x in (0.2, 0.3, 0.5)]
    means, halves = common.over_seeds(runs)
    content = {"seeds": [0, 1, 2], "mean": means, "half": halves, "runs": runs, "stated": "a > b"}
    content["claims"] = claims(runs, "a > b")
    wrong = content["claims"][0] if part == "claims" else content[part]["a"]
    wrong |= {"verdict": "the opposite"} if part == "claims" else {"accuracy": 0.4}
    write(tmp_path / "ppo.json", content)
    place = "a ends above b" if part == "claims" else f"{part} of a, accuracy"
    assert experiments.check(str(tmp_path)) == [f"ppo: {place}"]


# ------------------------------------------------------------------------------ measures


@pytest.mark.parametrize(
    ("n", "c", "k"), [(12, 3, 8), (16, 1, 8), (18, 2, 16), (16, 0, 16), (16, 5, 12)]
)
def test_pass_at_large_k_is_the_share_of_all_choices(n, c, k):
    # the first c samples are right
    choices = [min(chosen) < c for chosen in itertools.combinations(range(n), k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(choices) / len(choices))


def responses_to(answers: list[str]) -> tuple[list[Problem], list[str]]:
    """(a problem again and again, whose answer is 7; texts with the answers)."""
    p = Problem("3+4?", "7", "arithmetic")
    return [p] * len(answers), [f"<think>hm</think><answer>{a}</answer>" for a in answers]


def test_rewards_that_know_nothing():
    problems, texts = responses_to(["7", "8", "8", "07.0"])
    other, more = responses_to(["7", "7.0", "8", "9"])
    found = controls.majority(problems + other, texts + more)
    assert [r["majority"] for r in found] == [1, 0, 0, 1, 1, 1, 0, 0]  # a tie goes to the first
    assert [r["wrong"] for r in controls.wrong(problems, texts)] == [0, 1, 1, 0]
    assert controls.wrong(problems[:1], ["no answer"]) == [{"wrong": 0.0}]
    drawn = [r["coin"] for r in controls.coin(*responses_to([str(i) for i in range(400)]))]
    assert set(drawn) == {0.0, 1.0} and 150 < sum(drawn) < 250
    assert drawn == [r["coin"] for r in controls.coin(*responses_to([str(i) for i in range(400)]))]
    tests = {"numbers": [1, 2], "target": 3}
    p = Problem("Use 1,2 to make 3.", "1+2", "countdown", tests=tests)
    texts = [f"<answer>{a}</answer>" for a in ("2-1", "1+2", "2-1")]
    assert [r["majority"] for r in controls.majority([p] * 3, texts)] == [1, 0, 1]


def test_clean_texts_are_right_and_in_form():
    cfg = config.make(train_r1.Config)
    rows = controls.clean_texts(cfg, 40)
    assert len(rows) == 40 and len({row["prompt"][:3] for row in rows}) > 2
    for row in rows:
        assert rw.format_reward(row["response"]) and "maybe" not in row["response"]
        if row["prompt"].startswith(("Use ", "用")):
            *numbers, target = map(int, re.findall(r"\d+", row["prompt"]))
            answer = rw.extract_answer(row["response"])
            assert rw.countdown_correct(answer, numbers, target)


def test_blind_guessing():
    def chance(task, prompt, **tests):
        return behaviour.blind(Problem(prompt, "", task, tests=tests), 1)

    assert chance("arithmetic", "") == 1 / 41 and chance("code", "") == 0
    in_english = "B is taller than A. A is taller than C. Who is tallest?"
    assert chance("logic", "F比B高。C比B矮。谁最矮?") == chance("logic", in_english) == 1 / 3
    of_four = chance("countdown", "", numbers=[2, 2], target=4)  # +, -, *, /: two make it
    assert of_four == pytest.approx(1 / 2, abs=0.05)


# ------------------------------------------------------------------------------ every experiment

TINY = """model.dim 16  model.n_layers 2  model.n_heads 2  model.hidden_dim 24  model.n_experts 4
 model.expert_dim 8  model.kv_lora_rank 8  model.qk_nope_head_dim 8  model.qk_rope_head_dim 8
 model.v_head_dim 8  grpo.tasks arithmetic  grpo.steps 1  grpo.problems_per_step 2
 grpo.group_size 2  grpo.max_new_tokens 6  sft.tokens 600  sft.tokens_per_step 300
 eval.problems 2  eval.k 2  eval.max_new_tokens 6""".split()


@pytest.fixture
def workplace(tmp_path, monkeypatch, world_tokenizer):
    """A folder with what the recipes would have left: untrained models, figures by hand."""
    monkeypatch.chdir(tmp_path)

    def recipe(self, script, name, seed, result, *flags):
        out = self.folder(name, seed)
        return out if os.path.exists(out) else pytest.fail(f"{out} is missing")

    monkeypatch.setattr(common, "QUICK", dict(zip(TINY[::2], TINY[1::2])))
    monkeypatch.setattr(Plan, "recipe", recipe)
    monkeypatch.setattr(report, "provenance", lambda command: {"command": command})
    monkeypatch.setattr(sft, "corpus_tokenizer", lambda cfg: world_tokenizer)
    cfg = Plan("", [0], True).config(0)

    def model(folder, score=False):
        gpt = sft.build(cfg, world_tokenizer)
        (RewardModel(gpt) if score else gpt).save_pretrained(folder)
        world_tokenizer.save(folder)

    zero, r1 = "runs/zero-0-quick", "runs/r1-0-quick"
    monkeypatch.setattr(Plan, "base", lambda self, seed: f"{self.folder('zero', seed)}/base/model")
    model(f"{zero}/base/model")
    write(f"{zero}/base/metrics.jsonl", {"stage": "sft", "step": 1, "num_tokens": 1000})
    for folder in (f"{zero}/model", f"{r1}/r1/model"):
        shutil.copytree(f"{zero}/base/model", folder)
    for kind in preference.KINDS:
        model(f"{r1}/{kind}/model", True)
    rows = []
    for method in search.METHODS:
        for b in (1, 2):
            row = {"method": method, "budget": b, "accuracy": 0.4 + 0.1 * b, "tokens": 10.0 * b}
            rows.append(row | {"tasks": {"logic": 0.3}})
    among = [{"samples": 2, "accuracy": 0.9, "tokens": 20.0}]
    content = {"table": rows, "right_among_samples": among}
    write("runs/findings/search-0-quick/search.json", content)


def finite(x):
    """Whether all numbers in a JSON value are."""
    if isinstance(x, dict | list):
        return all(map(finite, x.values() if isinstance(x, dict) else x))
    return not isinstance(x, float) or math.isfinite(x)


RECIPES = ("zero", "r1", "longer", "language", "distill")


@pytest.mark.parametrize("name", [n for n in experiments.EXPERIMENTS if n not in RECIPES])
def test_every_experiment_tiny(workplace, monkeypatch, capsys, name):
    def harvest(folder, problems, samples, most, cfg, path, seed):
        return controls.clean_texts(cfg, 20)

    monkeypatch.setattr(rejection, "harvest", harvest)
    out = main(monkeypatch, capsys, name, "--quick")
    with open(f"runs/results/{name}-quick.json") as f:
        result = json.load(f)
    assert result["command"] == f"python -m experiments {name} --seeds 0 --quick"
    assert result["seeds"] == [0] and result["mean"] and finite(result)
    for m, row in result["mean"].items():
        assert result["runs"][0][m].keys() == row.keys()
    assert result["claims"]
    for c in result["claims"]:
        assert list(c) == [*common.COLUMNS, "p"]
        assert c["verdict"] == "inconclusive"  # with one seed
        assert f"| {c['claim']} |" in out
    with open(f"runs/results/{name}-quick.png", "rb") as f:
        assert f.read(8) == b"\x89PNG\r\n\x1a\n"
    if name in FIGURES:
        FIGURES[name](result, monkeypatch)


def check_search(result, monkeypatch):
    claim = next(c for c in result["claims"] if "chooses worse" in c["claim"])
    assert "difference -10.0 (one seed)" in claim["ours"]
    assert result["claims"][0]["claim"].endswith("beat one answer (20 tokens against 10)")
    beam = {"accuracy": 0.6, "tokens": 20.0, "logic": 0.3}
    assert result["mean"]["beam, 2"] == pytest.approx(beam)
    assert result["mean"]["a right one among, 2"]["accuracy"] == 0.9


def check_ppo(result, monkeypatch):
    mean = result["mean"]
    assert mean["ppo"]["critic_mib"] > 0 == mean["grpo"]["critic_mib"]

    def step(*args):
        pytest.fail("a finished run was made again")

    monkeypatch.setattr(grpo.Learner, "step", step)
    assert settings.ppo(Plan("ppo", [0], True))[0]["mean"] == mean


def test_relatives_are_compared_at_the_rate_that_is_best_on_dev(tmp_path, monkeypatch):
    asked = {}

    def short(plan, variants):
        asked.update(variants)
        right = dict.fromkeys(variants, 0.5) | {"dapo-fast": 0.9, "gspo": 0.9}
        rows = {n: {"accuracy": v, "wrong_length": 1.0, "tokens": 7} for n, v in right.items()}
        return [{"base": {"accuracy": 0.3}} | rows for _ in plan.seeds]

    def examine(cfg, model, out):
        assert cfg.eval.split == "test" and model == out.replace("/test", "/model")
        return {"accuracy": 0.8 if model == f"runs/findings/dapo-fast-{cfg.seed}/model" else 0.4}

    monkeypatch.setattr(settings, "short", short)
    monkeypatch.setattr(common, "examine", examine)
    monkeypatch.setattr(common, "learning", lambda plan, names: None)
    monkeypatch.setattr(report, "draw", lambda *panels: None)
    content, _ = settings.algorithms(Plan("algorithms", [1, 2], out=str(tmp_path)))
    lr = grpo.GRPOConfig().lr
    rates = [asked[f"dapo{end}"]["grpo.lr"] / lr for end in ("-slow", "", "-fast")]
    assert rates == pytest.approx([1 / 3, 1, 3])
    assert {settings["eval.split"] for settings in asked.values()} == {"dev"}
    assert content["chosen"]["dapo"] == "dapo-fast" and content["chosen"]["gspo"] == "gspo"
    for rows in content["runs"]:
        assert rows["dapo"] == {"accuracy": 0.8, "wrong_length": 1.0, "tokens": 7}
        assert rows["gspo"]["accuracy"] == 0.4 and rows["base"] == {"accuracy": 0.3}
    assert content["on_dev"]["dapo-fast"]["values"] == [0.9, 0.9]
    assert "dapo-fast" not in content["mean"] and "ppo-0.95" not in content["chosen"]


def test_the_language_reward_s_price_tiny(workplace, monkeypatch, capsys):
    tiny = dict(zip(TINY[::2], TINY[1::2])) | {"r1.steps": 2, "r1.preference_steps": 1}
    monkeypatch.setattr(common, "R1_QUICK", tiny)
    r1 = "runs/r1-0-quick"
    os.makedirs(f"{r1}/eval")
    for stage in ("base", "dev1", "dev2"):
        shutil.copytree(f"{r1}/r1/model", f"{r1}/{stage}/model")
    out = main(monkeypatch, capsys, "language", "--quick")
    with open("runs/results/language-quick.json") as f:
        result = json.load(f)
    assert list(result["mean"]) == ["Dev1", "with", "without"] and "| without |" in out
    assert [c["verdict"] for c in result["claims"]] == ["inconclusive"] * 2
    with open("runs/r1-without-language-0-quick/config.json") as f:
        saved = json.load(f)
    assert saved["rewards"]["language"] == 0.0 and saved["grpo"]["steps"] == 2


def test_zero_goes_on_until_it_has_had_as_many_tokens_tiny(workplace, monkeypatch, capsys):
    asked = {"r1.cold_prompts": 4, "r1.reject_prompts": 16, "r1.samples": 2}  # 40 x 2.5 tokens
    monkeypatch.setattr(common, "R1_QUICK", dict(zip(TINY[::2], TINY[1::2])) | asked)
    r1 = "runs/r1-0-quick"
    os.makedirs(f"{r1}/eval")
    shutil.copytree(f"{r1}/r1/model", f"{r1}/zero/model")
    tokens = dict(zip(train_r1.STAGES, (100, 50, 30, 20, 41)))
    figures_of = {stage: {"tokens": n, "mean_length": 2.5} for stage, n in tokens.items()}
    write(f"{r1}/stages.json", {"figures": {"base": {"tokens": 9999}} | figures_of})
    row = {"stage": "zero", "step": 1, "num_tokens": 30}
    with open(f"{r1}/zero/metrics.jsonl", "w") as f:  # 70 tokens a step
        f.write(f"{json.dumps(row)}\n{json.dumps(row | {'step': 2, 'num_tokens': 100})}\n")
    out = main(monkeypatch, capsys, "longer", "--quick")
    result = load_json("runs/results/longer-quick.json")
    assert list(result["mean"]) == ["zero", "longer", "r1"] and "| longer |" in out
    rows = common.metrics("runs/findings/longer-0-quick")
    assert len(rows) == 4  # 141 + 100 more, at 70 a step
    assert result["mean"]["longer"]["tokens"] == 100 + rows[-1]["num_tokens"]
    assert result["mean"]["zero"]["tokens"] == 100 and result["mean"]["r1"]["tokens"] == 341
    saved = load_json("runs/findings/longer-0-quick/config.json")
    assert saved["init"] == GPT.from_pretrained(f"{r1}/zero/model").fingerprint()
    assert saved["rewards"]["language"] == 0.0
    assert [c["verdict"] for c in result["claims"]] == ["inconclusive"] * 3
    assert not any("wins" in figure for figure in result["mean"]["r1"])
    tokens["r1"] += 70  # another R1: the run for it is not the one that is there
    figures_of["r1"] = {"tokens": tokens["r1"], "mean_length": 2.5}
    write(f"{r1}/stages.json", {"figures": {"base": {"tokens": 9999}} | figures_of})
    _, _, err = run(monkeypatch, capsys, "experiments.__main__", "longer", "--quick")
    assert "longer-0-quick" in err, err


def test_a_student_is_taught_by_its_own_samples(workplace, monkeypatch):
    run, asked = "runs/distill", []
    base = f"{run}/{recipes.STUDENT}/base"
    shutil.copytree("runs/zero-0-quick/base", base)
    row = {"base": figures(0.1) | {"mean_length": 10.0, "flops": 5e9}}
    budget = {"prompts": 8, "samples": 3, "most_kept": 2}
    write(f"{run}/distill.json", {"budget": budget, "figures": {recipes.STUDENT: row}})

    def harvest(model, problems, samples, most, cfg, path, seed):
        asked.extend((model, len(problems), samples, most, {p.task for p in problems}))
        return controls.clean_texts(cfg, 20)

    monkeypatch.setattr(rejection, "harvest", harvest)
    tiny, configured = dict(zip(TINY[::2], TINY[1::2])), common.configured
    tiny["r1.tasks"] = "arithmetic,logic"
    monkeypatch.setattr(common, "configured", lambda settings: configured(tiny | settings))
    found = recipes.own_samples(Plan("distill", [0]), 0, run)
    assert asked == [f"{base}/model", 8, 3, 2, {"arithmetic", "logic"}]
    out = f"{run}/{recipes.STUDENT}/own-samples"
    learnt = stages.effort(out)["flops"]
    model = GPT.from_pretrained(f"{base}/model")
    forward = cost_report(model, 1)["forward FLOPs a token"]
    assert learnt > 0 and found["flops"] == pytest.approx(5e9 + learnt + forward * 10 * 8 * 3)
    assert load_json(f"{out}/config.json")["base"] == model.fingerprint()
    assert found["examples"] == 20 and "wins_over_base" not in found


def check_generalise(result, monkeypatch):
    home = "runs/findings/generalise-0-quick"
    with open(f"{home}/RL/samples.jsonl") as f:
        asked = [json.loads(line)["prompt"] for line in f]
    assert asked and all(map(training_data.in_slice, asked))
    models = {name: f"{home}/{name}/model" for name in ("RL", "SFT")}
    models["base"] = "runs/zero-0-quick/base/model"
    for name, model in models.items():
        asked = load_json(f"{home}/{name}.json")["settings"]["model"]
        assert asked == GPT.from_pretrained(model).fingerprint()


def saved(name):
    return load_json(f"runs/findings/{name}-0-quick/config.json")


def check_stale(result, monkeypatch):
    for name, every, cap in (("every-16", 16, 0), ("every-4-weighted", 4, 2.0)):
        rl = saved(name)["grpo"]
        assert (rl["sync_every"], rl["importance_cap"]) == (every, cap)


def check_lora(result, monkeypatch):
    assert [saved(name)["lora"]["rank"] for name in ("grpo", "rank-1", "rank-8")] == [0, 1, 8]
    assert saved("rank-1")["grpo"]["lr"] == pytest.approx(10 * saved("grpo")["grpo"]["lr"])


def check_texts(result, monkeypatch):
    default, names = saved("default")["world"], ("reasoned", "checked", "botched")
    assert [default[name] for name in names] == [0.6, 0.3, 0.0]
    for name, other in (
        ("no-reasoning", {"reasoned": 0.0}),
        ("little-reasoning", {"reasoned": 0.05}),
        ("no-checks", {"checked": 0.0}),
        ("botched-checks", {"botched": 1.0}),
    ):
        assert saved(name)["world"] == default | other
        assert {"reasons", "checks", "righted"} < result["mean"][f"{name}, base"].keys()


def check_passk(result, monkeypatch):
    again, _ = behaviour.passk(Plan("passk", [0], True))  # from the reports that are there
    assert again["mean"] == result["mean"] and again["stated"] == result["stated"]


FIGURES = {
    "passk": check_passk,
    "search": check_search,
    "ppo": check_ppo,
    "generalise": check_generalise,
}
FIGURES |= {"stale": check_stale, "lora": check_lora, "texts": check_texts}


def test_a_base_is_made_once_and_is_zeros_own(tmp_path, monkeypatch, world_tokenizer):
    monkeypatch.chdir(tmp_path)
    quick = {k: v for k, v in zip(TINY[::2], TINY[1::2]) if not k.startswith("eval.")}
    monkeypatch.setattr(train_zero, "QUICK", quick)
    monkeypatch.setattr(sft, "corpus_tokenizer", lambda cfg: world_tokenizer)
    plan = Plan("few", [1], True)
    assert plan.base(1) == "runs/zero-1-quick/base/model"
    monkeypatch.delattr(sft, "train_step")
    assert plan.base(1) == "runs/zero-1-quick/base/model"
    cfg = config.make(train_zero.Config)  # as train_zero.py --quick --seed 1 has it
    for key, value in (quick | {"seed": 1}).items():
        config.set_key(cfg, key, value)
    assert sft.pretrain(cfg, "runs/zero-1-quick/base", True) == "runs/zero-1-quick/base/model"


def test_the_slice_and_what_lies_outside():
    sums = "Tom has 3 apples, {} 5, {} 2, finds 4. How many now?"
    assert training_data.in_slice(sums.format("buys", "sells"))
    assert not training_data.in_slice(sums.format("gets", "sells"))
    assert training_data.in_slice("小明有3个苹果,捡到5,卖掉2。现在几个?")
    assert not training_data.in_slice("小明有3个苹果,捡到5,打破2。现在几个?")
    assert training_data.in_slice("Use 9,40,2 to make 30.")
    assert not training_data.in_slice("用9,4,2算出31。")

    cfg = Plan("", [0]).config(0, {"eval.problems": 20})
    sets = training_data.inside_and_outside(cfg)
    assert {name: len(problems) for name, problems in sets.items()} == dict.fromkeys(sets, 20)
    for problems in sets.values():
        assert all(split_of(World.key(p)) == "test" for p in problems)
    verbs = {v[0] for p in sets["other verbs"] for v, _ in p.tests["steps"]}
    assert verbs == {"gets", "wins", "gives", "breaks"}
    verbs = {v[0] for p in sets["same sums"] for v, _ in p.tests["steps"]}
    assert verbs == {"finds", "buys", "loses", "sells"}
    assert max(p.tests["target"] for p in sets["same Countdown"]) <= 30
    assert min(p.tests["target"] for p in sets["larger targets"]) > 30
    assert min(len(p.tests["steps"]) for p in sets["longer sums"]) >= 6
    assert {len(p.tests["numbers"]) for p in sets["four numbers"]} == {4}

    drawn = training_data.slice_of(World(3, cfg.world), "arithmetic", 10)
    assert all(training_data.in_slice(p.prompt) for p in drawn) and len(drawn) == 10
    searches = training_data.slice_of(World(3, cfg.world), "countdown", 10)
    rows = training_data.worked(World(3, cfg.world), drawn + searches, 2)
    problems = {p.prompt: p for p in drawn + searches}
    assert [row["prompt"] for row in rows] == 2 * list(problems)
    texts = [row["response"] for row in rows]
    assert all(map(rw.format_reward, texts)) and len(set(texts)) > 20
    answers = [rw.extract_answer(text) for text in texts]
    assert all(rw.verdicts([problems[row["prompt"]] for row in rows], answers))


def test_a_run_with_other_settings_is_not_taken_for_this_one(workplace):
    base, out, plan = "runs/zero-0-quick/base/model", "runs/findings/x", Plan("x", [0], True)
    common.reinforce(plan.config(0), base, out)
    with pytest.raises(ValueError, match="other problems"):
        problem = Problem("Tom has 3", "3", "arithmetic", tests={"start": 3, "steps": []})
        common.reinforce(plan.config(0), base, out, dataset=[problem])
    with pytest.raises(ValueError, match=r"grpo.*lr"):
        common.reinforce(plan.config(0, {"grpo.lr": 1e-5}), base, out)
