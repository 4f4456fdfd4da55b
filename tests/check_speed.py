"""How fast a run of train_zero.py was, from what it logged: tokens a second, share of the device's speed, peak memory, the sampler's gap.

    python tests/check_speed.py runs/gpus/small-1 --processes 1     # on the machine of the run; writes results/speed-small-1.json

The share (model FLOPs utilisation) is the arithmetic that the model's shape asks for, without what --recompute repeats, over what the
device does in that time in a large matrix product, which is measured. The first step of each stage, in which kernels are chosen, is left out.
"""

import argparse
import json
import os
import statistics
import types

from conftest import ROOT  # noqa: F401  the project's modules are found from here on

import experiments
import parallel
from model import GPT, cost_report


def rows(path: str) -> list[dict]:
    with open(path) as f:
        return [json.loads(line) for line in f][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder of train_zero.py, with its base inside")
    parser.add_argument("--processes", type=int, required=True, help="that took part in the run")
    args = parser.parse_args()
    with open(os.path.join(args.run, "config.json")) as f:
        settings = json.load(f)
    base, rl = rows(os.path.join(args.run, "base", "metrics.jsonl")), rows(os.path.join(args.run, "metrics.jsonl"))
    flops = cost_report(GPT.empty(os.path.join(args.run, "model")).cfg, settings["grpo"]["max_new_tokens"])
    speed = args.processes * parallel.matrix_speed(types.SimpleNamespace(device=settings["device"], precision=settings["precision"]))
    content = {"config": settings["name"], "precision": settings["precision"], "processes": args.processes, "matrix product, operations a second": speed}
    for what, tokens_a_second, each in (
            ("pretraining", sum(r["num_tokens"] for r in base) / sum(r["step_time"] for r in base), flops["training FLOPs a token"]),
            ("rollout", statistics.fmean(r["throughput/rollout_tok_s"] for r in rl), flops["forward FLOPs a token"]),
            ("update", statistics.fmean(r["throughput/train_tok_s"] for r in rl), flops["training FLOPs a token"])):
        content[what] = {"tokens a second": tokens_a_second, "share of the matrix product": tokens_a_second * each / speed}
    content["peak memory, GiB"] = max(r.get("memory/peak_gib", 0.0) for r in (*base, *rl))
    content["sampling_logp_difference"] = {k: statistics.fmean(r[f"sampling/sampling_logp_difference/{k}"] for r in rl) for k in ("mean", "max")}
    content["reward"] = [r["reward"] for r in rl]
    print(json.dumps(content, indent=1))
    print("figures:", experiments.save(f"speed-{os.path.basename(os.path.normpath(args.run))}", content, f"python tests/check_speed.py {args.run} --processes {args.processes}"))


if __name__ == "__main__":
    main()
