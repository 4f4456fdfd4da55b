"""Reading an answer out of a response, by worked cases."""

import pytest

from tasks.answers import after_thinking, answer_in, extract_answer, thinking


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
        ("<think> Incomplete reasoning", ""),
        (r"\boxed{unbalanced", ""),
        ("<think>7</think> 8", "8"),
        ("", ""),
        ("the chance that Alice wins is 2/3. <|im_start|>user", "2/3"),
        ("$28$ percent", "28"),
        ("(-oo,4]", "(-oo,4]"),
    ],
)
def test_answer_in(text, answer):
    assert answer_in(text) == answer


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
