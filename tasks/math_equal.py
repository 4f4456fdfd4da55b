r"""Are two mathematical answers the same? Reads LaTeX and plain text.

    math_equal(r"\frac{1}{2}", "0.5")   True

It never evaluates text as code, raises or hangs. `_clean` writes both answers in one spelling,
`_build` splits them into lists, tuples, intervals and relations. Expressions are compared by value:
tasks/math_value.py computes them at a few fixed points, exactly if rational, else with 50 digits.

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

import re
import unicodedata
from fractions import Fraction
from operator import truediv
from typing import NamedTuple

from tasks.answers import AMOUNT, CHANGING, LETTER, MEASURES, SCALES, closing_bracket
from tasks.math_value import POINTS, POSITIVE, WORD, Value, apply, close, constant, number, value_at

# Limits that keep every call short.
_MAX_CHARS = 1000  # longer answers are compared as text
_MAX_PARTS = 30  # of commas, signs of equality and the like; answers with more are compared as text

# ------------------------------------------------------------------------------ one spelling
_CHARACTERS = str.maketrans("−–×·⋅÷⁄、°€£¥$~\n", "--***//," + " " * 7) | {
    ord("√"): "\\sqrt ",
    ord("∛"): "\\sqrt[3] ",
}
# A symbol and the LaTeX commands that become it; the last ones are left out.
_SYMBOLS = r"""
≤ le leq leqslant; ≥ ge geq geqslant; < lt; > gt; ≠ ne neq; ≈ approx; ∪ cup; ∈ in; ∞ infty; ± pm;
∓ mp; π pi; * cdot times ast; / div; : colon; ( langle; ) rangle; { lbrace; } rbrace; ∧ land lor;
| lvert rvert vert mid; \binom dbinom tbinom; ∅ emptyset varnothing;
\frac dfrac tfrac cfrac nicefrac sfrac"""
_DROPPED = """boxed fbox left right displaystyle textstyle limits circ degree big Big bigl bigr Bigl
Bigr underline boldsymbol bm mathbf mathrm mathit text large Large LARGE huge normalsize small"""
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


_BASES = {"two": 2, "three": 3, "eight": 8, "ten": 10, "twelve": 12, "sixteen": 16}
_CONDITION = (  # n\in\mathbb{N} after a formula
    r"(?<=\S)[\s,(~\\]*(?:\\(?:text|mbox)\s*\{[^{}]*\}\s*)?[a-z]\s*(?:\\in\b|∈)\s*"
    r"(?:\\mathbb\s*\{?\s*[NZQRC]\s*\}?|[ℕℤℚℝℂ])[\^_*+{}0-9]*\s*[)$\s]*$"
)
_LATEX = [
    (_REPEATING, _repeating),
    (r"^\s*\\text(?:bf|rm)?\s*\{\s*\([A-E]\)\s*\}(?=[\s~\\]*\S)", ""),  # AMC: (B) 12
    (_CONDITION, ""),
    (r"(?:\\mathbb\s*\{?\s*R\s*\}?|ℝ)(?!\s*[\^_])", r"(-\\infty,\\infty)"),
    (r"\\\\\s*\[\s*[\d.]+\s*[a-z]{2}\s*\]", r"\\\\"),  # \\[4pt]
    (r"\\begin\s*\{cases\}(.*?)\\end\s*\{cases\}", lambda m: m[1].replace("\\\\", ",")),
    (r"\{\s*:\s*\}", ":"),
    (r"\^\s*\{?\s*\\prime\s*\}?|′", "'"),
    (r"\(\s*(\w+)\s*\)\s*(?=_\s*[\d{])", r"\1"),  # (1011)_2
    (
        rf"_\s*\{{\s*\\text\s*\{{\s*({'|'.join(_BASES)})\s*\}}\s*\}}",
        lambda m: f"_{{{_BASES[m[1]]}}}",
    ),
    (r"(?<=[0-9])pi(?![A-Za-z])", "π"),
    (r"[α-ορ-ωΓ-Ψ](?<!μ)", lambda m: f"\\{unicodedata.name(m[0]).split()[-1].lower()} "),
    ("[০-৯]", lambda m: str(int(m[0]))),
    (r"[⁰¹²³⁴-⁹⁺⁻]+", lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}} "),
    (r"\\(?:text)?color(?:box)?\s*\{[^{}]*\}", ""),
    (r"\s*\}\s*/\s*\\(?:text|mathrm)\s*\{[\s~]*(?=[hs]\s*\})", "/"),  # \mathrm{~m} / \mathrm{s}
    (r"\bkm\s*/\s*h\b", "km/hour"),
    (_LETTER_UNIT, lambda m: " " + _LETTERS.get(m[1], "unit" + m[1].replace("/", ""))),
    (r"\\mathrm\s*(\{[^{}]*\{[^{}]*\}[^{}]*\})(?=\W*$)", lambda m: f" {m[1][1:-1]} "),
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


_REMARK = (  # 9 (apples), but not 5 (sin x) or 3 (mod 5)
    r"(?<=[0-9A-Za-z}])\s+\((?=[^()\\]*[A-Za-z]{3})(?![^()]*\b(?:mod|sin|cos|tan|log|exp|sqrt|ln)\b)"
    r"[^()\\]*\)[\s.]*$"
)
_OPERATORS = r"<=|=< ≤ >= ≥ != ≠ == = \*\* ^ \bpi\b π \b(?:oo|infinity)\b ∞".split()
_ENGLISH = "zero one two three four five six seven eight nine ten eleven twelve".split()
_CHINESE = "零一二三四五六七八九十"
_DIGITS = {word: str(i) for words in (_ENGLISH, _CHINESE) for i, word in enumerate(words)}


def _remark(match: re.Match) -> str:
    """Nothing, unless the remark changes the number before it: 12 (base eight), 3 (squared)."""
    words = {*re.findall("[a-z]+", match[0])}
    return match[0] if CHANGING.search(match[0]) or words & {"base", *SCALES} else ""


_PLAIN = [
    (r"\\([A-Za-z]+)", lambda m: _COMMANDS.get(m[1], m[0])),
    *zip(_OPERATORS[::2], _OPERATORS[1::2]),
    (r"(hours?|minutes?|days?|years?|feet|pounds?|dollars?)\s+and\s+(?=[0-9])", r"\1 "),
    (r"(?:,\s*)?(?<![A-Za-z\\])(?:and|or)(?![a-z])|[或和及与]者?", "∧"),  # joins a set
    (r"(?<=[0-9])\s*x\s*(?=10\s*\^)", "*"),  # 3 x 10^8
    (r"\^\s*\{?\s*(?:th|st|nd|rd)\b\s*\}?", " "),  # 12^{th}
    (r"(?:(?<=1)st|(?<=2)nd|(?<=3)rd|(?<=[0-9])\s*th)\b", " "),  # 12th
    (r"^[\s=≈]+", ""),
    (_REMARK, _remark),
    (rf"^\s*({'|'.join(_DIGITS)})\s*$", lambda m: _DIGITS[m[1]]),
    (r"(?<=:[0-9]{2})\s*([AaPp])\.?[Mm]\b\.?", lambda m: f":{m[1].lower()}"),  # 12:00 pm
    (r"\\frac\s*([0-9])", r"\\frac{\1}"),  # \frac12
    (r"(\\frac\s*\{[^{}]*\})\s*([0-9])", r"\1{\2}"),
    (r"[\s.。]+$", ""),
    (r"(?<![\w^.}/])([0-9]+)\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}", _mixed),
    (r"(?<![\w^.}/])([0-9]+)\s+([0-9]+)/([0-9]+)(?![\w/])", _mixed),
]
_THOUSANDS = re.compile(r"(?<![\w.,])[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?! ?[/0-9,])")


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
    wordy = any(w.istitle() or re.fullmatch(WORD, w) for w in words)
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)
    if wordy and all(len(w) > 1 for w in words):
        return text.casefold().replace("solutions", "solution")
    return text


# ------------------------------------------------------------------------------ structure
_NAME = (
    r"(?:\\(?:overline|overrightarrow|vec|hat|bar)\s*\{\s*[A-Za-z]+\s*\}|\\?[A-Za-z]+)"
    r"(?:\s*_\s*(?:\w|\{[^{}]*\}))?'*\s*(?:\([^()]*\)|\[[^\[\]=]*\])?"
)
# \int_0^1 4x dx = 2
_WANTED = re.compile(r"\s*\\(?:lim|int|sum|prod|max|min|gcd|lcm|det)(?![A-Za-z])")
_NAMED = re.compile(
    rf"\s*(?:(?:\\angle|\\triangle)?\s*{_NAME}(?:\s+[A-Za-z]+|\s*\\[A-Za-z]+)*|\|{_NAME}\|"
    rf"|{_NAME}\s*[:/]\s*{_NAME}|\\frac\s*\{{\s*{_NAME}\s*\}}\s*\{{\s*{_NAME}\s*\}}"
    rf"|\({_NAME}(?:\s*,\s*{_NAME})*\))\s*"
)
_FUNCTION_WORD = r"(?:a?sin|a?cos|a?tan|cot|sec|csc|arc\w+|log|abs|exp)\b"
# units that are no words
_SI = r"[kMG]?Hz|mpg|[kM]?J(?:/(?:k?mol|k?g))?|k?Pa|[kM]?W|kWh|mol|[kM]?eV|dB|rpm|\\?Omega|Ω"
_SI += r"|(?:\\mu|[μµ])\s*[mgsLFCA]|(?:m|ft|km)\s*/?\s*s\s*\^\s*\{?\s*-?[12]\s*\}?"
_UNIT = re.compile(
    rf"(?<=[0-9}})π])(?:\s+(?!{_FUNCTION_WORD})(?:{WORD}|of)\b\.?|\s+(?:{_SI})(?![A-Za-z])|\s*(?:{AMOUNT}|in)s?(?![A-Za-z])\.?"
    rf"|\s*{LETTER})(?:[\s/]+(?:[A-Za-z]{{2,}}|a)\b\.?|{LETTER})*"
    r"(?:\s*\^\s*(?:[23]|\{\s*[23]\s*\}))?\s*$"
)


def _unit(text: str) -> frozenset[str]:
    """The measures and other words of a unit, in plain names and the singular."""
    if re.fullmatch(rf"\s*(?:{_SI})\s*", text):
        return frozenset(["".join(text.split()).replace("\\", "")])
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
        text, braced = text[1:-1].strip() or "∅", True
    if braced and (such := re.match(r"[A-Za-z]\s*[|:](?=.*[<>≤≥])", text)):  # {x | x > 1}
        text = text[such.end() :].strip()
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
        if "=" in marks[:cut] or constant(parts[cut]):  # what is exact counts
            parts, marks = parts[: cut + 1], marks[:cut]
            if not marks:
                return _build(parts[0])
        marks = ["=" if m == "≈" else m for m in marks]
    if set(marks) == {"="}:
        left, right = parts[0].strip(), parts[-1].strip()
        if constant(left) and _NAMED.fullmatch(right) and not constant(right):  # 5 = x
            left, right = right, left
        plain = _UNIT.sub("", right)
        valued = len(parts) > 2 or _NAMED.fullmatch(left) or _WANTED.match(left)
        valued = valued or (constant(left) and constant(plain))
        return _Node("=", (left, right, "=", _build(right) if valued else None))
    pairs = []  # (left, right, mark), where > and ≥ are read from the right
    for a, b, mark in zip(parts, parts[1:], marks):
        pairs.append((b, a, "<≤"[mark == "≥"]) if mark in ">≥" else (a, b, mark))
    return _Node("<", (tuple(pairs), _interval(pairs)))


def _interval(pairs: list[tuple[str, str, str]]) -> _Node | None:
    """The interval of an inequality in one name, or None: 1 < x ≤ 2 is (1,2]; x > 1 is (1,∞)."""
    opening, low, high, closing, names = "(", "", "", ")", set()
    for a, b, mark in pairs:
        if mark in "<≤" and constant(a) and _NAMED.fullmatch(b):
            opening, low, name = "(["[mark == "≤"], a, b
        elif mark in "<≤" and constant(b) and _NAMED.fullmatch(a):
            name, high, closing = a, b, ")]"[mark == "≤"]
        else:
            return None
        names.add(name.strip())
    if len(pairs) == 1 and high and re.fullmatch(r"\s*\|[A-Za-z]\|\s*", name):  # |x| < 1
        opening = "(["[closing == "]"]
        return _Node(opening + closing, (_build(f"-({high})"), _build(high)))
    if len(names) > 1 or "|" in name or len(pairs) != bool(low) + bool(high):
        return None
    return _Node(opening + closing, (_build(low or "-∞"), _build(high or "∞")))


# ------------------------------------------------------------------------------ comparing
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


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
        valued = a.kind != "=" or a.parts[-1]
        if not valued and b.kind == "expr" and _combined(a.parts[0]):  # m + n = 116
            return a.parts[1] != "0" and constant(a.parts[1]) and _same(_build(a.parts[1]), b)
        return _same(_as(b, a), _as(a, b))
    except RecursionError:  # nested too deeply
        return False


def _combined(text: str) -> bool:
    """Whether a text combines two names or more to one value: m + n, a^2 + b^2; not 2x + z."""
    names = re.findall(r"[A-Za-z]+(?:_(?:\w|\{\w+\}))?", text)
    plain = len({*names}) > 1 and not re.search(r"[0-9]\s*\*?\s*[A-Za-z]", text)
    return plain and value_at(text, 0) is not None


def _as(wanted: _Node, node: _Node) -> _Node:
    """A node in the other answer's kind, if it says the same in another: "x = 3, y = -4" and
    P(3,-4) as the tuple (3,-4); "x < 0 or x > 1" as a union."""
    value = wanted.parts[-1] if wanted.kind == "=" else wanted
    equations = node.kind == "list" and all(n.kind == "=" for n in node.parts)
    if equations and (value and value.kind == "()"):
        return _solution(node) if len({n.parts[0] for n in node.parts}) > 1 else node
    if wanted.kind == "()" and node.kind == "expr":
        point = re.fullmatch(r"[A-Z]\s*(\(.*\))", node.parts[0])
        return _build(point[1]) if point else node
    if wanted.kind == "union" and node.kind == "list":
        intervals = [n.parts[-1] for n in node.parts if n.kind == "<"]
        whole = all(intervals) and len(intervals) == len(node.parts)
        return _Node("union", tuple(intervals)) if whole else node
    return node


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
    if a.kind == b.kind == "union" or (a.kind in ("list", "row") and b.kind == "list"):
        return _match(a.parts, b.parts, _same)
    if a.kind != b.kind and (a.kind, b.kind) != ("list", "row"):
        return False
    if a.kind == "expr":
        return _units_agree(a.parts[1], b.parts[1]) and _same_expression(a.parts[0], b.parts[0])
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
    for p in POSITIVE:
        x, y = (value_at(f"({right})-({left})", p) for left, right, *_ in (a, b))
        if x is None or y is None or x.shape or y.shape or not (x.varies or y.varies):
            return False
        if close(y.entries[0], Fraction(0)):
            return False
        ratios.append(apply(truediv, x.entries[0], y.entries[0]))
        if not close(ratios[0], ratios[-1]) or close(ratios[0], Fraction(0)):
            return False
    return a[2] not in "<≤" or number(ratios[0]).real > 0


def _same_expression(a: str, b: str) -> bool:
    if _squash(a) == _squash(b):
        return True
    letters = [_squash(text).strip("()") for text in (a, b)]
    if any(re.fullmatch("[A-Z]{2,}|[A-Z](?:-[A-Z])+|no|on|is|it", text) for text in letters):
        return letters[0] == letters[1]
    for p in POINTS:
        x, y = value_at(a, p), value_at(b, p)
        if x is None or y is None or x.shape != y.shape:
            return False
        if p not in POSITIVE and (x.is_complex() or y.is_complex()):
            continue  # outside the domain, such as the root of a negative variable
        if not all(map(close, x.entries, y.entries)):
            return _rounds_to(a, x, b, y) or _rounds_to(b, y, a, x)
        if not (x.varies or y.varies):
            return True
    return True


def _rounds_to(decimal: str, value: "Value", exact: str, other: "Value") -> bool:
    """Whether a decimal of four significant digits or more is the rounded value of `exact`."""
    digits = decimal.lstrip("+-0.").replace(".", "")
    rounded = len(digits) >= 4 and "." in decimal and _DECIMAL.fullmatch(decimal)
    if not rounded or _DECIMAL.fullmatch(exact) or other.varies or other.shape:
        return False
    half_a_digit = Fraction(1, 2 * 10 ** len(decimal.partition(".")[2]))
    return abs(number(value.entries[0]) - number(other.entries[0])) <= number(half_a_digit)
