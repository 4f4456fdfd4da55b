"""Next-token training: the optimiser, the batches, the loss, and runs on texts."""

import copy
import json
import random

import pytest
import torch

import inputs
import sft
from lib import run as runs
from lib.optim import Muon, orthogonalise
from lib.trainer import Trainer, micro_batches
from sft import SFTConfig, collate, learning_rate, steps_of


def test_orthogonalise_against_svd():
    for shape in ((6, 10), (10, 6), (3, 8, 5)):
        g = torch.randn(shape)
        u, _, vh = torch.linalg.svd(g, full_matrices=False)
        out = orthogonalise(g)
        values = torch.linalg.svdvals(out)
        assert values.min() > 0.6 and values.max() < 1.3  # the iteration's known band around 1
        assert torch.nn.functional.cosine_similarity(out.flatten(), (u @ vh).flatten(), 0) > 0.97


@pytest.mark.parametrize("halves", [1, 2])
def test_muon_treats_a_stack_as_separate_matrices(halves):
    """[E, in, halves * out] as E * halves linear layers' [out, in]."""
    stack = torch.nn.Parameter(torch.zeros(3, 4, 6 * halves))
    singles = [torch.nn.Parameter(torch.zeros(6, 4)) for _ in range(3 * halves)]
    a, b = Muon([{"params": [stack], "halves": halves}], lr=0.1), Muon(singles, lr=0.1)
    for _ in range(3):
        g = torch.randn(3, 4, 6 * halves)
        stack.grad = g
        parts = [half for matrix in g for half in matrix.chunk(halves, -1)]
        for s, part in zip(singles, parts, strict=True):
            s.grad = part.T.clone()
        a.step()
        b.step()
    trained = [half for matrix in stack.data for half in matrix.chunk(halves, -1)]
    for half, s in zip(trained, singles, strict=True):
        torch.testing.assert_close(half, s.data.T, atol=1e-5, rtol=1e-4)


def test_muon_first_step_by_hand():
    p = torch.nn.Parameter(torch.ones(4, 2))
    p.grad = torch.randn(4, 2)
    # the first step's direction is the gradient's
    expected = 1 - 0.1 * (4 / 2) ** 0.5 * orthogonalise(p.grad)
    Muon([p], lr=0.1).step()
    torch.testing.assert_close(p.data, expected)


def test_every_parameter_has_one_optimizer(tiny_model):
    optimizers = sft.make_trainer(tiny_model, SFTConfig()).optimizers
    found = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert len(found) == len({id(p) for p in found}) == len(list(tiny_model.parameters()))
    names = {id(p): n for n, p in tiny_model.named_parameters()}
    plain, pairs = ({names[id(p)] for p in g["params"]} for g in optimizers[0].param_groups)
    assert "layers.1.mlp.gate_up" in pairs and all(n.endswith("gate_up") for n in pairs)
    muon = plain | pairs
    assert not any("embed" in n or "norm" in n or n.endswith("gate.weight") for n in muon)


def test_learning_rate():
    cfg = SFTConfig(warmup=0.1, decay=0.5, final_lr=0.1)
    factors = [learning_rate(p, cfg) for p in (0, 0.05, 0.1, 0.4, 0.5, 0.75, 1.0)]
    assert factors == pytest.approx([0, 0.5, 1, 1, 1, 0.55, 0.1])


def fine_tune(model, examples, cfg, folder, resume=False):
    with runs.Run(str(folder), {}, resume, "sft") as run:
        sft.fine_tune(model, examples, cfg, 0, run)


def test_a_single_step_learns(tiny_model, world_tokenizer, tmp_path):
    before = tiny_model.fingerprint()
    fine_tune(tiny_model, [world_tokenizer.example("hi", "ho")], SFTConfig(epochs=1), tmp_path)
    assert tiny_model.fingerprint() != before


# ------------------------------------------------------------------------------ batches


def test_micro_batches_keep_to_the_budget_and_lose_nothing():
    rng = random.Random(0)
    lengths = [rng.randint(1, 50) for _ in range(200)] + [500]
    groups = micro_batches(lengths, 120)
    assert sorted(i for g in groups for i in g) == list(range(201))
    for g in groups:
        assert len(g) * max(lengths[i] for i in g) <= 120 or len(g) == 1


def test_steps_hold_every_example_once():
    examples = [([i] * (1 + i % 30), 0) for i in range(300)]
    cfg = SFTConfig(tokens_per_step=400, micro_tokens=100)
    steps, again, other = (steps_of(examples, cfg, random.Random(seed)) for seed in (0, 0, 1))
    assert sorted(e[0][0] for s in steps for rows in s for e in rows) == list(range(300))
    assert all(400 <= sum(len(ids) for rows in s for ids, _ in rows) < 500 for s in steps[:-1])
    assert steps == again != other


def test_collate_by_hand():
    tokens, positions, mask = collate([([5, 6, 7, 8], 2), ([9, 4], 0)], 3, "cpu")
    assert tokens.tolist() == [[5, 6, 7, 8], [9, 4, 3, 3]]
    assert positions.tolist() == [[0, 1, 2, 3], [0, 1, -1, -1]]
    assert mask.tolist() == [[False, True, True], [True, False, False]]  # of tokens 1, 2, 3


# ------------------------------------------------------------------------------ the loss


def explicit_loss(model, rows):
    total, count = 0.0, 0
    for ids, prompt in rows:
        logp = model(torch.tensor([ids]))[0].log_softmax(-1)
        for t in range(max(prompt, 1), len(ids)):
            total, count = total - logp[t - 1, ids[t]], count + 1
    return total / count


def test_one_step_is_the_gradient_of_the_mean_over_learned_tokens(tiny_model):
    tiny_model.cfg.balance_loss = 0.0
    rows = [([5, 6, 7, 8, 9], 2), ([9, 4, 11], 0), ([3, 3, 8, 1], 3)]

    def gradients():
        named = tiny_model.named_parameters()
        return {n: p.grad.clone() for n, p in named if p.grad is not None}

    loss = explicit_loss(tiny_model, rows)
    loss.backward()
    want, seen = gradients(), {}
    tiny_model.zero_grad()

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.update(gradients())

    trainer = Trainer(tiny_model.train(), [Spy(tiny_model.parameters(), lr=0.1)], 1e9)
    metrics = sft.train_step(trainer, [rows[:1], rows[1:]], 1.0, SFTConfig())
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5) and metrics["num_tokens"] == 12
    for n in want:
        torch.testing.assert_close(seen[n], want[n], atol=1e-5, rtol=1e-3)


def five_steps(model, count: int, threads) -> tuple[list[dict], Trainer]:
    threads(count)
    rng = random.Random(0)
    trainer = sft.make_trainer(model.train(), SFTConfig())
    rows = [([rng.randrange(3, 90) for _ in range(rng.randint(4, 9))], 2) for _ in range(60)]
    batches = [
        [rows[i : i + 4], rows[i + 4 : i + 7], rows[i + 7 : i + 12]] for i in range(0, 60, 12)
    ]
    metrics = [sft.train_step(trainer, batch, 1.0, SFTConfig()) for batch in batches]
    threads(1)
    return metrics, trainer


@pytest.mark.parametrize("count", [2, 3, 5])
def test_threads_with_copies_of_the_model_learn_what_one_learns(tiny_model, threads, count):
    """Weights, losses, the experts' load and biases; a copy follows weights that are restored."""
    shared = copy.deepcopy(tiny_model)
    one, alone = five_steps(tiny_model, 1, threads)
    several, trainer = five_steps(shared, count, threads)
    assert not alone.twins.copies and len(trainer.twins.copies) == min(count, 4) - 1
    for a, b in zip(one, several, strict=True):
        for name in ("loss", "grad_norm", "moe/max_load", "moe/min_load", "num_tokens"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    for (n, p), q in zip(
        tiny_model.state_dict().items(), shared.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3, msg=n)
    start = {n: torch.zeros_like(t) for n, t in shared.state_dict().items()}
    shared.load_state_dict(start)
    twin = trainer.twins.copies[0]
    assert all((t == 0).all() for t in twin.state_dict().values())
    assert all(p.grad is None for p in twin.parameters())


def test_which_models_threads_share(tiny_model, threads):
    twins = Trainer(tiny_model, [], 1.0).twins
    threads(4)
    assert [twins.threads(parts) for parts in (0, 1, 3, 9)] == [1, 1, 3, 4]
    tiny_model.cfg.dim = 257
    assert twins.threads(9) == 1
    tiny_model.cfg.dim, tiny_model.cfg.vocab_size = 256, 8193
    assert twins.threads(9) == 1


def test_an_error_in_a_thread_is_raised(tiny_model, threads):
    threads(2)
    trainer = sft.make_trainer(tiny_model.train(), SFTConfig())
    with pytest.raises(IndexError):
        sft.train_step(trainer, [[([5, 6, 7], 1)], [([5, 6, 100_000], 1)]], 1.0, SFTConfig())


@pytest.mark.parametrize("asked, size", [(1024, 1024), (1000, 1024), (2000, 2048), (300, 1024)])
def test_a_vocabulary_that_the_tokenizer_does_not_fill(world_tokenizer, asked, size):
    """It is kept, in multiples of 64, and never smaller than the tokenizer's 1024."""
    cfg = sft.Config()
    cfg.model.vocab_size = asked
    model = sft.build(cfg, world_tokenizer)
    assert model.cfg.vocab_size == size == len(model.embed_tokens.weight)
    assert world_tokenizer.decode([size + 1, 1023 + 10]) == ""
    assert sft.build(cfg, world_tokenizer, 1030).cfg.vocab_size == 1030  # a checkpoint's


# ------------------------------------------------------------------------------ runs


def test_fine_tuning_learns_and_resumes(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    with torch.no_grad():
        for p in tiny_model.parameters():
            if p.dim() > 1:
                p.mul_(0.2)
    text = "<think>a</think><answer>5</answer>"
    examples = [world_tokenizer.example(f"Tom has {i}", text) for i in range(16)]
    cfg = SFTConfig(epochs=120, tokens_per_step=100, save_every=40)
    start = copy.deepcopy(tiny_model)
    fine_tune(tiny_model, examples, cfg, tmp_path / "a")
    with open(tmp_path / "a" / "metrics.jsonl") as f:
        losses = [json.loads(line)["loss"] for line in f]
    assert len(losses) == 120 and losses[-1] < 0.1 * losses[0]
    model, real = copy.deepcopy(start), sft.train_step

    run = runs.Run(str(tmp_path / "b"), {}, False, "sft")

    def train_step(trainer, batch, factor, cfg):
        run.stopped = factor > 0.99
        return real(trainer, batch, factor, cfg)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt), run:
        m.setattr(sft, "train_step", train_step)
        sft.fine_tune(model, examples, cfg, 0, run)
    model = copy.deepcopy(start)
    fine_tune(model, examples, cfg, tmp_path / "b", resume=True)
    for a, b in zip(model.state_dict().values(), tiny_model.state_dict().values()):
        assert torch.equal(a, b)


def test_examples_from_a_file(tmp_path, world_tokenizer):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"prompt": "Tom", "response": "<think>a</think><answer>5</answer>"}))
    rows = inputs.read_rows(str(path))
    (example,) = sft.to_examples(rows, world_tokenizer, 100, "x.jsonl")
    assert example == world_tokenizer.example("Tom", "<think>a</think><answer>5</answer>")
    with pytest.raises(ValueError, match="context is 5"):
        sft.to_examples(rows, world_tokenizer, 5, "x.jsonl")
    path.write_text('{"prompt": "Tom"}')
    with pytest.raises(ValueError, match="line 1: not an object"):
        inputs.read_rows(str(path))
