"""Rule-based rewards: did the response get it right, and did it keep to the form?

    python rewards.py "<think>3+4</think><answer>7</answer>" --answer 7      # score one response by hand

DeepSeek-R1-Zero uses two rewards and no neural model [2501.12948, section 2.2.2]: accuracy and format. Only the response
is ever scored, never the prompt, so a template's own tags earn nothing. Nothing here evaluates text as code.
The two count alike, as there.
"""

import argparse
import re
from dataclasses import dataclass
from fractions import Fraction

from data import Problem


@dataclass
class RewardConfig:
    accuracy: float = 1.0  # weights in the total
    format: float = 1.0


# ---------------------------------------------------------------------------------------------- reading a response

_TAGS = re.compile(r"</?(?:think|answer)>")
_FORMAT = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_SAID = re.compile(r"(?:the answer is|答案是)[ :：]*", re.IGNORECASE)


def format_reward(text: str) -> float:
    """1.0 for exactly one <think> block followed by one non-empty <answer> block and nothing outside them, else 0.0."""
    match = _FORMAT.fullmatch(text.strip())
    return float(bool(match) and len(_TAGS.findall(text)) == 4 and bool(match[2].strip()))


def thinking(text: str) -> str:
    """What stands before the answer: inside <think>, or everything up to </think>, <answer> or the end."""
    return re.split(r"</think>|<answer>", text, maxsplit=1)[0].replace("<think>", "")


def extract_answer(text: str) -> str | None:
    r"""The final answer a response gives, or None: the last <answer> block, else the last balanced \boxed{}, else what
    follows the last "#### ", else the last "the answer is". Where there is a </think>, only what comes after it counts.
    """
    text = text.rpartition("</think>")[2]
    if found := _ANSWER.findall(text):
        return found[-1].strip() or None
    if (boxed := _boxed(text)) is not None:
        return boxed.strip() or None
    if "#### " in text:
        return text.rpartition("#### ")[2].split("\n")[0].strip() or None
    *before, said = _SAID.split(text)
    if before:
        return re.split(r"[\n。]", said)[0].strip().removesuffix(".").strip() or None
    return None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None


# ---------------------------------------------------------------------------------------------- verifiers


def math_equal(pred: str, gold: str) -> bool:
    """Whether two answers are the same number (separators, signs, decimals, plain fractions) or the same text."""
    return normal_form(pred) == normal_form(gold)


def normal_form(answer: str) -> str:
    """One spelling for answers that mean the same: a number as an exact fraction, anything else without white space."""
    number = _number(answer)
    return "".join(answer.split()) if number is None else str(number)


_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:/\d+)?")
_MOST_DIGITS = 100  # longer ones are compared as text


def _number(text: str) -> Fraction | None:
    text = text.strip().strip("$").rstrip(".%").strip()
    if len(text) > _MOST_DIGITS or not text.isascii() or not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").partition("/")
    try:
        return Fraction(top) / Fraction(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None


def countdown_correct(expression: str, numbers: list[int], target: int) -> bool:
    """Whether an expression of + - * / and parentheses uses each number exactly once and makes the target, exactly.

    "= target" at the end is allowed. Anything else (powers, decimals, names, a sign before a number) is wrong.
    """
    left, equals, right = expression.partition("=")
    if equals and right.strip() != str(target):
        return False
    left = left.replace("×", "*").replace("÷", "/").replace("−", "-")
    tokens = re.findall(r"\d+|[-+*/()]|\S", left)
    if len(tokens) > 8 * len(numbers) + 8:  # no honest expression is that long; also bounds the recursion
        return False
    used = [t for t in tokens if t.isdigit()]
    if any(not t.isascii() or len(t) > 20 for t in tokens) or sorted(map(int, used)) != sorted(numbers):
        return False
    try:
        value, rest = _sum(tokens)
    except (ValueError, ZeroDivisionError):
        return False
    return not rest and value == target


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, rest = _product(tokens)
    while rest and rest[0] in "+-":
        other, after = _product(rest[1:])
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, rest = _atom(tokens)
    while rest and rest[0] in "*/":
        other, after = _atom(rest[1:])
        value, rest = (value * other if rest[0] == "*" else value / other), after
    return value, rest


def _atom(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens and tokens[0] == "(":
        value, rest = _sum(tokens[1:])
        if rest[:1] != [")"]:
            raise ValueError("a parenthesis stays open")
        return value, rest[1:]
    if tokens and tokens[0].isdigit():
        return Fraction(int(tokens[0])), tokens[1:]
    raise ValueError("a number or a parenthesis is missing")


def correct(problem: Problem, answer: str | None) -> bool:
    """Whether an extracted answer solves the problem."""
    if answer is None:
        return False
    if problem.task == "countdown":
        return countdown_correct(answer, problem.tests["numbers"], problem.tests["target"])
    return math_equal(answer, problem.answer)


# ---------------------------------------------------------------------------------------------- what a text is like

_WORDS = {"en": re.compile(r"[A-Za-z]+"), "zh": re.compile(r"[\u4e00-\u9fff]")}
# the paper's list [v2, appendix C], and what stands for it in Chinese
_REFLECTION = re.compile(r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check|no)\b|等等|不对|但|错|检查|重试", re.IGNORECASE)


def language_consistency(text: str, language: str) -> float:
    """Share of the words that are in the language ("en": runs of letters, "zh": characters); 1.0 if there are no words."""
    counts = {lang: len(pattern.findall(_TAGS.sub(" ", text))) for lang, pattern in _WORDS.items()}
    return counts[language] / total if (total := sum(counts.values())) else 1.0


def reflection_words(text: str) -> int:
    """How often a text doubts itself."""
    return len(_REFLECTION.findall(text))


# ---------------------------------------------------------------------------------------------- the total


def score(problem: Problem, response: str, cfg: RewardConfig) -> dict[str, float]:
    """{"accuracy", "format", "total"} of one response; total is the weighted sum. Never raises, whatever
    the response (the problem's own fields are checked when it is loaded)."""
    accuracy = float(correct(problem, extract_answer(response)))
    form = format_reward(response)
    return {"accuracy": accuracy, "format": form, "total": cfg.accuracy * accuracy + cfg.format * form}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("response")
    parser.add_argument("--answer", required=True, help="the right answer; for Countdown write numbers=target, such as 3,4,2=14")
    args = parser.parse_args()
    countdown = re.fullmatch(r"\s*(\d{1,9}(?:,\d{1,9})*)=(\d{1,9})\s*", args.answer)
    problem = Problem("", args.answer, "math")
    if countdown:
        problem = Problem("", "", "countdown", tests={"numbers": [int(n) for n in countdown[1].split(",")], "target": int(countdown[2])})
    print(f"answer: {extract_answer(args.response)}")
    for name, value in score(problem, args.response, RewardConfig()).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
