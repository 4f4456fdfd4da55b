"""Text to token ids and back: tiktoken encodings, and a byte-level BPE trainer that makes them.

    python tokenizer.py runs/zero/model "Tom has 3 apples"     # show the tokens of a text

A tokenizer is one of three things: trained here on a corpus, read from a model folder's tokenizer.json, or a named
tiktoken encoding. All 256 bytes are tokens, so no text is unencodable. Special tokens are only ever added by `special`
or `encode(..., trusted=True)`: a user who types "</think>" gets the letters, not the token.
"""

import argparse
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable

import regex  # comes with tiktoken; the standard library's re knows no \p{L}
import tiktoken

SPECIALS = ["<|pad|>", "<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>", "<answer>", "</answer>"]

# A word takes the space before it, and before a number also the one after it, so that a number is the same token
# wherever it stands; Chinese and other letters never share a token, so that "A" is A in "A比B高" too; digits come in threes;
# everything else is punctuation or white space.
PATTERN = r" ?(?:\p{Han}+|[^\P{L}\p{Han}]+)(?: (?=\p{N}))?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

# The prompt of a base model. `r1` is the template of DeepSeek-R1-Zero [2501.12948, Table 1]; `short` keeps only its roles,
# for a model whose whole context is a few hundred tokens.
R1_TEMPLATE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
    "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and "
    "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
    "here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)


class Tokenizer:
    def __init__(self, ranks: dict[bytes, int], pattern: str, specials: dict[str, int], template: str = "short"):
        """ranks: token bytes -> id, ids in merge order. template: "short" or "r1"."""
        self.ranks, self.pattern, self.special, self.template = ranks, pattern, specials, template
        self._enc = tiktoken.Encoding("pocket-r1", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
        self.pad_id, self.eos_id = specials["<|pad|>"], specials["<|end|>"]
        self._shown = {*ranks.values(), *specials.values()} - {self.pad_id, self.eos_id, specials["<|begin|>"]}  # some encodings have gaps
        self.vocab_size = max(max(ranks.values()), max(specials.values())) + 1

    def encode(self, text: str, trusted: bool = False) -> list[int]:
        """Token ids of a text. Only where the text is our own (`trusted`) do "<think>" and the like become special tokens."""
        return self._enc.encode(text, allowed_special="all") if trusted else self._enc.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD. Pad, begin, end and unused ids are left out."""
        return self._enc.decode([i for i in ids if i in self._shown])

    def decode_bytes(self, token: int) -> bytes:
        """The bytes of one token, for streaming: a character may be split over several."""
        return self._enc.decode_single_token_bytes(token)

    def prompt(self, text: str) -> list[int]:
        """Token ids that ask for a response to `text` [the template of R1-Zero]."""
        if self.template == "r1":
            before, after = R1_TEMPLATE.split("{prompt}")
            return self.encode(before) + self.encode(text) + self.encode(after)
        return [self.special["<|begin|>"], self.special["<|User|>"], *self.encode(text), self.special["<|Assistant|>"]]

    def example(self, prompt: str, response: str) -> tuple[list[int], int]:
        """(ids of prompt + response + end, length of the prompt): one training text. The response's tags are trusted."""
        ids = self.prompt(prompt)
        return ids + self.encode(response, trusted=True) + [self.eos_id], len(ids)

    def save(self, folder: str) -> None:
        """Write tokenizer.json in the layout of Hugging Face tokenizers (byte-level BPE)."""
        os.makedirs(folder, exist_ok=True)
        letters = _byte_letters()
        name = {b: "".join(letters[x] for x in b) for b in self.ranks}
        split = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        merges = [[name[a], name[b]] for a, b in (_parents(t, self.ranks) for t in sorted(self.ranks, key=self.ranks.get) if len(t) > 1)]
        flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        out = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": level,
               "added_tokens": [{"id": i, "content": s} | flags for s, i in self.special.items()],
               "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
               "model": {"type": "BPE", "vocab": {name[b]: i for b, i in self.ranks.items()}, "merges": merges}}
        for file, content in (("tokenizer.json", out), ("template.json", {"template": self.template})):
            path = os.path.join(folder, file)
            with open(path + ".tmp", "w", encoding="utf-8") as f:
                json.dump(content, f, ensure_ascii=False)
            os.replace(path + ".tmp", path)


def load(name: str, template: str | None = None) -> Tokenizer:
    """A tokenizer from a model folder, or a tiktoken encoding by its name (with our special tokens added behind).

    ValueError in one sentence where the folder has none, the file is damaged, or the encoding cannot be fetched.
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
    ranks = base._mergeable_ranks  # the only way tiktoken's own guide gives to extend an encoding
    specials = base._special_tokens | {s: base.n_vocab + i for i, s in enumerate(SPECIALS)}
    return Tokenizer(ranks, base._pat_str, specials, template or "r1")


def _load_folder(folder: str, template: str | None) -> Tokenizer:
    path = os.path.join(folder, "tokenizer.json")
    try:
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
        values = {letter: byte for byte, letter in enumerate(_byte_letters())}
        ranks = {bytes(values[c] for c in token): i for token, i in raw["model"]["vocab"].items()}
        specials = {t["content"]: t["id"] for t in raw["added_tokens"]}
        pattern = raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        if template is None:
            with open(os.path.join(folder, "template.json")) as f:
                template = json.load(f)["template"]
        return Tokenizer(ranks, pattern, specials, template)
    except OSError as e:
        raise ValueError(f"'{folder}' has no {os.path.basename(e.filename)}: give a model folder saved by this project") from None
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise ValueError(f"{path} is damaged or of another kind ({type(e).__name__}: {e})") from None


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
    return Tokenizer(ranks, PATTERN, {s: len(ranks) + i for i, s in enumerate(SPECIALS)})


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

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="model folder, or the name of a tiktoken encoding")
    parser.add_argument("text")
    args = parser.parse_args()
    with config.user_errors():
        tokenizer = load(args.tokenizer)
        ids = tokenizer.encode(args.text)
        print(f"{len(ids)} tokens of {tokenizer.vocab_size}: " + " ".join(f"{i}:{tokenizer.decode_bytes(i)!r}" for i in ids))


if __name__ == "__main__":
    main()
