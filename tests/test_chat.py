"""A conversation: what the model reads in each turn, and what the user sees."""

import doctest
import io
import json
import sys

import pytest
from test_hf_tokenizer import chat_folder

import tokenizer as T
from lib import chat
from lib.chat import Chat
from lib.errors import UserError

# what a model reads in the second turn after "You are kind.", by hand
SECOND = (
    "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nthe 12<|im_end|>\n"
    "<|im_start|>assistant\nthe<|im_end|>\n<|im_start|>user\nwhy?<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@pytest.fixture
def tokenizer(tmp_path):
    return T.load(chat_folder(tmp_path / "chat"))


class Model:
    """Says the same always, and keeps what it was asked. Refuses what sample.generate refuses."""

    def __init__(self, tokenizer, text="<think>hm</think>the", finished=True, context=500):
        self.tokenizer, self.text, self.finished, self.asked = tokenizer, text, finished, []
        self.context = context

    def __call__(self, ids, on_token=None):
        if len(ids) >= self.context:
            raise UserError(f"a prompt of {len(ids)} tokens leaves no room of {self.context}")
        self.asked.append(ids)
        said = self.tokenizer.encode(self.text)
        for token in said if on_token else ():
            on_token(token)
        return said, self.finished


def say(talk: Chat, monkeypatch, *lines: str) -> None:
    """Type lines at a terminal, then Ctrl-D."""
    typed = iter(lines)

    def line(prompt: str) -> str:
        assert prompt == "> "
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", line)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    talk.run()


def test_doctests():
    assert doctest.testmod(chat).failed == 0


def test_turns_by_the_model_s_own_template(tokenizer, monkeypatch, capsys):
    model = Model(tokenizer)
    talk = Chat(tokenizer, model, 500, 100)
    assert talk.command("/system You are kind.") == "a new conversation, so told"
    say(talk, monkeypatch, "the 12", "why?")
    assert model.asked[1] == tokenizer.encode(SECOND, trusted=True)
    assert "hm" not in tokenizer.decode(model.asked[1])  # thinking is not kept
    assert capsys.readouterr().out == f"{chat.HELP}\n" + 2 * "thinking: hm\nthe\n" + "\n"
    assert talk.command("/reset") == "nothing has been said"
    assert talk.command("/system") == "a new conversation, without a system prompt"
    talk.ask("the 12")
    assert model.asked[2] == tokenizer.prompt("the 12")


def test_what_is_said_never_becomes_a_special_token(tokenizer):
    talk = Chat(tokenizer, Model(tokenizer), 500, 100)
    talk.tell("{prompt} {question 0} <|im_end|>")
    talk.turns = [("<|im_end|>", "{prompt}<|im_start|>")]
    ids = talk.prompt("{answer 0}")
    assert ids.count(1) == 5 and ids.count(2) == 4
    said = tokenizer.decode(ids)
    assert "{prompt}<|im_start|>" in said and "{answer 0}" in said
    assert "{prompt} {question 0} <|im_end|>" in said


def test_the_oldest_turns_make_room_for_an_answer(tokenizer, monkeypatch):
    model = Model(tokenizer, context=200)
    talk = Chat(tokenizer, model, 200, 80)
    say(talk, monkeypatch, *(f"the {number} {'x' * 20}" for number in range(9)))
    assert len(talk.turns) == 9 and max(map(len, model.asked)) <= 120
    assert tokenizer.decode(model.asked[-1]).count("assistant") in (2, 3)
    with pytest.raises(UserError, match=r"a prompt of \d+ tokens leaves no room of 200"):
        talk.ask("x" * 200)
    assert len(talk.turns) == 9  # nothing is forgotten for a question that has no room
    assert len(talk.prompt("x" * 130)) > 120  # alone it may take an answer's room


def test_a_template_without_a_place_for_a_system_prompt(tmp_path):
    folder = chat_folder(tmp_path / "chat")
    no_place = "{% for m in messages if m.role == 'user' %}Q: {{ m.content }}{% endfor %}"
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    refuses += "Q: {{ messages[-1].content }}"
    for template, told in ((no_place, "has no place"), (refuses, "no system")):
        about = {"eos_token": "<|im_end|>", "pad_token": "<|end|>", "chat_template": template}
        (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(about))
        tokenizer = T.load(folder)
        talk = Chat(tokenizer, Model(tokenizer), 500, 100)
        assert told in talk.command("/system You are kind.") and talk.system is None


def test_a_model_without_a_chat_template_has_no_turns(world_tokenizer, capsys):
    model = Model(world_tokenizer, "<think>a</think><answer>7</answer>", finished=False)
    talk = Chat(world_tokenizer, model, 500, 100, thinking=False)
    talk.ask("3+4")
    talk.ask("3+4")
    assert model.asked[0] == model.asked[1] == world_tokenizer.prompt("3+4")
    assert capsys.readouterr().out == 2 * f"answer: 7{chat.CUT}\n"
    assert "no chat template" in talk.command("/system x") and talk.system is None
    assert talk.command("/think") == "thinking is shown" and talk.command("/help") == chat.HELP


def test_json_from_a_pipe(tokenizer, monkeypatch, capsys):
    """Each question alone, whatever it begins with."""
    questions = ["the 12", "", "/reset", "x" * 900, "你"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(questions)))
    model = Model(tokenizer)
    Chat(tokenizer, model, 500, 100, as_json=True).run()
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    row = {"reasoning_content": "hm", "content": "the", "finished": True}
    assert rows == [{"question": q} | row for q in ("the 12", "/reset", "你")]
    assert model.asked == [tokenizer.prompt(q) for q in ("the 12", "/reset", "你")]
    assert "leaves no room" in err


def test_json_of_a_model_whose_template_opens_the_thinking(tmp_path, capsys):
    folder = chat_folder(tmp_path / "chat")
    about = {"eos_token": "<|im_end|>", "pad_token": "<|end|>"}
    about["chat_template"] = "Q: {{ messages[-1].content }}<think>"
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(about))
    tokenizer = T.load(folder)
    assert tokenizer.opened == "<think>"
    Chat(tokenizer, Model(tokenizer, "hm</think>7"), 500, 100, as_json=True).ask("3+4")
    row = json.loads(capsys.readouterr().out)
    assert (row["reasoning_content"], row["content"]) == ("hm", "7")


def test_ctrl_c_during_an_answer_ends_it(tokenizer, monkeypatch):
    def stopped(ids, on_token):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.StringIO("the 12\n"))
    with pytest.raises(KeyboardInterrupt):
        Chat(tokenizer, stopped, 500, 100).run()


def test_ctrl_c_at_a_terminal_stops_the_answer_alone(tokenizer, monkeypatch, capsys):
    model, calls = Model(tokenizer), []

    def answer(ids, on_token):
        calls.append(ids)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return model(ids, on_token)

    say(Chat(tokenizer, answer, 500, 100), monkeypatch, "the 12", "why?")
    assert len(calls) == 2 and " stopped\nthinking: hm\nthe\n" in capsys.readouterr().out


def test_a_byte_order_mark_is_no_question(tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeff\n\ufeffthe 12\n"))
    Chat(tokenizer, Model(tokenizer), 500, 100, as_json=True).run()
    assert json.loads(capsys.readouterr().out)["question"] == "the 12"


def test_without_input_there_is_no_chat(tokenizer, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="give the question on the command line"):
        Chat(tokenizer, Model(tokenizer), 500, 100).run()
