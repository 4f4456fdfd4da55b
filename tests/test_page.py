"""The page of a run, and the fixed problems whose answers it shows."""

import html.parser
import json
import os

import pytest
from conftest import run

import config
import grpo
import train_zero
import watch
from data import World, split_of
from lib import page
from model import GPT

CAUGHT = "buys 6 makes 1 check 1-6=-5 no again makes 11"
EVIL = "<script>alert(1)</script>&<b>\"'"
VOID = {"meta", "br"}


class Tags(html.parser.HTMLParser):
    """Fails where a tag is not closed in its turn; keeps all tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(folder):
    """The page's text, after what has to hold of every page."""
    with open(f"{folder}/report.html", encoding="utf-8") as f:
        text = f.read()
    tags = Tags(text).seen
    assert len(text.encode()) < 2e6 and "http:" not in text and "https:" not in text
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    assert not any("src" in attrs or "onclick" in attrs for _, attrs in tags)
    for tag, attrs in tags:
        assert tag != "a" or attrs["href"].endswith("/report.html")
    assert "prefers-color-scheme: dark" in text and "@import" not in text and "url(" not in text
    return text


def write_rows(folder, name, rows):
    with open(f"{folder}/{name}.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"stage": "zero"} | row) + "\n" for row in rows)


def write_json(folder, name, content):
    with open(f"{folder}/{name}.json", "w", encoding="utf-8") as f:
        json.dump(content, f)


def metrics(steps):
    values = {"accuracy": 0.25, "format": 0.5, "language_consistency": 1.0, "mean_length": 9.0}
    row = {f"{task}/{k}": v for task in ("sums", EVIL) for k, v in values.items()}
    return [{"step": i} | row | {"sums/accuracy": i / steps} for i in range(1, steps + 1)]


def answers(steps, response):
    row = {"task": "sums", "prompt": EVIL, "answer": EVIL, "response": response, "tokens": 9}
    row |= {"finished": True}
    return [{"step": i} | row | {"correct": ok} for i in steps for ok in (False, True)]


@pytest.fixture
def finished(tmp_path):
    """The folder of a run of 20 steps that has all files."""
    write_rows(tmp_path, "metrics", metrics(20))
    write_rows(tmp_path, "answers", answers((0, 10, 20), EVIL))
    said = {"task": "arithmetic", "prompt": "Tom has 5 eggs, buys 6.", "rewards": {"accuracy": 1.0}}
    texts = [f"5 at first, {CAUGHT}{EVIL}", "maybe 9"]
    write_rows(tmp_path, "samples", [{"step": 1, "response": text} | said for text in texts])
    told = {"command": f"python train_zero.py {EVIL}", "changed": {"grpo.lr": 0.1}, "steps": 20}
    write_json(tmp_path, "status", {"stage": "zero", "saved": 20, "finished": True} | told)
    write_json(tmp_path, "config", {"name": EVIL})
    names = "pass1 pass1_se cons passk format language_consistency mean_length reflection_words"
    report = dict.fromkeys(names.split(), 0.125) | {"task": "sums", "problems": 8, "k": 4}
    reports = [report | {"model": name} for name in ("base", EVIL)]
    write_json(tmp_path, "eval", {"reports": reports})
    parts = {"mode": 0.125, "finishing": 0.0, "sharpening": 0.25, "rest": -0.125}
    write_json(tmp_path, "gain", {"gains": {"sums": parts}})
    os.mkdir(tmp_path / "base")
    (tmp_path / "base" / "report.html").write_text("x")
    return tmp_path


def test_a_finished_run_s_page(finished, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "lib.page", str(finished))[0] == 0
    text = read(finished)
    assert text.count("<script") == 0 and "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    assert "finished after 20 steps" in text and "grpo.lr 0.1" in text
    assert "<td>5% → 90%</td>" in text and text.count("<figure>") == 4
    assert "<desc>&lt;script&gt;" in text and "sums: 5 at step 1, 90 at step 20</desc>" in text
    assert f"5 at first, <mark>{CAUGHT}</mark>&lt;script" in text
    assert "In 1 of the 2 saved responses" in text
    assert "<td>+25.0</td><td>+12.5</td><td>+0.0</td><td>+25.0</td><td>-12.5</td>" in text
    assert "12.5 ± 12.5" in text and 'href="base/report.html"' in text
    for step in (0, 10, 20):
        assert f"<b>{step}</b>" in text
    assert text.count("✗ wrong") == 3 and text.count("✓ right") == 3 + 1


def test_a_running_run_s_page_shows_what_is_there(finished):
    for name in ("eval.json", "gain.json", "answers.jsonl", "samples.jsonl"):
        os.remove(finished / name)
    write_json(finished, "status", {"stage": "zero", "saved": 0, "finished": False, "steps": 60})
    write_rows(finished, "metrics", metrics(3))
    page.write(str(finished))
    text = read(finished)
    assert "at step 3 of 60" in text and "Held-out" not in text and "same problems" not in text
    for name in ("eval.json", "gain.json", "status.json"):  # another program's
        (finished / name).write_text("[]")
    for name in ("answers.jsonl", "samples.jsonl"):
        (finished / name).write_text('{"a": 1}\n')
    page.write(str(finished))
    assert "Curves" in read(finished)
    os.truncate(finished / "metrics.jsonl", 0)  # as a run that begins again
    write_json(finished, "status", {"stage": "zero", "saved": 0, "finished": False, "steps": 60})
    page.write(str(finished))
    assert "at step 0 of 60" in read(finished)


def test_a_page_of_next_token_training_and_of_the_stages(tmp_path):
    write_rows(tmp_path, "metrics", [{"step": 1, "loss": 7.0}, {"step": 2, "loss": None}])
    page.write(str(tmp_path))
    assert ">nats<" in read(tmp_path)
    write_rows(tmp_path, "metrics", [{"step": 1, "loss": -0.5}, {"step": 2, "loss": -0.1}])
    page.write(str(tmp_path))  # as of requests, whose rewards have no accuracy
    assert "-0.5 at step 1" in read(tmp_path)
    os.remove(tmp_path / "metrics.jsonl")
    figures = {"a": 0.5, "a_cons": 1.0, "mean_length": 9.0}
    figures |= dict.fromkeys(page.report.STAGE_COLUMNS, 0.25)
    write_json(tmp_path, "stages", {"figures": {"base": figures, "r1": figures}})
    page.write(str(tmp_path))
    assert "50.0, 100.0" in read(tmp_path)


def test_a_long_run_s_page_stays_small(finished):
    write_rows(finished, "metrics", metrics(9000))
    write_rows(finished, "answers", answers(range(0, 9001, 10), EVIL * 4000))
    page.write(str(finished))
    text = read(finished)
    assert "(cut here)" in text and "<b>0</b>" in text and "<b>9000</b>" in text


def test_a_folder_without_a_run_is_an_error(tmp_path, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, "lib.page", str(tmp_path))
    assert status == 2 and "there is no run in" in err and err.count("\n") == 1


SMALL = "problems_per_step 2 group_size 2 max_new_tokens 6 save_every 4 steps 12 minibatches 1"


@pytest.fixture
def train(tiny_model, world_tokenizer, tmp_path, monkeypatch):
    """grpo.train() on a small model, into the folder of this name."""
    base, words = str(tmp_path / "base"), SMALL.split()
    tiny_model.save_pretrained(base)
    world_tokenizer.save(base)
    cfg = config.make(train_zero.Config)
    for key, value in zip(words[::2], words[1::2]):
        config.set_key(cfg, f"grpo.{key}", value)

    def train(name, resume=False, until=None, **more):
        def next_problems(step):
            if step == until:
                raise OSError("the power fails")
            return grpo.problems_in_order(cfg, step)

        return grpo.train(cfg, base, str(tmp_path / name), resume, "zero", next_problems, **more)

    return train


def rows(folder):
    with open(f"{folder}/answers.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_answers_change_nothing_and_survive_a_resume(train, tmp_path, capsys):
    whole, without = train("whole"), train("without", fixed=[])
    a, b = (GPT.from_pretrained(folder).state_dict() for folder in (whole, without))
    assert all(a[key].equal(b[key]) for key in a)
    assert not os.path.exists(tmp_path / "without" / "answers.jsonl")
    with pytest.raises(OSError, match="the power fails"):
        train("torn", until=11)  # after the answers of step 10, which no checkpoint has
    assert [r["step"] for r in rows(tmp_path / "torn")] == [0] * 3 + [10] * 3
    train("torn", resume=True)
    found = rows(tmp_path / "whole")
    assert rows(tmp_path / "torn") == found
    assert [r["step"] for r in found] == [0] * 3 + [10] * 3 + [12] * 3
    assert [r["task"] for r in found[:3]] == ["arithmetic", "countdown", "arithmetic"]
    assert len({r["prompt"] for r in found}) == 3
    text = read(tmp_path / "torn")
    assert "finished after 12 steps" in text and "<b>10</b>" in text
    assert "grpo.group_size 2" in text and "grpo.lr" not in text.split("All settings")[0]
    told = capsys.readouterr().err
    assert f"asked every ten steps: {found[0]['prompt']}\n" in told and "step 10, wrong: " in told


def test_answers_are_as_long_as_the_responses(tiny_model, world_tokenizer):
    cfg = config.make(train_zero.Config)
    cfg.grpo.max_new_tokens, cfg.grpo.doubled_from = 4, 2
    learner = grpo.Learner(tiny_model, world_tokenizer, cfg)
    learner.limit = 8  # as after step 2
    found = watch.answers(learner, watch.fixed_problems(cfg))
    assert max(r["tokens"] for r in found) == 8


def test_fixed_problems_are_held_out():
    cfg = config.make(train_zero.Config)
    found, cfg.seed = watch.fixed_problems(cfg), 1
    assert found == watch.fixed_problems(cfg)  # the same ones whatever the seed
    assert [(p.language, split_of(World.key(p))) for p in found] == [("en", "dev")] * 3
    cfg.grpo.tasks = ("general",)  # no answer is right there
    assert watch.fixed_problems(cfg) == []
