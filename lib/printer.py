"""Prints a response while it is sampled: for the chat."""

import codecs
import sys

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


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
