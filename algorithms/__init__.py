"""GRPO's relatives by name: the functions and settings in which each differs from GRPO.

    python train_zero.py --algorithm dapo

relatives.py has their functions, ppo.py the critic. A recipe that imports this package knows them
all; grpo.py itself knows GRPO alone.
"""

from functools import partial

from algorithms.ppo import make_critic
from algorithms.relatives import (
    batch_advantages,
    centred,
    cispo_loss,
    dynamic_sampling,
    gspo_loss,
    leave_one_out,
    ones,
    overlong_penalty,
    reverse_kl_loss,
    v32_loss,
)
from grpo import ALGORITHMS, Algorithm

DAPO = dict(penalty=overlong_penalty, resample=dynamic_sampling)
GSPO = dict(clip_low=3e-4, clip_high=4e-4, average="sequence", kl_beta=0.0)  # section 5.1
CISPO = dict(clip_low=1.0, clip_high=4.0, average="token", kl_beta=0.0)  # high is ours, low is none
V32 = dict(average="sequence", kl_beta=1e-3, replay_routes=True)  # kl_beta is ours; no top-p mask

ALGORITHMS |= {
    "dr_grpo": Algorithm(dict(average="constant", kl_beta=0.0), centred),
    "dapo": Algorithm(dict(clip_high=0.28, average="token", kl_beta=0.0), **DAPO),
    "gspo": Algorithm(GSPO, loss=gspo_loss),
    "cispo": Algorithm(CISPO, loss=cispo_loss, **DAPO),
    # both without the KL in the reward; in RLOO a response is one action: its log p add up
    "rloo": Algorithm(dict(average="constant"), leave_one_out),
    "reinforce++": Algorithm(dict(average="token"), batch_advantages),
    "v3.2": Algorithm(V32, centred, v32_loss),
    # no reward: --grpo.reference names the teacher; kl_beta only asks for it
    "on-policy-distillation": Algorithm(dict(kl_beta=1.0), ones, reverse_kl_loss),
    "ppo": Algorithm(critic=make_critic),
    "ppo-0.95": Algorithm(critic=partial(make_critic, gae_lambda=0.95)),
}

# what --algorithm NAME sets in the section grpo
ALGORITHM_SETTINGS = {name: algorithm.settings for name, algorithm in ALGORITHMS.items()}
