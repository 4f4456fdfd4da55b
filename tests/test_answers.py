"""Reading an answer out of a response, by worked cases."""

import time

import pytest

from tasks.answers import after_thinking, answer_in, extract_answer, in_sentence, thinking


@pytest.mark.parametrize(
    "text,answer",
    [
        ("<answer>1</answer> or <answer> 2 </answer>", "2"),
        ("no idea", None),
        ("", None),
        ("<answer></answer>", None),
        ("<answer>1</answer> \\boxed{2}", "1"),
        ("<think><answer>1</answer></think> so 2", None),
        ("<think>the answer is 1</think><answer>2</answer>", "2"),
        ("<answer>1<answer>2</answer>", "2"),
        (r"it is \boxed{\frac{1}{2}}. Now \boxed{x^{2}+{1}}", "x^{2}+{1}"),
        (r"\boxed{1", None),
        (r"\boxed{2} and \boxed{1", None),
        ("work\n#### 1,234\nbye", "1,234"),
        ("maybe 3. The answer is 12.", "12"),
        ("大概3。答案是12。", "12"),
        ("The answer is 1. No, the answer is 2.5", "2.5"),
        ("The answer is .", None),
        ("The final answer is $12$. I hope it is correct.", "$12$"),
        ("<think> \\boxed{42} </think> no: \\boxed{43}", "43"),
        ("<think> \\boxed{42}", None),
        ("<think>3+4<answer>7</answer>", "7"),
        ("<think>so the answer is 7", None),
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"\boxed{(98,2)} \quad \text{and} \quad \boxed{(99,503)}", "(98,2), (99,503)"),
        (r"\(\boxed{1}\) and \(\boxed{-2}\).", "1, -2"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"First \boxed{1}. Then \boxed{2}", "2"),
        (r"\boxed{1} no no \boxed{2}", "2"),
        ("\\boxed{3}\n\n\\boxed{3}", "3"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{}", None),
        (r"\boxed{[0,1)}", "[0,1)"),
        # Answer: to the end of the line
        (r"Answer: \frac{14}{3}", r"\frac{14}{3}"),
        ("Final answer: 2^{10}\nDone 5.", "2^{10}"),
        ("ANSWER: 8", "8"),
        ("ANSWER 8", "8"),
        ("**Answer:** $5$ apples.", "$5$ apples"),
        ("### Final Answer: 5", "5"),
        ("Answer $9$", "$9$"),
        (r"Answer \( 9 \)", r"\( 9 \)"),
        ("Answer $$ 9 $$", "$$ 9 $$"),
        ("The answer is:\n\\[\n9\n\\]\nDone.", "\\[\n9\n\\]"),
        ("The answer is therefore 12.", "12"),
        ("#### Step 1: add\n5\nThe answer is 5.", "5"),
        ("答案：8", "8"),
        ("答案为8。因为3+5=8。", "8"),
        ("Ответ: 12", "12"),
        ("Answer: She has 5 apples.", None),
        # decoration
        ("The answer is **73**.", "73"),
        ("The answer is `73`.", "73"),
        ("#### **5**", "5"),
        ("<answer>**5**</answer>", "5"),
        ("<answer>`5`</answer>", "5"),
        (r"so \fbox{18}", "18"),
        (r"\boxed {12}", "12"),
        (r"\boxed{\text{The answer is 460}}", "460"),
        (r"\textbf{Answer: 5}", "5"),
        ("The answer is 12.<|im_end|>", "12"),
        # words around it
        (r"<answer>The result is \boxed{42}.</answer>", "42"),
        (r"<answer>The result is \frac{1}{2}.</answer>", r"\frac{1}{2}"),
        ("<answer>The number of apples is 42.</answer>", "42"),
        ("<answer>结果是42。</answer>", "42"),
        ("<answer>maybe 7</answer>", "maybe 7"),
        ("The answer is 72, in total, so we stop.", "72"),
        ("The answer is (C) because it is large.", "(C)"),
        (r"\boxed{5}. The final answer is $7$. I hope so.", "$7$"),
        (r"\boxed{5}. The answer is the number of eggs", "5"),
        (r"\boxed{5 \boxed{6}", None),
        # quotes, tails, and lines of their own
        ("The answer is 42!", "42"),
        ("The answer is $5!$.", "$5!$"),
        ('The answer is "42".', "42"),
        ("<answer>'42'</answer>", "42"),
        ("The answer is __42__.", "42"),
        ("Final Answer: 42 ✅", "42"),
        ("The answer is 42, not 43.", "42"),
        ("The answer is 42 and not 43.", "42"),
        ("The answer is not 42.", "not 42"),
        ("The answer is 42; see step 2.", "42"),
        ("The answer is 42 when x = 3.", "42"),
        ("The answer is 42 for n = 3.", "42"),
        ("The answer is x+1 for all x.", "x+1 for all x"),
        ("The answer is:\n\n- 42", "42"),
        ("The answer is - 42", "- 42"),
        ("The answer is:\n> 42", "42"),
        ("The answer is:\n```\n42\n```", "42"),
        ("#### Final Answer\n42", "42"),
    ],
)
def test_extract(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text,answer",
    [
        ("$x+1$", "x+1"),
        (r"so \(a\) gives \[ 9 \]", "9"),
        ("the largest $n$ is 34.", "34"),
        (r"\frac{63}{400}", r"\frac{63}{400}"),
        ("1,000.99", "1,000.99"),
        ("it is not 10 but 1,000.99m²", "1,000.99"),
        (r"so the value that we want is 2\sqrt{5}", ""),
        ("so the value that we want is 2^{10}.", ""),
        (r"Correct answer \frac{63}{400} but no reasoning", ""),
        ("so there are 3 + 4", ""),
        ("so it is less than 5", ""),
        ("so there are at least 5", ""),
        ("the value of 5 x is known", ""),
        ("hence there are 3 million people", "3 million"),
        ("it costs 5.4 cents in all", "5.4 cents"),
        ("it takes her 1 1/2 hours", "1 1/2 hours"),
        ("they met at 12:30 again", "12:30"),
        ("the roots are 3 and 5.", "3, 5"),
        ("the roots are $1$, $2$, and $x$.", "1, 2, x"),
        ("so the number is **73**.", "73"),
        (r"so we get **2\sqrt{5}** here", r"2\sqrt{5}"),
        ("**73**", "73"),
        ("`73`", "73"),
        (r"$\$32$", r"\$32"),
        ("所以最大的数是34。", "34"),
        ("したがって合計は34になります", "34"),
        ("Следовательно, их число равно 34.", "34"),
        ("সুতরাং মোট আপেলের সংখ্যা 34", "34"),
        ("<think> Incomplete reasoning", ""),
        (r"\boxed{unbalanced", ""),
        ("<think>7</think> 8", "8"),
        ("", ""),
        ("the chance that Alice wins is 2/3. <|im_start|>user", "2/3"),
        ("$28$ percent", "28 percent"),
        ("(-oo,4]", "(-oo,4]"),
        ("We get 5 + 2 = 7.", "7"),  # two words that work something out
        ("5 plus 2 equals 7", "7"),
        ("Total: 5+2 = 7 apples", "7"),
        ("log 100 = 2", "2"),
        ("x + 2 = 7", "x + 2 = 7"),
        ("if x = 7", "if x = 7"),
        ("x_1 = 2 and x_2 = -3", "x_1 = 2 and x_2 = -3"),  # but these are answers as they stand
        ("x^2 + y^2 = 25 (circle)", "x^2 + y^2 = 25 (circle)"),
        ("x + 2y - 3 = 0 (line)", "x + 2y - 3 = 0 (line)"),
        ("20/3 ≈ 6.67 hours", "20/3 ≈ 6.67 hours"),
        (r"Area = 6^2 = 36\pi", r"Area = 6^2 = 36\pi"),
        ("sum = 2 + 3 = 5i", "sum = 2 + 3 = 5i"),
    ],
)
def test_answer_in(text, answer):
    assert answer_in(text) == answer


def test_long_free_text_is_read_quickly():
    start = time.perf_counter()
    for text in ("so 1=" + "1" * 20_000 + "=", "aa 1 + " * 3000 + "= 2", "(" * 9000 + "aa 1 = 2"):
        answer_in(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "text,answer",
    [
        ("Janet makes $42 per day", r"\$42 per day"),
        ("He has 42 apples left", "42"),
        ("It takes 42 hours", "42 hours"),
        ("The sum is $x+1$ dollars", "x+1 dollars"),
        ("Total: 42", "42"),
        ("= 42", "42"),
        ("≈42", "42"),
        ("Thus, x = 42", "42"),
        ("exactly 42", "42"),
        ("approximately 42", "42"),
        ("simply $42$", "42"),
        ("a total of 42", "42"),
        ("小明一共有42个苹果", "42"),
        ("共42元", "42元"),
        ("所以一共有42个", "42"),
    ],
)
def test_the_only_number_of_a_sentence(text, answer):
    assert in_sentence(text) == answer


@pytest.mark.parametrize(
    "text",
    r"""at least 42|He has at least 42|He has up to 42 apples|more than 42|not 42|He cannot have 42
    42 or more|He has 42 or more|It is half of 42|twice 42|the cube root of 42|a square of 42
    sin 42|He divided it by 42|It is a multiple of 42|one in 42|The sum of 42 and seven
    He has 42 percent less|He has 42 tenths|He has 42x apples|It is 42 factorial|It is the 42nd one
    He has 42 apples and 3 pears|It is 40+2|12 apples|x = 5|mn=5|March 5|B: 12|f(42)|(2,3)
    至少42个|小明没有42个|不是42|第42天|一百42|3倍是42""".replace("\n    ", "|").split("|"),
)
def test_other_numbers_are_not_taken_from_a_sentence(text):
    assert in_sentence(text) == text


def test_an_answer_may_be_a_sentence():
    text = "<think>the answer is 5</think><answer>The answer is 7.</answer>"
    assert extract_answer(text) == "7"
    assert extract_answer("<think>x</think><answer>答案是(1+2)*3。</answer>") == "(1+2)*3"
    program = "def f(x): return x+3"
    assert extract_answer(f"<think>x</think><answer>The answer is {program}.</answer>") == program


@pytest.mark.parametrize(
    "text,before,after",
    [
        ("<think>a</think>b", "a", "b"),
        ("a</think>b", "a", "b"),
        ("a", "a", "a"),
        ("<think>a", "a", ""),
        ("<think>a<answer>b", "a", "<answer>b"),
        ("<think>a</think>b</think>c", "a", "c"),
    ],
)
def test_thinking_and_what_follows(text, before, after):
    assert thinking(text) == before and after_thinking(text) == after
