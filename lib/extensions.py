"""What is added to the project has all of its parts: a task, a reward, an algorithm. Whatever lacks
one is refused, by a sentence that names it, where the settings are checked: before any work."""

from dataclasses import fields

from lib.errors import UserError

TASK = ("LEVELS", "problem", "content", "reasoned", "guess", "judge")  # see tasks/__init__.py
OPTIONAL = ("keep", "penalty", "resample", "critic")  # of an algorithm


def check_tasks(names, tasks: dict) -> None:
    """tasks: name -> module; `names` are those that are used."""
    for name in names:
        if missing := [part for part in TASK if not hasattr(tasks.get(name), part)]:
            raise UserError(f"the task '{name}' lacks {', '.join(missing)}: see tasks/__init__.py")


def check_rewards(weights, rewards: dict) -> None:
    """Every reward has a weight, and every weight a reward."""
    named = {f.name for f in fields(weights)} - {"accuracy"}
    if missing := sorted(rewards.keys() - named):
        raise UserError(f"the reward '{missing[0]}' has no weight: add it to RewardConfig")
    if missing := sorted(named - rewards.keys()):
        raise UserError(f"the weight '{missing[0]}' has no reward: add it to rewards.REWARDS")


def check_algorithm(name: str, algorithm, config: type) -> None:
    """Its settings are fields of `config`, and its parts are functions."""
    if unknown := set(algorithm.settings) - {f.name for f in fields(config)}:
        raise UserError(f"the algorithm '{name}' sets grpo.{min(unknown)}, which does not exist")
    for part in (f.name for f in fields(algorithm) if f.name != "settings"):
        found = getattr(algorithm, part)
        if not callable(found) and not (found is None and part in OPTIONAL):
            raise UserError(f"the algorithm '{name}': its part '{part}' is not a function")
