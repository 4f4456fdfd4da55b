"""Tokenizers in Hugging Face folders: reading other people's, writing ours for transformers.

tokenizer.json spells tokens with one letter a byte; it holds the merges in their order, the ids and
what cuts words. tokenizer_config.json names the special tokens that matter.
"""

import contextlib
import datetime
import functools
import json
import os
import sys

import jinja2.meta
import jinja2.sandbox
import regex
import tiktoken
from jinja2.ext import Extension, loopcontrols

from lib import cli, hf
from lib.errors import UserError, shortened

# The letter of each byte, as in GPT-2: itself if printable, else U+0100 and on.
PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
OTHERS = [b for b in range(256) if b not in PRINTABLE]
LETTERS = [chr(b if b in PRINTABLE else 256 + OTHERS.index(b)) for b in range(256)]
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
REMOVED = ("Removed", True)
NAMED = "bos_token eos_token unk_token sep_token pad_token cls_token mask_token".split()
TAGS = {"<think>", "</think>", "<answer>", "</answer>"}  # part of what is said, even if special
DAMAGE = (LookupError, TypeError, AttributeError, ValueError, RecursionError, regex.error)


@contextlib.contextmanager
def clear_errors(folder: str):
    """While a tokenizer is made of a folder: UserError in one sentence for whatever is wrong."""
    try:
        yield
    except FileNotFoundError as e:
        raise hf.no_model(folder, os.path.basename(e.filename)) from None
    except UserError as e:
        raise UserError(f"the tokenizer of '{folder}' cannot be used: {e}") from None
    except DAMAGE as e:
        path, reason = os.path.join(folder, "tokenizer.json"), f"{type(e).__name__}: {e}"
        raise UserError(f"{path} is damaged or of another kind ({reason})") from None


def encoding(name: str) -> tiktoken.Encoding:
    """A tiktoken encoding by name. UserError if there is none, or if it cannot be fetched."""
    if name not in tiktoken.list_encoding_names():
        known = ", ".join(tiktoken.list_encoding_names())
        msg = f"'{shortened(name)}' is neither a model folder nor a tiktoken encoding"
        raise UserError(f"{msg} ({known})")
    try:
        return tiktoken.get_encoding(name)
    except Exception as e:  # requests' own exceptions; tiktoken does not wrap them
        error = f"the encoding '{name}' could not be fetched ({type(e).__name__})"
        fix = "connect once, or set TIKTOKEN_CACHE_DIR to a folder that has it"
        raise UserError(f"{error}: {fix}, or train a tokenizer with --tokenizer corpus") from None


@functools.cache  # said once
def check_template(folder: str) -> None:
    """Say so if a model has come without the file that holds its chat template."""
    names = ("tokenizer_config.json", "chat_template.jinja")
    if not any(os.path.exists(os.path.join(folder, name)) for name in names):
        msg = f"'{folder}' has no {names[0]}: prompts are a base model's, without a chat template"
        print(msg, file=sys.stderr)


def read(folder: str) -> dict[str, object]:
    """The fields of a tokenizer.Vocabulary, by name. Errors: see clear_errors."""
    files = {}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if name == "tokenizer.json" or os.path.exists(os.path.join(folder, name)):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                files[name] = f.read() if name.endswith("jinja") else json.load(f)
    raw = files["tokenizer.json"]
    model, added = raw["model"], {t["content"]: t["id"] for t in raw["added_tokens"]}
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise UserError(f"its model is {model['type']}, not byte-level BPE")
    normalizer = raw.get("normalizer") or {"normalizers": []}
    kinds = [part["type"] for part in normalizer.get("normalizers", [normalizer])]
    if others := [kind for kind in kinds if kind != "NFC"]:
        raise UserError(f"its normalizer is {others[0]}")
    ranks, ids = _ranks(model, set(added))
    names, ends = _names(files), hf.end_ids(folder)
    named = [names.get("eos_token"), *(t for t, i in added.items() if i in ends)]
    eos = next((t for t in named if t in added), None)
    if eos is None:
        raise UserError("tokenizer_config.json names no eos_token")
    patterns = _patterns(raw.get("pre_tokenizer")) or [r"[\s\S]+"]
    hidden = {t["content"] for t in raw["added_tokens"] if t["special"]} - TAGS
    out = dict(ranks=ranks, ids=ids, patterns=patterns, special=added, hidden=hidden, eos=eos)
    pad = names["pad_token"] if names.get("pad_token") in added else eos
    return out | dict(pad=pad, nfc=bool(kinds), bos=_bos(raw.get("post_processor")), files=files)


def _names(files: dict) -> dict[str, str]:
    """The special tokens that tokenizer_config.json names."""
    found = {k: files.get("tokenizer_config.json", {}).get(k) for k in NAMED}
    return {k: v["content"] if isinstance(v, dict) else v for k, v in found.items() if v}


def _bos(post: dict | None) -> list[str]:
    """The token, if any, that a post_processor, or one of a Sequence, puts before a text."""
    for step in (post or {}).get("processors", [post or {}]):
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in step["single"][0]:
            return [step["single"][0]["SpecialToken"]["id"]]
    return []


def _ranks(model: dict, special: set[str]) -> tuple[dict[bytes, int], list[int] | None]:
    """tiktoken's ranks (token -> place) and the ids of the places, None if they are the same."""
    byte = {letter: b for b, letter in enumerate(LETTERS)}
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    joined = [a + b for a, b in pairs]
    special = special - {*LETTERS, *joined}  # what was added later may be a word's token, too
    vocab = {bytes(byte[c] for c in t): i for t, i in model["vocab"].items() if t not in special}
    merged = (bytes(byte[c] for c in t) for t in joined)
    order = dict.fromkeys([*(bytes([b]) for b in range(256)), *merged])
    if model.get("ignore_merges"):  # a word that is a token is that token, even without merges
        order |= dict.fromkeys(sorted(vocab, key=vocab.get))
    ids = [vocab.get(token, -1) for token in order]
    whole = -1 not in ids and sorted(ids) == list(range(len(ids)))
    if whole and sorted(order, key=vocab.get)[256:] == list(order)[256:]:
        return vocab, None
    return {token: place for place, token in enumerate(order)}, ids


def _patterns(pre: dict | None) -> list[str]:
    """The patterns of a pre_tokenizer. UserError for a kind that is none."""
    if pre is None:
        return []
    kind = pre["type"]
    if kind == "Sequence":
        return [p for part in pre["pretokenizers"] for p in _patterns(part)]
    # the second form leaves out what no pattern matches, which for these patterns is nothing
    if kind == "Split" and (pre["behavior"], pre["invert"]) in (("Isolated", False), REMOVED):
        pattern = pre["pattern"]
        return [pattern["Regex"] if "Regex" in pattern else regex.escape(pattern["String"])]
    if kind == "Digits":
        return [r"\p{N}" if pre["individual_digits"] else r"\p{N}+"]
    if kind == "ByteLevel" and not pre["add_prefix_space"]:
        return [GPT2_PATTERN] if pre["use_regex"] else []
    raise UserError(f"its pre_tokenizer has a {kind} that is not known here")


class Generation(Extension):
    """{% generation %} marks an answer, for transformers' loss mask. Here it does nothing."""

    tags = frozenset({"generation"})

    def parse(self, parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


OURS = "{% for message in messages %}{% if message['role'] == 'user' %}{{ "  # see _jinja


def template_source(files: dict) -> str | None:
    """The chat template of a folder's files, if there is one."""
    source = files.get("chat_template.jinja")
    source = source or files.get("tokenizer_config.json", {}).get("chat_template")
    if isinstance(source, list):
        named = {t["name"]: t["template"] for t in source}
        if source and "default" not in named:
            msg = f"none of its chat templates ({', '.join(named)}) is named default"
            raise UserError(f"{msg}: try --template none")
        return named.get("default")
    return source


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def chat_template(files: dict, arguments: dict, turns: int = 0) -> tuple[str, bool] | None:
    """The model's chat template with one user message "{prompt}" in it, and whether it takes white
    space off a message's ends, as Llama 3's; None if it has none. arguments: what else it reads,
    such as enable_thinking; `system`: a message of the system. turns: how many questions and
    answers stand before, marked "{question 0}", "{answer 0}" and so on."""
    if not (source := template_source(files)):
        return None
    sandbox, kinds = jinja2.sandbox.ImmutableSandboxedEnvironment, [Generation, loopcontrols]
    env = sandbox(trim_blocks=True, lstrip_blocks=True, extensions=kinds)  # as transformers'
    env.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    env.globals["raise_exception"] = _raise_exception
    said = [("system", arguments.get("system"))]  # "{system}" is a mark, too
    for i in range(turns):
        said += [("user", f"{{question {i}}}"), ("assistant", f"{{answer {i}}}")]
    said.append(("user", "  {prompt}  "))
    messages = [{"role": role, "content": text} for role, text in said if text]
    values = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
    try:
        read = jinja2.meta.find_undeclared_variables(env.parse(source)) | {"system"}
        text = env.from_string(source).render(values | _names(files) | arguments)
    except Exception as e:  # a template is a program, and may fail as any other
        msg = f"its chat template fails ({type(e).__name__}: {e})"
        raise UserError(f"{msg}: --template none does without") from None
    if text.count("{prompt}") != 1:
        raise UserError("its chat template does not hold the question once: try --template none")
    if (unread := arguments.keys() - read) and not source.startswith(OURS):
        raise cli.nearest("setting", f"template.{unread.pop()}", [f"template.{x}" for x in read])
    return text.replace("  {prompt}  ", "{prompt}"), "  {prompt}  " not in text


def to_files(vocabulary, template: str) -> dict[str, dict]:
    """What transformers reads, by file name, for a tokenizer.Vocabulary and a prompt template."""
    ranks, special, hidden = vocabulary.ranks, vocabulary.special, vocabulary.hidden
    name = {token: "".join(LETTERS[b] for b in token) for token in ranks}
    longer = (token for token in sorted(ranks, key=ranks.get) if len(token) > 1)
    merges = [[name[part] for part in _parents(token, ranks)] for token in longer]
    model = dict(type="BPE", vocab={name[token]: i for token, i in ranks.items()}, merges=merges)
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    split = dict(type="Split", pattern=None, behavior="Isolated", invert=False)
    cuts = [split | {"pattern": {"Regex": pattern}} for pattern in vocabulary.patterns]
    pre = {"type": "Sequence", "pretokenizers": [*cuts, level]}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": i, "content": t, "special": t in hidden} | flags for t, i in special.items()]
    out = dict(version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None)
    out |= dict(decoder=level, added_tokens=added, pre_tokenizer=pre, model=model)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": vocabulary.eos}
    about |= {"pad_token": vocabulary.pad, "chat_template": _jinja(template, vocabulary)}
    return {"tokenizer.json": out, "tokenizer_config.json": about}


def with_template(vocabulary, template: str) -> dict:
    """A folder's files, by name, with another template."""
    files = {k: v for k, v in vocabulary.files.items() if not k.endswith("jinja")}
    about = files.get("tokenizer_config.json", {}) | {"chat_template": _jinja(template, vocabulary)}
    return files | {"tokenizer_config.json": about}


def _jinja(template: str, vocabulary) -> str:
    """A chat template, as transformers reads it, of a text around "{prompt}"."""
    before, after = (json.dumps(text, ensure_ascii=False) for text in template.split("{prompt}"))
    chat = OURS + before + " + message['content']" + (" | trim" if vocabulary.trim else "")
    chat += " }}{% if add_generation_prompt or not loop.last %}{{ " + after
    chat += " }}{% endif %}{% elif message['role'] == 'assistant' %}{{ message['content'] }}"
    return chat + vocabulary.eos + "{% endif %}{% endfor %}"


def _parents(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose join made this one: its bytes, by older merges down to two parts."""
    parts, never = [bytes([b]) for b in token], len(ranks) + len(token)
    while len(parts) > 2:
        i = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], never))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
