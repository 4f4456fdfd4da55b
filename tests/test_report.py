import doctest
import json
import re

import pytest

from lib import report

PNG = b"\x89PNG\r\n"


def test_doctests():
    assert doctest.testmod(report).failed == 0


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
    report.plot_curves(str(metrics), str(tmp_path / "curves.png"))
    names = {"draw.png", "stages.png", "curves.png"}
    assert {p.name for p in tmp_path.iterdir()} == {*names, "metrics.jsonl"}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in names)
    with pytest.raises(OSError, match="cannot write"):
        report.draw(str(tmp_path / "none" / "x.png"), panels)


def test_curves_are_means_of_the_last_five_steps(tmp_path, monkeypatch):
    keys = ("accuracy", "mean_length", "format", "language_consistency")
    rows = [{"stage": "zero", "step": i} | {f"a/{k}": float(i) for k in keys} for i in range(7)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    drawn = []
    monkeypatch.setattr(report, "draw", lambda path, panels: drawn.extend(panels))
    report.plot_curves(str(tmp_path / "metrics.jsonl"), "x.png")
    assert [p[0].split()[0] for p in drawn] == ["accuracy", "response", "format", "words"]
    for _, _, series, *limits in drawn:
        x, y, raw = series["a"]
        assert x == raw == tuple(range(7)) and y == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
        assert limits in ([], [-0.02, 1.02])
