"""A page for every run: report.html in its folder, to be opened in a browser, also while it trains.

    python -m lib.page runs/zero          # write it once more

It needs nothing but itself: no server, network or script. lib/run.py writes it with each checkpoint
from what the run's folder holds by then. A model's words are untrusted: they pass through text().
"""

import lib.start  # noqa: F401

import glob
import html
import os
import time
from types import SimpleNamespace

from lib import cli, report
from lib.errors import UserError
from lib.files import UTF8, atomic_write, load_json, read_lines, to_json
from tasks.behaviour import caught

STEPS, LETTERS = 40, 2000  # most of the answers, of a response on the page
PANELS = {  # a metric of each task: the panel's title, its axis, how the headline has its values
    "accuracy": ("Accuracy", "right answers to training problems, %", ".0%"),
    "format": ("Format", "responses that keep to it, %", ".0%"),
    "mean_length": ("Length in tokens", "tokens a response", ".0f"),
    "language_consistency": ("Language", "words in the problem's language, %", ".0%"),
}
ANSWERS = "Drawn with the same random numbers each time. The world's problems are held out (dev)."
MOMENTS = """In {} of the {} saved responses to sums a check found a wrong step, and put it right.
Some are below. Texts of the corpus have such checks too."""
GAIN = """Points of pass@1. mode: the base, its thinking begun for it; finishing: of these responses
those that end; sharpening: at its best temperature; rest: what the base does not reach so."""
STYLE = """:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --dim: #595959;
  --rule: #d0d0d0; --mark: #ffe58a; --0: #0072b2; --1: #c65100; --2: #007a58; --3: #9c4f83 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181b; --dim: #a8a8a8;
  --rule: #44484d; --mark: #6b5300; --0: #56b4e9; --1: #ff9e6b; --2: #5fd3a5; --3: #dd93bd } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: auto; padding: 16px 24px } h1 { margin: 0 } h2 { margin: 40px 0 8px }
th, td { text-align: left; vertical-align: top; padding: 6px 14px 6px 0;
  border-bottom: 1px solid var(--rule) } small { color: var(--dim) }
.big td { font-size: 24px; white-space: nowrap } td, p { overflow-wrap: anywhere }
.wide { overflow: auto; max-height: 80vh } table { border-collapse: collapse }
.said { table-layout: fixed; width: 100%; min-width: 760px } .said th:first-child { width: 48px }
thead th { position: sticky; top: 0; background: var(--paper) } figure { margin: 0 }
.bar { display: block; height: 4px; background: var(--dim); margin: 2px 0 4px }
a { color: var(--0) } mark { background: var(--mark); color: inherit } .right { color: var(--2) }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 24px } figure > svg { width: 100% }
figcaption svg { width: 40px; height: 10px } .grid { opacity: .3 } .wrong { color: var(--1) }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) } .raw { opacity: .35 }
path { fill: none; stroke: var(--ink) } .l { stroke-width: 2 } .l0 { stroke: var(--0) }
.l1 { stroke: var(--1); stroke-dasharray: 7 3 } .l2 { stroke: var(--2); stroke-dasharray: 2 3 }
.l3 { stroke: var(--3); stroke-dasharray: 9 3 2 3 } pre { white-space: pre-wrap }
@media (max-width: 700px) { .charts { grid-template-columns: 1fr } }"""


def text(words: object) -> str:
    """Any words as HTML: a tag among them is shown, not obeyed; the longest are cut."""
    words = str(words)
    return html.escape(words[:LETTERS]) + (" … (cut here)" if len(words) > LETTERS else "")


def found(default, read, *args):
    """What read(*args) makes of a run's file; the default if that is not there yet, or damaged,
    which does not end the training that writes this page."""
    try:
        return read(*args)
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
        return default


def table(head: list[str], rows: list[list[str]], kind: str = "") -> str:
    """Cells are HTML."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
    inside = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table class="{kind}">{inside}</table></div>'


def section(title: str, note: str, content: str) -> str:
    return f"<h2>{title}</h2><p><small>{note}</small></p>{content}"


def verdict(right: bool) -> str:
    return '<b class="right">✓ right</b>' if right else '<b class="wrong">✗ wrong</b>'


def progress(rows: list[dict]) -> tuple[str, str]:
    """The headline, from the base to now, and the curves: a line a task, or the loss."""
    body, drawn = {task: [] for task in report.trained_tasks(rows)}, ""
    for metric, (title, axis, shape) in PANELS.items():
        curves = {task: report.curve(rows, f"{task}/{metric}") for task in body}
        for task, (_, means, values) in curves.items():
            body[task].append(f"{values[0]:{shape}} → {means[-1]:{shape}}")
        drawn += report.chart(title, axis, curves) if curves else ""
    if not body and "loss" in rows[-1]:
        drawn = report.chart("Loss", "nats", {"loss": report.curve(rows, "loss")})
    head = ["task", *(title.lower() for title, *_ in PANELS.values())]
    top = table(head, [[text(task), *cells] for task, cells in body.items()], "big")
    note = "Training problems: the first step that has the task → mean of the last five."
    top += f"<p><small>{note}</small></p>"
    charts = f'<div class="charts">{drawn}</div>'
    return top if body else "", section("Curves", "Means of five steps; pale: each step.", charts)


def answers(rows: list[dict]) -> str:
    """The fixed problems side by side, a row for each step at which they were asked."""
    steps, most = {}, max(row["tokens"] for row in rows)
    for row in rows:
        bar = f'<span class="bar" style="width:{100 * row["tokens"] / most:.0f}%"></span>'
        note = f"{row['tokens']} tokens{'' if row['finished'] else ', cut off'}"
        cell = f"{verdict(row['correct'])} <small>{note}</small>{bar}{text(row['response'])}"
        steps.setdefault(row["step"], []).append(cell)
    asked = rows[: len(steps[rows[0]["step"]])]
    head = [f"{text(r['prompt'])}<br><small>right: {text(r['answer'])}</small>" for r in asked]
    shown = report.spread(list(steps.items()), STEPS)
    body = table(["step", *head], [[f"<b>{n}</b>", *cells] for n, cells in shown], "said")
    return section("The same problems, every ten steps", ANSWERS, body)


def moments(rows: list[dict]) -> str:
    """Saved responses in which a check caught an error."""
    sums = [row for row in rows if row["task"] == "arithmetic"]
    cut = [(row, caught(row["prompt"], row["response"][:LETTERS])) for row in sums]
    cut, out = [(row, pieces) for row, pieces in cut if len(pieces) > 1], ""
    for row, pieces in report.spread(cut, 6):
        marked = (f"<mark>{text(p)}</mark>" if i % 2 else text(p) for i, p in enumerate(pieces))
        head = f"step {row['step']}: {text(row['prompt'])} {verdict(row['rewards']['accuracy'])}"
        out += f"<p>{head}<br>{''.join(marked)}</p>"
    return section("A check caught an error", MOMENTS.format(len(cut), len(sums)), out) * bool(cut)


def tables(folder: str) -> str:
    """What a finished run has: where the gain comes from, and models on held-out problems."""
    out, body = "", []
    for task, parts in found({}, load_json, f"{folder}/gain.json").get("gains", {}).items():
        numbers = {"gain": sum(parts.values())} | parts
        body.append([text(task), *(f"{100 * x:+.1f}" for x in numbers.values())])
        out = section("Where the gain comes from", GAIN, table(["task", *numbers], body))
    reports = found({}, load_json, f"{folder}/eval.json").get("reports", [])
    reports = list(reports.values()) if isinstance(reports, dict) else reports  # an experiment's
    done = [(r.get("model", "result"), SimpleNamespace(**r)) for r in reports]
    figures = found({}, load_json, f"{folder}/stages.json").get("figures")
    if not done and not figures:
        return out
    lines = (report.table(done) if done else report.stage_table(figures)).split("\n")
    head, _, *rows = ([text(cell) for cell in line.split("|")[1:-1]] for line in lines)
    return out + section("Held-out problems", "Shares in %.", table(head, rows))


def facts(folder: str, step: int) -> str:
    """How far the run is, where it comes from, and the runs inside it."""
    status, about = found({}, load_json, f"{folder}/status.json"), {}
    if status.get("finished"):
        about["state"] = f"finished after {step} steps"
    elif status:
        about["state"] = f"running (or stopped since) at step {step} of {status.get('steps', '?')}"
    about |= {key: status[key] for key in ("command", "hardware", "date") if key in status}
    if "changed" in status:
        changed = ", ".join(f"{key} {value}" for key, value in status["changed"].items())
        about["other than default"] = changed or "no setting"
    about["page written"] = time.strftime("%Y-%m-%d %H:%M")
    names = [text(name) for name in sorted(glob.glob("*/report.html", root_dir=folder))]
    links = "".join(f'<p><a href="{name}">{name}</a></p>' for name in names)
    return table([], [[text(key), text(value)] for key, value in about.items()]) + links


def write(folder: str) -> None:
    """Write the folder's report.html."""
    name, rows = os.path.basename(os.path.abspath(folder)), found([], report.read_metrics, folder)
    top, curves = found(("", ""), progress, rows) if rows else ("", "")
    body = top + found("", facts, folder, rows[-1]["step"] if rows else 0) + curves
    if asked := found([], read_lines, f"{folder}/answers.jsonl", "an answer", dict):
        body += found("", answers, asked)
    body += found("", moments, found([], read_lines, f"{folder}/samples.jsonl", "a response", dict))
    settings = to_json(found({}, load_json, f"{folder}/config.json"), 1)
    body += f"{found('', tables, folder)}<details><summary>All settings</summary>"
    body += f"<pre>{html.escape(settings)}</pre></details>"
    head = f'<meta charset="utf-8"><title>{text(name)}</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    with atomic_write(f"{folder}/report.html") as temporary, open(temporary, "w", **UTF8) as f:
        f.write(f'<!DOCTYPE html><html lang="en"><head>{head}</head>')
        f.write(f"<body><h1>{text(name)}</h1>{body}</body></html>\n")


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("run", help="run folder, such as runs/zero")
    folder = parser.parse_args().run
    with cli.user_errors():
        if not glob.glob(f"{glob.escape(folder)}/st*s.json"):
            raise UserError(f"there is no run in '{folder}': name a run's folder")
        write(folder)
        print(f"page: {folder}/report.html")


if __name__ == "__main__":
    main()
