"""What this machine computes with fixed seeds: metrics and weights of short runs of every script.

    python bench/record.py before.json                  # about ten minutes on two cores
    python bench/record.py after.json --against before.json
    python bench/record.py after.json --only zero,eval  # some of them

Two commits of the code are the same machine if their records are equal to the last digit. Times
and memory are left out; weights are compared by the checksum of each tensor. --pretrained FOLDER
adds an evaluation of a model from elsewhere, on 20 problems of --data FILE.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib

from safetensors import safe_open

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIMES = ("step_time", "timing/", "throughput/", "memory/", "minutes")

TINY = """--model.dim 32 --model.n_layers 2 --model.n_heads 2 --sft.tokens 40000 --grpo.steps 2
 --grpo.problems_per_step 4 --grpo.group_size 4 --grpo.max_new_tokens 32
 --eval.problems 4 --eval.k 2 --eval.max_new_tokens 32"""
# a world whose answers even this small a model can guess, so that rewards differ within groups
EASY = """--model.dim 64 --model.n_layers 2 --sft.tokens 600000 --sft.tokens_per_step 4096
 --world.tasks arithmetic,general --world.reasoned 0 --world.wrong 0
 --world.tags 1 --world.broken_tags 0 --world.unfinished 0 --grpo.tasks arithmetic --grpo.steps 2
 --grpo.problems_per_step 8 --grpo.group_size 4 --grpo.max_new_tokens 48 --eval.problems 8
 --eval.k 4 --eval.max_new_tokens 48 --preference.examples 64 --preference.held_out 32
 --r1.cold_prompts 128 --r1.reject_prompts 128 --r1.tasks arithmetic --r1.steps 2
 --r1.preference_steps 1 --distill.prompts 128 --distill.general 32
 --r1.pretraining 0.1 --distill.rl_steps 1"""
SECTIONS = {  # the settings of EASY that a script has
    "train_zero.py": ("model", "sft", "world", "grpo", "eval"),
    "train_r1.py": ("model", "sft", "world", "grpo", "eval", "preference", "r1"),
    "distill.py": ("model", "sft", "world", "grpo", "eval", "preference", "r1", "distill"),
}
SEARCH = "--quick --problems 2 --search.train_problems 8 --eval.max_new_tokens 32"
ALGORITHMS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++", "v3.2", "ppo")


def easy(script: str) -> list[str]:
    """The settings of EASY that concern a script."""
    words = EASY.split()
    pairs = zip(words[::2], words[1::2])
    return [w for p in pairs if p[0][2:].split(".")[0] in SECTIONS[script] for w in p]


def commands(work: str, pretrained: str | None, data: str | None) -> dict[str, list[list[str]]]:
    """name -> the command lines of a record; {work} is the folder that they write to."""
    tiny, zero = TINY.split(), ["train_zero.py", *TINY.split(), "--out"]
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    base, easy_base = f"{work}/zero/base/model", f"{work}/easy/base/model"
    more = (
        "--grpo.kl_beta 0.01 --grpo.ref_every 1 --grpo.importance_cap 2 --grpo.replay_routes true"
    )
    out = {
        "zero": [[*zero, f"{work}/zero"], [*zero, f"{work}/zero", "--grpo.steps", "3", "--resume"]],
        "sft": [["sft.py", "--init", base, "--data", f"{work}/sft.jsonl", "--out", f"{work}/sft"]],
        "easy": [["train_zero.py", *easy("train_zero.py"), "--out", f"{work}/easy"]],
        "more": [
            ["train_zero.py", *easy("train_zero.py"), "--init", easy_base, "--out", f"{work}/more"]
            + [*more.split(), "--grpo.average", "token", "--recompute", "true"]
        ],
    }
    for name in ALGORITHMS:
        folder = ["--init", easy_base, "--out", f"{work}/{name}"]
        out[name] = [["train_zero.py", *easy("train_zero.py"), *folder, "--algorithm", name]]
    teacher = ["--teacher", f"{work}/r1/r1/model", "--students", "llama-s"]
    search = ["-m", "experiments.search", f"{work}/easy/model", *SEARCH.split()]
    out |= {
        "r1": [
            ["train_r1.py", *easy("train_r1.py"), "--zero", f"{work}/easy", "--out", f"{work}/r1"]
        ],
        "distill": [["distill.py", *easy("distill.py"), *teacher, "--out", f"{work}/distill"]],
        "search": [[*search, "--out", f"{work}/search"]],
        "two": [[*two, "train_zero.py", *tiny, "--out", f"{work}/two"]],
        "two-easy": [
            [*two, "train_zero.py", *easy("train_zero.py"), "--init", easy_base]
            + ["--out", f"{work}/two-easy"]
        ],
    }
    if pretrained:
        limits = ["--k", "1", "--limit", "20", "--eval.max_new_tokens", "64"]
        told = ["--data", data, *limits, "--out", f"{work}/eval/eval.json"]
        out["eval"] = [["eval.py", pretrained, *told]]
    return out


def weights(path: str) -> dict[str, int]:
    """Tensor name -> checksum, of a safetensors file."""
    with safe_open(path, "pt") as f:
        return {k: zlib.crc32(f.get_tensor(k).float().numpy().tobytes()) for k in sorted(f.keys())}


def without_times(x):
    """A JSON value without the figures that differ from run to run."""
    if isinstance(x, dict):
        return {k: without_times(v) for k, v in x.items() if not k.startswith(TIMES)}
    return [without_times(v) for v in x] if isinstance(x, list) else x


def contents(folder: str, work: str) -> dict[str, object]:
    """path -> what a run has left there: metrics, figures, texts and weights."""
    found = {}
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(where, name)
            key = os.path.relpath(path, work)
            if name == "metrics.jsonl":
                with open(path) as f:
                    found[key] = [without_times(json.loads(line)) for line in f]
            elif name in (
                "eval.json",
                "stages.json",
                "distill.json",
                "accuracy.json",
                "search.json",
            ):
                with open(path) as f:
                    figures = without_times(json.load(f))
                found[key] = json.loads(json.dumps(figures).replace(work, "WORK"))
            elif name.endswith(".jsonl") and name != "samples.jsonl":
                with open(path, encoding="utf-8") as f:
                    found[key] = zlib.crc32(f.read().replace(work, "WORK").encode())
            elif name.endswith(".safetensors"):
                found[key] = weights(path)
    return found


def differences(a, b, where: str = "") -> list[str]:
    """Where two records differ, the first few places of each run."""
    if isinstance(a, dict) and isinstance(b, dict):
        shared = [d for k in a if k in b for d in differences(a[k], b[k], f"{where}/{k}")]
        return shared + [f"{where}/{k}: in one of them" for k in sorted(a.keys() ^ b.keys())]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {str(a)[:60]} and {str(b)[:60]}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", help="JSON file to write")
    parser.add_argument("--against", help="an earlier record to compare with")
    parser.add_argument(
        "--only", help="comma-separated names of runs; what they build on must be there"
    )
    parser.add_argument("--root", default=ROOT, help="the checkout to run (default: this one)")
    parser.add_argument("--work", help="folder for the runs (default: a temporary one)")
    parser.add_argument("--pretrained", help="a model folder from elsewhere, to evaluate")
    parser.add_argument("--data", help="a file of problems for --pretrained")
    args = parser.parse_args()
    work = os.path.abspath(args.work or tempfile.mkdtemp(prefix="record-"))
    os.makedirs(f"{work}/eval", exist_ok=True)
    with open(f"{work}/sft.jsonl", "w") as f:
        for i in range(40):
            row = {"prompt": f"Tom has {i}", "response": f"<think>{i}</think><answer>{i}</answer>"}
            f.write(json.dumps(row) + "\n")
    record = {}
    runs = commands(work, args.pretrained, args.data)
    for name in args.only.split(",") if args.only else runs:
        for command in runs[name]:
            print(" ".join(command).replace(work, "WORK"), flush=True)
            subprocess.run([sys.executable, *command], cwd=args.root, check=True)
        record[name] = contents(os.path.join(work, name), work)
        with open(args.out, "w") as f:
            json.dump(record, f, indent=1)
    if args.against:
        with open(args.against) as f:
            before = json.load(f)
        for name in record:
            found = differences(before[name], json.loads(json.dumps(record[name])))
            print(f"{name}: " + (f"{len(found)} differences" if found else "equal"))
            print("".join(f"  {d}\n" for d in found[:10]), end="")
        sys.exit(any(differences(before[n], json.loads(json.dumps(record[n]))) for n in record))


if __name__ == "__main__":
    main()
