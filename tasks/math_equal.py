r"""Are two mathematical answers the same? Reads LaTeX and plain text.

    math_equal(r"\frac{1}{2}", "0.5")   True

It never evaluates text as code, raises or hangs. `_clean` writes both answers in one spelling,
`_build` splits them into lists, tuples, intervals and relations. Expressions are compared by value:
`_Reader` computes them at a few fixed points, exactly if rational, else with 50 digits.

Rules where public graders disagree:
- percent, degrees, currency, units and other words after a number may be left out: 10\% equals 10
  and not 0.1; 5 cm equals 5. Where both answers name units, they must agree: 5 cm is not 5 feet.
  Words that change the value count, 3 million is 3000000, or make it unreadable: 5 less than 7.
- a comma is never a decimal point: 1,22 is a list. "1,000" is a thousand, "1, 000" and "(1,000)"
  are a list and a pair.
- a list is a set of solutions, in any order and without repeats, unless the gold is a bare row of
  three or more expressions, "1, 3, 5": this is a sequence, and {1,3,5}, "1, 3 and 5" and "x = 1, 3,
  5" are sets. A tuple is neither: 1,3 is not (1,3). A ratio is its two numbers: 7:32 is not 14:64.
- (a,b) may be a point or an open interval; [a,b) is an interval; a < x < b and x \in (a,b) are the
  interval, whatever x is called.
- "x = 5" equals 5, for any name x (f(x), |AB|, A:B, (x,y), a_1), but not "y = 5". "a + 3z = 0"
  does not equal 0. Two equations, or inequalities, are equal if one is a (positive) multiple of the
  other. Of a chain "x = 2+3 = 5" the ends count; what follows \approx does not.
- a decimal of four or more significant digits equals what rounds to it: 1/3 is 0.3333, not 0.33.
- the base belongs to a number: 2516_8 is neither 2516 nor 1358. log is to base ten. f, g, h, F, G,
  H, P, Q, W before "(" are functions. Words are compared without case, letters with it, and rows of
  capitals as they are: HHT is not HTH. No answer equals an empty one.
"""

import math
import random
import re
import unicodedata
from fractions import Fraction
from functools import cache, lru_cache
from operator import add, mul, sub, truediv
from typing import NamedTuple

from tasks.answers import AMOUNT, CHANGING, LETTER, MEASURES, SCALES, closing_bracket

# Limits that keep every call short.
_MAX_CHARS = 1000  # longer answers are compared as text
_MAX_PARTS = 30  # of commas, signs of equality and the like; answers with more are compared as text
_MAX_BITS = 10_000  # of an exact number; 50 digits would not tell 2^{99999} from 2^{99999} + 1
_MAX_SIZE = 10**6  # exponent, or argument of a function
_MAX_CELLS = 400  # of a product of matrices

# ------------------------------------------------------------------------------ one spelling
_CHARACTERS = str.maketrans("−–×·⋅÷⁄、°€£¥$~\n", "--***//," + " " * 7) | {ord("√"): "\\sqrt "}
# A symbol and the LaTeX commands that become it; the last ones are left out.
_SYMBOLS = r"""
≤ le leq leqslant; ≥ ge geq geqslant; < lt; > gt; ≠ ne neq; ≈ approx; ∪ cup; ∈ in; ∞ infty; ± pm;
∓ mp; π pi; * cdot times ast; / div; : colon; ( langle; ) rangle; { lbrace; } rbrace; ∧ land lor;
| lvert rvert vert mid; \binom dbinom tbinom; ∅ emptyset varnothing;
\frac dfrac tfrac cfrac nicefrac sfrac"""
_DROPPED = """boxed fbox left right displaystyle textstyle limits circ degree big Big bigl bigr Bigl
Bigr underline boldsymbol bm mathbf mathrm mathit text"""
_COMMANDS = dict.fromkeys(_DROPPED.split(), "")
_COMMANDS |= {n: sym for sym, *names in map(str.split, _SYMBOLS.split(";")) for n in names}

_BOX = r"text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf|bb|cal)|mbox|hbox|operatorname"
_TEXT = rf"\\(?:{_BOX})\s*\{{([^{{}}]*)\}}"
_LETTER_UNIT = (  # 3\text{ m}^2
    r"(?<=[0-9}])(?:\s|~|\\[ ,;])*\\(?:text|mbox|mathrm)\s*"
    r"\{[\s~]*(?![ei]\b)([A-Za-z](?:/[A-Za-z])?)\s*\}(?=(?:\s*\^\s*\{?[23]\}?)?[\s.$]*$)"
)
_LETTERS = {"m": "metre", "g": "gram", "s": "second", "h": "hour", "m/s": "metre/second"}
_DEGREE = r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°)"
_REPEATING = (
    r"(?<!\d)(\d{0,30})\.(\d{0,30})(?:\\(?:overline|bar|dot)\s*\{(\d{1,30})\}|\((\d{1,30})\))"
)


def _repeating(match: re.Match) -> str:
    r"""The fraction that a repeating decimal such as 0.1\overline{6} is."""
    once, again = match[1] + match[2], match[3] or match[4]
    top, bottom = int(once + again) - int(once or 0), 10 ** len(again) - 1
    return f"\\frac{{{top}}}{{{bottom * 10 ** len(match[2])}}}"


_LATEX = [
    (_REPEATING, _repeating),
    ("[০-৯]", lambda m: str(int(m[0]))),
    (r"[⁰¹²³⁴-⁹]+", lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}} "),
    (r"\\(?:text)?color(?:box)?\s*\{[^{}]*\}", ""),
    (r"\s*\}\s*/\s*\\(?:text|mathrm)\s*\{[\s~]*(?=[hs]\s*\})", "/"),  # \mathrm{~m} / \mathrm{s}
    (r"\bkm\s*/\s*h\b", "km/hour"),
    (_LETTER_UNIT, lambda m: " " + _LETTERS.get(m[1], "unit" + m[1].replace("/", ""))),
    *[(_TEXT, r" \1 ")] * 2,  # one \text may stand in another
    (r"\\\\", " ↵ "),  # a new row of a matrix
    (r"\\begin\s*\{(?:[pbB]?matrix|array)\}(?:\s*\{[lcr| ]*\})?", "⟦"),
    (r"\\end\s*\{(?:[pbB]?matrix|array)\}", "⟧"),
    (r"\\q?quad", " "),
    (r"\\(?:left|right)\s*\.", ""),
    (rf"(?:{_DEGREE}\s*([CF])|℃)(?![A-Za-z])", r" degrees degree\1"),
    (_DEGREE, " "),
    (r"(?:\bUS\s*\\\$|\bUSD)\s*(?=[0-9])", r"\\$"),
    (r"(?:^|\{)([^{}]*)\\over(?![A-Za-z])([^{}]*)(?:$|\})", r"\\frac{\1}{\2}"),
    (r"\\not\s*=", "≠"),
    (r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!|\\[,; ])\s*(?=[0-9]{3}(?![0-9]))", ""),  # thousands
    *[(rf"(?<=[0-9)}}])[\s$]*({AMOUNT})s?(?![A-Za-z])", lambda m: SCALES.get(m[1], m[0]))] * 2,
    (r"(\\\$|[€£¥])\s*([0-9][0-9,.*]*)", lambda m: f"{m[2]} {MEASURES[m[1]]} "),
    (r"\\?%(?=[\s.]*$)", " percent"),
    (r"\\[!,;: ]|\\?%|\\\$|\\[()\[\]]", " "),
    (r"\\([{}|])", r"\1"),
]


def _mixed(match: re.Match) -> str:
    r"""The sum that a mixed number such as 1\frac{4}{5} is."""
    whole, top, bottom = match.groups()
    proper = len(top) <= len(bottom) < 100 and int(top) < int(bottom)
    return f"({whole}+{top}/{bottom})" if proper else match[0]


_OPERATORS = r"<=|=< ≤ >= ≥ != ≠ == = \*\* ^ \bpi\b π \b(?:oo|infinity)\b ∞".split()
_PLAIN = [
    (r"\\([A-Za-z]+)", lambda m: _COMMANDS.get(m[1], m[0])),
    *zip(_OPERATORS[::2], _OPERATORS[1::2]),
    (r"(?:,\s*)?(?<![A-Za-z\\])(?:and|or)(?![a-z])", "∧"),  # joins a set
    (r"(?<=[0-9])\s*x\s*(?=10\s*\^)", "*"),  # 3 x 10^8
    (r"\^\s*\{?\s*(?:th|st|nd|rd)\b\s*\}?", " "),  # 12^{th}
    (r"(?:(?<=1)st|(?<=2)nd|(?<=3)rd|(?<=[0-9])\s*th)\b", " "),  # 12th
    (r"^[\s=≈]+", ""),
    (r"(?<=:[0-9]{2})\s*([AaPp])\.?[Mm]\b\.?", lambda m: f":{m[1].lower()}"),  # 12:00 pm
    (r"\\frac\s*([0-9])", r"\\frac{\1}"),  # \frac12
    (r"(\\frac\s*\{[^{}]*\})\s*([0-9])", r"\1{\2}"),
    (r"[\s.。]+$", ""),
    (r"(?<![\w^.}/])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}", _mixed),
    (r"(?<![\w^.}/])([0-9]+)\s+([0-9]+)/([0-9]+)(?![\w/])", _mixed),
]
_THOUSANDS = re.compile(r"(?<![\w.,])[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?! ?[/0-9,])")
_WORD = r"(?=[A-Za-z]*[AEIOUaeiou])[A-Za-z]{3,}"  # with a vowel; shorter is a product of variables


def _clean(text: str) -> str:
    r"""One spelling: no delimiters, spacing, \text{}, signs of units, or commas of thousands."""
    if "\\begin" not in text or not re.search(r"(?<!\\)\\[A-Za-z]", text):  # "\\" is no new row
        text = re.sub(r"\\\\(?=[A-Za-z{}()\[\]\\!,;%$])", r"\\", text)
    if text.count("$") == 1:  # of money, not of mathematics
        text = re.sub(r"\\?\$", r"\\$", text)
    for pattern, new in _LATEX:
        text = re.sub(pattern, new, text)
    text = re.sub("([¼-¾⅐-⅞])", r" \1", text)  # 1½ is 1 1/2
    text = unicodedata.normalize("NFKC", text).translate(_CHARACTERS)  # also of full width
    for pattern, new in _PLAIN:
        text = re.sub(pattern, new, text)
    if not re.search(r"[(\[{]", text):
        text = _THOUSANDS.sub(lambda m: re.sub("[, ]", "", m[0]), text)
    return " ".join(text.split())


def _squash(text: str) -> str:
    """Without white space, except between two numbers; words also without case."""
    words = re.findall(r"[A-Za-z]+", text) if re.fullmatch(r"[A-Za-z\s,.'()-]+", text) else []
    wordy = any(w.istitle() or re.fullmatch(_WORD, w) for w in words)
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)
    return text.casefold() if wordy and all(len(w) > 1 for w in words) else text


# ------------------------------------------------------------------------------ structure
_NAME = r"\\?[A-Za-z]+(?:\s*_\s*(?:\w|\{[^{}]*\}))?'*(?:\([^()=]*\)|\[[^\[\]=]*\])?"
_SUM = re.compile(rf"\s*{_NAME}(?:\s*\+\s*{_NAME})+\s*")
_NAMED = re.compile(
    rf"\s*(?:(?:\\angle|\\triangle)?\s*{_NAME}(?:\s+[A-Za-z]+|\s*\\[A-Za-z]+)*|\|{_NAME}\|"
    rf"|{_NAME}\s*[:/]\s*{_NAME}|\\frac\s*\{{\s*{_NAME}\s*\}}\s*\{{\s*{_NAME}\s*\}}"
    rf"|\({_NAME}(?:\s*,\s*{_NAME})*\))\s*"
)
_FUNCTION_WORD = r"(?:a?sin|a?cos|a?tan|cot|sec|csc|arc\w+|log|abs|exp)\b"
_UNIT = re.compile(
    rf"(?<=[0-9}})π])(?:\s+(?!{_FUNCTION_WORD})(?:{_WORD}|of)\b\.?|\s*(?:{AMOUNT}|in)s?(?![A-Za-z])\.?"
    rf"|\s*{LETTER})(?:[\s/]+(?:[A-Za-z]{{2,}}|a)\b\.?|{LETTER})*"
    r"(?:\s*\^\s*(?:[23]|\{\s*[23]\s*\}))?\s*$"
)


def _unit(text: str) -> frozenset[str]:
    """The measures and other words of a unit, in plain names and the singular."""
    text = re.sub(r"\^\W*([23])\W*", r" ^\1", text.replace("mph", "miles/hour"))
    words = re.findall(rf"[A-Za-z]+|\^[23]|{LETTER}+", text)
    words = ["inch" if w == "in" and {*words} <= {"in", *MEASURES} else w for w in words]
    singular = (w if w in MEASURES else w.lower().removesuffix("s") for w in words)
    return frozenset(MEASURES.get(w, w) for w in singular)


def _units_agree(a: frozenset, b: frozenset) -> bool:
    """Whether one is empty, or has all words of the other and no measure besides."""
    return not (a and b) or ((a <= b or b <= a) and not (a ^ b) & set(MEASURES.values()))


class _Node(NamedTuple):
    kind: str  # "expr", "list", "row", "union", "ratio", "=", "<", or brackets (tuple, interval)
    parts: tuple  # nodes; "expr": text, unit; "=": left, right, mark, value; "<": triples, interval


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
    text, braced = text.strip(), False
    while text.startswith("{") and closing_bracket(text, 0) == len(text) - 1:
        text, braced = text[1:-1].strip(), True
    for mark in ";", ",∧":
        pieces, marks = _split(text, mark)
        items = [item for item in pieces if item.strip()]
        if len(items) > 1:
            nodes = [_build(item) for item in items]
            row = mark != ";" and not braced and "∧" not in marks and len(nodes) > 2
            if row and all(n.kind == "expr" for n in nodes):
                return _Node("row", tuple(nodes))
            return _list(map(_solution, nodes) if mark == ";" else nodes)
    if "±" in text or "∓" in text:
        return _list(_build(text.translate(str.maketrans("±∓", s))) for s in ("+-", "-+"))
    parts, marks = _split(text, "=≈<>≤≥≠∈")
    if marks:
        return _relation(parts, marks)
    for kind, mark in ("union", "∪"), ("ratio", ":"):
        pieces = _split(text, mark)[0]
        if len(pieces) > 1:
            return _Node(kind, tuple(map(_build, pieces)))
    if text[:1] in ("(", "[") and closing_bracket(text, 0) == len(text) - 1:
        inner = _split(text[1:-1], ",;")[0]
        if len(inner) > 1:
            return _Node(text[0] + text[-1], tuple(map(_build, inner)))
    unit = _UNIT.search(text)
    if unit is None or CHANGING.search(unit[0]):
        return _Node("expr", (text, frozenset()))
    return _Node("expr", (text[: unit.start()], _unit(unit[0])))


def _list(nodes) -> _Node:
    """A list of the nodes; lists among them are joined to it."""
    parts = [n.parts if n.kind in ("list", "row") else (n,) for n in nodes]
    return _Node("list", sum(parts, ()))


def _solution(node: _Node) -> _Node:
    """One of several solutions "p=5,q=2; p=7,q=2": the tuple of its values."""
    if node.kind == "list" and all(n.kind == "=" for n in node.parts):
        return _Node("()", tuple(n.parts[-1] or n for n in node.parts))
    return node


def _relation(parts: list[str], marks: list[str]) -> _Node:
    if "∈" in marks:
        return _build(parts[-1])
    if "≈" in marks:
        cut = marks.index("≈")
        if "=" in marks[:cut]:
            parts, marks = parts[: cut + 1], marks[:cut]
        marks = ["=" if m == "≈" else m for m in marks]
    if set(marks) == {"="}:
        left, right = parts[0].strip(), parts[-1].strip()
        if _constant(left) and _NAMED.fullmatch(right) and not _constant(right):  # 5 = x
            left, right = right, left
        plain = _UNIT.sub("", right)
        valued = len(parts) > 2 or _NAMED.fullmatch(left) or (_constant(left) and _constant(plain))
        return _Node("=", (left, right, "=", _build(right) if valued else None))
    pairs = []  # (left, right, mark), where > and ≥ are read from the right
    for a, b, mark in zip(parts, parts[1:], marks):
        pairs.append((b, a, "<≤"[mark == "≥"]) if mark in ">≥" else (a, b, mark))
    return _Node("<", (tuple(pairs), _interval(pairs)))


def _interval(pairs: list[tuple[str, str, str]]) -> _Node | None:
    """The interval of an inequality in one name, or None: 1 < x ≤ 2 is (1,2]; x > 1 is (1,∞)."""
    opening, low, high, closing, names = "(", "", "", ")", set()
    for a, b, mark in pairs:
        if mark in "<≤" and _constant(a) and _NAMED.fullmatch(b):
            opening, low, name = "(["[mark == "≤"], a, b
        elif mark in "<≤" and _constant(b) and _NAMED.fullmatch(a):
            name, high, closing = a, b, ")]"[mark == "≤"]
        else:
            return None
        names.add(name.strip())
    if len(names) > 1 or "|" in name or len(pairs) != bool(low) + bool(high):
        return None
    return _Node(opening + closing, (_build(low or "-∞"), _build(high or "∞")))


# ------------------------------------------------------------------------------ comparing
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_POINTS = range(8)
_POSITIVE = _POINTS[:4]  # every variable is positive there


def math_equal(pred: str, gold: str) -> bool:
    """Whether two answers are the same, by the rules in this module's docstring."""
    if max(len(pred), len(gold)) > _MAX_CHARS:
        return "".join(pred.split()) == "".join(gold.split())
    a, b = _clean(pred), _clean(gold)
    if not a or not b:
        return False
    if _squash(a) == _squash(b):
        return True
    if any(len(re.findall("[,;:∧∪=<>≤≥≠]", text)) > _MAX_PARTS for text in (a, b)):
        return False
    try:
        a, b = _build(a), _build(b)
        if a.kind == "=" and b.kind == "expr" and _SUM.fullmatch(a.parts[0]):  # m + n = 116
            return a.parts[1] != "0" and _constant(a.parts[1]) and _same(_build(a.parts[1]), b)
        return _same(a, b)
    except RecursionError:  # nested too deeply
        return False


def _same(a: _Node, b: _Node) -> bool:
    if a.kind == b.kind == "=":
        if _squash(a.parts[0]) != _squash(b.parts[0]):
            return _proportional(a.parts, b.parts)
        return _same(*(n.parts[-1] or _build(n.parts[1]) for n in (a, b)))
    if a.kind == b.kind == "<":
        return _match(a.parts[0], b.parts[0], _proportional)
    a, b = (n.parts[-1] if n.kind in ("=", "<") else n for n in (a, b))
    if a is None or b is None:
        return False
    if a.kind == "list" and b.kind == "expr":  # one value, said more than once
        return all(_same(part, b) for part in a.parts)
    if a.kind in ("list", "row") and b.kind == "list":
        return _match(a.parts, b.parts, _same)
    if a.kind != b.kind and (a.kind, b.kind) != ("list", "row"):
        return False
    if a.kind == "expr":
        return _units_agree(a.parts[1], b.parts[1]) and _same_expression(a.parts[0], b.parts[0])
    if a.kind == "union":
        return _match(a.parts, b.parts, _same)
    return len(a.parts) == len(b.parts) and all(map(_same, a.parts, b.parts))


def _match(these: tuple, those: tuple, same) -> bool:
    """Whether two collections hold the same things, in any order and however often."""
    table = [[same(a, b) for b in those] for a in these]  # each pair once: exponential otherwise
    return all(map(any, table)) and all(map(any, zip(*table)))


def _proportional(a: tuple, b: tuple) -> bool:
    """Whether relations (left, right, mark) are multiples of each other, < and ≤ positive ones."""
    if a[2] != b[2]:
        return False
    ratios = []
    for p in _POSITIVE:
        x, y = (value_at(f"({right})-({left})", p) for left, right, *_ in (a, b))
        if x is None or y is None or x.shape or y.shape or not (x.varies or y.varies):
            return False
        if _close(y.entries[0], Fraction(0)):
            return False
        ratios.append(_apply(truediv, x.entries[0], y.entries[0]))
        if not _close(ratios[0], ratios[-1]) or _close(ratios[0], Fraction(0)):
            return False
    return a[2] not in "<≤" or _mp(ratios[0]).real > 0


def _same_expression(a: str, b: str) -> bool:
    if _squash(a) == _squash(b):
        return True
    letters = [_squash(text).strip("()") for text in (a, b)]
    if any(re.fullmatch("[A-Z]{2,}|[A-Z](?:-[A-Z])+|no|on|is|it", text) for text in letters):
        return letters[0] == letters[1]
    for p in _POINTS:
        x, y = value_at(a, p), value_at(b, p)
        if x is None or y is None or x.shape != y.shape:
            return False
        if p not in _POSITIVE and (x.is_complex() or y.is_complex()):
            continue  # outside the domain, such as the root of a negative variable
        if not all(map(_close, x.entries, y.entries)):
            return _rounds_to(a, x, b, y) or _rounds_to(b, y, a, x)
        if not (x.varies or y.varies):
            return True
    return True


def _rounds_to(decimal: str, value: "_Value", exact: str, other: "_Value") -> bool:
    """Whether a decimal of four significant digits or more is the rounded value of `exact`."""
    digits = decimal.lstrip("+-0.").replace(".", "")
    rounded = len(digits) >= 4 and "." in decimal and _DECIMAL.fullmatch(decimal)
    if not rounded or _DECIMAL.fullmatch(exact) or other.varies or other.shape:
        return False
    half_a_digit = Fraction(1, 2 * 10 ** len(decimal.partition(".")[2]))
    return abs(_mp(value.entries[0]) - _mp(other.entries[0])) <= _mp(half_a_digit)


# ------------------------------------------------------------------------------ values
class _Value(NamedTuple):
    entries: tuple  # one number, or those of a matrix
    shape: tuple  # (rows, columns) of a matrix, else ()
    varies: bool  # whether it depends on a variable

    def is_complex(self) -> bool:
        return any(not isinstance(x, Fraction) and abs(x.imag) > 1e-30 for x in self.entries)


@lru_cache(maxsize=4096)
def value_at(text: str, point: int) -> _Value | None:
    """The value of an expression at a point, or None if it is not finite or cannot be read."""
    reader = _Reader(text, point)
    try:
        value = reader.sum()
    except (ValueError, ArithmeticError, IndexError, TypeError, RecursionError):
        return None
    shape = (value.rows, value.cols) if hasattr(value, "rows") else ()
    entries = tuple(value) if shape else (value,)
    finite = all(isinstance(x, Fraction) or mpmath_context().isfinite(x) for x in entries)
    return _Value(entries, shape, reader.varies) if finite and not reader.tokens else None


def _constant(text: str) -> bool:
    return (value := value_at(text, 0)) is not None and not value.varies


@lru_cache(maxsize=4096)
def _sample(name: str, point: int) -> Fraction:
    """The value of a variable at a point: small at some, for e^{99x}, up to 30 at others."""
    rng = random.Random(f"{name} {point}")
    top = rng.randint(10, 999) * (1 if point in _POSITIVE else rng.choice((-1, 1)))
    return Fraction(top, (1009, 101, 101, 31)[point % 4])


@cache
def mpmath_context():
    """A separate context of 50 digits, whatever others set in mpmath.mp."""
    from mpmath import MPContext  # late: plain numbers do without it

    context = MPContext()
    context.dps = 50
    return context


def _mp(x):
    return mpmath_context().mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _close(x, y) -> bool:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x == y
    x, y = _mp(x), _mp(y)
    return bool(abs(x - y) <= max(1e-40, 1e-30 * max(abs(x), abs(y))))


def _bounded(x: Fraction, times: Fraction | int = 1) -> Fraction:
    """x; ValueError if a number that is so many times as long would be too long."""
    if times * max(x.numerator.bit_length(), x.denominator.bit_length()) > _MAX_BITS:
        raise ValueError("a long number")
    return x


def _apply(operation, x, y):
    """x + y and the like: exact for fractions, else with 50 digits or on mpmath's matrices."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return _bounded(operation(x, y))
    if hasattr(x, "rows") and hasattr(y, "rows") and x.rows * y.cols > _MAX_CELLS:
        raise ValueError("a large matrix")
    return operation(_mp(x), _mp(y))


def _power(x, y):
    if hasattr(x, "rows") or hasattr(y, "rows"):
        raise ValueError("a power of a matrix")
    if isinstance(x, Fraction) and isinstance(y, Fraction) and y.denominator == 1:
        return _bounded(x, abs(y)) ** int(y)
    context, base, exponent = mpmath_context(), _mp(x), _mp(y)
    if base == 0 and exponent.real > 0:
        return Fraction(0)
    if abs(exponent) > _MAX_SIZE or abs(context.mag(base)) > _MAX_SIZE:
        raise ValueError("a huge power")
    odd_root = isinstance(y, Fraction) and y.denominator % 2
    if odd_root and base.imag == 0 and base.real < 0:  # the real root
        return (-1) ** y.numerator * context.power(-base.real, exponent)
    return context.power(base, exponent)


# A function's name in mpmath.
_FUNCTIONS = {n: n for n in "sin cos tan cot sec csc sinh cosh tanh exp ln asin acos atan".split()}
_FUNCTIONS |= {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "log": "ln", "lg": "ln"}
_TOKEN = re.compile(
    r"\\[A-Za-z]+|[0-9]+_(?:[0-9A-Za-z]|\{\s*\w+\s*\})|"
    r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?|"
    rf"{'|'.join(sorted(_FUNCTIONS, key=len, reverse=True))}|sqrt|abs|{_WORD}|\S"
)
_RELATION = re.compile("to|mapsto|implies|perp|equiv|setminus|nmid|su[bp]set.*|(?!over).*[Aa]rrow")
_CONSTANTS = {"π": "pi", "e": "e", "i": "j"}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class _Reader:
    """Recursive descent: sum, product, sign, power, atom."""

    def __init__(self, text: str, point: int):
        self.tokens = _TOKEN.findall(text)[::-1]  # in reverse: the next one is the last
        self.point, self.varies, self.bars = point, False, 0

    def next(self) -> str:
        return self.tokens[-1] if self.tokens else " "

    def take(self, wanted: str) -> bool:
        if found := self.next() == wanted:
            self.tokens.pop()
        return found

    def sum(self):
        value = self.product()
        while self.next() in "+-":
            value = _apply(add if self.tokens.pop() == "+" else sub, value, self.product())
        return value

    def product(self):
        value = self.signed()
        while self.next() in "*/" or self.starts_factor():
            operation = truediv if self.take("/") else mul
            self.take("*")
            value = _apply(operation, value, self.signed())
        return value

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign; a second number does not: no product "1 2"."""
        token = self.next()
        return bool(re.match(r"[A-Za-z\\(\[{⟦∞π]", token)) or (token == "|" and not self.bars)

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
            value = abs(self.until("|"))
            self.bars -= 1
            return value
        if token == "⟦":
            return self.matrix()
        if token[0] in "0123456789.":
            if "_" in token:  # a number in another base
                return self.variable(re.sub(r"[{}\s]", "", token))
            return _bounded(Fraction(token))
        if token in _CONSTANTS:
            return +getattr(mpmath_context(), _CONSTANTS[token])
        if token == "∞":
            return _sample("∞", 0)
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
        if not name.isalpha() or _RELATION.fullmatch(name):
            raise ValueError(f"{token} is no factor")
        return self.variable(name)  # also \sum: \sum_{k=0}^{n} F_k is a product of variables

    def until(self, closer: str):
        value = self.sum()
        if not self.take(closer):
            raise ValueError(f"{closer} is missing")
        return value

    def variable(self, name: str):
        if self.take("_"):
            subscript = self.tokens.pop()
            while subscript.count("{") > subscript.count("}"):
                subscript += self.tokens.pop()
            name += "_" + subscript.strip("{}")
        while self.take("'"):
            name += "'"
        if re.fullmatch(r"[fghFGHPQW](?:_.+)?'*", name) and self.take("("):
            args = [self.sum()]
            while self.take(","):
                args.append(self.sum())
            if not self.take(")"):
                raise ValueError(") is missing")
            return self.unknown(name, *args)
        self.varies = True
        return _sample(name.casefold() if re.fullmatch(_WORD, name) else name, self.point)

    def function(self, name: str):
        base = self.atom() if name == "log" and self.take("_") else Fraction(10)
        power = self.signed() if self.take("^") else Fraction(1)
        value = self.call(_FUNCTIONS[name], self.argument())
        if name in ("log", "lg"):
            value = _apply(truediv, value, self.call("ln", base))
        return _power(value, power)

    def argument(self):
        """What a function is of; without brackets a product: sin 2x cos y is sin(2x) cos(y)."""
        bracketed = self.next() in _CLOSERS
        value = self.signed()
        ends = {"(", *_FUNCTIONS}
        while not bracketed and self.starts_factor() and self.next().lstrip("\\") not in ends:
            value = _apply(mul, value, self.power())
        return value

    def call(self, function: str, value):
        if function != "ln" and abs(_mp(value)) > _MAX_SIZE:
            raise ValueError("a huge argument")
        return getattr(mpmath_context(), function)(_mp(value))

    def counted(self, name: str, function, *args):
        """A function of whole numbers; of others it is an unknown one."""
        if all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= 1000 for x in args):
            return _bounded(Fraction(function(*map(int, args))))
        return self.unknown(name, *args)

    def unknown(self, name: str, *args):
        """An unknown function: any fixed function that depends on all its arguments will do."""
        self.varies = True
        angle = _sample(name, self.point)
        for i, x in enumerate(args):
            angle = _apply(add, angle, _apply(mul, _sample(f"{name} {i}", self.point), x))
        return self.call("sin", angle)

    def matrix(self):
        rows = [[]]
        while not self.take("⟧"):
            if self.take("↵"):
                rows.append([])
            elif not self.take("&"):
                rows[-1].append(_mp(self.sum()))
        return mpmath_context().matrix([row for row in rows if row])
