"""Tokenizers of other people, as they lie in Hugging Face folders."""

import json

import pytest

import tokenizer as T
from lib.hf_tokenizer import LETTERS

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_folder(folder, **raw):
    """A byte-level tokenizer.json as other people write them, with its specials first: ids are not
    the order of merges."""
    special = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("!", "?")]
    vocab = special + [LETTERS[b] for b in reversed(range(256)) if b != 7]
    vocab += ["".join(m) for m in reversed(merges)]
    flags = dict(special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    content = {
        "added_tokens": [{"content": t, "id": i} | flags for i, t in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges},
    }
    about = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|end|>"}
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content | raw))
    config = json.dumps(about | {"chat_template": TEMPLATE})
    (folder / "tokenizer_config.json").write_text(config)
    return str(folder)


def test_a_foreign_tokenizer_by_hand(tmp_path):
    """Merges by their order, ids by the vocabulary, digits apart, a byte without a token dropped
    before anything is merged."""
    t = T.load(chat_folder(tmp_path / "chat"))
    vocab = json.loads((tmp_path / "chat" / "tokenizer.json").read_text())["model"]["vocab"]
    # 1 and 2 never meet
    assert t.encode("the the12") == [vocab["the"], vocab["Ġthe"], vocab["1"], vocab["2"]]
    assert t.encode("!\x07?") == [vocab["!?"]] and t.decode(t.encode("é 你")) == "é 你"
    assert (t.eos_id, t.pad_id, t.vocab_size) == (2, 0, 3 + 255 + 5)
    assert t.decode([*t.encode("the"), 2, 0]) == "the" and t.encode("<|im_end|>") != [2]


def test_a_model_s_own_chat_template(tmp_path):
    t = T.load(chat_folder(tmp_path / "chat"))
    assert t.chat
    assert t.template == "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = t.prompt("the <|im_end|>")
    assert ids.count(2) == 1 and ids.count(1) == 2
    assert t.decode(ids) == "user\nthe <|im_end|>\nassistant\n"
    head = t.encode("<|im_start|>user\nthe ", trusted=True)
    tail = t.encode("<|im_end|>\n<|im_start|>assistant\n", trusted=True)
    assert ids == head + t.encode("<|im_end|>") + tail
    (tmp_path / "chat" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    assert T.load(str(tmp_path / "chat")).template == T.TEMPLATES["r1"]  # a base model


def test_a_foreign_tokenizer_is_saved_as_it_was(tmp_path):
    t = T.load(chat_folder(tmp_path / "chat"))
    t.save(str(tmp_path / "copy"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy = json.loads((tmp_path / "copy" / name).read_text())
        assert copy == json.loads((tmp_path / "chat" / name).read_text())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (dict(model={"type": "Unigram", "vocab": [], "merges": []}), "its model is Unigram"),
        (dict(normalizer={"type": "Lowercase"}), "its normalizer is Lowercase"),
        (dict(pre_tokenizer={"type": "Whitespace"}), "its pre_tokenizer has a Whitespace"),
    ],
)
def test_other_kinds_are_named(raw, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        T.load(chat_folder(tmp_path / "other", **raw))


def test_a_chat_template_that_cannot_be_used_is_named(tmp_path):
    folder = chat_folder(tmp_path / "chat")
    twice = "{{ messages[0].content }}{{ messages[0].content }}"
    wrong = ("{{ messages[", "{{ 1 // 0 }}", "{{ 'a' + 1 }}", "{% for i in range(10**9) %}")
    for template in (*wrong, "no question here", twice):
        (tmp_path / "chat" / "chat_template.jinja").write_text(template)
        with pytest.raises(ValueError, match="damaged or of another kind"):
            T.load(folder)


def test_a_lost_chat_template_is_said_once(tmp_path, capsys):
    folder = chat_folder(tmp_path / "chat")
    (tmp_path / "chat" / "tokenizer_config.json").unlink()
    (tmp_path / "chat" / "config.json").write_text('{"eos_token_id": 2}')
    for _ in range(2):
        assert T.load(folder).template == T.TEMPLATES["r1"]
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and "has no tokenizer_config.json: prompts are a base model's" in err
    )
    (tmp_path / "chat" / "chat_template.jinja").write_text(TEMPLATE)
    assert T.load(folder).chat


def test_a_pattern_that_is_damaged_is_named(tmp_path):
    cuts = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in ("(", r"\s+")
    ]
    pre = {"type": "Sequence", "pretokenizers": cuts}
    with pytest.raises(ValueError, match="damaged or of another kind"):
        T.load(chat_folder(tmp_path / "chat", pre_tokenizer=pre), template="short")
