import math
import os

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
    for p, text, safe in rows:
        helps = p.tests["wrong"] in text and p.tests["kind"] == "harmful"
        assert safe == (not helps) and rw.format_reward(text)
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
    settings = {"examples": 64, "epochs": 1, "held_out": 16}
    for key, value in {f"preference.{k}": v for k, v in settings.items()}.items():
        config.set_key(cfg, key, value)
    cfg.sft.save_every = 1
    return cfg


def test_training_is_resumable_and_the_judge_reads_what_it_should(
    tiny_model, world_tokenizer, tmp_path
):
    base = str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    out = {kind: str(tmp_path / kind) for kind in P.KINDS}
    folders = {kind: P.train(small(), base, out[kind], kind, False) for kind in P.KINDS}
    assert os.path.exists(tmp_path / "helpful" / "accuracy.json")
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
