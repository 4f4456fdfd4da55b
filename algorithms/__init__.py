"""GRPO's relatives by name: the functions and settings in which each differs from GRPO.

    python train_zero.py --algorithm dapo

relatives.py has their functions, ppo.py the critic. A recipe that imports this package knows them
all; grpo.py itself knows GRPO alone.
"""

from functools import partial

from algorithms import relatives
from algorithms.ppo import make_critic
from grpo import ALGORITHMS, Algorithm

DAPO = dict(penalty=relatives.overlong_penalty, resample=relatives.dynamic_sampling)
GSPO = dict(clip_low=3e-4, clip_high=4e-4, average="sequence", kl_beta=0.0)  # section 5.1
CISPO = dict(clip_low=1.0, clip_high=4.0, average="token", kl_beta=0.0)  # high is ours, low is none
V32 = dict(average="sequence", kl_beta=1e-3, replay_routes=True)  # kl_beta is ours; no top-p mask
TAUGHT = dict(kl_beta=1.0, ref_every=0)  # so that the reference model is there, and stays

ALGORITHMS |= {
    "dr_grpo": Algorithm(dict(average="constant", kl_beta=0.0), relatives.centred),
    "dapo": Algorithm(dict(clip_high=0.28, average="token", kl_beta=0.0), **DAPO),
    "gspo": Algorithm(GSPO, loss=relatives.gspo_loss),
    "cispo": Algorithm(CISPO, loss=relatives.cispo_loss, **DAPO),
    # both without the KL in the reward; in RLOO a response is one action: its log p add up
    "rloo": Algorithm(dict(average="constant"), relatives.leave_one_out),
    "reinforce++": Algorithm(dict(average="token"), relatives.batch_advantages),
    "v3.2": Algorithm(V32, relatives.centred, relatives.v32_loss, keep=relatives.not_left_behind),
    "ppo": Algorithm(critic=make_critic),
    "ppo-0.95": Algorithm(critic=partial(make_critic, gae_lambda=0.95)),
    # rewards are logged, and teach nothing: --grpo.reference names the teacher
    "on-policy-distillation": Algorithm(TAUGHT, relatives.ones, relatives.reverse_kl_loss),
}

# what --algorithm NAME sets in the section grpo
ALGORITHM_SETTINGS = {name: algorithm.settings for name, algorithm in ALGORITHMS.items()}
