"""What is chosen for a model from elsewhere, and how its responses are scored."""

import dataclasses

import pytest
from test_hf_tokenizer import thinking_folder

import config
import eval as evaluation
import grpo
import inputs
import rewards as rw
import sft
import tokenizer as tokenizers
import train_zero
from data import Problem


@pytest.fixture(autouse=True)
def a_model_is_there(monkeypatch):
    monkeypatch.setattr(inputs.GPT, "from_pretrained", lambda *_, **__: None)


@pytest.fixture
def chat(tmp_path):
    return thinking_folder(tmp_path / "chat")


def parsed(cls, *words):
    return config.parse(config.Parser(""), cls, argv=list(words))


def test_a_model_from_elsewhere_is_asked_for_what_is_rewarded(chat, capsys):
    cfg, args = parsed(train_zero.Config)
    found = inputs.suited(cfg, chat, args)
    assert (found.template, found.grpo.lr, found.sft.adam_lr) == ("r1", 1e-5, 2e-5)
    assert "--template r1" in (told := capsys.readouterr().out) and "--grpo.lr 1e-05" in told
    assert (cfg.template, cfg.grpo.lr) == ("auto", 3e-4)  # a teacher's stay
    # what is typed holds; where no tags are rewarded, none are asked for
    cfg, args = parsed(train_zero.Config, "--grpo.lr", "3e-6", "--template", "chat")
    found = inputs.suited(cfg, chat, args)
    assert (found.template, found.grpo.lr) == ("chat", 3e-6)
    cfg, args = parsed(train_zero.Config, "--rewards.format", "0")
    assert inputs.suited(cfg, chat, args).template == "auto"
    cfg, args = parsed(sft.Config)  # fine-tuning rewards nothing
    assert inputs.suited(cfg, chat, args).template == "auto"


def test_a_model_of_ours_keeps_the_preset(world_tokenizer, tmp_path, capsys):
    world_tokenizer.save(str(tmp_path))
    cfg, args = parsed(train_zero.Config)
    assert inputs.suited(cfg, str(tmp_path), args) is cfg
    assert inputs.suited(cfg, None, args) is cfg and capsys.readouterr().out == ""


def test_responses_to_a_template_that_opens_the_thinking(chat, monkeypatch):
    """In RL and in evaluation: `r</think><answer>18</answer>` is in form, and a response that is
    cut off before </think> has no answer."""
    tokenizer = tokenizers.load(chat)
    texts = ["so</think>\n<answer>18</answer>", "the answer is \\boxed{18}, but"]
    problem, ids = Problem("q", "18", "math"), [tokenizer.encode(text) for text in texts]
    wanted = [(1.0, 1.0), (0.0, 0.0)]  # accuracy and format

    class Rollout:
        tokens, finished = ids, [True, False]
        responses = staticmethod(lambda: ids)

    monkeypatch.setattr(grpo.metrics, "of_rollout", lambda *_: {})
    cfg = dataclasses.replace(grpo.Config(), grpo=grpo.GRPOConfig(group_size=2))
    learner = grpo.Learner.__new__(grpo.Learner)
    learner.tokenizer, learner.cfg, learner.judge = tokenizer, cfg, None
    learner.algorithm = grpo.ALGORITHMS["grpo"]
    _, _, records = learner.score(Rollout, [problem])
    assert [(r["rewards"]["accuracy"], r["rewards"]["format"]) for r in records] == wanted
    samples = [(0, tokenizer.response(i), len(i), True) for i in ids]
    scored = evaluation.score_texts([problem], samples)
    assert [(float(s["correct"]), s["format"]) for s in scored] == wanted
    # saved responses are judged again without the model: what is saved says how they began
    assert rw.answer_of(problem, scored[1]["response"]) is None
