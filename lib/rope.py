"""Rotary positions for a longer context than that of pretraining: Llama 3 and YaRN."""

import math

import torch
from torch import Tensor


def scaled(freqs: Tensor, cfg) -> Tensor:
    """Frequencies [dim/2] slowed down for a longer context; cfg is a ModelConfig. Pairs that turn
    often within the original context stay as they are, pairs that do not complete a turn are
    divided by the factor, with a ramp between the two: over turns for llama3, over pairs for YaRN
    [arXiv 2309.00071]."""
    dim = cfg.rope_dim
    if cfg.rope_scaling == "llama3":
        turns = cfg.rope_original * freqs / (2 * math.pi)  # within the original context
        keep = (turns - cfg.rope_low) / (cfg.rope_high - cfg.rope_low)
    else:

        def pair(turns: float) -> float:  # that makes so many turns
            ratio = cfg.rope_original / (turns * 2 * math.pi)
            return dim * math.log(ratio) / (2 * math.log(cfg.rope_theta))

        low = max(math.floor(pair(cfg.rope_high)), 0)
        high = min(math.ceil(pair(cfg.rope_low)), dim - 1)
        keep = 1 - (torch.arange(dim // 2, device=freqs.device) - low) / max(high - low, 0.001)
    keep = keep.clamp(0, 1)
    return freqs * (keep + (1 - keep) / cfg.rope_factor)


def yarn_magnitude(factor: float, mscale: float) -> float:
    """By how much YaRN stretches vectors so that attention over a longer context stays as sharp."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def magnitude(cfg) -> float:
    """The stretch of rotated vectors: 1 unless scaled by YaRN."""
    if cfg.rope_scaling != "yarn":
        return 1.0
    if cfg.rope_mscale and cfg.rope_mscale_all:
        scores = yarn_magnitude(cfg.rope_factor, cfg.rope_mscale_all)
        return yarn_magnitude(cfg.rope_factor, cfg.rope_mscale) / scores
    return yarn_magnitude(cfg.rope_factor, 1.0)
