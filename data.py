"""Problems and texts: the synthetic world that a laptop can learn, and benchmark files.

    python data.py                      # print some texts of the corpus
    python data.py --level 2            # the same, harder
    python data.py FILE.jsonl           # what a benchmark file is understood as

The world imitates what a base model is made of: web text in which half of the people blurt out an
answer (nearly always a wrong one) and the others reason. In sums they forget most carries, which
the few who check notice; in a search they give up too soon. Some change language in the middle of
a thought; 60% use <think> and <answer> tags. Reinforcement learning then rewards what is right.

Everything is a function of (seed, index): any text or problem can be made without the ones before
it. The hash of a problem's content says to which split it belongs, whatever its seed, language or
wording; texts are about the training split alone. What problems and texts are, and when an answer
is right, is the tasks' business: see tasks/countdown.py, and tasks/__init__.py for adding one.
"""

import lib.start  # noqa: F401  before torch: how threads wait, a clean Ctrl-C

import random
from dataclasses import dataclass

import config
from config import setting
from lib import extensions
from lib.errors import UserError
from tasks import REASONING, TASKS
from tasks.base import PHRASES, PROGRAMS, Problem, split_of  # noqa: F401
from tasks.benchmarks import Dataset, instruction, load_jsonl  # noqa: F401

DEFAULT_TASKS = (*REASONING, "general")
PATIENCE = (1, 1, 2, 2, 4, 8, 16)


@dataclass
class WorldConfig:
    """What the web text is about, and in which proportions. setting(1.7, low=0.01): 1.7 unless
    --world.arithmetic says otherwise, and never below 0.01 (config.py)."""

    tasks: tuple[str, ...] = setting(DEFAULT_TASKS, choices=TASKS)  # what the texts are about
    arithmetic: float = setting(1.7, low=0.01)  # texts about arithmetic for each about Countdown
    logic: float = setting(0.15, low=0.01)  # texts about logic for each about Countdown
    minor: float = setting(0.15, low=0.01)  # texts about any other task for each about Countdown
    level: int = setting(1, low=1, high=3)  # difficulty: 1 for a laptop, 3 for a GPU
    reasoned: float = setting(0.5, low=0, high=1)  # share of texts that reason; the others blurt
    wrong: float = setting(0.95, low=0, high=1)  # of the blurted answers, the share made up
    forgets: float = setting(0.9, low=0, high=1)  # arithmetic: chance that a carry is forgotten
    slip: float = setting(0.03, low=0, high=1)  # chance that a step is written down wrongly
    checked: float = setting(0.3, low=0, high=1)  # of thoughts (not countdown's), those that check
    botched: float = setting(0.0, low=0, high=1)  # of errors that checks find in sums, put wrong
    patience: tuple[int, ...] = setting(PATIENCE, low=1)  # countdown: tries before giving up
    tags: float = setting(0.6, low=0, high=1)  # share of texts with <think> and <answer>
    broken_tags: float = setting(0.1, low=0, high=1)  # share of those that miss a tag
    mixed: float = setting(0.15, low=0, high=1)  # share of thoughts that change language
    unfinished: float = setting(0.05, low=0, high=1)  # share of texts that end before an answer

    def __post_init__(self):
        extensions.check_tasks(self.tasks, TASKS)


class World:
    """A deterministic source of problems and of corpus texts. UserError for unusable settings."""

    def __init__(self, seed: int, cfg: WorldConfig):
        config.check(cfg, "world.")
        self.seed, self.cfg = seed, cfg

    def problem(self, task: str, index: int, split: str = "train") -> Problem:
        """The index-th problem of a task; split "train", "dev" or "test"."""
        rng = random.Random(f"{self.seed} {task} {split} {index}")
        return self.draw(rng, task, split)

    def problems(self, task: str, count: int, split="train", start: int = 0) -> list[Problem]:
        """Those with the indices from `start` to start + count - 1; of dev and test, `count` with
        different prompts (fewer if there are no more), which may be one problem in other words."""
        if split == "train":
            return [self.problem(task, i) for i in range(start, start + count)]
        found: dict[str, Problem] = {}
        for index in range(start, start + 50 * count):  # a small world may have fewer
            p = self.problem(task, index, split)
            found.setdefault(p.prompt, p)
            if len(found) == count:
                break
        return list(found.values())

    def draw(self, rng: random.Random, task: str, split="train", easy: bool = False) -> Problem:
        """A random problem of the wanted split. easy: for texts, whose problems may be shorter."""
        for _ in range(10_000):
            p = TASKS[task].problem(rng, self.cfg.level, easy)
            if split_of(self.key(p)) == split:
                return p
        msg = f"the task '{task}' makes no problem of the {split} split"
        raise UserError(f"{msg}: its content has to vary")

    @staticmethod
    def key(problem: Problem) -> str:
        """The content of a problem without language and wording; equal keys: the same problem."""
        return TASKS[problem.task].content(problem)

    def text(self, index: int) -> tuple[str, str]:
        """The index-th text of the corpus: (a training problem's prompt, somebody's response)."""
        cfg, rng = self.cfg, random.Random(self.seed * 1_000_003 + index)
        weights = {"arithmetic": cfg.arithmetic, "countdown": 1.0, "logic": cfg.logic}
        task = rng.choices(cfg.tasks, [weights.get(t, cfg.minor) for t in cfg.tasks])[0]
        p = self.draw(rng, task, easy=True)
        if rng.random() < cfg.reasoned:
            thought, answer = TASKS[task].reasoned(rng, p, cfg)
        else:
            thought, answer = TASKS[task].guess(rng, p, cfg, rng.random() < cfg.wrong)

        tagged, unfinished = rng.random() < cfg.tags, rng.random() < cfg.unfinished
        if unfinished:
            return p.prompt, ("<think>" if tagged else "") + thought
        if tagged:
            parts = ["<think>", thought, "</think>", "<answer>", answer, "</answer>"]
            if rng.random() < cfg.broken_tags:
                parts.pop(rng.choice([0, 2, 3, 5]))
            return p.prompt, "".join(parts)
        if task == "general":
            return p.prompt, answer
        return p.prompt, thought + PHRASES[p.language]["tail"].format(a=answer)


def prompt_ids(problem: Problem, tokenizer) -> list[int]:
    """The prompt as token ids, in the model's template. HumanEval's is text to be continued: a base
    model gets it as it is."""
    if problem.task == "humaneval" and not tokenizer.chat:
        return tokenizer.bos + tokenizer.encode(problem.prompt)
    return tokenizer.prompt(instruction(problem, tokenizer.chat))


@dataclass
class Config(config.Config):
    world: WorldConfig = config.section(WorldConfig)


def main() -> None:
    parser = config.Parser(__doc__)
    add, whole = parser.add_argument, config.number(int, low=1)
    add("file", nargs="?", help="a JSONL file of problems to look at")
    add("--level", type=whole, help="the same as --world.level")
    add("--count", type=whole, default=12, help="how many to print")
    cfg, args = config.parse(parser, Config)
    with config.user_errors():
        if args.file:
            problems = load_jsonl(args.file)
            print(f"{len(problems)} problems; the first {min(args.count, len(problems))}:")
            for p in problems[: args.count]:
                print(f"[{p.task}, {p.language}] {p.prompt}\n    -> {p.answer}")
            return
        cfg.world.level = args.level or cfg.world.level
        world = World(cfg.seed, cfg.world)
        for i in range(args.count):
            prompt, response = world.text(i)
            print(f"{prompt}\n    {response}")


if __name__ == "__main__":
    main()
