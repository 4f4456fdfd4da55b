"""The value of a mathematical expression, for tasks/math_equal.py: exact if it is rational, else
with 50 digits. Variables have fixed values at each of a few points. Nothing is run as code."""

import math
import random
import re
from fractions import Fraction
from functools import cache, lru_cache
from operator import add, mul, sub, truediv
from typing import NamedTuple

# Limits that keep every call short.
MAX_BITS = 10_000  # of an exact number; 50 digits would not tell 2^{99999} from 2^{99999} + 1
MAX_SIZE = 10**6  # exponent, or argument of a function
MAX_CELLS = 400  # of a product of matrices

WORD = r"(?=[A-Za-z]*[AEIOUaeiou])[A-Za-z]{3,}"  # with a vowel; shorter is a product of variables
POINTS = range(8)
POSITIVE = POINTS[:4]  # every variable is positive there


class Value(NamedTuple):
    entries: tuple  # one number, or those of a matrix
    shape: tuple  # (rows, columns) of a matrix, else ()
    varies: bool  # whether it depends on a variable

    def is_complex(self) -> bool:
        return any(not isinstance(x, Fraction) and abs(x.imag) > 1e-30 for x in self.entries)


@lru_cache(maxsize=4096)
def value_at(text: str, point: int) -> Value | None:
    """The value of an expression at a point, or None if it is not finite or cannot be read."""
    reader = _Reader(text, point)
    try:
        value = reader.sum()
    except (ValueError, ArithmeticError, IndexError, TypeError, RecursionError):
        return None
    shape = (value.rows, value.cols) if hasattr(value, "rows") else ()
    entries = tuple(value) if shape else (value,)
    finite = all(isinstance(x, Fraction) or mpmath_context().isfinite(x) for x in entries)
    return Value(entries, shape, reader.varies) if finite and not reader.tokens else None


def constant(text: str) -> bool:
    return (value := value_at(text, 0)) is not None and not value.varies


@lru_cache(maxsize=4096)
def _sample(name: str, point: int) -> Fraction:
    """The value of a variable at a point: small at some, for e^{99x}, up to 30 at others."""
    rng = random.Random(f"{name} {point}")
    top = rng.randint(10, 999) * (1 if point in POSITIVE else rng.choice((-1, 1)))
    return Fraction(top, (1009, 101, 101, 31)[point % 4])


@cache
def mpmath_context():
    """A separate context of 50 digits, whatever others set in mpmath.mp."""
    from mpmath import MPContext  # late: plain numbers do without it

    context = MPContext()
    context.dps = 50
    return context


def number(x):
    return mpmath_context().mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def close(x, y) -> bool:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x == y
    x, y = number(x), number(y)
    return bool(abs(x - y) <= max(1e-40, 1e-30 * max(abs(x), abs(y))))


def _bounded(x: Fraction, times: Fraction | int = 1) -> Fraction:
    """x; ValueError if a number that is so many times as long would be too long."""
    if times * max(x.numerator.bit_length(), x.denominator.bit_length()) > MAX_BITS:
        raise ValueError("a long number")
    return x


def apply(operation, x, y):
    """x + y and the like: exact for fractions, else with 50 digits or on mpmath's matrices."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return _bounded(operation(x, y))
    if hasattr(x, "rows") and hasattr(y, "rows") and x.rows * y.cols > MAX_CELLS:
        raise ValueError("a large matrix")
    return operation(number(x), number(y))


def _power(x, y):
    if hasattr(x, "rows") or hasattr(y, "rows"):
        raise ValueError("a power of a matrix")
    if isinstance(x, Fraction) and isinstance(y, Fraction) and y.denominator == 1:
        return _bounded(x, abs(y)) ** int(y)
    context, base, exponent = mpmath_context(), number(x), number(y)
    if base == 0 and exponent.real > 0:
        return Fraction(0)
    if abs(exponent) > MAX_SIZE or abs(context.mag(base)) > MAX_SIZE:
        raise ValueError("a huge power")
    odd_root = isinstance(y, Fraction) and y.denominator % 2
    if odd_root and base.imag == 0 and base.real < 0:  # the real root
        return (-1) ** y.numerator * context.power(-base.real, exponent)
    return context.power(base, exponent)


def _factorial(x):
    return mpmath_context().gamma(x + 1)


def _binomial(n, k):
    return _factorial(n) / (_factorial(k) * _factorial(n - k))


# A function's name in mpmath.
_FUNCTIONS = {n: n for n in "sin cos tan cot sec csc sinh cosh tanh exp ln asin acos atan".split()}
_FUNCTIONS |= {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "log": "ln", "lg": "ln"}
_TOKEN = re.compile(
    r"\\[A-Za-z]+|[0-9]+_(?:[0-9A-Za-z]|\{\s*\w+\s*\})|"
    r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?|"
    rf"{'|'.join(sorted(_FUNCTIONS, key=len, reverse=True))}|sqrt|abs|{WORD}|\S"
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
            value = apply(add if self.tokens.pop() == "+" else sub, value, self.product())
        return value

    def product(self):
        value = self.signed()
        while self.next() in "*/" or self.starts_factor():
            operation = truediv if self.take("/") else mul
            self.take("*")
            value = apply(operation, value, self.signed())
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
            value = self.counted(math.factorial, _factorial, value)
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
            return apply(truediv, self.atom(), self.atom())
        if name == "sqrt":
            index = self.until("]") if self.take("[") else Fraction(2)
            return _power(self.atom(), apply(truediv, Fraction(1), index))
        if name == "binom":
            return self.counted(math.comb, _binomial, self.atom(), self.atom())
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
        return _sample(name.casefold() if re.fullmatch(WORD, name) else name, self.point)

    def function(self, name: str):
        base = self.atom() if name == "log" and self.take("_") else Fraction(10)
        power = self.signed() if self.take("^") else Fraction(1)
        if power == -1 and name in ("sin", "cos", "tan"):  # the inverse function, as arctan
            return self.call(f"a{name}", self.argument())
        value = self.call(_FUNCTIONS[name], self.argument())
        if name in ("log", "lg"):
            value = apply(truediv, value, self.call("ln", base))
        return _power(value, power)

    def argument(self):
        """What a function is of; without brackets a product: sin 2x cos y is sin(2x) cos(y)."""
        bracketed = self.next() in _CLOSERS
        value = self.signed()
        ends = {"(", *_FUNCTIONS}
        while not bracketed and self.starts_factor() and self.next().lstrip("\\") not in ends:
            value = apply(mul, value, self.power())
        return value

    def call(self, function: str, value):
        if function != "ln" and abs(number(value)) > MAX_SIZE:
            raise ValueError("a huge argument")
        return getattr(mpmath_context(), function)(number(value))

    def counted(self, function, smooth, *args):
        """A function of whole numbers; of others what continues it."""
        if all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= 1000 for x in args):
            return _bounded(Fraction(function(*map(int, args))))
        if any(abs(number(x)) > 1000 for x in args):
            raise ValueError("a huge argument")
        return smooth(*map(number, args))

    def unknown(self, name: str, *args):
        """An unknown function: any fixed function that depends on all its arguments will do."""
        self.varies = True
        angle = _sample(name, self.point)
        for i, x in enumerate(args):
            angle = apply(add, angle, apply(mul, _sample(f"{name} {i}", self.point), x))
        return self.call("sin", angle)

    def matrix(self):
        rows = [[]]
        while not self.take("⟧"):
            if self.take("↵"):
                rows.append([])
            elif not self.take("&"):
                rows[-1].append(number(self.sum()))
        return mpmath_context().matrix([row for row in rows if row])
