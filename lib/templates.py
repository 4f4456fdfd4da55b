"""How models are asked: the text around "{prompt}" before which a response begins."""

from lib import hf_tokenizer

# How R1-Zero was asked [2501.12948v1, Table 1].
R1 = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant "
    "solves it. The assistant first thinks about the reasoning process in the mind and then "
    "provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning "
    "process here </think> <answer> answer here </answer>."
)
# Prompts of a base model; `short` has only the roles, for one whose whole context is a few hundred
# tokens. A chat model has a template of its own.
TEMPLATES = {
    "none": "{prompt}",
    "short": "<|begin|><|User|>{prompt}<|Assistant|>",
    "r1": R1 + " User: {prompt}. Assistant:",
}


def choose(vocabulary, name: str, arguments: dict) -> str | None:
    """The text around "{prompt}" for the tokenizer of a folder. "chat": the model's own template;
    "r1": the paper's words, within its own if it has one; a key of TEMPLATES; "auto": its own if it
    has one, else r1. arguments: what its own one reads, and `system`, a message of the system. None
    if it has none, but needs it."""
    if name in ("none", "short"):
        return None if arguments else TEMPLATES[name]
    own = hf_tokenizer.chat_template(vocabulary.files, arguments)
    text, vocabulary.trim = own or (None, False)
    plain = text and text.removeprefix("".join(vocabulary.bos))  # which written() has added
    text = plain if plain in TEMPLATES.values() else text
    if name == "r1" and text not in (None, *TEMPLATES.values()):
        return text if R1 in text else text.replace("{prompt}", R1 + "\n\n{prompt}")
    if text and name != "r1":
        return text
    return None if name == "chat" or arguments else TEMPLATES["r1"]


def written(vocabulary, text: str) -> dict:
    """The files of a tokenizer's folder with the template `text`. One of TEMPLATES gets the token
    that our prompts begin with without it, since transformers' chat templates add none."""
    bos = "".join(vocabulary.bos) if text in TEMPLATES.values() else ""
    return hf_tokenizer.with_template(vocabulary, bos + text)
