import doctest
import json
import math
import os
import re

import pytest
from conftest import FORKS, run

from lib import report

PNG = b"\x89PNG\r\n"


def test_doctests():
    assert doctest.testmod(report).failed == 0


def test_a_bar_in_a_name_does_not_end_its_cell():
    lines = report.markdown_table(["model"], [["a|b"]]).split("\n")
    assert lines[-1] == "| a¦b   |"


def test_provenance_names_command_date_and_machine():
    found = report.provenance("python x.py")
    assert found["command"] == "python x.py" and re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert re.fullmatch(r".+, \d+ cores(, \d+ x .+)?, torch [\d.].*", found["hardware"])


def figures(tasks: dict[str, float], **more: float) -> dict[str, float]:
    """A row of a stage table: pass@1 of each task, without spread, and cons@k 1."""
    out = {"reasoning": sum(tasks.values()) / len(tasks)}
    for task, value in tasks.items():
        out |= {task: value, f"{task}_se": 0.0, f"{task}_cons": 1.0, f"{task}_length": 9.0}
    rest = dict.fromkeys((*report.STAGE_COLUMNS, "mean_length"), 0.5)
    return rest | out | more


ROWS = {
    "base": figures({"arithmetic": 0.1, "logic": 0.3}),
    "two": figures({"arithmetic": 0.9, "logic": 0.7}, mean_length=123.4),
}


def test_stage_table_by_hand():
    table = report.stage_table(ROWS)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")]
    titles = ["arithmetic, cons", "logic, cons", *report.STAGE_COLUMNS.values()]
    assert cells[0] == ["model", *titles, "tokens"]
    assert cells[3][:4] == ["two", "90.0 ± 0.0, 100.0", "70.0 ± 0.0, 100.0", "80.0"]
    assert cells[3][-1] == "123" and len({len(line) for line in table.split("\n")}) == 1
    assert "wins" not in report.stage_table(ROWS, columns=report.REASONING_COLUMNS)


def test_stage_table_over_seeds_has_their_spread():
    spread = {name: dict.fromkeys(row, 0.02) for name, row in ROWS.items()}
    table = report.stage_table(ROWS, spread, report.REASONING_COLUMNS)
    assert "| 90.0 ± 2.0, 100.0 |" in table and "| 80.0 ± 2.0 |" in table


def test_pictures_are_png_files_written_whole(tmp_path):
    lines = {"a": ([1, 2], [0.1, 0.2]), "b": ([1, 2], [0.3, 0.1], [0.4, 0.2])}
    panels = [("lines", "step", lines), ("limits", "step", lines, 0, None)]
    panels += [("bars", "", {"a": (1.0, 0.1), "b": (2.0, 0.0)}), ("no bars", "", {})]
    report.draw(str(tmp_path / "draw.png"), panels)
    report.plot_stages(ROWS, str(tmp_path / "stages.png"))
    rows = [{"stage": "base", "step": 1, "loss": 1.0}]
    for step in range(1, 8):
        values = dict.fromkeys(("accuracy", "mean_length", "format", "language_consistency"), step)
        tasks = ("a", "b") if step != 3 else ("a",)  # a task may be missing in a step
        values = {f"{task}/{key}": v for task in tasks for key, v in values.items()}
        rows.append({"stage": "zero", "step": step} | values)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.plot_curves(str(tmp_path), str(tmp_path / "curves.png"))
    names = {"draw.png", "stages.png", "curves.png"}
    assert {p.name for p in tmp_path.iterdir()} == {*names, "metrics.jsonl"}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in names)
    with pytest.raises(OSError, match="cannot write"):
        report.draw(str(tmp_path / "none" / "x.png"), panels)


def draw_in_a_notebook(path):
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # not installed here
    report.draw(path, [("title", "step", {"a": ([1, 2], [3, 4])})])


def test_pictures_do_not_need_a_notebook_s_backend(tmp_path):
    process = FORKS.Process(target=draw_in_a_notebook, args=(str(tmp_path / "x.png"),))
    process.start()
    process.join()
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_curves_are_means_of_the_last_five_steps(tmp_path, monkeypatch):
    keys = ("accuracy", "mean_length", "format", "language_consistency")
    rows = [{"stage": "zero", "step": i} | {f"a/{k}": float(i) for k in keys} for i in range(7)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    drawn = []
    monkeypatch.setattr(report, "draw", lambda path, panels: drawn.extend(panels))
    report.plot_curves(str(tmp_path), "x.png")
    assert [p[0].split()[0] for p in drawn] == ["accuracy", "response", "format", "words"]
    for _, _, series, *limits in drawn:
        x, y, raw = series["a"]
        assert x == raw == tuple(range(7)) and y == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
        assert limits in ([], [-0.02, 1.02])


def write_run(folder, stage, rows):
    folder.mkdir(parents=True)
    rows = [{"stage": stage, "step": i} | row for i, row in enumerate(rows, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """Runs a and b, the base of a, and what is drawn of them: [(path, panels)]."""
    monkeypatch.chdir(tmp_path)
    accuracy = {"arithmetic/accuracy": 0.5, "arithmetic/format": 1.0}
    accuracy |= {"arithmetic/mean_length": 9.0, "arithmetic/language_consistency": 1.0}
    more = {"rewards/accuracy/mean": 0.5, "completions/mean_length": 9.0, "entropy": 1.0} | accuracy
    write_run(tmp_path / "a", "zero", [{"reward": r, "kl": 0.1} | more for r in (1.0, None, 3.0)])
    write_run(tmp_path / "b", "zero", [{"reward": r} | more for r in (2.0, 4.0)])
    write_run(tmp_path / "a" / "base", "sft", [{"loss": 3.0}, {"loss": 2.0}])
    drawn, draw = [], report.draw

    def spy(path, panels):
        drawn.append((path, panels))
        draw(path, panels)

    monkeypatch.setattr(report, "draw", spy)
    return drawn


def test_runs_side_by_side(two_runs, monkeypatch, capsys):
    argv = ["a", "b", "--keys", "reward,rewards/accuracy/mean,kl"]
    status, out, _ = run(monkeypatch, capsys, "lib.report", *argv)
    assert status == 0 and out == "picture: curves.png\n"
    ((path, (reward, accuracy, kl)),) = two_runs
    assert path == "curves.png" and [p[1] for p in (reward, kl)] == ["step"] * 2
    assert [p[0] for p in (reward, accuracy)] == ["reward", "rewards: accuracy"]
    x, y, raw = reward[2]["a"]  # null: a gap, which counts in no mean
    assert x == (1, 2, 3) and (y[0], y[2], raw[2]) == (1.0, 2.0, 3.0)
    assert math.isnan(y[1]) and math.isnan(raw[1])
    assert reward[2]["b"] == ((1, 2), [2.0, 3.0], (2.0, 4.0)) and list(kl[2]) == ["a"]
    run(monkeypatch, capsys, "lib.report", "a", "b", "--out", "both.png")
    assert two_runs[1][0] == "both.png"
    assert [p[0] for p in two_runs[1][1]][::2] == ["reward", "response length"]


def test_a_run_s_own_curves_again(two_runs, monkeypatch, capsys):
    for argv in (["a"], ["a/base"], ["a", "--keys", "reward"]):
        assert run(monkeypatch, capsys, "lib.report", *argv)[0] == 0
    (own, panels), (base, of_base), (_, of_key) = two_runs
    assert (own, base) == ("a/curves.png", "a/base/curves.png")
    assert [list(p[2]) for p in panels] == [["arithmetic"]] * 4
    assert [p[0] for p in (*of_base, *of_key)] == ["loss", "reward"]
    with open("a/metrics.jsonl", "a") as f:  # no problem of arithmetic in the last step
        f.write(json.dumps({"stage": "zero", "step": 4, "reward": 1.0}) + "\n")
    for argv in (["a"], ["a", "--keys", "reward, arithmetic/accuracy"]):
        assert run(monkeypatch, capsys, "lib.report", *argv)[0] == 0
    assert list(two_runs[3][1][0][2]) == ["arithmetic"] and len(two_runs[4][1]) == 2


def test_mistakes_are_one_sentence(two_runs, tmp_path, monkeypatch, capsys):
    damaged = {"[1]": "line 1", '{"stage": "zero"}': "line 1", '{"stage": "zero", "st': "line 1"}
    for i, text in enumerate(damaged):
        (tmp_path / f"damaged{i}").mkdir()
        (tmp_path / f"damaged{i}" / "metrics.jsonl").write_text(text)
    mistakes = {
        "a b --keys reward,rewards/acuracy/mean": "the nearest is 'rewards/accuracy/mean'",
        "a nothing": "cannot read 'nothing/metrics.jsonl'",
        "a --out none/x.png": "cannot write 'none/x.png'",
    } | {f"damaged{i}": f"metrics.jsonl, {line}: not a" for i, line in enumerate(damaged.values())}
    for argv, told in mistakes.items():
        status, _, err = run(monkeypatch, capsys, "lib.report", *argv.split())
        assert status == 2 and told in err and err.count("\n") == 1
    assert not (tmp_path / "curves.png").exists()
