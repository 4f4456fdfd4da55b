"""The verifier of mathematical answers, by worked cases."""

import json
import os
import random
import string
import threading
import time

import pytest
from conftest import SHARED_DATA

import verify
from verify import answer_in, extract_answer, math_equal

needs_data = pytest.mark.skipif(not os.path.exists(os.path.join(SHARED_DATA, "verifier_cases.json")), reason="the benchmark files are not here")

EQUAL = {
    "plain numbers": [("7", "7"), (" 7 ", "7"), ("7.0", "7"), (".1", "0.1"), ("-3", "- 3"), ("+3", "3"), ("004", "4"), ("18.", "18"), ("1/2", "0.5"),
                      ("1" * 1000, "1" * 1000)],
    "separators": [("1,000", "1000"), ("1,234,567.5", "1234567.5"), (r"10,\!080", "10080"), ("14{,}916", "14916"), (r"32\,348", "32348"),
                   (r"11,\! 111,\! 100", "11111100"),
                   ("x=1,000", "1000")],
    "percent, units, currency": [("10\\%", "10"), ("28 percent", "28%"), (r"5\text{ cm}", "5"), (r"15\mbox{ cm}^2", "15"), ("35 cm", "35"), ("$18", "18"),
                                 (r"\$32,\!348", "32348"), (r"90^\circ", "90"), (r"90^{\circ}", "90"), ("30°", "30"), (r"\frac{270}7\text{ degrees}", "270/7"),
                                 ("12 apples", "12"), ("5 seconds", "5"), ("5元", "5"), (r"10\text{ m/s}", "10"), (r"3\text{ m}^2", "3"),
                                 ("60 miles per hour", "60"), (r"12^{\mathrm{th}} \text{ grade}", "12"), ("5 square feet", "5"), ("$125$ miles", "125")],
    "fractions": [(r"\frac{1}{2}", "1/2"), (r"\dfrac{2}{4}", r"\tfrac12"), (r"\frac12", "0.5"), (r"\frac 59", "5/9"), (r"\frac9{19}", "9/19"),
                  (r"-\frac{1}{4}", "-0.25"), (r"\frac{-1}{4}", r"-\frac14"), (r"\frac94\pi", r"\frac{9\pi}{4}"), (r"\frac{\sqrt{3}}2", r"\sqrt3/2")],
    "mixed numbers": [(r"1\frac{4}{5}", "9/5"), (r"-1\frac45", "-1.8"), ("137 1/2", "137.5"), (r"137 \frac{1}{2}", "275/2"),
                      (r"2\frac{\pi}{3}", r"\frac{2\pi}{3}")],
    "radicals, powers, constants": [(r"\sqrt2", r"\sqrt{2}"), (r"\sqrt{8}", r"2\sqrt2"), (r"\sqrt[3]{-8}", "-2"), (r"\frac{1}{\sqrt{2}}",
                                    r"\frac{\sqrt{2}}{2}"),
                                    ("2^{10}", "1024"), ("2^{2019}-1", "-1+2^{2019}"), ("2**3", "8"), (r"\pi", "pi"), ("√2", r"\sqrt 2"),
                                    ("sqrt(12)", r"2\sqrt{3}"), ("6-5i", "-5i+6"),
                                    (r"e^2", r"\mathrm{e}^{2}"), (r"\log_2 8", "3"), (r"\ln e^3", "3"), (r"\sin 30", r"\sin(30)"), ("5!", "120"),
                                    (r"\binom{5}{2}", "10"), ("-2^2", "-4"), (r"8^{-1/3}", "0.5"), (r"\sqrt{-4}", "2i"), (r"(1+i)^2", "2i")],
    "plus or minus": [(r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"), (r"\{1\pm\sqrt{5},-2\}", r"\{-2,1-\sqrt5,1+\sqrt5\}"), (r"x = \pm 2", "2, -2"),
                      (r"\pm 3", r"\mp 3")],
    "intervals": [(r"(1, +\infty)", r"(1,\infty)"), ("(-oo,4]", r"(-\infty, 4]"), (r"[0,9)", r"\left[0, 9\right)"), ("(1,4.5)", r"(1,\frac92)"),
                  (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty) \cup (-\infty,2)"), (r"x \in [-2,7]", "[-2,7]"), (r"\{-1\} \cup [0,7)", r"[0,7) \cup \{-1\}")],
    "tuples, lists, sets": [("(1,2)", "( 1, 2 )"), ("1,2", "2, 1"), ("{1,3}", r"\{3, 1\}"), ("{1,3}", "3,1"), (r"12\text{ and }13", "13, 12"),
                            ("6 or 8", "8,6"),
                            ("19, 46, and 82", "82, 46, 19"), ("(1,2),(3,4)", "(3,4);(1,2)"), ("(0;-2)", "(0,-2)"), ("(2,3)or(3,2)", "(3,2),(2,3)"),
                            ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("2,2,3", "3,2"), (r"\boxed{2}, \boxed{3}", "2,3")],
    "matrices": [(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right]"),
                 (r"\begin{bmatrix}0.5\\1\\\end{bmatrix}", r"\begin{pmatrix}\frac{1}{2}\\1\end{pmatrix}"),
                 (r"\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}1&0\end{pmatrix}", r"\begin{pmatrix}2&2\end{pmatrix}"),
                 (r"2\begin{pmatrix}1\\x\end{pmatrix}", r"\begin{pmatrix}2\\2x\end{pmatrix}"),
                 (r"\begin{pmatrix}0&1\\1&0\end{pmatrix}\begin{pmatrix}2\\3\end{pmatrix}", r"\begin{pmatrix}3\\2\end{pmatrix}")],
    "equations and chains": [("x=5", "5"), ("y = 2x+3", "2x+3"), ("y=2x+3", "2x-y+3=0"), ("x=5", "2x=10"), ("x = 5+5+1 = 11", "11"), ("a=4, b=5", "b=5, a=4"),
                             ("a=4, b=5", "4, 5"), (r"x=1/3\approx1.3", "1/3"), (r"x\approx11", "11"), ("f(x)=1", "1"), ("|AB|=1", "1"), ("A:B=1", "1"),
                             ("(p,q,r)=(3,2,7)", "(3,2,7)"), (r"\frac{NO}{BO}=\frac{1}{\sqrt{6}}", r"\frac{\sqrt6}{6}"), ("n=1, 2, 3", "3,2,1"),
                             ("a_{37} = 19, a_3=2", "a_3 = 2, a_{37} = 19"), ("1+1=2", "2"), ("x^2/16 + y^2/12 = 1/4", "x^2/4 + y^2/3 = 1")],
    "inequalities": [(r"5 \geq x", r"x \leq 5"), ("x <= 2", r"x \le 2"), (r"x \gt 5", "5 < x"), ("-x >= -1", "x <= 1"), (r"-2 \le x < 7", "[-2,7)"),
                     ("x > 3", r"(3,\infty)"), ("x != 5", r"x \neq 5"), (r"3 < \lambda \le 4", "(3,4]"), ("f(2) < f(1) < f(4)", "f(4)>f(1)>f(2)"),
                     ("2x < 4", "x < 2"), ("7>x>1", "(1,7)"),
                     (r"-\infty < x \le 3", r"(-\infty,3]")],
    "times and ratios": [("12:00", "12:00"), ("7:32", "S_{MBCN}:S=7:32"), ("9:30 am", "9:30 A.M.")],
    "expressions": [("x + 1", "1+x"), (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"), ("(a+5)(b+2)", "ab+2a+5b+10"), (r"2 \sin b \cos a", r"2\cos(a) \sin(b)"),
                    ("|x-2|", "|2-x|"), ("x_1+x_2", "x_{2}+x_{1}"), (r"\alpha\beta", r"\beta \alpha"), (r"\frac{1}{3x^{2/3}}", r"\frac{1}{3\sqrt[3]{x}^2}"),
                    (r"\sin^2 x + \cos^2 x", "1"), (r"\ln(xy)", r"\ln x+\ln y"), ("f(x+1)", "f(1+x)"), ("2|x||y|", "2|xy|"),
                    (r"\cot x", r"\frac{\cos x}{\sin x}"),
                    (r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k", r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}"), (r"\pi r^2", "r^2 pi"), ("x^{600}+1", "1+x^{600}")],
    "base subscripts": [("2516_8", "2516_{8}"), (r"4210_{5}", "4210_5")],
    "words": [(r"\text{Even}", "Even"), ("EVELYN", r"\text{Evelyn}"), (r"\text{(C)}", "C"), (r"\text{e}", "e"), ("no", "No"), (r"\textbf{east}", "East")],
    "noise": [(r"\left( 3, \frac{\pi}{2} \right)", r"$(3,\frac{\pi}{2})$"), (r"\displaystyle x+1", r"\( x \! + 1 \)"), (r"\[ 5 \]", "$$5$$"), ("5.", "5"),
              (r"\\frac{1}{2}", "0.5"), (r"\\left(\\frac{1}{5},2\\right)", r"(\frac15,2)"), (r"\boxed{14/3}", "14/3"), (r"1,\quad 2", "1,2")],
    "decimals against exact values": [("0.0833333333333333", r"\frac{1}{12}"), ("3.1416", r"\pi"), ("(0.6,2.6667]", r"(\frac35,\frac83]"),
                                      ("1.4142", r"\sqrt2")]}

UNEQUAL = {
    "plain numbers": [("3", "-3"), ("12", "1"), ("", "0"), ("", ""), ("1/0", "0"), ("1,23", "123"), ("٣", "3"), ("1" * 1000, "1"), ("1 2", "12"),
                      ("32", r"\frac{3}{2}"),
                      ("10" + "0" * 60, "10" + "0" * 59 + "1"), ("1.22", "1.2200001")],
    "separators": [("1,22", "1.22"), ("32, 349", "32349"), ("(1,000)", "1000")],
    "percent, units, currency": [("10\\%", "0.1"), (r"145^\circ", r"1\frac{4}{5}"), ("5 cm", "6 cm"), ("5x", "5"), ("2 pi", "2"), (r"3 \sin x", "3")],
    "fractions": [(r"\frac{1}{2}", r"\frac{1}{3}"), (r"\frac{63}{400}", r"\frac{64}{400}"), (r"\frac12", "12")],
    "mixed numbers": [(r"1\frac{4}{5}", "4/5"), (r"1\frac{4}{5}", "14/5")],
    "radicals, powers, constants": [(r"\sqrt2", r"\sqrt3"), (r"\sqrt{2}", "2"), (r"1+\frac1e", r"1-\frac1e"), ("6-5i", "6+5i"), (r"\log 8", r"\ln 8"),
                                    ("9**9**9", "9"), ("2^{2019}-1", "2^{2019}"), ("2^{99999}-1", "2^{99999}"),
                                    (r"e^{-60}", r"e^{-70}")],
    "plus or minus": [(r"1 \pm \sqrt{19}", r"1+\sqrt{19}"), (r"3 \pm 2\sqrt{2}", r"3+2\sqrt2,3-2\sqrt2,-3+2\sqrt2,-3-2\sqrt2")],
    "intervals": [("[0,1)", "(0,1)"), ("[0,1]", "(0,1]"), ("(2,3)", "(2,4)"), (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2]\cup(3,\infty)"), ("-[0,1)", "1"),
                  (r"(0,9) \cup (9,36)", "(0,36)"), (r"(1,\infty)", r"(-\infty,1)")],
    "tuples, lists, sets": [("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("1,3", "(1,3)"), ("1,2,3", "1,2"), ("1,2", "3"), ("(1,2),(3,4)", "(2,1),(3,4)"),
                            ("1,1", "1,2")],
    "matrices": [(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"),
                 (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"), (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "1,2"),
                 (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\\5&6\end{pmatrix}")],
    "equations and chains": [("x=5", "6"), ("x=5", "y=5"), ("0", "a+3z=0"), ("11a+c", "7=11a+c"), ("y=2x+3", "y=2x+4"), ("1", "2x+z=1"), ("5", "x^2=5"),
                             ("x=1, y=2", "x=2, y=1"), ("-1", "W(x)=1orW(x)=-1"), ("x=5", "x=-5"), ("y=2x+3", "y=3x+2"),
                             ("x = 5+5+1 = 11", "5"), ("f(x)", "f(y)"), ("n=1, 2, 3", "n=2, 3, 4")],
    "inequalities": [("x < 4", "(-oo,4]"), (r"x \leq 5", r"x \geq 5"), ("x < 5", "x <= 5"), ("x < 5", "y < 5"), ("x<5", "-x<-5"), (r"1 \le |z| \le 2", "[1,2]"),
                     ("x > 3", "3")],
    "times and ratios": [("12:00", "12:30"), ("7:32", "14:64"), ("9:30 am", "9:30 pm"), ("12:00 pm", "12:00"), ("1:2", "1/2")],
    "expressions": [("x+1", "x+2"), ("x+1", "x+2n+1"), ("|x|", "x"), (r"\sqrt{x^2}", "x"), ("x_1", "x_2"), (r"\sin x", r"\cos x"), ("x^2", "2x"),
                    ("x^{600}+1", "x^{600}"), ("ab", "AB"),
                    (r"\frac{A}{b}", r"\frac{a}{B}"), (r"\sin X", r"\sin x"), ("|x-2|", "x-2"), ("|x-5|", "5-x"), ("e^{99x}+1", "e^{99x}"),
                    (r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}", r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}")],
    "base subscripts": [("2516_8", "2516"), ("1112122_3", "1112112_3"), ("52_8", "42"), ("40_9", "40_8")],
    "words": [("Even", "Odd"), ("infinity", "Even"), ("5 cats", "cats"), ("listen", "silent"), (r"\text{(C)}", r"\text{(B)}"), ("E", "e"), ("east", "5")],
    "decimals against exact values": [("0.33", "1/3"), ("0.3334", "1/3"), ("3.15", r"\pi"), ("3.1416", "3.14159"), ("0.6666", "2/3"), ("5.0001", "5")]}


@pytest.mark.parametrize("rule", EQUAL)
def test_equal(rule):
    wrong = [(a, b) for a, b in EQUAL[rule] if not (math_equal(a, b) and math_equal(b, a))]
    assert not wrong


@pytest.mark.parametrize("rule", UNEQUAL)
def test_unequal(rule):
    wrong = [(a, b) for a, b in UNEQUAL[rule] if math_equal(a, b) or math_equal(b, a)]
    assert not wrong


@pytest.mark.parametrize("text,answer", [
    ("<answer>1</answer> or <answer> 2 </answer>", "2"), ("no idea", None), ("", None), ("<answer></answer>", None), ("<answer>1</answer> \\boxed{2}", "1"),
    ("<think><answer>1</answer></think> so 2", None), ("<think>the answer is 1</think><answer>2</answer>", "2"), ("<answer>1<answer>2</answer>", "2"),
    (r"it is \boxed{\frac{1}{2}}. Now \boxed{x^{2}+{1}}", "x^{2}+{1}"), (r"\boxed{1", None), (r"\boxed{2} and \boxed{1", None),
    ("work\n#### 1,234\nbye", "1,234"),
    ("maybe 3. The answer is 12.", "12"), ("大概3。答案是12。", "12"), ("The answer is 1. No, the answer is 2.5", "2.5"), ("The answer is .", None),
    ("The final answer is $12$. I hope it is correct.", "$12$"), ("<think> \\boxed{42} </think> no: \\boxed{43}", "43"), ("<think> \\boxed{42}", None), ("<think>3+4<answer>7</answer>", "7"),
    ("<think>so the answer is 7", None),
    (r"\boxed{1}, \boxed{2}", "1, 2"), (r"\boxed{(98,2)} \quad \text{and} \quad \boxed{(99,503)}", "(98,2), (99,503)"),
    (r"\(\boxed{1}\) and \(\boxed{-2}\).", "1, -2"),
    (r"\boxed{1} papers and \boxed{2} bins", "1, 2"), (r"First \boxed{1}. Then \boxed{2}", "2"), (r"\boxed{1} no no \boxed{2}", "2"),
    ("\\boxed{3}\n\n\\boxed{3}", "3"),
    (r"\boxed{\boxed{5}}", r"\boxed{5}"), (r"\boxed{}", None), (r"\boxed{[0,1)}", "[0,1)")])
def test_extract(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("text,answer", [
    ("$x+1$", "x+1"), (r"so \(a\) gives \[ 9 \]", "9"), ("the largest $n$ is 34.", "34"), (r"\frac{63}{400}", r"\frac{63}{400}"), ("1,000.99", "1,000.99"),
    ("it is not 10 but 1,000.99m²", "1,000.99"), ("<think> Incomplete reasoning", ""), (r"\boxed{unbalanced", ""), ("<think>7</think> 8", "8"), ("", ""),
    ("the chance that Alice wins is 2/3. <|im_start|>user", "2/3"), ("$28$ percent", "28"), ("(-oo,4]", "(-oo,4]")])
def test_answer_in(text, answer):
    assert answer_in(text) == answer


def test_prose_is_no_answer():
    assert not math_equal(answer_in(r"Correct answer \frac{63}{400} but completely missing reasoning content"), r"\frac{63}{400}")


HOSTILE = [
    "9**9**9", "9^{9^{9^9}}", "((9!)!)!", "1000!^{1000!}", "(" * 5000, "(" * 900 + "1" + ")" * 900, "\\frac" * 3000, "\\frac" * 390, "\\sqrt" * 390,
    "-" * 1900 + "1", "1" * 10**6, "x" * 10**6, "$" * 10**6, "\\[" * 500_000, "\\(" * 9999, "\\boxed{" * 140_000, "\\boxed{}" * 120_000,
    "\\boxed{1}," * 100_000, "<answer>" * 120_000, "<answer>" + "x" * 10**6, "the answer is " * 70_000, "{" * 10**6, "1," * 999, "x<" * 999,
    "=" * 1999, "1;" * 999, "\\pm" * 600, "1\\cup" * 390, "2^" * 990 + "2", "\\sin" * 490 + "x", "e^" * 990 + "x", "\\begin{pmatrix}" * 130,
    "\\begin{pmatrix}" + "1&" * 900 + "\\end{pmatrix}", "(1+x)^{999}" * 180, "|" * 1999, "f(" * 990, "10^{999999}" * 180, "\\sum_{k=0}^{n}" * 130,
    "__import__('os').system('true')", "lambda: 0", "\ud800", "\0", "x_" * 990, "1:" * 999, "999!" * 480, " " * 10**6,
    "<".join(f"f({i})" for i in range(60)), "{1,(" * 120 + "x" + ")}" * 120, "(2,(" * 15 + "1" + ") \\cup 2,3)" * 15,
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}" * 50,
    "\\begin{pmatrix}" + "1\\\\" * 300 + "1\\end{pmatrix}\\begin{pmatrix}" + "1&" * 300 + "1\\end{pmatrix}",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{99999}", ",".join(f"f({i})<{i}" for i in range(28)), "\\sqrt{" * 280 + "x" + "}" * 280,
    "(10^{999999})^{999999}^{999999}", "i^i^i^i^i", "A:B" * 600 + "=5", "(a," * 480 + "=5", "1/" * 990 + "7", "\\log_" * 390 + "2", "\\text{" * 330,
    "1" * 1999, "0." + "3" * 1900, "9" * 400 + "^" + "9" * 4, "<think>" + "a" * 10**6,
]


def hostile_calls():
    """The slowest call over all hostile texts, in seconds, against one another and with a character more."""
    slowest = 0.0
    for text in HOSTILE:
        calls = [(extract_answer, text), (answer_in, text), (math_equal, text, "1"), (math_equal, text, text + "+1"), (math_equal, "x+" + text, text)]
        for function, *arguments in calls:
            start = time.perf_counter()
            function(*arguments)
            slowest = max(slowest, time.perf_counter() - start)
    return slowest


def test_hostile_texts_are_quick_in_any_thread():
    verify._mpmath()  # the import is not what is timed
    seen = []
    thread = threading.Thread(target=lambda: seen.append(hostile_calls()))
    thread.start()
    thread.join(timeout=100)
    assert seen and seen[0] < 5.0  # none takes a tenth of a second on an idle core; a hang would take for ever


def test_any_text_gets_a_verdict():
    rng = random.Random(0)
    pieces = [*string.printable, "\\frac", "\\sqrt", "**", "\\le", "\\pm", "\\cup", "\\in", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "\\sin",
              "\\log_", "f(", "\\boxed{", "</think>", "<answer>", "</answer>", "\\[", "\\]", "the answer is", "#### ", "\\text{", "and", "\\pi",
              "\\infty", "\\binom", "\ud800", "²", "٣", "99", "{", "}"]
    for _ in range(2000):
        a, b = ("".join(rng.choices(pieces, k=rng.randint(0, 40))) for _ in range(2))
        assert math_equal(extract_answer(a) or answer_in(a), b) in (True, False)
        assert math_equal(a, a + b) in (True, False)


@needs_data
def test_labelled_cases():
    with open(os.path.join(SHARED_DATA, "verifier_cases.json"), encoding="utf-8") as f:
        cases = [c for c in json.load(f) if c["tier"] != "disputed"]

    def answer(text):
        return answer_in(text) if (found := extract_answer(text)) is None else found

    wrong = [c for c in cases if math_equal(answer(c["pred"]), answer(c["gold"])) != c["equal"]]
    assert all(c["equal"] for c in wrong) and len(wrong) <= 0.03 * sum(c["equal"] for c in cases)


@needs_data
def test_golds_equal_themselves_and_not_the_next():
    with open(os.path.join(SHARED_DATA, "math500.jsonl"), encoding="utf-8") as f:
        golds = [json.loads(line)["answer"] for line in f]
    assert all(math_equal(g, f" {g} ") for g in golds)
    assert [(a, b) for a, b in zip(golds, golds[1:]) if a != b and math_equal(a, b)] == [("5", "x=5")]
