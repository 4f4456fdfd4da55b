"""How well the verifier judges, how fast, and whether any text can make a parser fail.

    python bench/check_verifier.py DATA_FOLDER --strings 1000000

DATA_FOLDER holds verifier_cases.json (rows of pred, gold, equal, tier), math500.jsonl and
gsm8k_test.jsonl. Figures go to results/verifier.json. Not a test of pytest's: a million strings
take about ten minutes.
"""

import collections
import contextlib
import json
import os
import random
import string
import tempfile
import time

from common import parser, save
from tqdm import tqdm

import data
import rewards
from tasks.answers import answer_in, extract_answer
from tasks.base import Problem
from tasks.benchmarks import parse_row
from tasks.math_equal import math_equal
from tasks.math_value import value_at

WORDS = r"""
<think> </think> <answer> </answer> \boxed{ \frac { } \sqrt ^ _ ! ** \le \pm \cup \in
\begin{pmatrix} \end{pmatrix} \end & \\ \sin \log_ \sum_{k=0}^{n} f( \( \) \[ \] 答案是 等等
\text{ and or \pi \infty 1/ 0. 9999999999 \binom \circ ² ٣ 𝟗 null 1e999 [[ "}
"""
PIECES = [*string.printable, *WORDS.split(), "the answer is", "#### ", "\ud800", "\0"]
PIECES += ['{"question": "', '"answer": ', '{"prompt": "a", "answer": "b", "task": "math"']
PIECES += ['"numbers": [1, 2]', '"target": ']
ROWS = r"""
{"question": "a", "answer": "#### 7"}
{"numbers": [3, 4], "target": 7}
{"problem": "a", "answer": 7}
{"prompt": "a", "answer": "b", "task": "math"}
{"prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f):\n assert f(1) == 2"}
{"text": "a", "code": "def f(x): return x", "test_list": ["assert f(1)==1"], "test_setup_code": ""}
"""
WORDINGS = {
    "boxed": r"So it is \boxed{%s}.",
    "$X$": "$%s$",
    "The answer is X.": "The answer is %s.",
    "**X**": "**%s**",
    "Answer: X": "Answer: %s",
    "#### X": "7 + 8\n#### %s",
    "<answer>The result is X.</answer>": "<think>7</think><answer>The result is %s.</answer>",
}
POOL = [*ROWS.strip().splitlines() * 20, "<think>3+4</think><answer>7</answer>", "(3+4)*2=14"]


def read_golds(folder: str) -> dict[str, list[str]]:
    """MATH-500's answers, and those of GSM8K's first 300 problems."""
    golds = {"MATH-500": "math500.jsonl", "GSM8K": "gsm8k_test.jsonl"}
    for name, file in golds.items():
        with open(os.path.join(folder, file), encoding="utf-8") as f:
            answers = [json.loads(line)["answer"] for line in f]
        golds[name] = [text.rpartition("#### ")[2].strip() for text in answers]
    return golds | {"GSM8K": golds["GSM8K"][:300]}


def judge_wordings(folder: str) -> dict:
    """Every gold in every wording: how many are right, and which are right for the next row's gold
    too, where this is another text. Prints the table."""
    figures = {}
    for name, golds in read_golds(folder).items():
        print(f"{name:36}{'right':>12}{'for the next':>14}")
        for wording, pattern in WORDINGS.items():
            answers = [answer(pattern.replace("%s", gold)) for gold in golds]
            right = sum(map(math_equal, answers, golds))
            pairs = zip(answers, golds, golds[1:])
            wrong = [(g, after) for a, g, after in pairs if g != after and math_equal(a, after)]
            print(f"{wording:36}{right:>6} / {len(golds)}{len(wrong):>14}")
            figures[f"{name}, {wording}"] = {"golds": len(golds), "right": right, "next": wrong}
    return figures


def read_cases(folder: str) -> list[dict]:
    with open(os.path.join(folder, "verifier_cases.json"), encoding="utf-8") as f:
        return json.load(f)


def answer(text: str) -> str:
    """What is judged of a text: the marked answer, else the mathematics in it."""
    found = extract_answer(text)
    return answer_in(text) if found is None else found


def judge_cases(folder: str) -> dict:
    """False verdicts on the labelled cases, and on MATH-500's answers against themselves and the
    next row's; pairs a second."""
    rows = [row for row in read_cases(folder) if row["tier"] != "disputed"]
    judged = ((row["equal"], math_equal(answer(row["pred"]), answer(row["gold"]))) for row in rows)
    verdicts = collections.Counter(judged)
    golds = read_golds(folder)["MATH-500"]
    pairs = list(zip(golds, golds[1:]))
    rates = []
    for _ in range(5):
        value_at.cache_clear()
        start = time.perf_counter()
        same_as_next = [pair for pair in pairs if math_equal(*pair)]
        rates.append(len(pairs) / (time.perf_counter() - start))
    return {
        "cases": len(rows),
        "false_positives": verdicts[False, True],
        "false_negatives": verdicts[True, False],
        "equal_cases": verdicts[True, True] + verdicts[True, False],
        "golds_unequal_to_themselves": [g for g in golds if not math_equal(g, g)],
        "golds_equal_to_the_next": same_as_next,
        "pairs_per_second": sorted(rates)[2],
    }


def random_text(rng: random.Random, pool: list[str]) -> str:
    """Random pieces, or a text of the pool with up to eight changes."""
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.randint(0, 40)))
    out = list(rng.choice(pool)[-2000:])
    for _ in range(rng.randint(0, 8)):
        i = rng.randint(0, len(out))
        piece, repeated = rng.choice(PIECES), "".join(out[max(0, i - 10) : i]) * rng.randint(1, 20)
        change = rng.choice((piece, "", repeated))
        out[i : i + rng.choice((0, 0, 1, 5))] = change
    return "".join(out)


def parse(text: str, problem: Problem, path: str | None) -> None:
    """Through every parser; path: where to write the text as a file that is read too."""
    rewards.format_reward(text), rewards.thinking(text), rewards.reply(text)
    rewards.language_consistency(text, "en"), rewards.reflection_words(text)
    rewards.score(problem, text, rewards.RewardConfig())
    rewards.countdown_correct(text, [3, 4, 2], 14)
    math_equal(text, answer_in(text))
    with contextlib.suppress(ValueError):  # one clear sentence
        parse_row(text, "line 1")
    if path:
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as f:
            f.write(text)
        with contextlib.suppress(ValueError):
            data.load_jsonl(path)


def fuzz(count: int, folder: str) -> dict:
    """Random and mutated texts: exceptions, and the slowest text in seconds."""
    rng, problem = random.Random(0), Problem("", "7", "math")
    pool = [text for row in read_cases(folder) for text in (row["pred"], row["gold"])] + POOL
    failures, slowest, longest = 0, 0.0, ""
    with tempfile.TemporaryDirectory() as out:
        path = os.path.join(out, "rows.jsonl")
        for i in tqdm(range(count), desc="strings", unit="string"):
            text = random_text(rng, pool)
            start = time.perf_counter()
            try:
                parse(text, problem, path if i % 10 == 0 else None)  # a tenth as files is plenty
            except Exception as e:  # whatever it is, it is counted
                failures += 1
                print(f"{type(e).__name__}: {e}: {text[:200]!r}")
            if (seconds := time.perf_counter() - start) > slowest:
                slowest, longest = seconds, text
    figures = {"strings": count, "jsonl_files": (count + 9) // 10, "exceptions": failures}
    return figures | {"slowest_s": slowest, "slowest_text": longest[:200]}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("folder", help="where verifier_cases.json and math500.jsonl lie")
    flags.add_argument("--strings", type=int, default=1_000_000)
    args = flags.parse_args()
    content = judge_cases(args.folder)
    print(json.dumps(content, indent=1, ensure_ascii=False))
    content["wordings"] = judge_wordings(args.folder)
    content |= fuzz(args.strings, args.folder)
    command = f"python bench/check_verifier.py DATA_FOLDER --strings {args.strings}"
    path = save("verifier", content, command)
    failed = f"{content['exceptions']} exceptions in {args.strings} strings"
    print(f"{failed}, the slowest took {content['slowest_s']:.2f} s; figures: {path}")


if __name__ == "__main__":
    main()
