"""Model folders as the rest of the world keeps them: Hugging Face's config.json and safetensors.

`llama` (Llama 3.x), `qwen2`, `qwen3` and `deepseek_v3` (V3, R1) are read and written. A shape that
none of them can express (experts with grouped-query attention, say) is written as `pocket_r1`, with
ModelConfig's fields. What config.json lacks or model.py cannot do is an error that names it.
"""

import contextlib
import glob
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import fields, replace

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib import cli
from lib.distributed import barrier, full_state, is_main_process
from lib.errors import UserError, shortened
from lib.files import atomic_write, load_json, write_json

SHARD = 4 * 2**30  # bytes of one safetensors file, at most
PART = 8 * 2**20  # bytes of a tensor that are read at once
RESTORE = "restore it from a copy"
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}  # sample.py's defaults
CARD = "# A {} model, made by pocket-R1\n\nTo ask it: `python sample.py THIS_FOLDER QUESTION`\n"


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
# DeepSeek-R1-0528-Qwen3-8B's: 1 over YaRN's stretch, which vLLM undoes so (transformers does not)
UNSTRETCHED = 4.0, 0.8782488562869419  # factor, attn_factor
PLAIN = ("rope_theta", "partial_rotary_factor")
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
OPTIONAL = """tie_word_embeddings:tie_embeddings pad_token_id:pad_id
    rope_interleave:rope_interleaved bias_update_speed balance_loss"""
# what models with the other kind of attention never read
UNREAD = {"mla": {"n_kv_heads", "head_dim", "qkv_bias", "qk_norm"}, "gqa": {*_names(V3).values()}}
# what is no single value in config.json
NESTED = {"layer_types": list}
NESTED |= dict.fromkeys(("quantization_config", "rope_scaling", "rope_parameters"), dict)


def read_json(path: str) -> dict:
    """A JSON object. UserError in one sentence if it is missing or damaged."""
    try:
        raw = load_json(path)
    except PermissionError:
        raise
    except OSError:
        raise no_model(*os.path.split(path)) from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is not valid JSON ({e}): {RESTORE}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object: {RESTORE}")
    return raw


def no_model(folder: str, missing: str) -> UserError:
    """The error for a folder without a model; a run's has one inside."""
    its, inside = os.path.join(folder, "model"), os.path.join(glob.escape(folder), "*", "model")
    if os.path.exists(os.path.join(its, "config.json")):
        return UserError(f"'{folder}' is a run: its model is {its}")
    if others := glob.glob(os.path.join(inside, "config.json")):
        newest = os.path.dirname(max(others, key=os.path.getmtime))
        return UserError(f"'{folder}' holds runs: give the model of one, such as {newest}")
    if _is_run(folder):
        return UserError(f"'{folder}' is a run without a finished model: go on with it first")
    what = "it is a file" if os.path.isfile(folder) else f"{missing} not found"
    return UserError(f"no model at '{folder}' ({what}): give a folder that holds a saved model")


def _is_run(folder: str) -> bool:
    return any(os.path.exists(f"{folder}/{x}") for x in ("status.json", "metrics.jsonl"))


def read_config(folder: str, cls: type) -> dict:
    """Fields of `cls`, ModelConfig, from config.json; tie_embeddings None: the tensors tell."""
    path = os.path.join(folder, "config.json")
    raw = read_json(path)
    if "model_type" not in raw and _is_run(folder):
        raise no_model(folder, "model_type")  # a run's settings have the same name
    ends, pad, size = end_ids(folder), raw.get("pad_token_id"), raw.get("vocab_size")
    if isinstance(size, int) and isinstance(pad, int | None) and pad not in range(size):
        others = [*_named_token(folder, "pad_token"), *ends]  # older models say -1 for none
        pad = next((i for i in others if i in range(size)), 0)
    found = parse_config(raw | {"eos_token_id": ends, "pad_token_id": pad}, path, cls)
    if found["tie_embeddings"]:
        found["tie_embeddings"] = not _has_own_head(folder)
    return found


def parse_config(raw: dict, path: str, cls: type) -> dict:
    """The same of a config.json's content. UserErrors name the file `path` and the field."""
    family = str(raw.get("model_type"))
    if family == "pocket_r1":
        known = {f.name for f in fields(cls)}
        if missing := known - set(raw):
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}: {RESTORE}")
        return _checked({name: raw[name] for name in known}, {}, path, cls)  # older ones have more
    if family not in FAMILIES:
        problem = f"models of type '{family}' cannot be opened"
        raise UserError(f"{path}: {problem}; the types are {', '.join(FAMILIES)}")
    for key, kind in NESTED.items():
        if not isinstance(raw.get(key), kind | None):
            raise UserError(f"{path}: {key} is {shortened(repr(raw[key]))}: {RESTORE}")
    names, fixed, only = FAMILIES[family]
    for key, value in ({"hidden_act": "silu", "sliding_window_pattern": None} | only).items():
        if raw.get(key, value) != value:
            raise UserError(f"{path}: {key} is {raw[key]!r}; only {value!r} can be opened")
    if raw.get("quantization_config") is not None:
        method = raw["quantization_config"].get("quant_method", "unknown")
        raise UserError(f"{path}: weights are quantised ({method}): convert them to bf16 first")
    if any(kind != "full_attention" for kind in raw.get("layer_types") or []):
        raise UserError(f"{path}: layer_types: only full_attention can be opened")
    if family == "llama":  # older ones do not say it
        raw = {"num_key_value_heads": raw.get("num_attention_heads")} | raw
    if missing := [k for k in names if k not in raw]:
        raise UserError(f"{path} has no '{missing[0]}': {RESTORE}")
    optional = _names(OPTIONAL + " head_dim" * (family != "deepseek_v3"))
    names = names | {k: v for k, v in optional.items() if raw.get(k) is not None}
    rope, rope_names = _read_rope(raw, path)
    out = {ours: raw[theirs] for theirs, ours in names.items()} | rope | fixed
    ids = raw.get("eos_token_id")
    out["eos_ids"] = [] if ids is None else ids if isinstance(ids, list) else [ids]
    out = _checked(out, names | rope_names | {"eos_token_id": "eos_ids"}, path, cls)
    if family != "deepseek_v3":
        out.setdefault("head_dim", out["dim"] // out["n_heads"])
    return {"tie_embeddings": None} | out


def _checked(found: dict, names: dict[str, str], path: str, cls: type) -> dict:
    """The fields found in the file `path`, if each is fit. names: theirs -> ours."""
    theirs = {ours: name for name, ours in names.items()}
    for name, value in found.items():
        if problem := cli.unfit(value, cls, name):
            msg = f"{path}: {theirs.get(name, name)} is {shortened(repr(value))}"
            raise UserError(f"{msg}; {problem}: {RESTORE}")
    return found


def end_ids(folder: str) -> list:
    """What ends a response: all that the tokenizer, generation_config.json and config.json name."""
    found = _named_token(folder, "eos_token")
    for path in (os.path.join(folder, f) for f in ("generation_config.json", "config.json")):
        if os.path.exists(path) and (ids := read_json(path).get("eos_token_id")) is not None:
            found += ids if isinstance(ids, list) else [ids]
    return [x for i, x in enumerate(found) if x not in found[:i]]


def _named_token(folder: str, name: str) -> list[int]:
    """The id of the token that tokenizer_config.json calls `name`; tokenizer.load finds damage."""
    with contextlib.suppress(UserError, LookupError, TypeError, AttributeError):
        token = read_json(os.path.join(folder, "tokenizer_config.json"))[name]
        token = token["content"] if isinstance(token, dict) else token
        added = read_json(os.path.join(folder, "tokenizer.json"))["added_tokens"]
        return [t["id"] for t in added if t["content"] == token]
    return []


def _has_own_head(folder: str) -> bool:
    """Whether the files hold an output head that is not the embedding."""
    tensors, where = [], places(folder)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in where:
            with _opened(where[name]) as f:
                tensors.append(f.get_tensor(name).view(torch.uint8))  # whatever their precision
    return len(tensors) == 2 and not torch.equal(*tensors)


def _read_rope(raw: dict, path: str) -> tuple[dict, dict]:
    """Rotary settings: `rope_parameters`, or `rope_theta` and `rope_scaling` of older configs; and
    their names there."""
    older = {"rope_theta": 10000.0} | {k: raw[k] for k in PLAIN if raw.get(k) is not None}
    scaling = raw.get("rope_scaling") or {}
    if raw.get("rope_parameters") and scaling not in ({}, raw["rope_parameters"]):
        fix = "put what you mean into rope_parameters alone"
        raise UserError(f"{path} has both rope_parameters and rope_scaling: {fix}")
    found = raw.get("rope_parameters") or older | scaling
    found = {k: v for k, v in found.items() if v is not None}
    if (found.get("factor"), found.get("attn_factor")) == UNSTRETCHED:
        del found["attn_factor"]
        found |= {"mscale": 1.0, "mscale_all_dim": 1.0}
    rope = YARN_DEFAULTS | found
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in ROPE:
        raise UserError(f"{path}: rope scaling '{kind}' is none of {', '.join(ROPE)}")
    names = {"rope_theta": "rope_theta"} | ROPE[kind]
    if missing := [key for key in names if key not in rope]:
        raise UserError(f"{path} has no '{missing[0]}': {RESTORE}")
    only = {"partial_rotary_factor": 1.0, "truncate": True, "rope_type": kind, "type": kind}
    for key in sorted(found.keys() - names.keys()):
        if found[key] != only.get(key):
            msg = f"rope's {shortened(key)} is {shortened(repr(found[key]))}"
            raise UserError(f"{path}: {msg}: this cannot be opened")
    return {"rope_scaling": kind} | {ours: rope[theirs] for theirs, ours in names.items()}, names


def family_of(cfg) -> str:
    """The family that can express a ModelConfig, or "pocket_r1"."""
    if cfg.attention == "mla":
        return "deepseek_v3" if cfg.n_experts and cfg.n_shared_experts else "pocket_r1"
    if cfg.n_experts or cfg.rope_interleaved or (cfg.qkv_bias and cfg.qk_norm):
        return "pocket_r1"
    return "qwen2" if cfg.qkv_bias else "qwen3" if cfg.qk_norm else "llama"


def write_config(cfg, dtype: torch.dtype) -> dict:
    """config.json of a ModelConfig, for the family that can express it. A field that the family
    does not know is not lost: then it is written as ours."""
    family, own = family_of(cfg), {"model_type": "pocket_r1"} | vars(cfg)
    if family == "pocket_r1":
        return own
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
    out |= {k: getattr(cfg, k) for k in TRAINING}
    again = type(cfg)(**parse_config(out, "config.json", type(cfg)))
    unread = UNREAD[cfg.attention] | ({*_names(SCALED + YARN).values()} - {*ROPE[kind].values()})
    again = replace(again, **{k: getattr(cfg, k) for k in unread - {"n_experts"}})
    return out if again == cfg else own


def load(cls, shape: type, folder: str, dtype: torch.dtype, device) -> torch.nn.Module:
    """A GPT (cls), its config a ModelConfig (shape), from a folder: see GPT.from_pretrained."""
    raw, where = read_config(folder, shape), places(folder)
    if raw["tie_embeddings"] is None:  # the config does not say: the tensors do
        raw["tie_embeddings"] = "lm_head.weight" not in where
    try:
        model = cls.empty(shape(**raw))
    except (TypeError, RuntimeError, ValueError) as e:
        path = os.path.join(folder, "config.json")
        raise UserError(f"{path} does not describe a model ({e}): restore it") from None
    check(views(model.state_dict(), model.cfg), where, folder, model.cfg.n_layers)
    if str(device) == "meta":
        return model
    model = model.to(dtype).to_empty(device=device)
    if model.cfg.tie_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    for moe in model.moe_layers():  # small steps are added to the bias: always float32
        moe.gate.e_score_correction_bias = torch.zeros(model.cfg.n_experts, device=device)
        moe.counts = torch.zeros(model.cfg.n_experts, device=device)
    with torch.no_grad():
        fill(views(model.state_dict(), model.cfg), where)
    return model


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


def checksum(tensors: Iterable[Tensor]) -> int:
    """A number that changes when a tensor does."""
    out = 0
    for x in tensors:
        content = x.detach().cpu().contiguous().flatten().view(torch.uint8)
        out = zlib.crc32(content.numpy(), out)
    return out


def fingerprint(folder: str) -> int:
    """A number that changes when a folder's weights do or how they are asked: by the ends of its
    files, since whole ones take long to read."""
    out, others = 0, glob.glob(os.path.join(glob.escape(folder), "*.j*"))  # .json, .jinja
    for path in sorted({*places(folder).values(), *others}):
        with open(path, "rb") as f:
            f.seek(max(0, os.path.getsize(path) - PART))
            out = zlib.crc32(f.read(), out)
    return out


@contextlib.contextmanager
def _opened(path: str):
    try:
        with safe_open(path, "pt") as f:
            yield f
    except (OSError, SafetensorError) as e:
        raise UserError(f"{path} is missing or damaged ({e}): {RESTORE}") from None


def check(want: dict[str, Tensor], where: dict[str, str], folder: str, n_layers: int) -> None:
    """UserError for a missing, extra, misshapen or quantised tensor; layers behind the last
    (DeepSeek's multi-token prediction) and old Llama files' rotary frequencies are passed over."""
    if missing := sorted(want.keys() - where.keys()):
        raise UserError(f"{folder}: tensor '{missing[0]}' is missing: {RESTORE}")
    for path in sorted(set(where.values())):
        with _opened(path) as f:
            for name in f.keys():  # noqa: SIM118  it is no dict
                tensor, layer = f"{path}: tensor '{name}'", re.match(r"model\.layers\.(\d+)", name)
                if name not in want:
                    extra = name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")
                    if extra or (layer and int(layer[1]) >= n_layers):
                        continue
                    raise UserError(f"{tensor} is not part of the model that config.json describes")
                found, wanted = f.get_slice(name), list(want[name].shape)
                kind, shape = found.get_dtype(), found.get_shape()
                if kind not in ("F32", "F16", "BF16", "F64"):
                    raise UserError(f"{tensor} is {kind}: convert the weights to bf16 first")
                if shape != wanted:
                    raise UserError(f"{tensor} is {shape}, the config asks for {wanted}")


def fill(want: dict[str, Tensor], where: dict[str, str]) -> None:
    """Copy the tensors on disk into the views `want`, a part at a time, to save memory."""
    for name in sorted(want):
        rows = max(1, PART // want[name][0].nbytes)
        for i, part in enumerate(want[name].split(rows)):
            with _opened(where[name]) as f:  # opened anew each time: only that frees what was read
                part.copy_(f.get_slice(name)[i * rows : (i + 1) * rows])


def write_tensors(folder: str, tensors: dict[str, Tensor]) -> None:
    """One or, above SHARD bytes, several safetensors files, each atomically."""
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


def save(model: torch.nn.Module, folder: str) -> None:
    """Write a GPT, which may be sharded, as a model folder."""
    state, dtype = full_state(model.state_dict()), model.embed_tokens.weight.dtype
    if is_main_process():
        write_tensors(folder, views(state, model.cfg))
        ends = {"eos_token_id": list(model.cfg.eos_ids), "pad_token_id": model.cfg.pad_id}
        write_json(os.path.join(folder, "generation_config.json"), SAMPLING | ends)
        if not os.path.exists(card := os.path.join(folder, "README.md")):
            with atomic_write(card) as temporary, open(temporary, "w") as f:
                f.write(CARD.format(family_of(model.cfg)))
        # last of all, for with it there is a model
        write_json(os.path.join(folder, "config.json"), write_config(model.cfg, dtype))
    barrier()
