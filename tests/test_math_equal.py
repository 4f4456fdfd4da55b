"""The comparison of mathematical answers, by worked cases."""

import json
import os
import random
import re
import string
import threading
import time

import pytest
from conftest import SHARED_DATA

from tasks.answers import answer_in, extract_answer
from tasks.math_equal import math_equal
from tasks.math_value import mpmath_context

cases_file = os.path.join(SHARED_DATA, "verifier_cases.json")
needs_data = pytest.mark.skipif(not os.path.exists(cases_file), reason="no benchmark files here")

# A rule, and pairs of answers: a line may hold several, and a pair may take two lines.
EQUAL = {
    "plain numbers": r"""
        7 ≡ 7 ‖ 7.0 ≡ 7 ‖ .1 ≡ 0.1 ‖ -3 ≡ - 3 ‖ +3 ≡ 3 ‖ 004 ≡ 4 ‖ 18. ≡ 18 ‖ 1/2 ≡ 0.5
    """,
    "separators": r"""
        1,000 ≡ 1000 ‖ 1,234,567.5 ≡ 1234567.5 ‖ 10,\!080 ≡ 10080 ‖ 14{,}916 ≡ 14916
        32\,348 ≡ 32348 ‖ 11,\! 111,\! 100 ≡ 11111100 ‖ x=1,000 ≡ 1000 ‖ 32,\! 349 ≡ 32349
        1 000 ≡ 1000 ‖ 12 345 678.5 ≡ 12345678.5
    """,
    "spellings of numbers": r"""
        0.\overline{3} ≡ 1/3 ‖ -0.1\overline{6} ≡ -1/6 ‖ 1.\bar{27} ≡ 14/11 ‖ 0.(3) ≡ \frac13
        1e-3 ≡ 0.001 ‖ 1.5E3 ≡ 1500 ‖ 3 x 10^8 ≡ 3*10^8 ‖ ½ ≡ 1/2 ‖ 1½ ≡ 3/2 ‖ １２ ≡ 12
        （１，２） ≡ (1,2) ‖ x⁴ ≡ x^4 ‖ 10¹² ≡ 10^{12} ‖ ৪২.৫ ≡ 42.5 ‖ = 42 ≡ 42 ‖ \approx 42 ≡ 42
    """,
    "words that change the value": r"""
        3 million ≡ 3000000 ‖ $2.5$ million ≡ 2500000 ‖ 3 hundred thousand ≡ 300000 ‖ 3万元 ≡ 30000
        2 dozen eggs ≡ 24 ‖ 3 squared ≡ 9 ‖ \$3 million ≡ 3000000 dollars
        42억 ≡ 4200000000 ‖ 42만 ≡ 420000 ‖ 3 млн ≡ 3 millones ‖ 2 тыс ≡ 2 mille ‖ 3 score ≡ 60
        2 crore ≡ 200 lakh ‖ 3 lakh ≡ 300000
    """,
    "percent, units, currency": r"""
        10\% ≡ 10 ‖ 28 percent ≡ 28% ‖ 5\text{ cm} ≡ 5 ‖ 15\mbox{ cm}^2 ≡ 15 ‖ 35 cm ≡ 35
        $18 ≡ 18 ‖ \$32,\!348 ≡ 32348 ‖ 90^\circ ≡ 90 ‖ 90^{\circ} ≡ 90 ‖ 30° ≡ 30
        \frac{270}7\text{ degrees} ≡ 270/7 ‖ 12 apples ≡ 12 ‖ 5 seconds ≡ 5 ‖ 5元 ≡ 5
        10\text{ m/s} ≡ 10 ‖ 3\text{ m}^2 ≡ 3 ‖ 60 miles per hour ≡ 60
        12^{\mathrm{th}} \text{ grade} ≡ 12 ‖ 5 square feet ≡ 5 ‖ $125$ miles ≡ 125
        864 sq in ≡ 864\mbox{ inches}^2 ‖ 5 kilometers ≡ 5\text{ km} ‖ 60 mph ≡ 60 miles per hour
        12\text{ m} ≡ 12 metres ‖ 5厘米 ≡ 5 cm ‖ 12dollars ≡ \$12 ‖ 12 red apples ≡ 12 apples
        5 cups of sugar ≡ 5 ‖ 5 яблок ≡ 5 ‖ 5\ \text{m} ≡ 5 ‖ 3/4 of a mile ≡ 3/4
        28 pct ≡ 28%
        60 \mathrm{~m} ≡ 60 ‖ 60\text{ m} ≡ 60 \mathrm{~m} ‖ 60\mathrm{~g} ≡ 60 ‖ 6 \mathrm{~L} ≡ 6
        60 \mathrm{~km} / \mathrm{h} ≡ 60\text{ km/h} ‖ 60 \mathrm{~m} / \mathrm{s} ≡ 60\text{ m/s}
        60 \mathrm{~m}^{2} ≡ 60\text{ m}^2 ‖ 25 °C ≡ 25 ‖ 25^\circ\mathrm{C} ≡ 25 degrees ‖ 25℃ ≡ 25
        12 secs ≡ 12 seconds ‖ US$12 ≡ 12 dollars ‖ USD 12 ≡ \$12 ‖ 12th ≡ 12 ‖ 12\text{th} ≡ 12
        2nd ≡ 2 ‖ 12 months ≡ 12
    """,
    "fractions": r"""
        \frac{1}{2} ≡ 1/2 ‖ \dfrac{2}{4} ≡ \tfrac12 ‖ \frac12 ≡ 0.5 ‖ \frac 59 ≡ 5/9
        \frac9{19} ≡ 9/19 ‖ -\frac{1}{4} ≡ -0.25 ‖ \frac{-1}{4} ≡ -\frac14
        \frac94\pi ≡ \frac{9\pi}{4} ‖ \frac{\sqrt{3}}2 ≡ \sqrt3/2
        {1\over 2} ≡ 1/2 ‖ 1 \over 2 ≡ 1/2 ‖ {x+1\over2} ≡ \frac{x+1}2 ‖ \nicefrac12 ≡ \sfrac{1}{2}
    """,
    "mixed numbers": r"""
        1\frac{4}{5} ≡ 9/5 ‖ -1\frac45 ≡ -1.8 ‖ 137 1/2 ≡ 137.5 ‖ 137 \frac{1}{2} ≡ 275/2
        2\frac{\pi}{3} ≡ \frac{2\pi}{3}
    """,
    "radicals, powers, constants": r"""
        \sqrt2 ≡ \sqrt{2} ‖ \sqrt{8} ≡ 2\sqrt2 ‖ \sqrt[3]{-8} ≡ -2
        \frac{1}{\sqrt{2}} ≡ \frac{\sqrt{2}}{2} ‖ 2^{10} ≡ 1024 ‖ 2^{2019}-1 ≡ -1+2^{2019}
        2**3 ≡ 8 ‖ \pi ≡ pi ‖ √2 ≡ \sqrt 2 ‖ sqrt(12) ≡ 2\sqrt{3} ‖ 6-5i ≡ -5i+6
        e^2 ≡ \mathrm{e}^{2} ‖ \log_2 8 ≡ 3 ‖ \ln e^3 ≡ 3 ‖ \sin 30 ≡ \sin(30) ‖ 5! ≡ 120
        \binom{5}{2} ≡ 10 ‖ -2^2 ≡ -4 ‖ 8^{-1/3} ≡ 0.5 ‖ \sqrt{-4} ≡ 2i ‖ (1+i)^2 ≡ 2i
    """,
    "plus or minus": r"""
        1 \pm \sqrt{19} ≡ 1-\sqrt{19}, 1+\sqrt{19}
        \{1\pm\sqrt{5},-2\} ≡ \{-2,1-\sqrt5,1+\sqrt5\} ‖ x = \pm 2 ≡ 2, -2 ‖ \pm 3 ≡ \mp 3
    """,
    "intervals": r"""
        (1, +\infty) ≡ (1,\infty) ‖ (-oo,4] ≡ (-\infty, 4] ‖ [0,9) ≡ \left[0, 9\right)
        (1,4.5) ≡ (1,\frac92) ‖ (-\infty,2)\cup(3,\infty) ≡ (3,\infty) \cup (-\infty,2)
        x \in (2,12) \cup (12,102) ≡ (2,12) \cup (12,102)
        x \in [-2,7] ≡ [-2,7] ‖ \{-1\} \cup [0,7) ≡ [0,7) \cup \{-1\}
    """,
    "tuples, lists, sets": r"""
        (1,2) ≡ ( 1, 2 ) ‖ 1,2 ≡ 2, 1 ‖ {1,3} ≡ \{3, 1\} ‖ {1,3} ≡ 3,1 ‖ 12\text{ and }13 ≡ 13, 12
        6 or 8 ≡ 8,6 ‖ 19, 46, and 82 ≡ 82, 19 and 46 ‖ (1,2),(3,4) ≡ (3,4);(1,2) ‖ (0;-2) ≡ (0,-2)
        (2,3)or(3,2) ≡ (3,2),(2,3) ‖ p=5,q=2;p=7,q=2 ≡ (5,2),(7,2) ‖ 2,2 or 3 ≡ 3,2
        \boxed{2}, \boxed{3} ≡ 2,3
    """,
    "matrices": r"""
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
            ≡ \left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right]
        \begin{bmatrix}0.5\\1\\\end{bmatrix} ≡ \begin{pmatrix}\frac{1}{2}\\1\end{pmatrix}
        \begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}1&0\end{pmatrix}
            ≡ \begin{pmatrix}2&2\end{pmatrix}
        2\begin{pmatrix}1\\x\end{pmatrix} ≡ \begin{pmatrix}2\\2x\end{pmatrix}
        \begin{pmatrix}0&1\\1&0\end{pmatrix}\begin{pmatrix}2\\3\end{pmatrix}
            ≡ \begin{pmatrix}3\\2\end{pmatrix}
    """,
    "equations and chains": r"""
        x=5 ≡ 5 ‖ y = 2x+3 ≡ 2x+3 ‖ y=2x+3 ≡ 2x-y+3=0 ‖ x=5 ≡ 2x=10 ‖ x = 5+5+1 = 11 ≡ 11
        a=4, b=5 ≡ b=5, a=4 ‖ a=4, b=5 ≡ 4, 5 ‖ x=1/3\approx1.3 ≡ 1/3 ‖ x\approx11 ≡ 11
        f(x)=1 ≡ 1 ‖ |AB|=1 ≡ 1 ‖ A:B=1 ≡ 1 ‖ (p,q,r)=(3,2,7) ≡ (3,2,7)
        \frac{NO}{BO}=\frac{1}{\sqrt{6}} ≡ \frac{\sqrt6}{6} ‖ n=1, 2, 3 ≡ \{3,2,1\}
        a_{37} = 19, a_3=2 ≡ a_3 = 2, a_{37} = 19 ‖ 1+1=2 ≡ 2
        5=x ≡ 5 ‖ E[X]=5 ≡ 5 ‖ \cos\theta=\frac12 ≡ 1/2 ‖ 40+2=42\text{ dollars} ≡ 42
        x^2/16 + y^2/12 = 1/4 ≡ x^2/4 + y^2/3 = 1
    """,
    "inequalities": r"""
        5 \geq x ≡ x \leq 5 ‖ x <= 2 ≡ x \le 2 ‖ x \gt 5 ≡ 5 < x ‖ -x >= -1 ≡ x <= 1
        -2 \le x < 7 ≡ [-2,7) ‖ x > 3 ≡ (3,\infty) ‖ x != 5 ≡ x \neq 5 ‖ x \not= 5 ≡ x≠5
        3 < \lambda \le 4 ≡ (3,4]
        f(2) < f(1) < f(4) ≡ f(4)>f(1)>f(2) ‖ 2x < 4 ≡ x < 2 ‖ 7>x>1 ≡ (1,7)
        -\infty < x \le 3 ≡ (-\infty,3]
    """,
    "times and ratios": r"12:00 ≡ 12:00 ‖ 7:32 ≡ S_{MBCN}:S=7:32 ‖ 9:30 am ≡ 9:30 A.M.",
    "expressions": r"""
        x + 1 ≡ 1+x ‖ \frac{x+2}{7} ≡ \frac{x}{7}+\frac{2}{7} ‖ (a+5)(b+2) ≡ ab+2a+5b+10
        2 \sin b \cos a ≡ 2\cos(a) \sin(b) ‖ |x-2| ≡ |2-x| ‖ x_1+x_2 ≡ x_{2}+x_{1}
        \alpha\beta ≡ \beta \alpha ‖ \frac{1}{3x^{2/3}} ≡ \frac{1}{3\sqrt[3]{x}^2}
        \sin^2 x + \cos^2 x ≡ 1 ‖ \ln(xy) ≡ \ln x+\ln y ‖ f(x+1) ≡ f(1+x) ‖ 2|x||y| ≡ 2|xy|
        \cot x ≡ \frac{\cos x}{\sin x}
        F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k ≡ F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}
        \pi r^2 ≡ r^2 pi ‖ x^{600}+1 ≡ 1+x^{600}
    """,
    "base subscripts": r"2516_8 ≡ 2516_{8} ‖ 4210_{5} ≡ 4210_5",
    "words": r"""
        \text{Even} ≡ Even ‖ EVELYN ≡ \text{Evelyn} ‖ \text{(C)} ≡ C ‖ \text{e} ≡ e ‖ no ≡ No
        \textbf{east} ≡ East ‖ HHT ≡ (HHT) ‖ ab ≡ ba ‖ A \to B ≡ A\to B
    """,
    "noise": r"""
        \left( 3, \frac{\pi}{2} \right) ≡ $(3,\frac{\pi}{2})$ ‖ \displaystyle x+1 ≡ \( x \! + 1 \)
        \[ 5 \] ≡ $$5$$ ‖ 5. ≡ 5 ‖ \\frac{1}{2} ≡ 0.5
        \\left(\\frac{1}{5},2\\right) ≡ (\frac15,2) ‖ \boxed{14/3} ≡ 14/3 ‖ 1,\quad 2 ≡ 1,2
        \fbox{18} ≡ 18 ‖ \boldsymbol{\frac12} ≡ 1/2 ‖ \underline{5} ≡ 5 ‖ \color{red}{18} ≡ 18
        \textcolor{red}{18} ≡ 18 ‖ \mathbf{x+1} ≡ x+1
    """,
    "decimals against exact values": r"""
        0.0833333333333333 ≡ \frac{1}{12} ‖ 3.1416 ≡ \pi ‖ (0.6,2.6667] ≡ (\frac35,\frac83]
        1.4142 ≡ \sqrt2
    """,
}
UNEQUAL = {
    "plain numbers": r"""
        3 ≠ -3 ‖ 12 ≠ 1 ‖ 1/0 ≠ 0 ‖ 1,23 ≠ 123 ‖ ٣ ≠ 3 ‖ 1 2 ≠ 12 ‖ 32 ≠ \frac{3}{2}
        1.22 ≠ 1.2200001 ‖ 1^\circ 2 ≠ 12
    """,
    "spellings of numbers": r"0.\overline{3} ≠ 0.3 ‖ 1e-3 ≠ e-3 ‖ 1½ ≠ 1/2 ‖ 10¹² ≠ 1012",
    "words that change the value": r"""
        42억 ≠ 42 ‖ 42만 ≠ 42 ‖ 42兆 ≠ 42 ‖ 42 млн ≠ 42 ‖ 42 тыс ≠ 42 ‖ 42 lakh ≠ 42 ‖ 42 crore ≠ 42
        42 mille ≠ 42 ‖ 42 mil ≠ 42 ‖ 42 millones ≠ 42 ‖ 42 Millionen ≠ 42 ‖ 5 twelfths ≠ 5
        5 sixteenths ≠ 5 ‖ 5 twentieths ≠ 5 ‖ 3 score ≠ 3 ‖ 3 doubled ≠ 3 ‖ 3 tripled ≠ 3
        3 less ≠ 3 ‖ 42\text{ percent less} ≠ 42 ‖ 42th root ≠ 42
        3 million ≠ 3 ‖ 3 million ≠ 3 billion ‖ 2 dozen ≠ 2 ‖ 3 squared ≠ 3 ‖ 3万 ≠ 3 ‖ 3个半 ≠ 3
        5 less than 7 ≠ 5 ‖ 3 halves ≠ 3 ‖ 3 and a half ≠ 3 ‖ 5 factorial ≠ 5
    """,
    "separators": r"1 000 ≠ 1 ‖ 1,22 ≠ 1.22 ‖ 32, 349 ≠ 32349 ‖ (1,000) ≠ 1000",
    "percent, units, currency": r"""
        12 m ≠ 12 cm ‖ 12\text{ m} ≠ 12\text{ cm} ‖ 5.4 dollars ≠ 5.4\text{ cents}
        $5.4 ≠ 5.4 cents ‖ 5 cm ≠ 5 feet ‖ 15 cm ≠ 15\mbox{ cm}^2 ‖ 60 miles ≠ 60 mph ‖ €5 ≠ $5
        12 apples ≠ 12 oranges ‖ 60 \mathrm{~m} ≠ 60\text{ cm} ‖ 60 \mathrm{~m} ≠ 60 \mathrm{~m}^{2}
        60\mathrm{~g} ≠ 60\mathrm{~L} ‖ 25 °C ≠ 25 °F ‖ 12 secs ≠ 12 minutes ‖ USD 12 ≠ €12
        2 st ≠ 2 ‖ 60 \mathrm{~km} / \mathrm{h} ≠ 60 \mathrm{~m} / \mathrm{s}
        10\% ≠ 0.1 ‖ 145^\circ ≠ 1\frac{4}{5} ‖ 5 cm ≠ 6 cm ‖ 5x ≠ 5 ‖ 2 pi ≠ 2 ‖ 3 \sin x ≠ 3
    """,
    "fractions": r"""
        \frac{1}{2} ≠ \frac{1}{3} ‖ \frac{63}{400} ≠ \frac{64}{400} ‖ \frac12 ≠ 12
    """,
    "mixed numbers": r"1\frac{4}{5} ≠ 4/5 ‖ 1\frac{4}{5} ≠ 14/5",
    "radicals, powers, constants": r"""
        \sqrt2 ≠ \sqrt3 ‖ \sqrt{2} ≠ 2 ‖ 1+\frac1e ≠ 1-\frac1e ‖ 6-5i ≠ 6+5i ‖ \log 8 ≠ \ln 8
        9**9**9 ≠ 9 ‖ 2^{2019}-1 ≠ 2^{2019} ‖ 2^{99999}-1 ≠ 2^{99999} ‖ e^{-60} ≠ e^{-70}
    """,
    "plus or minus": r"""
        1 \pm \sqrt{19} ≠ 1+\sqrt{19}
        3 \pm 2\sqrt{2} ≠ 3+2\sqrt2,3-2\sqrt2,-3+2\sqrt2,-3-2\sqrt2
    """,
    "intervals": r"""
        [0,1) ≠ (0,1) ‖ [0,1] ≠ (0,1] ‖ (2,3) ≠ (2,4)
        (-\infty,2)\cup(3,\infty) ≠ (-\infty,2]\cup(3,\infty) ‖ -[0,1) ≠ 1
        (0,9) \cup (9,36) ≠ (0,36) ‖ (1,\infty) ≠ (-\infty,1)
    """,
    "tuples, lists, sets": r"""
        (1,2) ≠ (2,1) ‖ (1,2) ≠ (1,2,3) ‖ 1,3 ≠ (1,3) ‖ 1,2,3 ≠ 1,2 ‖ 1,2 ≠ 3
        (1,2),(3,4) ≠ (2,1),(3,4) ‖ 1,1 ≠ 1,2
    """,
    "matrices": r"""
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} ≠ \begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} ≠ \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \end{pmatrix} ≠ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \end{pmatrix} ≠ 1,2
        \begin{pmatrix}1&2\\3&4\end{pmatrix} ≠ \begin{pmatrix}1&2\\3&4\\5&6\end{pmatrix}
    """,
    "equations and chains": r"""
        x=5 ≠ 6 ‖ x=5 ≠ y=5 ‖ 0 ≠ a+3z=0 ‖ 11a+c ≠ 7=11a+c ‖ y=2x+3 ≠ y=2x+4 ‖ 1 ≠ 2x+z=1
        5 ≠ x^2=5 ‖ x=1, y=2 ≠ x=2, y=1 ‖ -1 ≠ W(x)=1orW(x)=-1 ‖ x=5 ≠ x=-5 ‖ y=2x+3 ≠ y=3x+2
        a+b=0 ≠ 0 ‖ m+n=116 ≠ 117 ‖ m+n=116 ≠ x+1 ‖ 5=x ≠ 6 ‖ 5=3x ≠ 5 ‖ 40+2=42 tenths ≠ 42
        x = 5+5+1 = 11 ≠ 5 ‖ f(x) ≠ f(y) ‖ n=1, 2, 3 ≠ n=2, 3, 4
    """,
    "inequalities": r"""
        x < 4 ≠ (-oo,4] ‖ x \leq 5 ≠ x \geq 5 ‖ x < 5 ≠ x <= 5 ‖ x < 5 ≠ y < 5 ‖ x<5 ≠ -x<-5
        1 \le |z| \le 2 ≠ [1,2] ‖ x > 3 ≠ 3
    """,
    "times and ratios": r"""
        12:00 ≠ 12:30 ‖ 7:32 ≠ 14:64 ‖ 9:30 am ≠ 9:30 pm ‖ 12:00 pm ≠ 12:00 ‖ 1:2 ≠ 1/2
    """,
    "expressions": r"""
        x+1 ≠ x+2 ‖ x+1 ≠ x+2n+1 ‖ |x| ≠ x ‖ \sqrt{x^2} ≠ x ‖ x_1 ≠ x_2 ‖ \sin x ≠ \cos x
        x^2 ≠ 2x ‖ x^{600}+1 ≠ x^{600} ‖ ab ≠ AB ‖ \frac{A}{b} ≠ \frac{a}{B} ‖ \sin X ≠ \sin x
        |x-2| ≠ x-2 ‖ |x-5| ≠ 5-x ‖ e^{99x}+1 ≠ e^{99x}
        F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2} ≠ F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}
    """,
    "base subscripts": r"2516_8 ≠ 2516 ‖ 1112122_3 ≠ 1112112_3 ‖ 52_8 ≠ 42 ‖ 40_9 ≠ 40_8",
    "words": r"""
        Even ≠ Odd ‖ infinity ≠ Even ‖ 5 cats ≠ cats ‖ listen ≠ silent ‖ \text{(C)} ≠ \text{(B)}
        no ≠ on ‖ is ≠ si ‖ A \to B ≠ B \to A ‖ A \subset B ≠ B \subset A
        A \supset B ≠ B \supset A ‖ AB \perp CD ≠ CD \perp AB ‖ p \Rightarrow q ≠ q \Rightarrow p
        p \implies q ≠ q \implies p ‖ x \mapsto y ≠ y \mapsto x
        E ≠ e ‖ east ≠ 5 ‖ HHT ≠ HTH ‖ IV ≠ VI ‖ A-B-C ≠ A-C-B
    """,
    "decimals against exact values": r"""
        0.33 ≠ 1/3 ‖ 0.3334 ≠ 1/3 ‖ 3.15 ≠ \pi ‖ 3.1416 ≠ 3.14159 ‖ 0.6666 ≠ 2/3 ‖ 5.0001 ≠ 5
    """,
}
MORE_EQUAL = [(" 7 ", "7"), ("1" * 1000, "1" * 1000)]
MORE_UNEQUAL = [("", "0"), ("", ""), ("1" * 1000, "1"), ("10" + "0" * 60, "10" + "0" * 59 + "1")]


def pairs(text: str, sign: str) -> list[tuple[str, str]]:
    lines = "\n".join(line.strip() for line in text.strip().split("\n"))
    lines = lines.replace(f"\n{sign}", f" {sign}")
    return [tuple(pair.split(f" {sign} ")) for pair in re.split(r"\n| ‖ ", lines)]


@pytest.mark.parametrize("rule", EQUAL)
def test_equal(rule):
    cases = pairs(EQUAL[rule], "≡") + (MORE_EQUAL if rule == "plain numbers" else [])
    assert not [(a, b) for a, b in cases if not (math_equal(a, b) and math_equal(b, a))]


@pytest.mark.parametrize("rule", UNEQUAL)
def test_unequal(rule):
    cases = pairs(UNEQUAL[rule], "≠") + (MORE_UNEQUAL if rule == "plain numbers" else [])
    assert not [(a, b) for a, b in cases if math_equal(a, b) or math_equal(b, a)]


@pytest.mark.parametrize(
    "pred,gold,equal",
    [
        ("1,3,5", "1,3,5", True),
        ("1, 3 and 5", "1,3,5", True),
        ("5,3,1", "1,3,5", False),
        ("1,3", "1,3,5", False),
        ("C, A, B", "A, B, C", False),
        (r"\{5,3,1\}", "1,3,5", False),
        ("5,3,1", r"\{1,3,5\}", True),
        ("5,3,1", "1, 3 and 5", True),
        ("5,3,1", "x=1,3,5", True),
        ("-2,1", "1,-2", True),
        ("(3,4),(1,2),(5,6)", "(1,2),(3,4),(5,6)", True),
    ],
)
def test_a_bare_row_is_a_sequence(pred, gold, equal):
    assert math_equal(pred, gold) == equal


@pytest.mark.parametrize(
    "pred,gold,equal",
    [
        ("m+n=116", "116", True),
        ("116", "m+n=116", False),  # of a gold it would be a line
        (r"\frac34, or 0.75", "3/4", True),
        (r"\frac34, 0.75", "3/4", True),
        (r"\frac34 \approx 0.75", "3/4", True),
        (r"\frac34, or 0.76", "3/4", False),
        ("3/4", "3/4, 0.76", False),
    ],
)
def test_rules_for_predictions(pred, gold, equal):
    assert math_equal(pred, gold) == equal


def test_prose_is_no_answer():
    text = r"Correct answer \frac{63}{400} but completely missing reasoning content"
    assert not math_equal(answer_in(text), r"\frac{63}{400}")


HOSTILE = [
    "9**9**9",
    "9^{9^{9^9}}",
    "((9!)!)!",
    "1000!^{1000!}",
    "(" * 5000,
    "(" * 900 + "1" + ")" * 900,
    "\\frac" * 3000,
    "\\frac" * 390,
    "\\sqrt" * 390,
    "-" * 1900 + "1",
    "1" * 10**6,
    "x" * 10**6,
    "$" * 10**6,
    "\\[" * 500_000,
    "\\(" * 9999,
    "\\boxed{" * 140_000,
    "\\boxed{}" * 120_000,
    "\\boxed{1}," * 100_000,
    "<answer>" * 120_000,
    "<answer>" + "x" * 10**6,
    "the answer is " * 70_000,
    "{" * 10**6,
    "1," * 999,
    "x<" * 999,
    "=" * 1999,
    "1;" * 999,
    "\\pm" * 600,
    "1\\cup" * 390,
    "2^" * 990 + "2",
    "\\sin" * 490 + "x",
    "e^" * 990 + "x",
    "\\begin{pmatrix}" * 130,
    "\\begin{pmatrix}" + "1&" * 900 + "\\end{pmatrix}",
    "(1+x)^{999}" * 180,
    "|" * 1999,
    "f(" * 990,
    "10^{999999}" * 180,
    "\\sum_{k=0}^{n}" * 130,
    "__import__('os').system('true')",
    "lambda: 0",
    "\ud800",
    "\0",
    "x_" * 990,
    "1:" * 999,
    "999!" * 480,
    " " * 10**6,
    "<".join(f"f({i})" for i in range(60)),
    "{1,(" * 120 + "x" + ")}" * 120,
    "(2,(" * 15 + "1" + ") \\cup 2,3)" * 15,
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}" * 50,
    "\\begin{pmatrix}"
    + "1\\\\" * 300
    + "1\\end{pmatrix}\\begin{pmatrix}"
    + "1&" * 300
    + "1\\end{pmatrix}",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{99999}",
    ",".join(f"f({i})<{i}" for i in range(28)),
    "\\sqrt{" * 280 + "x" + "}" * 280,
    "(10^{999999})^{999999}^{999999}",
    "i^i^i^i^i",
    "A:B" * 600 + "=5",
    "(a," * 480 + "=5",
    "1/" * 990 + "7",
    "\\log_" * 390 + "2",
    "\\text{" * 330,
    "1" * 1999,
    "0." + "3" * 1900,
    "9" * 400 + "^" + "9" * 4,
    "<think>" + "a" * 10**6,
    "**a " * 250_000,
    "answer: " * 120_000,
    "1and" * 250,
    "3" + " million" * 120,
    "1" + "苹" * 900 + "x",
    "1e9999^9999",
    "that we found is " + "1 and " * 3000,
    "." + "1" * 900 + "(3)",
]


def hostile_calls():
    """The slowest call over all hostile texts, in seconds.

    Each text is compared with others and with itself and a character more.
    """
    slowest = 0.0
    for text in HOSTILE:
        calls = [(extract_answer, text), (answer_in, text), (math_equal, text, "1")]
        calls += [(math_equal, text, text + "+1"), (math_equal, "x+" + text, text)]
        for function, *arguments in calls:
            start = time.perf_counter()
            function(*arguments)
            slowest = max(slowest, time.perf_counter() - start)
    return slowest


def test_hostile_texts_are_quick_in_any_thread():
    mpmath_context()  # the import is not what is timed
    seen = []
    thread = threading.Thread(target=lambda: seen.append(hostile_calls()))
    thread.start()
    thread.join(timeout=100)
    assert (
        seen and seen[0] < 5.0
    )  # 10,000 characters take under 0.05 s on an idle core; a hang never ends


def test_any_text_gets_a_verdict():
    rng = random.Random(0)
    pieces = r"\frac|\sqrt|**|\le|\pm|\cup|\in|\begin{pmatrix}|\end{pmatrix}|\\|\sin|\log_|f("
    pieces += (
        r"|\boxed{|</think>|<answer>|</answer>|\[|\]|the answer is|#### |\text{|and|\pi|\infty"
    )
    pieces = [*string.printable, *pieces.split("|"), *r"\binom ² ٣ 99 { }".split(), "\ud800"]
    for _ in range(2000):
        a, b = ("".join(rng.choices(pieces, k=rng.randint(0, 40))) for _ in range(2))
        assert math_equal(extract_answer(a) or answer_in(a), b) in (True, False)
        assert math_equal(a, a + b) in (True, False)


@needs_data
def test_labelled_cases():
    with open(cases_file, encoding="utf-8") as f:
        cases = [c for c in json.load(f) if c["tier"] != "disputed"]

    def answer(text):
        return answer_in(text) if (found := extract_answer(text)) is None else found

    wrong = [c for c in cases if math_equal(answer(c["pred"]), answer(c["gold"])) != c["equal"]]
    assert all(c["equal"] for c in wrong)
    assert len(wrong) <= 3


@needs_data
def test_golds_equal_themselves_and_not_the_next():
    with open(os.path.join(SHARED_DATA, "math500.jsonl"), encoding="utf-8") as f:
        golds = [json.loads(line)["answer"] for line in f]
    assert all(math_equal(g, f" {g} ") for g in golds)
    same = [(a, b) for a, b in zip(golds, golds[1:]) if a != b and math_equal(a, b)]
    assert same == [("5", "x=5")]


WORDINGS = [
    r"So it is \boxed{%s}.",
    "$%s$",
    "The answer is %s.",
    "**%s**",
    "Answer: %s",
    "7 + 8\n#### %s",
    "<think>7</think><answer>The result is %s.</answer>",
]


@needs_data
@pytest.mark.parametrize("wording", WORDINGS)
def test_golds_in_words(wording):
    """A fifth of them; bench/check_verifier.py takes all."""
    with open(os.path.join(SHARED_DATA, "math500.jsonl"), encoding="utf-8") as f:
        golds = [json.loads(line)["answer"] for line in f][::5]
    for gold, following in zip(golds, golds[1:]):
        text = wording.replace("%s", gold)
        found = extract_answer(text) or answer_in(text)
        assert math_equal(found, gold), text
        assert gold == following or not math_equal(found, following), text
