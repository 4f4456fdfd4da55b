"""What is chosen for a model from elsewhere, and how its responses are scored."""

import dataclasses
import os
from types import SimpleNamespace

import pytest
from test_hf_tokenizer import thinking_folder

import config
import distill
import eval as evaluation
import grpo
import inputs
import rewards as rw
import sft
import tokenizer as tokenizers
import train_zero
from data import Problem
from lib.errors import UserError
from lib.run import check_settings
from model import ModelConfig


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


def test_settings_of_a_file_hold_and_the_others_are_still_suited(chat, tmp_path):
    (tmp_path / "mine.json").write_text('{"grpo": {"lr": 1e-3, "steps": 2}}')
    cfg, args = parsed(train_zero.Config, "--config", str(tmp_path / "mine.json"))
    found = inputs.suited(cfg, chat, args)
    assert (found.grpo.lr, found.grpo.minibatches, found.template) == (1e-3, 1, "r1")


def test_a_model_of_ours_keeps_the_preset(world_tokenizer, tmp_path, capsys):
    world_tokenizer.save(str(tmp_path))
    cfg, args = parsed(train_zero.Config)
    assert inputs.suited(cfg, str(tmp_path), args) is cfg
    assert inputs.suited(cfg, None, args) is cfg and capsys.readouterr().out == ""


def test_a_template_that_was_trained_with_here_stays(chat, tmp_path):
    tokenizers.load(chat, "chat", {"system": "Be short."}).save(str(tmp_path / "trained"))
    cfg, args = parsed(train_zero.Config)
    found = inputs.suited(cfg, str(tmp_path / "trained"), args)
    assert (found.template, found.grpo.lr) == ("auto", 1e-5)


def test_a_template_without_a_model_to_start_from_is_refused():
    for word in ("--template", "--template.system"):
        cfg, args = parsed(train_zero.Config, word, "chat")
        args.init = None
        with pytest.raises(UserError, match=f"{word} is for a model that --init names: drop it"):
            inputs.check_base(cfg, args)


def test_a_teacher_is_asked_as_it_was_trained(monkeypatch):
    seen = []
    monkeypatch.setattr(distill, "harvest", lambda *args: seen.append(args[4].asked))
    cfg, _ = parsed(distill.Config, "--template", "r1", "--template.system", "x")
    distill.teach(cfg, "teacher", "path")
    assert seen == [{"template": "auto", "template_args": {}}]


def test_a_run_goes_on_in_the_same_template(tmp_path):
    old = {"template": "chat", "template_args": {"system": "x"}}
    check_settings(old, old, "runs/x")
    for new in ({"template": "r1"}, {"template_args": {}}, {"template_args": {"budget": 1}}):
        with pytest.raises(UserError, match="use the same settings"):
            check_settings(old, old | new, "runs/x")
    check_settings({}, {"template": "auto", "template_args": {}}, "a run of an earlier version")
    with pytest.raises(UserError, match="was started with --template auto, not r1"):
        check_settings({}, {"template": "r1"}, "a run of an earlier version")


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


def test_a_reference_that_cannot_judge_is_refused(chat, world_tokenizer, tmp_path, monkeypatch):
    ours = str(tmp_path / "ours")
    world_tokenizer.save(ours)
    monkeypatch.setattr(inputs, "check_model", lambda folder, **_: None)
    shape = SimpleNamespace(cfg=ModelConfig())
    monkeypatch.setattr(inputs.GPT, "from_pretrained", lambda *_, **__: shape)

    def message(*words, base=None):
        cfg, _ = parsed(train_zero.Config, *words)
        with pytest.raises(UserError) as raised:
            inputs.check_reference(cfg, base)
        return str(raised.value)

    assert "needs --grpo.reference" in message("--grpo.algorithm", "on-policy-distillation")
    assert "set --grpo.kl_beta too" in message("--grpo.reference", ours)
    words = ("--grpo.reference", chat, "--grpo.kl_beta", "0.1")
    assert "has other tokens, or room for fewer, than" in message(*words, base=ours)
    cfg, _ = parsed(train_zero.Config, *words)
    inputs.check_reference(cfg, chat)
    inputs.check_reference(cfg, None)
    assert "add --grpo.ref_every 0" in message(*words, "--grpo.ref_every", "5")


def test_a_reference_has_room_for_whatever_is_said(world_tokenizer, tmp_path, monkeypatch):
    shapes = {"wide": ModelConfig(), "narrow": ModelConfig(vocab_size=1024)}
    shapes["short"] = ModelConfig(max_seq_len=32)

    def shape(folder, **_):
        return SimpleNamespace(cfg=shapes[os.path.basename(folder)])

    monkeypatch.setattr(inputs.GPT, "from_pretrained", shape)
    wide, narrow, short = (str(tmp_path / name) for name in shapes)
    for folder in (wide, narrow, short):
        world_tokenizer.save(folder)
    assert inputs.can_judge(wide, world_tokenizer) and inputs.can_judge(short, world_tokenizer)
    assert inputs.can_judge(wide, world_tokenizer, narrow)
    assert not inputs.can_judge(narrow, world_tokenizer, wide)
    assert not inputs.can_judge(short, world_tokenizer, wide)
