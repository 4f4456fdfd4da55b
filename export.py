"""A model folder from a training checkpoint: what a run has reached so far.

python export.py runs/zero/checkpoint/zero-00000040 FOLDER --tokenizer runs/zero/base/model
"""

import lib.start  # noqa: F401

import os
from dataclasses import fields

import torch

import config
import tokenizer as tokenizers
from lib.errors import UserError
from lib.files import make_folder
from lib.lora import LoRAConfig
from lib.lora import add as add_adapters
from lib.run import load_checkpoint, read_progress, tensors
from model import GPT, ModelConfig


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("checkpoint", help="a policy's, such as runs/zero/checkpoint/zero-00000040")
    add("out", help="folder to write")
    add("--tokenizer", required=True, help="model folder; of a run with LoRA its base")
    args = parser.parse_args()
    with config.user_errors():
        if not os.path.isfile(os.path.join(args.checkpoint, "progress.json")):
            msg = f"there is no checkpoint '{args.checkpoint}'"
            raise UserError(f"{msg}: name a folder in the run's checkpoint/")
        if os.path.isdir(args.out) and os.listdir(args.out):
            raise UserError(f"'{args.out}' is not empty: name a new folder")
        content = read_progress(args.checkpoint)
        shape, settings = content["shape"], content["settings"]
        known = {f.name for f in fields(ModelConfig)}
        asked = {key: settings[key] for key in ("template", "template_args") if key in settings}
        tokenizer = tokenizers.load(args.tokenizer, **asked)
        if settings.get("lora", {}).get("rank"):  # adapters: the weights are the base's
            model = GPT.from_pretrained(args.tokenizer)
            if model.fingerprint() not in (settings.get("init"), settings.get("base")):
                needs = "its checkpoints hold adapters, which need the run's base"
                raise UserError(f"'{args.tokenizer}' is another model: {needs} as --tokenizer")
            dtype = getattr(torch, settings.get("precision", "float32"))
            add_adapters(model, LoRAConfig(**settings["lora"]), settings["seed"], dtype)
        else:
            model = GPT(ModelConfig(**{k: v for k, v in shape.items() if k in known}))
            ends, rows = model.cfg.eos_ids, model.cfg.vocab_size
            if tokenizer.eos_id not in ends or tokenizer.vocab_size > rows:
                raise UserError(f"'{args.tokenizer}' is not the run's tokenizer: name its base")
        load_checkpoint(args.checkpoint, tensors({"model": model}, []))
        make_folder(args.out)
        tokenizer.save(args.out)
        model.save_pretrained(args.out)
        print(f"model: {args.out}\ntry it: python sample.py {config.quoted(args.out)}")


if __name__ == "__main__":
    main()
