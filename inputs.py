"""What scripts check before they begin: the models, tokenizers and run folders that are named."""

import copy
import os

import config
import tokenizer as tokenizers
from data import Problem, prompt_ids
from lib import distributed, files, hf_tokenizer, start
from lib.errors import UserError, shortened
from lib.run import check_folder, run_status
from model import GPT

# learning rates for weights that others have trained; the presets' are for their own small models
PRETRAINED = {"grpo.lr": 1e-5, "grpo.minibatches": 1, "sft.adam_lr": 2e-5, "sft.muon_lr": 5e-4}
ADAPTERS = {"grpo.lr": 1e-4, "sft.adam_lr": 2e-4}  # the same with LoRA: ten times as much


def is_model(folder: str) -> bool:
    """Whether there is a finished model in the folder; its config.json is written last."""
    return os.path.exists(os.path.join(folder, "config.json"))


def check_model(folder: str, **asked) -> GPT:
    """Read a model folder before the work, all but its weights: the model on the device meta.
    UserError if it or its tokenizer, asked so (see tokenizer.load), cannot be used."""
    model = GPT.from_pretrained(folder, device="meta")
    tokenizers.load(folder, **asked)
    return model


def check_tokenizer(cfg) -> None:
    """The same of the tokenizer that a base will have, unless it is trained with it."""
    if cfg.tokenizer != "corpus":
        tokenizers.load(cfg.tokenizer)


def suited(cfg, folder: str | None, args):
    """cfg, and for a model from elsewhere what the command line leaves open: it is told. Where tags
    are rewarded its prompts ask for them, and weights that cost so much move in small steps."""
    if not folder:
        return cfg
    GPT.from_pretrained(folder, device="meta")  # whatever is wrong with it is told first
    with hf_tokenizer.clear_errors(folder):
        found = hf_tokenizer.read(folder)
    if set(tokenizers.SPECIALS) <= found["special"].keys():  # a model of ours
        return cfg
    cfg, known = copy.deepcopy(cfg), config.keys(cfg)
    adapted = ADAPTERS if "lora.rank" in known and cfg.lora.rank else {}
    chosen = {key: value for key, value in (PRETRAINED | adapted).items() if key in known}
    trained = (hf_tokenizer.template_source(found["files"]) or "").startswith(hf_tokenizer.OURS)
    if "rewards.format" in known and cfg.rewards.format and not trained:
        chosen["template"] = "r1"  # else it keeps the one that it was trained with here
    chosen = {k: v for k, v in chosen.items() if k not in args.typed and k not in args.held}
    for key, value in chosen.items():
        config.set_key(cfg, key, value)
    chosen_flags = "".join(f" --{key} {value}" for key, value in chosen.items())
    if chosen_flags:
        print(f"for a model from elsewhere, unless you say otherwise:{chosen_flags}", flush=True)
    return cfg


def check_base(cfg, args) -> None:
    """The same of --init, if it is there. UserError also for a setting that was typed, but would be
    passed over."""
    check_reference(cfg, args.init)
    check_lora(cfg, args.init)
    if not args.init:
        if typed := [key for key in args.typed if key.startswith("template")]:
            raise UserError(f"--{typed[0]} is for a model that --init names: drop it")
        return
    shape = check_model(args.init, **cfg.asked).cfg
    for key in args.typed:
        section, _, name = key.rpartition(".")
        other = section == "model" and getattr(shape, name) != getattr(cfg.model, name)
        if other or key == "tokenizer":
            has = f"is {getattr(shape, name)} in" if other else "comes with"
            raise UserError(f"--{key} {has} the model that --init names: drop one of the two flags")


def fitting(cfg, folder: str, problems: list[Problem]) -> list[Problem]:
    """Those that fit the context of the model in a folder. UserError if none does."""
    tokenizer = tokenizers.load(folder, **cfg.asked)
    context = GPT.from_pretrained(folder, device="meta").cfg.max_seq_len
    fits = [p for p in problems if len(prompt_ids(p, tokenizer)) < context]
    if len(fits) < len(problems):
        print(f"{len(problems) - len(fits)} problems exceed the context of {context}: left out")
    if not fits:
        raise UserError(f"no problem fits the model's context of {context} tokens: use others")
    return fits


def check_lora(cfg, model: str | None) -> None:
    """UserError if adapters are asked for where they cannot be trained. model: the folder of the
    one that they would be for."""
    if not cfg.lora.rank:
        return
    rl = getattr(cfg, "grpo", None)
    if not model:
        raise UserError("--lora.rank is for a model that --init names: name one, or drop it")
    if distributed.world_size() > 1:
        raise UserError("--lora.rank works in one process: start without torchrun, or drop it")
    if rl and rl.kl_beta and rl.ref_every:
        msg = "with --lora.rank the reference model stays the one that --init names"
        raise UserError(f"{msg}: add --grpo.ref_every 0")


def check_reference(cfg, base: str | None) -> None:
    """UserError if --grpo.reference is needed, or names what cannot judge the tokens of the model
    in folder `base` (None: one that is not there yet)."""
    rl = getattr(cfg, "grpo", None)
    if not rl or not rl.reference:
        if rl and rl.algorithm == "on-policy-distillation":
            raise UserError(f"--algorithm {rl.algorithm} needs --grpo.reference: name the teacher")
        return
    if not rl.kl_beta:
        raise UserError("--grpo.reference is for the KL penalty: set --grpo.kl_beta too")
    if rl.ref_every:
        raise UserError("a reference that is named stays as it is: add --grpo.ref_every 0")
    check_model(rl.reference, template="none")
    if base and not can_judge(rl.reference, tokenizers.load(base, **cfg.asked), base):
        msg = f"'{rl.reference}' has other tokens, or room for fewer, than '{base}'"
        raise UserError(f"{msg}, so that it cannot judge them: correct --grpo.reference")


def can_judge(teacher: str, tokenizer, student: str | None = None) -> bool:
    """Whether the model in folder `teacher` has the tokens of a tokenizer, and room for whatever
    the one in folder `student` may say."""
    its = GPT.from_pretrained(teacher, device="meta").cfg
    own = GPT.from_pretrained(student, device="meta").cfg if student else its
    room = its.vocab_size >= own.vocab_size and its.max_seq_len >= own.max_seq_len
    return room and tokenizer.same_tokens(tokenizers.load(teacher, "none"))


def check_zero(folder: str, base: str) -> None:
    """UserError if a folder is no finished run of train_zero.py, or its base is not there."""
    if os.path.isfile(folder) or (is_model(folder) and not run_status(folder)):
        raise UserError(f"'{folder}' is no run folder of train_zero.py: correct --zero")
    check_folder(folder, True, "zero")
    if not is_model(model := os.path.join(folder, "model")):
        raise UserError(f"there is no finished Zero in '{folder}': correct or drop --zero")
    check_model(model)
    if not is_model(base):
        raise UserError(f"there is no base in '{base}': name it with --init")


def evaluation_stem(args) -> str:
    """eval.py's --out without its ending. UserError if its files cannot be written, or are there
    and no stopped evaluation's, which may have written one of the two."""
    stem, ending = os.path.splitext(args.out)
    if ending != ".json":
        raise UserError(f"--out is '{shortened(args.out)}': name a file that ends in .json")
    stopped = os.path.exists(f"{stem}.stopped.jsonl")
    if stopped and args.rescore:
        raise UserError(f"'{stem}.stopped.jsonl' holds an evaluation: name another --out")
    for path in (args.out, *([f"{stem}.jsonl"] if args.models else [])):
        if os.path.exists(path) and not stopped:
            raise UserError(f"'{shortened(path)}' is there already: name another --out")
        files.check_output(path)
    return stem


def check_out(out: str, resume: bool) -> None:
    """UserError if there is nothing to resume in the run folder `out`."""
    marks = (".lock", "status.json", "metrics.jsonl", "settings.json", "checkpoint", "base")
    if resume and not any(os.path.exists(os.path.join(out, mark)) for mark in marks):
        msg = f"there is no run in '{shortened(out)}' to go on with"
        raise UserError(f"{msg}: correct --out, or start without --resume")


def begin(out: str, resume: bool, stage: str | None = None) -> None:
    """Take the run folder `out`: from now on no other process may write there. UserError if one
    does, if it cannot be written, if there is nothing to resume, or if no run of the stage may go
    on there."""
    check_out(out, resume)
    distributed.barrier()  # all have looked before one writes
    if distributed.is_main_process():
        files.lock(out)
    if start.told:
        print(start.told)
    start.outlive_readers()
    distributed.barrier()
    if stage:
        check_folder(out, resume, stage)


def read_rows(path: str) -> list[dict]:
    """Lines {"prompt", "response"} of a JSONL file. UserError that names a line which is none."""

    def parse(row: dict) -> dict:
        if not isinstance(row["prompt"], str) or not isinstance(row["response"], str):
            raise TypeError
        return row

    return files.read_lines(path, "an object with the texts 'prompt' and 'response'", parse)
