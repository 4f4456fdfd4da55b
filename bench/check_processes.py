"""Several processes against one: five steps each of fine-tuning, GRPO and PPO of tiny models.

    python bench/check_processes.py --processes 2      # on GPUs, where there are so many; else CPUs

The first thing to run on several GPUs: tests/test_distributed.py compares the same steps on CPUs.
In float32 all steps have to agree, in bfloat16 the first of each section, after which sampling
makes different tokens of a rounding.
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
from common import ROOT, parser

NAMES = ("sft-moe", "sft-dense", "grpo-moe", "grpo-more-moe", "grpo-ppo-dense", "grpo-dapo-dense")
CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}  # relative


def steps(processes: int, precision: str) -> dict[str, list[dict]]:
    """The metrics of each section's five steps."""
    run = [sys.executable]
    if processes > 1:
        run += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as out:
        command = [*run, "tests/together.py", out, precision, *NAMES]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": ROOT}, check=True)
        found = {}
        for name in NAMES:
            with open(f"{out}/{name}.json") as f:
                found[name] = json.load(f)
    return found


def apart(one: list[dict], many: list[dict]) -> float:
    """The largest relative difference of a gradient's norm: GRPO's loss is near 0."""
    pairs = ((a["grad_norm"], b["grad_norm"]) for a, b in zip(one, many, strict=True))
    return max(abs(a - b) / a for a, b in pairs)


def main() -> None:
    args = parser(__doc__)
    args.add_argument("--processes", type=int, default=2, choices=range(2, 1025), metavar="N")
    n, failed = args.parse_args().processes, []
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gpus = torch.cuda.device_count() >= n
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    print(f"{n} processes against one, on {'GPUs' if gpus else 'CPUs'}", flush=True)
    for precision, close in CLOSE.items():
        one, many = (steps(count, precision) for count in (1, n))
        for name in NAMES:
            looked = 1 if precision == "bfloat16" and name.startswith("grpo") else 5
            difference = apart(one[name][:looked], many[name][:looked])
            print(f"{precision}, {name}: {difference:.1e} in {looked} steps, {close:g} allowed")
            failed += [f"{precision}, {name}"] if difference > close else []
    if failed:
        sys.exit(f"not the same: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
