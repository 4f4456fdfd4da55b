"""A model folder from a training checkpoint: what a run has reached so far.

python export.py runs/zero/checkpoint/zero-00000060 FOLDER --tokenizer runs/zero/base/model
"""

import lib.start  # noqa: F401

import os
from dataclasses import fields

import config
import tokenizer as tokenizers
from lib.errors import UserError
from lib.files import make_folder
from lib.run import load_checkpoint, read_progress, tensors
from model import GPT, ModelConfig


def main() -> None:
    parser = config.Parser(__doc__)
    add = parser.add_argument
    add("checkpoint", help="a policy's, such as runs/zero/checkpoint/zero-00000060")
    add("out", help="folder to write")
    add("--tokenizer", required=True, help="model folder, such as the run's base")
    args = parser.parse_args()
    with config.user_errors():
        if not os.path.isdir(args.checkpoint):
            raise UserError(f"there is no checkpoint '{args.checkpoint}': see runs/NAME/checkpoint")
        if os.path.isdir(args.out) and os.listdir(args.out):
            raise UserError(f"'{args.out}' is not empty: name a new folder")
        shape = read_progress(args.checkpoint)["shape"]
        known = {f.name for f in fields(ModelConfig)}
        model = GPT(ModelConfig(**{k: v for k, v in shape.items() if k in known}))
        tokenizer = tokenizers.load(args.tokenizer)
        load_checkpoint(args.checkpoint, tensors({"model": model}, []))
        make_folder(args.out)
        tokenizer.save(args.out)
        model.save_pretrained(args.out)
        print(f"model: {args.out}\ntry it: python sample.py {args.out}")


if __name__ == "__main__":
    main()
