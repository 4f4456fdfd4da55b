"""How RL is done (PPO, GRPO's relatives, its settings), and what the base brings to it."""

from algorithms import ALGORITHMS
from experiments import common
from experiments.common import CLAIMS, Plan, conclude, short

# grpo-sequence: the mean over sequences of DeepSeekMath, with which the relatives' papers compare


def variant(name: str = "grpo", **more) -> dict[str, object]:
    """The settings of an algorithm, with changes to the section grpo."""
    settings = {"algorithm": name} | ALGORITHMS[name].settings | more
    return {f"grpo.{key}": value for key, value in settings.items()}


def ppo(plan: Plan):
    """GRPO against PPO with its critic, lambda 1 and 0.95: quality, memory, time (full 20 minutes,
    quick 1)"""
    names, keys = ("grpo", "ppo", "ppo-0.95"), ("accuracy", "length", "step_seconds")
    runs = short(plan, {name: variant(name) for name in names})
    return conclude(plan, runs, CLAIMS["ppo"], [common.learning(plan, names)], keys)


def algorithms(plan: Plan):
    """Each relative of GRPO for as many steps, at that of three learning rates which does best on
    dev problems; dynamic sampling draws more in a step: see the tokens (full 100 minutes, quick
    3)"""
    relatives = {"grpo-sequence": variant(average="sequence")}
    others = ("ppo-0.95", "on-policy-distillation")  # of `ppo`; has a teacher
    relatives |= {name: variant(name) for name in ALGORITHMS if name not in others}
    # gspo's range is for long answers and small steps
    relatives["gspo-wide"] = variant("gspo", clip_low=0.03, clip_high=0.04)
    rate, factors = plan.config(0).grpo.lr, {"": 1.0}  # ending of a run's name -> factor
    factors |= {} if plan.quick else {"-slow": 1 / 3, "-fast": 3.0}
    variants = {
        name + end: settings | {"grpo.lr": factor * rate, "eval.split": "dev"}
        for name, settings in relatives.items()
        for end, factor in factors.items()
    }
    found = short(plan, variants)
    on_dev = {name: common.spread(common.of(found, name)) for name in variants}
    best, runs = {}, [{"base": run["base"]} for run in found]
    for name in relatives:
        best[name] = max((name + end for end in factors), key=lambda n: on_dev[n]["mean"])
        for seed, run, tried in zip(plan.seeds, runs, found):
            out = plan.folder(f"findings/{best[name]}", seed)
            tested = common.examine(plan.config(seed), f"{out}/model", f"{out}/test")
            run[name] = tried[best[name]] | tested
    panel, keys = common.learning(plan, best.values()), ("accuracy", "format", "length")
    more = {"chosen": best, "on_dev": on_dev}
    return conclude(plan, runs, CLAIMS["algorithms"], [panel], keys, **more)


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
    runs, keys = short(plan, variants), ("accuracy", "format", "length")
    return conclude(plan, runs, CLAIMS["ablations"], keys=keys)


def stale(plan: Plan):
    """How old may rollouts be? The policy that samples is refreshed after 1, 4 or 16 rollouts, as
    many updates each; without any correction, or weighted by truncated importance sampling (full 25
    minutes, quick 1)"""
    variants = {"grpo": variant()} | {f"every-{n}": variant(sync_every=n) for n in (4, 16)}
    variants |= {f"every-{n}-weighted": variant(sync_every=n, importance_cap=2.0) for n in (4, 16)}
    runs, keys = short(plan, variants), ("accuracy", "format", "length")
    return conclude(plan, runs, CLAIMS["stale"], keys=keys)


def lora(plan: Plan):
    """Adapters of rank 1 and 8, at ten times the learning rate, against all weights (full 15
    minutes, quick 1)"""
    variants, rate = {"grpo": variant()}, 10 * plan.config(0).grpo.lr
    variants |= {f"rank-{r}": variant(lr=rate) | {"lora.rank": r} for r in (1, 8)}
    runs, keys = short(plan, variants), ("accuracy", "format", "length")
    return conclude(plan, runs, CLAIMS["lora"], [common.learning(plan, variants)], keys)


def architecture(plan: Plan):
    """Dense against mixture of experts, MLA against GQA, balancing on and off: pretraining loss and
    what RL makes of it (full 25 minutes, quick 3)"""
    variants = {
        "default": {},  # mixture of experts, MLA, balanced; `texts` has the same
        "dense": {"model.n_experts": 0, "model.hidden_dim": 314},  # as many active parameters
        "gqa": {"model.attention": "gqa", "model.n_kv_heads": 2},
        "unbalanced": {"model.bias_update_speed": 0.0, "model.balance_loss": 0.0},
    }
    runs, keys = common.from_nothing(plan, variants), ("loss", "accuracy", "max_load")
    return conclude(plan, runs, CLAIMS["architecture"], keys=keys)
