"""Tokenizers of other people, as they lie in Hugging Face folders."""

import datetime
import json

import jinja2
import pytest

import tokenizer as T
from lib.hf_tokenizer import LETTERS, chat_template, to_files

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
    level["trim_offsets"] = True  # transformers wants it
    content = {
        "added_tokens": [{"content": t, "id": i} | flags for i, t in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges},
    }
    eos = {"content": "<|im_end|>", "__type": "AddedToken"}
    about = {"eos_token": eos, "pad_token": "<|end|>"}
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


def with_added(folder, *tokens, **flags):
    """The same with tokens added: a new one, or one that is a word's already."""
    raw = json.loads((folder / "tokenizer.json").read_text())
    vocab = raw["model"]["vocab"]
    for token in tokens:
        known = {t["content"]: t["id"] for t in raw["added_tokens"]} | vocab
        i = known.get(token, max(known.values()) + 1)
        raw["added_tokens"].append({"content": token, "id": i, "special": False} | flags)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    return T.load(str(folder)), vocab


def test_tags_are_read_even_if_they_are_special(tmp_path):
    """As by add_special_tokens({"additional_special_tokens": ["<think>", ...]})."""
    chat_folder(tmp_path)
    t, _ = with_added(tmp_path, "<think>", "</think>", "<answer>", "</answer>", special=True)
    text = "<think>1+2</think><answer>3</answer>"
    assert t.response(t.encode(text, trusted=True)) == text


def test_an_added_token_may_be_a_word_s_token_too(tmp_path):
    """As a pad token "!", or add_tokens(["the"]): they keep their ids, and no letter is lost."""
    chat_folder(tmp_path)
    t, vocab = with_added(tmp_path, "!", "the")
    assert t.encode("the!!?") == [vocab["the"], vocab["!"], vocab["!?"]]
    assert t.encode("the!", trusted=True) == [vocab["the"], vocab["!"]]


def test_what_a_folder_leaves_unsaid(tmp_path):
    """No normaliser; an end token that is stale, where config.json names another."""
    chat_folder(tmp_path)
    raw, about = (tmp_path / f"tokenizer{x}.json" for x in ("", "_config"))
    content, names = json.loads(raw.read_text()), json.loads(about.read_text())
    del content["normalizer"]
    raw.write_text(json.dumps(content))
    about.write_text(json.dumps(names | {"eos_token": "</s>"}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert T.load(str(tmp_path)).eos_id == 2


def test_a_pattern_of_what_is_not_removed(tmp_path):
    """Split, "Removed", inverted: the matches are kept."""
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\d|\D+"},
        "behavior": "Removed",
        "invert": True,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    pre = {"type": "Sequence", "pretokenizers": [split, level]}
    t = T.load(chat_folder(tmp_path / "chat", pre_tokenizer=pre))
    assert [t.decode_bytes(i) for i in t.encode("12the")] == [b"1", b"2", b"the"]


@pytest.mark.parametrize("template", ["r1", "none"])
def test_transformers_asks_with_the_token_that_our_prompts_begin_with(template, tmp_path):
    """Its chat templates add none of their own."""
    start = {"single": [{"SpecialToken": {"id": "<|end|>"}}], "type": "TemplateProcessing"}
    folder = chat_folder(tmp_path / "base", post_processor=start)
    about = tmp_path / "base" / "tokenizer_config.json"
    about.write_text(json.dumps({"eos_token": "<|im_end|>"}))  # a base: without a template
    ours = T.load(folder, template)
    ours.save(str(tmp_path))
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
    content = jinja2.Template(written).render(
        messages=[{"role": "user", "content": "the 12"}], add_generation_prompt=True
    )
    assert ours.encode(content, trusted=True) == ours.prompt("the 12")
    again = T.load(str(tmp_path))
    assert again.prompt("the 12") == ours.prompt("the 12")
    again.save(str(tmp_path / "again"))
    kept = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert kept["chat_template"] == written


DEEPSEEK = [r"\p{N}{1,3}", "[一-龥]+", r"[^\r\n\p{L}\p{P}]?[\p{L}\p{M}]+| ?[\p{P}]+[\r\n]*|\s+"]


def test_what_the_last_pattern_passes_over_is_a_word_too(tmp_path):
    """DeepSeek-V3's patterns: digits are cut out by the first, and the last knows none."""
    cut = {"type": "Split", "behavior": "Isolated", "invert": False}
    parts = [cut | {"pattern": {"Regex": pattern}} for pattern in DEEPSEEK]
    parts.append({"type": "ByteLevel", "add_prefix_space": False, "use_regex": False})
    pre = {"type": "Sequence", "pretokenizers": parts}
    t = T.load(chat_folder(tmp_path / "chat", pre_tokenizer=pre))
    tokens = [t.decode_bytes(i) for i in t.encode("12the the 3+4")]
    assert tokens == [b"12", b"the", b" the", b" ", b"3", b"+", b"4"]
    text = "A 1234你12好, $80,000 = \u00b2x\n"
    assert t.decode(t.encode(text)) == text


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


NFC, NOTHING = {"type": "NFC"}, {"type": "Sequence", "normalizers": []}


@pytest.mark.parametrize(
    ("normalizer", "composed"),
    [
        (None, False),
        (NOTHING, False),  # DeepSeek-V3's
        (NFC, True),  # Qwen's
        (NOTHING | {"normalizers": [NFC]}, True),
    ],
)
def test_normalizers(normalizer, composed, tmp_path):
    """e and a combining accent are one letter, é, where texts are normalised."""
    t = T.load(chat_folder(tmp_path / "chat", normalizer=normalizer))
    assert t.encode("e\u0301") == t.encode("é" if composed else "e") + (
        [] if composed else t.encode("\u0301")
    )
    assert t.decode(t.encode("e\u0301")) == ("é" if composed else "e\u0301")


# Llama 3's: byte letters, then <|begin_of_text|> before a text
FIRST = [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
PAIR = [FIRST[1], {"Sequence": {"id": "B", "type_id": 1}}]
BOS = {"type": "TemplateProcessing", "single": FIRST, "pair": PAIR}
BOS["special_tokens"] = {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}
LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}


@pytest.mark.parametrize("post", [BOS, {"type": "Sequence", "processors": [LEVEL, BOS]}])
def test_what_stands_before_a_text(post, tmp_path):
    """Once: by the chat template, or else before the base model's prompt. Never within a text."""
    folder, about = chat_folder(tmp_path / "chat", post_processor=post), tmp_path / "chat"
    about = about / "tokenizer_config.json"
    raw = json.loads(about.read_text()) | {"bos_token": "<|end|>"}
    base, bos = T.load(folder, template="none"), 0
    ids = base.prompt("the")
    assert ids[0] == bos and ids.count(bos) == 1 and base.bos == [bos]
    assert ids[1:] == base.encode("the")
    assert base.example("the", "the")[0].count(bos) == 1 and bos not in base.encode("the")
    about.write_text(json.dumps(raw | {"chat_template": "{{ bos_token }}" + TEMPLATE}))
    chat = T.load(folder)
    ids = chat.prompt("the")
    assert ids[0] == bos and ids.count(bos) == 1 and chat.bos == []
    about.write_text(json.dumps(raw | {"chat_template": TEMPLATE}))
    assert bos not in T.load(folder).prompt("the")  # as transformers: the template decides


def test_no_post_processor_puts_nothing_before_a_text(tmp_path):
    last = BOS | {"single": FIRST[::-1]}  # after it
    for post in (None, LEVEL, last):
        t = T.load(chat_folder(tmp_path / "chat", post_processor=post), template="r1")
        assert t.bos == [] and 0 not in t.prompt("the")


def test_a_pad_token_that_is_none_of_the_vocabulary(tmp_path):
    folder = chat_folder(tmp_path / "chat")
    about = '{"eos_token": "<|im_end|>", "pad_token": "[PAD]"}'
    (tmp_path / "chat" / "tokenizer_config.json").write_text(about)
    assert T.load(folder).pad_id == T.load(folder).eos_id == 2


def test_sft_teaches_the_tokenizer_s_end_token(tmp_path):
    """And without one, what the model's files name."""
    folder = chat_folder(tmp_path / "chat")
    (tmp_path / "chat" / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    assert T.load(folder).example("the", "the")[0][-1] == 2
    (tmp_path / "chat" / "tokenizer_config.json").write_text('{"bos_token": null}')
    (tmp_path / "chat" / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert T.load(folder).example("the", "the")[0][-1] == 1


# a chat template -> what transformers 5.24 makes of it
RENDERED = {
    "{% generation %}{{ messages[0].content }}{% endgeneration %}": "{prompt}",
    "{% for m in messages %}{% generation %}{% if m.role == 'assistant' %}A{% else %}"
    "{{ m.content }}{% endif %}{% endgeneration %}.{% endfor %}": "{prompt}.",
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 2 %}{% break %}"
    "{% endif %}{{ i }}{% endfor %}{{ messages[0].content }}": "02{prompt}",
    "{{ messages[0] | tojson }}": '{"role": "user", "content": "{prompt}"}',
    "{{ {'a': '<é>&'} | tojson(indent=1) }}{{ messages[0].content }}": (
        '{\n "a": "<é>&"\n}{prompt}'
    ),
    "{{ messages[0].content }}{% if tools is not none or documents is not none %}T{% endif %}": (
        "{prompt}"
    ),
    "{{ bos_token is defined }}{{ eos_token }}{{ pad_token }}{{ messages[0].content }}": (
        "False<|im_end|><|end|>{prompt}"
    ),
    "{% if enable_thinking is defined %}T{% endif %}{{ messages[0].content }}": "{prompt}",
    "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}\n"
    "  {% set a = namespace(x=1) %}\n{{ a.x }}{{ messages[0].content }}": "1{prompt}",
}


@pytest.mark.parametrize("template", RENDERED)
def test_chat_templates_as_transformers_renders_them(template, tmp_path):
    folder = chat_folder(tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    assert T.load(folder).template == RENDERED[template]


def test_what_a_chat_template_says_of_the_day_and_of_mistakes(tmp_path):
    folder = chat_folder(tmp_path / "chat")
    path = tmp_path / "chat" / "chat_template.jinja"
    path.write_text("{{ strftime_now('%d %B %Y') }}: {{ messages[0].content }}")
    day = datetime.datetime.now().strftime("%d %B %Y")
    assert T.load(folder).template == f"{day}: {{prompt}}"
    path.write_text("{{ raise_exception('begin with a system message') }}")
    with pytest.raises(ValueError, match=r"fails \(TemplateError: begin with a system message\)"):
        T.load(folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (dict(normalizer=NOTHING | {"normalizers": [NFC, {"type": "Strip"}]}), "is Strip"),
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
        with pytest.raises(ValueError, match="cannot be used"):
            T.load(folder)


def test_templates_none_of_which_is_the_default(tmp_path):
    folder, about = chat_folder(tmp_path / "chat"), {"eos_token": "<|im_end|>"}
    about |= {"pad_token": "<|end|>", "chat_template": [{"name": "tool_use", "template": "x"}]}
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"\(tool_use\) is named default: try --template none"):
        T.load(folder)
    assert T.load(folder, "none").template == "{prompt}"
    (tmp_path / "chat" / "tokenizer_config.json").write_text(
        json.dumps(about | {"chat_template": []})
    )
    assert T.load(folder).template == T.TEMPLATES["r1"]


def test_a_template_that_is_chosen_as_it_is_stays_as_it_is(tmp_path):
    folder = chat_folder(tmp_path / "chat")
    T.load(folder, "chat").save(str(tmp_path / "saved"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        before, after = (json.loads((tmp_path / x / name).read_text()) for x in ("chat", "saved"))
        assert before == after


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


# ends as DeepSeek-R1's and Qwen3's do: thinking is begun, or with enable_thinking false left out
OPENS = TEMPLATE.replace(
    "assistant\n{%", "assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{%"
)  # fmt: skip
MESSAGE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def thinking_folder(folder, template=OPENS):
    path, about = chat_folder(folder), folder / "tokenizer_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"chat_template": template}))
    return path


def test_thinking_that_the_template_has_opened_belongs_to_the_response(tmp_path):
    t = T.load(thinking_folder(tmp_path / "chat"))
    assert t.template == MESSAGE + "<think>\n"
    assert t.response(t.encode("so 3</think>")) == "<think>so 3</think>"
    # a text that begins with the tag is trained on without it: it stands in the prompt
    ids, prompt = t.example("q", "<think>so</think>7")
    assert ids[:prompt] == t.prompt("q") and t.decode(ids[prompt:]) == "so</think>7"
    for row, learnt in ((" <think>\nso</think>7", "so</think>7"), ("7", "</think>\n\n7")):
        ids, prompt = t.example("q", row)
        assert t.decode(ids[prompt:]) == learnt
    plain = T.load(chat_folder(tmp_path / "plain"))
    assert plain.response(plain.encode("so</think>")) == "so</think>"


def test_arguments_of_a_chat_template(tmp_path):
    folder = thinking_folder(tmp_path / "chat")
    t = T.load(folder, "auto", {"enable_thinking": False, "system": "Be short."})
    told = "<|im_start|>system\nBe short.<|im_end|>\n"
    assert t.template == told + MESSAGE + "<think>\n\n</think>\n\n"
    assert t.opened == "" and t.chat
    t.save(str(tmp_path / "trained"))  # what was trained so is asked so, whatever is said again
    for again in ({}, {"enable_thinking": False, "system": "Be short."}):
        assert T.load(str(tmp_path / "trained"), "auto", again).template == t.template
    with pytest.raises(ValueError, match=r"nearest is '--template\.enable_thinking'"):
        T.load(folder, "auto", {"enable_thinkin": False})


def test_the_paper_s_words_in_a_chat_model_s_own_template(tmp_path):
    t = T.load(thinking_folder(tmp_path / "chat"), "r1")
    assert t.template == MESSAGE.replace("{prompt}", T.R1 + "\n\n{prompt}") + "<think>\n"
    assert not t.chat and t.opened == "<think>"  # how to answer has been said
    t.save(str(tmp_path / "trained"))
    for name in ("auto", "chat", "r1"):
        assert T.load(str(tmp_path / "trained"), name).template == t.template


def test_the_question_alone(tmp_path):
    """Also where the model's own template cannot be used."""
    folder = thinking_folder(tmp_path / "chat", template="{{ raise_exception('no') }}")
    t = T.load(folder, "none")
    assert not t.chat and t.prompt("the") == t.encode("the")
    t.save(str(tmp_path / "trained"))
    assert T.load(str(tmp_path / "trained")).template == "{prompt}"
    with pytest.raises(ValueError, match=r"chat template fails.*no"):
        T.load(folder)


def test_a_chat_template_that_is_not_there(tmp_path):
    folder = chat_folder(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    for asked in (("chat",), ("auto", {"enable_thinking": False})):
        with pytest.raises(
            ValueError, match=r"no chat template for --template chat and --template\.NAME: drop"
        ):
            T.load(folder, *asked)


def test_braces_and_new_lines_of_a_template_are_kept(tmp_path, world_tokenizer):
    """In the chat template that we write: block tags would swallow the new line after them."""
    text = '\n{{ x }} "{prompt}"\n{% y %}\n'
    files = to_files(world_tokenizer.vocabulary, text)
    assert chat_template(files, {}) == (text, False)


@pytest.mark.parametrize("trim", ["", " | trim"])
def test_white_space_at_a_question_s_ends(trim, tmp_path):
    """It goes where the template says so, as Llama 3's: HumanEval's prompts end with a new line."""
    folder = chat_folder(tmp_path / "chat")
    source = TEMPLATE.replace("m.content", f"m.content{trim}")
    (tmp_path / "chat" / "chat_template.jinja").write_text(source)
    for copy, arguments in (("a", {}), ("b", {"system": "the"})):
        t = T.load(folder, template_args=arguments)
        t.save(str(tmp_path / copy))
        ids = T.load(str(tmp_path / copy)).prompt(" the\n")
        assert ids == t.prompt(" the\n") and (ids == t.prompt("the")) == bool(trim)
