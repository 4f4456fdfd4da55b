"""What people read: Markdown tables, pictures as PNG or SVG, and where a figure comes from.

    python -m lib.report runs/zero                             # a run's own curves.png, once more
    python -m lib.report runs/zero runs/zero-dapo --keys reward,entropy     # runs side by side
Keys are those of metrics.jsonl.
"""

import lib.start  # noqa: F401

import contextlib
import datetime
import html
import json
import math
import os
import platform
import shlex
import statistics
import sys

import torch

from lib import cli
from lib.errors import UserError, shortened
from lib.files import atomic_write, load_json, read_lines, to_json, write_json

KEYS = "reward,rewards/accuracy/mean,completions/mean_length,entropy"  # compared by default


def provenance(command: str) -> dict[str, str]:
    """Where a figure comes from: the command, the date, the machine."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            models = (line.split(":")[1].strip() for line in f if line.startswith("model name"))
            name = next(models, name)
    hardware = f"{name}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        hardware += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    date, version = datetime.date.today().isoformat(), torch.__version__
    return {"command": command, "date": date, "hardware": f"{hardware}, torch {version}"}


def command() -> str:
    """The command that started this process."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are aligned.

    >>> print(markdown_table(["model", "n"], [["base", "128"], ["R1", "5"]]))
    | model | n   |
    |-------|-----|
    | base  | 128 |
    | R1    | 5   |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    # a "|" in a name would end its cell
    lines = [[c.replace("|", "¦").ljust(w) for c, w in zip(row, widths)] for row in [head, *rows]]
    ruler = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], ruler, *text[1:]])


def table(rows: list[tuple]) -> str:
    """A Markdown table, a row for each (model, its eval.Report)."""
    k = rows[0][1].k
    of_many = [f"cons@{k}", f"pass@{k}"] if k > 1 else []
    head = ["model", "task", "n", "pass@1", *of_many, *"format language length reflection".split()]
    body = []
    for name, r in rows:
        found = [r.cons, r.passk] if k > 1 else []
        shares = [f"{100 * x:.1f}" for x in (*found, r.format, r.language_consistency)]
        pass1 = f"{100 * r.pass1:.1f}" + f" ± {100 * r.pass1_se:.1f}" * (r.problems > 1)
        length, words = f"{r.mean_length:.1f}", f"{r.reflection_words:.2f}"
        body.append([name, r.task, str(r.problems), pass1, *shares, length, words])
    return markdown_table(head, body)


def of_requests(rows: list[tuple]) -> str:
    """What models did with general requests, a line each; "" of other tasks."""
    out = ""
    for name, r in rows:
        if r.helpfulness is not None:
            out += f"\n{name}: helpfulness {r.helpfulness:.1%}"
            if r.follows is not None:
                out += f"; gives the form asked for {r.follows:.1%}"
            kinds = {"harmful": r.declined_harmful, "harmless": r.declined_harmless}
            told = [f"{x:.1%} of {kind}" for kind, x in kinds.items() if x is not None]
            out += f"; declines {', '.join(told)} requests" if told else ""
    return out


def save_reports(rows: list[tuple], path: str, **more) -> None:
    """The figures as JSON, without the samples; `more` is added to the file. One with the same
    figures stays as it is: a finished run may be resumed."""
    reports = [{"model": n} | {k: v for k, v in vars(r).items() if k != "samples"} for n, r in rows]
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        if load_json(path)["reports"] == json.loads(to_json(reports)):
            return
    write_json(path, more | {"reports": reports})


def save_figure(fig, path: str) -> None:
    """A matplotlib figure as a PNG, written atomically."""
    fig.tight_layout()
    with atomic_write(path) as temporary:
        fig.savefig(temporary, dpi=200, format="png")


def draw(path: str, panels: list[tuple]) -> None:
    """Panels as a PNG, two a row: letters can be read where a web page shows it 840 pixels wide.

    A panel of lines is (title, xlabel, {label: (x, y)}), or with (x, y, raw), which is drawn pale;
    one of bars is (title, "", {label: (mean, half of its interval)}). Limits of y may follow.
    """
    os.environ["MPLBACKEND"] = "agg"  # in a notebook it names one that may not be there
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns, rows = min(2, len(panels)), math.ceil(len(panels) / 2)
    fig = Figure(figsize=(4.2 * columns, 3.6 * rows))
    for i, (title, xlabel, series, *limits) in enumerate(panels, 1):
        ax = fig.add_subplot(rows, columns, i)
        if xlabel:
            ax.set_prop_cycle(color=colormaps["tab10" if len(series) <= 10 else "tab20"].colors)
            for label, (x, y, *raw) in series.items():
                (line,) = ax.plot(x, y, marker="." if len(x) < 30 else "", label=label)
                for values in raw:
                    ax.plot(x, values, color=line.get_color(), alpha=0.25, lw=1)
            ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        else:
            means, errors = ([bar[i] for bar in series.values()] for i in (0, 1))
            ax.bar(list(series), means, yerr=errors, capsize=3)
            ax.tick_params("x", rotation=70, labelsize=8)
        ax.set(title=title, xlabel=xlabel, **({"ylim": limits} if limits else {}))
        ax.grid(alpha=0.3)
    save_figure(fig, path)


def read_metrics(folder: str) -> list[dict]:
    """A run's metrics, a row a step of its last stage; what was not finite is nan."""

    def parse(row: dict) -> dict:
        place, row = {"stage": row["stage"], "step": int(row["step"])}, dict(row)
        numbers = {k: row[k] for k in row.keys() - place.keys()}
        return place | {k: math.nan if v is None else float(v) for k, v in numbers.items()}

    rows = read_lines(os.path.join(folder, "metrics.jsonl"), "a step's metrics", parse)
    return [row for row in rows if row["stage"] == rows[-1]["stage"]]


def curve(rows: list[dict], key: str) -> tuple:
    """(steps, means over the last five, values) of a metric that some steps may lack."""
    x, y = zip(*((row["step"], row[key]) for row in rows if key in row))
    windows = [[v for v in y[max(0, i - 4) : i + 1] if v == v] for i in range(len(y))]  # no nan
    return x, [statistics.fmean(w) if v == v else v for v, w in zip(y, windows)], y


def trained_tasks(rows: list[dict]) -> list[str]:
    """The tasks of a run's problems; not every step has all of them."""
    keys = {key for row in rows for key in row if key.endswith("/accuracy")}
    return sorted(key.removesuffix("/accuracy") for key in keys)


def plot_runs(folders: list[str], keys: list[str], path: str) -> None:
    """A panel for each metric, a line for each run that has it."""
    runs, panels = {folder: read_metrics(folder) for folder in folders}, []
    known = sorted({k for rows in runs.values() for row in rows for k in row} - {"stage", "step"})
    for key in keys:
        if key not in known:
            raise cli.nearest("metric", key, known)
        words = key.removesuffix("/mean").replace("/", ": ").replace("_", " ")
        has = [run for run, rows in runs.items() if any(key in row for row in rows)]
        lines = {run: curve(runs[run], key) for run in has}
        panels.append((words.replace("completions: mean", "response"), "step", lines))
    draw(path, panels)


def plot_curves(folder: str, path: str) -> None:
    """R1-Zero's training, a line a task: means over the last five steps; pale: each step."""
    rows = read_metrics(folder)
    tasks = trained_tasks(rows)
    if not tasks:  # not a run of reinforcement learning
        return plot_runs([folder], ["loss"], path)

    def panel(title: str, key: str, *limits: float) -> tuple:
        return title, "RL step", {t: curve(rows, f"{t}/{key}") for t in tasks}, *limits

    accuracy = panel("accuracy (pass@1, training problems)", "accuracy", -0.02, 1.02)
    length = panel("response length, tokens", "mean_length")
    form = panel("format followed", "format", -0.02, 1.02)
    language = panel("words in the problem's language", "language_consistency", -0.02, 1.02)
    draw(path, [accuracy, length, form, language])


def spread(items: list, most: int) -> list:
    """At most so many of them, evenly from the first to the last."""
    few, last = len(items) <= most, len(items) - 1
    return items if few else [items[round(i * last / (most - 1))] for i in range(most)]


def ticks(most: float, least: float = 0) -> list[float]:
    """From 0 to `most` in two to six round steps.

    >>> ticks(37), ticks(100), ticks(3, least=1)
    ([0, 10, 20, 30], [0, 20, 40, 60, 80, 100], [0, 1, 2, 3])
    """
    unit = 10 ** math.floor(math.log10(most / 6))
    step = max(least, next(unit * n for n in (1, 2, 5, 10) if unit * n >= most / 6))
    return [step * i for i in range(int(most / step) + 1)]


def chart(title: str, axis: str, curves: dict[str, tuple]) -> str:
    """A figure for a page, as SVG with the classes of lib/page.py: a line for each label's (steps,
    means, values). An axis in % goes to 100."""
    last = max(x[-1] for x, *_ in curves.values())
    highest = max((v for *_, y in curves.values() for v in y if v == v), default=0)
    scale, top = (100, 100) if "%" in axis else (1, 1.05 * highest if highest > 0 else 1)

    def path(kind: str, x: list, y: list) -> str:
        points = [(52 + 336 * a / last, 222 - 204 * b / top) for a, b in zip(x, y) if b == b]
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in spread(points, 300))
        return f'<path class="{kind}" d="M{line}"/>'

    def label(x: float, y: float, words: str, more: str = 'text-anchor="middle"') -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{words}</text>'

    drawn, keys, descriptions = [], [], []
    for y in ticks(top):
        drawn.append(path("grid", [0, last], [y, y]))
        drawn.append(label(46, 226 - 204 * y / top, f"{y:g}", 'text-anchor="end"'))
    drawn += [label(52 + 336 * x / last, 240, f"{x:g}") for x in ticks(last, 1)]
    drawn.append(label(220, 258, "training step"))
    drawn.append(label(-120, 12, axis, 'text-anchor="middle" transform="rotate(-90)"'))
    for i, (name, (x, means, values)) in enumerate(curves.items()):
        kind = f"l{i % 4}"
        values, means = ([scale * v for v in y] for y in (values, means))
        drawn += [path(f"raw {kind}", x, values), path(f"l {kind}", x, means)]
        sample = f'<svg viewBox="0 0 40 10" aria-hidden="true"><path class="l {kind}" d="M0 5H40"/>'
        name, now = html.escape(name), f"{means[-1]:.3g}"
        keys.append(f"{sample}</svg> {name} {now}")
        descriptions.append(f"{name}: {values[0]:.3g} at step {x[0]}, {now} at step {x[-1]}")
    described = f"<title>{title}: {axis}</title><desc>{'; '.join(descriptions)}</desc>"
    inside = f'<svg viewBox="0 0 400 264" role="img">{described}{"".join(drawn)}</svg>'
    caption = f"<b>{title}</b><br>{'&emsp;'.join(keys)}"
    return f"<figure><figcaption>{caption}</figcaption>{inside}</figure>"


# ------------------------------------------------------------------ stages of R1 side by side

# a figure's name -> the title of its column
STAGE_COLUMNS = {"reasoning": "reasoning", "follows": "follows", "helpfulness": "helpful"}
STAGE_COLUMNS |= {"wins_over_base": "wins over base", "wins_over_previous": "wins over previous"}
STAGE_COLUMNS |= {"declined_harmful": "harmful declined", "declined_harmless": "harmless declined"}
STAGE_COLUMNS |= {"language_consistency": "language", "format": "format"}
REASONING_COLUMNS = {k: STAGE_COLUMNS[k] for k in ("reasoning", "language_consistency", "format")}
Figures = dict[str, dict[str, float]]  # model -> figure's name -> value


def reasoning_tasks(figures: Figures) -> list[str]:
    """The tasks that have a consensus among their figures."""
    row = next(iter(figures.values()))
    return [key.removesuffix("_cons") for key in row if key.endswith("_cons")]


def stage_table(figures: Figures, spread: Figures | None = None, columns=STAGE_COLUMNS) -> str:
    """A Markdown table, a row a model, percentages.

    A task's column is pass@1 ± its standard error (or the `spread` over seeds), cons@k.
    """

    def cell(name: str, key: str) -> str:
        error = spread[name][key] if spread else figures[name].get(key + "_se")
        value = f"{100 * figures[name][key]:.1f}"
        return value if error is None else f"{value} ± {100 * error:.1f}"

    tasks = reasoning_tasks(figures)
    columns = {k: v for k, v in columns.items() if k in next(iter(figures.values()))}
    head = ["model", *(f"{t}, cons" for t in tasks), *columns.values(), "tokens"]
    rows = []
    for name, row in figures.items():
        solved = [f"{cell(name, t)}, {100 * row[t + '_cons']:.1f}" for t in tasks]
        others = [cell(name, key) for key in columns]
        rows.append([name, *solved, *others, f"{row['mean_length']:.0f}"])
    return markdown_table(head, rows)


def plot_stages(figures: Figures, path: str) -> None:
    """The stage table as a picture: a line a column, from stage to stage."""

    def panel(title: str, names: dict[str, str], scale: int = 100) -> tuple:
        series = {}
        for key, label in names.items():
            series[label] = list(figures), [scale * row[key] for row in figures.values()]
        return title, "stage", series, -2, 102 if scale == 100 else None

    tasks = reasoning_tasks(figures)
    solved = panel("pass@1, %", {t: t for t in tasks} | {"reasoning": "mean"})
    form = {"language_consistency": "thinking in the problem's language", "format": "format"}
    helped = {"follows": "asked form given", "helpfulness": "helpfulness"}
    declined = {f"declined_{kind}": f"{kind} ones declined" for kind in ("harmful", "harmless")}
    general = panel("general requests, %", helped | declined)
    length = panel("response length, tokens", {f"{t}_length": t for t in tasks}, 1)
    draw(path, [solved, panel("language and form, %", form), general, length])


def main() -> None:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, such as runs/zero")
    add("--keys", help=f"metrics, comma-separated (of several runs, default {KEYS})")
    help_text = "picture (default curves.png: in the folder of a single run, else here)"
    add("--out", metavar="FILE.png", help=help_text)
    args = parser.parse_args()
    with cli.user_errors():
        first, *others = args.runs
        out = args.out or os.path.join("" if others else first, "curves.png")
        if not out.endswith(".png"):
            raise UserError(f"--out is '{shortened(out)}': name a file that ends in .png")
        if others or args.keys:
            plot_runs(args.runs, [key.strip() for key in (args.keys or KEYS).split(",")], out)
        else:
            plot_curves(first, out)
        print(f"picture: {out}")


if __name__ == "__main__":
    main()
