"""The four recipes over seeds: R1-Zero, R1, the language reward, distillation."""

import math
import os
import shutil

import decompose
import preference
import rejection
import stages
import train_r1
from data import World
from distill import STUDENTS
from experiments import common
from experiments.common import CLAIMS, Plan, bars, claims, metrics, over_seeds, plus_minus, spread
from experiments.controls import clean_texts
from lib import report
from lib.errors import UserError
from lib.files import load_json
from lib.memory import cost_report
from model import GPT

STUDENT = next(iter(STUDENTS))
QUICK = {"distill.prompts": 128, "distill.rl_steps": 6, "r1.pretraining": 0.1}
BY_REASONING = ("r1", "longer", "language", "distill")
SHARES = ("pass1", "cons", "passk", "format", "language_consistency")


def claims_of(name: str, content: dict) -> list[dict]:
    """The claims of a result, computed from the figures of its seeds."""
    if "stated" in content:
        figure = "reasoning" if name in BY_REASONING else "accuracy"
        return claims(content["runs"], content["stated"], figure)
    if name != "zero":  # an earlier version's
        return content["claims"]
    found = {f"{t} {m}": row for t, ms in content["figures"].items() for m, row in ms.items()}
    runs: list[dict] = [{} for _ in next(iter(found.values()))["pass1"]["values"]]
    for i, run in enumerate(runs):
        for model, row in found.items():
            run[model] = {key: s["values"][i] for key, s in row.items()}
    texts = [CLAIMS["zero"].format(task, content["k"]) for task in content["figures"]]
    did = content.get("behaviour", {})
    if all(f"{task}, base at its best" in did for task in ("arithmetic", "countdown")):
        for i, run in enumerate(runs):
            run |= {m: {k: s["values"][i] for k, s in row.items()} for m, row in did.items()}
        # a figure is missing where nothing reasoned and ended, or no problem had both kinds
        lines = CLAIMS["zero gain"].splitlines()
        texts.append("\n".join(line for line in lines if known(runs, line)))
    return [row for text in texts for row in claims(runs, text)]


def known(runs: list[dict], line: str) -> bool:
    """Whether the models that a claim speaks of have its figure."""
    try:
        return bool(claims(runs, line))
    except KeyError:
        return False


def zero(plan: Plan):
    """R1-Zero on the world: base and Zero on the same held-out problems (full 18 minutes a
    seed, quick 4)"""
    runs, minutes = [], {"base": [], "zero": []}
    for seed in plan.seeds:
        out = plan.zero(seed)
        runs.append(load_json(f"{out}/eval.json")["reports"])
        for stage, folder in (("base", f"{out}/base"), ("zero", out)):
            minutes[stage].append(sum(r["step_time"] for r in metrics(folder)) / 60)
    shutil.copy(f"{plan.folder('zero', plan.seeds[0])}/curves.png", plan.result("png"))
    figures, errors, lines, k = {}, {}, [], runs[0][0]["k"]
    for rows in zip(*runs):  # a model on a task, of all seeds
        task, model = rows[0]["task"], rows[0]["model"]
        keys = (*SHARES, "mean_length", "reflection_words")
        found = {key: spread([r[key] for r in rows]) for key in keys}
        figures.setdefault(task, {})[model] = found
        errors[f"{task}/{model}"] = [r["pass1_se"] for r in rows]
        cells = [plus_minus(found[k]) for k in SHARES]
        lines.append([task, model, *cells, plus_minus(found["mean_length"], 1, ".0f")])
    content = {"seeds": plan.seeds, "k": k, "figures": figures, "pass1_se": errors}
    content["training_minutes"] = {stage: spread(values) for stage, values in minutes.items()}
    content["gains"], content["behaviour"] = decomposition(plan)
    head = f"task,model,pass@1,cons@{k},pass@{k},format,language,tokens".split(",")
    gains = content["gains"].items()
    parts = [[t, *(plus_minus(s, digits="+.1f") for s in parts.values())] for t, parts in gains]
    tables = (head, lines), (["gain, points", *decompose.PARTS], parts)
    return content, "\n\n".join(report.markdown_table(*table) for table in tables)


def decomposition(plan: Plan) -> tuple[dict, dict]:
    """Over seeds: task -> part of the gain (decompose.py), and "task, model" -> what it did."""
    paths = [f"{plan.folder('zero', seed)}/gain.json" for seed in plan.seeds]
    for path in paths:
        check_version(os.path.dirname(path), os.path.exists(path))
    found = [load_json(path) for path in paths]
    gains = {
        task: {part: spread([f["gains"][task][part] for f in found]) for part in parts}
        for task, parts in found[0]["gains"].items()
    }
    did = {}
    for rows in zip(*(f["reports"] for f in found)):  # a model on a task, of all seeds
        keys = ("pass1", "reasoned", "right_reasoned", "right_blurted")
        flat = [{key: r[key] for key in keys} | r["did"] for r in rows]
        known = [key for key in flat[0] if all(row.get(key) is not None for row in flat)]
        name = f"{rows[0]['task']}, {rows[0]['model']}"
        did[name] = {key: spread([row[key] for row in flat]) for key in known}
    for task in gains:
        begun = [row for name, row in did.items() if name.startswith(f"{task}, base begun")]
        did[f"{task}, base at its best"] = {
            key: spread(list(map(max, *(row[key]["values"] for row in begun))))
            for key in ("right_reasoned", "righted")
            if begun and all(key in row for row in begun)
        }
    return gains, did


def check_version(folder: str, complete: bool) -> None:
    """UserError for a run that lacks what today's version would have written."""
    if not complete:
        msg = f"an earlier version made the run in '{folder}', without figures that are needed here"
        raise UserError(f"{msg}: rename the folder, and run this again")


def r1(plan: Plan):
    """The four stages: base, Zero, Dev1, Dev2, Dev3 and R1 on the same held-out problems and
    requests (full 110 minutes a seed with one thread, quick 8)"""
    folders = [plan.r1(seed) for seed in plan.seeds]
    runs = [load_json(f"{out}/stages.json")["figures"] for out in folders]
    for out, rows in zip(folders, runs):
        check_version(out, "flops" in rows["r1"])
    means, halves = over_seeds(runs)
    named = [{train_r1.NAMES[n]: row for n, row in rows.items()} for rows in (means, halves)]
    report.plot_stages(named[0], plan.result("png"))
    content = {"seeds": plan.seeds, "reward_model_accuracy": {}}
    for kind in preference.KINDS:
        found = [load_json(f"{out}/{kind}/accuracy.json") for out in folders]
        content["reward_model_accuracy"][kind] = spread([row["accuracy"] for row in found])
        if all("own_accuracy" in row for row in found):  # of the policy's own replies
            own = spread([row["own_accuracy"] for row in found])
            content["reward_model_accuracy"][f"{kind}, own replies"] = own
    content |= {"mean": means, "half": halves, "runs": runs, "stated": CLAIMS["r1"]}
    return content, report.stage_table(*named)


def by_reasoning(plan: Plan, runs: list[dict], panels=(), **more):
    """Content and table of models that are compared by their reasoning; draws the figure."""
    means, halves = over_seeds(runs)
    keys = ("reasoning", "language_consistency", "mean_length")
    report.draw(plan.result("png"), [*panels, *bars(means, halves, keys)])
    content = {"seeds": plan.seeds, "mean": means, "half": halves, "runs": runs}
    content["stated"] = CLAIMS[plan.name].format(STUDENT)
    return content | more, report.stage_table(means, halves, report.REASONING_COLUMNS)


def language(plan: Plan):
    """The language reward's price: the reasoning RL of Dev2 from the same Dev1, with the reward and
    without (full 20 minutes after `r1`, quick 2)"""
    runs = []
    for seed in plan.seeds:
        out, without = plan.r1(seed), plan.folder("r1-without-language", seed)
        cfg, start = plan.r1_config(seed), (f"{out}/dev1/model", without, True, "dev2")
        train_r1.reinforce(cfg, *start, language=0.0)
        models = {}  # name -> stage, model, file of the evaluation
        for name, stage in (("base", "base"), ("Dev1", "dev1"), ("with", "dev2")):
            models[name] = stage, f"{out}/{stage}/model", f"{out}/eval/{stage}.json"
        models["without"] = "without", f"{without}/model", f"{without}/eval.json"
        reports = {name: stages.evaluate_stage(cfg, *m) for name, m in models.items()}
        runs.append(stages.stage_figures(reports))
        del runs[-1]["base"]  # only what the others are compared with
    return by_reasoning(plan, runs)


def longer(plan: Plan):
    """The stages, or the tokens? R1 against its own Zero, which goes on by reinforcement learning
    alone until it has had as many as all stages together, the reward models' left out (full 80
    minutes a seed after `r1`, quick 3)"""
    runs = []
    for seed in plan.seeds:
        run, out = plan.r1(seed), plan.folder("findings/longer", seed)
        cfg, figures = plan.r1_config(seed), load_json(f"{run}/stages.json")["figures"]
        r = cfg.r1
        check_version(run, "tokens" in figures["r1"])
        had = {"zero": figures["zero"]["tokens"]}
        had["r1"] = sum(figures[stage]["tokens"] for stage in train_r1.STAGES)
        # and what was sampled for the texts of Dev1 and Dev3, as long as on held-out problems
        for writer, prompts in (("zero", r.cold_prompts), ("dev2", r.reject_prompts)):
            had["r1"] += prompts * r.samples * figures[writer]["mean_length"]
        last = [row["num_tokens"] for row in metrics(f"{run}/zero")[-11:]]
        a_step = (last[-1] - last[0]) / (len(last) - 1)
        r.steps, r.preference_steps = math.ceil((had["r1"] - had["zero"]) / a_step), 0
        start = f"{run}/zero/model", out, True, "students"
        models = {
            "zero": (f"{run}/zero/model", f"{run}/eval/zero.json"),
            "longer": (train_r1.reinforce(cfg, *start, language=0.0), f"{out}/eval.json"),
            "r1": (f"{run}/r1/model", f"{run}/eval/r1.json"),
        }
        had["longer"] = had["zero"] + stages.effort(out)["tokens"]
        reports = {name: stages.evaluate_stage(cfg, name, *m) for name, m in models.items()}
        rows = without_wins(stages.stage_figures(reports))
        runs.append({name: row | {"tokens": had[name]} for name, row in rows.items()})
    return by_reasoning(plan, runs)


def without_wins(rows: dict[str, dict]) -> dict[str, dict]:
    """Figures without those that compare a model with the one before, which is another here."""
    return {m: {k: v for k, v in row.items() if "wins" not in k} for m, row in rows.items()}


def own_samples(plan: Plan, seed: int, run: str) -> dict[str, float]:
    """Figures of the student in distill.py's folder `run`, taught without a teacher: by its base's
    own clean responses, to as many problems as the teacher was asked. These are fewer than the
    teacher's (`examples`), and none is to a general request."""
    cfg, content = plan.r1_config(seed), load_json(f"{run}/distill.json")
    tasks = cfg.r1.tasks
    budget, student = content["budget"], f"{run}/{STUDENT}"
    base, out = f"{student}/base/model", f"{student}/own-samples"
    world, count = World(seed, cfg.world), budget["prompts"]
    problems = train_r1.reasoning_problems(world, tasks, count, train_r1.FIRST["students"])
    os.makedirs(out, exist_ok=True)
    if plan.quick:  # whose base writes nothing clean
        rows = clean_texts(cfg, 100)
    else:
        each = budget["samples"], budget["most_kept"]
        rows = rejection.harvest(base, problems, *each, cfg, f"{out}/texts.jsonl", seed)
    model = train_r1.fine_tune(cfg, base, rows, out, True)
    asked = cfg, "own-samples", model, f"{student}/eval-own-samples.json", (*tasks, "general")
    row = without_wins(stages.stage_figures({"own": stages.evaluate_stage(*asked)}))["own"]
    before = content["figures"][STUDENT]["base"]
    forward = cost_report(GPT.from_pretrained(base, device="meta"), 1)["forward FLOPs a token"]
    sampling = forward * before["mean_length"] * count * budget["samples"]
    row["flops"] = before["flops"] + sampling + stages.effort(out)["flops"]
    return row | {"examples": len(rows)}


def distill(plan: Plan):
    """Distillation against RL: a small dense student of R1, by RL alone, by both, and taught by its
    own right responses; more shapes with the first seed (full 60 minutes after `r1`, quick 4)"""
    found, runs, others = [], [], {}
    for seed in plan.seeds:
        flags = ["--teacher", f"{plan.r1(seed)}/r1/model"]
        flags += [] if seed == plan.seeds[0] else ["--students", STUDENT]
        quick = common.R1_QUICK | QUICK
        out = plan.recipe("distill.py", "distill", seed, "distill.json", quick, *flags)
        found.append(load_json(f"{out}/distill.json"))
        check_version(out, "teacher_flops" in found[-1])
        runs.append({})
        for name, ways in found[-1]["figures"].items():
            rows = {f"{name}, {way}": row for way, row in ways.items()}
            if name == STUDENT:
                runs[-1] |= rows
            elif seed == plan.seeds[0]:
                others |= rows
        runs[-1][f"{STUDENT}, own-samples"] = own_samples(plan, seed, out)
    more = {key: found[0][key] for key in ("budget", "parameters")} | {"others": others}
    more |= {key: [r[key] for r in found] for key in ("examples", "teacher_flops")}
    points = {}  # a way's cost and accuracy, the teacher's cost left out
    for model, row in (over_seeds(runs)[0] | others).items():
        x, y = points.setdefault(model.split(", ")[1], ([], []))
        x.append(math.log10(row["flops"]))
        y.append(row["reasoning"])
    panels = [("mean of the tasks, a point a student", "log10 of its own FLOPs", points)]
    content, text = by_reasoning(plan, runs, panels, **more)
    if others:
        table = report.stage_table(others, columns=report.REASONING_COLUMNS)
        text += f"\n\nseed {plan.seeds[0]}:\n\n{table}"
    return content, text
