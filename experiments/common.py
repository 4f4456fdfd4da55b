"""What experiments share: short runs, their figures, and the claims about them.

A short run is GRPO for 30 steps of 16 problems from the base models that train_zero.py leaves (a
missing one is made first), then an evaluation on held-out problems. Runs stay in runs/findings/, so
an interrupted experiment continues where it was. An experiment is a function of a Plan: it draws
NAME.png and returns the content of NAME.json, and its tables.
"""

import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import config
import inputs
import stages
import train_r1
import train_zero
from data import DEFAULT_TASKS
from lib import report, stats
from lib.errors import UserError
from lib.memory import cost_report
from lib.report import read_metrics as metrics
from lib.run import fingerprint, lock_settings, read_settings
from model import GPT
from sft import pretrain

BUDGET = {"grpo.steps": 30, "grpo.problems_per_step": 16, "eval.problems": 64}
BUDGET |= {"sft.tokens": 4_000_000}  # of from_nothing(): as many as train_zero.QUICK's
# --quick: does everything run? Too short to learn from
R1_QUICK = train_zero.QUICK | {"world.tasks": ",".join(DEFAULT_TASKS), "preference.examples": 600}
R1_QUICK |= {"r1.cold_prompts": 96, "r1.reject_prompts": 128}
R1_QUICK |= {"r1.steps": 8, "r1.preference_steps": 5, "r1.pretraining": 0.5}
QUICK = R1_QUICK | {"grpo.steps": 6, "grpo.problems_per_step": 8, "grpo.group_size": 8}
QUICK |= {"eval.problems": 16, "eval.k": 4, "sft.tokens": 300_000}
ARITHMETIC = {"world.tasks": "arithmetic", "grpo.tasks": "arithmetic", "world.reasoned": 0.6}

with open(os.path.join(os.path.dirname(__file__), "claims.txt"), encoding="utf-8") as f:
    parts = re.split(r"^\[(.*)\]\n", f.read(), flags=re.M)[1:]
CLAIMS = {name: text.strip() + "\n" for name, text in zip(parts[::2], parts[1::2])}

CLOSE = 0.05  # "about as good as": less than this behind
RULE = (
    "Verdict: seen if the 95% interval of the claimed difference, seed by seed, lies above 0 "
    "(Student's t), the opposite if it lies below; otherwise, and always with a single seed, "
    'inconclusive. "About as good": the interval lies above '
    f"-{100 * CLOSE:g} points. ± is half of a 95% interval over the seeds, all of which are asked "
    "the same problems, whose choice adds an error of its own. A star: not among the verdicts that "
    "stand at a false discovery rate of 5% over the whole table (Benjamini and Hochberg)."
)
# figures that are not percentages
NUMBERS = "step_seconds critic_mib length wrong_length mean_length loss cache_bytes max_load tries"
NUMBERS += " checks righted numbers steps"
COLUMNS = ["claim", "paper", "ours", "verdict"]


def spread(values: list[float]) -> dict:
    """Mean over seeds and half of its 95% interval, None of a single seed."""
    half = stats.half_width(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "half": half, "values": values}


def plus_minus(s: dict, unit: float = 100, digits: str = ".1f") -> str:
    """Of spread(): "41.2 ± 3.1"; of a single seed "41.2"."""
    mean = f"{unit * s['mean']:{digits}}"
    return mean if s["half"] is None else f"{mean} ± {unit * s['half']:{digits.lstrip('+')}}"


def verdict(differences: list[float]) -> str:
    """RULE for the differences in the claimed direction, one a seed.

    >>> verdict([0.1, 0.2, 0.15]), verdict([-0.1, 0.2, 0.3]), verdict([-0.1, -0.2, -0.15])
    ('seen', 'inconclusive', 'the opposite')
    """
    mean, half = statistics.fmean(differences), stats.half_width(differences)
    return "seen" if mean > half else "the opposite" if -mean > half else "inconclusive"


def compare(claim: str, paper: str, more: list, less=None, margin=0.0, unit=100) -> dict[str, str]:
    """A row of the table: does `more`, one figure a seed, exceed `less` of the same seeds (without
    it: 0), or fall short by less than `margin`? Figures are shown times unit; 100: percentages."""

    def shown(values: list[float]) -> str:
        figure = plus_minus(spread(values), unit, ".1f" if unit == 100 else ".3g")
        return figure if len(values) > 1 else f"{figure} (one seed)"

    differences, ours = more, shown(more)
    if less:
        differences = [a - b for a, b in zip(more, less, strict=True)]
        ours += f" against {shown(less)}; difference {shown(differences)}"
    beyond = [d + margin for d in differences]
    row = dict(zip(COLUMNS, (claim, paper, ours, verdict(beyond))))
    return row | {"p": stats.p_value(beyond)}


def of(runs: list[dict], model: str, figure: str = "accuracy") -> list[float]:
    """A model's figure, one a seed."""
    return [run[model][figure] for run in runs]


def claims(runs: list[dict], text: str, figure: str = "accuracy") -> list[dict[str, str]]:
    """Rows of the table from lines of claims.txt such as

        length of ppo > grpo: PPO's answers are longer | what the paper says

    "a > b": a's figure (`figure`, or what stands before "of") exceeds b's; "a ~ b": it falls short
    by less than CLOSE; "a": it exceeds 0; "a - b": a difference; "2 x a": twice a. Without words a
    "ends above" b; without a paper it is that of the line before."""
    rows, paper = [], ""
    for line in text.strip().split("\n"):
        claim, _, source = line.partition(" | ")
        formula, _, words = claim.partition(": ")
        a, sign, b = re.fullmatch(r"(.*?)(?: ([>~]) (.*))?", formula).groups()
        key, paper = a.rpartition(" of ")[0] or figure, source or paper
        words = words or f"{a} {'is about as good as' if sign == '~' else 'ends above'} {b}"
        unit, margin = 1 if key in NUMBERS.split() else 100, CLOSE if sign == "~" else 0.0
        less = side(runs, b, key) if b else None
        rows.append(compare(words, paper, side(runs, a, key), less, margin, unit))
    return rows


def side(runs: list[dict], text: str, figure: str) -> list[float]:
    """One side of a claim's formula, a value a seed; a number stands for itself."""
    key, _, text = text.rpartition(" of ")
    if re.fullmatch(r"[\d.]+", text):
        return [float(text)] * len(runs)
    factor, _, model = text.rpartition(" x ")
    first, *second = (of(runs, name, key or figure) for name in model.split(" - "))
    differences = [a - b for a, b in zip(first, *second)] if second else first
    return [float(factor or 1) * v for v in differences]


def run_script(command: list[str]) -> int:
    """The status of a command at its end. Ctrl-C, which the terminal sends to the command too, and
    SIGTERM, which is passed on, let it finish its step and save first; then KeyboardInterrupt."""
    child, status = subprocess.Popen(command), None
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while status is None:
        with contextlib.suppress(KeyboardInterrupt):
            status = child.wait()
    signal.signal(signal.SIGTERM, before)
    if status in (130, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    return status


@dataclass(frozen=True)
class Plan:
    """An experiment: its name, its seeds, whether its runs are few-minute ones, and the folder that
    its result goes to."""

    name: str
    seeds: list[int]
    quick: bool = False
    out: str = "runs/results"

    def result(self, ending: str) -> str:
        """The path of this experiment's result."""
        return os.path.join(self.out, f"{self.name}{'-quick' * self.quick}.{ending}")

    def folder(self, name: str, seed: int) -> str:
        """Of a run: runs/NAME, runs/NAME-1 of seed 1, runs/NAME-0-quick."""
        return f"runs/{name}" + (f"-{seed}{'-quick' * self.quick}" if seed or self.quick else "")

    def recipe(self, script: str, name: str, seed: int, result: str, quick: dict, *more) -> str:
        """Run a recipe's script as its users do, unless its result is there; returns its folder.
        quick: its settings for a few minutes."""
        out, settings = self.folder(name, seed), quick if self.quick else {}
        if not os.path.exists(f"{out}/{result}"):
            print(f"seed {seed}: {out}", flush=True)
            command = [sys.executable, *script.split(), *more, "--seed", str(seed), "--out", out]
            command += [f"--{key}={value}" for key, value in settings.items()]
            if status := run_script(command + ["--resume"] * os.path.exists(out)):
                msg = f"{script} for '{out}' ended with status {status} and told why"
                raise UserError(f"{msg}: see to that, then run the same command again to go on")
        for name in ("config.json", "settings.json"):
            path = f"{out}/{name}"
            made = read_settings(path).get("seed", seed) if os.path.exists(path) else seed
            if made != seed:
                msg = f"'{out}' holds a run of seed {made}, and seed {seed} belongs there"
                raise UserError(f"{msg}: move the folder away, and run this again")
        return out

    def zero(self, seed: int) -> str:
        """The run folder of a seed's R1-Zero, with its base; both are made if they are missing."""
        return self.recipe("train_zero.py", "zero", seed, "eval.json", train_zero.QUICK)

    def base(self, seed: int) -> str:
        """The base model that a seed's R1-Zero starts from; made if it is missing."""
        folder = f"{self.folder('zero', seed)}/base"
        if inputs.is_model(f"{folder}/model"):
            return f"{folder}/model"
        cfg = configured((train_zero.QUICK if self.quick else {}) | {"seed": seed})
        return pretrain(cfg, folder, True)

    def r1(self, seed: int) -> str:
        """The run folder of a seed's R1, with its base; made if it is missing."""
        return self.recipe("train_r1.py", "r1", seed, "stages.json", R1_QUICK)

    def r1_config(self, seed: int) -> train_r1.Config:
        """The settings of a seed's R1."""
        return configured((R1_QUICK if self.quick else {}) | {"seed": seed})

    def config(self, seed: int, settings: dict[str, object] | None = None) -> train_r1.Config:
        """The common budget with an experiment's settings."""
        budget = BUDGET | (QUICK if self.quick else {})
        return configured(budget | {"seed": seed} | (settings or {}))


def configured(settings: dict[str, object]) -> train_r1.Config:
    """The recipes' settings with changes."""
    cfg = config.make(train_r1.Config)
    for key, value in settings.items():
        config.set_key(cfg, key, value)
    config.check(cfg)
    return cfg


def examine(cfg, model: str, out: str) -> dict[str, float]:
    """A model's figures on the held-out problems of cfg.grpo.tasks: means over the tasks, each
    task's pass@1, and the mean length of all wrong responses; of sums alone also the share of
    responses that reason, accuracy of those and of the others (0 of none), and how many checks,
    errors put right and numbers a response has. In `out`/eval.json."""
    os.makedirs(out, exist_ok=True)
    reports = stages.evaluate_stage(cfg, out, model, f"{out}/eval.json", cfg.grpo.tasks)
    names = {"accuracy": "pass1", "format": "format", "length": "mean_length"}
    names |= {"language": "language_consistency", "reflection": "reflection_words"}
    row = {k: statistics.fmean(getattr(r, f) for r in reports.values()) for k, f in names.items()}
    wrong = [s["length"] for r in reports.values() for s in r.samples if not s["correct"]]
    row["wrong_length"] = statistics.fmean(wrong) if wrong else 0.0
    if cfg.grpo.tasks == ("arithmetic",):
        r = reports["arithmetic"]
        samples, row["reasons"] = r.samples, r.reasoned
        row |= {key: getattr(r, key) or 0.0 for key in ("right_reasoned", "right_blurted")}
        for key in ("checks", "righted"):
            row[key] = statistics.fmean(s["did"][key] for s in samples)
        row["numbers"] = statistics.fmean(len(re.findall(r"\d+", s["response"])) for s in samples)
    return row | {task: r.pass1 for task, r in reports.items()}


def reinforce(cfg, base: str, out: str, judge=None, dataset=None) -> dict[str, float]:
    """Figures of GRPO from the model in folder `base`; a run that has ended is not made again.
    judge: adds rewards (grpo.Learner); dataset: problems to train on instead of the world's."""
    settings = {k: v for k, v in asdict(cfg).items() if k not in ("device", "eval")}
    settings |= {"base": GPT.from_pretrained(base).fingerprint(), "data": fingerprint(dataset)}
    lock_settings(out, settings)
    if not inputs.is_model(f"{out}/model"):
        print(f"--- {out}", flush=True)
        train_zero.train(cfg, base, out, True, dataset, judge)
    rows, row = metrics(out), examine(cfg, f"{out}/model", out)
    row["step_seconds"] = statistics.median(r["step_time"] for r in rows)
    row["tokens"] = rows[-1]["num_tokens"]
    clipped = (r["clip_ratio/low_mean"] + r["clip_ratio/high_mean"] for r in rows)
    row["clipped"] = statistics.fmean(clipped)
    return row | {"critic_mib": 1024 * rows[-1].get("memory/critic_gib", 0.0)}


def short(plan: Plan, variants: dict[str, dict[str, object]]) -> list[dict]:
    """For each seed: the base's figures, and those of short GRPO from it in each variant."""
    runs = []
    for seed in plan.seeds:
        base, out = plan.base(seed), plan.folder("findings/base", seed)
        runs.append({"base": examine(plan.config(seed), base, out)})
        for name, settings in variants.items():
            cfg, out = plan.config(seed, settings), plan.folder(f"findings/{name}", seed)
            runs[-1][name] = reinforce(cfg, base, out)
    return runs


def from_nothing(plan: Plan, variants: dict[str, dict[str, object]]) -> list[dict]:
    """For each seed and variant: a base pretrained on arithmetic alone, and short GRPO from it."""
    runs: list[dict] = [{} for _ in plan.seeds]
    for seed, run in zip(plan.seeds, runs):
        for name, settings in variants.items():
            out = plan.folder(f"findings/{name}", seed)
            cfg, folder = plan.config(seed, ARITHMETIC | settings), f"{out}/base"
            base = pretrain(cfg, folder, True)
            row, last = examine(cfg, base, folder), metrics(folder)[-20:]
            row["loss"] = statistics.fmean(r["loss"] for r in last)
            row["max_load"] = statistics.fmean(r.get("moe/max_load", 1.0) for r in last)
            costs = cost_report(GPT.from_pretrained(base, device="meta"))
            row["parameters"], row["active"] = costs["total parameters"], costs["active parameters"]
            run[f"{name}, base"] = row | {"cache_bytes": costs["cache bytes a token"]}
            run[f"{name}, RL"] = reinforce(cfg, base, out)
    return runs


def over_seeds(runs: list[dict]) -> list[dict[str, dict]]:
    """[means, halves of their intervals] of figures of the same shape: model -> figure -> value."""
    found = {m: {k: spread(of(runs, m, k)) for k in row} for m, row in runs[0].items()}
    parts = ("mean", "half")
    return [{m: {k: s[p] for k, s in row.items()} for m, row in found.items()} for p in parts]


def bars(means: dict, halves: dict, keys: Iterable[str]) -> list:
    """A panel for each of the figures, a bar for each model that has it."""
    models = {key: [m for m, row in means.items() if key in row] for key in keys}
    return [
        (k.replace("_", " "), "", {m: (means[m][k], halves[m][k] or 0) for m in ms})
        for k, ms in models.items()
    ]


def mean_curve(curves: list[list[float]]) -> tuple[range, list[float]]:
    """(steps 1, 2, ..., means over seeds), up to the end of the shortest."""
    y = [statistics.fmean(values) for values in zip(*curves)]
    return range(1, len(y) + 1), y


def learning(plan: Plan, names: Iterable[str]):
    """The panel of how short()'s variants learn: accuracy in each step."""
    lines, key = {}, "rewards/accuracy/mean"
    for name in names:
        runs = [metrics(plan.folder(f"findings/{name}", seed)) for seed in plan.seeds]
        lines[name] = mean_curve([[r[key] for r in run] for run in runs])
    return "right answers in training", "RL step", lines


def conclude(plan: Plan, runs: list[dict], text: str, panels=(), keys=(), **more):
    """The experiment's content and its tables, with the rows of its claims, which `text` states.
    Draws the panels, and bars of the keys."""
    rows, (means, halves) = claims(runs, text), over_seeds(runs)
    report.draw(plan.result("png"), [*panels, *bars(means, halves, keys)])
    columns, lines = list(dict.fromkeys(key for row in means.values() for key in row)), []
    for m, row in means.items():
        found = {c: {"mean": row[c], "half": halves[m][c]} for c in row}
        lines.append([m, *(plus_minus(found[c], 1, ".3g") if c in row else "" for c in columns)])
    tables = (["model", *columns], lines), (COLUMNS, [[row[c] for c in COLUMNS] for row in rows])
    content = {"seeds": plan.seeds, "mean": means, "half": halves, "runs": runs, "stated": text}
    return content | more, "\n\n".join(report.markdown_table(*table) for table in tables)
