r"""Is a mathematical answer the right one? Reads LaTeX and plain text; never evaluates text as code, never raises, never hangs.

    math_equal(r"\frac{1}{2}", "0.5")            True
    extract_answer(r"... so \boxed{\frac12}.")   "\frac12"
    answer_in("the largest n is 34")             "34"

How two answers are compared: `_clean` brings both to one spelling, `_build` splits them into lists, tuples, intervals, equations and
inequalities, and what is left, expressions, is compared by value: `_Reader` computes each at a few fixed points, exactly where it is
rational and with 50 digits elsewhere. Two different formulas that agree to 30 digits at every point are not to be feared in an answer.

Rules where public graders disagree:
- percent, degrees, currency and units, any words after a number, are left out: 10\% equals 10 and not 0.1; 5 cm equals 5 and 5 feet.
- a comma is never a decimal point: 1,22 is a list. "1,000" is a thousand, "1, 000" and "(1,000)" are a list and a pair.
- a list and a set are the same, in any order; a tuple is neither: 1,3 is not (1,3). Repeats do not count.
- (a,b) may be a point or an open interval; [a,b) is an interval; a < x < b and x \in (a,b) are the interval, whatever x is called.
- "x = 5" equals 5, for any name x (f(x), |AB|, A:B, (x,y), a_1), but not "y = 5". "a + 3z = 0" does not equal 0. Two equations, or
  inequalities, are equal if one is a (positive) multiple of the other. Of a chain "x = 2+3 = 5" the ends count; what follows \approx does not.
- a decimal equals an exact value that rounds to it if it has four significant digits or more: 0.3333 is 1/3, 0.33 is not.
- the base belongs to a number: 2516_8 is neither 2516 nor 1358. log is to base ten. f, g, h, F, G, H, P, Q, W before "(" are functions.
- a ratio is its two numbers: 7:32 is not 14:64. Words are compared without case, letters with it. An empty answer equals nothing.
"""

import math
import random
import re
from fractions import Fraction
from functools import cache, lru_cache
from operator import add, mul, sub, truediv
from typing import NamedTuple

# Bounds that keep every call short.
_MOST_CHARS = 2000  # longer answers are compared as text
_MOST_PARTS = 60  # so are those with more commas, signs of equality and the like
_MOST_BITS = 10_000  # of an exact number; 50 digits would not tell 2^{99999} from 2^{99999} + 1
_LARGEST = 10**6  # exponent, or argument of a function
_MOST_CELLS = 400  # of a product of matrices
_MOST_FREE_TEXT = 20_000  # how far back answer_in looks

# ---------------------------------------------------------------------------------------------- reading a response

ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_SAID = re.compile(r"(?:the (?:final |correct )?answer is|答案是)[ :：]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|。|\.\s+(?=[A-Z])")


def extract_answer(text: str) -> str | None:
    r"""The final answer a response gives, or None: the last <answer> block, else the last \boxed{}, else what follows the last
    "#### ", else the last "the answer is". Where there is a </think>, only what comes after it counts; thinking that never ends has none,
    unless an <answer> ends it.

    Boxes that one statement joins are one list: "\boxed{1} and \boxed{2}" gives "1, 2". An unbalanced box gives None.
    """
    text = after_thinking(text)
    if found := ANSWER_BLOCK.findall(text):
        return _SAID.split(found[-1])[-1].strip().rstrip("。").removesuffix(".").strip() or None  # a summary may say it in a sentence
    if "\\boxed{" in text:
        return _boxed(text)
    if "#### " in text:
        return text.rpartition("#### ")[2].split("\n")[0].strip() or None
    *before, said = _SAID.split(text)
    return _SENTENCE_END.split(said)[0].strip().removesuffix(".").strip() or None if before else None


def after_thinking(text: str) -> str:
    """What counts of a response: all of it if there is no thinking, "" if the thinking never ends."""
    if "<think>" in text and "</think>" not in text:
        return text[text.find("<answer>") :] if "<answer>" in text else ""
    return text.rpartition("</think>")[2]


def _boxed(text: str) -> str | None:
    boxes, end = [], 0
    while (start := text.find("\\boxed{", end)) >= 0:
        between, begin = text[end:start], start + len("\\boxed{")
        end = _closing(text, begin - 1) + 1
        if not end:
            return None
        if not _joins(between):
            boxes.clear()
        boxes.append(text[begin : end - 1].strip())
    return ", ".join(dict.fromkeys(filter(None, boxes))) or None


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at start closes, or -1. Any closing bracket closes any opening one: [0,1) is balanced."""
    openers, closers = ("{", "}") if text[start] == "{" else ("([{", ")]}")
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in openers) - (text[i] in closers)
        if depth == 0:
            return i
    return -1


def _joins(between: str) -> bool:
    """Whether the text between two boxes makes them parts of one answer: short, within a sentence, "and", a comma or no word at all."""
    plain = re.sub(r"\\[a-zA-Z]+|\\.", " ", between)
    return len(between) <= 60 and not re.search(r"[.\n]", between.strip()) and bool(re.search(r",|\b(?:and|or)\b|^[^\w=]*$", plain))


_MATH = re.compile(
    r"(?<!\\)\$\$?([^$]+)\$\$?|\\\(((?:(?!\\\().)*?)\\\)|\\\[((?:(?!\\\[).)*?)\\\]|(?<![\w.])(-?(?:\d[\d,]*)?\.?\d+(?:/\d+)?%?)", re.DOTALL)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def answer_in(text: str) -> str:
    r"""The answer in free text, for what extract_answer finds nothing in: the last mathematics between $...$, \(...\) or \[...\], or the
    last number where that comes later. A text of fewer than three words is itself the answer. "" if thinking or a box is left open.
    """
    if "\\boxed{" in text:
        return ""
    text = after_thinking(text)[-_MOST_FREE_TEXT:].strip()
    found = list(_MATH.finditer(text))
    delimited = any(m[4] is None for m in found)
    if found and (delimited or len(_PROSE.findall(text)) >= 3):
        return next(filter(None, found[-1].groups()), "").strip()
    return text


# ---------------------------------------------------------------------------------------------- one spelling

_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "²": "^2 ", "³": "^3 ", "√": "\\sqrt ", "，": ",", "；": ";", "：": ":", "（": "(", "）": ")"}
    | dict.fromkeys("°€£¥$~\n", " "))
_COMMANDS = {name: symbol for symbol, names in {
    "≤": "le leq leqslant", "≥": "ge geq geqslant", "<": "lt", ">": "gt", "≠": "ne neq", "≈": "approx", "∪": "cup", "∈": "in", "∞": "infty", "±": "pm",
    "∓": "mp", "π": "pi", "*": "cdot times ast", "/": "div", ":": "colon", "(": "langle", ")": "rangle", "{": "lbrace", "}": "rbrace",
    "|": "lvert rvert vert mid", "\\frac": "dfrac tfrac cfrac", "\\binom": "dbinom tbinom", ",": "land lor", "∅": "emptyset varnothing",
    "": "boxed left right displaystyle textstyle limits big Big bigl bigr Bigl Bigr circ degree"}.items() for name in names.split()}
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf|bb|cal)|mbox|hbox|operatorname)\s*\{([^{}]*)\}")
_LETTER_UNIT = re.compile(r"(?<=[0-9}])\s*\\(?:text|mbox|mathrm)\s*\{\s*(?![ei]\b)[A-Za-z](?:/[A-Za-z]+)?\s*\}(?:\s*\^\s*\{?[23]\}?)?(?=[\s.$]*$)")
_LATEX = [(re.compile(pattern), new) for pattern, new in (
    (r"\\\\", " ↵ "),  # a new row of a matrix
    (r"\\begin\s*\{\w*(?:matrix|array)\}(?:\s*\{[lcr| ]*\})?", "⟦"),
    (r"\\end\s*\{\w*(?:matrix|array)\}", "⟧"),
    (r"\\q?quad", " "),
    (r"\\(?:left|right)\s*\.", ""),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", ""),  # degrees
    (r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!|\\[,; ])\s*(?=[0-9]{3}(?![0-9]))", ""),  # thousands
    (r"\\[!,;: ]|\\?%|\\\$|\\[()\[\]]", " "),
    (r"\\([{}|])", r"\1"))]
_PLAIN = [(re.compile(pattern), new) for pattern, new in (
    (r"<=|=<", "≤"),
    (r">=", "≥"),
    (r"!=", "≠"),
    (r"==", "="),
    (r"\*\*", "^"),
    (r"\bpi\b", "π"),
    (r"\b(?:oo|infinity)\b", "∞"),
    (r"(?<![A-Za-z\\])(?:and|or)(?![a-z])", ","),
    (r"(?<=[0-9} ])(?:percent(?:age)?|pct)\b", " "),
    (r"\^\s*\{?\s*(?:th|st|nd|rd)\b\s*\}?", " "),  # 12th
    (r"(?<=:[0-9]{2})\s*([AaPp])\.?[Mm]\b\.?", lambda m: f":{m[1].lower()}"),  # 12:00 pm
    (r"\\frac\s*([0-9])", r"\\frac{\1}"),  # \frac12
    (r"(\\frac\s*\{[^{}]*\})\s*([0-9])", r"\1{\2}"),
    (r"[\s.。]+$", ""))]
_MIXED = re.compile(r"(?<![\w^.}/])([0-9]+)(?:\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|\s+([0-9]+)/([0-9]+)(?![\w/]))")
_THOUSANDS = re.compile(r"(?<![\w.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")


def _clean(text: str) -> str:
    r"""One spelling: one symbol for each relation, plain text for \text{}; no delimiters, spacing, signs of units or thousands."""
    if "\\begin" not in text or not re.search(r"(?<!\\)\\[A-Za-z]", text):  # doubled backslashes that start no row of a matrix
        text = re.sub(r"\\\\(?=[A-Za-z{}()\[\]\\!,;%$])", r"\\", text)
    text = _LETTER_UNIT.sub("", text)
    for _ in range(2):  # one \text may stand in another
        text = _TEXT.sub(r" \1 ", text)
    for pattern, new in _LATEX:
        text = pattern.sub(new, text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: _COMMANDS.get(m[1], m[0]), text.translate(_CHARACTERS))
    for pattern, new in _PLAIN:
        text = pattern.sub(new, text)
    text = _MIXED.sub(_mixed, text)
    return text.strip() if re.search(r"[(\[{]", text) else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text).strip()


def _mixed(match: re.Match) -> str:
    whole, top, bottom = match[1], match[2] or match[4], match[3] or match[5]
    return f"({whole}+{top}/{bottom})" if len(top) <= len(bottom) < 100 and int(top) < int(bottom) else match[0]


_WORD = r"(?=[A-Za-z]*[AEIOUaeiou])[A-Za-z]{3,}"  # three letters with a vowel; fewer are a product of variables


def _squash(text: str) -> str:
    """Without white space, except between two numbers; words also without case."""
    words = re.findall(r"[A-Za-z]+", text) if re.fullmatch(r"[A-Za-z\s,.'()-]+", text) else []
    wordy = words and all(len(w) > 1 for w in words) and any(w.istitle() or re.fullmatch(_WORD, w) for w in words)
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)
    return text.casefold() if wordy else text


# ---------------------------------------------------------------------------------------------- structure


class _Node(NamedTuple):
    kind: str  # "expr", "list", "union", "ratio", "=", "<" or the two brackets of a tuple or an interval
    parts: tuple  # of nodes; of an "expr" its text; of "=" the two texts and the value; of "<" the pairs and the interval


_NAME = r"\\?[A-Za-z]+(?:\s*_\s*(?:\w|\{[^{}]*\}))?'*(?:\([^()=]*\))?"
_NAMED = re.compile(rf"\s*(?:(?:\\angle|\\triangle)?\s*{_NAME}(?:\s+[A-Za-z]+)*|\|{_NAME}\||{_NAME}\s*[:/]\s*{_NAME}|"
                    rf"\\frac\s*\{{\s*{_NAME}\s*\}}\s*\{{\s*{_NAME}\s*\}}|\({_NAME}(?:\s*,\s*{_NAME})*\))\s*")
_SHORT = r"(?:cm|mm|km|kg|mg|ft|in|lbs?|oz|hrs?|ml|mL|mi|yd|mph|sq|cu)\b\.?"
_LONG = rf"(?!(?:a?sin|a?cos|a?tan|cot|sec|csc|arc\w+|log|abs|exp)\b)(?:{_WORD}\b\.?|{_SHORT})"
_UNIT = re.compile(rf"(?<=[0-9}})π])(?:\s+{_LONG}(?:[\s/]+{_LONG})*|{_SHORT}|\s*[\u4e00-\u9fff]+)(?:\s*\^\s*(?:[23]|\{{\s*[23]\s*\}}))?\s*$")


def _split(text: str, marks: str) -> tuple[list[str], list[str]]:
    """The parts of text between the marks that stand outside all brackets, and these marks."""
    parts, seen, depth, begin = [], [], 0, 0
    for i, c in enumerate(text):
        depth = max(0, depth + (c in "([{") - (c in ")]}"))
        if c in marks and not depth:
            parts.append(text[begin:i])
            seen.append(c)
            begin = i + 1
    return [*parts, text[begin:]], seen


def _build(text: str) -> _Node:
    text = text.strip()
    while text.startswith("{") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    groups = [g for g in _split(text, ";")[0] if g.strip()]
    if len(groups) > 1:
        return _list([_solution(_build(g)) for g in groups])
    items = [i for i in _split(text, ",")[0] if i.strip()]
    if len(items) > 1:
        return _list([_build(i) for i in items])
    if "±" in text or "∓" in text:
        return _list([_build(text.translate(str.maketrans("±∓", signs))) for signs in ("+-", "-+")])
    parts, marks = _split(text, "=≈<>≤≥≠∈")
    if marks:
        return _relation(parts, marks)
    pieces = _split(text, "∪")[0]
    if len(pieces) > 1:
        return _Node("union", tuple(map(_build, pieces)))
    if text[:1] in ("(", "[") and _closing(text, 0) == len(text) - 1:
        inner = _split(text[1:-1], ",;")[0]
        if len(inner) > 1:
            return _Node(text[0] + text[-1], tuple(map(_build, inner)))
    ratio = _split(text, ":")[0]
    if len(ratio) > 1:
        return _Node("ratio", tuple(map(_build, ratio)))
    return _Node("expr", (_UNIT.sub("", text),))


def _list(nodes: list[_Node]) -> _Node:
    return _Node("list", tuple(n for node in nodes for n in (node.parts if node.kind == "list" else [node])))


def _solution(group: _Node) -> _Node:
    """One of several solutions "p=5,q=2; p=7,q=2": the tuple of its values."""
    if group.kind == "list" and all(n.kind == "=" for n in group.parts):
        return _Node("()", tuple(n.parts[2] or n for n in group.parts))
    return group


def _relation(parts: list[str], marks: list[str]) -> _Node:
    if "∈" in marks:
        return _build(parts[-1])
    if "≈" in marks:
        cut = marks.index("≈")
        if "=" in marks[:cut]:
            parts, marks = parts[: cut + 1], marks[:cut]
        marks = ["=" if m == "≈" else m for m in marks]
    if set(marks) == {"="}:
        first, last = parts[0].strip(), parts[-1].strip()
        has_value = len(parts) > 2 or _NAMED.fullmatch(first) or (_constant(first) and _constant(last))
        return _Node("=", (first, last, _build(last) if has_value else None))
    pairs = [(b, a, "<≤"[m == "≥"]) if m in ">≥" else (a, b, m) for a, b, m in zip(parts, parts[1:], marks)]
    return _Node("<", (tuple(pairs), _interval(pairs)))


def _interval(pairs: list[tuple[str, str, str]]) -> _Node | None:
    """The interval that an inequality in one name says, or None: 1 < x ≤ 2 is (1,2]; x > 1 is (1,∞)."""
    opening, low, high, closing, names = "(", "", "", ")", set()
    for a, b, mark in pairs:
        if mark in "<≤" and _constant(a) and _NAMED.fullmatch(b):
            opening, low, name = "(["[mark == "≤"], a, b
        elif mark in "<≤" and _constant(b) and _NAMED.fullmatch(a):
            name, high, closing = a, b, ")]"[mark == "≤"]
        else:
            return None
        names.add(name.strip())
    one_interval = len(names) == 1 and "|" not in name and len(pairs) == bool(low) + bool(high)
    return _Node(opening + closing, (_build(low or "-∞"), _build(high or "∞"))) if one_interval else None


# ---------------------------------------------------------------------------------------------- comparing


def math_equal(pred: str, gold: str) -> bool:
    """Whether two answers are the same, by the rules in this module's docstring."""
    if max(len(pred), len(gold)) > _MOST_CHARS:
        return "".join(pred.split()) == "".join(gold.split())
    a, b = _clean(pred), _clean(gold)
    if not a or not b:
        return False
    if _squash(a) == _squash(b):
        return True
    if _DECIMAL.fullmatch(a) and _DECIMAL.fullmatch(b):
        return Fraction(a) == Fraction(b)
    if max(len(re.findall("[,;:∪=<>≤≥≠]", text)) for text in (a, b)) > _MOST_PARTS:
        return False
    try:
        return _same(_build(a), _build(b))
    except RecursionError:  # nested too deeply
        return False


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def _same(a: _Node, b: _Node) -> bool:
    if a.kind == b.kind == "=":
        return _same_equation(a.parts, b.parts)
    if a.kind == b.kind == "<":
        return _match(a.parts[0], b.parts[0], lambda p, q: p[2] == q[2] and _proportional(p, q, signed=p[2] in "<≤"))
    a, b = (n.parts[-1] if n.kind in ("=", "<") else n for n in (a, b))
    if a is None or b is None or a.kind != b.kind:
        return False
    if a.kind == "expr":
        return _same_expression(a.parts[0], b.parts[0])
    if a.kind in ("list", "union"):
        return _match(a.parts, b.parts, _same)
    return len(a.parts) == len(b.parts) and all(map(_same, a.parts, b.parts))


def _match(these: tuple, those: tuple, same) -> bool:
    """Whether two collections hold the same things, in any order and however often."""
    table = [[same(a, b) for b in those] for a in these]  # every pair once, or nested lists would take exponential time
    return all(map(any, table)) and all(map(any, zip(*table)))


def _same_equation(a: tuple, b: tuple) -> bool:
    if _squash(a[0]) == _squash(b[0]):
        return _same(a[2] or _build(a[1]), b[2] or _build(b[1]))
    return _proportional(a, b, signed=False)


_POINTS = range(8)
_POSITIVE = _POINTS[:4]  # every variable is positive there


def _proportional(a: tuple, b: tuple, signed: bool) -> bool:
    """Whether left - right of one relation is a constant multiple (signed: a positive one) of that of the other."""
    ratios = []
    for p in _POSITIVE:
        x, y = (_value(f"({right})-({left})", p) for left, right, *_ in (a, b))
        if x is None or y is None or x.shape or y.shape or not (x.varies or y.varies) or _close(y.entries[0], Fraction(0)):
            return False
        ratios.append(_apply(truediv, x.entries[0], y.entries[0]))
        if not _close(ratios[0], ratios[-1]) or _close(ratios[0], Fraction(0)):
            return False
    return not signed or _mp(ratios[0]).real > 0


def _same_expression(a: str, b: str) -> bool:
    if _squash(a) == _squash(b):
        return True
    for p in _POINTS:
        x, y = _value(a, p), _value(b, p)
        if x is None or y is None or x.shape != y.shape:
            return False
        if p not in _POSITIVE and (x.is_complex() or y.is_complex()):  # outside the domain, such as the root of a negative variable
            continue
        if not all(map(_close, x.entries, y.entries)):
            return _rounds_to(a, x, b, y) or _rounds_to(b, y, a, x)
        if not (x.varies or y.varies):
            return True
    return True


def _rounds_to(decimal: str, value: "_Value", exact: str, other: "_Value") -> bool:
    """Whether a decimal of four significant digits or more is the rounded value of something that is not a decimal."""
    decimal, exact = decimal.strip(), exact.strip()
    digits = decimal.lstrip("+-0.").replace(".", "")
    if len(digits) < 4 or "." not in decimal or not _DECIMAL.fullmatch(decimal) or _DECIMAL.fullmatch(exact) or other.varies or other.shape:
        return False
    return abs(_mp(value.entries[0]) - _mp(other.entries[0])) <= _mp(Fraction(1, 2 * 10 ** len(decimal.partition(".")[2])))


# ---------------------------------------------------------------------------------------------- values


class _Value(NamedTuple):
    entries: tuple  # one number, or those of a matrix
    shape: tuple  # (rows, columns) of a matrix, else ()
    varies: bool  # whether a variable takes part

    def is_complex(self) -> bool:
        return any(not isinstance(x, Fraction) and abs(x.imag) > 1e-30 for x in self.entries)


@lru_cache(maxsize=4096)
def _value(text: str, point: int) -> _Value | None:
    """What an expression is at a point, or None if it has no finite value there or cannot be read."""
    reader = _Reader(text, point)
    try:
        value = reader.sum()
    except (ValueError, ArithmeticError, IndexError, TypeError, RecursionError):
        return None
    shape = (value.rows, value.cols) if hasattr(value, "rows") else ()
    entries = tuple(value) if shape else (value,)
    finite = all(isinstance(x, Fraction) or _mpmath().isfinite(x) for x in entries)
    return _Value(entries, shape, reader.varies) if finite and not reader.tokens else None


def _constant(text: str) -> bool:
    value = _value(text, 0)
    return value is not None and not value.varies


@lru_cache(maxsize=4096)
def _sample(name: str, point: int) -> Fraction:
    """What a variable stands for at a point: an arbitrary rational, below 1 at some points, for e^{99x} + 1, and up to 30 at others, for |x - 9|."""
    rng = random.Random(f"{name} {point}")
    return Fraction(rng.randint(10, 999) * (1 if point in _POSITIVE else rng.choice((-1, 1))), (1009, 101, 101, 31)[point % 4])


@cache
def _mpmath():
    """A context of our own: 50 digits, whatever others do with mpmath.mp. Imported late, as plain numbers do without it."""
    from mpmath import MPContext

    context = MPContext()
    context.dps = 50
    return context


def _mp(x):
    return _mpmath().mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _close(x, y) -> bool:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x == y
    x, y = _mp(x), _mp(y)
    return bool(abs(x - y) <= max(1e-40, 1e-30 * max(abs(x), abs(y))))


def _bounded(x: Fraction) -> Fraction:
    if max(x.numerator.bit_length(), x.denominator.bit_length()) > _MOST_BITS:
        raise ValueError("a long number")
    return x


def _apply(operation, x, y):
    """x + y and the like: exactly on fractions, otherwise with 50 digits or on mpmath's matrices."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return _bounded(operation(x, y))
    if hasattr(x, "rows") and hasattr(y, "rows") and x.rows * y.cols > _MOST_CELLS:
        raise ValueError("a large matrix")
    return operation(_mp(x), _mp(y))


def _power(x, y):
    if hasattr(x, "rows") or hasattr(y, "rows"):
        raise ValueError("a power of a matrix")
    if isinstance(x, Fraction) and isinstance(y, Fraction) and y.denominator == 1:
        if abs(y) * max(x.numerator.bit_length(), x.denominator.bit_length()) > _MOST_BITS:
            raise ValueError("a huge power")
        return x ** int(y)
    context, base, exponent = _mpmath(), _mp(x), _mp(y)
    if base == 0 and exponent.real > 0:
        return Fraction(0)
    if abs(exponent) > _LARGEST or abs(context.mag(base)) > _LARGEST:
        raise ValueError("a huge power")
    if isinstance(y, Fraction) and y.denominator % 2 and base.imag == 0 and base.real < 0:  # the real root
        return (-1) ** y.numerator * context.power(-base.real, exponent)
    return context.power(base, exponent)


_FUNCTIONS = {name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp", "ln", "asin", "acos", "atan")}
_FUNCTIONS |= {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "log": "ln", "lg": "ln"}
_TOKEN = re.compile(r"\\[A-Za-z]+|[0-9]+_(?:[0-9A-Za-z]|\{\s*\w+\s*\})|[0-9]+\.?[0-9]*|\.[0-9]+|"
                    rf"{'|'.join(sorted(_FUNCTIONS, key=len, reverse=True))}|sqrt|abs|{_WORD}|\S")
_CONSTANTS = {"π": lambda: +_mpmath().pi, "e": lambda: +_mpmath().e, "i": lambda: _mpmath().mpc(0, 1), "∞": lambda: _sample("∞", 0)}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class _Reader:
    """Recursive descent: sum, product, sign, power, atom. The tokens are in reverse, the next one is the last."""

    def __init__(self, text: str, point: int):
        self.tokens, self.point, self.varies, self.bars = _TOKEN.findall(text)[::-1], point, False, 0

    def next(self) -> str:
        return self.tokens[-1] if self.tokens else " "

    def take(self, wanted: str) -> bool:
        if found := self.next() == wanted:
            self.tokens.pop()
        return found

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise ValueError(f"{wanted} is missing")

    def sum(self):
        value = self.product()
        while self.next() in "+-":
            operation = add if self.tokens.pop() == "+" else sub
            value = _apply(operation, value, self.product())
        return value

    def product(self):
        value = self.signed()
        while self.next() in "*/" or self.starts_factor():
            operation = truediv if self.take("/") else mul
            self.take("*")
            value = _apply(operation, value, self.signed())
        return value

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign. A second number does not: "1 2" is no product."""
        return bool(re.match(r"[A-Za-z\\(\[{⟦∞π]", self.next())) or (self.next() == "|" and not self.bars)

    def signed(self):
        if self.next() in "+-":
            return -self.signed() if self.tokens.pop() == "-" else self.signed()
        return self.power()

    def power(self):
        value = self.atom()
        while self.take("!"):
            value = self.counted("!", math.factorial, value)
        return _power(value, self.signed()) if self.take("^") else value

    def atom(self):
        token = self.tokens.pop()
        name = token.lstrip("\\")
        if token in _CLOSERS:
            return self.until(_CLOSERS[token])
        if token == "|":
            self.bars += 1
            value = self.sum()
            self.bars -= 1
            self.need("|")
            return abs(value)
        if token == "⟦":
            return self.matrix()
        if token[0] in "0123456789.":
            return Fraction(token) if "_" not in token else self.variable(re.sub(r"[{}\s]", "", token))
        if token in _CONSTANTS:
            return _CONSTANTS[token]()
        if name == "frac":
            return _apply(truediv, self.atom(), self.atom())
        if name == "sqrt":
            index = self.until("]") if self.take("[") else Fraction(2)
            return _power(self.atom(), _apply(truediv, Fraction(1), index))
        if name == "binom":
            return self.counted("binom", math.comb, self.atom(), self.atom())
        if name == "abs":
            return abs(self.atom())
        if name in _FUNCTIONS:
            return self.function(name)
        if not name.isalpha():
            raise ValueError(f"{token} is no factor")
        return self.variable(name)  # so is an unknown command: \sum_{k=0}^{n} F_k is a product of powers of two variables

    def until(self, closer: str):
        value = self.sum()
        self.need(closer)
        return value

    def variable(self, name: str):
        if self.take("_"):
            name += "_" + self.subscript()
        while self.take("'"):
            name += "'"
        if re.fullmatch(r"[fghFGHPQW](?:_.+)?'*", name) and self.take("("):
            arguments = [self.sum()]
            while self.take(","):
                arguments.append(self.sum())
            self.need(")")
            return self.unknown(name, *arguments)
        self.varies = True
        return _sample(name.casefold() if re.fullmatch(_WORD, name) else name, self.point)

    def subscript(self) -> str:
        text = self.tokens.pop()
        while text.count("{") > text.count("}"):
            text += self.tokens.pop()
        return text.strip("{}")

    def function(self, name: str):
        base = self.atom() if name == "log" and self.take("_") else Fraction(10)
        power = self.signed() if self.take("^") else Fraction(1)
        value = self.call(_FUNCTIONS[name], self.argument())
        return _power(_apply(truediv, value, self.call("ln", base)) if name in ("log", "lg") else value, power)

    def argument(self):
        """What a function applies to; without brackets that is a product: sin 2x cos y is sin(2x) cos(y)."""
        bracketed = self.next() in _CLOSERS
        value = self.signed()
        while not bracketed and self.starts_factor() and self.next().lstrip("\\") not in _FUNCTIONS and self.next() != "(":
            value = _apply(mul, value, self.power())
        return value

    def call(self, function: str, value):
        if function != "ln" and abs(_mp(value)) > _LARGEST:
            raise ValueError("a huge argument")
        return getattr(_mpmath(), function)(_mp(value))

    def counted(self, name: str, function, *arguments):
        """A function of whole numbers; of others it is an unknown one."""
        if all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= 1000 for x in arguments):
            return _bounded(Fraction(function(*map(int, arguments))))
        return self.unknown(name, *arguments)

    def unknown(self, name: str, *arguments):
        """The value of an unknown function: any fixed function that depends on all its arguments will do."""
        self.varies = True
        angle = _sample(name, self.point)
        for i, x in enumerate(arguments):
            angle = _apply(add, angle, _apply(mul, _sample(f"{name} {i}", self.point), x))
        return self.call("sin", angle)

    def matrix(self):
        rows = [[]]
        while not self.take("⟧"):
            if self.take("↵"):
                rows.append([])
            elif not self.take("&"):
                rows[-1].append(_mp(self.sum()))
        return _mpmath().matrix([row for row in rows if row])
