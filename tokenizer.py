"""Text to token ids and back: tiktoken encodings, and a byte-level BPE trainer that makes them.

    python tokenizer.py runs/zero/model "Tom has 3 apples"     # show the tokens of a text

A tokenizer is one of three things: trained here on a corpus, read from a model folder's tokenizer.json, or a named
tiktoken encoding. All 256 bytes are tokens (bytes for which a folder has none are left out), so no text is unencodable.
Special tokens are only ever added by `special` or `encode(..., trusted=True)`: a user who types "</think>" gets the letters, not the token.
"""

import datetime
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

import jinja2  # comes with torch
import jinja2.sandbox
import regex  # comes with tiktoken; the standard library's re knows no \p{L}
import tiktoken

import checkpoint
import parallel

SPECIALS = ["<|pad|>", "<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>", "<answer>", "</answer>"]
HIDDEN = {"<|pad|>", "<|begin|>", "<|end|>"}  # the others are part of what is said

# A word takes the space before it, and before a number also the one after it, so that a number is the same token
# wherever it stands; Chinese and other letters never share a token, so that "A" is A in "A比B高" too; digits come in threes;
# everything else is punctuation or white space.
PATTERN = r" ?(?:\p{Han}+|[^\P{L}\p{Han}]+)(?: (?=\p{N}))?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

# The prompt of a base model. `r1` is the template of DeepSeek-R1-Zero [2501.12948, Table 1]; `short` keeps only its roles,
# for a model whose whole context is a few hundred tokens. A chat model has a template of its own.
TEMPLATES = {
    "short": "<|begin|><|User|>{prompt}<|Assistant|>",
    "r1": ("A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
           "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and "
           "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
           "here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"),
}
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what tokenizer.json calls ByteLevel


class Tokenizer:
    """tiktoken's byte pair encoding with the ids, special tokens and prompt template of a model."""

    def __init__(self, ranks: dict[bytes, int], patterns: list[str], special: dict[str, int], template: str, *, eos: str, pad: str,
                 hidden: set[str], ids: list[int] | None = None, nfc: bool = False, files: dict[str, object] | None = None):
        """ranks: token bytes -> place in the order of merges, all bytes among them. patterns: what cuts a text into words: each but
        the last sets its matches apart, the last goes to tiktoken. special: token -> id. template: text around "{prompt}".
        hidden: special tokens that are not part of a text. ids: place -> id where they differ, -1 for a byte the model has no token
        for. nfc: whether texts are normalised first. files: what `save` writes, if the tokenizer came from a folder.
        """
        self.ranks, self.patterns, self.special, self.template, self.nfc, self._files = ranks, patterns, special, template, nfc, files
        self._enc = tiktoken.Encoding("pocket-r1", pat_str=patterns[-1], mergeable_ranks=ranks, special_tokens={})
        self.chat = template not in TEMPLATES.values()  # a template of the model's own
        self._missing = {b for b in range(256) if ids and ids[ranks[bytes([b])]] < 0}
        self._ids, self._bytes = ids, {ids[r] if ids else r: b for b, r in ranks.items()} | {i: t.encode() for t, i in special.items()}
        self.eos_id, self.pad_id = special[eos], special[pad]
        self.hidden = {special[t] for t in hidden}
        self._cut = regex.compile("|".join(map(regex.escape, sorted(special, key=len, reverse=True))))
        self.vocab_size = max(self._bytes) + 1
        before, after = template.split("{prompt}")
        marks = [m.span() for m in self._cut.finditer(before)], [m.span() for m in self._cut.finditer(after)]
        first, last = marks[0][-1][1] if marks[0] else 0, marks[1][0][0] if marks[1] else len(after)
        # the text of the template that touches the prompt is encoded with it: tokens may reach over the border
        self._around = self.encode(before[:first], trusted=True), before[first:], after[:last], self.encode(after[last:], trusted=True)

    def encode(self, text: str, trusted: bool = False) -> list[int]:
        """Token ids of a text. Only where the text is our own (`trusted`) do "<think>" and the like become special tokens."""
        if not trusted:
            return self._encode(text)
        out, start = [], 0
        for m in self._cut.finditer(text):
            out += [*self._encode(text[start : m.start()]), self.special[m[0]]]
            start = m.end()
        return out + self._encode(text[start:])

    def _encode(self, text: str) -> list[int]:
        parts = [unicodedata.normalize("NFC", text) if self.nfc else text]
        for pattern in self.patterns[:-1]:
            parts = [piece for part in parts for piece in _isolated(pattern, part)]
        if self._missing.isdisjoint(text.encode()):
            places = [r for part in parts for r in self._enc.encode_ordinary(part)]
        else:  # such bytes fall out of their words before anything is merged
            words = [bytes(b for b in word.encode() if b not in self._missing) for part in parts for word in _isolated(self.patterns[-1], part)]
            places = [r for word in words if word for r in self._enc._encode_single_piece(word)]
        return places if self._ids is None else [self._ids[r] for r in places]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD. Pad, end and other hidden or unused ids are left out."""
        return b"".join(self.decode_bytes(i) for i in ids if i not in self.hidden).decode("utf-8", "replace")

    def decode_bytes(self, token: int) -> bytes:
        """The bytes of one token, for streaming: a character may be split over several. Empty for an id without a token."""
        return self._bytes.get(token, b"")

    def prompt(self, text: str) -> list[int]:
        """Token ids that ask for a response to `text`, by the template."""
        head, before, after, tail = self._around
        return [*head, *self.encode(before + text + after), *tail]

    def example(self, prompt: str, response: str) -> tuple[list[int], int]:
        """(ids of prompt + response + end, length of the prompt): one training text. The response's tags are trusted."""
        ids = self.prompt(prompt)
        return ids + self.encode(response, trusted=True) + [self.eos_id], len(ids)

    def save(self, folder: str) -> None:
        """Write what transformers needs: tokenizer.json and tokenizer_config.json with the chat template; from a folder: as they were there."""
        os.makedirs(folder, exist_ok=True)
        for name, content in (self._files or self._as_files()).items():
            with parallel.beside(os.path.join(folder, name)) as aside, open(aside, "w", encoding="utf-8") as f:
                f.write(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))

    def _as_files(self) -> dict[str, object]:
        letters = _byte_letters()
        name = {b: "".join(letters[x] for x in b) for b in self.ranks}
        cuts = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in self.patterns]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        merges = [[name[a], name[b]] for a, b in (_parents(t, self.ranks) for t in sorted(self.ranks, key=self.ranks.get) if len(t) > 1)]
        flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
        out = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": level,
               "added_tokens": [{"id": i, "content": s, "special": i in self.hidden} | flags for s, i in self.special.items()],
               "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, level]},
               "model": {"type": "BPE", "vocab": {name[b]: i for b, i in self.ranks.items()}, "merges": merges}}
        named = {i: s for s, i in self.special.items()}
        before, after = self.template.split("{prompt}")
        chat = ("{% for message in messages %}{% if message['role'] == 'user' %}" + before + "{{ message['content'] }}"
                "{% if add_generation_prompt or not loop.last %}" + after + "{% endif %}{% else %}{{ message['content'] }}" + named[self.eos_id]
                + "{% endif %}{% endfor %}")
        return {"tokenizer.json": out, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": named[self.eos_id],
                                                                 "pad_token": named[self.pad_id], "chat_template": chat}}


def _isolated(pattern: str, text: str) -> list[str]:
    """A text cut into the matches of a pattern and what lies between them."""
    out, start = [], 0
    for m in regex.finditer(pattern, text):
        out += [text[start : m.start()], m[0]]
        start = m.end()
    return [piece for piece in (*out, text[start:]) if piece]


def load(name: str, template: str | None = None) -> Tokenizer:
    """A tokenizer from a model folder (ours or Hugging Face's), or a tiktoken encoding by its name with our special tokens behind.

    template: a key of TEMPLATES instead of the model's own. ValueError in one sentence where the folder has none, the file is
    damaged or of a kind that byte pair encoding is not, or the encoding cannot be fetched.
    """
    if os.path.isdir(name):
        return _load_folder(name, template)
    if name not in tiktoken.list_encoding_names():
        raise ValueError(f"'{name}' is neither a model folder nor a tiktoken encoding ({', '.join(tiktoken.list_encoding_names())})")
    try:
        base = tiktoken.get_encoding(name)
    except Exception as e:  # requests' own exceptions; tiktoken does not wrap them
        raise ValueError(f"the encoding '{name}' could not be fetched ({type(e).__name__}): connect once, or set TIKTOKEN_CACHE_DIR "
                         "to a folder that has it, or train a tokenizer with --tokenizer corpus") from None
    # the only way tiktoken's own guide gives to extend an encoding
    special = base._special_tokens | {s: base.n_vocab + i for i, s in enumerate(SPECIALS)}
    return Tokenizer(base._mergeable_ranks, [base._pat_str], special, TEMPLATES[template or "r1"], eos="<|end|>", pad="<|pad|>",
                     hidden={*base._special_tokens, *HIDDEN})


def _load_folder(folder: str, template: str | None) -> Tokenizer:
    path = os.path.join(folder, "tokenizer.json")
    try:
        files: dict[str, object] = {}
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if name == "tokenizer.json" or os.path.exists(os.path.join(folder, name)):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    files[name] = f.read() if name.endswith("jinja") else json.load(f)
        raw, about = files["tokenizer.json"], files.get("tokenizer_config.json", {})
        model, added = raw["model"], {t["content"]: t["id"] for t in raw["added_tokens"]}
        if model["type"] != "BPE" or model.get("byte_fallback"):
            raise ValueError(f"its model is {model['type']}, not byte-level BPE")
        if (raw["normalizer"] or {}).get("type", "NFC") != "NFC":
            raise ValueError(f"its normalizer is {raw['normalizer']['type']}")
        ranks, ids = _ranks(model, set(added))
        names = {k: about[k]["content"] if isinstance(about.get(k), dict) else about.get(k) for k in ("bos_token", "eos_token", "pad_token", "unk_token")}
        eos = names["eos_token"] or next((t for t, i in added.items() if i in checkpoint.ends(folder)), None)
        if eos not in added:
            raise ValueError("tokenizer_config.json names no eos_token")
        text = TEMPLATES[template] if template else _chat(files, names) or TEMPLATES["r1"]
        return Tokenizer(ranks, _patterns(raw["pre_tokenizer"]) or [r"[\s\S]+"], added, text, eos=eos, pad=names["pad_token"] or eos,
                         hidden={t["content"] for t in raw["added_tokens"] if t["special"]}, ids=ids, nfc=bool(raw["normalizer"]), files=files)
    except OSError as e:
        raise ValueError(f"'{folder}' has no {os.path.basename(e.filename)}: give a model folder") from None
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, jinja2.TemplateError, regex.error) as e:
        raise ValueError(f"{path} is damaged or of another kind ({type(e).__name__}: {e})") from None


def _ranks(model: dict, special: set[str]) -> tuple[dict[bytes, int], list[int] | None]:
    """tiktoken's ranks (token bytes -> place) and the ids of the places, None if they are the same."""
    values = {letter: byte for byte, letter in enumerate(_byte_letters())}

    def as_bytes(token: str) -> bytes:
        return bytes(values[c] for c in token)

    vocab = {as_bytes(t): i for t, i in model["vocab"].items() if t not in special}
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    order = dict.fromkeys([*(bytes([b]) for b in range(256)), *(as_bytes(a + b) for a, b in pairs)])
    if model.get("ignore_merges"):  # a word that is a token is that token, whether merges lead there or not
        order |= dict.fromkeys(sorted(vocab, key=vocab.get))
    ids = [vocab.get(token, -1) for token in order]
    if -1 not in ids and sorted(ids) == list(range(len(ids))) and sorted(order, key=vocab.get)[256:] == list(order)[256:]:
        return vocab, None
    return {token: place for place, token in enumerate(order)}, ids


def _patterns(pre: dict | None) -> list[str]:
    """The patterns of a pre_tokenizer. ValueError for a kind that is none."""
    if pre is None:
        return []
    kind = pre["type"]
    if kind == "Sequence":
        return [p for part in pre["pretokenizers"] for p in _patterns(part)]
    if kind == "Split" and pre["behavior"] == "Isolated" and not pre["invert"]:
        return [pre["pattern"]["Regex"] if "Regex" in pre["pattern"] else regex.escape(pre["pattern"]["String"])]
    if kind == "Digits":
        return [r"\p{N}" if pre["individual_digits"] else r"\p{N}+"]
    if kind == "ByteLevel" and not pre["add_prefix_space"]:
        return [GPT2_PATTERN] if pre["use_regex"] else []
    raise ValueError(f"its pre_tokenizer has a {kind} that is not known here")


def _chat(files: dict, names: dict[str, str | None]) -> str | None:
    """The model's own chat template with one user message "{prompt}" in it, or None if it has no template."""
    source = files.get("chat_template.jinja") or files.get("tokenizer_config.json", {}).get("chat_template")
    if isinstance(source, list):
        source = {t["name"]: t["template"] for t in source}["default"]
    if not source:
        return None
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals |= {"strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    text = env.from_string(source).render(messages=[{"role": "user", "content": "{prompt}"}], add_generation_prompt=True, **{k: v or "" for k, v in names.items()})
    if text.count("{prompt}") != 1:
        raise ValueError("its chat template does not hold the question once")
    return text


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE [arXiv 1508.07909]: start from the 256 bytes, again and again join the most frequent neighbours.

    Works on distinct words with their counts, and after each join touches only the words that hold the pair.
    The vocabulary is 256 bytes + merges + SPECIALS = vocab_size (fewer if the texts run out of pairs).
    """
    tags = regex.compile("|".join(map(regex.escape, SPECIALS)))
    counts = Counter(word for text in texts for word in regex.findall(PATTERN, tags.sub("", text)))
    words = [[bytes([b]) for b in w.encode()] for w in counts]
    freq = list(counts.values())
    pairs: Counter = Counter()
    where: dict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for i, w in enumerate(words):
        for pair in zip(w, w[1:]):
            pairs[pair] += freq[i]
            where[pair].add(i)
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < vocab_size - len(SPECIALS) and pairs:
        best = max(pairs, key=lambda p: (pairs[p], p))  # ties: the larger bytes, so that training is deterministic
        if pairs[best] <= 0:
            break
        ranks.setdefault(best[0] + best[1], len(ranks))
        for i in list(where.pop(best)):
            w = words[i]
            for pair in zip(w, w[1:]):
                pairs[pair] -= freq[i]
                where[pair].discard(i)
            j, merged = 0, []
            while j < len(w):
                step = 2 if tuple(w[j : j + 2]) == best else 1
                merged.append(b"".join(w[j : j + step]))
                j += step
            words[i] = merged
            for pair in zip(merged, merged[1:]):
                pairs[pair] += freq[i]
                where[pair].add(i)
        del pairs[best]
    return Tokenizer(ranks, [PATTERN], {s: len(ranks) + i for i, s in enumerate(SPECIALS)}, TEMPLATES["short"], eos="<|end|>", pad="<|pad|>", hidden=HIDDEN)


def _parents(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose join made this one: run the merges older than it over its bytes until two parts are left."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        i = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks) + len(token)))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, as tokenizer.json spells tokens: itself if printable, else U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(rest)) for b in range(256)]


def main() -> None:
    import config

    parser = config.Parser(__doc__)
    parser.add_argument("tokenizer", help="model folder, or the name of a tiktoken encoding")
    parser.add_argument("text")
    args = parser.parse_args()
    with config.user_errors():
        tokenizer = load(args.tokenizer)
        ids = tokenizer.encode(args.text)
        print(f"{len(ids)} tokens of {tokenizer.vocab_size}: " + " ".join(f"{i}:{tokenizer.decode_bytes(i)!r}" for i in ids))


if __name__ == "__main__":
    main()
