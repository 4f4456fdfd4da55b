r"""Reading the answer out of a response.

    extract_answer(r"... so \boxed{\frac12}.")   "\frac12"       an answer that is marked
    answer_in("the largest n is 34")             "34"            an answer in free text

Only what follows the thinking counts. Any text is read quickly, and none raises.
"""

import re

TAGS = re.compile(r"</?(?:think|answer)>")
ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_SAID = re.compile(r"(?:the (?:final |correct )?answer is|答案是)[ :：]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|。|\.\s+(?=[A-Z])")
_FREE_TEXT = 20_000  # characters before the end that answer_in reads


def thinking(text: str) -> str:
    """The text before the answer: inside <think>, or up to </think>, <answer> or the end."""
    return re.split(r"</think>|<answer>", text, maxsplit=1)[0].replace("<think>", "")


def after_thinking(text: str) -> str:
    """The text after the thinking (an <answer> ends it too): "" if the thinking never ends."""
    if "<think>" in text and "</think>" not in text:
        return text[text.find("<answer>") :] if "<answer>" in text else ""
    return text.rpartition("</think>")[2]


def extract_answer(text: str) -> str | None:
    r"""The final answer that a response marks, or None. It is the last <answer> block (which may
    say "the answer is"), else the last \boxed{}, else the text after the last "#### ", else after
    the last "the answer is". Boxes that one statement joins are one list: "\boxed{1} and \boxed{2}"
    gives "1, 2". A box that is never closed gives None."""
    text = after_thinking(text)
    if found := ANSWER_BLOCK.findall(text):
        answer = _SAID.split(found[-1])[-1].strip().rstrip("。")
        return answer.removesuffix(".").strip() or None
    if "\\boxed{" in text:
        return _boxed(text)
    if "#### " in text:
        return text.rpartition("#### ")[2].split("\n")[0].strip() or None
    if len(parts := _SAID.split(text)) == 1:
        return None
    return _SENTENCE_END.split(parts[-1])[0].strip().removesuffix(".").strip() or None


def _boxed(text: str) -> str | None:
    boxes, end = [], 0
    while (start := text.find("\\boxed{", end)) >= 0:
        between, begin = text[end:start], start + len("\\boxed{")
        end = closing_bracket(text, begin - 1) + 1
        if not end:
            return None
        if not _joins(between):
            boxes.clear()
        boxes.append(text[begin : end - 1].strip())
    return ", ".join(dict.fromkeys(filter(None, boxes))) or None


def closing_bracket(text: str, start: int) -> int:
    """The index where the bracket that opens at start is closed, or -1. A brace is closed by a
    brace; other brackets by any: [0,1) is balanced."""
    openers, closers = ("{", "}") if text[start] == "{" else ("([{", ")]}")
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in openers) - (text[i] in closers)
        if depth == 0:
            return i
    return -1


def _joins(between: str) -> bool:
    """Whether the text between two boxes makes them parts of one answer: it is short, within a
    sentence, and has a comma, "and", "or" or no word at all."""
    if len(between) > 60 or re.search(r"[.\n]", between.strip()):
        return False
    plain = re.sub(r"\\[a-zA-Z]+|\\.", " ", between)
    return bool(re.search(r",|\b(?:and|or)\b|^[^\w=]*$", plain))


_MATH = re.compile(
    r"(?<!\\)\$\$?([^$]+)\$\$?"  # $...$
    r"|\\\(((?:(?!\\\().)*?)\\\)"  # \(...\)
    r"|\\\[((?:(?!\\\[).)*?)\\\]"  # \[...\]
    r"|(?<![\w.])(-?(?:\d[\d,]*)?\.?\d+(?:/\d+)?%?)",  # a number
    re.DOTALL,
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def answer_in(text: str) -> str:
    r"""The answer in free text, for a response in which extract_answer finds none: the last
    mathematics between $...$, \(...\) or \[...\], or the last number if that comes later. A text of
    fewer than three words is itself the answer. "" if thinking or a box is open."""
    if "\\boxed{" in text:
        return ""
    text = after_thinking(text)[-_FREE_TEXT:].strip()
    found = list(_MATH.finditer(text))
    delimited = any(m[4] is None for m in found)
    if found and (delimited or len(_WORD.findall(text)) >= 3):
        return next(filter(None, found[-1].groups()), "").strip()
    return text
