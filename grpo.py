"""Group relative policy optimisation: roll out, score, compare within the group, update.

    python grpo.py runs/zero/base/model --steps 5        # a few steps of a saved model
    python train_zero.py                                 # the whole R1-Zero recipe on the laptop

A step has four parts [DeepSeekMath, 2402.03300; DeepSeek-R1, 2501.12948v1, eq 1-3]. Rollout: the
policy, which is the model in training, samples G responses to each question. Reward: rules score
them. Advantage: how much better than its group a response did, in standard deviations; so no critic
is needed, a second network that predicts rewards. Update: tokens of responses with an advantage
above 0 are made likelier, those below 0 less likely, in a few optimiser steps, each on a part of
the rollout. From the second one on the policy is no longer the one that sampled: the ratio of a
token's probabilities, new to old, corrects for that, and the clip ends the push on a token whose
probability has moved far enough. A KL penalty may keep the policy near a reference model.

docs/equations.md has the formulas, algorithms/ GRPO's relatives (DAPO, PPO, ...), lib/trainer.py
the log-probabilities of responses that share their prompt, and the optimiser step.

Simplified: (1) R1's eq 1 has one ratio for a response; as DeepSeekMath and most public trainers, we
have one for each token. (2) Groups whose responses all earned the same have no gradient but the
KL's: they are in the metrics, but left out before the minibatches are cut, and of the loss's means.
(3) The reference model and its KL are off by default. (4) Which mean the loss is, `average` says.
"question", our default: over the tokens of a question's 16 responses, then over questions (DAPO's
printed equation; the KL's over tokens). "token": over all tokens of a minibatch (DAPO's code).
"sequence": over each response, then over responses (DeepSeekMath). Single runs led to this choice
(results/log.md). (5) The experts' balance loss and the router's bias go on as in pretraining.

Shapes: B responses, G of them a group, side by side; R tokens of the longest response, the prompt
not counted: column j is response token j.
"""

import lib.start  # noqa: F401

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

import config
import inputs
import rewards as rw
import tokenizer as tokenizers
import watch
from config import section, setting
from data import TASKS, Problem, World, WorldConfig, load_jsonl, prompt_ids
from lib import distributed, extensions, lora, metrics
from lib import run as runs
from lib import trainer as training
from lib.errors import UserError
from lib.lora import LoRAConfig
from lib.optim import adamw
from lib.profiling import phase
from model import GPT
from rewards import RewardConfig
from sample import Rollout, SamplingParams, generate

AVERAGES = ("question", "token", "sequence", "constant")


@dataclass
class GRPOConfig:
    """TRL's names: group_size = num_generations, max_new_tokens = max_completion_length, clip_low
    and clip_high = epsilon and epsilon_high, kl_beta = beta."""

    algorithm: str = "grpo"  # set by --algorithm
    tasks: tuple[str, ...] = setting(("arithmetic", "countdown"), choices=TASKS)  # in turn
    steps: int = setting(40, low=1)  # rollouts
    problems_per_step: int = setting(32, low=1)
    group_size: int = setting(16, low=2)  # responses to each problem
    max_new_tokens: int = setting(400, low=1)
    doubled_from: int = setting(0, low=0)  # rollouts until max_new_tokens doubles (R1 v2: 512)
    rows: int = setting(0, low=0)  # responses a process generates at once; 0: all
    temperature: float = setting(1.0, low=0.01)
    minibatches: int = setting(4, low=1)  # optimiser steps that a rollout is split into, at most
    micro_tokens: int = setting(4096, low=1)  # of prompts or responses in a forward pass, padded
    lr: float = 3e-4
    warmup: int = 5  # rollouts over which the learning rate rises
    decay: float = 0.5  # last share of the run, over which it falls linearly to a tenth
    clip_low: float = 0.2
    clip_high: float = 0.2
    importance_cap: float = setting(0.0, low=0)  # of truncated importance sampling, 0: none
    sync_every: int = setting(1, low=1)  # rollouts after which the sampler gets the new weights
    replay_routes: bool = False  # in training, use the experts of the rollout
    average: str = setting("question", choices=AVERAGES)  # "sequence": DeepSeekMath's
    kl_beta: float = 0.0
    reference: str = ""  # folder of the reference model; without, the one that training starts from
    ref_every: int = 0  # refresh the reference after so many rollouts (R1 v2: 25); 0: never
    max_grad_norm: float = 1.0
    save_every: int = setting(10, low=1)

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            msg = f"there is no algorithm '{self.algorithm}'"
            raise UserError(f"--grpo.algorithm: {msg}; use one of {', '.join(ALGORITHMS)}")
        extensions.check_algorithm(self.algorithm, ALGORITHMS[self.algorithm], GRPOConfig)


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """A_i = (r_i - mean(r_1 .. r_G)) / std(r_1 .. r_G): how much better than its group [eq 3].

    rewards [B] -> [B]. std is the population's (the paper does not say which). A group without
    spread gets zeros.

    >>> group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0]), 4).tolist()
    [1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    centred, std, spread = group_statistics(rewards, group_size)
    return torch.where(spread, centred / std.clamp(min=1e-30), 0.0).flatten()


def group_statistics(rewards: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of rewards [B] in groups of G: r - mean [groups, G], std [groups, 1], whether there is any
    spread [groups, 1]. What is smaller than 1e-6 is rounding, not a difference."""
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    return centred, std, std > 1e-6 * groups.abs().amax(1, keepdim=True).clamp(min=1)


def without_spread(rewards: Tensor, group_size: int) -> Tensor:
    """[questions] bool: whose responses all earned the same."""
    return ~group_statistics(rewards, group_size)[2][:, 0]


def policy_loss(
    logprobs, old_logprobs, advantages, mask, cfg, ref_logprobs=None, normalizer=None, weights=None
) -> tuple[Tensor, dict[str, float]]:
    """The clipped objective with its KL penalty, negated [eq 1-2]; returns (loss, summed metrics):

        - 1/N sum_{i,t} [ w_it min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta KL_it ]
        rho_it = pi(o_it | q, o_i,<t) / pi_old(o_it | q, o_i,<t)      (response i, its token t)

    At rho = 1 its gradient is -A_i grad log pi: REINFORCE with the group's mean as the baseline,
    over the group's deviation. logprobs, old_logprobs, ref_logprobs, mask (1 at the response's
    tokens): [B, R]; advantages [B], or [B, R] with a critic; weights w [B, 1] or [B, R], such
    as question_weights: on min(...), not on the KL. normalizer: N, see average.

    >>> old = torch.tensor([[-0.7, -1.2]])
    >>> new = old + torch.tensor([[0.5, 0.05]])      # ratios 1.65, clipped at 1.2, and 1.05
    >>> loss, _ = policy_loss(new, old, torch.tensor([1.0]), torch.ones(1, 2), GRPOConfig())
    >>> round(loss.item(), 3)                        # -(1.2 + 1.051) / 2
    -1.126
    """
    mask = mask.to(logprobs.dtype)
    advantages = per_token(advantages, mask)  # [B, 1] or [B, R]
    ratio = ((logprobs - old_logprobs) * mask).exp()  # rho [B, R]
    clipped = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    loss = -torch.min(ratio * advantages, clipped * advantages)  # eq 1, a ratio a token
    if weights is not None:
        loss = loss * weights
    sums = metrics.clip_counts(ratio, advantages, mask, cfg)
    if ref_logprobs is not None and cfg.kl_beta:
        kl = k3(logprobs, ref_logprobs, mask)  # eq 2
        loss = loss + cfg.kl_beta * kl
        sums["kl"] = (kl * mask).sum().item()
    return average(loss, mask, cfg, normalizer), sums


def per_token(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages [B] or [B, R] as factors on tokens: [B, 1] or [B, R], R the mask's."""
    return advantages.view(len(mask), -1)[:, : mask.shape[1]].to(mask.dtype)


def k3(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate of KL(pi, pi_ref) per token [eq 2]: never negative, zero where the two agree."""
    d = (ref_logprobs - logprobs) * mask
    return d.exp() - d - 1


def average(loss: Tensor, mask: Tensor, cfg: GRPOConfig, normalizer: float | None) -> Tensor:
    """loss [B, R] summed over tokens ("sequence": over each response's mean), over the normalizer.
    That counts the whole optimiser step (by default this call), so that micro-batches add up to its
    loss. "question": as "token"; the terms, not the KL's, already have question_weights."""
    if normalizer is None:
        normalizer = step_normalizer(mask.sum(1).tolist(), cfg)
    if cfg.average == "sequence":
        return ((loss * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / normalizer
    return (loss * mask).sum() / normalizer


def step_normalizer(lengths: list, cfg: GRPOConfig) -> float:
    """What a step's loss is divided by: the number of its sequences, of its tokens, or of tokens if
    all responses had max_new_tokens ("constant")."""
    if cfg.average == "sequence":
        return float(len(lengths))
    if cfg.average == "constant":
        return float(len(lengths) * cfg.max_new_tokens)
    return float(sum(lengths))  # "token", and "question" with its weights


def question_weights(lengths: list[int], group_size: int) -> Tensor:
    """[B] factors on the tokens' terms under which a mean over all tokens becomes one over
    questions of their means over tokens.

    >>> question_weights([1, 1, 3, 3], 2).tolist()      # 2 and 6 tokens, 4 on average
    [2.0, 2.0, 0.6666666865348816, 0.6666666865348816]
    """
    tokens = torch.tensor(lengths, dtype=torch.float32).view(-1, group_size).sum(1)  # [questions]
    return (tokens.mean() / tokens.clamp(min=1)).repeat_interleave(group_size)


@dataclass(frozen=True)
class Algorithm:
    """GRPO; its relatives in algorithms/ replace some of these functions."""

    settings: dict[str, object] = field(default_factory=dict)  # of the section grpo that it sets
    advantages: Callable = group_advantages
    loss: Callable = policy_loss  # which applies the weights of tokens
    keep: Callable | None = None  # (log(pi_sampler / pi) [b, R], advantages, mask): [b, 1] bool
    penalty: Callable | None = None  # (lengths [B], finished [B], max_new_tokens) -> rewards [B]
    resample: Callable | None = None  # (learner, batch, totals, step, next_problems): new batch
    critic: Callable | None = None  # (model folder, cfg) -> the network that advantages come from


ALGORITHMS = {"grpo": Algorithm()}  # the recipes import algorithms/, which adds the relatives


class Learner:
    """A policy in training with all that its steps need. cfg: a Config with grpo, rewards, seed.
    Everything random is a function of (cfg.seed, step), so a resumed run continues as if it had
    never stopped. base: the folder that a critic and, if no other is named, the reference model
    start from. judge(problems, responses): rewards of each response, by name, that are added."""

    def __init__(self, model: GPT, tokenizer, cfg, base: str | None = None, judge=None):
        self.model, self.tokenizer, self.cfg, self.judge = model, tokenizer, cfg, judge
        self.algorithm = ALGORITHMS[cfg.grpo.algorithm]
        optimizers = [adamw(lora.parameters(model) or model.parameters(), cfg.grpo.lr)]
        self.trainer = training.Trainer(model, optimizers, cfg.grpo.max_grad_norm)
        self.ref, self.critic, self.sampler = None, None, model
        self.limit = cfg.grpo.max_new_tokens  # of a response in this step
        if cfg.grpo.sync_every > 1:  # an older policy samples, as in asynchronous training
            self.sampler = lora.prepared(GPT.from_pretrained(base), cfg)
        reference = cfg.grpo.reference or base
        if cfg.grpo.kl_beta and cfg.lora.rank and reference == base:
            self.ref = model  # without its adapters it is the base
        elif cfg.grpo.kl_beta and reference:  # the frozen model that the KL is measured from
            ref = GPT.from_pretrained(reference).requires_grad_(False)
            self.ref = distributed.shard(ref, ref.layers, cfg)
        if self.algorithm.critic:
            self.critic = self.algorithm.critic(base, cfg)

    def step(self, number: int, next_problems: Callable[[int], list[Problem]]):
        """Rollout, rewards, advantages, update: (metrics, one record a response). GRPO itself has
        neither `resample` (DAPO's; what it adds is trained on, but is in no record and no metric of
        rewards) nor a critic (PPO's)."""
        cfg, problems, timer = self.cfg.grpo, next_problems(number), metrics.Timer()
        self.limit = cfg.max_new_tokens * (2 if 0 < cfg.doubled_from <= number else 1)
        if self.sampler is not self.model and number % cfg.sync_every == 0:
            self.sampler.load_state_dict(self.model.state_dict())
        batch = self.rollout(problems, number)
        tokens = (batch.lengths - batch.prompt_lengths).sum().item()
        timer.lap("rollout")
        rewards, logged, records = self.score(batch, problems)  # rewards [B]
        timer.lap("reward")
        if resample := self.algorithm.resample:
            batch, rewards, more = resample(self, batch, rewards, number, next_problems)
            logged |= more
            timer.lap("dynamic")
        if self.critic:
            rewards = rewards.to(self.model.device)
            advantages, returns, more = self.critic.advantages(batch, rewards, cfg)
            logged |= more
            timer.lap("critic")
        else:
            advantages = self.algorithm.advantages(rewards, cfg.group_size).to(self.model.device)
        factor, seed = learning_rate(number, cfg), f"{self.cfg.seed} {number}"
        logged |= self.update(batch, advantages, factor, random.Random(seed))
        timer.lap("train")
        if self.critic:
            more = self.critic.fit(batch, returns, cfg, factor, random.Random(seed))
            logged["skipped_steps"] += more.pop("skipped_steps")
            logged |= more
            timer.lap("critic")
        logged |= timer.metrics(tokens, logged.pop("trained_tokens"))
        return logged | {"num_tokens": tokens + logged.get("dynamic/tokens", 0)}, records

    def rollout(self, problems: list[Problem], number: int) -> Rollout:
        """group_size responses to each problem, the group's side by side."""
        cfg = self.cfg.grpo
        settings = dict(max_new_tokens=self.limit, temperature=cfg.temperature)
        settings |= dict(num_return_sequences=cfg.group_size, rows=cfg.rows or None)
        params = SamplingParams(**settings, record_routes=cfg.replay_routes)
        prompts = [prompt_ids(p, self.tokenizer) for p in problems]
        return generate(self.sampler, prompts, params, seed=self.cfg.seed * 1_000_003 + number)

    def score(self, batch: Rollout, problems: list[Problem]):
        """(total rewards [B], metrics, one record a response); each process scores its part."""
        cfg, part = self.cfg.grpo, distributed.local_slice(len(batch.tokens))
        problems = [p for p in problems for _ in range(cfg.group_size)][part]
        texts = [self.tokenizer.response(ids) for ids in batch.responses()[part]]
        with phase("reward"):
            scores = rw.score_all(problems, texts, self.cfg.rewards)
            added = self.judge(problems, texts) if self.judge else [{} for _ in texts]
            if self.algorithm.penalty:
                lengths = (batch.lengths - batch.prompt_lengths).float()
                penalty = self.algorithm.penalty(lengths, batch.finished, self.limit)
                added = [a | {"overlong": x} for a, x in zip(added, penalty[part].tolist())]
            for score, more in zip(scores, added):
                score |= more | {"total": score["total"] + sum(more.values())}
            records = distributed.gather(list(map(record, problems, texts, scores)))
            rewards = torch.tensor([r["rewards"]["total"] for r in records])
            logged = metrics.of_rollout(batch, rewards, records, cfg.group_size)
            idle = without_spread(rewards, cfg.group_size).float().mean().item()
            return rewards, logged | {"frac_reward_zero_std": idle}, records

    def update(self, batch: Rollout, advantages: Tensor, lr_factor: float, rng) -> dict[str, float]:
        """One optimiser step on each of cfg.minibatches parts of a rollout, fewer if groups have no
        gradient: a response is used at most once, a group never split. advantages [B], or [B, R]
        with a critic. Returns metrics.

        parts: the questions of each optimiser step; works: this process's share of each part (all
        without torchrun); micro-batches: slices of a work, a forward and backward pass each."""
        cfg, G = self.cfg.grpo, self.cfg.grpo.group_size
        responses = training.Responses.of(batch)
        advantages = advantages.reshape(len(advantages), -1)  # [B, 1] or [B, R]
        # those with a response whose advantage is not 0: the loss's means are over these alone
        by_question = advantages.reshape(len(advantages) // G, -1)
        questions = by_question.abs().sum(1).nonzero()[:, 0].tolist()
        parts = training.minibatches(questions, len(by_question) / cfg.minibatches, rng)
        works = [training.LocalWork.of(part, responses, G, cfg.micro_tokens) for part in parts]

        ref, old_logprobs = self.fixed_logprobs(batch, responses, works)  # [B, R]
        weights = torch.ones(len(advantages), 1, device=advantages.device)  # [B, 1] of the tokens
        steps, sums, gaps = [], Counter(metrics.COUNTS), []
        for work in works:
            first, lengths = not steps, [responses.lengths[row] for row in work.rows]
            normalizer = step_normalizer(lengths, cfg)
            if cfg.average == "question":
                weights[work.rows] = question_weights(lengths, G).to(weights.device)[:, None]
            # A prompt runs forward once, and its responses start from copies of its cache; when all
            # are done, the copies' gradients are summed and sent back through the prompt. When the
            # block ends, the gradient's norm is limited, and the optimiser steps.
            with self.trainer.optimizer_step(lr_factor) as step:
                # rows [b]: places in the rollout; which [b]: places of their prompts in the cache
                for rows, which, cache in training.micro_batches_of(self.model, batch, work):
                    with phase("forward"):
                        logprobs, mask = training.response_logprobs(
                            self.model, cache, rows, which, responses, cfg.temperature
                        )  # [b, R], R the longest of these
                        R = mask.shape[1]
                        # In the first part pi_old is pi itself: every ratio is 1, but the gradient
                        # is that of log pi, since pi_old is detached.
                        old = logprobs.detach() if first else old_logprobs[rows, :R]
                        gap = (old - responses.logprobs[rows, :R]) * mask  # trainer minus sampler
                        token_weights = weights[rows]
                        if cfg.importance_cap:  # truncated importance sampling
                            token_weights = token_weights * gap.exp().clamp(max=cfg.importance_cap)
                        if keep := self.algorithm.keep:  # V3.2's: some responses teach nothing
                            drift = (old - logprobs.detach()) * mask - gap  # sampler minus policy
                            kept = keep(drift, advantages[rows], mask)
                            token_weights = token_weights * kept
                            sums["off_policy_mask/mean"] += (mask & ~kept).sum().item()
                        loss, counts = self.algorithm.loss(
                            logprobs, old, advantages[rows], mask, cfg,
                            ref_logprobs=None if ref is None else ref[rows, :R],
                            normalizer=normalizer, weights=token_weights,
                        )  # fmt: skip
                    step.backward(loss, balance_weight=len(rows) / len(work.rows))
                    sums.update(counts)
                    if first:  # with the sampler's own weights the gap is rounding
                        gaps.append(gap[mask.bool()])
            steps.append(step)
        logged = metrics.of_update(steps, sums) | metrics.of_gaps(gaps)
        return logged | {"learning_rate": cfg.lr * lr_factor}

    def fixed_logprobs(self, batch, responses, works: list) -> tuple[Tensor | None, Tensor]:
        """log pi_ref [B, R], None without a KL penalty, and log pi_old [B, R], of use from the
        second part on.

        In float32 what was noted while sampling is what the trainer would compute for pi_old, to
        1e-6: that saves a forward pass. In bfloat16, or from an older sampler, they differ, and
        importance_cap corrects for just that difference: then the trainer computes it."""
        cfg = self.cfg.grpo

        def of(network: GPT, works: list) -> Tensor:
            return training.score_responses(network, batch, responses, works, cfg.temperature)

        with lora.plain(self.model, merged=False):
            ref = of(self.ref, works) if self.ref else None
        if self.sampler is not self.model or cfg.importance_cap or self.cfg.precision == "bfloat16":
            return ref, of(self.model, works[1:])
        return ref, responses.logprobs


def record(problem: Problem, text: str, scores: dict[str, float]) -> dict:
    """A response with its rewards and measures, as it is logged."""
    out = {"task": problem.task, "prompt": problem.prompt, "response": text, "rewards": scores}
    more = {"language_consistency": scores["language"]}
    return out | more | {"reflection_words": rw.reflection_words(text)}


def learning_rate(number: int, cfg: GRPOConfig) -> float:
    """Factor on cfg.lr in step `number`: warm-up, then flat, then down to a tenth."""
    rise = (number + 1) / max(cfg.warmup, 1)
    fall = 0.1 + 0.9 * max(0.0, 1 - number / cfg.steps) / max(cfg.decay, 1e-9)
    return min(1.0, rise, fall)


def train(
    cfg, base: str, out: str, resume: bool, stage, next_problems, judge=None, fixed=None, **settings
):
    """cfg.grpo.steps steps on the model in folder `base`, with the problems next_problems(step);
    returns the folder of the result. Dynamic sampling asks for problems beyond the last step too.
    fixed: problems that are asked again and again, to be looked at; without, the world's.
    `settings` is whatever else the result depends on. KeyboardInterrupt after a clean stop."""
    inputs.check_reference(cfg, base)
    model, tokenizer = GPT.from_pretrained(base), tokenizers.load(base, **cfg.asked)
    settings["init"] = model.fingerprint()  # another base under the same name is another run
    if cfg.grpo.reference:
        settings["reference"] = GPT.from_pretrained(cfg.grpo.reference).fingerprint()
    settings = asdict(cfg) | settings
    if resume and (done := runs.finished(out, settings, stage, cfg.grpo.steps)):
        print(f"'{out}' is finished: its model is {done}")
        return done
    with runs.Run(out, settings, resume, stage) as run:
        model = lora.prepared(model, cfg)
        learner = Learner(model, tokenizer, cfg, base, judge)
        others = learner.ref, learner.critic, learner.sampler
        ref, critic, sampler = (None if m is model else m for m in others)
        models = {"model": model, "ref": ref, "critic": critic, "sampler": sampler}
        optimizers = learner.trainer.optimizers + (critic.trainer.optimizers if critic else [])
        shown = {"reward": "reward", "length": "completions/mean_length"}
        shown |= {"accuracy": "rewards/accuracy/mean", "format": "rewards/format/mean"}
        numbers, every = range(cfg.grpo.steps), cfg.grpo.save_every
        fixed = watch.fixed_problems(cfg) if fixed is None else fixed
        run.set_status(changed=config.changed(cfg))
        for step, _ in run.steps(numbers, models, optimizers, every, stage, shown):
            if step == 0 and fixed:
                run.answer(0, watch.answers(learner, fixed))
            if ref and cfg.grpo.ref_every and step and step % cfg.grpo.ref_every == 0:
                ref.load_state_dict(model.state_dict())
            logged, records = learner.step(step, next_problems)
            tokens = logged["num_tokens"] + run.state.get("tokens", 0)
            run.state["tokens"] = logged["num_tokens"] = tokens
            run.log(step=step + 1, **logged)
            if step % 10 == 0:
                run.sample(step + 1, metrics.first_of_each_task(records, cfg.grpo.group_size))
            if fixed and (step % 10 == 9 or step + 1 == cfg.grpo.steps):
                run.answer(step + 1, watch.answers(learner, fixed))
        return run.export(model, tokenizer)


@dataclass
class Config(config.Config):
    world: WorldConfig = section(WorldConfig)
    grpo: GRPOConfig = section(GRPOConfig)
    rewards: RewardConfig = section(RewardConfig)
    lora: LoRAConfig = section(LoRAConfig)


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("model", help="model folder to start from, such as runs/zero/model; it is not changed")
    add("--steps", type=config.number(int, low=1), default=5, help="rollouts to make (default 5)")
    add("--data", help="JSONL file of problems, instead of the world's")
    cfg, args = config.parse(parser, Config)
    with config.user_errors(), distributed.started(cfg):
        cfg = inputs.suited(cfg, args.model, args)
        inputs.check_reference(cfg, args.model)
        inputs.check_lora(cfg, args.model)
        tokenizer = tokenizers.load(args.model, **cfg.asked)
        model = lora.prepared(GPT.from_pretrained(args.model), cfg)
        learner = Learner(model, tokenizer, cfg, args.model)
        dataset = load_jsonl(args.data) if args.data else None
        for step in range(args.steps):
            logged, records = learner.step(step, lambda step: problems_in_order(cfg, step, dataset))
            best = max(records, key=lambda r: r["rewards"]["total"])
            print(f"--- step {step + 1}\n{metrics.as_lines(logged)}")
            print(f"best of {len(records)}: {best['prompt']}")
            print(f"  {best['response']}  {best['rewards']}", flush=True)


def problems_in_order(cfg, step: int, dataset: list[Problem] | None = None) -> list[Problem]:
    """The problems of a step: the world's next ones, the tasks in turn, or the data set's."""
    tasks, n = cfg.grpo.tasks, cfg.grpo.problems_per_step
    indices = range(step * n, (step + 1) * n)
    if dataset:
        return [dataset[i % len(dataset)] for i in indices]
    world = World(cfg.seed, cfg.world)
    return [world.problem(tasks[i % len(tasks)], i) for i in indices]


if __name__ == "__main__":
    main()
