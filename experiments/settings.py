"""How RL is done (PPO, GRPO's relatives, its settings), and what the base brings to it."""

from experiments import common
from experiments.algorithms import ALGORITHMS
from experiments.common import CLOSE, Plan, claims, conclude, short

PPO = """
ppo ~ grpo: PPO with lambda 1 is about as good as GRPO | nearly equal on MATH [R1 v2]
ppo > ppo-0.95: PPO with lambda 1 is better than with 0.95 | 0.95 considerably worse [R1 v2]
step_seconds of ppo > grpo: a step of PPO takes longer (seconds) | a critic as large as the policy
    [DeepSeekMath 2402.03300]
critic_mib of ppo > grpo: the critic takes memory (MiB of weights, gradients, moments)
"""
# grpo-sequence: the mean over sequences of DeepSeekMath, with which the relatives' papers compare
RELATIVES = """
dr_grpo ~ grpo-sequence | as good with shorter wrong answers [2503.20783]
dapo > grpo-sequence | AIME 50 against 30 [2503.14476]
gspo > grpo-sequence | higher at equal compute [2507.18071]
gspo-wide > grpo-sequence
cispo > dapo | twice as fast [2506.13585]
rloo > ppo | better without a critic [2402.14740]
reinforce++ ~ grpo | as good, steadier [2501.03262]
v3.2 ~ grpo | stable at scale [2512.02556]
grpo ~ ppo | nearly equal on MATH [R1 v2]
wrong_length of grpo-sequence > dr_grpo: dr_grpo's wrong answers are shorter than grpo-sequence's
    (tokens) | as good with shorter wrong answers [2503.20783]
"""
ABLATIONS = """
grpo > group-4: groups of 16 learn more than groups of 4 from as many responses | R1: 16,
    DeepSeekMath: 64
group-64 ~ grpo: groups of 64 are about as good as groups of 16
grpo > kl-0.1: a KL penalty of 0.1 costs accuracy | R1: 0.001; DAPO and Dr. GRPO none [2503.14476,
    2503.20783]
grpo > clip-0.02: a clip range of 0.02 costs accuracy | low values cut many tokens' gradient [R1 v2]
clip-10.0 ~ grpo: a clip range of 10 is about as good as 0.2 | R1: 10 [R1 v2]
grpo > temperature-0.6: sampling at temperature 1 learns more than at 0.6 (both asked at 1) |
    R1-Zero: 1
minibatches-16 > minibatches-1: up to 16 updates a rollout, the last ones stale, learn more than one
    | R1: 16 minibatches a rollout [R1 v2]
"""
SHARE = """
share-50, RL > share-0, RL: RL ends higher from a base with 50% reasoned texts than from one with
    none | behaviours that the base lacks RL does not raise [2503.01307]
length of share-0, RL > 2 x share-0, base: from a base that never reasons RL at least doubles the
    length (tokens, against twice the base's) | length grows with RL [R1 v1]
share-5, RL - share-5, base > share-0, RL - share-0, base: 5% of reasoned texts are enough for RL to
    gain more than without any | behaviours that the base lacks RL does not raise [2503.01307]
"""
SIZE = f"""
{CLOSE} > size-16x2, RL - size-16x2, base: RL alone gains less than {100 * CLOSE:g} points with
    width x layers 16x2 | small early models gained little from RL [R1 v2]; 0.5B guesses, from 1.5B
    on it searches [TinyZero]
size-32x2, RL - size-32x2, base: RL alone helps width x layers 32x2
size-64x3, RL - size-64x3, base: RL alone helps width x layers 64x3
size-128x4, RL - size-128x4, base: RL alone helps width x layers 128x4
size-128x4, RL - size-128x4, base > size-32x2, RL - size-32x2, base: RL's gain is larger for 128x4
    than for 32x2
"""
ARCHITECTURE = """
loss of dense, base > moe, base: experts reach a lower loss than a dense model of as many active
    parameters (nats) | better at equal compute [DeepSeekMoE 2401.06066]
moe, RL > dense, RL: after RL experts end higher than that dense model
loss of gqa, base > moe, base: MLA reaches a lower loss than GQA with 2 of 4 heads (nats) | MLA
    above multi-head, GQA below, and a smaller cache [DeepSeek-V2 2405.04434]
cache_bytes of gqa, base > moe, base: MLA's cache is smaller (bytes a token)
max_load of unbalanced, base > moe, base: without balancing the busiest expert is busier (shares of
    the mean) | experts collapse without balancing [V3 2412.19437]
loss of unbalanced, base > moe, base: without balancing the loss is higher (nats)
"""


def variant(name: str = "grpo", **more) -> dict[str, object]:
    """The settings of an algorithm, with changes to the section grpo."""
    settings = {"algorithm": name} | ALGORITHMS[name].settings | more
    return {f"grpo.{key}": value for key, value in settings.items()}


def ppo(plan: Plan):
    """GRPO against PPO with its critic, lambda 1 and 0.95: quality, memory, time (full 20 minutes,
    quick 1)"""
    names, keys = ("grpo", "ppo", "ppo-0.95"), ("accuracy", "length", "step_seconds")
    runs = short(plan, {name: variant(name) for name in names})
    return conclude(plan, runs, claims(runs, PPO), [common.learning(plan, names)], keys)


def algorithms(plan: Plan):
    """Each relative of GRPO for as many steps; dynamic sampling draws more in them: see the tokens
    (full 35 minutes, quick 3)"""
    variants = {"grpo-sequence": variant(average="sequence")}
    variants |= {name: variant(name) for name in ALGORITHMS if name != "ppo-0.95"}
    # gspo's range is for long answers and small steps
    variants["gspo-wide"] = variant("gspo", clip_low=0.03, clip_high=0.04)
    runs, keys = short(plan, variants), ("accuracy", "format", "length")
    return conclude(plan, runs, claims(runs, RELATIVES), [common.learning(plan, variants)], keys)


def ablations(plan: Plan):
    """Group size, KL penalty, clip range, temperature, staleness, one at a time (full 40 minutes,
    quick 3)"""
    grpo = plan.config(0).grpo
    responses, variants = grpo.problems_per_step * grpo.group_size, {"grpo": variant()}
    for g in (4, 64):
        problems = max(1, responses // g)
        variants[f"group-{g}"] = variant(group_size=g, problems_per_step=problems)
    variants |= {"kl-0.1": variant(kl_beta=0.1), "temperature-0.6": variant(temperature=0.6)}
    variants |= {f"clip-{c}": variant(clip_low=c, clip_high=c) for c in (0.02, 10.0)}
    variants |= {f"minibatches-{n}": variant(minibatches=n) for n in (1, 16)}
    runs = short(plan, variants)
    return conclude(plan, runs, claims(runs, ABLATIONS))


def before_and_after(runs: list[dict], names, xlabel: str, x, keys: tuple[str, ...]) -> list:
    """A panel for each figure, a line for the bases and one for what RL makes of them."""
    means, ways = common.over_seeds(runs)[0], ("base", "RL")
    lines = {(k, w): (x, [means[f"{name}, {w}"][k] for name in names]) for k in keys for w in ways}
    return [(key, xlabel, {way: lines[key, way] for way in ways}) for key in keys]


def share(plan: Plan):
    """Share of reasoned texts in the base's corpus, 0 to 50%: does RL find what the base never
    shows? (full 30 minutes, quick 3)"""
    shares, keys = (0, 5, 10, 25, 50), ("accuracy", "length", "format")
    variants = {f"share-{s}": {"world.direct": 1 - s / 100} for s in shares}
    runs = common.from_nothing(plan, variants)
    panels = before_and_after(runs, variants, "reasoned texts in the corpus, %", shares, keys)
    return conclude(plan, runs, claims(runs, SHARE), panels)


def size(plan: Plan):
    """Model width and depth: from which size on does RL alone work? (full 30 minutes, quick 3)"""
    variants, keys = {}, ("accuracy", "length")
    for d, n in ((16, 2), (32, 2), (64, 3), (128, 4)):
        shape = dict(dim=d, n_layers=n, n_heads=max(1, d // 32), hidden_dim=3 * d)
        shape |= dict(expert_dim=3 * d // 4)
        variants[f"size-{d}x{n}"] = {f"model.{key}": value for key, value in shape.items()}
    runs = common.from_nothing(plan, variants)
    x = [runs[0][f"{name}, base"]["parameters"] / 1e6 for name in variants]
    panels = before_and_after(runs, variants, "parameters, millions", x, keys)
    return conclude(plan, runs, claims(runs, SIZE), panels)


def architecture(plan: Plan):
    """Dense against mixture of experts, MLA against GQA, balancing on and off: pretraining loss and
    what RL makes of it (full 25 minutes, quick 3)"""
    variants = {
        "moe": {},
        "dense": {"model.n_experts": 0, "model.hidden_dim": 314},  # as many active parameters
        "gqa": {"model.attention": "gqa", "model.n_kv_heads": 2},
        "unbalanced": {"model.bias_update_speed": 0.0, "model.balance_loss": 0.0},
    }
    runs, keys = common.from_nothing(plan, variants), ("loss", "accuracy", "max_load")
    return conclude(plan, runs, claims(runs, ARCHITECTURE), keys=keys)
