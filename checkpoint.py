"""Model folders as the rest of the world keeps them: Hugging Face's config.json and safetensors, both ways.

    python checkpoint.py runs/zero/checkpoint/zero-00000060 FOLDER --tokenizer runs/zero/base/model   # what a run has reached so far

`llama` (Llama 3.x), `qwen2`, `qwen3` and `deepseek_v3` (V3, R1) are read and written; a shape that none of them can express (a
mixture of experts with grouped-query attention, say) is written as `pocket_r1`, with the fields of model.ModelConfig as they are.
Every value comes from config.json; what is missing there, or asks for something model.py does not do, is an error that names it.
"""

import contextlib
import json
import os
import re
from dataclasses import asdict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import parallel

SHARD = 4 * 2**30  # bytes of one safetensors file, at most
PART = 8 * 2**20  # bytes of a tensor that are read at once

_COMMON = {"vocab_size": "vocab_size", "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
           "max_position_embeddings": "max_seq_len", "intermediate_size": "hidden_dim", "rms_norm_eps": "norm_eps"}
_GQA = _COMMON | {"num_key_value_heads": "n_kv_heads"}
_MLA = _COMMON | {"q_lora_rank": "q_lora_rank", "kv_lora_rank": "kv_lora_rank", "qk_nope_head_dim": "qk_nope_head_dim",
                  "qk_rope_head_dim": "qk_rope_head_dim", "v_head_dim": "v_head_dim", "n_routed_experts": "n_experts",
                  "n_shared_experts": "n_shared_experts", "num_experts_per_tok": "n_experts_per_token", "moe_intermediate_size": "expert_dim",
                  "first_k_dense_replace": "n_dense_layers", "n_group": "n_groups", "topk_group": "topk_groups",
                  "routed_scaling_factor": "routed_scale"}
# what each family is in our terms, and the settings of its config that model.py takes at this value only
_DENSE = dict(attention="gqa", n_experts=0, rope_interleaved=False)
FAMILIES = {
    "llama": (_GQA, _DENSE, {"attention_bias": False, "mlp_bias": False}),
    "qwen2": (_GQA, _DENSE | dict(qkv_bias=True), {"use_sliding_window": False}),
    "qwen3": (_GQA, _DENSE | dict(qk_norm=True), {"use_sliding_window": False, "attention_bias": False}),
    "deepseek_v3": (_MLA, dict(attention="mla"), {"attention_bias": False, "norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
_OURS = ("bias_update_speed", "balance_loss")  # of training; no family has them


# ---------------------------------------------------------------------------------------------- config.json


def read_json(path: str) -> dict:
    """A JSON object. ValueError in one sentence if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
    except OSError:
        raise ValueError(f"no model at '{os.path.dirname(path)}' ({os.path.basename(path)} not found): give a folder that holds a saved model") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f"{path} is not valid JSON ({e}): restore it from a copy") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} is not a JSON object: restore it from a copy")
    return raw


def read_config(folder: str, known: set[str]) -> dict:
    """The fields of a ModelConfig from config.json; "tie_embeddings" may be None: the tensors then tell.

    known: the names of ModelConfig's fields.
    """
    path = os.path.join(folder, "config.json")
    raw = read_json(path)
    family = raw.get("model_type")
    if family == "pocket_r1":
        raw.pop("model_type")
        if unknown := set(raw) - known:
            raise ValueError(f"{path} has unknown fields {sorted(unknown)}: was it written by a newer version?")
        if missing := known - set(raw):
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: restore it from a copy")
        return raw
    if family not in FAMILIES:
        raise ValueError(f"{path}: models of type '{family}' cannot be opened; the types are {', '.join(FAMILIES)}")
    if "quantization_config" in raw:
        method = (raw["quantization_config"] or {}).get("quant_method", "unknown")
        raise ValueError(f"{path}: the weights are quantised ({method}): convert them to bf16 first")
    names, out, only = FAMILIES[family]
    for key, value in ({"hidden_act": "silu", "sliding_window_pattern": None} | only).items():
        if raw.get(key, value) != value:
            raise ValueError(f"{path}: {key} is {raw[key]!r}; only {value!r} can be opened")
    if any(kind != "full_attention" for kind in raw.get("layer_types") or []):
        raise ValueError(f"{path}: layer_types has other layers than full_attention: such a model cannot be opened")
    if missing := [k for k in names if k not in raw]:
        raise ValueError(f"{path} has no '{missing[0]}': restore it from a copy")
    out = out | {ours: raw[theirs] for theirs, ours in names.items()} | {k: raw[k] for k in _OURS if k in raw}
    if family != "deepseek_v3":
        out["head_dim"] = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    else:
        out["rope_interleaved"] = raw.get("rope_interleave", True)
    out["tie_embeddings"] = raw.get("tie_word_embeddings")
    out["pad_id"] = raw.get("pad_token_id") or 0
    out["eos_ids"] = ends(folder)
    return out | _read_rope(raw, path)


def ends(folder: str) -> list[int]:
    """The ids that end a response: generation_config.json's if it names some, else config.json's."""
    ids = None
    for name in ("generation_config.json", "config.json"):
        if ids is None and os.path.exists(os.path.join(folder, name)):
            ids = read_json(os.path.join(folder, name)).get("eos_token_id")
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _read_rope(raw: dict, path: str) -> dict:
    """Rotary settings: `rope_parameters` of today's configs, or `rope_theta` and `rope_scaling` of older ones."""
    rope = raw.get("rope_parameters") or {"rope_theta": raw.get("rope_theta")} | (raw.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    wanted = {"default": {}, "llama3": {"factor": "rope_factor", "original_max_position_embeddings": "rope_original", "low_freq_factor": "rope_low", "high_freq_factor": "rope_high"},
              "yarn": {"factor": "rope_factor", "original_max_position_embeddings": "rope_original"}}
    if kind not in wanted:
        raise ValueError(f"{path}: rope scaling '{kind}' cannot be opened; the kinds are {', '.join(wanted)}")
    for key in ("rope_theta", *wanted[kind]):
        if rope.get(key) is None:
            raise ValueError(f"{path} has no '{key}': restore it from a copy")
    if rope.get("attention_factor") is not None or rope.get("partial_rotary_factor", 1.0) != 1.0 or not rope.get("truncate", True):
        raise ValueError(f"{path}: rope settings attention_factor, partial_rotary_factor and truncate cannot be opened")
    out = {"rope_theta": float(rope["rope_theta"]), "rope_scaling": kind} | {ours: rope[theirs] for theirs, ours in wanted[kind].items()}
    if kind == "yarn":
        out |= {"rope_low": rope.get("beta_slow") or 1.0, "rope_high": rope.get("beta_fast") or 32.0,
                "rope_mscale": rope.get("mscale") or 0.0, "rope_mscale_all": rope.get("mscale_all_dim") or 0.0}
    return out


def family_of(cfg) -> str:
    """The family that can express a ModelConfig, or "pocket_r1"."""
    if cfg.mtp:  # transformers would drop it
        return "pocket_r1"
    if cfg.attention == "mla":
        return "deepseek_v3" if cfg.n_experts and cfg.n_shared_experts else "pocket_r1"
    if cfg.n_experts or cfg.rope_interleaved or (cfg.qkv_bias and cfg.qk_norm):
        return "pocket_r1"
    return "qwen2" if cfg.qkv_bias else "qwen3" if cfg.qk_norm else "llama"


def write_config(cfg, dtype: torch.dtype) -> dict:
    """config.json of a ModelConfig, for the family that can express it."""
    family = family_of(cfg)
    if family == "pocket_r1":
        return {"model_type": family} | asdict(cfg)
    names, _, only = FAMILIES[family]
    rope = {"rope_type": cfg.rope_scaling, "factor": cfg.rope_factor, "original_max_position_embeddings": cfg.rope_original}
    rope |= ({"low_freq_factor": cfg.rope_low, "high_freq_factor": cfg.rope_high} if cfg.rope_scaling == "llama3" else
             {"beta_slow": cfg.rope_low, "beta_fast": cfg.rope_high} |
             ({"mscale": cfg.rope_mscale, "mscale_all_dim": cfg.rope_mscale_all} if cfg.rope_mscale and cfg.rope_mscale_all else {}))
    out = {"model_type": family, "architectures": [ARCHITECTURES[family]], "hidden_act": "silu"} | only
    out |= {theirs: getattr(cfg, ours) for theirs, ours in names.items()}
    out |= {"head_dim": cfg.head_dim} if family != "deepseek_v3" else {"rope_interleave": cfg.rope_interleaved, "num_key_value_heads": cfg.n_heads}
    out |= {"tie_word_embeddings": cfg.tie_embeddings, "pad_token_id": cfg.pad_id, "bos_token_id": None,
            "eos_token_id": cfg.eos_ids[0] if len(cfg.eos_ids) == 1 else list(cfg.eos_ids), "rope_theta": cfg.rope_theta,
            "rope_scaling": rope if cfg.rope_scaling != "default" else None, "torch_dtype": str(dtype).removeprefix("torch.")}
    return out | {k: getattr(cfg, k) for k in _OURS}


# ---------------------------------------------------------------------------------------------- tensors


def views(state: dict[str, Tensor], cfg) -> dict[str, Tensor]:
    """A model's state under Hugging Face's names. No copies: to fill a view is to fill the model.

    'model.' stands in front, and each expert's matrices are tensors of their own, [out, in], cut out of the stacks.
    """
    out = {}
    for name, x in state.items():
        if name == "lm_head.weight":
            if not cfg.tie_embeddings:
                out[name] = x
        elif name.endswith("mlp.gate_up"):  # [E, D, 2 expert_dim]
            for j in range(cfg.n_experts):
                stem = f"model.{name.removesuffix('gate_up')}experts.{j}."
                out[stem + "gate_proj.weight"], out[stem + "up_proj.weight"] = x[j].T.chunk(2)
        elif name.endswith("mlp.down"):  # [E, expert_dim, D]
            for j in range(cfg.n_experts):
                out[f"model.{name.removesuffix('down')}experts.{j}.down_proj.weight"] = x[j].T
        else:
            out["model." + name] = x
    return out


def places(folder: str) -> dict[str, str]:
    """tensor name -> the safetensors file that holds it: one file, or the shards that the index names."""
    one, index = os.path.join(folder, "model.safetensors"), os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(one) and os.path.exists(index):
        try:
            named = {name: os.path.join(folder, os.path.basename(file)) for name, file in read_json(index)["weight_map"].items()}
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{index} is damaged ({type(e).__name__}: {e}): restore it from a copy") from None
        files = sorted(set(named.values()))
    else:
        files, named = [one], None
    out = {}
    for path in files:
        with _opened(path) as f:
            out |= dict.fromkeys(f.keys(), path)
    if missing := sorted(set(named or ()) - out.keys()):
        raise ValueError(f"{named[missing[0]]}: tensor '{missing[0]}' is missing: restore the file from a copy")
    return out


@contextlib.contextmanager
def _opened(path: str):
    try:
        with safe_open(path, "pt") as f:
            yield f
    except (OSError, SafetensorError) as e:
        raise ValueError(f"{path} is missing or damaged ({e}): restore it from a copy") from None


def fill(want: dict[str, Tensor], where: dict[str, str], n_layers: int) -> None:
    """Copy the tensors on disk into the views `want`, a part at a time, so that no more than a part is in memory twice.

    ValueError for a missing, extra, misshapen or quantised tensor. Layers behind the last (DeepSeek's multi-token prediction) and
    the rotary frequencies of old Llama files are passed over.
    """

    def passed_over(name: str) -> bool:
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        return name.endswith("rotary_emb.inv_freq") or bool(layer and int(layer[1]) >= n_layers) or (name == "lm_head.weight" and name not in want)

    for name in sorted(want.keys() | where.keys()):
        if name not in where:
            raise ValueError(f"{os.path.dirname(next(iter(where.values())))}: tensor '{name}' is missing: restore the files from a copy")
        if name not in want:
            if passed_over(name):
                continue
            raise ValueError(f"{where[name]}: tensor '{name}' is not part of the model that config.json describes")
        with _opened(where[name]) as f:
            found = f.get_slice(name)
            if found.get_dtype() not in ("F32", "F16", "BF16", "F64"):
                raise ValueError(f"{where[name]}: tensor '{name}' is {found.get_dtype()}: convert the weights to bf16 first")
            if list(found.get_shape()) != list(want[name].shape):
                raise ValueError(f"{where[name]}: tensor '{name}' is {found.get_shape()}, the config asks for {list(want[name].shape)}")
        for i, part in enumerate(want[name].split(step := max(1, PART // want[name][0].nbytes))):
            with _opened(where[name]) as f:  # opened anew each time: only so is the memory of what has been read given back
                part.copy_(f.get_slice(name)[i * step : (i + 1) * step])


def write(folder: str, tensors: dict[str, Tensor], config: dict) -> None:
    """config.json and one or, above SHARD bytes, several safetensors files, each written beside and renamed."""
    os.makedirs(folder, exist_ok=True)
    shards: list[list[str]] = [[]]
    size = 0
    for name, x in tensors.items():
        if shards[-1] and size + x.nbytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += x.nbytes
    index = os.path.join(folder, "model.safetensors.index.json")
    files = ["model.safetensors"] if len(shards) == 1 else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file, names in zip(files, shards):
        with parallel.beside(os.path.join(folder, file)) as aside:
            save_file({n: tensors[n].contiguous().cpu() for n in names}, aside, metadata={"format": "pt"})
    if len(shards) > 1:
        total = sum(x.nbytes for x in tensors.values())
        parallel.write_json(index, {"metadata": {"total_size": total}, "weight_map": {n: f for f, names in zip(files, shards) for n in names}})
    for old in os.listdir(folder):  # of an earlier model in this folder that had other shards
        if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", old) and old not in (*files, os.path.basename(index) if len(shards) > 1 else ""):
            os.remove(os.path.join(folder, old))
    parallel.write_json(os.path.join(folder, "config.json"), config)


# ---------------------------------------------------------------------------------------------- a training checkpoint as a model folder


def main() -> None:
    import config
    import tokenizer as tokenizers
    from model import GPT, ModelConfig

    parser = config.Parser(__doc__)
    parser.add_argument("checkpoint", help="checkpoint of a policy, such as runs/zero/checkpoint/zero-00000060")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--tokenizer", required=True, help="model folder to take the tokenizer from, such as the run's base")
    args = parser.parse_args()
    with config.user_errors():
        if not os.path.isdir(args.checkpoint):
            raise ValueError(f"there is no checkpoint '{args.checkpoint}': give a folder such as runs/zero/checkpoint/zero-00000060")
        model, tokenizer = GPT(ModelConfig(**parallel.read_progress(args.checkpoint)["shape"])), tokenizers.load(args.tokenizer)
        parallel.load(args.checkpoint, parallel.tensors({"model": model}, []))
        tokenizer.save(args.out)
        model.save_pretrained(args.out)
        print(f"model: {args.out}\ntry it: python sample.py {args.out}")


if __name__ == "__main__":
    main()
