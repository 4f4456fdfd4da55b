"""Benchmark files: their layouts (LAYOUTS), what a model is asked, how programs are judged, and
what is held out of a file."""

import ast
import contextlib
import functools
import gzip
import itertools
import json
import math
import random
import re
import textwrap
import warnings
import zlib
from dataclasses import dataclass

from lib.errors import UserError, shortened
from tasks import TASKS, sandbox
from tasks.answers import ANSWER_BLOCK, after_thinking, extract_answer
from tasks.base import LANGUAGES, PROGRAMS, Problem, by_value, is_test

# What a chat model is asked (in mathematics DeepSeek-R1's words); base models have templates.
_FUNCTION = "Complete the following Python function. Answer with the whole function in a "
INSTRUCTIONS = {
    "math": "{}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "countdown": "{}\n\nPlease reason step by step, and put the expression within \\boxed{{}}.",
    "humaneval": _FUNCTION + "```python block.\n\n```python\n{}```",
    "mbpp": "{}\n\nAnswer with the whole program in a ```python block.",
    "stdin": "{}\n\nWrite a Python program that reads the input from stdin and prints the output. "
    "Answer with the whole program in a ```python block.",
}
INSTRUCTIONS["multiple_choice"] = INSTRUCTIONS["math"]
LETTERS = "ABCDEFGHIJ"  # of choices


def instruction(problem: Problem, chat: bool) -> str:
    """The problem, and for chat models how to answer it."""
    return INSTRUCTIONS.get(problem.task, "{}").format(problem.prompt) if chat else problem.prompt


def check_sandbox(tasks, mode: str) -> None:
    """For scripts, before the work. UserError if these tasks have programs run, which this machine
    cannot limit, unless the setting --sandbox is "weak"."""
    sandbox.allow(mode)
    if {"code", *PROGRAMS} & set(tasks):
        sandbox.layers()


def judge_of(task: str):
    """The task's (problems, answers) -> list[bool]; a file may name tasks nobody registered."""
    if task in PROGRAMS:
        return judge
    if task == "multiple_choice":
        return judge_choices
    return TASKS[task].judge if task in TASKS else by_value


def parse_row(line: str, where: str) -> Problem:
    """The problem of a line of JSON. UserError that names `where` if it fits no layout."""
    try:
        row = _fields(line)
        for _, fields, read in LAYOUTS:
            if set(fields.split()) <= row.keys():
                return read(row)
        known = ", ".join(dict.fromkeys(name for name, _, _ in LAYOUTS))
        told = f"fields {shortened(sorted(row), 30)} are not prompt, answer, task"
        raise UserError(f"{told}, nor those of {known}")
    except ValueError as e:
        raise UserError(f"{where}: {e}: fix or remove the line") from None


def _fields(line: str) -> dict:
    """The fields, with names in lower case (some AIME files have "Problem") and without spaces. A
    lone surrogate, which is no character, becomes U+FFFD."""
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
        row = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError) as e:
        raise UserError(f"not JSON that can be read ({shortened(e)})") from None
    if not isinstance(row, dict):
        raise UserError(f"a {type(row).__name__}, not an object with fields")
    row = {name.lower().replace(" ", "_"): value for name, value in row.items()}
    verl = row.get("reward_model")
    if isinstance(verl, dict) and (truth := verl.get("ground_truth")) is not None:
        row |= truth if isinstance(truth, dict) else {"answer": truth}
    return row


def _text(row: dict, name: str) -> str:
    value, number = row[name], type(row[name]) in (int, float) and abs(row[name]) < math.inf
    if number and name in ("answer", "solution", "choices"):  # 33 (AIME), 142.0
        value = str(int(value) if value == int(value) else value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"'{name}' should be a non-empty text")
    return value


def _prompt(row: dict, name: str) -> str:
    """A text, or of chat messages the system's and the user's."""
    if isinstance(row[name], str):
        return _text(row, name)
    with contextlib.suppress(KeyError, TypeError):
        said = [(m["role"], m["content"]) for m in row[name] if m["role"] != "assistant"]
        if [role for role, _ in said] in (["user"], ["system", "user"]):
            return _text({name: "\n\n".join(text for _, text in said).strip()}, name)
    raise UserError(f"'{name}' should be a text, or messages of which one is the user's")


def _python(name: str, source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python about the source
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise UserError(f"'{name}' is not Python ({type(e).__name__}: {e})") from None


def _countdown(row: dict) -> Problem:
    numbers, target = row["numbers" if "numbers" in row else "nums"], row["target"]
    whole = isinstance(numbers, list) and all(type(n) is int for n in [*numbers, target])
    if not (whole and numbers and min(numbers) >= 0):
        raise UserError("'numbers' should be a list of whole numbers from 0, 'target' one number")
    prompt = f"Using the numbers {numbers}, create an equation that equals {target}. "
    prompt += "Use each number once, with + - * / and parentheses."
    if "prompt" in row:
        prompt = _prompt(row, "prompt")
    tests = {"numbers": numbers, "target": target}
    return Problem(prompt, str(row.get("gold_expr", "")), "countdown", "en", tests)


def _ours(row: dict) -> Problem:
    language, task = row.get("language", "en"), row["task"]
    if language not in LANGUAGES:
        raise UserError(f"'language' should be one of {LANGUAGES}")
    if judge_of(str(task)) is not by_value:
        raise UserError(f"'{task}' needs more than an answer (Countdown: 'numbers' and 'target')")
    return Problem(_prompt(row, "prompt"), _text(row, "answer"), _text(row, "task"), language)


def _question(row: dict) -> Problem:
    """A question, and its answer: what a text ends in (GSM8K) or marks (MATH), or a short text."""
    asked = next(n for n in ("question", "problem", "prompt", "messages") if n in row)
    name, most_words = ("answer", 100) if "answer" in row else ("solution", 5)
    text = _text(row, name).strip()
    _, mark, last = text.rpartition("####")
    answer = last.strip() if mark else extract_answer(text)
    if not answer and (mark or len(text.split()) > most_words):
        raise UserError(f"'{name}' ends in no '#### number' and has no \\boxed{{answer}}")
    return Problem(_prompt(row, asked), answer or text, "math")


def _choice(row: dict) -> Problem:
    """Multiple choice. The answer is a letter, an index from 0 or a choice's text."""
    found = row.get("choices", row.get("options", [row[x] for x in LETTERS.lower() if x in row]))
    if not isinstance(found, list) or not 2 <= len(found) <= len(LETTERS):
        raise UserError(f"the choices should be a list of 2 to {len(LETTERS)} texts")
    choices = [_text({"choices": x}, "choices").strip() for x in found]
    letters, right = LETTERS[: len(choices)], _text(row, "answer").strip()
    names = dict(zip("0123456789", letters))
    if type(row["answer"]) is not int:
        names |= dict(zip(choices, letters)) | dict(zip(letters + letters.lower(), letters * 2))
    if right not in names:
        raise UserError("'answer' should be a choice's letter, index from 0, or text")
    told = "\n".join(f"{letter}) {text}" for letter, text in zip(letters, choices))
    prompt = f"{_text(row, 'question')}\n\n{told}\n\nAnswer with the letter of the right choice."
    return Problem(prompt, names[right], "multiple_choice", "en", {"choices": choices})


def _gpqa(row: dict) -> Problem:
    """The right choice stands first in each row: they are shuffled, always in the same way."""
    choices = [row.get(f"incorrect_answer_{i}") for i in (1, 2, 3)] + [row["correct_answer"]]
    order = random.Random(f"{row['question']} {choices}").sample(range(4), 4)
    return _choice(row | {"choices": [choices[i] for i in order], "answer": order.index(3)})


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


def _decoded(row: dict, name: str) -> object:
    """A field that may be written as JSON; None if it is not there, or text of another kind."""
    value = row.get(name)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def _cases(tests: object) -> list[list[str]]:
    """[[input, output], ...] of [{"input": a text or its lines, "output": the same}, ...]"""
    cases = []
    for test in tests if isinstance(tests, list) else []:
        test = test if isinstance(test, dict) else {}
        if test.get("testtype", "stdin") != "stdin":
            raise UserError("it asks for a function: only programs that read stdin are judged")
        pair = [test.get(name) for name in ("input", "output")]
        pair = [x if isinstance(x, list) else [x] for x in pair]
        if not all(isinstance(line, str) for lines in pair for line in lines):
            raise UserError(
                "a test should have an 'input' and an 'output': texts or lists of lines"
            )
        cases.append(["\n".join(lines) for lines in pair])
    return cases


def _stdin(row: dict, prompt: str, cases: list[list[str]]) -> Problem:
    """A problem whose program reads stdin."""
    if not cases:
        raise UserError("it has no tests: they should be a list of inputs and outputs")
    tests, seconds = {"cases": cases}, row.get("time_limit")
    if seconds is not None:
        if type(seconds) not in (int, float) or not 0 < seconds <= 60:
            raise UserError("'time_limit' should be a number of seconds, at most 60")
        tests["seconds"] = seconds
    return Problem(prompt, "", "stdin", "en", tests)


def _apps(row: dict) -> Problem:
    found = _decoded(row, "input_output")
    found = found if isinstance(found, dict) else {}
    lists = [found.get(name) for name in ("inputs", "outputs")]
    pairs = itertools.zip_longest(*lists) if all(isinstance(x, list) for x in lists) else []
    kind = "functional" if "fn_name" in found else "stdin"
    tests = [{"input": x, "output": y, "testtype": kind} for x, y in pairs]
    return _stdin(row, _text(row, "question"), _cases(tests))


def _livecodebench(row: dict) -> Problem:
    public, private = (_decoded(row, f"{kind}_test_cases") for kind in ("public", "private"))
    if private is None and row.get("private_test_cases"):
        _say_once("private_test_cases are compressed, not JSON: only public_test_cases are used")
    return _stdin(row, _text(row, "question_content"), _cases(public) + _cases(private))


@functools.cache
def _say_once(text: str) -> None:
    print(text)


def _codeforces(row: dict) -> Problem:
    """The prompt shows the examples; these and the official tests are run."""
    if row.get("interaction_format") or (row.get("input_mode") or "stdio") != "stdio":
        raise UserError("it does not read stdin alone: only programs that do are judged")
    if row.get("generated_checker"):
        raise UserError("several outputs are right, and its 'generated_checker' is not run here")
    examples, official = (_cases(_decoded(row, x)) for x in ("examples", "official_tests"))
    parts = [_text(row, "description")]
    for name, head in (("input_format", "Input"), ("output_format", "Output")):
        parts += [f"{head}\n{row[name]}"] if row.get(name) else []
    parts += [f"Example input\n{x.strip()}\n\nExample output\n{y.strip()}" for x, y in examples]
    parts += [f"Note\n{row['note']}"] if row.get("note") else []
    cases = examples + [case for case in official if case not in examples]
    return _stdin(row, "\n\n".join(parts), cases)


def _functions(module: ast.Module) -> set[str]:
    return {n.name for n in module.body if isinstance(n, ast.FunctionDef)}


LAYOUTS = (  # name, fields that tell it, reader; the first that fits
    ("Countdown", "numbers target", _countdown),
    ("Countdown", "nums target", _countdown),  # Countdown-Tasks
    ("ours", "prompt answer task", _ours),
    ("HumanEval", "prompt entry_point test", _humaneval),
    ("MBPP", "text code test_list", _mbpp),
    ("MBPP", "prompt code test_list", _mbpp),  # sanitised
    ("APPS", "question input_output", _apps),
    ("LiveCodeBench", "question_content public_test_cases", _livecodebench),
    ("Codeforces", "description examples", _codeforces),
    ("Codeforces", "description official_tests", _codeforces),
    ("GPQA", "question correct_answer incorrect_answer_1", _gpqa),
    ("MMLU", "question choices answer", _choice),
    ("MMLU", "question options answer", _choice),  # MMLU-Pro
    ("C-Eval", "question a b answer", _choice),
    ("GSM8K", "question answer", _question),  # the answer ends in "#### 7", or is one
    ("MATH", "problem answer", _question),  # and AIME: a whole number, as a text or not
    ("MATH", "problem solution", _question),
    ("chat", "prompt answer", _question),
    ("chat", "prompt solution", _question),
    ("chat", "messages answer", _question),
    ("chat", "messages solution", _question),
)

_FENCED = re.compile(r"(`{3,}|^[ \t]*~{3,})([^`~\n]*)\n(.*?)(?:\1|\Z)", re.DOTALL | re.MULTILINE)
_CODE = re.compile(  # a line of Python
    r"(?:def|class|if|elif|for|while|with) .*:|(?:else|try|except.*):|from \S+ import |[@#)\]}]"
    r"|import [\w.]+(?: as \w+|,.*)?\s*$|[\w.\[\], ]+ [-+*/]?= |\w+\(|\s|$"
)
_BODY = re.compile(r"\s*\n?(?: {2,}|\t)(?![`~\s])")  # an indented line: it continues the prompt
# where a continued function has ended [Chen et al. 2021, 2107.03374, section 2.2]
_STOPS = re.compile(r"\n(?:class|def|#|if|print|```)")


def program_in(problem: Problem, text: str) -> str | None:
    """The program in a response to HumanEval or MBPP, or None: the last ```python block after the
    thinking, else the last that names no language, else the <answer>. A block that defines the
    function under test (or if stdin is read: that is Python and prints) comes before all that do
    not, even if nothing fences it. HumanEval's prompt, which may define helpers, stands before it;
    a response with none of these continues it."""
    text, entry = after_thinking(text), re.escape(problem.tests.get("entry", ""))
    named = re.compile(rf"^(?:def|class) +{entry}\s*[(:]|^{entry}\s*=(?!=)", re.MULTILINE)
    defines = _prints if problem.task == "stdin" else named.search
    before = f"{problem.prompt}\n" if problem.task == "humaneval" else ""
    continues, blocks = before and _BODY.match(text), []  # (kind, code)
    for _, info, code in _FENCED.findall(text):
        language = re.sub(r"\W*(\w*).*", r"\1", info.lower())  # also of {python} title="f.py"
        kind = {"python": 4, "python3": 4, "py": 4, "": 3}.get(language, 1)
        flush = code if defines(code) else textwrap.dedent(code)  # of a fence in a list
        blocks.append((kind, flush if defines(flush) else code))
    blocks += [(2, code) for code in ANSWER_BLOCK.findall(text)]
    runs = itertools.groupby(text.split("\n"), lambda line: bool(_CODE.match(line)))
    bare = [(0, "\n".join(run)) for is_code, run in runs if is_code and not continues]
    bare += [(0, text)] if problem.task == "stdin" else []  # it may be a program and nothing else
    found = [(kind, code) for kind, code in [*bare, *blocks] if defines(code)]
    found = found or [(kind, code) for kind, code in blocks if kind > 1 and not continues]
    if found:
        return before + max(reversed(found), key=lambda block: block[0])[1]
    return problem.prompt + _STOPS.split(text)[0] if before else None


def _prints(code: str) -> bool:
    """Whether a text is a Python program that may print something."""
    try:
        return bool(re.search(r"\b(?:print|write)", code) and _python("code", code))
    except UserError:
        return False


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    """Which programs pass their problem's suite of asserts, or print what they should; they run
    side by side."""
    jobs = [(answer, PROGRAMS[p.task](**p.tests)) for p, answer in zip(problems, answers)]
    return sandbox.in_parallel(sandbox.passes, jobs)


_DECORATION = re.compile(r"\\(?:text\w*|math[a-z]+|boxed|left|right)\b|[\s*`$\\{}]+")
_CHOSEN = re.compile(  # "C", "(C)", "C. Paris", "C is right", "so it is C" at the end; not "A, C"
    r"(?i)^(?:option|choice|选项)?\W*([A-J])(?:\W*(?:$|because|正确|is (?:the )?(?:correct|right))"
    r"|\s*[).:：、–—-](?!\W*(?:and|or|和|或)?\W*[A-J]\W*$))"
    r"|(?:\b(?:is|be|so|thus|hence|therefore|choose|option|choice)|[为是选→:：])\W*([A-J])\W*$"
)


def choice_in(problem: Problem, text: str) -> str | None:
    """The letter that a response to multiple choice gives, where it marks an answer, else in its
    last line, or None. The whole text of a choice stands for its letter."""
    said = extract_answer(text) or after_thinking(text).strip().rpartition("\n")[2]
    texts = [_DECORATION.sub(" ", t) for t in (said, *problem.tests["choices"])]
    said, *texts = [" ".join(t.split()).strip(" .。,;").casefold() for t in texts]
    if len(said) > 1 and texts.count(said) == 1:
        return LETTERS[texts.index(said)]
    found = _CHOSEN.search(said)
    letter = (found[1] or found[2]).upper() if found else None
    return letter if letter in list(LETTERS[: len(texts)]) else None


def judge_choices(problems: list[Problem], answers: list[str]) -> list[bool]:
    return [choice_in(p, answer) == p.answer for p, answer in zip(problems, answers)]


def load_jsonl(path: str, limit: int | None = None) -> list[Problem]:
    """The problems of a file, JSONL (.gz too) or parquet, at most `limit`.
    UserError that names the file or the line for anything else; nothing is skipped silently."""
    try:
        if path.endswith(".parquet"):
            from pyarrow import parquet  # only who has such files needs it

            lines = [json.dumps(row, default=str) for row in parquet.read_table(path).to_pylist()]
        else:
            opened = gzip.open if path.endswith(".gz") else open
            with opened(path, "rt", encoding="utf-8-sig") as f:
                lines = f.readlines()
    except UnicodeDecodeError as e:
        raise UserError(f"'{path}' is not UTF-8 text ({e.reason}): convert it first") from None
    except ImportError:
        raise UserError(f"'{path}' needs pyarrow: pip install pyarrow, or use JSONL") from None
    except (OSError, EOFError, zlib.error, ValueError) as e:  # pyarrow's are ValueErrors
        hint = f"({getattr(e, 'strerror', None) or shortened(e)}): give the path of a JSONL file"
        raise UserError(f"cannot read '{path}' {hint}") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
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
