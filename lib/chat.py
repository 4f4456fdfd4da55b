"""Questions and answers with a model: at a terminal, from a pipe, or as lines of JSON.

Where the model has a chat template of its own, a conversation has several turns: earlier questions
and answers, without their thinking, stand before the new one; the oldest are dropped when the
context is full. Other models are asked each question alone.
"""

import json
import sys
from collections.abc import Callable

from lib.errors import UserError
from lib.printer import Printer

HELP = "/reset forgets what was said, /system TEXT tells the model who it is, /think hides or shows"
HELP += " its thinking; Ctrl-D ends"
CUT = "[cut off at --max-new-tokens or the context]"


def parts(text: str) -> tuple[str, str]:
    """The thinking of a response, and what it tells the user.

    >>> parts("<think>3+4</think><answer>7</answer>")
    ('3+4', '7')
    >>> parts("It is 7."), parts("<think>cut off")
    (('', 'It is 7.'), ('cut off', ''))
    """
    before, closed, after = text.partition("</think>")
    if not closed and "<think>" not in text:
        before, after = "", text
    for tag in ("<answer>", "</answer>"):
        after = after.replace(tag, "")
    return before.replace("<think>", "").strip(), after.strip()


class Chat:
    """respond(ids, on_token) -> (token ids, whether they have ended): asks the model."""

    def __init__(self, tokenizer, respond: Callable, room: int, thinking=True, as_json=False):
        """room: tokens of a prompt, at most. as_json: one object a line instead of text."""
        self.tokenizer, self.respond, self.room = tokenizer, respond, room
        self.thinking, self.as_json = thinking, as_json
        self.turns: list[tuple[str, str]] = []
        self.system: str | None = None

    def prompt(self, question: str) -> list[int]:
        """The conversation so far with a new question. UserError if it alone has no room."""
        while True:
            ids = self.tokenizer.conversation(self.turns, question, self.system)
            if len(ids) < self.room:
                return ids
            if not self.turns:
                told = f"a prompt of {len(ids)} tokens leaves no room in the model's context"
                raise UserError(f"{told} of {self.room}: shorten it")
            self.turns.pop(0)

    def ask(self, question: str) -> None:
        """Stream the answer to stdout."""
        printer = Printer(self.tokenizer, self.thinking)
        ids, finished = self.respond(self.prompt(question), None if self.as_json else printer.show)
        thinking, content = parts(self.tokenizer.response(ids))
        if self.tokenizer.chat:
            self.turns.append((question, content))
        if self.as_json:
            told = {"question": question, "reasoning_content": thinking, "content": content}
            print(json.dumps(told | {"finished": finished}, ensure_ascii=False), flush=True)
        else:
            printer.write(printer.text)
            print(printer.plain, "" if finished else CUT, sep="")

    def command(self, line: str) -> str:
        """Obey a line that begins with "/"; what to say of it."""
        name, _, rest = line.partition(" ")
        if name == "/reset":
            self.turns.clear()
            return "nothing has been said"
        if name == "/think":
            self.thinking = not self.thinking
            return f"thinking is {'shown' if self.thinking else 'hidden'}"
        if name == "/system" and not self.tokenizer.chat:
            return "this model has no chat template, so no place for a system prompt"
        if name == "/system":
            self.system = rest.strip() or None
            self.turns.clear()
            return "a new conversation, " + (
                "so told" if self.system else "without a system prompt"
            )
        return HELP

    def run(self) -> None:
        """A question a line until the input ends."""
        if sys.stdin is None:
            told = "there is no input to chat with"
            raise UserError(f"{told}: give the question on the command line")
        at_terminal = sys.stdin.isatty()
        if at_terminal and not self.as_json:
            print(HELP)
        while True:
            try:
                line = input("> " if at_terminal else "").strip()
                if line.startswith("/"):
                    print(self.command(line), file=sys.stderr if self.as_json else sys.stdout)
                elif line:
                    self.ask(line)
            except (EOFError, KeyboardInterrupt):
                if at_terminal:
                    print()
                return
            except ValueError as e:  # a question too long ends itself, not the chat
                print(e, file=sys.stderr if self.as_json else sys.stdout)
