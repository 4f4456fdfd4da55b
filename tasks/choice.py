"""Multiple choice: which letter a benchmark file means, and which one a response gives."""

import re

from tasks.answers import after_thinking, extract_answer
from tasks.base import Problem
from tasks.math_equal import math_equal

LETTERS = "ABCDEFGHIJ"


def without_letters(choices: list[str]) -> list[str]:
    """The texts of choices, which may all begin with their letters: "A) Rome"."""
    found = [re.match(r"\(?([A-J])[).:、]\s*(?=\S)", text) for text in choices]
    if [match and match[1] for match in found] != list(LETTERS[: len(choices)]):
        return choices
    return [text[match.end() :] for match, text in zip(found, choices)]


def by_letter(problem: Problem) -> bool:
    """Whether the answer is a choice's letter; of a mathematical problem the choices may stand in
    its text, and the letter be the answer."""
    lettered = problem.task == "math" and re.fullmatch("[A-J]", problem.answer)
    return problem.task == "multiple_choice" or bool(lettered)


def letter_of(right: str, choices: list[str], labels: object, is_index: bool) -> str | None:
    """The letter of the right choice, which is given by its label, its letter ("B", "(B)", "B.",
    "B) text"), its text or its index from 0."""
    letters, right = LETTERS[: len(choices)], right.strip()
    names = dict(zip("0123456789", letters))
    if not is_index:
        names |= dict(zip(choices, letters)) | dict(zip(letters + letters.lower(), letters * 2))
    names |= dict(zip(map(str, labels if isinstance(labels, list) else []), letters))
    forms = [right, *re.findall(r"^\(?([A-J])[).:]", right)]
    return next((names[form] for form in forms if form in names), None)


_DECORATION = re.compile(r"\\(?:text\w*|math[a-z]+|boxed|left|right)\b|[\s*`$\\{}]+")
# "C. Paris", "C, not A", "option C because", "so it is C" at the end; not "A, C"
_CHOSEN = re.compile(
    r"(?:^(?:option|choice|选项?)?|\b(?:option|choice|answer)(?: is\b|\s*:)|答案)\W*([a-j])"
    r"(?:(?:\s*\([^()]{3,}\)?)?\W*(?:$|because|is (?:the )?(?:correct|right))|,\s*(?:not\b|不)"
    r"|\s*[).:、–—-](?!\s*(?:is|was)\b|\W*(?:and|or|和|或)?\W*[a-j]\W*$))"
    r"|(?<!not )(?<!n't )(?<!不)(?:[为是は选→:]|选择|因此|所以"
    r"|\b(?:is|be|so|thus|hence|therefore|choose|select|pick|option|choice|statement|answer|letter"
    r"|only|go with|it['’]s|leaves|but|no,)|選)\W*([a-j])(?:\s*\([^()]{3,}\)?)?\W*$"
)
_VERDICT = re.compile(  # after a choice
    r"\s*(?:\bis (?:the )?(?:correct|right|best)?(?: ?(?:answer|choice|option|one))?"
    r"|(?:选?项)?(?:是?正确的?(?:答案|选项)?)?|です)\W*$"
)
_WRONG = re.compile(  # the letter that follows is not chosen, or not alone
    r"\b(?:wrong|incorrect)\s*(?:(?:answer|option|choice)\s*(?:is\b|:)|:)|\beliminate|都"
    r"|\b(?:all|any(?:thing|one)?|every(?:thing|one)?) but\b"
)
_LABEL = re.compile(r"\W*([a-j])\s*[).:、–—-]")
_NAMED = re.compile(
    r"\b(?:correct|right|best) (?:option|choice) is\W*([a-j])(?=\s*(?:$|[.,;:)]))"
    r"(?!\W*(?:or|and)\b)"
)
_BEST = re.compile(r"(?<!\w)([a-j]) is (?:the )?(?:correct|right|best)\b(?!.*\b(?:not|or)\b)")
_FULL_WIDTH = {0xFEE0 + code: code for code in range(33, 127)}


def choice_in(problem: Problem, text: str) -> str | None:
    """The letter that a response to multiple choice gives, where it marks an answer, else in its
    last line, or None. The whole text of a choice stands for its letter. A first line that is
    nothing else counts too, if no other line is like it."""
    choices = problem.tests.get("choices", [""] * len(LETTERS))
    text, texts = text.translate(_FULL_WIDTH), [*map(_plain, choices)]
    marked = extract_answer(text)
    said = [marked] if marked else after_thinking(text).split("\n")
    lines = [*filter(None, map(_plain, said))] or [""]
    first, *others = found = [_whole(line, texts) for line in lines]
    if found[-len(texts) :] == [*LETTERS[: len(texts)]]:
        return None  # all choices are repeated
    last = _VERDICT.sub("", lines[-1])
    if letter := _whole(last, texts):
        return letter
    if _WRONG.search(last):
        return None
    labels = {label[1] for label in map(_LABEL.match, lines) if label}
    if len(labels) > 1 and _LABEL.match(last):
        return None  # what is said of each choice, one a line
    several = re.search(r"\b(?:n?or|and|neither|not)\b|n['’]t\b", last)
    best = None if several else _BEST.search(lines[-1])  # "C is the best"
    if chosen := _CHOSEN.search(last) or best:
        letter = next(filter(None, chosen.groups())).upper()
        return letter if letter in LETTERS[: len(texts)] else None
    named = {x.upper() for line in lines for x in _NAMED.findall(line)} & {*LETTERS[: len(texts)]}
    if len(named) == 1 and not any(found):
        return named.pop()
    if marked:  # the same value in another spelling: 1/4 for \frac{1}{4}
        equal = [x for x, c in zip(LETTERS, choices) if math_equal(marked, c)]
        if len(equal) == 1:
            return equal[0]
    return None if any(others) else first


def _plain(text: str) -> str:
    text = _DECORATION.sub(" ", text.translate(_FULL_WIDTH))
    return " ".join(text.split()).strip(" .。,;").casefold()[-2000:]  # patterns take squares of it


def _whole(said: str, texts: list[str]) -> str | None:
    """The letter of a line that is a choice's letter, its text, or both."""
    found = []
    for letter, text in zip(LETTERS, texts):
        alone = len(text) == 1 and text.upper() in LETTERS  # which letter is meant?
        x, t = letter.lower(), "(?!)" if alone or not text else rf"(?:the |an? )?{re.escape(text)}"
        if re.fullmatch(rf"\W*(?:答案\W*)?{x}\W*|(?:\W*{x}\W+)?{t}\W*|{t}\W+{x}\W*", said):
            found.append(letter)
    return found[0] if len(found) == 1 else None


def judge_choices(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [choice_in(p, answer) == p.answer for p, answer in zip(problems, answers)]
