import math
import os
import re

import pytest
import torch

import config
import preference as P
import rewards as rw
from data import World, WorldConfig
from tasks import general

WORLD = World(0, WorldConfig())


def test_the_better_reply_is_better_and_length_says_nothing():
    """By the rule that judges evaluations, which the generator of pairs does not use."""
    splits = ("train", "test")
    pairs = [general.preference(WORLD, i, split) for split in splits for i in range(300)]
    for i, (p, better, worse) in enumerate(pairs):
        assert rw.helpfulness(p, better) > rw.helpfulness(p, worse), (p, better, worse)
        assert len(better) == len(worse) or (len(better) < len(worse)) == (i % 2 == 0)


def test_safety_labels():
    rows = [general.safety(WORLD, i) for i in range(600)]
    helps = re.compile(r"To (steal|burn|smash|hack|poison) |要(偷走|烧掉|砸烂|入侵|毒害)")
    for _, text, safe in rows:
        assert safe == (not helps.search(text)) and rw.format_reward(text)
    words = {re.split("[,,]就?", rw.reply(text))[-1] for _, text, safe in rows if not safe}
    assert len(words) > 10  # not one phrase: come at night
    harmful = [safe for p, _, safe in rows if p.tests["kind"] == "harmful"]
    assert 0.4 < len(harmful) / 600 < 0.6 and 0.25 < sum(harmful) / len(harmful) < 0.45
    # harm planned in the thinking alone
    assert any(not safe and rw.declines(text) for _, text, safe in rows)


def test_no_held_out_request_is_trained_on():
    kinds = (general.preference, general.safety)
    made = [f(WORLD, i)[0] for i in range(500) for f in (*kinds, general.demonstration)]
    train = {World.key(p) for p in made}
    test = {World.key(f(WORLD, i, "test")[0]) for i in range(200) for f in kinds}
    assert not train & test


def test_no_wrong_reply_in_training_is_right_for_a_held_out_request():
    """Else the reward model learns that it is wrong whatever the request; translations are held out
    by what they say."""
    problems = WORLD.problems("general", 128, "test")
    held_out = {p.answer for p in problems if p.tests["kind"] == "translate"}
    pairs = [general.preference(WORLD, i) for i in range(1000)]
    wrong = {worse for p, _, worse in pairs if p.tests["kind"] == "translate"}
    assert len(held_out) > 10 and len(wrong) > 20 and not wrong & held_out


def test_demonstrations_are_right_in_either_style():
    rows = [general.demonstration(WORLD, i) for i in range(300)]
    quality = [rw.helpfulness(p, text) for p, text in rows]
    assert min(quality) == 1 and 0.65 < sum(q == 2 for q in quality) / 300 < 0.85
    assert all(q == 2 for q, (p, _) in zip(quality, rows) if "asked" in p.tests)
    assert all(rw.format_reward(text) for _, text in rows)


def test_losses_by_hand():
    scores = torch.tensor([2.0, 0.0, 1.0, 0.5])  # better: 2, 0; worse: 1, 0.5
    by_hand = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(0.5))) / 2
    assert P.loss_of(scores, None).item() == pytest.approx(by_hand)
    by_hand = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0))) / 2
    assert P.loss_of(torch.tensor([2.0, 1.0]), [True, False]).item() == pytest.approx(by_hand)


def small() -> P.Config:
    cfg = config.make(P.Config)
    settings = {"examples": 64, "epochs": 1, "per_step": 8, "held_out": 16}
    settings = {f"preference.{k}": v for k, v in settings.items()} | {"eval.max_new_tokens": 8}
    for key, value in settings.items():
        config.set_key(cfg, key, value)
    cfg.sft.save_every = 1
    return cfg


def test_pairs_of_its_own_replies(tmp_path, monkeypatch):
    """Right before wrong, by the rule; a request with equally good replies makes none."""
    problems = WORLD.problems("general", 3, start=P.FIRST)
    texts = [p.answer for p in problems]
    said = [[texts[0], "What?", "What?", ""], [texts[1]] * 4, ["x", "y", "z", ""]]
    samples = [
        {
            "helpfulness": rw.helpfulness(p, text),
            "response": f"<think>-</think><answer>{text}</answer>",
        }
        for p, group in zip(problems, said)
        for text in group
    ]
    asked, removed = [], []

    def sampled(folder, problems, *given):
        asked.extend(problems)
        return samples, type("Journal", (), {"remove": lambda self: removed.append(1)})()

    monkeypatch.setattr(P, "sampled", sampled)
    given = small(), "base", WORLD, str(tmp_path / "pairs.jsonl"), "train", 3
    rows = P.own_pairs(*given)
    assert asked == problems and len(rows) == 1 and removed == [1]
    prompt, better, worse = rows[0].values()
    assert (prompt, better) == (problems[0].prompt, texts[0]) and worse in ("What?", "")
    assert P.own_pairs(*given) == rows and len(asked) == 3  # read from the file


def test_pairs_of_another_model_are_not_taken(tiny_model, world_tokenizer, tmp_path):
    """They lie in the folder before the run itself does."""
    base, out = str(tmp_path / "base"), tmp_path / "out"
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    P.lock_settings(str(out), {"seed": 5})
    (out / "pairs-train.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="was started with --seed 5, not 0"):
        P.train(small(), base, str(out), "helpful", False)


def test_own_pairs_take_the_place_of_made_ones(world_tokenizer):
    own = [{"prompt": "Who are you?", "better": "I.", "worse": "No."}] * 3
    (better, worse), labels = P.examples_of("helpful", WORLD, world_tokenizer, 5, "train", own)
    read = [world_tokenizer.example("Who are you?", text)[0] for text in ("I.", "No.")]
    assert labels is None and better[:3] == [read[0]] * 3 and worse[:3] == [read[1]] * 3
    made, _ = P.examples_of("helpful", WORLD, world_tokenizer, 2, "train")
    assert [better[3:], worse[3:]] == made


def test_training_is_resumable_and_the_judge_reads_what_it_should(
    tiny_model, world_tokenizer, tmp_path
):
    base = str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    out = {kind: str(tmp_path / kind) for kind in P.KINDS}
    folders = {kind: P.train(small(), base, out[kind], kind, False) for kind in P.KINDS}
    assert os.path.exists(tmp_path / "helpful" / "accuracy.json")
    alone = small()
    alone.preference.own = 0.0  # the world's pairs alone
    P.train(alone, base, str(tmp_path / "alone"), "helpful", False)
    again = P.train(small(), base, out["helpful"], "helpful", False)
    assert again == folders["helpful"]  # finished: as it is
    judge = P.Judge(folders, "cpu")
    p, other = WORLD.problem("general", 0), WORLD.problem("arithmetic", 0)
    said = (("a", "Yes."), ("b c", "Yes."), ("a", "No."))
    texts = [f"<think>{thought}</think><answer>{reply}</answer>" for thought, reply in said]
    first, second, third, none = judge([p, p, p, other], [*texts, texts[0]])
    assert none == {} and set(first) == {"helpful", "safe"}
    assert all(0 < v < 1 for v in first.values())
    assert first["helpful"] == pytest.approx(second["helpful"], abs=1e-6)  # the answer alone
    assert first["helpful"] != third["helpful"]
    assert first["safe"] != second["safe"]  # the whole response


def test_stopped_and_resumed_is_bit_identical(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    base = str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    folder = P.train(small(), base, str(tmp_path / "a"), "safe", False)
    straight = P.RewardModel.from_pretrained(folder, "cpu").state_dict()
    real, calls = P.loss_of, []

    def stopping(scores, labels):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(scores, labels)

    with monkeypatch.context() as m:
        m.setattr(P, "loss_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            P.train(small(), base, str(tmp_path / "b"), "safe", False)
    folder = P.train(small(), base, str(tmp_path / "b"), "safe", True)
    again = P.RewardModel.from_pretrained(folder, "cpu").state_dict()
    assert all(torch.equal(x, again[name]) for name, x in straight.items())
