"""The same few problems, asked again and again while a model trains, so that one can watch its
thinking grow: above the progress bar, in answers.jsonl and on the run's page (lib/page.py)."""

import rewards as rw
from data import Problem, World, prompt_ids
from sample import SamplingParams, generate


def fixed_problems(cfg, count: int = 3) -> list[Problem]:
    """Held-out ones (dev), the tasks in turn, in English."""
    world, tasks, out = World(0, cfg.world), [t for t in cfg.grpo.tasks if t != "general"], []
    for i in range(count if tasks else 0):
        found = world.problems(tasks[i % len(tasks)], 20, "dev")
        found.sort(key=lambda p: p.language != "en")
        out.append(found[i % len(found)])
    return out


def answers(learner, problems: list[Problem]) -> list[dict]:
    """What a grpo.Learner's model says to each, and whether it is right. The random numbers are the
    same each time, and not the training's."""
    tokenizer, cfg = learner.tokenizer, learner.cfg.grpo
    params = SamplingParams(learner.limit, cfg.temperature)
    batch = generate(learner.model, [prompt_ids(p, tokenizer) for p in problems], params, 0)
    texts = [tokenizer.response(ids) for ids in batch.responses()]
    right = rw.verdicts(problems, [rw.answer_of(p, t) for p, t in zip(problems, texts)])
    tokens = (batch.lengths - batch.prompt_lengths).tolist()
    found = zip(problems, texts, right, tokens, batch.finished.tolist())
    return [
        {"task": p.task, "prompt": p.prompt, "answer": p.answer, "response": text}
        | {"correct": ok, "tokens": n, "finished": ended}
        for p, text, ok, n, ended in found
    ]
