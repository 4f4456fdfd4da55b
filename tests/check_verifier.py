"""How well the verifier judges, how fast, and whether any text can make a parser fail; figures go to results/verifier.json.

    python tests/check_verifier.py DATA_FOLDER --strings 1000000

DATA_FOLDER holds verifier_cases.json (rows of pred, gold, equal, tier) and math500.jsonl. Not a test of pytest's: a million
strings take about ten minutes.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import string
import sys
import tempfile
import time

from tqdm import tqdm

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import data
import experiments
import rewards
import verify

PIECES = [*string.printable, "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "\\frac", "{", "}", "\\sqrt", "^", "_", "!", "**", "\\le", "\\pm", "\\cup", "\\in",
          "\\begin{pmatrix}", "\\end{pmatrix}", "\\end", "&", "\\\\", "\\sin", "\\log_", "\\sum_{k=0}^{n}", "f(", "\\(", "\\)", "\\[", "\\]", "the answer is", "#### ",
          "答案是", "等等", "\\text{", "and", "or", "\\pi", "\\infty", "1/", "0.", "9999999999", "\\binom", "\\circ", "\ud800", "\0", "²", "٣", "𝟗", '{"question": "', '"answer": ',
          '{"prompt": "a", "answer": "b", "task": "math"', '"numbers": [1, 2]', '"target": ', "null", "1e999", "[[", '"}']


def cases(folder: str) -> dict:
    """False verdicts on the labelled cases, and on MATH-500's answers against themselves and the next row's; pairs a second."""
    with open(os.path.join(folder, "verifier_cases.json"), encoding="utf-8") as f:
        rows = [row for row in json.load(f) if row["tier"] != "disputed"]

    def answer(text: str) -> str:
        return verify.answer_in(text) if (found := verify.extract_answer(text)) is None else found

    verdicts = collections.Counter((row["equal"], verify.math_equal(answer(row["pred"]), answer(row["gold"]))) for row in rows)
    with open(os.path.join(folder, "math500.jsonl"), encoding="utf-8") as f:
        golds = [json.loads(line)["answer"] for line in f]
    pairs = list(zip(golds, golds[1:]))
    rates = []
    for _ in range(5):
        verify._value.cache_clear()
        start = time.perf_counter()
        same_as_next = [pair for pair in pairs if verify.math_equal(*pair)]
        rates.append(len(pairs) / (time.perf_counter() - start))
    return {"cases": len(rows), "false_positives": verdicts[False, True], "false_negatives": verdicts[True, False], "equal_cases": verdicts[True, True] + verdicts[True, False],
            "golds_unequal_to_themselves": [g for g in golds if not verify.math_equal(g, g)], "golds_equal_to_the_next": same_as_next, "pairs_per_second": sorted(rates)[2]}


def fuzz(count: int, folder: str) -> dict:
    """Random and mutated texts through every parser: exceptions, and the slowest text in seconds."""
    rng, problem = random.Random(0), data.Problem("", "7", "math")
    with open(os.path.join(folder, "verifier_cases.json"), encoding="utf-8") as f:
        pool = [text for row in json.load(f) for text in (row["pred"], row["gold"])]
    rows = ['{"question": "a", "answer": "#### 7"}', '{"numbers": [3, 4], "target": 7}', '{"problem": "a", "answer": 7}', '{"prompt": "a", "answer": "b", "task": "math"}',
            '{"prompt": "def f(x):\\n", "entry_point": "f", "test": "def check(candidate):\\n assert candidate(1) == 2"}',
            '{"text": "a", "code": "def f(x): return x", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}']
    pool += [*rows * 20, "<think>3+4</think><answer>7</answer>", "(3+4)*2=14"]

    def text() -> str:
        if rng.random() < 0.5:
            return "".join(rng.choices(PIECES, k=rng.randint(0, 40)))
        out = list(rng.choice(pool)[-2000:])
        for _ in range(rng.randint(0, 8)):
            i = rng.randint(0, len(out))
            out[i : i + rng.choice((0, 0, 1, 5))] = rng.choice((rng.choice(PIECES), "", "".join(out[max(0, i - 10) : i]) * rng.randint(1, 20)))
        return "".join(out)

    failures, slowest, longest = 0, 0.0, ""
    with tempfile.TemporaryDirectory() as out:
        path = os.path.join(out, "rows.jsonl")
        for i in tqdm(range(count), desc="strings", unit="string"):
            a = text()
            start = time.perf_counter()
            try:
                rewards.format_reward(a), rewards.thinking(a), rewards.reply(a), rewards.language_consistency(a, "en"), rewards.reflection_words(a)
                rewards.score(problem, a, rewards.RewardConfig())
                rewards.countdown_correct(a, [3, 4, 2], 14)
                verify.math_equal(a, verify.answer_in(a))
                with contextlib.suppress(ValueError):  # one clear sentence
                    data._read_row(a, "line 1")
                if i % 10 == 0:  # as a file too: a tenth is plenty
                    with open(path, "w", encoding="utf-8", errors="replace", newline="") as f:
                        f.write(a)
                    with contextlib.suppress(ValueError):
                        data.load_jsonl(path)
            except Exception as e:  # whatever it is, it is counted
                failures += 1
                print(f"{type(e).__name__}: {e}: {a[:200]!r}")
            if (seconds := time.perf_counter() - start) > slowest:
                slowest, longest = seconds, a
    return {"strings": count, "jsonl_files": (count + 9) // 10, "exceptions": failures, "slowest_s": slowest, "slowest_text": longest[:200]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where verifier_cases.json and math500.jsonl lie")
    parser.add_argument("--strings", type=int, default=1_000_000)
    args = parser.parse_args()
    content = cases(args.folder)
    print(json.dumps(content, indent=1, ensure_ascii=False))
    content |= fuzz(args.strings, args.folder)
    path = experiments.save("verifier", content, f"python tests/check_verifier.py DATA_FOLDER --strings {args.strings}")
    print(f"{content['exceptions']} exceptions in {args.strings} strings, the slowest took {content['slowest_s']:.2f} s; figures: {path}")


if __name__ == "__main__":
    main()
