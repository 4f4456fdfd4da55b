"""Multiple choice: which letter a benchmark file means, and which one a response gives."""

import re

from tasks.answers import after_thinking, extract_answer
from tasks.base import Problem

LETTERS = "ABCDEFGHIJ"


def without_letters(choices: list[str]) -> list[str]:
    """The texts of choices, which may all begin with their letters: "A) Rome"."""
    found = [re.match(r"\(?([A-J])[).:、]\s*(?=\S)", text) for text in choices]
    if [match and match[1] for match in found] != list(LETTERS[: len(choices)]):
        return choices
    return [text[match.end() :] for match, text in zip(found, choices)]


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
    r"(?:^(?:option|choice|选项)?|\b(?:option|choice|answer) is\b|答案)\W*([a-j])"
    r"(?:\W*(?:$|because|is (?:the )?(?:correct|right))|,\s*not\b"
    r"|\s*[).:、–—-](?!\s*(?:is|was)\b|\W*(?:and|or|和|或)?\W*[a-j]\W*$))"
    r"|(?<!not )(?<!n't )(?<!不)(?:[为是は选→:]|选择|因此|所以"
    r"|\b(?:is|be|so|thus|hence|therefore|choose|option|choice|answer|only|go with))\W*([a-j])\W*$"
)
_VERDICT = re.compile(  # after a choice
    r"\s*(?:\bis (?:the )?(?:correct|right)?(?: ?(?:answer|choice|option|one))?"
    r"|(?:选?项)?(?:是?正确的?(?:答案|选项)?)?|です)\W*$"
)
_FULL_WIDTH = {0xFEE0 + code: code for code in range(33, 127)}


def choice_in(problem: Problem, text: str) -> str | None:
    """The letter that a response to multiple choice gives, where it marks an answer, else in its
    last line, or None. The whole text of a choice stands for its letter. A first line that is
    nothing else counts too, if no other line is like it."""
    text, texts = text.translate(_FULL_WIDTH), [*map(_plain, problem.tests["choices"])]
    marked = extract_answer(text)
    said = [marked] if marked else after_thinking(text).split("\n")
    lines = [*filter(None, map(_plain, said))] or [""]
    first, *others = found = [_whole(line, texts) for line in lines]
    if found[-len(texts) :] == [*LETTERS[: len(texts)]]:
        return None  # all choices are repeated
    last = _VERDICT.sub("", lines[-1])
    if letter := _whole(last, texts):
        return letter
    if found := _CHOSEN.search(last):
        letter = (found[1] or found[2]).upper()
        return letter if letter in LETTERS[: len(texts)] else None
    return None if any(others) else first


def _plain(text: str) -> str:
    text = _DECORATION.sub(" ", text.translate(_FULL_WIDTH))
    return " ".join(text.split()).strip(" .。,;").casefold()[-2000:]  # patterns take squares of it


def _whole(said: str, texts: list[str]) -> str | None:
    """The letter of a line that is a choice's letter, its text, or both."""
    found = []
    for letter, text in zip(LETTERS, texts):
        x, t = letter.lower(), re.escape(text) if len(text) > 1 else "(?!)"
        if re.fullmatch(rf"\W*(?:答案\W*)?{x}\W*|(?:\W*{x}\W+)?{t}|{t}\W+{x}\W*", said):
            found.append(letter)
    return found[0] if len(found) == 1 else None


def judge_choices(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [choice_in(p, answer) == p.answer for p, answer in zip(problems, answers)]
