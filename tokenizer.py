"""Text to token ids and back: byte pair encoding, with a trainer.

    python tokenizer.py runs/zero/model "Tom has 3 apples"     # show the tokens of a text

A token is a sequence of bytes with a number, its id: all 256 single bytes are tokens, so that any
text can be encoded, and byte sequences that are frequent, such as " apples", are tokens too.
Special tokens mark what is no text: where the prompt ends, where thinking begins. They only ever
come from the template and from `encode(..., trusted=True)`: a user who types "</think>" gets the
letters, not the token.

A tokenizer is trained here on a corpus, read from a model folder, or a named tiktoken encoding.
"""

import lib.start  # noqa: F401

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import regex  # the standard library's re knows no \p{L}
import tiktoken

import config
from lib import hf_tokenizer, templates
from lib.errors import UserError, shortened
from lib.files import atomic_write
from lib.templates import R1, TEMPLATES

SPECIALS = ["<|pad|>", "<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"]
SPECIALS += ["<think>", "</think>", "<answer>", "</answer>"]
HIDDEN = {"<|pad|>", "<|begin|>", "<|end|>"}  # the others are part of what is said
LEAST = 256 + len(SPECIALS)  # tokens of a trained tokenizer

# Text is first cut into words, and no token reaches over the border of a word. A word takes the
# space before it and, if a number follows, the one after it: so a number is the same token wherever
# it stands. Chinese letters (Han) and others ([^\P{L}\p{Han}]: a letter, not Han) never share a
# token: so "A" is A in "A比B高" too. Digits come in threes; the rest is punctuation or white space.
PATTERN = r" ?(?:\p{Han}+|[^\P{L}\p{Han}]+)(?: (?=\p{N}))?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

# what a template's texts replace
MARK = regex.compile(r"\{(?:prompt|system|(?:question|answer) \d+)\}")


@dataclass
class Vocabulary:
    """The tokens, and what cuts a text into words. The last five serve other people's models."""

    ranks: dict[bytes, int]  # token -> its place in the order of merges; all bytes are among them
    patterns: list[str]  # the last cuts into words; those before it set their matches apart
    special: dict[str, int]  # special token -> id
    hidden: set[str]  # special tokens that are not part of what is said
    eos: str  # ends a response
    pad: str
    ids: list[int] | None = None  # place -> id if they differ; -1: a byte that is no token
    nfc: bool = False  # whether texts are normalised first
    bos: Iterable[str] = ()  # stand before a prompt; a chat template writes its own
    trim: bool = False  # the chat template takes white space off a prompt's ends
    files: dict[str, object] | None = None  # what the model folder held: `save` writes it again


def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Byte-level BPE [arXiv 1508.07909]: start from the 256 bytes, and again and again join the
    pair of neighbours that is most frequent in the texts to a new token. The vocabulary is 256
    bytes + merges + SPECIALS = vocab_size (fewer if the texts run out of pairs)."""
    tags = _any_of(SPECIALS)
    counts = Counter(word for t in texts for word in regex.findall(PATTERN, tags.sub("", t)))
    words = [[bytes([b]) for b in word.encode()] for word in counts]  # distinct, as tokens
    frequency = list(counts.values())
    pairs: Counter = Counter()  # (left, right) -> how often they are neighbours
    where = defaultdict(set)  # (left, right) -> the words that hold them, or did
    for i, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += frequency[i]
            where[pair].add(i)
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < vocab_size - len(SPECIALS) and pairs:
        best = max(pairs, key=lambda p: (pairs[p], p))  # equal counts: the larger bytes
        if pairs[best] <= 0:
            break
        ranks.setdefault(best[0] + best[1], len(ranks))  # another pair may have made these bytes
        for i in where.pop(best):  # only these words change; some have lost the pair before
            for pair in zip(words[i], words[i][1:]):
                pairs[pair] -= frequency[i]
            words[i] = _join(words[i], best)
            for pair in zip(words[i], words[i][1:]):
                pairs[pair] += frequency[i]
                where[pair].add(i)
        del pairs[best]
    special = {token: len(ranks) + i for i, token in enumerate(SPECIALS)}
    vocabulary = Vocabulary(ranks, [PATTERN], special, HIDDEN, eos="<|end|>", pad="<|pad|>")
    return Tokenizer(vocabulary, TEMPLATES["short"])


def _join(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """A word in which each occurrence of the pair, from the left, has become one token."""
    out = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


class Tokenizer:
    """A vocabulary at work: text to ids and back, and prompts by a template around "{prompt}". The
    merging itself is tiktoken's, which is fast. For a vocabulary trained here _encode does no more
    than encode_ordinary: `ids`, _first and _missing serve vocabularies from elsewhere."""

    def __init__(self, vocabulary: Vocabulary, template: str):
        self.vocabulary, self.template, self.special = vocabulary, template, vocabulary.special
        own = template not in TEMPLATES.values()  # the model's own chat template
        self.chat = own and R1 not in template  # a chat model's, without R1's words on tags
        ranks, ids = vocabulary.ranks, vocabulary.ids
        *first, last = vocabulary.patterns
        self._last = rf"{last}|(?:(?!{last})[\s\S])+"  # what the pattern passes over is a word too
        self._first = [regex.compile(pattern) for pattern in first]
        options = dict(pat_str=self._last, mergeable_ranks=ranks, special_tokens={})
        self._bpe = tiktoken.Encoding("pocket-r1", **options)
        # bytes that are no tokens
        self._missing = {b for b in range(256) if ids and ids[ranks[bytes([b])]] < 0}
        self._bytes = {ids[rank] if ids else rank: token for token, rank in ranks.items()}
        self._bytes |= {i: token.encode() for token, i in self.special.items()}
        self.vocab_size = max(self._bytes) + 1
        self.opened = "<think>" if template.rstrip().endswith("<think>") else ""  # by the template
        self.eos_id, self.pad_id = self.special[vocabulary.eos], self.special[vocabulary.pad]
        self.hidden = {self.special[token] for token in vocabulary.hidden}
        self.bos = [] if own else [self.special[token] for token in vocabulary.bos]
        self._any_special = _any_of(self.special)
        self.files, self.arguments = vocabulary.files, {}  # of the chat template

    def same_tokens(self, other) -> bool:
        return self._bytes == other._bytes

    def encode(self, text: str, trusted: bool = False) -> list[int]:
        """Token ids of a text. Only in `trusted` text, our own, do "<think>" and the like become
        special tokens."""
        if not trusted:
            return self._encode(text)
        out = []
        for piece in _pieces(self._any_special, text):
            out += [self.special[piece]] if piece in self.special else self._encode(piece)
        return out

    def _encode(self, text: str) -> list[int]:
        if not text.isascii():  # half of a character, which JSON can hold, becomes U+FFFD
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        parts = [unicodedata.normalize("NFC", text) if self.vocabulary.nfc else text]
        for pattern in self._first:
            parts = [piece for part in parts for piece in _pieces(pattern, part)]
        if self._missing.isdisjoint(text.encode()):
            ranks = [r for part in parts for r in self._bpe.encode_ordinary(part)]
        else:  # missing bytes fall out of their words before anything is merged
            ranks = []
            for part in parts:
                for word in _pieces(self._last, part):
                    known = bytes(b for b in word.encode() if b not in self._missing)
                    ranks += self._bpe._encode_single_piece(known) if known else []
        ids = self.vocabulary.ids
        return ranks if ids is None else [ids[r] for r in ranks]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without hidden and unused ones; what is not UTF-8 becomes U+FFFD."""
        tokens = (self.decode_bytes(i) for i in ids if i not in self.hidden)
        return b"".join(tokens).decode("utf-8", "replace")

    def response(self, ids: Iterable[int]) -> str:
        """The same of a response, with the tag that the template has opened for it."""
        return self.opened + self.decode(ids)

    def decode_bytes(self, token: int) -> bytes:
        """The bytes of one token (part of a character, maybe); none for an id without a token."""
        return self._bytes.get(token, b"")

    def prompt(self, text: str) -> list[int]:
        """Token ids that ask for a response to `text`, by the template."""
        return self.fill(self.template, {"{prompt}": text})

    def fill(self, template: str, texts: dict[str, str]) -> list[int]:
        """Token ids of a template whose marks stand for texts, in which nothing becomes a special
        token. A text is encoded with what stands around it, up to the nearest special tokens: a
        token may hold letters of both."""
        if self.vocabulary.trim:
            texts = {mark: text.strip() for mark, text in texts.items()}
        out = list(self.bos)
        for piece in _pieces(self._any_special, template):
            if piece in self.special:
                out.append(self.special[piece])
            else:
                out += self._encode(MARK.sub(lambda found: texts.get(found[0], found[0]), piece))
        return out

    def example(self, prompt: str, response: str) -> tuple[list[int], int]:
        """(ids of prompt + response + end, length of the prompt): one training text. The response's
        tags are trusted. Where the template has opened the thinking, it begins within."""
        ids = self.prompt(prompt)
        if self.opened:
            tagged = response.lstrip().removeprefix("<think>").lstrip()
            response = tagged if "</think>" in response else f"</think>\n\n{response}"
        return ids + self.encode(response, trusted=True) + [self.eos_id], len(ids)

    def save(self, folder: str) -> None:
        """Write what transformers needs; a tokenizer that came from a folder, as it was there."""
        os.makedirs(folder, exist_ok=True)
        files = self.vocabulary.files or hf_tokenizer.to_files(self.vocabulary, self.template)
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            path = os.path.join(folder, name)
            with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
                f.write(text)


def _any_of(tokens: Iterable[str]) -> regex.Pattern:
    """A pattern that finds the tokens, the longer ones first."""
    return regex.compile("|".join(map(regex.escape, sorted(tokens, key=len, reverse=True))))


def _pieces(pattern: str | regex.Pattern, text: str) -> list[str]:
    """A text cut into the matches of a pattern and what lies between them."""
    out, start = [], 0
    for m in regex.finditer(pattern, text):
        out += [text[start : m.start()], m[0]]
        start = m.end()
    return [piece for piece in (*out, text[start:]) if piece]


def load(name: str, template: str = "auto", template_args: dict | None = None) -> Tokenizer:
    """A tokenizer from a model folder, or a tiktoken encoding with our special tokens added; how it
    asks: lib/templates.choose. UserError if there is none, or one of another kind."""
    if os.path.isdir(name):
        hf_tokenizer.check_template(name)
        with hf_tokenizer.clear_errors(name):
            vocabulary = Vocabulary(**hf_tokenizer.read(name))
            files, arguments = vocabulary.files, template_args or {}
            if text := templates.choose(vocabulary, template, arguments):
                if arguments or template not in ("auto", "chat"):  # asked so later, too
                    vocabulary.files = templates.written(vocabulary, text)
                found = Tokenizer(vocabulary, text)
                found.files, found.arguments = files, arguments
                return found
        msg = f"'{shortened(name)}' has no chat template for --template chat and --template.NAME"
        raise UserError(f"{msg}: drop them")
    base = hf_tokenizer.encoding(name)
    # the only way that tiktoken's guide gives to extend an encoding
    ranks, patterns, special = base._mergeable_ranks, [base._pat_str], base._special_tokens
    hidden = {*special, *HIDDEN}
    special = special | {token: base.n_vocab + i for i, token in enumerate(SPECIALS)}
    vocabulary = Vocabulary(ranks, patterns, special, hidden, eos="<|end|>", pad="<|pad|>")
    return Tokenizer(vocabulary, TEMPLATES["r1"])


def main() -> None:
    parser = config.Parser(__doc__)
    parser.add_argument("tokenizer", help="model folder, or the name of a tiktoken encoding")
    parser.add_argument("text")
    args = parser.parse_args()
    with config.user_errors():
        tokenizer = load(args.tokenizer)
        ids = tokenizer.encode(args.text)
        tokens = " ".join(f"{i}:{tokenizer.decode_bytes(i)!r}" for i in ids)
        print(f"{len(ids)} tokens of {tokenizer.vocab_size}: {tokens}")


if __name__ == "__main__":
    main()
