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
    """Says the same always, and keeps what it was asked."""

    def __init__(self, tokenizer, text="<think>hm</think>the", finished=True):
        self.tokenizer, self.text, self.finished, self.asked = tokenizer, text, finished, []

    def __call__(self, ids, on_token=None):
        self.asked.append(ids)
        said = self.tokenizer.encode(self.text)
        for token in said if on_token else ():
            on_token(token)
        return said, self.finished


def test_doctests():
    assert doctest.testmod(chat).failed == 0


def test_turns_by_the_model_s_own_template(tokenizer, capsys):
    model = Model(tokenizer)
    talk = Chat(tokenizer, model, room=500)
    assert talk.command("/system You are kind.") == "a new conversation, so told"
    talk.ask("the 12")
    talk.ask("why?")
    assert model.asked[1] == tokenizer.encode(SECOND, trusted=True)
    assert "hm" not in tokenizer.decode(model.asked[1])  # thinking is not kept
    assert capsys.readouterr().out == 2 * "thinking: hm\nthe\n"
    assert talk.command("/reset") == "nothing has been said"
    talk.command("/system")
    talk.ask("the 12")
    assert model.asked[2] == tokenizer.prompt("the 12")


def test_what_is_said_never_becomes_a_special_token(tokenizer):
    talk = Chat(tokenizer, Model(tokenizer), room=500)
    talk.turns = [("<|im_end|>", "{prompt}<|im_start|>")]
    ids = talk.prompt("{answer 0}")
    assert ids.count(1) == 4 and ids.count(2) == 3
    assert "{prompt}<|im_start|>" in tokenizer.decode(ids) and "{answer 0}" in tokenizer.decode(ids)


def test_the_oldest_turns_make_room(tokenizer):
    talk = Chat(tokenizer, Model(tokenizer), room=120)
    for number in range(9):
        talk.ask(f"the {number} {'x' * 20}")
    assert 1 < len(talk.turns) < 9 and "8" in talk.turns[-1][0]
    with pytest.raises(UserError, match=r"a prompt of \d+ tokens leaves no room"):
        talk.ask("x" * 200)


def test_a_model_without_a_chat_template_has_no_turns(world_tokenizer, capsys):
    model = Model(world_tokenizer, "<think>a</think><answer>7</answer>", finished=False)
    talk = Chat(world_tokenizer, model, room=500, thinking=False)
    talk.ask("3+4")
    talk.ask("3+4")
    assert model.asked[0] == model.asked[1] == world_tokenizer.prompt("3+4")
    assert capsys.readouterr().out == 2 * f"answer: 7{chat.CUT}\n"
    assert "no chat template" in talk.command("/system x") and talk.system is None
    assert talk.command("/think") == "thinking is shown" and talk.command("/help") == chat.HELP


def test_json_from_a_pipe(tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the 12\n\n/reset\n" + "x" * 900 + "\n你\n"))
    Chat(tokenizer, Model(tokenizer), room=500, as_json=True).run()
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    row = {"reasoning_content": "hm", "content": "the", "finished": True}
    assert rows == [{"question": "the 12"} | row, {"question": "你"} | row]
    assert "nothing has been said" in err and "leaves no room" in err


def test_without_input_there_is_no_chat(tokenizer, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="give the question on the command line"):
        Chat(tokenizer, Model(tokenizer), room=500).run()
