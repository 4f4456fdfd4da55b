"""How fast a run of train_zero.py was: tokens a second, share of the device's speed, peak memory.

    python bench/check_speed.py runs/gpus/small-1 --processes 1     # on the machine of the run

Writes results/speed-small-1.json. The share (model FLOPs utilisation) is the arithmetic of the
model's shape, without what --recompute repeats, over that of a large matrix product in the same
time. The first step of each stage, in which kernels are chosen, is left out.
"""

import json
import os
import statistics
import types

from common import parser, save

from lib.memory import cost_report, matrix_speed
from model import GPT


def rows(path: str) -> list[dict]:
    with open(path) as f:
        return [json.loads(line) for line in f][1:]


def mean(steps: list[dict], key: str) -> float:
    return statistics.fmean(r[key] for r in steps)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("run", help="run folder of train_zero.py, with its base inside")
    flags.add_argument("--processes", type=int, required=True, help="that took part in the run")
    args = flags.parse_args()
    with open(os.path.join(args.run, "config.json")) as f:
        settings = json.load(f)
    base = rows(os.path.join(args.run, "base", "metrics.jsonl"))
    rl = rows(os.path.join(args.run, "metrics.jsonl"))
    model = GPT.from_pretrained(os.path.join(args.run, "model"), device="meta")
    flops = cost_report(model, settings["grpo"]["max_new_tokens"])
    forward, training = flops["forward FLOPs a token"], flops["training FLOPs a token"]
    device = {key: settings[key] for key in ("device", "precision")}
    speed = args.processes * matrix_speed(types.SimpleNamespace(**device))
    content = {"config": settings["name"], "precision": settings["precision"]}
    content |= {"processes": args.processes, "matrix product, operations a second": speed}
    pretraining = sum(r["num_tokens"] for r in base) / sum(r["step_time"] for r in base)
    for what, tokens, each in (
        ("pretraining", pretraining, training),
        ("rollout", mean(rl, "throughput/rollout_tok_s"), forward),
        ("update", mean(rl, "throughput/train_tok_s"), training),
    ):
        share = {"share of the matrix product": tokens * each / speed}
        content[what] = {"tokens a second": tokens} | share
    content["peak memory, GiB"] = max(r.get("memory/peak_gib", 0.0) for r in (*base, *rl))
    gap = "sampling/sampling_logp_difference"
    content["sampling_logp_difference"] = {k: mean(rl, f"{gap}/{k}") for k in ("mean", "max")}
    content["reward"] = [r["reward"] for r in rl]
    print(json.dumps(content, indent=1))
    name = f"speed-{os.path.basename(os.path.normpath(args.run))}"
    command = f"python bench/check_speed.py {args.run} --processes {args.processes}"
    print("figures:", save(name, content, command))


if __name__ == "__main__":
    main()
