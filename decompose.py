"""Where does Zero's gain come from? The base is asked in ways that need no training.

    python decompose.py runs/zero/base/model runs/zero/model      # train_zero.py ends with the same
    python decompose.py BASE MODEL --eval.split dev

The gain in pass@1 on a task of the world has four parts, which add up:

    mode         the base, its thinking begun: "<think>" and the words with which those who reason
                 in the corpus begin; what is still wrong is no longer blurted out
    finishing    of these responses those that end (the mean over problems; a problem none of
                 whose responses ends counts 0)
    sharpening   the same at the best of three temperatures, chosen on the same problems: this
                 favours the base
    rest         what the base does not reach so: a way to search, persistence, checks, better steps

Base and Zero answer at temperature 1. The table says what the responses did (tasks/behaviour.py):
how much of the rest was a change of ways that the texts know, and how much is in no text. Of
Countdown's tries "if blind" says how many would hit if each were a random expression; "checking
pays": how many more are right, in points, of a problem's responses that check than of its others.
"""

import lib.start  # noqa: F401

from dataclasses import dataclass, replace

import config
import inputs
from data import WorldConfig
from eval import EvalConfig, Report, evaluate_folder, held_out
from lib import distributed, files, report
from lib.errors import UserError
from lib.report import markdown_table
from tasks.behaviour import blind_hits
from tasks.benchmarks import check_sandbox

TEMPERATURES = (1.0, 0.6, 0.0)
PARTS = ("mode", "finishing", "sharpening", "rest")


def plain(cfg: EvalConfig) -> bool:
    """Whether models are asked as the decomposition wants base and Zero to be."""
    return cfg.temperature == cfg.top_p == 1 and not cfg.begun


def begun(cfg, base: str, sets: dict[str, list]) -> dict[float, dict[str, Report]]:
    """The base with its thinking begun, at each temperature."""
    out = {}
    for t in TEMPERATURES:
        ways = replace(cfg.eval, begun=True, temperature=t, k=cfg.eval.k if t else 1)
        name = f"base begun, T = {t:g}"
        out[t] = evaluate_folder(replace(cfg, eval=ways), base, sets, cfg.seed, name)
    return out


def gains(base: Report, helped: dict[float, Report], zero: Report) -> dict[str, float]:
    """The parts of zero.pass1 - base.pass1. helped: temperature -> the base with thinking begun."""
    ended = {t: of_those_that_end(r) for t, r in helped.items()}
    at_one, best = helped[1.0].pass1, max(ended.values())
    parts = (at_one - base.pass1, ended[1.0] - at_one, best - ended[1.0], zero.pass1 - best)
    return dict(zip(PARTS, parts))


def of_those_that_end(r: Report) -> float:
    """Accuracy of the responses that end: the mean over problems."""
    shares = []
    for start in range(0, len(r.samples), r.k):
        ended = [s["correct"] for s in r.samples[start : start + r.k] if s["finished"]]
        shares.append(sum(ended) / len(ended) if ended else 0.0)
    return sum(shares) / len(shares)


def beyond(countdown: Report, most: int) -> float:
    """The share of responses with more tries than any text of the corpus."""
    return sum(s["did"]["steps"] > most for s in countdown.samples) / len(countdown.samples)


def if_blind(countdown: Report, blind: list[float]) -> float | None:
    """The share of tries that would hit if each were blind: problems that take long to solve have
    more of the tries, and are harder. blind: that share for each problem."""
    tries = [(s["did"]["steps"], blind[s["problem"]]) for s in countdown.samples if s["finished"]]
    total = sum(n for n, _ in tries)
    return sum(n * share for n, share in tries) / total if total else None


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def behaviour_table(rows: list[tuple[str, Report]]) -> str:
    """What each model did, a row for each (name, Report) of a task of the world: shares, and counts
    a response."""
    head = "model,task,pass@1 %,reasons %,ends %,right if both %,right if blurted %"
    head += ",steps,errors,checks,checks that say no,put right,checking pays points"
    head += ",hits a try %,if blind %,repeated %"
    body = []
    for name, r in rows:
        did = r.did
        shares = (r.pass1, r.reasoned, 1 - r.clipped, r.right_reasoned, r.right_blurted)
        counts = [did.get(key) for key in ("steps", "errors", "checks", "found", "righted")]
        cells = ["" if c is None else f"{c:.2f}" for c in counts]
        keys = ("checking_pays", "hits_a_try", "blind_a_try", "repeated_a_try")
        more = [percent(did.get(key)) for key in keys]
        body.append([name, r.task, *map(percent, shares), *cells, *more])
    return markdown_table(head.split(","), body)


def decompose(cfg, base: str, sets: dict[str, list], before: dict, after: dict, out: str) -> str:
    """The tables as text; draws OUT/gain.png and writes OUT/gain.json. before, after: task ->
    Report, of the base and of Zero."""
    helped = begun(cfg, base, sets)
    rows, bars, lines, panels = [], {}, [], []
    for task in sets:
        ways = {t: helped[t][task] for t in TEMPERATURES}
        asked = [(f"base begun, T = {t:g}", r) for t, r in ways.items()]
        rows += [("base", before[task]), *asked, ("zero", after[task])]
        bars[task] = gains(before[task], ways, after[task])
        drawn = {name: (part, 0) for name, part in bars[task].items()}
        panels.append((f"{task}: parts of the gain", "", drawn))
        total = after[task].pass1 - before[task].pass1
        msg = ", ".join(f"{name} {100 * part:+.1f}" for name, part in bars[task].items())
        lines.append(f"{task}: {100 * total:+.1f} points = {msg}")
    if "countdown" in sets:
        blind = [blind_hits(p, cfg.world.level) for p in sets["countdown"]]
        share = percent(sum(blind) / len(blind))
        lines.append(f"countdown: a random expression hits the target in {share}%")
        for _, r in rows:
            if r.task == "countdown":
                r.did["blind_a_try"] = if_blind(r, blind)
        most = max(cfg.world.patience)
        shares = [beyond(reports["countdown"], most) for reports in (before, after)]
        msg = "{}% of the base's responses, {}% of zero's".format(*map(percent, shares))
        lines.append(f"more than {most} tries, which no text has: {msg}")
    report.save_reports(rows, f"{out}/gain.json", gains=bars)
    if distributed.is_main_process():
        report.draw(f"{out}/gain.png", panels)
    return behaviour_table(rows) + "\n\n" + "\n".join(lines)


@dataclass
class Config(config.Config):
    world: WorldConfig = config.section(WorldConfig)
    eval: EvalConfig = config.section(EvalConfig)


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("base", help="the model before reinforcement learning")
    add("model", help="the model after it")
    add("--task", action="append", help="a task of the world (repeatable; default: Zero's two)")
    add("--out", default=".", help="folder of gain.json and gain.png")
    cfg, args = config.parse(parser, Config)
    with config.user_errors():
        if not plain(cfg.eval):
            flags = "--eval.temperature, top_p and begun"
            raise UserError(f"base and model answer at temperature 1: leave out {flags}")
        inputs.check_model(args.base, **cfg.asked)
        inputs.check_model(args.model, **cfg.asked)
        files.make_folder(args.out)
        sets = held_out(cfg.world, cfg.eval, tuple(args.task or ("arithmetic", "countdown")))
        if "general" in sets:
            raise UserError("no rule judges general requests: name other tasks with --task")
        check_sandbox(sets, cfg.sandbox)
        folders = {"base": args.base, "zero": args.model}
        found = [evaluate_folder(cfg, f, sets, cfg.seed, name) for name, f in folders.items()]
        print(decompose(cfg, args.base, sets, *found, args.out))
        print(f"figures: {args.out}/gain.json, {args.out}/gain.png")


if __name__ == "__main__":
    main()
