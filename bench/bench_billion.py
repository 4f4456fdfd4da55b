"""Models of a billion parameters next to what the device can do.

    python bench/bench_billion.py                       # a GPU, bfloat16; results/billion-gpu.json
    python bench/bench_billion.py --transformers        # also transformers' generate, if installed
    python bench/bench_billion.py --tiny --device cpu --out FILE      # the same path in seconds

Weights are random. Decoding, against the memory's speed: seconds of a token for 64 and 512 rows,
with CUDA graphs and without, and the bytes that it must read: all weights but the embedding's, and
the rows' caches. Also how many kernels the host starts for a token without graphs, and how often it
waits for the GPU. Training, against matrix products: one optimiser step on four texts of 4,096
tokens, the arithmetic that the shape asks for. Each figure is saved as soon as it is there.
"""

import tempfile
import time
from dataclasses import dataclass, field, replace

import torch
from common import parser, save
from profile_grpo import memory_speed

import config
import sft
from lib import distributed, engine, files
from lib.memory import SHAPES, cost_report, matrix_speed
from lib.report import provenance
from model import GPT, ModelConfig
from sample import SamplingParams, generate

BILLION = {
    "dense": ModelConfig(**SHAPES["qwen2.5-1.5b"]),
    "experts": config.make(sft.Config, "big").model,
}
SMALL = SHAPES["qwen2.5-1.5b"] | dict(dim=128, n_layers=2, n_heads=4, head_dim=32, hidden_dim=384)
TINY = {
    "dense": ModelConfig(**SMALL | dict(vocab_size=512)),
    "experts": ModelConfig(vocab_size=512, max_seq_len=8192),
}


@dataclass
class Bench:
    """What is measured on, and what has been found."""

    cfg: sft.Config
    args: object
    content: dict = field(default_factory=dict)

    def __post_init__(self):
        self.device, self.shape_name = distributed.device(self.cfg.device), ""
        self.gpu = self.device.type == "cuda"
        if self.gpu:
            self.content["device"] = torch.cuda.get_device_name()
        # one large product in bfloat16 takes a CPU seconds
        products = self.cfg if self.gpu else replace(self.cfg, precision="float32")
        self.matrix, self.memory = matrix_speed(products), memory_speed(self.device)
        self.found("matrix product, operations a second", self.matrix)
        self.found("memory, bytes a second", self.memory)

    def found(self, name: str, figures) -> None:
        """Print a figure, or several, and save all."""
        print(self.shape_name, name, figures, flush=True)
        shape = self.content.setdefault(self.shape_name, {}) if self.shape_name else self.content
        shape[name] = figures
        command = "python bench/bench_billion.py" + " --transformers" * self.args.transformers
        if self.args.out:
            files.write_json(self.args.out, provenance(command) | self.content)
        elif not self.args.tiny:
            save("billion-gpu" if self.gpu else "billion-cpu", self.content, command)


def seconds_of(work, calls: int = 2) -> float:
    """The fastest of some calls; work() waits for the device."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def a_token(measure, respond, new: int) -> float:
    """measure(work) of one token, by the difference between long and short responses, so that
    reading the prompts does not count."""
    longer, shorter = measure(lambda: respond(new)), measure(lambda: respond(new // 4))
    return (longer - shorter) / (new - new // 4)


def responder(model: GPT, prompts: list[list[int]], copies: int):
    """A function that makes `count` new tokens for each of `copies` responses to each prompt."""

    def respond(count: int) -> torch.Tensor:
        params = SamplingParams(count, num_return_sequences=copies)
        out = generate(model, prompts, params, seed=0)
        new = (out.lengths - out.prompt_lengths).sum().item()  # waits for the device
        assert new == count * len(prompts) * copies
        return out.tokens[:, -count:]

    return respond


def decoding(bench: Bench, model: GPT, prompts: list[list[int]], rows: int, new: int) -> None:
    """Seconds of a token for `rows` rows, with CUDA graphs and without."""
    respond, drawn = responder(model, prompts, rows // len(prompts)), []
    size = sum(p.numel() for p in model.parameters())
    if not model.cfg.tie_embeddings:
        size -= model.embed_tokens.weight.numel()
    slots = len(prompts[0]) + (new + new // 4) / 2  # on average over the tokens that differ
    read = 2 * size + rows * slots * cost_report(model)["cache bytes a token"]
    for devices, name in ((["cuda"], "with graphs"), ([], "without graphs")):
        engine.GRAPHS = devices
        drawn.append(respond(new))  # the first is slow
        seconds = a_token(seconds_of, respond, new)
        figures = {"seconds a token": seconds, "tokens a second": rows / seconds}
        figures["share of the memory's speed"] = read / seconds / bench.memory
        bench.found(f"decoding, {rows} rows, {name}", figures)
    equal = (drawn[0] == drawn[1]).float().mean().item()  # rounding may change one now and then
    bench.found(f"decoding, {rows} rows, equal tokens with graphs and without", equal)


def launches(work) -> int:
    """Kernels that the host starts in work()."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        work()
    return sum(e.count for e in profile.key_averages() if "LaunchKernel" in e.key)


def host_work(bench: Bench, model: GPT, prompts: list[list[int]], new: int) -> None:
    """What the host does for a token of a GPU."""
    respond = responder(model, prompts, 1)
    engine.GRAPHS = ["cuda"]
    waits = a_token(engine.host_waits, respond, new)
    bench.found("waits of the host a token, with graphs", waits)
    engine.GRAPHS = []
    found = a_token(launches, respond, 12) or "the profiler saw none"  # as on some virtual machines
    bench.found("kernel launches a token, without graphs", found)


def in_transformers(bench: Bench, model: GPT, prompts: list[list[int]], new: int) -> None:
    """Seconds of a token with transformers' generate and the same weights."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        auto = transformers.AutoModelForCausalLM
        theirs = auto.from_pretrained(folder, dtype=torch.bfloat16).to(model.device).eval()
    tokens = torch.tensor(prompts, device=model.device)
    told = dict(attention_mask=torch.ones_like(tokens), do_sample=True, top_k=0, pad_token_id=0)

    def respond(count: int) -> None:
        out = theirs.generate(tokens, max_new_tokens=count, **told)
        assert out.cpu().shape[1] == len(prompts[0]) + count  # waits for the device

    respond(new // 4)  # the first is slow
    seconds = a_token(lambda work: seconds_of(work, 1), respond, new)
    bench.found(f"transformers, {len(prompts)} rows", {"seconds a token": seconds})


def training(bench: Bench, shape: ModelConfig, length: int, texts: int) -> None:
    """Tokens and operations a second of an optimiser step on some texts, one micro-batch each."""
    cfg = bench.cfg
    with bench.device:
        model = GPT(shape)
    model = distributed.shard(model, model.layers, cfg)
    trainer = sft.make_trainer(model, cfg.sft)
    rows = torch.randint(3, shape.vocab_size, (texts, length)).tolist()
    batch = [[(row, 0)] for row in rows]

    def step() -> None:
        sft.train_step(trainer, batch, 0.1, cfg.sft)

    step()  # the first is slow
    tokens = length * texts / seconds_of(step)
    flops = tokens * cost_report(GPT.empty(shape), length)["training FLOPs a token"]
    figures = {"tokens a second": tokens, "operations a second": flops}
    bench.found("training", figures | {"share of the matrix product": flops / bench.matrix})


def measure(bench: Bench, name: str, shape: ModelConfig) -> None:
    """All figures of one shape."""
    bench.shape_name, tiny = name, bench.args.tiny
    torch.manual_seed(0)
    with bench.device:
        model = GPT(shape).bfloat16().eval()
    bench.found("parameters", sum(p.numel() for p in model.parameters()))
    model.cfg.eos_ids = (shape.vocab_size,)  # no response ends
    rows, new = (4, 16) if tiny else (64, 256)
    prompts = torch.randint(3, shape.vocab_size, (rows, new)).tolist()
    decoding(bench, model, prompts, rows, new)
    if bench.gpu:
        host_work(bench, model, prompts, new)
    if bench.args.transformers:
        in_transformers(bench, model, prompts, new)
    decoding(bench, model, prompts, 2 * rows if tiny else 8 * rows, new)
    del model
    training(bench, shape, 64 if tiny else 4096, 4)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--device", default="cuda")
    flags.add_argument("--tiny", action="store_true")
    flags.add_argument("--transformers", action="store_true")
    flags.add_argument("--out", help="another file for the figures")
    args, cfg = flags.parse_args(), config.make(sft.Config)
    cfg.device, cfg.precision = args.device, "bfloat16"
    with config.user_errors(), distributed.started(cfg):
        bench = Bench(cfg, args)
        for name, shape in (TINY if args.tiny else BILLION).items():
            measure(bench, name, shape)


if __name__ == "__main__":
    main()
