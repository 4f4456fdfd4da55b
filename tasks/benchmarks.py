"""Benchmark files: their layouts (LAYOUTS), what a model is asked, how programs are judged, and
what is held out of a file."""

import ast
import contextlib
import gzip
import itertools
import json
import math
import random
import re
import sys
import textwrap
import warnings
import zlib
from dataclasses import dataclass

from lib.errors import UserError, say_once, shortened
from tasks import TASKS, sandbox
from tasks.answers import ANSWER_BLOCK, after_thinking, extract_answer, in_sentence
from tasks.base import LANGUAGES, PROGRAMS, VALUES, Problem, by_value, split_of
from tasks.choice import LETTERS, judge_choices, letter_of, without_letters

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
# names of columns in files; of several the first that is not empty counts
ASKED = "question|problem|query|question_stem|prompt|messages"
CONTEXT = "body|passage|context|article|text"  # what a question is about
ANSWER = "answer|final_answer|final_ans|answer_number|golden|expected_answer|ground_truth"
RIGHT = "answer|answerkey|correct|correct_option|label|gold"  # of choices
_ANSWERS = {*ANSWER.split("|"), *RIGHT.split("|"), "solution", "choices"}


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
            if all(_first(row, names) for names in fields.split()):
                return read(row)
        known = ", ".join(dict.fromkeys(name for name, _, _ in LAYOUTS))
        msg = f"fields {shortened(sorted(row), 30)} are not prompt, answer, task"
        raise UserError(f"{msg}, nor those of {known}")
    except ValueError as e:
        raise UserError(f"{where}: {e}: fix or remove the line") from None


def _fields(line: str) -> dict:
    """The fields that are not null, with names in lower case (some AIME files have "Problem") and
    without spaces. A lone surrogate, which is no character, becomes U+FFFD."""
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
        row = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError) as e:
        raise UserError(f"not JSON that can be read ({shortened(e)})") from None
    if not isinstance(row, dict):
        raise UserError(f"a {type(row).__name__}, not an object with fields")
    named = {name.lower().replace(" ", "_"): value for name, value in row.items()}
    empty = {"choices": [[], "", {}], "options": [[], "", {}], "time_limit": [""]}
    row = {k: v for k, v in named.items() if v is not None and v not in empty.get(k, [])}
    verl = _decoded(row, "reward_model")
    if isinstance(verl, dict) and verl.get("ground_truth") is not None:
        row |= _ground_truth(verl)
    for name in _ANSWERS & row.keys():
        if isinstance(row[name], list) and len(row[name]) == 1:
            row[name] = row[name][0]
    return row


def _ground_truth(verl: dict) -> dict:
    """The fields that it stands for; it may be JSON text ("[1, 2]" is not: an interval)."""
    truth = _decoded(verl, "ground_truth")
    tests = truth[0] if isinstance(truth, list) and truth else truth
    if isinstance(tests, dict):
        return truth if tests is truth and "inputs" not in truth else {"tests": truth}
    truth = truth[0] if isinstance(truth, list) and [*map(type, truth)] == [str] else truth
    return {"answer": truth if isinstance(truth, str) else verl["ground_truth"]}


def _first(row: dict, names: str) -> str | None:
    """The first of these columns that a row has, if possible not an empty one."""
    found = [name for name in names.split("|") if name in row]
    return next((name for name in found if str(row[name]).strip()), (found or [None])[0])


def _text(row: dict, name: str) -> str:
    value, number = row[name], type(row[name]) in (int, float) and abs(row[name]) < math.inf
    if number and name in _ANSWERS:  # 33 (AIME), 142.0
        value = str(int(value) if value == int(value) else value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"'{name}' should be a non-empty text")
    return value


def _prompt(row: dict, name: str) -> str:
    """A text, or of chat messages, which may be written as JSON, the system's and the user's."""
    written = isinstance(row[name], str) and row[name].lstrip().startswith('[{"role"')
    messages = _decoded(row, name) if written else row[name]
    if not isinstance(messages, list):
        return _text(row, name)
    with contextlib.suppress(KeyError, TypeError):
        said = [(m["role"], _content(m)) for m in messages if m["role"] != "assistant"]
        if [role for role, _ in said] in (["user"], ["system", "user"], ["developer", "user"]):
            return _text({name: "\n\n".join(text for _, text in said).strip()}, name)
    raise UserError(f"'{name}' should be a text, or messages of which one is the user's")


def _content(message: dict) -> str:
    """A message's text, which may be in parts: [{"type": "text", "text": "..."}]."""
    content = message["content"]
    return "".join(p["text"] for p in content) if isinstance(content, list) else content


def _asked(row: dict) -> str:
    """The question, after the text that it is about."""
    asked, context = _prompt(row, _first(row, ASKED)), row.get(_first(row, CONTEXT))
    if not isinstance(context, str):
        return asked
    texts = asked, context
    question, about = ("".join(text.split()) for text in texts)
    letters, others = (re.sub(r"[\W_]+", "", text.casefold()) for text in texts)
    if about in question or letters in others:  # one has the other; the text may hold the answer
        return asked
    return f"{context.strip()}\n\n{asked}"


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
    if judge_of(str(task)) not in VALUES:
        raise UserError(f"'{task}' needs more than an answer (Countdown: 'numbers' and 'target')")
    return Problem(_prompt(row, "prompt"), _text(row, "answer"), _text(row, "task"), language)


_UNBRACED = re.compile(r"\\(?:boxed|fbox)\s*([^\s{}$\\]+?)(?=[.,;]?(?:[\s$]|\\[)\]]|\Z))")


def _question(row: dict) -> Problem:
    """A question, and its answer: what a text ends in (GSM8K) or marks (MATH), or a short text."""
    name = _first(row, f"{ANSWER}|solution|response")
    most_words = 5 if name in ("solution", "response") else 100
    text = _UNBRACED.sub(r"\\boxed{\1}", _text(row, name).strip())
    _, mark, last = text.rpartition("####")
    answer = last.strip().split("\n")[0] if mark else extract_answer(text)
    if not answer and (mark or len(text.split()) > most_words):
        raise UserError(f"'{name}' ends in no '#### number' and has no \\boxed{{answer}}")
    return Problem(_asked(row), _gold(answer or text), "math")


def _gold(text: str) -> str:
    """The mathematics of an answer that is a sentence: "Tom has 7 apples left." """
    sentence = len(re.findall("[A-Za-z]{2,}", text)) > 2
    return in_sentence(text) if sentence else re.sub(r"^\*\*([^*]+)\*\*$", r"\1", text)


def _choice(row: dict) -> Problem:
    """Multiple choice. The answer is a letter or label, an index from 0 or a choice's text."""
    name, column = _first(row, RIGHT), _first(row, "choices|options")
    letters = {x: row[x] for x in LETTERS.lower() if x in row}
    found, labels = _decoded(row, column) if column else letters, []
    if isinstance(found, list) and all(isinstance(x, dict) and "text" in x for x in found):
        found = {str(x.get("label", i)): x["text"] for i, x in enumerate(found)}
    if isinstance(found, dict):  # {"text": [...], "label": [...]} or {"A": ..., "B": ...}
        found = {label: text for label, text in found.items() if text is not None}
        labels, found = found.get("label", [*found]), found.get("text", [*found.values()])
    if not isinstance(found, list) or not 2 <= len(found) <= len(LETTERS):
        raise UserError(f"the choices should be a list of 2 to {len(LETTERS)} texts")
    choices = without_letters([_text({"choices": x}, "choices").strip() for x in found])
    answer = letter_of(_text(row, name), choices, labels, type(row[name]) is int)
    if answer is None:
        raise UserError(f"'{name}' should be a choice's letter, index from 0, or text")
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, choices))
    prompt = f"{_asked(row)}\n\n{listed}\n\nAnswer with the letter of the right choice."
    return Problem(prompt, answer, "multiple_choice", "en", {"choices": choices})


def _gpqa(row: dict) -> Problem:
    """The right choice stands first in each row: they are shuffled, always in the same way."""
    choices = [row.get(f"incorrect_answer_{i}") for i in (1, 2, 3)] + [row["correct_answer"]]
    order = random.Random(f"{row['question']} {choices}").sample(range(4), 4)
    return _choice(row | {"choices": [choices[i] for i in order], "answer": order.index(3)})


# What HumanEval+'s tests need of numpy, which the sandbox does not have
_NUMPY = """
import sys
class numpy:
    ndarray = type("ndarray", (), {})
    float32 = float64 = float
    def allclose(a, b, rtol=1e-5, atol=1e-8):
        if hasattr(a, "__len__") or hasattr(b, "__len__"):
            a = a if hasattr(a, "__len__") else [a] * len(b)
            b = b if hasattr(b, "__len__") else [b] * len(a)
            return len(a) == len(b) and all(numpy.allclose(x, y, rtol, atol) for x, y in zip(a, b))
        return bool(a == b or abs(a - b) <= atol + rtol * abs(b))
    isclose = allclose
sys.modules["numpy"] = numpy
"""
_OF_NUMPY = {"ndarray", "float32", "float64", "allclose", "isclose"}


def _stand_in(name: str, source: str) -> str:
    """_NUMPY for tests that import it, which it has to precede, "" for others. UserError if they
    need more of it, or another package: every program would fail."""
    nodes = [*ast.walk(_python(name, source))]
    names = [a for n in nodes if isinstance(n, ast.Import) for a in n.names]
    modules = [a.name for a in names if a.name != "numpy"]
    modules += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    packages = [module.split(".")[0] for module in modules]
    if others := [x for x in packages if x not in sys.stdlib_module_names]:
        raise UserError(f"'{name}' imports {others[0]}, which the sandbox does not have")
    aliases = {a.asname or "numpy" for a in names if a.name == "numpy"}
    found = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    if more := sorted({n.attr for n in found if n.value.id in aliases} - _OF_NUMPY):
        raise UserError(f"'{name}' uses numpy's {more[0]}, which the sandbox does not have")
    return _NUMPY if aliases else ""


def _humaneval(row: dict) -> Problem:
    prompt, entry, test = (_text(row, name) for name in ("prompt", "entry_point", "test"))
    stand_in = _stand_in("test", test)
    for name, source, function in ("prompt", prompt, entry), ("test", test, "check"):
        if function not in _functions(_python(name, source)):
            raise UserError(f"'{name}' does not define the function '{function}'")
    tests = {"entry": entry, "prelude": prompt, "asserts": f"{stand_in}{test}\ncheck({entry})"}
    solution = prompt + str(row.get("canonical_solution", ""))
    return Problem(prompt, solution, "humaneval", "en", tests)


def _mbpp(row: dict) -> Problem:
    """The prompt shows the tests, as the paper's does [Austin et al. 2021, 2108.07732, section 3]:
    they say what the function is called."""
    lists = row["test_list"], row.get("test_imports", []), [row.get("test_setup_code", "")]
    if not all(isinstance(x, list) and all(isinstance(s, str) for s in x) for x in lists):
        raise UserError("'test_list' and 'test_imports' should be lists, 'test_setup_code' a text")
    text, code = _text(row, _first(row, "text|prompt")), _text(row, "code")
    asserts, setup = "\n".join(lists[0]), "\n".join([*lists[1], *lists[2]])
    solution, used = _python("code", code), [*ast.walk(_python("test_list", asserts))]
    _python("test_setup_code", setup)
    stand_in = _stand_in("test_list", f"{setup}\n{asserts}")  # what they need together
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
    tests = {"entry": entry, "prelude": "\n".join([*prelude, stand_in + setup])}
    return Problem(prompt, code, "mbpp", "en", tests | {"asserts": asserts})


def _decoded(row: dict, name: str) -> object:
    """A field that may be written as JSON; None if it is not there, or text of another kind."""
    value = row.get(name)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def _cases(tests: object) -> list[list[str]]:
    """[[input, output], ...] of [{"input": a text or its lines, "output": the same}, ...] or of
    {"inputs": [...], "outputs": [...]}"""
    cases = []
    if isinstance(tests, dict) and all(type(tests.get(x)) is list for x in ("inputs", "outputs")):
        pairs = itertools.zip_longest(tests["inputs"], tests["outputs"])
        tests = [{"input": x, "output": y, "fn_name": tests.get("fn_name")} for x, y in pairs]
    for test in tests if isinstance(tests, list) else []:
        test = test if isinstance(test, dict) else {}
        kind = test.get("testtype") or test.get("type") or "stdin"
        if test.get("fn_name") or kind not in ("stdin", "stdin_stdout"):
            raise UserError("it asks for a function: only programs that read stdin are judged")
        pair = [test.get(name) for name in ("input", "output")]
        pair = [x if isinstance(x, list) else [x] for x in pair]
        pair = [[str(x) if type(x) in (int, float) else x for x in lines] for lines in pair]
        if not all(isinstance(line, str) for lines in pair for line in lines):
            raise UserError("a test should have an 'input' and 'output': texts or lists of lines")
        cases.append(["\n".join(lines) for lines in pair])
    return cases


def _limit(row: dict, kind: str) -> float:
    """A number, also of "1.0 seconds" or "256 megabytes"; 0 if there is none."""
    value = row.get(f"{kind}_limit")
    said = re.fullmatch(r"(\d+(?:\.\d+)?)(?: ?(?:s|seconds?|MB|megabytes))?", str(value))
    return float(said[1]) if said else 0


def _stdin(row: dict, prompt: str, cases: list[list[str]]) -> Problem:
    """A problem whose program reads stdin."""
    if not cases:
        raise UserError("it has no tests: they should be a list of inputs and outputs")
    tests, (seconds, memory) = {"cases": cases}, (_limit(row, x) for x in ("time", "memory"))
    if "time_limit" in row:
        if not 0 < seconds <= 60:
            raise UserError("'time_limit' should be a number of seconds, at most 60")
        tests["seconds"] = seconds
    if memory > 512:  # less would do for other languages
        tests["memory_mb"] = int(min(memory, 4096))
    return Problem(prompt, "", "stdin", "en", tests)


def _apps(row: dict) -> Problem:
    tests = _decoded(row, _first(row, "input_output|tests"))
    return _stdin(row, _prompt(row, _first(row, ASKED)), _cases(tests))


def _livecodebench(row: dict) -> Problem:
    public, private = (_decoded(row, f"{kind}_test_cases") for kind in ("public", "private"))
    if private is None and row.get("private_test_cases"):
        say_once("private_test_cases are compressed, not JSON: only public_test_cases are used")
    return _stdin(row, _text(row, "question_content"), _cases(public) + _cases(private))


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
    ("Countdown", "numbers|nums target", _countdown),
    ("ours", "prompt answer task", _ours),
    ("HumanEval", "prompt entry_point test", _humaneval),
    ("MBPP", "text|prompt code test_list", _mbpp),
    ("APPS", f"{ASKED} input_output|tests", _apps),
    ("LiveCodeBench", "question_content public_test_cases", _livecodebench),
    ("Codeforces", "description examples|official_tests", _codeforces),
    ("GPQA", "question correct_answer incorrect_answer_1", _gpqa),
    ("MMLU", f"{ASKED} choices|options {RIGHT}", _choice),
    ("C-Eval", f"{ASKED} a b {RIGHT}", _choice),
    ("GSM8K, MATH", f"{ASKED} {ANSWER}", _question),
    ("MATH", "problem|prompt|messages solution", _question),
    ("MetaMath", "query response", _question),
)

_FENCE = re.compile(r"(`{3,}|^[ \t]*~{3,})([^`~\n]*)\n", re.MULTILINE)
_CODE = re.compile(  # a line of Python
    r"(?:def|class|if|elif|for|while|with)\b.*:|(?:else|try|except.*):|from \S+ import\b|[@#)\]}]"
    r"|import [\w.]+(?: as \w+|,.*)?\s*$|[\w.\[\],*]+(?:, [\w.\[\]*]+)* ?[-+*/]?=(?!=)"
    r"|[\w.]+\(|\s|$"
)
_BODY = re.compile(r"\s*\n?(?: {2,}|\t)(?![`~\s])")  # an indented line: it continues the prompt
# where a continued function has ended [Chen et al. 2021, 2107.03374, section 2.2]
_STOPS = re.compile(r"\n(?:class|def|#|if|print|```)")


def program_in(problem: Problem, text: str) -> str | None:
    """The program in a response to HumanEval or MBPP, or None: the last ```python block after the
    thinking, else the last that names no language, else the <answer>. A block that defines the
    function under test (or if stdin is read: that is Python and prints, and best reads) comes
    before all that do not, even if nothing fences it. What it lacks is taken from blocks before it.
    HumanEval's prompt, which may define helpers, stands before it; a response with none of these
    continues it."""
    text, entry = after_thinking(text), re.escape(problem.tests.get("entry", ""))
    named = re.compile(rf"^(?:def|class) +{entry}\s*[(:]|^{entry}\s*=(?!=)", re.MULTILINE)
    defines = _prints if problem.task == "stdin" else named.search
    before = f"{problem.prompt}\n" if problem.task == "humaneval" else ""
    continues, blocks = before and _BODY.match(text), []  # (kind, code)
    for info, code in _fenced(text):
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
        reads = re.compile(r"input\(|stdin|open\(0" if problem.task == "stdin" else r"\Z")
        best = max(reversed(found), key=lambda block: (bool(reads.search(block[1])), block[0]))
        code = _completed(best[1], blocks[: blocks.index(best)] if best in blocks else [])
        return before + code if defines(code) or not before else _continued(before, code)
    return _continued(problem.prompt, _STOPS.split(text)[0]) if before else None


def _fenced(text: str) -> list[tuple[str, str]]:
    """(what the opening fence says, code) of each block. One that is not Python goes on to a later
    fence if it is Python then: a docstring may have fences in it."""
    blocks, end = [], 0
    while opened := _FENCE.search(text, end):
        closed = re.compile(rf"{re.escape(opened[1])}|\Z").finditer(text, opened.end())
        codes = [text[opened.end() : m.start()] for m in itertools.islice(closed, 4)]
        code = next((c for c in codes if _module(textwrap.dedent(c))), codes[0])
        blocks.append((opened[2], code))
        end = opened.end() + len(code) + len(opened[1])
    return blocks


def _completed(code: str, blocks: list[tuple[int, str]]) -> str:
    """The code after those blocks before it that do no more than define something it lacks."""
    name = re.compile(r"^(?:def|class) +(\w+)|^(\w+) *=(?!=)|\bimport +(\w+)", re.MULTILINE)
    defines = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
    for _, part in reversed(blocks):
        found = {*sum(name.findall(part), ())} - {*sum(name.findall(code), ()), ""}
        if any(re.search(rf"\b{x}\b", code) for x in found) and (module := _module(part)):
            code = f"{part}\n{code}" if all(isinstance(n, defines) for n in module.body) else code
    return code


def _continued(prompt: str, body: str) -> str:
    """HumanEval's prompt with the body of its function, indented as that asks for."""
    for text in (body, f"    {body.lstrip()}", textwrap.indent(textwrap.dedent(body), "    ")):
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            compile(prompt + text, "program", "exec")
            return prompt + text
    return prompt + body


def _prints(code: str) -> bool:
    """Whether a text is a Python program that may print something."""
    return bool(re.search(r"\b(?:print|write)", code) and _module(code))


def _module(code: str) -> ast.Module | None:
    with contextlib.suppress(UserError):
        return _python("code", code)


def judge(problems: list[Problem], answers: list[str]) -> list[bool]:
    """Which programs pass their problem's suite of asserts, or print what they should; they run
    side by side."""
    jobs = [(answer, PROGRAMS[p.task](**p.tests)) for p, answer in zip(problems, answers)]
    return sandbox.in_parallel(sandbox.passes, jobs)


def _lines(text: str) -> list[str]:
    """The lines of JSONL, or a line for each row of a JSON array or {"data": [...]}."""
    with contextlib.suppress(ValueError, RecursionError):
        rows = json.loads(text)
        rows = rows.get("data", [rows]) if isinstance(rows, dict) else rows
        return [json.dumps(row) for row in rows] if isinstance(rows, list) else [text]
    return re.split(r"\r\n?|\n", text)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def load_jsonl(path: str, limit: int | None = None) -> list[Problem]:
    """The problems of a file, JSONL or JSON (compressed with gzip too) or parquet, at most `limit`.
    UserError that names the file or the line for anything else; nothing is skipped silently."""
    try:
        if path.endswith(".parquet"):
            from pyarrow import parquet  # only who has such files needs it

            rows = parquet.read_table(path).to_pylist()  # with bytes, dates, decimals
            lines = [json.dumps(row, default=_as_text) for row in rows]
        else:
            with open(path, "rb") as f:
                data = f.read()
            data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            lines = _lines(data.decode("utf-8-sig"))
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
        test = [p for p in problems if split_of(p.prompt) == "test"]
        if len(problems) < 20 or len(test) == len(problems) or not test:
            return cls(problems, problems, f"TRAINING problems of {path}: too few to hold any out")
        train = [p for p in problems if split_of(p.prompt) != "test"]
        return cls(train, test, f"problems of {path}, held out by content: not trained on")
