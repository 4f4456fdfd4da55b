import os

import pytest
import torch

from reward_model import RewardModel


@pytest.fixture
def reward_model(tiny_model):
    torch.manual_seed(0)
    model = RewardModel(tiny_model)
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
    again = RewardModel.from_pretrained(str(tmp_path), "cpu")
    assert torch.equal(again.score([[5, 6, 7]]), reward_model.score([[5, 6, 7]]))
    os.remove(tmp_path / "score.safetensors")
    with pytest.raises(ValueError, match=r"score\.safetensors"):
        RewardModel.from_pretrained(str(tmp_path), "cpu")


def test_every_token_is_scored_as_if_the_row_ended_there(reward_model):
    rows = [[5, 6, 7, 8], [9, 30, 31, 32]]
    every = reward_model(torch.tensor(rows))  # [B, T]
    ends = [[1, 3], [2]]
    some = reward_model.score(rows, ends)
    assert every.shape == (2, 4)
    assert torch.allclose(some, torch.stack([every[0, 0], every[0, 2], every[1, 1]]), atol=1e-5)
    cut = reward_model.score([[5], [5, 6, 7], [9, 30]])
    assert torch.allclose(some, cut, atol=1e-5)
