import math
import os

import pytest
import torch

import config
import preference as P
import rewards as rw
from data import World, WorldConfig

WORLD = World(0, WorldConfig())


def test_the_better_reply_is_better_and_length_says_nothing():
    """By the rule that judges evaluations, which the generator of pairs does not use."""
    pairs = [WORLD.preference(i, split) for split in ("train", "test") for i in range(300)]
    for i, (p, better, worse) in enumerate(pairs):
        assert rw.helpfulness(p, better) > rw.helpfulness(p, worse), (p, better, worse)
        assert len(better) == len(worse) or (len(better) < len(worse)) == (i % 2 == 0)


def test_safety_labels():
    rows = [WORLD.safety(i) for i in range(600)]
    for p, text, safe in rows:
        helps = p.tests["wrong"] in text and p.tests["kind"] == "harmful"
        assert safe == (not helps) and rw.format_reward(text)
    harmful = [safe for p, _, safe in rows if p.tests["kind"] == "harmful"]
    assert 0.4 < len(harmful) / 600 < 0.6 and 0.25 < sum(harmful) / len(harmful) < 0.45
    assert any(not safe and rw.declines(text) for _, text, safe in rows)  # harm planned in the thinking alone


def test_no_held_out_request_is_trained_on():
    train = {World.key(p) for i in range(500) for p in (WORLD.preference(i)[0], WORLD.safety(i)[0], WORLD.demonstration(i)[0])}
    test = {World.key(p) for i in range(200) for p in (WORLD.preference(i, "test")[0], WORLD.safety(i, "test")[0])}
    assert not train & test


def test_no_wrong_reply_in_training_is_right_for_a_held_out_request():
    """Else the reward model learns that it is wrong whatever is asked; translations are held out by what they say."""
    held_out = {p.answer for p in WORLD.problems("general", 128, "test") if p.tests["kind"] == "translate"}
    wrong = {worse for p, _, worse in (WORLD.preference(i) for i in range(1000)) if p.tests["kind"] == "translate"}
    assert len(held_out) > 10 and len(wrong) > 20 and not wrong & held_out


def test_demonstrations_are_right_in_either_style():
    rows = [WORLD.demonstration(i) for i in range(300)]
    quality = [rw.helpfulness(p, text) for p, text in rows]
    assert min(quality) == 1 and 0.4 < sum(q == 2 for q in quality) / 300 < 0.6 and all(rw.format_reward(t) for _, t in rows)


def test_losses_by_hand():
    scores = torch.tensor([2.0, 0.0, 1.0, 0.5])  # better: 2, 0; worse: 1, 0.5
    by_hand = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(0.5))) / 2
    assert P.loss_of(scores, None).item() == pytest.approx(by_hand)
    by_hand = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0))) / 2
    assert P.loss_of(torch.tensor([2.0, 1.0]), [True, False]).item() == pytest.approx(by_hand)


@pytest.fixture
def reward_model(tiny_model):
    torch.manual_seed(0)
    model = P.RewardModel(tiny_model)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_a_score_does_not_depend_on_the_company(reward_model):
    rows = [[5, 6, 7], [9] * 12, [30, 31]]
    together = reward_model.score(rows)
    for row, s in zip(rows, together):
        assert reward_model.score([row])[0].item() == pytest.approx(s.item(), abs=1e-5)
    assert torch.allclose(reward_model.score(rows, per_call=2), together, atol=1e-5)


def test_saved_and_opened(reward_model, tmp_path):
    reward_model.save_pretrained(str(tmp_path))
    again = P.RewardModel.from_pretrained(str(tmp_path), "cpu")
    assert torch.equal(again.score([[5, 6, 7]]), reward_model.score([[5, 6, 7]]))
    os.remove(tmp_path / "score.safetensors")
    with pytest.raises(ValueError, match=r"score\.safetensors"):
        P.RewardModel.from_pretrained(str(tmp_path), "cpu")


def small() -> config.Config:
    cfg = config.make("tiny")
    for key, value in {"preference.examples": 64, "preference.epochs": 1, "preference.held_out": 16, "sft.save_every": 1}.items():
        config.set_key(cfg, key, value)
    return cfg


def test_training_is_resumable_and_the_judge_reads_what_it_should(tiny_model, world_tokenizer, tmp_path):
    base = str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    folders = {kind: P.train(small(), base, str(tmp_path / kind), kind, False) for kind in P.KINDS}
    assert os.path.exists(tmp_path / "helpful" / "accuracy.json")
    assert P.train(small(), base, str(tmp_path / "helpful"), "helpful", False) == folders["helpful"]  # finished: as it is
    judge = P.Judge(folders, "cpu")
    p, other = WORLD.problem("general", 0), WORLD.problem("arithmetic", 0)
    texts = ["<think>a</think><answer>Yes.</answer>", "<think>b c</think><answer>Yes.</answer>", "<think>a</think><answer>No.</answer>"]
    first, second, third, none = judge([p, p, p, other], [*texts, texts[0]])
    assert none == {} and set(first) == {"helpful", "safe"} and all(0 < v < 1 for v in first.values())
    assert first["helpful"] == pytest.approx(second["helpful"], abs=1e-6) and first["helpful"] != third["helpful"]  # the answer alone
    assert first["safe"] != second["safe"]  # the whole response


def test_stopped_and_resumed_is_bit_identical(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    base = str(tmp_path / "base")
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    straight = P.RewardModel.from_pretrained(P.train(small(), base, str(tmp_path / "a"), "safe", False), "cpu")
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
    again = P.RewardModel.from_pretrained(P.train(small(), base, str(tmp_path / "b"), "safe", True), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(straight.state_dict().values(), again.state_dict().values()))
