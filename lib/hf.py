"""Model folders as the rest of the world keeps them: Hugging Face's config.json and safetensors.

    # export what a run has reached so far
    python -m lib.hf runs/zero/checkpoint/zero-00000060 FOLDER --tokenizer runs/zero/base/model

`llama` (Llama 3.x), `qwen2`, `qwen3` and `deepseek_v3` (V3, R1) are read and written. A shape that
none of them can express (experts with grouped-query attention, say) is written as `pocket_r1`, with
ModelConfig's fields. What config.json lacks or model.py cannot do is an error that names it.
"""

import contextlib
import os
import re
import shutil
from types import SimpleNamespace

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib import cli
from lib.distributed import barrier, full_state, is_main_process
from lib.errors import UserError
from lib.files import atomic_write, load_json, write_json
from lib.run import load_checkpoint, read_progress

SHARD = 4 * 2**30  # bytes of one safetensors file, at most
PART = 8 * 2**20  # bytes of a tensor that are read at once
RESTORE = "restore it from a copy"


def _names(text: str) -> dict[str, str]:
    """{theirs: ours} of "theirs:ours", or of one word if the two are the same."""
    return dict((pair.split(":") * 2)[:2] for pair in text.split())


# Hugging Face's names : ModelConfig's
COMMON = """vocab_size hidden_size:dim num_hidden_layers:n_layers num_attention_heads:n_heads
    max_position_embeddings:max_seq_len intermediate_size:hidden_dim rms_norm_eps:norm_eps """
V3 = """q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim
    n_routed_experts:n_experts n_shared_experts num_experts_per_tok:n_experts_per_token
    moe_intermediate_size:expert_dim first_k_dense_replace:n_dense_layers n_group:n_groups
    topk_group:topk_groups routed_scaling_factor:routed_scale"""
GQA, MLA = _names(COMMON + "num_key_value_heads:n_kv_heads"), _names(COMMON + V3)
SCALED = "factor:rope_factor original_max_position_embeddings:rope_original "
LLAMA3 = "low_freq_factor:rope_low high_freq_factor:rope_high"
YARN = "beta_slow:rope_low beta_fast:rope_high mscale:rope_mscale mscale_all_dim:rope_mscale_all"
YARN_DEFAULTS = {"beta_slow": 1.0, "beta_fast": 32.0, "mscale": 0.0, "mscale_all_dim": 0.0}
ROPE = {"default": {}, "llama3": _names(SCALED + LLAMA3), "yarn": _names(SCALED + YARN)}
DENSE = {"attention": "gqa", "n_experts": 0, "rope_interleaved": False}
NO_BIAS, NO_WINDOW = {"attention_bias": False}, {"use_sliding_window": False}
ROUTER = {"norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
# each family's names, its ModelConfig, and the settings that model.py takes at this value only
FAMILIES = {
    "llama": (GQA, DENSE, NO_BIAS | {"mlp_bias": False}),
    "qwen2": (GQA, DENSE | {"qkv_bias": True}, NO_WINDOW),
    "qwen3": (GQA, DENSE | {"qk_norm": True}, NO_WINDOW | NO_BIAS),
    "deepseek_v3": (MLA, {"attention": "mla"}, NO_BIAS | ROUTER),
}
TRAINING = ("bias_update_speed", "balance_loss")  # fields that no family has


def read_json(path: str) -> dict:
    """A JSON object. UserError in one sentence if it is missing or damaged."""
    try:
        raw = load_json(path)
    except OSError:
        problem = f"no model at '{os.path.dirname(path)}' ({os.path.basename(path)} not found)"
        raise UserError(f"{problem}: give a folder that holds a saved model") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is not valid JSON ({e}): {RESTORE}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object: {RESTORE}")
    return raw


def read_config(folder: str, known: set[str]) -> dict:
    """ModelConfig's fields (`known`), from config.json; tie_embeddings None: the tensors tell."""
    path = os.path.join(folder, "config.json")
    raw = read_json(path)
    family = raw.get("model_type")
    if family == "pocket_r1":
        if missing := known - set(raw):
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}: {RESTORE}")
        return {name: raw[name] for name in known}  # older models may have more
    if family not in FAMILIES:
        problem = f"models of type '{family}' cannot be opened"
        raise UserError(f"{path}: {problem}; the types are {', '.join(FAMILIES)}")
    if "quantization_config" in raw:
        method = (raw["quantization_config"] or {}).get("quant_method", "unknown")
        raise UserError(f"{path}: weights are quantised ({method}): convert them to bf16 first")
    names, fixed, only = FAMILIES[family]
    for key, value in ({"hidden_act": "silu", "sliding_window_pattern": None} | only).items():
        if raw.get(key, value) != value:
            raise UserError(f"{path}: {key} is {raw[key]!r}; only {value!r} can be opened")
    if any(kind != "full_attention" for kind in raw.get("layer_types") or []):
        raise UserError(f"{path}: layer_types: only full_attention can be opened")
    if missing := [k for k in names if k not in raw]:
        raise UserError(f"{path} has no '{missing[0]}': {RESTORE}")
    out = fixed | {ours: raw[theirs] for theirs, ours in names.items()} | _read_rope(raw, path)
    out |= {k: raw[k] for k in TRAINING if k in raw}
    if family == "deepseek_v3":
        out["rope_interleaved"] = raw.get("rope_interleave", True)
    else:
        out["head_dim"] = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    out |= {"tie_embeddings": raw.get("tie_word_embeddings"), "eos_ids": end_ids(folder)}
    return out | {"pad_id": raw.get("pad_token_id") or 0}


def end_ids(folder: str) -> list[int]:
    """The ids that end a response: generation_config.json's if it names any, or config.json's."""
    ids = None
    for path in (os.path.join(folder, f) for f in ("generation_config.json", "config.json")):
        if ids is None and os.path.exists(path):
            ids = read_json(path).get("eos_token_id")
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _read_rope(raw: dict, path: str) -> dict:
    """Rotary settings: `rope_parameters`, or `rope_theta` and `rope_scaling` of older configs."""
    older = {"rope_theta": raw.get("rope_theta")} | (raw.get("rope_scaling") or {})
    found = raw.get("rope_parameters") or older
    rope = YARN_DEFAULTS | {k: v for k, v in found.items() if v is not None}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE:
        raise UserError(f"{path}: rope scaling '{kind}' is none of {', '.join(ROPE)}")
    for key in ("rope_theta", *ROPE[kind]):
        if key not in rope:
            raise UserError(f"{path} has no '{key}': {RESTORE}")
    unused = {"attention_factor": None, "partial_rotary_factor": 1.0, "truncate": True}
    if any(rope.get(key, value) != value for key, value in unused.items()):
        raise UserError(f"{path}: rope's {', '.join(unused)} cannot be opened")
    out = {"rope_theta": float(rope["rope_theta"]), "rope_scaling": kind}
    return out | {ours: rope[theirs] for theirs, ours in ROPE[kind].items()}


def family_of(cfg) -> str:
    """The family that can express a ModelConfig, or "pocket_r1"."""
    if cfg.attention == "mla":
        return "deepseek_v3" if cfg.n_experts and cfg.n_shared_experts else "pocket_r1"
    if cfg.n_experts or cfg.rope_interleaved or (cfg.qkv_bias and cfg.qk_norm):
        return "pocket_r1"
    return "qwen2" if cfg.qkv_bias else "qwen3" if cfg.qk_norm else "llama"


def write_config(cfg, dtype: torch.dtype) -> dict:
    """config.json of a ModelConfig, for the family that can express it."""
    family = family_of(cfg)
    if family == "pocket_r1":
        return {"model_type": family} | vars(cfg)
    names, _, only = FAMILIES[family]
    architecture = family.title().replace("_", "") + "ForCausalLM"  # DeepseekV3ForCausalLM
    out = {"model_type": family, "architectures": [architecture], "hidden_act": "silu"}
    out |= only | {theirs: getattr(cfg, ours) for theirs, ours in names.items()}
    if family == "deepseek_v3":
        out |= {"rope_interleave": cfg.rope_interleaved, "num_key_value_heads": cfg.n_heads}
    else:
        out["head_dim"] = cfg.head_dim
    out |= {"tie_word_embeddings": cfg.tie_embeddings, "pad_token_id": cfg.pad_id}
    eos = cfg.eos_ids[0] if len(cfg.eos_ids) == 1 else list(cfg.eos_ids)
    out |= {"bos_token_id": None, "eos_token_id": eos, "rope_theta": cfg.rope_theta}
    kind, rope = cfg.rope_scaling, None
    if kind != "default":
        rope = {theirs: getattr(cfg, ours) for theirs, ours in ROPE[kind].items()}
        rope = {"rope_type": kind} | rope
    if kind == "yarn" and not (cfg.rope_mscale and cfg.rope_mscale_all):
        del rope["mscale"], rope["mscale_all_dim"]
    out |= {"rope_scaling": rope, "torch_dtype": str(dtype).removeprefix("torch.")}
    return out | {k: getattr(cfg, k) for k in TRAINING}


def views(state: dict[str, Tensor], cfg) -> dict[str, Tensor]:
    """A model's state under Hugging Face's names, each expert's matrices [out, in] cut out of the
    stacks. No copies: to fill a view is to fill the model."""
    out = {}
    for name, x in state.items():
        stem = "model." + name.rpartition("mlp.")[0] + "mlp.experts"
        if name.endswith("mlp.gate_up"):  # [E, D, 2 expert_dim]
            for j in range(cfg.n_experts):
                gate, up = x[j].T.chunk(2)  # [expert_dim, D]
                out |= {f"{stem}.{j}.gate_proj.weight": gate, f"{stem}.{j}.up_proj.weight": up}
        elif name.endswith("mlp.down"):  # [E, expert_dim, D]
            out |= {f"{stem}.{j}.down_proj.weight": x[j].T for j in range(cfg.n_experts)}
        elif name != "lm_head.weight":
            out["model." + name] = x
        elif not cfg.tie_embeddings:
            out[name] = x
    return out


def places(folder: str) -> dict[str, str]:
    """Tensor name -> the safetensors file that holds it: one file, or those in the index."""
    single, index = (os.path.join(folder, f"model.safetensors{s}") for s in ("", ".index.json"))
    paths, out = [single], {}
    if not os.path.exists(single) and os.path.exists(index):
        try:
            files = {os.path.basename(file) for file in read_json(index)["weight_map"].values()}
        except (KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{index} is damaged ({type(e).__name__}: {e}): {RESTORE}") from None
        paths = [os.path.join(folder, file) for file in sorted(files)] or paths
    for path in paths:
        with _opened(path) as f:
            out |= dict.fromkeys(f.keys(), path)
    return out


@contextlib.contextmanager
def _opened(path: str):
    try:
        with safe_open(path, "pt") as f:
            yield f
    except (OSError, SafetensorError) as e:
        raise UserError(f"{path} is missing or damaged ({e}): {RESTORE}") from None


def fill(want: dict[str, Tensor], where: dict[str, str], n_layers: int) -> None:
    """Copy the tensors on disk into the views `want`, a part at a time, to save memory. ValueError
    for a missing, extra, misshapen or quantised one; layers behind the last (DeepSeek's multi-token
    prediction) and the rotary frequencies of old Llama files are skipped."""
    for name in sorted(want.keys() | where.keys()):
        if name not in where:
            folder = os.path.dirname(next(iter(where.values())))
            raise UserError(f"{folder}: tensor '{name}' is missing: {RESTORE}")
        path, tensor = where[name], f"{where[name]}: tensor '{name}'"
        if name not in want:
            layer = re.match(r"model\.layers\.(\d+)\.", name)
            extra = name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")
            if extra or (layer and int(layer[1]) >= n_layers):
                continue
            raise UserError(f"{tensor} is not part of the model that config.json describes")
        with _opened(path) as f:
            found = f.get_slice(name)
            kind, shape, wanted = found.get_dtype(), found.get_shape(), list(want[name].shape)
        if kind not in ("F32", "F16", "BF16", "F64"):
            raise UserError(f"{tensor} is {kind}: convert the weights to bf16 first")
        if shape != wanted:
            raise UserError(f"{tensor} is {shape}, the config asks for {wanted}")
        rows = max(1, PART // want[name][0].nbytes)
        for i, part in enumerate(want[name].split(rows)):
            with _opened(path) as f:  # opened anew each time: only that frees what was read
                part.copy_(f.get_slice(name)[i * rows : (i + 1) * rows])


def write(folder: str, tensors: dict[str, Tensor], config: dict) -> None:
    """config.json and one or, above SHARD bytes, several safetensors files, each atomically."""
    os.makedirs(folder, exist_ok=True)
    shards, size, weight_map = [{}], 0, {}
    for name, x in tensors.items():
        if shards[-1] and size + x.nbytes > SHARD:
            shards, size = [*shards, {}], 0
        shards[-1][name] = x
        size += x.nbytes
    for i, shard in enumerate(shards, 1):
        number = f"-{i:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        weight_map |= dict.fromkeys(shard, f"model{number}.safetensors")
        with atomic_write(os.path.join(folder, f"model{number}.safetensors")) as temporary:
            content = {name: x.contiguous().cpu() for name, x in shard.items()}
            save_file(content, temporary, metadata={"format": "pt"})
    files, index = set(weight_map.values()), "model.safetensors.index.json"
    if len(files) > 1:
        total = {"total_size": sum(x.nbytes for x in tensors.values())}
        write_json(os.path.join(folder, index), {"metadata": total, "weight_map": weight_map})
        files.add(index)
    for old in os.listdir(folder):  # of an earlier model in this folder that had other shards
        ours = re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", old)
        if ours and old not in files:
            os.remove(os.path.join(folder, old))
    write_json(os.path.join(folder, "config.json"), config)


def save(model: torch.nn.Module, folder: str) -> None:
    """Write a GPT, which may be sharded, as a model folder."""
    state, dtype = full_state(model.state_dict()), model.embed_tokens.weight.dtype
    if is_main_process():
        write(folder, views(state, model.cfg), write_config(model.cfg, dtype))
    barrier()


def export(checkpoint: str, out: str, tokenizer: str) -> None:
    """Write a policy's training checkpoint as a model folder, with the tokenizer of another."""
    if not os.path.isdir(checkpoint):
        raise UserError(f"there is no checkpoint '{checkpoint}': see runs/NAME/checkpoint")
    cfg = SimpleNamespace(**read_progress(checkpoint)["shape"])
    if not os.path.exists(os.path.join(tokenizer, "tokenizer.json")):
        raise UserError(f"'{tokenizer}' has no tokenizer.json: give a model folder")
    known = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    known = {k: x for k, x in known.items() if k.startswith("model.")}
    state = {k: torch.empty(x.size, dtype=x.properties.dtype) for k, x in known.items()}
    state.setdefault("model.embed_tokens.weight", torch.empty(0))  # every policy has it
    state = {k.removeprefix("model."): x for k, x in load_checkpoint(checkpoint, state).items()}
    os.makedirs(out, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if os.path.exists(source := os.path.join(tokenizer, name)):
            with atomic_write(os.path.join(out, name)) as temporary:
                shutil.copyfile(source, temporary)
    write(out, views(state, cfg), write_config(cfg, state["embed_tokens.weight"].dtype))


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("checkpoint", help="a policy's, such as runs/zero/checkpoint/zero-00000060")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--tokenizer", required=True, help="model folder, such as the run's base")
    args = parser.parse_args()
    with cli.user_errors():
        export(args.checkpoint, args.out, args.tokenizer)
        print(f"model: {args.out}\ntry it: python sample.py {args.out}")


if __name__ == "__main__":
    main()
