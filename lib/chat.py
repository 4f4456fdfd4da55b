"""Questions and answers with a model: at a terminal, from a pipe, or as lines of JSON.

At a terminal, a model with a chat template of its own has a conversation of several turns: earlier
questions and answers, without their thinking, stand before the new one; the oldest are left out
when the context has no room for them and an answer. Other models, and those that a pipe asks, get
each question alone.
"""

import codecs
import contextlib
import json
import sys
from collections.abc import Callable

from lib import hf_tokenizer
from lib.errors import UserError

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
HELP = "/reset forgets what was said, /system TEXT tells the model who it is, /think hides or shows"
HELP += " its thinking; Ctrl-C stops an answer, Ctrl-D ends"
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
    after = after.replace("<answer>", "").replace("</answer>", "")
    return before.replace("<think>", "").strip(), after.strip()


def conversation(tokenizer, turns: list[tuple[str, str]], text: str, system: str | None):
    """Token ids that ask for a response to `text` after earlier questions and answers, by the
    model's own chat template."""
    if not turns and not system:
        return tokenizer.prompt(text)
    arguments = tokenizer.arguments | ({"system": "{system}"} if system else {})
    template, _ = hf_tokenizer.chat_template(tokenizer.files, arguments, len(turns))
    texts = {"{prompt}": text, "{system}": system or ""}
    for i, (question, answer) in enumerate(turns):
        texts |= {f"{{question {i}}}": question, f"{{answer {i}}}": answer}
    return tokenizer.fill(template, texts)


class Printer:
    """Prints a response as it comes: the thinking dim (on a terminal) and set apart, or hidden."""

    def __init__(self, tokenizer, thinking: bool):
        dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
        self.tokenizer, self.thinking, self.plain = tokenizer, thinking, plain
        self.marks = dict(zip(TAGS, (dim + "thinking: ", plain + "\n", "answer: ", "")))
        # a character, or a tag, may come in several tokens
        self.utf8, self.text = codecs.getincrementaldecoder("utf-8")("replace"), ""
        self.hidden = False
        self.say(tokenizer.opened)

    def write(self, text: str) -> None:
        if not self.hidden:
            print(text, end="", flush=True)

    def show(self, token: int) -> None:
        if token not in self.tokenizer.hidden:
            self.say(self.utf8.decode(self.tokenizer.decode_bytes(token)))

    def say(self, text: str) -> None:
        self.text += text
        while tag := min((t for t in TAGS if t in self.text), key=self.text.find, default=None):
            before, _, self.text = self.text.partition(tag)
            self.write(before)
            if not self.thinking and tag in TAGS[:2]:
                self.hidden = tag == "<think>"
            else:
                self.write(self.marks[tag])
        text, last = self.text, self.text.rfind("<")
        if last < 0 or not any(tag.startswith(text[last:]) for tag in TAGS):
            last = len(text)  # else it may become a tag, and has to wait
        self.write(text[:last])
        self.text = text[last:]


class Chat:
    """respond(ids, on_token) -> (token ids, whether they have ended): asks the model. UserError for
    a question that leaves no room in its context."""

    def __init__(
        self, tokenizer, respond: Callable, context: int, new: int, thinking=True, as_json=False
    ):
        """context: the model's; new: tokens of an answer, at most. as_json: one object a line."""
        self.tokenizer, self.respond = tokenizer, respond
        self.room = context - min(new, context // 2)  # of a prompt with earlier turns
        self.thinking, self.as_json = thinking, as_json
        self.turns: list[tuple[str, str]] = []
        self.system: str | None = None

    def prompt(self, question: str) -> list[int]:
        """The conversation with a new question, without the oldest turns if they have no room."""
        for first in range(len(self.turns) + 1):
            ids = conversation(self.tokenizer, self.turns[first:], question, self.system)
            if len(ids) <= self.room:
                break
        return ids

    def ask(self, question: str) -> str:
        """Stream the answer to stdout; returns it without its thinking."""
        printer = None if self.as_json else Printer(self.tokenizer, self.thinking)
        ids = self.prompt(question)
        try:
            ids, finished = self.respond(ids, printer and printer.show)
        finally:  # of dim text, which Ctrl-C may have cut off
            if printer:
                print(printer.plain, end="", flush=True)
        thinking, content = parts(self.tokenizer.response(ids))
        if self.as_json:
            line = {"question": question, "reasoning_content": thinking, "content": content}
            escaped = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
            print(json.dumps(line | {"finished": finished}, ensure_ascii=escaped), flush=True)
        else:
            printer.write(printer.text)
            print("" if finished else CUT)
        return content

    def command(self, line: str) -> str:
        """Obey a line that begins with "/"; what to say of it."""
        name, _, rest = line.partition(" ")
        if name == "/reset":
            self.turns.clear()
            return "nothing has been said"
        if name == "/think":
            self.thinking = not self.thinking
            return f"thinking is {'shown' if self.thinking else 'hidden'}"
        if name == "/system":
            return self.tell(rest.strip() or None)
        return HELP

    def tell(self, system: str | None) -> str:
        """Begin a new conversation under a system prompt, if the template has a place for one."""
        if system:
            if not self.tokenizer.chat:
                return "this model has no chat template, so no place for a system prompt"
            try:
                read = conversation(self.tokenizer, [], "?", system)
            except UserError as e:
                return str(e)
            if read == self.tokenizer.prompt("?"):
                return "this model's chat template has no place for a system prompt"
        self.system = system
        self.turns.clear()
        return "a new conversation, " + ("so told" if system else "without a system prompt")

    def run(self) -> None:
        """A question a line until the input ends."""
        if sys.stdin is None:
            msg = "there is no input to chat with"
            raise UserError(f"{msg}: give the question on the command line")
        with contextlib.suppress(AttributeError):  # of a stand-in
            sys.stdin.reconfigure(errors="replace")
        if sys.stdin.isatty() and not self.as_json:
            self.talk()
            return
        for line in (line.strip("\ufeff \t\r\n") for line in sys.stdin):  # files may begin with it
            if line:
                try:
                    self.ask(line)
                except UserError as e:  # a question too long ends itself, not the others
                    print(e, file=sys.stderr)

    def talk(self) -> None:
        """The same at a terminal, where lines with "/" are commands."""
        print(HELP)
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            try:
                if line.startswith("/"):
                    print(self.command(line))
                elif line:
                    answer = self.ask(line)
                    if self.tokenizer.chat:
                        self.turns.append((line, answer))
            except UserError as e:
                print(e)
            except KeyboardInterrupt:
                print(" stopped")
