"""Benchmark files: their layouts (LAYOUTS), what a model is asked, how programs are judged, and
what is held out of a file."""

import ast
import json
import re
import warnings
from dataclasses import dataclass

from lib.errors import UserError, shortened
from tasks import TASKS, sandbox
from tasks.answers import ANSWER_BLOCK, after_thinking
from tasks.base import LANGUAGES, PROGRAMS, Problem, by_value, is_test

# What a chat model is asked (in mathematics DeepSeek-R1's words); base models have templates.
_FUNCTION = "Complete the following Python function. Answer with the whole function in a "
INSTRUCTIONS = {
    "math": "{}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "countdown": "{}\n\nPlease reason step by step, and put the expression within \\boxed{{}}.",
    "humaneval": _FUNCTION + "```python block.\n\n```python\n{}```",
    "mbpp": "{}\n\nAnswer with the whole program in a ```python block.",
}


def instruction(problem: Problem, chat: bool) -> str:
    """The problem, and for chat models how to answer it."""
    return INSTRUCTIONS.get(problem.task, "{}").format(problem.prompt) if chat else problem.prompt


def judge_of(task: str):
    """The task's (problems, answers) -> list[bool]; a file may name tasks nobody registered."""
    if task in PROGRAMS:
        return judge
    return TASKS[task].judge if task in TASKS else by_value


def parse_row(line: str, where: str) -> Problem:
    """The problem of a line of JSON. UserError that names `where` if it fits no layout."""
    try:
        row = _fields(line)
        for _, fields, read in LAYOUTS:
            if set(fields.split()) <= row.keys():
                return read(row)
        known = ", ".join(name for name, _, _ in LAYOUTS)
        told = f"fields {shortened(sorted(row), 30)} are not prompt, answer, task"
        raise UserError(f"{told}, nor those of {known}")
    except ValueError as e:
        raise UserError(f"{where}: {e}: fix or remove the line") from None


def _fields(line: str) -> dict:
    """The fields, with names in lower case (some AIME files have "Problem")."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise UserError(f"not JSON ({e})") from None
    if not isinstance(row, dict):
        raise UserError(f"a {type(row).__name__}, not an object with fields")
    return {name.lower(): value for name, value in row.items()}


def _text(row: dict, name: str) -> str:
    value = row[name]
    if name == "answer" and type(value) is int:  # AIME
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"'{name}' should be a non-empty text")
    return value


def _python(name: str, source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python about the source
            return ast.parse(source)
    except (SyntaxError, ValueError) as e:
        raise UserError(f"'{name}' is not Python ({e})") from None


def _countdown(row: dict) -> Problem:
    numbers, target = row["numbers"], row["target"]
    whole = isinstance(numbers, list) and all(type(n) is int for n in [*numbers, target])
    if not (whole and numbers and min(numbers) >= 0):
        raise UserError("'numbers' should be a list of whole numbers from 0, 'target' one number")
    prompt = f"Using the numbers {numbers}, create an equation that equals {target}. "
    prompt += "Use each number once, with + - * / and parentheses."
    if "prompt" in row:
        prompt = _text(row, "prompt")
    tests = {"numbers": numbers, "target": target}
    return Problem(prompt, str(row.get("gold_expr", "")), "countdown", "en", tests)


def _ours(row: dict) -> Problem:
    language, task = row.get("language", "en"), row["task"]
    if language not in LANGUAGES:
        raise UserError(f"'language' should be one of {LANGUAGES}")
    if judge_of(str(task)) is not by_value:
        raise UserError(f"'{task}' needs more than an answer (Countdown: 'numbers' and 'target')")
    return Problem(_text(row, "prompt"), _text(row, "answer"), _text(row, "task"), language)


def _gsm8k(row: dict) -> Problem:
    _, mark, answer = _text(row, "answer").rpartition("####")
    aime = type(row["answer"]) is int  # some of its files have "question" too
    if not (mark or aime) or not answer.strip():
        raise UserError("the 'answer' does not end in '#### number' as GSM8K's do")
    return Problem(_text(row, "question"), answer.strip(), "math")


def _math(row: dict) -> Problem:
    return Problem(_text(row, "problem"), _text(row, "answer"), "math")


def _humaneval(row: dict) -> Problem:
    prompt, entry, test = (_text(row, name) for name in ("prompt", "entry_point", "test"))
    for name, source, function in ("prompt", prompt, entry), ("test", test, "check"):
        if function not in _functions(_python(name, source)):
            raise UserError(f"'{name}' does not define the function '{function}'")
    tests = {"entry": entry, "prelude": prompt, "asserts": f"{test}\ncheck({entry})"}
    solution = prompt + str(row.get("canonical_solution", ""))
    return Problem(prompt, solution, "humaneval", "en", tests)


def _mbpp(row: dict) -> Problem:
    """The prompt shows the tests, as the paper's does [Austin et al. 2021, 2108.07732, section 3]:
    they say what the function is called."""
    lists = row["test_list"], row.get("test_imports", []), [row.get("test_setup_code", "")]
    if not all(isinstance(x, list) and all(isinstance(s, str) for s in x) for x in lists):
        raise UserError("'test_list' and 'test_imports' should be lists, 'test_setup_code' a text")
    text, code = _text(row, "text" if "text" in row else "prompt"), _text(row, "code")
    asserts, setup = "\n".join(lists[0]), "\n".join([*lists[1], *lists[2]])
    solution, used = _python("code", code), [*ast.walk(_python("test_list", asserts))]
    _python("test_setup_code", setup)
    calls = [n.func.id for n in used if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    entry = next((name for name in calls if name in _functions(solution)), None)
    if entry is None:
        raise UserError("'test_list' calls no function that 'code' defines")
    names = {n.id for n in used if isinstance(n, ast.Name)}
    imports = [n for n in solution.body if isinstance(n, ast.Import | ast.ImportFrom)]
    # some tests rely on what the solution imports
    prelude = [ast.unparse(n) for n in imports if names & {a.asname or a.name for a in n.names}]
    prompt = f"You are an expert Python programmer, and here is your task: {text} "
    prompt += f"Your code should pass these tests:\n\n{asserts}"
    tests = {"entry": entry, "prelude": "\n".join([*prelude, setup]), "asserts": asserts}
    return Problem(prompt, code, "mbpp", "en", tests)


def _functions(module: ast.Module) -> set[str]:
    return {n.name for n in module.body if isinstance(n, ast.FunctionDef)}


LAYOUTS = (  # name, fields that tell it, reader; the first that fits
    ("Countdown", "numbers target", _countdown),
    ("ours", "prompt answer task", _ours),
    ("HumanEval", "prompt entry_point test", _humaneval),
    ("MBPP", "text code test_list", _mbpp),
    ("sanitised MBPP", "prompt code test_list", _mbpp),
    ("GSM8K", "question answer", _gsm8k),  # the answer ends in "#### 7"
    ("MATH and AIME", "problem answer", _math),  # AIME: a whole number, as a text or not
)

_FENCED = re.compile(r"```([^`\n]*)\n(.*?)(?:```|\Z)", re.DOTALL)
# where a continued function has ended [Chen et al. 2021, 2107.03374, section 2.2]
_STOPS = re.compile(r"\n(?:class|def|#|if|print|```)")


def program_in(problem: Problem, text: str) -> str | None:
    """The program in a response to HumanEval or MBPP, or None. It is the last ```python block after
    the thinking, else the last that names no language, else the <answer>. HumanEval's prompt, which
    may define helpers, stands before it; a response with none of these continues the prompt, up to
    the next function."""
    text = after_thinking(text)
    fenced = [(language.strip().lower(), code) for language, code in _FENCED.findall(text)]
    blocks = [code for language, code in fenced if language in ("python", "py")]
    blocks = blocks or [code for language, code in fenced if not language]
    blocks = blocks or ANSWER_BLOCK.findall(text)
    if problem.task == "mbpp":
        return blocks[-1] if blocks else None
    return f"{problem.prompt}\n{blocks[-1]}" if blocks else problem.prompt + _STOPS.split(text)[0]


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    """Which programs pass their problem's suite of asserts; they run side by side."""
    jobs = [(answer, sandbox.Suite(**p.tests)) for p, answer in zip(problems, answers)]
    return sandbox.in_parallel(sandbox.passes, jobs)


def load_jsonl(path: str, limit: int | None = None) -> list[Problem]:
    """The problems of a JSONL file, at most `limit`.
    UserError that names the file or the line for anything else; nothing is skipped silently."""
    try:
        with open(path, encoding="utf-8") as f:
            rows = [(number, line) for number, line in enumerate(f, 1) if line.strip()]
    except OSError as e:
        hint = "give the path of a JSONL file"
        raise UserError(f"cannot read '{path}' ({e.strerror}): {hint}") from None
    except UnicodeDecodeError as e:
        raise UserError(f"'{path}' is not UTF-8 text ({e.reason}): convert it first") from None
    if not rows:
        raise UserError(f"'{path}' holds no problems: give a JSONL file with one problem a line")
    return [parse_row(line, f"{path}, line {number}") for number, line in rows[:limit]]


@dataclass
class Dataset:
    """Problems of files, instead of the world's."""

    train: list[Problem]
    test: list[Problem]
    about_test: str  # for the reader of the table

    @classmethod
    def load(cls, path: str, test_path: str | None = None) -> "Dataset":
        """Without a file of test problems a fifth of the others is held out by content: a problem
        that stands there twice is on one side. A file of a few problems is trained on as a whole.
        """
        problems = load_jsonl(path)
        if test_path:
            test = load_jsonl(test_path)
            prompts = {p.prompt for p in test}
            train = [p for p in problems if p.prompt not in prompts]
            if not train:
                raise UserError(f"all problems of '{path}' are in '{test_path}' too: use others")
            if len(train) < len(problems):
                print(f"{len(problems) - len(train)} problems are in the test file too: left out")
            return cls(train, test, f"problems of {test_path}, which were not trained on")
        test = [p for p in problems if is_test(p.prompt)]
        if len(problems) < 20 or len(test) == len(problems) or not test:
            return cls(problems, problems, f"TRAINING problems of {path}: too few to hold any out")
        train = [p for p in problems if not is_test(p.prompt)]
        return cls(train, test, f"problems of {path}, held out by content: not trained on")
