"""The models that come with the project: base, Zero and R1 of two runs, in bfloat16, with cards.

    python train_zero.py                                # the run, seed 0
    python bench/make_models.py runs/zero               # writes models/zero-base and models/zero
    python train_r1.py
    python bench/make_models.py runs/r1                 # writes models/r1
    python bench/make_models.py runs/zero --check       # another run of it: does it answer alike?

--check (of the first run) asks both pairs the same held-out problems of the dev split. Two
machines' runs differ from the first rounding on, so their models differ as two seeds' do: the
figures are for the eye.
"""

import os
from dataclasses import dataclass

from common import ROOT, parser

import config
import tokenizer as tokenizers
from data import WorldConfig
from eval import EvalConfig, evaluate_folder, held_out
from lib.files import UTF8, atomic_write, load_json
from lib.report import table
from model import GPT

MODELS = {"zero-base": ("base", "base/model"), "zero": ("zero", "model")}
R1 = {"r1": ("r1", "r1/model")}
CARD = """---
license: mit
language: [en, zh]
---
# pocket-R1 {name}

{what}
A mixture of experts in DeepSeek-V3's shape with 1.5 million parameters, in bfloat16.

    python sample.py models/{name} "Tom has 3 apples, finds 4, sells 2. How many now?"

Made by `{command}`, seed {seed}, on {date} ({hardware}); then `python bench/make_models.py {run}`.

pass@1 on {problems} held-out problems a task, {k} samples each at temperature 1, before the
rounding to bfloat16: {figures}. Other seeds differ: results/{result}.json.

It knows its small world alone: sums of gains and losses, Countdown, small programs, puzzles, a few
requests, in English and Chinese.
{limits}
"""
WHAT = {
    "zero-base": "The base model: pretrained on synthetic texts, half of whose authors blurt.",
    "zero": "The base model after reinforcement learning for accuracy and format.",
    "r1": "The last of the four stages: it keeps to a language, and answers general requests.",
}
LIMITS = {
    "zero-base": "Most of its answers are wrong, as those of its texts are.",
    "zero": "It was rewarded for sums and Countdown only. It mixes languages while it thinks.",
    "r1": "It helps with half of the requests.",
}


def card(name: str, run: str) -> str:
    told = {"run": run}
    if name == "r1":
        run = f"{run}/r1"
        rows = load_json(f"{run}/../eval/r1.json")["reports"].values()
        rows = [r for r in rows if r["task"] != "general"]
    else:
        found = load_json(f"{run}/eval.json")["reports"]
        rows = [r for r in found if r["model"] == MODELS[name][0]]
    status = load_json(f"{run}/status.json")
    figures = ", ".join(f"{r['task']} {100 * r['pass1']:.1f}%" for r in rows)
    told |= {key: status[key] for key in ("command", "date", "hardware")}
    told |= {"seed": load_json(f"{run}/config.json")["seed"], "figures": figures, "name": name}
    told |= {"problems": rows[0]["problems"], "k": rows[0]["k"]}
    told["result"] = "r1" if name == "r1" else "zero"
    return CARD.format(what=WHAT[name], limits=LIMITS[name], **told)


def make(run: str) -> None:
    models = R1 if os.path.exists(f"{run}/stages.json") else MODELS
    for name, (_, source) in models.items():
        folder = os.path.join(ROOT, "models", name)
        os.makedirs(folder, exist_ok=True)
        with atomic_write(f"{folder}/README.md") as path, open(path, "w", **UTF8) as f:
            f.write(card(name, run))
        tokenizers.load(f"{run}/{source}").save(folder)
        GPT.from_pretrained(f"{run}/{source}").bfloat16().save_pretrained(folder)
        print(f"model: {folder}")


@dataclass
class Config(config.Config):
    world: WorldConfig = config.section(WorldConfig)
    eval: EvalConfig = config.section(EvalConfig)


def check(run: str) -> None:
    cfg = config.make(Config)
    cfg.eval.split = "dev"
    sets, rows = held_out(cfg.world, cfg.eval, ("arithmetic", "countdown")), []
    for name, (_, source) in MODELS.items():
        for folder in (os.path.join(ROOT, "models", name), f"{run}/{source}"):
            reports = evaluate_folder(cfg, folder, sets, 0, name)
            rows += [(os.path.relpath(folder, ROOT), r) for r in reports.values()]
    print(table(rows))


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("run", help="folder of a finished train_zero.py or train_r1.py")
    flags.add_argument("--check", action="store_true", help="compare it with models/")
    args = flags.parse_args()
    with config.user_errors():
        check(args.run) if args.check else make(args.run)


if __name__ == "__main__":
    main()
