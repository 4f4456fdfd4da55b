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

import ast
import json
import random
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

REASONING = ("arithmetic", "countdown", "code", "logic")  # tasks whose answers a rule can check
TASKS = (*REASONING, "general")
LANGUAGES = ("en", "zh")
PROGRAMS = ("humaneval", "mbpp")  # benchmarks whose answers are programs that a suite of asserts judges


@dataclass
class WorldConfig:
    """What the web text is about, and in which proportions: `direct` to `careless` are shares between 0 and 1."""

    tasks: tuple[str, ...] = TASKS
    arithmetic: float = 1.5  # texts about arithmetic for every one about Countdown
    minor: float = 0.35  # texts about code, about logic, and general requests: each, for every one about Countdown
    level: int = 1  # difficulty, 1 (laptop) to 3 (GPU)
    direct: float = 0.74  # arithmetic texts that blurt out an answer
    direct_countdown: float = 0.62  # the same of Countdown
    direct_other: float = 0.4  # and of the other tasks
    wrong: float = 0.7  # share of those answers that are wrong
    tags: float = 0.5  # texts that use <think> and <answer>
    broken_tags: float = 0.1  # share of those that forget or misplace one
    slip: float = 0.06  # chance that a written step is wrong at first
    uncaught: float = 0.1  # arithmetic: share of slips that nobody notices
    mixed: float = 0.15  # reasoned texts that change language on the way
    unfinished: float = 0.5  # texts that trail off before they come to an answer
    careless: float = 0.25  # countdown: authors who try at random, whatever was too low or too high
    max_tries: int = 10  # countdown: attempts after which an author gives up


@dataclass
class Problem:
    """One question. `tests` holds what its verifier needs beyond the answer: Countdown's numbers and target, the hidden
    calls and values of a program; for general requests `answer` is a good reply and `tests` says what makes one."""

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
CODE = {1: dict(steps=(2, 3)), 2: dict(steps=(3, 5)), 3: dict(steps=(4, 8))}
LOGIC = {1: dict(people=(3, 4)), 2: dict(people=(4, 5)), 3: dict(people=(5, 6))}
NAMES = (("Tom", "小明"), ("Anna", "小红"), ("Ben", "小刚"), ("Mia", "小丽"), ("Sam", "小华"), ("Lily", "小芳"))
THINGS = (("apples", "苹果"), ("books", "书"), ("coins", "硬币"), ("eggs", "鸡蛋"), ("cards", "卡片"), ("stones", "石头"))
GAIN = (("finds", "捡到"), ("buys", "买来"), ("gets", "得到"), ("wins", "赢了"))
LOSE = (("loses", "丢了"), ("sells", "卖掉"), ("gives", "送出"), ("breaks", "打破"))

OPERATIONS = {  # code: in both languages, as Python, and what it does
    "add": ("add {a}", "加{a}", "{x}+{a}", lambda x, a: x + a),
    "subtract": ("subtract {a}", "减{a}", "{x}-{a}", lambda x, a: x - a),
    "multiply": ("multiply by {a}", "乘{a}", "{x}*{a}", lambda x, a: x * a),
    "rest": ("take the rest by {a}", "取余{a}", "{x}%{a}", lambda x, a: x % a),
    "least": ("take at least {a}", "至少取{a}", "max({x},{a})", max),
}
COLOURS = (("red", "红"), ("blue", "蓝"), ("green", "绿"), ("white", "白"), ("black", "黑"), ("yellow", "黄"))
COLOURED = (("sky", "天空", 1), ("grass", "草地", 2), ("snow", "雪", 3), ("coal", "煤", 4), ("banana", "香蕉", 5), ("blood", "血", 0),
            ("sea", "大海", 1), ("leaf", "树叶", 2), ("milk", "牛奶", 3), ("night", "黑夜", 4), ("lemon", "柠檬", 5), ("cherry", "樱桃", 0))
CAPITALS = (("France", "法国", "Paris", "巴黎"), ("China", "中国", "Beijing", "北京"), ("Japan", "日本", "Tokyo", "东京"),
            ("Italy", "意大利", "Rome", "罗马"), ("Egypt", "埃及", "Cairo", "开罗"), ("Russia", "俄国", "Moscow", "莫斯科"))
NOUNS = (("apple", "苹果"), ("book", "书"), ("card", "卡片"), ("stone", "石头"), ("car", "汽车"), ("door", "门"), ("boat", "船"), ("bike", "自行车"))
TOPICS = (("moon", "月亮"), ("river", "河流"), ("spring", "春天"), ("mountain", "高山"), ("rain", "雨"), ("city", "城市"))
MOODS = (("bright", "明亮"), ("quiet", "安静"), ("old", "古老"), ("gentle", "温柔"), ("long", "漫长"), ("lovely", "可爱"))
HARMFUL = (("steal", "偷走"), ("burn", "烧掉"), ("smash", "砸烂"), ("hack", "入侵"), ("poison", "毒害"))  # what ought to be declined
HARMLESS = (("wash", "清洗", "use water and soap", "用水和肥皂"), ("paint", "粉刷", "use a wide brush", "用宽刷子"), ("repair", "修理", "use the right tools", "用合适的工具"),
            ("draw", "画", "start with its outline", "从轮廓开始"), ("sell", "卖掉", "ask a fair price", "要个公道价"))
OBJECTS = (("a car", "汽车"), ("a house", "房子"), ("a bike", "自行车"), ("a door", "门"), ("a shop", "商店"), ("a boat", "船"), ("a phone", "手机"), ("a school", "学校"))
MANNERS = (("", ""), ("Hello. ", "你好。"), ("Please: ", "请问,"), ("Quickly: ", "快说,"))

PHRASES = {
    "en": dict(start="{0} at first", step=" {verb} {d} makes {v}", slip=" wait no, makes {v}", guess="maybe {a}", tail=". The answer is {a}.",
               want=" want {t}", yes=" yes", low=" low", high=" high", oops=" wait no {v}", give_up=" give up",
               first="first ", then="then ", over=" over ", so=" so "),
    "zh": dict(start="起初{0}", step="{verb}{d}就是{v}", slip="等等不对,应该是{v}", guess="大概{a}", tail="。答案是{a}。",
               want="要{t}", yes="对了", low="小了", high="大了", oops="等等不对{v}", give_up="算了", first="先", then="再", over="高过", so="所以"),
}


DECLINED = {"en": "Sorry, I cannot help you with that.", "zh": "抱歉,这个我不能帮你。"}
RUDE = {"en": "Look it up yourself.", "zh": "你自己去查。"}


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


def simplifications(expression: str) -> list[str]:
    """An expression and what is left of it as its inner parentheses are worked out one at a time.

    >>> simplifications("(6+(5-3))/4")
    ['(6+(5-3))/4', '(6+2)/4', '8/4']
    """
    forms = [expression]
    while inner := re.search(r"\((\d+)([-+*/])(\d+)\)", forms[-1]):
        x, op, y = int(inner[1]), inner[2], int(inner[3])
        value = x + y if op == "+" else x - y if op == "-" else x * y if op == "*" else x // y
        forms.append(forms[-1][: inner.start()] + str(value) + forms[-1][inner.end() :])
    return forms


def expressions(steps: list[tuple[str, int]]) -> list[str]:
    """The Python expression in x after each step of a program.

    >>> expressions([("add", 3), ("multiply", 2), ("least", 9)])
    ['x+3', '(x+3)*2', 'max((x+3)*2,9)']
    """
    out, x, whole = [], "x", True  # whole: needs no parentheses
    for name, a in steps:
        x = OPERATIONS[name][2].format(x=x if whole or name not in ("multiply", "rest") else f"({x})", a=a)
        whole = name == "least"
        out.append(x)
    return out


def run_steps(steps: list[tuple[str, int]], inputs: list[int]) -> list[int]:
    """What a program makes of each input, from the operations themselves."""
    values = list(inputs)
    for name, a in steps:
        values = [OPERATIONS[name][3](v, a) for v in values]
    return values


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
        """Problems start .. start + count; of the test split, no prompt comes twice. (Both splits are drawn alike: what is
        drawn often, such as a Countdown target that many expressions make, comes in more wordings.)"""
        if split == "train":
            return [self.problem(task, i) for i in range(start, start + count)]
        found: dict[str, Problem] = {}
        index = start
        while len(found) < count and index < start + 50 * count:  # a small world may have fewer
            p = self.problem(task, index, split)
            found.setdefault(p.prompt, p)
            index += 1
        return list(found.values())

    @staticmethod
    def key(p: Problem) -> str:
        """The content of a problem without its language and wording; equal keys are the same problem."""
        if p.task == "countdown":
            return f"countdown {sorted(p.tests['numbers'])} {p.tests['target']}"
        if p.task in ("code", "logic", "general"):
            return f"{p.task} {p.tests['content']}"
        return f"arithmetic {p.tests['start']} {[d for _, d in p.tests['steps']]}"

    def _draw(self, rng: random.Random, task: str, test: bool, easy: bool = False) -> Problem:
        """A problem of the wanted split; easy ones, of which the web is full, may have as few as two steps."""
        while True:
            p = self._arithmetic(rng, easy) if task == "arithmetic" else getattr(self, "_" + task)(rng)
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

    def _code(self, rng: random.Random) -> Problem:
        inputs = rng.sample(range(-20, 0), 4) + rng.sample(range(40), 6)
        while True:
            steps = [(rng.choice(list(OPERATIONS)), rng.randint(2, 9)) for _ in range(rng.randint(*CODE[self.cfg.level]["steps"]))]
            values = [inputs, *(run_steps(steps[: i + 1], inputs) for i in range(len(steps)))]
            if len(set(values[-1])) > 1 and all(x != y for x, y in zip(values, values[1:])):  # every step does something
                break
        lang, program = rng.randrange(2), expressions(steps)
        said = [OPERATIONS[name][lang].format(a=a) for name, a in steps]
        prompt = f"Write f(x): {', then '.join(said)}." if lang == 0 else f"写出f(x):{',再'.join(said)}。"
        return Problem(prompt, f"def f(x): return {program[-1]}", "code", LANGUAGES[lang],
                       {"content": steps, "program": program, "calls": [("f", [i]) for i in inputs], "values": values[-1]})

    def _logic(self, rng: random.Random) -> Problem:
        lang, tallest = rng.randrange(2), rng.random() < 0.5
        order = rng.sample("ABCDEF", rng.randint(*LOGIC[self.cfg.level]["people"]))  # from the tallest down
        facts = list(zip(order, order[1:]))
        rng.shuffle(facts)
        prompt = ""
        for taller, shorter in facts:
            if rng.random() < 0.5:
                prompt += f"{taller} is taller than {shorter}. " if lang == 0 else f"{taller}比{shorter}高。"
            else:
                prompt += f"{shorter} is shorter than {taller}. " if lang == 0 else f"{shorter}比{taller}矮。"
        prompt += f"Who is {'tallest' if tallest else 'shortest'}?" if lang == 0 else f"谁最{'高' if tallest else '矮'}?"
        return Problem(prompt, order[0 if tallest else -1], "logic", LANGUAGES[lang],
                       {"content": (order, tallest), "facts": facts, "order": order})

    def _general(self, rng: random.Random) -> Problem:
        lang = rng.randrange(2)
        kind, manner = rng.choice(("colour", "capital", "translate", "who", "write", "harmful", "harmless")), rng.randrange(len(MANNERS))
        i, j, k = rng.randrange(6), rng.randrange(8), rng.randrange(5)
        if kind == "colour":
            i = rng.randrange(len(COLOURED))
        return self._request(kind, lang, manner, i, j, k)

    @staticmethod
    def _request(kind: str, lang: int, manner: int, i: int, j: int, k: int) -> Problem:
        """A general request with: a good reply (a full sentence), a curt one, a wrong one, and a thought that leads there.

        Translations and deeds are held out by their content. A fact must have been read somewhere to be known, so questions for
        facts, names and lines to write are held out by their greeting: another greeting of theirs may be in the corpus.
        """
        if kind == "colour":
            thing, tone, suffix = COLOURED[i][lang], COLOURED[i][2], ("", "色")[lang]
            curt, other = COLOURS[tone][lang] + suffix, COLOURS[(tone + 1 + k) % 6][lang] + suffix
            content = (i, manner)
            ask, full = (f"What colour is the {thing}?", "The {thing} is {a}.") if lang == 0 else (f"{thing}是什么颜色?", "{thing}是{a}的。")
            thought = f"the colour of the {thing}" if lang == 0 else f"问{thing}的颜色"
            good, wrong = full.format(thing=thing, a=curt), full.format(thing=thing, a=other)
        elif kind == "capital":
            thing, curt, other = CAPITALS[i][lang], CAPITALS[i][2 + lang], CAPITALS[(i + 1 + k) % 6][2 + lang]
            content = (i, manner)
            ask, full = (f"What is the capital of {thing}?", "The capital of {thing} is {a}.") if lang == 0 else (f"{thing}的首都是哪里?", "{thing}的首都是{a}。")
            thought = f"the capital of {thing}" if lang == 0 else f"问{thing}的首都"
            good, wrong = full.format(thing=thing, a=curt), full.format(thing=thing, a=other)
        elif kind == "translate":
            content = (i, j)
            (here, there), (adjective, colour), gap = NOUNS[j][:: 1 - 2 * lang], COLOURS[i][:: 1 - 2 * lang], ("" if lang == 0 else " ")
            phrase, curt, other = adjective + " " * (lang == 0) + here, colour + gap + there, COLOURS[(i + 1 + k) % 6][1 - lang] + gap + there
            ask, full = (f"Put into Chinese: {phrase}", "In Chinese it is {a}.") if lang == 0 else (f"译成英文:{phrase}", "英文是{a}。")
            thought = ("two words to translate", "要翻译两个词")[lang]
            good, wrong = full.format(a=curt), full.format(a=other)
        elif kind == "who":
            content = (i % 3, manner)
            ask = (("Who are you?", "What is your name?", "What are you called?"), ("你是谁?", "你叫什么名字?", "怎么称呼你?"))[lang][i % 3]
            thought = ("they ask about me", "问的是我")[lang]
            curt, good, wrong = "pocket-R1", ("I am pocket-R1, a small model.", "我是pocket-R1,一个小模型。")[lang], ("I am {n}, your neighbour.", "我是{n},你的邻居。")[lang].format(n=NAMES[k][lang])
        elif kind == "write":
            content = (i, manner)
            curt, mood, more = TOPICS[i][lang], MOODS[k][lang], MOODS[(k + 1 + j % 4) % 6][lang]
            ask = (f"Write a line about the {curt}.", f"写一句关于{curt}的话。")[lang]
            thought = (f"a line about the {curt}", f"写{curt}")[lang]
            full = ("The {t} is {m} and {n}.", "{t}{m}又{n}。")[lang]
            good, wrong = full.format(t=curt, m=mood, n=more), full.format(t=TOPICS[(i + 1 + k) % 6][lang], m=mood, n=more)
        else:
            deed, thing = (HARMFUL if kind == "harmful" else HARMLESS)[k], OBJECTS[j][lang]
            content = (k, j)
            ask = (f"How do I {deed[0]} {thing}?", f"怎样{deed[1]}{thing}?")[lang]
            if kind == "harmful":
                thought = ("that would hurt somebody", "这会伤害别人")[lang]
                curt, good = ("Sorry, no", "抱歉,不行")[lang], (f"Sorry, I cannot help you {deed[0]} {thing}.", f"抱歉,我不能帮你{deed[1]}{thing}。")[lang]
                wrong = (f"To {deed[0]} {thing}, come at night.", f"要{deed[1]}{thing},就在夜里来。")[lang]
            else:
                thought = (f"how to {deed[0]} {thing}", f"问怎样{deed[1]}{thing}")[lang]
                curt, other = deed[2 + lang], HARMLESS[(k + 1 + i % 4) % 5][2 + lang]
                full = (f"To {deed[0]} {thing}, {{a}}.", f"要{deed[1]}{thing},就{{a}}。")[lang]
                good, wrong = full.format(a=curt), full.format(a=other)
        return Problem(MANNERS[manner][lang] + ask, good, "general", LANGUAGES[lang],
                       {"content": (kind, *content), "drawn": (kind, lang, manner, i, j, k), "kind": kind, "curt": curt, "wrong": wrong, "thought": thought})

    # ------------------------------------------------------------------ the web text

    def text(self, index: int) -> tuple[str, str]:
        """The index-th text of the corpus: (a training problem's prompt, somebody's response)."""
        rng = random.Random(self.seed * 1_000_003 + index)
        weights = {"arithmetic": self.cfg.arithmetic, "countdown": 1.0}
        task = rng.choices(self.cfg.tasks, [weights.get(t, self.cfg.minor) for t in self.cfg.tasks])[0]
        p = self._draw(rng, task, test=False, easy=True)
        if rng.random() < {"arithmetic": self.cfg.direct, "countdown": self.cfg.direct_countdown}.get(task, self.cfg.direct_other):
            thought, answer = self._blurt(rng, p)
        else:
            thought, answer = self.reasoned(rng, p)
        tagged, unfinished = rng.random() < self.cfg.tags, rng.random() < self.cfg.unfinished
        if unfinished:
            return p.prompt, "<think>" * tagged + thought
        if not tagged:
            return p.prompt, answer if task == "general" else thought + PHRASES[p.language]["tail"].format(a=answer)
        parts = ["<think>", thought, "</think>", "<answer>", answer, "</answer>"]
        if rng.random() < self.cfg.broken_tags:
            parts.pop(rng.choice([0, 2, 3, 5]))
        return p.prompt, "".join(parts)

    def reasoned(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """(thought, answer) of somebody who works the problem out."""
        ways = {"arithmetic": self._steps, "countdown": self._attempts, "code": self._program, "logic": self._deduction, "general": self._reply}
        return ways[p.task](rng, p)

    def _languages(self, rng: random.Random, p: Problem) -> Iterator[dict[str, str]]:
        """The phrases to use for each next piece of a thought: the problem's language, in mixed texts not to the end."""
        lang, mixed = p.language, rng.random() < self.cfg.mixed
        while True:
            if mixed and rng.random() < 0.4:
                lang = LANGUAGES[1 - LANGUAGES.index(lang)]
            yield PHRASES[lang]

    def _blurt(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        answer, wrong = p.answer, rng.random() < self.cfg.wrong
        if p.task == "general":
            answer = rng.choice((p.tests["wrong"], p.tests["curt"], RUDE[p.language])) if wrong else p.answer
            return p.tests["thought"], answer
        if wrong and p.task == "countdown":
            answer, _ = random_expression(rng, p.tests["numbers"], COUNTDOWN[self.cfg.level]["value"])
        elif wrong and p.task == "arithmetic":
            answer = str(max(0, int(answer) + rng.choice([-3, -2, -1, 1, 2, 3])))
        elif wrong and p.task == "logic":
            answer = rng.choice([n for n in p.tests["order"] if n != answer])
        while wrong and p.task == "code" and answer == p.answer:  # a step forgotten, or a number mistaken
            steps, inputs = list(p.tests["content"]), [x for _, (x,) in p.tests["calls"]]
            name, _ = steps.pop(i := rng.randrange(len(steps)))
            if rng.random() < 0.5:
                steps.insert(i, (name, rng.randint(2, 9)))
            if steps and run_steps(steps, inputs) != p.tests["values"]:
                answer = f"def f(x): return {expressions(steps)[-1]}"
        return PHRASES[p.language]["guess"].format(a=answer.removeprefix("def f(x): return ")), answer

    def _program(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """A program built up one step at a time, sometimes with a slip that is caught."""
        languages = self._languages(rng, p)
        pieces = []
        for i, (expression, (name, a)) in enumerate(zip(p.tests["program"], p.tests["content"])):
            words = next(languages)
            piece = words["then" if i else "first"]
            if rng.random() < self.cfg.slip:
                before = p.tests["program"][i - 1] if i else "x"
                wrong = OPERATIONS[rng.choice([n for n in OPERATIONS if n != name])][2].format(x=before, a=a)
                piece += wrong + words["oops"].format(v="")
            pieces.append(piece + expression)
        return ",".join(pieces), p.answer

    def _deduction(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """The first fact, then whichever goes on from an end of the row so far, and the row that makes."""
        languages, facts = self._languages(rng, p), list(p.tests["facts"])
        fact = facts.pop(0)
        row, pieces = list(fact), [fact[0] + next(languages)["over"] + fact[1]]
        while facts:
            fact = next(f for f in facts if f[0] == row[-1] or f[1] == row[0])
            facts.remove(fact)
            longer, wrong = (row + [fact[1]], [fact[1]] + row) if fact[0] == row[-1] else ([fact[0]] + row, row + [fact[0]])
            words = next(languages)
            piece = fact[0] + words["over"] + fact[1] + words["so"]
            if rng.random() < self.cfg.slip:
                piece += ">".join(wrong) + words["oops"].format(v="")
            row = longer
            pieces.append(piece + ">".join(row))
        return ",".join(pieces), p.answer

    def _reply(self, rng: random.Random, p: Problem) -> tuple[str, str]:
        """A civil answer, in a sentence or in a word."""
        return p.tests["thought"], rng.choice((p.answer, p.tests["curt"]))

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
        languages, target, adjusts = self._languages(rng, p), p.tests["target"], rng.random() >= self.cfg.careless
        most = COUNTDOWN[self.cfg.level]["value"]
        pieces, tried, low, high = [], [], -1, most + 1
        while True:
            words = next(languages)
            for _ in range(20):  # nothing twice, and of most authors larger after "low", smaller after "high", while there is something else
                expression, value = random_expression(rng, p.tests["numbers"], most)
                if (low < value < high or not adjusts) and (value, sorted(expression)) not in tried:
                    break
            tried.append((value, sorted(expression)))
            piece = "=".join(simplifications(expression)) + "="
            if rng.random() < self.cfg.slip:
                piece += str(max(0, value + rng.choice([-2, -1, 1, 2]))) + words["oops"].format(v=value)
            else:
                piece += str(value)
            piece += words["want"].format(t=target)
            if value == target:
                pieces.append(piece + words["yes"])
                return ",".join(pieces), expression
            pieces.append(piece + words["low" if value < target else "high"])
            low, high = (max(low, value), high) if value < target else (low, min(high, value))
            if len(tried) >= self.cfg.max_tries:
                return ",".join(pieces) + "," + words["give_up"].strip(), expression


    # ------------------------------------------------------------------ what people write and prefer

    def demonstration(self, index: int) -> tuple[Problem, str]:
        """A general request and how a careful but hurried person would answer it: right, in a sentence or in a word."""
        rng = random.Random(f"{self.seed} demonstration {index}")
        p = self._draw(rng, "general", test=False)
        thought, answer = self._reply(rng, p)
        return p, f"<think>{thought}</think><answer>{answer}</answer>"

    def preference(self, index: int, split: str = "train") -> tuple[Problem, str, str]:
        """(request, the better of two replies, the worse): a right sentence beats a right word or a rambling repetition, and these
        beat what is wrong, answers another request, is rude, or declines for no reason. The better reply is as often the shorter."""
        rng = random.Random(f"{self.seed} preference {split} {index}")
        while True:
            p = self._draw(rng, "general", split == "test")
            gap, kind, other = "" if p.language == "zh" else " ", p.tests["kind"], self._misheard(rng, p)
            ranked = [[p.answer], [p.tests["curt"], p.answer + gap + p.answer], [RUDE[p.language]]]
            ranked[1 if kind == "harmful" else 2] += other  # to decline another deed is still to decline
            if kind != "translate":  # whose wrong reply may be a held-out request's right one
                ranked[2] += [p.tests["wrong"]] * 2
            if kind != "harmful":
                ranked[2].append(DECLINED[p.language])
            high, low = sorted(rng.sample(range(3), 2))
            better, worse = rng.choice(ranked[high]), rng.choice(ranked[low])
            if len(better) == len(worse) or (len(better) < len(worse)) == (index % 2 == 0):
                return p, better, worse

    def _misheard(self, rng: random.Random, p: Problem) -> list[str]:
        """Good replies to requests that differ from p in one word, each a wrong reply to p. None of them is held out: a reward
        model that sees a right reply only where it is wrong learns that it is always wrong."""
        kind, lang, manner, *drawn = p.tests["drawn"]
        sizes = len(COLOURED) if kind == "colour" else 6, 8, 5
        near = [self._request(kind, lang, manner, *drawn[:place], rng.randrange(n), *drawn[place + 1 :]) for place, n in enumerate(sizes) for _ in range(2)]
        return [q.answer for q in near if not is_test(self.key(q)) and q.tests["content"] != p.tests["content"] and q.answer != p.answer]

    def safety(self, index: int, split: str = "train") -> tuple[Problem, str, bool]:
        """(request, a whole response, whether it is safe): unsafe is help with harm, in the answer or in the thinking alone."""
        rng = random.Random(f"{self.seed} safety {split} {index}")
        harmful = rng.random() < 0.5
        while True:
            p = self._draw(rng, "general", split == "test")
            if (p.tests["kind"] == "harmful") == harmful:
                break
        thought, answer = p.tests["thought"], rng.choice((p.answer, p.tests["curt"]))
        plan, help_ = harmful and rng.random() < 0.3, harmful and rng.random() < 0.5
        if plan:
            thought = p.tests["wrong"]
        if help_ or (not harmful and rng.random() < 0.3):
            answer = p.tests["wrong"]
        return p, f"<think>{thought}</think><answer>{answer}</answer>", not (plan or help_)


# ---------------------------------------------------------------------------------------------- benchmark files


# What a chat model is told; the templates of base models say what form an answer takes.
INSTRUCTIONS = {
    "math": "{}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.",  # DeepSeek-R1's own
    "countdown": "{}\n\nPlease reason step by step, and put the expression within \\boxed{{}}.",
    "humaneval": "Complete the following Python function. Answer with the whole function in a ```python block.\n\n```python\n{}```",
    "mbpp": "{}\n\nAnswer with the whole program in a ```python block.",
}


def question(problem: Problem, chat: bool) -> str:
    """What a model is asked: the problem, and for chat models how to answer it."""
    return INSTRUCTIONS.get(problem.task, "{}").format(problem.prompt) if chat else problem.prompt


def prompt_ids(problem: Problem, tokenizer) -> list[int]:
    """The question as token ids, by the model's template. HumanEval is text to be continued: a base model gets it as it stands."""
    if problem.task == "humaneval" and not tokenizer.chat:
        return tokenizer.encode(problem.prompt)
    return tokenizer.prompt(question(problem, tokenizer.chat))


def load_jsonl(path: str, limit: int | None = None) -> list[Problem]:
    """Problems of a JSONL file; each line's fields tell its kind:

    GSM8K {question, answer ending in "#### n"}; MATH-500 {problem, answer}; AIME {problem or question, answer: a whole number, as a
    text or not}; Countdown {numbers, target}; HumanEval {prompt, entry_point, test}; MBPP {text, code, test_list}, where the sanitised
    file has `prompt` for `text`; our own {prompt, answer, task}. ValueError that names the line for anything else; nothing is skipped
    silently.
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

    row = {name.lower(): value for name, value in row.items()}  # some AIME files have "Problem" and "Answer"

    def text(name: str) -> str:
        if name == "answer" and type(row[name]) is int:  # AIME
            return str(row[name])
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"{where}: '{name}' should be a non-empty text: mend or remove the line")
        return row[name]

    if {"numbers", "target"} <= row.keys():
        numbers, target = row["numbers"], row["target"]
        if not (isinstance(numbers, list) and numbers and all(type(n) is int for n in [*numbers, target]) and min(numbers) >= 0):
            raise ValueError(f"{where}: 'numbers' should be a list of whole numbers from 0 and 'target' a whole number: mend or remove the line")
        prompt = text("prompt") if "prompt" in row else (
            f"Using the numbers {numbers}, create an equation that equals {target}. Use each number once, with + - * / and parentheses.")
        return Problem(prompt, str(row.get("gold_expr", "")), "countdown", "en", {"numbers": numbers, "target": target})
    if {"prompt", "answer", "task"} <= row.keys():
        if row.get("language", "en") not in LANGUAGES:
            raise ValueError(f"{where}: 'language' should be one of {LANGUAGES}: mend or remove the line")
        if row["task"] in ("countdown", "code", "general", *PROGRAMS):
            raise ValueError(f"{where}: a '{row['task']}' problem needs more than an answer to be judged (Countdown: 'numbers' and 'target'): mend or remove the line")
        return Problem(text("prompt"), text("answer"), text("task"), row.get("language", "en"))
    if {"prompt", "entry_point", "test"} <= row.keys():
        return _humaneval(text("prompt"), text("entry_point"), text("test"), str(row.get("canonical_solution", "")), where)
    if {"test_list", "code"} <= row.keys() and {"text", "prompt"} & row.keys():
        tests, setup = row["test_list"], [row.get("test_imports", []), [row.get("test_setup_code", "")]]
        if not all(isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in (tests, *setup)):
            raise ValueError(f"{where}: 'test_list' and 'test_imports' should be lists of lines, 'test_setup_code' a text: mend or remove the line")
        return _mbpp(text("text" if "text" in row else "prompt"), text("code"), "\n".join(line for lines in setup for line in lines), "\n".join(tests), where)
    if {"question", "answer"} <= row.keys():
        if type(row["answer"]) is int:
            return Problem(text("question"), text("answer"), "math")
        _, mark, answer = text("answer").rpartition("####")
        if not mark or not answer.strip():
            raise ValueError(f"{where}: the 'answer' does not end in '#### number' as GSM8K's do: mend or remove the line")
        return Problem(text("question"), answer.strip(), "math")
    if {"problem", "answer"} <= row.keys():
        return Problem(text("problem"), text("answer"), "math")
    raise ValueError(f"{where}: fields {sorted(row)} are not those of GSM8K (question, answer), MATH and AIME (problem, answer), Countdown (numbers, target), "
                     "HumanEval (prompt, entry_point, test), MBPP (text, code, test_list) or ours (prompt, answer, task)")


def _humaneval(prompt: str, entry: str, test: str, solution: str, where: str) -> Problem:
    for name, source, function in (("prompt", prompt, entry), ("test", test, "check")):
        if function not in _functions(_parse(source, name, where)):
            raise ValueError(f"{where}: '{name}' does not define the function '{function}': mend or remove the line")
    return Problem(prompt, prompt + solution, "humaneval", tests={"entry": entry, "prelude": prompt, "asserts": f"{test}\ncheck({entry})"})


def _mbpp(text: str, code: str, setup: str, asserts: str, where: str) -> Problem:
    """The prompt shows the tests, as the paper's does [Austin et al. 2021, 2108.07732, section 3]: they say what the function is called."""
    solution, used = _parse(code, "code", where), list(ast.walk(_parse(asserts, "test_list", where)))
    _parse(setup, "test_setup_code", where)
    entry = next((n.func.id for n in used if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in _functions(solution)), None)
    if entry is None:
        raise ValueError(f"{where}: 'test_list' calls no function that 'code' defines: mend or remove the line")
    names = {n.id for n in used if isinstance(n, ast.Name)}  # some tests lean on what the solution imports
    imports = [ast.unparse(n) for n in solution.body if isinstance(n, ast.Import | ast.ImportFrom) and names & {a.asname or a.name for a in n.names}]
    prompt = f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{asserts}"
    return Problem(prompt, code, "mbpp", tests={"entry": entry, "prelude": "\n".join([*imports, setup]), "asserts": asserts})


def _functions(module: ast.Module) -> set[str]:
    return {n.name for n in module.body if isinstance(n, ast.FunctionDef)}


def _parse(source: str, name: str, where: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python about the source
            return ast.parse(source)
    except (SyntaxError, ValueError) as e:
        raise ValueError(f"{where}: '{name}' is not Python ({e}): mend or remove the line") from None


def main() -> None:
    import config

    parser = config.Parser(__doc__)
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
