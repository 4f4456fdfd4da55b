"""Rule-based rewards: is the response right, and does it keep to the format?

    python rewards.py "<think>3+4</think><answer>7</answer>" --answer 7      # score one response

DeepSeek-R1-Zero has two rewards and no neural model [2501.12948v1, section 2.2.2]: accuracy and
format. R1's later stages add language consistency [v2 eq 7]. Only the response is scored, never the
prompt, so the tags of a template earn nothing. What is right in a task is decided by its file in
tasks/. A new reward is a function, a line in REWARDS and its weight in RewardConfig.
"""

import lib.start  # noqa: F401

import re
from dataclasses import dataclass

import config
from lib import extensions
from lib.stats import consensus, same_text
from tasks import TASKS
from tasks.answers import TAGS, answer_in, extract_answer, in_sentence, thinking
from tasks.base import PROGRAMS, VALUES, Problem, by_text
from tasks.benchmarks import judge_of, program_in
from tasks.choice import by_letter, choice_in
from tasks.countdown import countdown_correct  # noqa: F401  public names of this module
from tasks.general import declines, follows, helpfulness, reply  # noqa: F401
from tasks.math_equal import math_equal


def weight(default: float):
    """A reward's weight; a negative one makes it a penalty."""
    return config.setting(default, low=-1000, high=1000)


@dataclass
class RewardConfig:
    """The weights of the rewards in the total; accuracy and format alike, as in R1 v2."""

    accuracy: float = weight(1.0)  # of a right answer
    format: float = weight(1.0)  # of one <think> and one <answer> block
    language: float = weight(0.0)  # of thinking in the problem's language; train_r1.py sets it

    def __post_init__(self):
        extensions.check_rewards(self, REWARDS)


def answer_of(problem: Problem, text: str) -> str | None:
    """The part of a response that is judged, or None: a program, a choice's letter, else what
    extract_answer finds. In a mathematical benchmark this may be a sentence, and if none is marked,
    the last mathematics or number counts."""
    if problem.task in PROGRAMS:
        return program_in(problem, text)
    letter = choice_in(problem, text) if by_letter(problem) else None
    if letter or problem.task == "multiple_choice":
        return letter
    answer = extract_answer(text)
    if problem.task == "math":
        return in_sentence(answer or answer_in(text)) or None
    return answer


def majority(problem: Problem, answers: list[str | None]) -> str | None:
    """The answer that most samples agree on (stats.consensus): values are compared with math_equal,
    expressions, programs and replies as texts."""
    equal = math_equal if judge_of(problem.task) in VALUES else same_text
    return consensus(answers, equal)


def correct(problem: Problem, answer: str | None) -> bool:
    """Whether an extracted answer solves the problem."""
    return verdicts([problem], [answer])[0]


def verdicts(problems: list[Problem], answers: list[str | None]) -> list[bool]:
    """`correct` for many; programs run side by side. Replies to requests never count as right."""
    right = [False] * len(problems)
    groups: dict = {}  # judge: the indices that it judges
    for i, (p, answer) in enumerate(zip(problems, answers)):
        if answer is not None:
            groups.setdefault(judge_of(p.task), []).append(i)
    for judge, rows in groups.items():
        found = judge([problems[i] for i in rows], [answers[i] for i in rows])
        for i, ok in zip(rows, found):
            right[i] = ok
    return right


_FORMAT = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)
# English: words of two letters or more, except the name of a function, f(. Chinese: characters
_WORDS = {
    "en": re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}(?![A-Za-z(])"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
}
# the paper's list [v2, appendix C], and "no" and "again" of the world's texts; the same in Chinese
_REFLECTION = re.compile(
    r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check|no|again)\b"
    r"|等等|不对|但|错|检查|重试|再试|再算",
    re.IGNORECASE,
)


def format_reward(text: str) -> float:
    """1.0 for exactly one <think> block, then one non-empty <answer> block, and no more; else 0."""
    match = _FORMAT.fullmatch(text.strip())
    return float(bool(match) and len(TAGS.findall(text)) == 4 and bool(match[2].strip()))


def language_consistency(text: str, language: str) -> float:
    """Fraction of the words (see _WORDS) that are in the language; 1.0 if there are no words."""
    text = TAGS.sub(" ", text)
    counts = {name: len(pattern.findall(text)) for name, pattern in _WORDS.items()}
    total = sum(counts.values())
    return counts[language] / total if total else 1.0


def reflection_words(text: str) -> int:
    """How many words of checking and trying again a text has. It is a metric, not a reward."""
    return len(_REFLECTION.findall(text))


# name: (problem, response) -> reward, beside "accuracy"; the weights are RewardConfig's
REWARDS = {
    "format": lambda problem, text: format_reward(text),
    "language": lambda problem, text: language_consistency(thinking(text), problem.language),
}


def score(problem: Problem, response: str, cfg: RewardConfig) -> dict[str, float]:
    """{"accuracy", "format", "language", "total"} of one response; total is the weighted sum. A
    general request has no accuracy. Never raises, whatever the response."""
    return score_all([problem], [response], cfg)[0]


def score_all(problems: list, responses: list[str], cfg: RewardConfig) -> list[dict[str, float]]:
    """`score` for many: of each problem and its response."""
    right = verdicts(problems, [answer_of(p, r) for p, r in zip(problems, responses)])
    out = []
    for p, response, ok in zip(problems, responses, right):
        scores = {} if p.task == "general" else {"accuracy": float(ok)}
        scores |= {name: reward(p, response) for name, reward in REWARDS.items()}
        total = sum(getattr(cfg, name) * value for name, value in scores.items())
        out.append(scores | {"total": total})
    return out


def main() -> None:
    parser = config.Parser(__doc__)
    parser.add_argument("response")
    help_text = "the right answer; for Countdown write numbers=target, such as 3,4,2=14"
    parser.add_argument("--answer", required=True, help=help_text)
    help_text = "math (default: an unmarked number counts too) or a task such as arithmetic"
    known = ["math", "countdown", *(t for t in TASKS if judge_of(t) in (*VALUES, by_text))]
    parser.add_argument("--task", default="math", choices=known, help=help_text)
    args = parser.parse_args()
    countdown = re.fullmatch(r"\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*=\s*(\d{1,9})\s*", args.answer)
    problem = Problem("", args.answer, args.task)
    if countdown and args.task in ("math", "countdown"):
        numbers, target = [int(n) for n in countdown[1].split(",")], int(countdown[2])
        problem = Problem("", "", "countdown", tests={"numbers": numbers, "target": target})
    elif args.task == "countdown" or not args.answer.strip():
        parser.error("argument --answer: it needs the right answer; for Countdown 3,4,2=14")
    print(f"answer: {answer_of(problem, args.response)}")
    for name, value in score(problem, args.response, weights := RewardConfig()).items():
        weight = "" if name == "total" else f" (weight {getattr(weights, name):g})"
        print(f"{name}: {value:g}{weight}")


if __name__ == "__main__":
    main()
