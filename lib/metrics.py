"""What is logged of a step of reinforcement learning, under TRL's names."""

import math
import statistics
import time
from collections import Counter

import torch
from torch import Tensor

from lib import distributed

# what an update counts over tokens, also when it had nothing to do
COUNTS = {"clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.0, "kl": 0.0}


class Timer:
    """Seconds of the parts of a step, one after the other."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        self.laps: Counter = Counter()

    def lap(self, name: str) -> None:
        """What has passed since the last call belongs to `name`."""
        now = time.perf_counter()
        self.laps[name] += now - self.last
        self.last = now

    def metrics(self, sampled: int, trained: float) -> dict[str, float]:
        """sampled, trained: how many tokens."""
        out = {"step_time": self.last - self.start}
        out |= {f"timing/{name}_s": s for name, s in self.laps.items()}
        out["throughput/rollout_tok_s"] = sampled / self.laps["rollout"]
        return out | {"throughput/train_tok_s": trained / self.laps["train"]}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of_rollout(batch, rewards: Tensor, records: list[dict], group_size: int) -> dict[str, float]:
    """Of a sample.Rollout, its rewards [B] and records: totals, each reward's mean, each task."""
    lengths = (batch.lengths - batch.prompt_lengths).float()
    out = {
        "reward": rewards.mean().item(),
        "reward_std": rewards.view(-1, group_size).std(1, correction=0).mean().item(),
        **of_lengths(lengths, "length"),
        "completions/clipped_ratio": 1 - batch.finished.float().mean().item(),
        **of_lengths(lengths[batch.finished], "terminated_length"),
        # the mean of -log p over drawn tokens is an unbiased estimate of the policy's entropy
        "entropy": -batch.logprobs.sum().item() / lengths.sum().item(),
    }
    for name in sorted({name for r in records for name in r["rewards"]} - {"total"}):
        given = [r["rewards"][name] for r in records if name in r["rewards"]]
        out[f"rewards/{name}/mean"] = mean(given)
        out[f"rewards/{name}/std"] = statistics.pstdev(given)
    out["language_consistency"] = out["rewards/language/mean"]
    out["reflection_words"] = mean([r["reflection_words"] for r in records])
    for task in sorted({r["task"] for r in records}):
        rows = [i for i, r in enumerate(records) if r["task"] == task]
        found = [records[i] for i in rows]
        if "accuracy" in found[0]["rewards"]:  # a general request has none
            out[f"{task}/accuracy"] = mean([r["rewards"]["accuracy"] for r in found])
        out[f"{task}/format"] = mean([r["rewards"]["format"] for r in found])
        out[f"{task}/mean_length"] = lengths[rows].mean().item()
        out[f"{task}/language_consistency"] = mean([r["language_consistency"] for r in found])
    return out


def as_lines(logged: dict[str, float]) -> str:
    """Metrics to be read, a line for each kind: rewards/, completions/, a task, ..."""
    kinds: dict[str, str] = {}
    for name, value in logged.items():
        kind = name.partition("/")[0] if "/" in name else ""
        kinds[kind] = kinds.get(kind, "") + f"  {name} {value:.4g}"
    return "\n".join(kinds.values()) + "\n  (what they mean: docs/faq.md)"


def of_lengths(lengths: Tensor, name: str) -> dict[str, float]:
    """Of lengths [n] of responses; 0 if there is none."""
    ways = {"mean": Tensor.mean, "min": Tensor.min, "max": Tensor.max}
    values = {way: of(lengths).item() if len(lengths) else 0.0 for way, of in ways.items()}
    return {f"completions/{way}_{name}": v for way, v in values.items()}


def of_steps(steps: list) -> dict[str, float]:
    """Of lib.trainer.Steps: means over those that were made, and how many were not."""
    made = [s for s in steps if not s.skipped]
    means = {k: sum(getattr(s, k) for s in made) / max(len(made), 1) for k in ("loss", "grad_norm")}
    return means | {"skipped_steps": len(steps) - len(made)}


@torch.no_grad()
def clip_counts(ratio: Tensor, advantages: Tensor, mask: Tensor, cfg) -> dict[str, float]:
    """Of [B, R]: how many tokens lose their gradient to the clip of cfg, and how many there are."""
    low = (ratio < 1 - cfg.clip_low) & (advantages < 0)
    high = (ratio > 1 + cfg.clip_high) & (advantages > 0)
    counts = {"clip_ratio/low_mean": low.mul(mask).sum().item()}
    counts["clip_ratio/high_mean"] = high.mul(mask).sum().item()
    return counts | {"kl": 0.0, "tokens": mask.sum().item()}


def of_update(steps: list, sums: Counter) -> dict[str, float]:
    """Of an update's lib.trainer.Steps and of what their losses have counted: means over the steps
    that were made, and over tokens of all processes."""
    names = sorted({name for part in distributed.gather([dict(sums)]) for name in part})
    totals = dict(zip(names, distributed.sum_floats([float(sums[name]) for name in names])))
    tokens = totals.pop("tokens", 0.0)
    out = {name: total / max(tokens, 1.0) for name, total in totals.items()}
    out["clip_ratio/region_mean"] = out["clip_ratio/low_mean"] + out["clip_ratio/high_mean"]
    out |= of_steps(steps) | {"trained_tokens": tokens}
    return out | (steps[-1].balance if steps else {})


def of_gaps(gaps: list[Tensor]) -> dict[str, float]:
    """How far log pi_old, the trainer's, is from the sampler's, and the ratio of the two (before
    any cap), over the tokens [n] of all processes; {} without any."""
    mine = []
    if gaps:
        gap = torch.cat(gaps)
        figures = [gap.abs().sum(), gap.abs().max(), gap.exp().sum(), gap.min(), gap.max()]
        mine = [[len(gap), *torch.stack(figures).tolist()]]
    if not (of_all := distributed.gather(mine)):  # a row a process
        return {}
    tokens, distances, widest, ratios, least, most = zip(*of_all)
    gap, ratio = "sampling/sampling_logp_difference", "sampling/importance_sampling_ratio"
    out = {f"{gap}/mean": sum(distances) / sum(tokens), f"{gap}/max": max(widest)}
    out |= {f"{ratio}/min": math.exp(min(least)), f"{ratio}/max": math.exp(max(most))}
    return out | {f"{ratio}/mean": sum(ratios) / sum(tokens)}


def first_of_each_task(records: list[dict], group_size: int) -> list[dict]:
    """One response to each of the first four problems of every task."""
    shown = []
    for task in sorted({r["task"] for r in records}):
        shown += [r for r in records if r["task"] == task][::group_size][:4]
    return shown
