"""Wrong inputs over all scripts: each gets one sentence and status 2, and writes nothing.

    python bench/check_inputs.py                 # about 1,300 inputs
    python bench/check_inputs.py --only eval     # those whose script or kind has this in its name
    python bench/check_inputs.py --zero          # the value 0 for every setting of tiny runs

The sentence has at most 200 characters, and comes within ten seconds (of a script that has been
loaded: every input is tried in a fork of one process that has read all modules). A setting of 0, or
a damaged file that a run can do without, may also be taken: then the run ends well. Writes
results/inputs.json: what was tried, and what each was told.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field

import torch
from common import ROOT, parser, save

import train_r1
from lib import cli, hf
from lib.run import lock_settings
from model import ModelConfig

SCRIPTS = "train_zero train_r1 distill sft eval grpo preference data sample tokenizer rewards model"
SCRIPTS = [*SCRIPTS.split(), "experiments.search", "experiments.__main__", "lib.report"]
WIDEST = ("distill", "experiments.search")  # these two have all sections of settings
BAD_VALUES = ("nan", "-1e30", "1e30", "word", "")
TINY = "--model.dim 32 --model.n_layers 2 --model.n_heads 2 --sft.tokens 20000 --grpo.steps 2"
TINY += " --grpo.problems_per_step 2 --grpo.group_size 2 --grpo.max_new_tokens 8"
TINY += " --eval.problems 2 --eval.k 1 --eval.max_new_tokens 8 --grpo.save_every 1"
R1 = " --zero zero --r1.cold_prompts 8 --r1.reject_prompts 8"
R1 += " --r1.steps 1 --r1.preference_steps 1"
R1 += " --preference.examples 8 --preference.held_out 2"
STUDENT = f" --students qwen-s --r1.pretraining 0.1 --distill.rl_steps 1 {TINY}"
STUDENT += " --distill.prompts 4 --distill.general 0 --distill.samples 1"


@dataclass
class Case:
    """One wrong input: a script, its words, and what is broken before it starts."""

    kind: str
    script: str
    words: list[str]
    damage: tuple[str, str] | None = None  # (file in the work folder, one of DAMAGE)
    mentions: str = ""  # what the sentence has to name
    may_run: bool = False  # nothing is wrong if the run ends well


@dataclass
class Outcome:
    status: int
    seconds: float
    told: str
    changed: list[str] = field(default_factory=list)

    def faults(self, case: Case) -> list[str]:
        lines = self.told.strip().splitlines()
        if case.may_run:
            last = (lines or [""])[-1]
            refused = self.status == 2 and len(last) <= 200 and ".py: " in last
            fine = refused or self.status == 0
            return [] if fine else [f"status {self.status}, {len(last)} characters"]
        checks = {
            f"status {self.status}": self.status != 2,
            f"{self.seconds:.1f} seconds": self.seconds > 10,
            f"{len(lines)} lines": len(lines) != 1,
            f"{len(self.told)} characters": len(self.told) > 201,
            f"does not say '{case.mentions}'": case.mentions not in self.told,
            f"wrote {', '.join(self.changed[:3])}": bool(self.changed),
        }
        return [fault for fault, found in checks.items() if found]


def corrupt(path: str, way: str) -> None:
    """Damage a file in one of DAMAGE's ways; "key=value" changes a field of its JSON."""
    if way == "missing":
        os.remove(path)
        return
    with open(path, "rb") as f:
        content = f.read()
    key, equals, value = way.partition("=")
    if equals:
        new = json.dumps(json.loads(content) | {key: json.loads(value)}).encode()
    else:
        new = {
            "empty": b"",
            "half": content[: 2 * len(content) // 3],  # of two equal lines, a half is whole
            "bytes": bytes(range(256)) * 4,
            "another": b'{"a": [1, null]}\n',
        }[way]
    with open(path, "wb") as f:
        f.write(new)


DAMAGE = ("missing", "empty", "half", "bytes", "another")
BAD_JSON = ("-1", "0", '"abc"', "null", "[]", "1e300", "true")


def snapshot(folder: str) -> dict[str, tuple]:
    """Every file and folder with size and time."""
    found = {}
    for where, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(where, name)
            info = os.lstat(path)
            # a folder's time changes with the files in it, also with those that are gone again; who
            # holds a lock is written down
            whole = os.path.isfile(path) and name != ".lock"
            known = (info.st_size, info.st_mtime_ns) if whole else ()
            found[os.path.relpath(path, folder)] = known
    return found


def run(case: Case, work: str) -> Outcome:
    """Try a case in a fork, in a copy of the work folder."""
    trial, log = f"{work}/trial", f"{work}/log"
    shutil.copytree(f"{work}/whole", trial)
    if case.damage:
        corrupt(os.path.join(trial, case.damage[0]), case.damage[1])
    before, start = snapshot(trial), time.time()
    if (child := os.fork()) == 0:
        start_script(case, trial, log)
    status = wait(child, start + (120 if case.may_run else 15))
    seconds = time.time() - start
    after = snapshot(trial)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    with open(log, errors="replace") as f:
        told = f.read()
    shutil.rmtree(trial)
    return Outcome(status, seconds, told, changed)


def wait(child: int, until: float) -> int:
    """A child's exit status; -1 if it has to be killed."""
    while time.time() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def start_script(case: Case, work: str, log: str) -> None:
    """In the fork: run the script's main() as if it had been started in the work folder."""
    os.chdir(work)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = [case.script.replace(".", "/") + ".py", *case.words]
    status, train_r1.harvest = 0, world_harvest
    try:
        importlib.import_module(case.script).main()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)


real_harvest = train_r1.harvest


def world_harvest(folder, problems, samples, most, cfg, path, seed, judge=None):
    """In place of the responses of models that are too small: the world's answers."""
    if os.path.exists(path):
        return real_harvest(folder, problems, samples, most, cfg, path, seed, judge)
    texts = [f"<think>x</think><answer>{p.answer}</answer>" for p in problems]
    return [{"prompt": p.prompt, "response": t, "task": p.task} for p, t in zip(problems, texts)]


def fixtures() -> None:
    """A finished tiny run, benchmark files and whatever else the cases damage."""
    with open("math.jsonl", "w") as f:
        f.write('{"question": "Tom has 3, buys 4. How many?", "answer": "= 7\\n#### 7"}\n' * 2)
    for folder in ("empty", "students", "r1/dev1"):
        os.makedirs(folder)
    for path in ("sft.jsonl", "students/teacher.jsonl", "r1/dev1/texts.jsonl"):
        with open(path, "w") as f:
            f.write('{"prompt": "Tom?", "response": "<think>a</think><answer>3</answer>"}\n' * 2)
    lock_settings("students", {"seed": 0})
    with open("stop.stopped.jsonl", "w") as f:
        f.write('{"settings": {}}\n')
    for words in (
        ["train_zero.py", "--out", "zero", *TINY.split()],
        ["eval.py", "zero/model", "--data", "math.jsonl", "--k", "1", "--eval.max_new_tokens", "8"],
        ["sft.py", "--init", "zero/model", "--data", "sft.jsonl", "--out", "tuned"],
    ):
        script = os.path.join(ROOT, words[0])
        status = os.spawnl(os.P_WAIT, sys.executable, sys.executable, script, *words[1:])
        assert status == 0, words
    with open("zero/model/generation_config.json", "w") as f:
        f.write('{"eos_token_id": 2}')


def settings_cases() -> list[Case]:
    """Every setting of every section with values that no run can use."""
    cases, seen = [], set()
    for script in WIDEST:
        cfg = importlib.import_module(script).Config()
        for key in cli.keys(cfg):
            if key in seen or key in ("name", "tokenizer"):  # which are texts
                continue
            seen.add(key)
            for bad in BAD_VALUES:
                words = [f"--{key}={bad}"]
                words += ["zero/model"] if script == "experiments.search" else []
                cases.append(Case("setting", script, words, mentions=key.rpartition(".")[2]))
    return cases


def zero_cases() -> list[Case]:
    """The value 0 for every setting of a tiny Zero; of R1 for what Zero has not."""
    cases = []
    for key in cli.keys(train_r1.Config()):
        of_r1, of_base = (
            key.startswith(names) for names in (("r1.", "pref"), ("mod", "wo", "sft"))
        )
        words = TINY + (R1 if of_r1 else "" if of_base else " --init zero/model") + f" --{key}=0"
        script = "train_r1" if of_r1 else "train_zero"
        cases.append(Case("zero", script, [*words.split(), "--out", "new"], may_run=True))
    return cases


# the flags of each script that take a number, and what else it cannot do without
NUMBERS = {
    "eval": ("zero/model", "--k", "--limit"),
    "grpo": ("zero/model", "--steps"),
    "data": ("", "--count", "--level"),
    "sample": ("zero/model hello", "--temperature", "--top-p", "--top-k", "--max-new-tokens"),
    "model": ("", "--context"),
    "experiments.search": ("zero/model", "--problems"),
}
OUT = {
    "train_zero": TINY,
    "train_r1": "--yes",
    "distill": "--yes",
    "sft": "",
    "preference": "zero/model",
    "eval": "zero/model",
    "experiments.search": "zero/model",
}
BAD_OUT = ("", "math.jsonl", "n" * 300, "math.jsonl/inside", "/proc/none", "a\0b")
MODEL_FLAGS = {
    "train_zero": "--init {}",
    "sft": "--data sft.jsonl --init {}",
    "distill": "--teacher {}",
    "preference": "{}",
    "eval": "{}",
    "grpo": "{}",
    "sample": "{} hello",
    "experiments.search": "{}",
}
BAD_MODELS = ("none", "empty", "zero", "zero/base", "math.jsonl", "", "n" * 300)
DATA_FLAGS = {
    "train_zero": TINY + " --init zero/model --data {}",
    "sft": "--init zero/model --data {}",
    "distill": "--data {}",
    "eval": "zero/model --data {}",
    "grpo": "zero/model --data {}",
    "data": "{}",
}
BAD_DATA = ("none.jsonl", "empty", "", "n" * 300, "zero/model/model.safetensors")
FILES = {  # a file that is damaged: who reads it
    "zero/model/config.json": ("sample", "zero/model hello"),
    "zero/model/model.safetensors": ("sample", "zero/model hello"),
    "zero/model/tokenizer.json": ("sample", "zero/model hello"),
    "math.jsonl": ("eval", "zero/model --data math.jsonl"),
    "sft.jsonl": ("sft", "--init zero/model --data sft.jsonl --out new"),
    "eval.jsonl": ("eval", "--rescore eval.jsonl"),
    "zero/config.json": ("train_zero", "--config zero/config.json --out new"),
    "zero/checkpoint/zero-00000002/progress.json": (
        "train_zero",
        f"--out zero --resume {TINY} --grpo.steps 3",
    ),
    "zero/checkpoint/zero-00000002/__0_0.distcp": (
        "train_zero",
        f"--out zero --resume {TINY} --grpo.steps 3",
    ),
    "stop.stopped.jsonl": ("eval", "zero/model --data math.jsonl --out stop.json --resume"),
}
OPTIONAL = {  # what a run may go on without
    "zero/metrics.jsonl": ("train_zero", f"--out zero --resume {TINY} --grpo.steps 3"),
    "zero/status.json": ("train_zero", f"--out zero --resume {TINY} --grpo.steps 3"),
    "zero/model/generation_config.json": ("sample", "zero/model hello"),
    "zero/model/tokenizer_config.json": ("sample", "zero/model hello --max-new-tokens 1"),
    "students/settings.json": ("distill", "--out students --resume --teacher zero/model" + STUDENT),
    "students/teacher.jsonl": ("distill", "--out students --resume --teacher zero/model" + STUDENT),
    "r1/dev1/texts.jsonl": ("train_r1", f"--out r1 --resume {TINY}{R1}"),
}
# (script, words): flags that do not go together, or that name what is not there
OTHERS = """
train_zero --resume --out nowhere
train_zero --out zero
train_zero --init zero/base/model --out zero/base --resume
train_zero --algorithm grop
train_zero --algorithm Dr.GRPO
train_zero --config smal
train_zero --config none.json
train_zero --config math.jsonl
train_zero --grpo.lrr 1
train_zero --restart
train_zero --out
train_zero surplus
train_zero --world.tasks chess
train_zero --grpo.tasks arithmetic,,
train_zero --model.attention gqa --model.n_heads 3
train_zero --model.dim 100000000 --out new
train_zero --model.n_layers 100000 --out new
train_zero --tokenizer nonsense --out new
train_zero --device tpu
train_r1 --yes --resume --out nowhere
train_r1 --zero math.jsonl --out new
train_r1 --r1.preference_steps 100
distill --students qwen-xl
distill --students ""
distill --yes --resume --out nowhere
distill --teacher zero --out new
sft --init zero/model
sft --data sft.jsonl
sft --init zero/model --data math.jsonl --out new
sft --resume --out nowhere
eval
eval zero/model --rescore eval.jsonl
eval zero/model --task sortng
eval zero/model --limit 3
eval zero/model --data math.jsonl --task logic
eval zero/model --out zero
eval zero/model --out no/folder/eval.json
eval zero/model --out eval.jsonl
eval zero/model --world.tasks general
grpo
grpo zero
sample zero/model ""
sample zero/model hello --temprature 1
sample
tokenizer zero/model
tokenizer nonsense text
rewards text
rewards text --answer 3 --task chess
data --levle 2
data --level 9
experiments.search zero/model --methods votting
experiments.search zero/model --search.tasks chess
experiments.__main__ growht
experiments.__main__
experiments.__main__ zero --seeds x
experiments.__main__ zero --seeds -1
experiments.__main__ zero --seeds
lib.report none
lib.report math.jsonl
lib.report zero --keys rewrad
"""


def cases() -> list[Case]:
    out = settings_cases()
    for script, (first, *flags) in NUMBERS.items():
        for flag in flags:
            for bad in ("nan", "-3", "word", "", "1e30"):
                if flag in ("--top-k", "--limit", "--count", "--context") and bad == "1e30":
                    continue  # more than there is: all of it
                out.append(Case("number", script, [*first.split(), f"{flag}={bad}"]))
    for script, first in OUT.items():
        out += [Case("out", script, [*first.split(), "--out", bad]) for bad in BAD_OUT]
    for script, form in MODEL_FLAGS.items():
        for bad in BAD_MODELS:
            words = [bad if w == "{}" else w for w in form.split()]
            out.append(Case("model folder", script, words))
    for script, form in DATA_FLAGS.items():
        for bad in BAD_DATA:
            words = [bad if w == "{}" else w for w in form.split()]
            out.append(Case("data file", script, words))
    for path, (script, words) in (FILES | OPTIONAL).items():
        for way in DAMAGE:
            damage, may_run = (path, way), path in OPTIONAL
            out.append(Case(f"{way} file", script, words.split(), damage, may_run=may_run))
    for key in hf.write_config(ModelConfig(), torch.float32):
        for bad in BAD_JSON:
            damage, words = ("zero/model/config.json", f"{key}={bad}"), "zero/model hello".split()
            out.append(Case("field of config.json", "sample", words, damage, may_run=True))
    for line in OTHERS.strip().splitlines():
        script, *words = line.split()
        out.append(Case("together", script, ["" if w == '""' else w for w in words]))
    return out


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--only", default="", help="part of a script's or a kind's name")
    flags.add_argument("--zero", action="store_true", help="0 for every setting")
    args = flags.parse_args()
    for script in SCRIPTS:
        importlib.import_module(script)
    tried = zero_cases() if args.zero else cases()
    chosen = [c for c in tried if args.only in c.script or args.only in c.kind]
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as work:
        os.mkdir(f"{work}/whole")
        os.chdir(f"{work}/whole")
        fixtures()
        for case in chosen:
            outcome = run(case, work)
            faults = outcome.faults(case)
            bad += bool(faults)
            words = " ".join(case.words).replace(TINY, "TINY").replace(R1, " R1")
            shown = f"{case.script} {words[:90]} {case.damage or ''}"
            told = (outcome.told.strip().splitlines() or [""])[-1][:300]
            told = "ran to its end" if outcome.status == 0 else told
            rows.append({"kind": case.kind, "input": shown, "told": told})
            if faults:
                print(f"{shown}\n    {'; '.join(faults)}\n    {rows[-1]['told']}", flush=True)
        os.chdir(ROOT)
    print(f"{len(rows)} inputs, {bad} of them not as they should be")
    if not args.only:
        content = {"inputs": len(rows), "faults": bad, "told": rows}
        name = "inputs-zero" if args.zero else "inputs"
        command = "python bench/check_inputs.py" + " --zero" * args.zero
        print("figures:", save(name, content, command))
    sys.exit(bool(bad))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # forks do not share OpenMP's threads
    main()
