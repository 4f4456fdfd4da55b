"""Problems and texts: the synthetic world a laptop can learn, and benchmark files.

    python data.py                      # print some texts of the corpus
    python data.py --level 2            # the same, harder
    python data.py FILE.jsonl           # what a benchmark file is understood as

The world imitates what a base model is made of [DeepSeek-R1, 2501.12948, section 2.2]: "web text" in which people mostly
blurt out an answer (often wrong), sometimes think step by step, sometimes slip and catch the slip, try again and again,
switch language in mid-thought, use <think> and <answer> tags or half of them. Reinforcement learning then finds what pays.

Everything is a function of (seed, index), so any text or problem can be made again without the ones before it. A problem
belongs to the test split if the hash of its content says so, whatever seed, language or wording it appears in.
"""

import argparse
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

TASKS = ("arithmetic", "countdown")
LANGUAGES = ("en", "zh")


@dataclass
class WorldConfig:
    """Proportions of the web text, all shares between 0 and 1."""

    tasks: tuple[str, ...] = TASKS
    level: int = 1  # difficulty, 1 (laptop) to 3 (GPU)
    direct: float = 0.7  # texts that blurt out an answer (arithmetic)
    direct_countdown: float = 0.4
    wrong: float = 0.7  # share of those answers that are wrong
    tags: float = 0.5  # texts that use <think> and <answer>
    broken_tags: float = 0.1  # share of those that forget or misplace one
    slip: float = 0.06  # chance that a written step is wrong at first
    uncaught: float = 0.1  # arithmetic: share of slips that nobody notices
    mixed: float = 0.15  # reasoned texts that change language on the way
    unfinished: float = 0.35  # texts that trail off before they come to an answer
    max_tries: int = 8  # countdown: attempts before an author gives up


@dataclass
class Problem:
    """One question. `tests` holds what its verifier needs beyond the answer (countdown: numbers and target)."""

    prompt: str
    answer: str
    task: str
    language: str = "en"
    tests: dict = field(default_factory=dict)


# level: numbers that a task draws from
ARITHMETIC = {
    1: dict(start=20, most=20, change=9, steps=(3, 6)),
    2: dict(start=50, most=100, change=30, steps=(4, 12)),
    3: dict(start=500, most=1000, change=300, steps=(6, 20)),
}
COUNTDOWN = {
    1: dict(count=3, number=6, target=24, value=99),
    2: dict(count=4, number=13, target=99, value=999),
    3: dict(count=5, number=50, target=999, value=9999),
}
NAMES = (("Tom", "小明"), ("Anna", "小红"), ("Ben", "小刚"), ("Mia", "小丽"), ("Sam", "小华"), ("Lily", "小芳"))
THINGS = (("apples", "苹果"), ("books", "书"), ("coins", "硬币"), ("eggs", "鸡蛋"), ("cards", "卡片"), ("stones", "石头"))
GAIN = (("finds", "捡到"), ("buys", "买来"), ("gets", "得到"), ("wins", "赢了"))
LOSE = (("loses", "丢了"), ("sells", "卖掉"), ("gives", "送出"), ("breaks", "打破"))

PHRASES = {
    "en": dict(start="{0} at first", step=" {verb} {d} makes {v}", slip=" wait no, makes {v}", guess="maybe {a}", tail=". The answer is {a}.",
               want=" want {t}", yes=" yes", low=" low", high=" high", oops=" wait no {v}", give_up=" give up"),
    "zh": dict(start="起初{0}", step="{verb}{d}就是{v}", slip="等等不对,应该是{v}", guess="大概{a}", tail="。答案是{a}。",
               want="要{t}", yes="对了", low="小了", high="大了", oops="等等不对{v}", give_up="算了"),
}


def is_test(key: str) -> bool:
    """Whether a problem, named by its content alone, is held out: a fifth of all problems are."""
    return zlib.crc32(key.encode()) % 5 == 0


def random_expression(rng: random.Random, numbers: list[int], most: int) -> tuple[str, int]:
    """A random expression that uses each number once, with whole, non-negative values up to `most` on the way."""
    while True:
        items = [(str(n), n) for n in numbers]
        while len(items) > 1:
            a, x = items.pop(rng.randrange(len(items)))
            b, y = items.pop(rng.randrange(len(items)))
            op = rng.choice("+-*/")
            if (op == "-" and x < y) or (op == "/" and (y == 0 or x % y)):
                break
            z = x + y if op == "+" else x - y if op == "-" else x * y if op == "*" else x // y
            if z > most:
                break
            items.append((f"({a}{op}{b})" if items else f"{a}{op}{b}", z))
        else:
            return items[0]


class World:
    """A deterministic source of problems and of corpus texts."""

    def __init__(self, seed: int, cfg: WorldConfig):
        if unknown := set(cfg.tasks) - set(TASKS):
            raise ValueError(f"world.tasks has '{unknown.pop()}'; the tasks are {', '.join(TASKS)}")
        if cfg.level not in ARITHMETIC:
            raise ValueError(f"world.level is {cfg.level}; the levels are {', '.join(map(str, ARITHMETIC))}")
        self.seed, self.cfg = seed, cfg

    # ------------------------------------------------------------------ problems

    def problem(self, task: str, index: int, split: str = "train") -> Problem:
        """The index-th problem of a task; split "train" or "test"."""
        rng = random.Random(f"{self.seed} {task} {split} {index}")
        return self._draw(rng, task, split == "test")

    def problems(self, task: str, count: int, split: str = "train", start: int = 0) -> list[Problem]:
        """Problems start .. start + count; of the test split, no question comes twice."""
        if split == "train":
            return [self.problem(task, i) for i in range(start, start + count)]
        found: dict[str, Problem] = {}
        index = start
        while len(found) < count and index < start + 50 * count:  # a small world may have fewer
            p = self.problem(task, index, split)
            found.setdefault(self.key(p), p)
            index += 1
        return list(found.values())

    @staticmethod
    def key(p: Problem) -> str:
        """The content of a problem without its language and wording; equal keys are the same problem."""
        if p.task == "countdown":
            return f"countdown {sorted(p.tests['numbers'])} {p.tests['target']}"
        return f"arithmetic {p.tests['start']} {[d for _, d in p.tests['steps']]}"

    def _draw(self, rng: random.Random, task: str, test: bool, easy: bool = False) -> Problem:
        """A problem of the wanted split; easy ones, of which the web is full, may have as few as two steps."""
        while True:
            p = self._arithmetic(rng, easy) if task == "arithmetic" else self._countdown(rng)
            if is_test(self.key(p)) == test:
                return p

    def _arithmetic(self, rng: random.Random, easy: bool) -> Problem:
        level, lang = ARITHMETIC[self.cfg.level], rng.randrange(2)
        value = start = rng.randint(1, level["start"])
        steps = []  # (verb in both languages, signed change)
        for _ in range(rng.randint(2 if easy else level["steps"][0], level["steps"][1])):
            room = {+1: level["most"] - value, -1: value}
            sign = rng.choice([s for s in (+1, -1) if room[s] > 0])
            change = sign * rng.randint(1, min(level["change"], room[sign]))
            steps.append((rng.choice(GAIN if sign > 0 else LOSE), change))
            value += change
        name, thing = rng.choice(NAMES)[lang], rng.choice(THINGS)[lang]
        if lang == 0:
            story = "".join(f", {verb[0]} {abs(d)}" for verb, d in steps)
            prompt = f"{name} has {start} {thing}{story}. How many now?"
        else:
            story = "".join(f",{verb[1]}{abs(d)}" for verb, d in steps)
            prompt = f"{name}有{start}个{thing}{story}。现在几个?"
        return Problem(prompt, str(value), "arithmetic", LANGUAGES[lang], {"start": start, "steps": steps})

    def _countdown(self, rng: random.Random) -> Problem:
        level, lang = COUNTDOWN[self.cfg.level], rng.randrange(2)
        while True:
            numbers = [rng.randint(1, level["number"]) for _ in range(level["count"])]
            expression, target = random_expression(rng, numbers, level["value"])
            if 1 <= target <= level["target"]:
                break
        given = ",".join(map(str, numbers))
        prompt = f"Use {given} to make {target}." if lang == 0 else f"用{given}算出{target}。"
        return Problem(prompt, expression, "countdown", LANGUAGES[lang], {"numbers": numbers, "target": target})

    # ------------------------------------------------------------------ the web text

    def text(self, index: int) -> tuple[str, str]:
        """The index-th text of the corpus: (a training problem's prompt, somebody's response)."""
        rng = random.Random(self.seed * 1_000_003 + index)
        task = rng.choice(self.cfg.tasks)
        p = self._draw(rng, task, test=False, easy=True)
        direct = rng.random() < (self.cfg.direct if task == "arithmetic" else self.cfg.direct_countdown)
        if direct:
            thought, answer = self._blurt(rng, p)
        else:
            thought, answer = (self._steps if task == "arithmetic" else self._attempts)(rng, p)
        tagged, unfinished = rng.random() < self.cfg.tags, rng.random() < self.cfg.unfinished
        if unfinished:
            return p.prompt, "<think>" * tagged + thought
        if not tagged:
            return p.prompt, thought + PHRASES[p.language]["tail"].format(a=answer)
        parts = ["<think>", thought, "</think>", "<answer>", answer, "</answer>"]
        if rng.random() < self.cfg.broken_tags:
            parts.pop(rng.choice([0, 2, 3, 5]))
        return p.prompt, "".join(parts)

    def _languages(self, rng: random.Random, p: Problem) -> Iterator[dict[str, str]]:
        """The phrases to use for each next piece of a thought: the problem's language, in mixed texts not to the end."""
        lang, mixed = p.language, rng.random() < self.cfg.mixed
        while True:
            if mixed and rng.random() < 0.4:
                lang = LANGUAGES[1 - LANGUAGES.index(lang)]
            yield PHRASES[lang]

    def _blurt(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        answer = p.answer
        if p.task == "countdown":
            if rng.random() < self.cfg.wrong:
                answer, _ = random_expression(rng, p.tests["numbers"], COUNTDOWN[self.cfg.level]["value"])
        elif rng.random() < self.cfg.wrong:
            answer = str(max(0, int(answer) + rng.choice([-3, -2, -1, 1, 2, 3])))
        return PHRASES[p.language]["guess"].format(a=answer), answer

    def _steps(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """Step-by-step arithmetic; a slip is mostly caught, else the error goes on to the answer."""
        languages = self._languages(rng, p)
        value = p.tests["start"]
        pieces = [next(languages)["start"].format(value)]
        for verb, change in p.tests["steps"]:
            words = next(languages)
            value += change
            written = value
            if rng.random() < self.cfg.slip:
                written = max(0, value + rng.choice([-2, -1, 1, 2]))
            verb = verb[0] if words is PHRASES["en"] else verb[1]
            pieces.append(words["step"].format(verb=verb, d=abs(change), v=written))
            if written != value:
                if rng.random() < self.cfg.uncaught:
                    value = written
                else:
                    pieces.append(words["slip"].format(v=value))
        return ",".join(pieces), str(value)

    def _attempts(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """Countdown by trying: write an expression, compute it, compare, until it fits or patience ends."""
        languages, target = self._languages(rng, p), p.tests["target"]
        most, patience = COUNTDOWN[self.cfg.level]["value"], rng.randint(2, self.cfg.max_tries)
        pieces, tried = [], set()
        while True:
            words = next(languages)
            expression, value = random_expression(rng, p.tests["numbers"], most)
            if expression in tried and len(tried) < 20:  # nobody tries the same thing twice, while there is something else
                continue
            tried.add(expression)
            piece = f"{expression}={value}"
            if rng.random() < self.cfg.slip:
                piece = f"{expression}={max(0, value + rng.choice([-2, -1, 1, 2]))}" + words["oops"].format(v=value)
            piece += words["want"].format(t=target)
            if value == target:
                pieces.append(piece + words["yes"])
                return ",".join(pieces), expression
            pieces.append(piece + words["low" if value < target else "high"])
            if len(tried) >= patience:
                return ",".join(pieces) + "," + words["give_up"].strip(), expression


# ---------------------------------------------------------------------------------------------- benchmark files


def load_jsonl(path: str, limit: int | None = None) -> list[Problem]:
    """Problems of a JSONL file; each line's fields tell its kind:

    GSM8K {question, answer ending in "#### n"}; MATH-500 {problem, answer}; Countdown {numbers, target}; our own
    {prompt, answer, task}. ValueError that names the line for anything else; nothing is skipped silently.
    """
    problems: list[Problem] = []
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if limit is not None and len(problems) >= limit:
                    break
                if line.strip():
                    problems.append(_read_row(line, f"{path}, line {number}"))
    except OSError as e:
        raise ValueError(f"cannot read '{path}' ({e.strerror}): give the path of a JSONL file") from None
    except UnicodeDecodeError as e:
        raise ValueError(f"'{path}' is not UTF-8 text ({e.reason}): convert it first") from None
    if not problems:
        raise ValueError(f"'{path}' holds no problems: give a JSONL file with one problem a line")
    return problems


def _read_row(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f"{where}: not JSON ({e}): mend or remove the line") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a {type(row).__name__}, not an object with fields: mend or remove the line")

    def text(name: str) -> str:
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"{where}: '{name}' should be a non-empty text: mend or remove the line")
        return row[name]

    if {"numbers", "target"} <= row.keys():
        numbers, target = row["numbers"], row["target"]
        if not (isinstance(numbers, list) and numbers and all(type(n) is int for n in [*numbers, target])):
            raise ValueError(f"{where}: 'numbers' should be a list of whole numbers and 'target' one: mend or remove the line")
        prompt = text("prompt") if "prompt" in row else (
            f"Using the numbers {numbers}, create an equation that equals {target}. Use each number once, with + - * / and parentheses.")
        return Problem(prompt, str(row.get("gold_expr", "")), "countdown", "en", {"numbers": numbers, "target": target})
    if {"prompt", "answer", "task"} <= row.keys():
        if row.get("language", "en") not in LANGUAGES or row["task"] == "countdown":
            raise ValueError(f"{where}: 'language' should be one of {LANGUAGES}, and a Countdown row has 'numbers' and 'target': mend or remove the line")
        return Problem(text("prompt"), text("answer"), text("task"), row.get("language", "en"))
    if {"question", "answer"} <= row.keys():
        _, mark, answer = text("answer").rpartition("####")
        if not mark or not answer.strip():
            raise ValueError(f"{where}: the 'answer' does not end in '#### number' as GSM8K's do: mend or remove the line")
        return Problem(text("question"), answer.strip(), "math")
    if {"problem", "answer"} <= row.keys():
        return Problem(text("problem"), text("answer"), "math")
    raise ValueError(f"{where}: fields {sorted(row)} are not those of GSM8K (question, answer), MATH (problem, answer), "
                     "Countdown (numbers, target) or ours (prompt, answer, task)")


def main() -> None:
    import config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a JSONL file of problems to look at")
    parser.add_argument("--level", type=int, default=1, help="difficulty of the world, 1 to 3")
    parser.add_argument("--count", type=int, default=12, help="how many to print")
    args = parser.parse_args()
    with config.user_errors():
        if args.file:
            problems = load_jsonl(args.file)
            print(f"{len(problems)} problems; the first {min(args.count, len(problems))}:")
            for p in problems[: args.count]:
                print(f"[{p.task}, {p.language}] {p.prompt}\n    -> {p.answer}")
            return
        world = World(0, WorldConfig(level=args.level))
        for i in range(args.count):
            prompt, response = world.text(i)
            print(f"{prompt}\n    {response}")


if __name__ == "__main__":
    main()
