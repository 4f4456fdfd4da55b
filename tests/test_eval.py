import json
import os
from dataclasses import replace

import pytest
from conftest import run

import eval as E
from data import Problem, World, WorldConfig
from lib import report
from lib.errors import UserError
from lib.progress import Progress
from tasks import responses

WORLD = World(0, WorldConfig())


def sample(problem, answer, correct):
    s = {"problem": problem, "response": "", "answer": answer, "correct": correct, "format": 1.0}
    s |= {"length": 10 + problem, "finished": correct, "language_consistency": 0.5}
    return s | {"reflection_words": 2}


def test_summary_by_hand():
    problems = [Problem("a", "1", "math"), Problem("b", "2", "math")]
    samples = [sample(0, a, a == "1") for a in ("1", "1", "5", None)]
    samples += [sample(1, a, a == "2") for a in ("3", "3", "2", "4")]
    r = E.summarise(problems, samples, 4)
    assert (r.pass1, r.cons, r.passk) == (pytest.approx(3 / 8), 0.5, 1.0)
    assert r.pass1_se == pytest.approx(0.125)
    assert r.pass_at[2] == pytest.approx((5 / 6 + 1 / 2) / 2) and list(r.pass_at) == [1, 2, 4]
    assert (r.mean_length, r.clipped) == (10.5, pytest.approx(5 / 8))
    assert (r.reflection_words, r.language_consistency) == (2, 0.5)
    text = E.table([("m", r)])
    assert "37.5 ± 12.5" in text and "cons@4" in text
    assert len({line.count("|") for line in text.split("\n")}) == 1


def general_report(qualities):
    samples = []
    for i, q in enumerate(qualities):
        more = {"helpfulness": q, "declined": q == 2, "harmful": i == 0}
        samples.append(sample(0, "1", 0) | more)
    return E.summarise([Problem("", "1", "general")], samples, len(qualities))


def test_figures_of_general_requests_by_hand():
    r = general_report((2, 1, 0, 2))
    assert r.helpfulness == pytest.approx(5 / 8) and r.declined_harmful == 1.0
    assert r.declined_harmless == pytest.approx(1 / 3)
    logic = E.summarise([Problem("", "1", "logic")], [sample(0, "1", True)], 1)
    assert logic.helpfulness is None
    assert "declines 100.0% of harmful, 33.3% of harmless requests" in report.of_requests(
        [("m", r)]
    )
    r.declined_harmful = r.follows = None  # of few requests none was harmful, or asked for a form
    told = "m: helpfulness 62.5%; declines 33.3% of harmless requests"
    assert report.of_requests([("m", r)]) == f"\n{told}"
    (row,) = report.table([("m", logic)]).split("\n")[2:]
    assert row.split("|")[3:5] == [" 1 ", " 100.0  "] and "±" not in row  # no error of one problem


def test_evaluate_scores_each_response_with_its_problem(
    tiny_model, world_tokenizer, tmp_path, monkeypatch
):
    """Batches are ordered by length; whatever the order, sample i belongs to problem i // k."""
    problems, seen = WORLD.problems("arithmetic", 10, "test"), []

    def verdicts(problems, answers):
        seen.extend(problems)
        return [True] * len(problems)

    monkeypatch.setattr(E.rw, "verdicts", verdicts)
    cfg = E.EvalConfig(k=3, rows=6, max_new_tokens=5)
    r = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    assert [s["problem"] for s in r.samples] == [i for i in range(10) for _ in range(3)]
    assert len(seen) == 30 + 10 and r.problems == 10 and r.pass1 == 1.0
    again = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    assert again.samples == r.samples  # seeded
    report.save_reports([("m", r)], str(tmp_path / "e.json"))
    with open(tmp_path / "e.json") as f:
        (row,) = json.load(f)["reports"]
    assert row["model"] == "m" and row["pass1"] == 1.0 and "samples" not in row


def test_thinking_that_is_begun_is_part_of_the_response(tiny_model, world_tokenizer, monkeypatch):
    """As if the model had written it; what follows is what it says after such a prompt."""
    problems, starts = WORLD.problems("arithmetic", 6, "dev"), []
    cfg = E.EvalConfig(k=1, temperature=0, max_new_tokens=5, begun=True)
    sampled, given = E.generate, []

    def generate(model, prompts, *args, **more):
        given.extend(prompts)
        return sampled(model, prompts, *args, **more)

    monkeypatch.setattr(E, "generate", generate)
    r = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    for p, s in zip(problems, r.samples, strict=True):
        first = f"<think>{p.tests['start']} at first" if p.language == "en" else "<think>起初"
        assert s["response"].startswith(first)
        starts.append(E.prompt_ids(p, world_tokenizer))
        starts[-1] += E.begin(p, world_tokenizer)
    assert sorted(given) == sorted(starts) and r.reasoned is not None
    assert all(s["length"] <= 5 for s in r.samples)  # what was begun is not counted
    plain = E.evaluate(tiny_model, world_tokenizer, problems, replace(cfg, begun=False))
    assert not any(s["response"].startswith("<think>") for s in plain.samples)


def test_a_task_need_not_say_how_those_who_reason_begin(world_tokenizer, monkeypatch):
    p = WORLD.problem("arithmetic", 0)
    tag = world_tokenizer.encode("<think>", trusted=True)
    assert len(E.begin(p, world_tokenizer)) > 1
    monkeypatch.delattr("tasks.arithmetic.opening")
    assert E.begin(p, world_tokenizer) == tag


def test_rows_that_generate_several_responses_change_none(tiny_model, world_tokenizer, monkeypatch):
    tiny_model.cfg.eos_ids = tuple(range(0, tiny_model.cfg.vocab_size, 12))
    problems, bars = WORLD.problems("arithmetic", 8, "test"), []
    cfg = E.EvalConfig(k=4, max_new_tokens=20, rows=32)
    at_once = E.evaluate(tiny_model, world_tokenizer, problems, cfg)
    monkeypatch.setitem(E.BATCHES_PER_CALL, "cpu", 16)

    def bar(*args, **kw):
        bars.append(Progress(*args, **kw))
        return bars[-1]

    monkeypatch.setattr(E, "Progress", bar)
    in_sequence = E.evaluate(tiny_model, world_tokenizer, problems, replace(cfg, rows=5))
    assert at_once.samples == in_sequence.samples
    assert len({s["length"] for s in in_sequence.samples}) > 5
    assert (bars[0].n, bars[0].total) == (32, 32)


MISUSED = [
    ("--rescore r.jsonl --out r.jsonl", "ends in .json"),
    ("--rescore r.jsonl --k 2", "--rescore takes problems"),
    ("m --limit 3", "--limit belongs to"),
    ("m --data d.jsonl --task code", "--task to the world's"),
    ("m --world.tasks general", "no rule can check"),
    ("m --eval.top_p 0", "--eval.top_p is 0"),
    ("m --k 0", "--k"),
    ("m --data d.jsonl --limit 0", "--limit"),
    ("m --out nowhere/e.json", "cannot write the file 'nowhere/e.json'"),
    ("", "name one or more model folders"),
]


@pytest.mark.parametrize("flags, message", MISUSED)
def test_flags_that_do_nothing_or_harm_are_refused(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "eval", *flags.split())
    assert status == 2 and message in err and err.count("\n") == 1 and not os.listdir(tmp_path)


def test_a_stopped_evaluation_goes_on_where_it_was(
    tiny_model, world_tokenizer, tmp_path, monkeypatch, capsys
):
    """A stop in the third of four batches; the responses are those of an evaluation left alone."""
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("m")
    world_tokenizer.save("m")
    flags = "m --task arithmetic --eval.problems 4 --k 2 --eval.rows 2 --eval.max_new_tokens 8"
    real, calls = E.generate, []

    def stop_in_the_third(*args, **kw):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kw)

    def evaluate(out, *more):
        return run(monkeypatch, capsys, "eval", *flags.split(), "--out", out, *more)

    assert evaluate("alone.json")[0] == 0
    monkeypatch.setattr(E, "generate", stop_in_the_third)
    status, _, err = evaluate("e.json")
    assert status == 130 and "--resume" in err and os.path.exists("e.stopped.jsonl")
    for more, message in (([], "add --resume"), (["--resume", "--seed", "1"], "--seed 0, not 1")):
        status, _, err = evaluate("e.json", *more)
        assert status == 2 and message in err and err.count("\n") == 1
    with open("e.stopped.jsonl", "a") as f:
        f.write('{"name": "m, arith')  # a crash while it was written

    def stop(*args, **kw):
        raise KeyboardInterrupt

    monkeypatch.setattr(E, "generate", stop)
    for _ in range(2):  # nothing is added to what was half written
        assert evaluate("e.json", "--resume")[0] == 130
    monkeypatch.setattr(E, "generate", stop_in_the_third)
    bars, progress = [], E.Progress
    monkeypatch.setattr(E, "Progress", lambda *a, **kw: bars.append(a) or progress(*a, **kw))
    assert evaluate("e.json", "--resume")[0] == 0 and len(calls) == 5
    ((total, _, _, done),) = bars
    assert (total, done) == (8, 4)  # what was there is no work of now
    with open("alone.jsonl") as a, open("e.jsonl") as b:
        assert a.read() == b.read()
    assert not os.path.exists("e.stopped.jsonl")
    assert evaluate("e.json", "--resume")[0] == 2


def test_an_evaluation_that_ended_between_its_files_goes_on(
    tiny_model, world_tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("m")
    world_tokenizer.save("m")
    asked = "--task logic --k 1 --eval.problems 2 --eval.max_new_tokens 4".split()
    with monkeypatch.context() as m:
        m.setattr(E.responses, "save", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(monkeypatch, capsys, "eval", "m", *asked)
    assert os.path.exists("eval.json") and not os.path.exists("eval.jsonl")
    assert "add --resume" in run(monkeypatch, capsys, "eval", "m", *asked)[2]
    status, out, _ = run(monkeypatch, capsys, "eval", "m", *asked, "--resume")
    assert status == 0 and "| logic " in out
    assert sorted(os.listdir()) == ["eval.json", "eval.jsonl", "m"]


def test_a_stopped_evaluation_may_go_on_with_other_rows(tiny_model, world_tokenizer, tmp_path):
    problems, stopped = WORLD.problems("arithmetic", 4, "test"), E.Journal(f"{tmp_path}/e.json", {})
    for rows in (2, 1):
        cfg = E.EvalConfig(k=1, max_new_tokens=4, rows=rows)
        report = E.evaluate(tiny_model, world_tokenizer, problems, cfg, journal=stopped)
        assert [s["problem"] for s in report.samples] == [0, 1, 2, 3]
        stopped = E.Journal(f"{tmp_path}/e.json", {}, True)


@pytest.mark.parametrize("content", [b"\xff\n", b"", b"[]\n", b'{"settings": 3}\n', b"{\n"])
def test_a_damaged_stop_is_named(content, tmp_path):
    path = tmp_path / "e.stopped.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: remove it and start without --resume"):
        E.Journal(str(tmp_path / "e.json"), {}, True)


def test_damaged_responses_are_named(tmp_path, capsys):
    line = {"model": "m", "k": 1, "question": {"prompt": "?", "answer": "3", "task": "math"}}
    line |= {"problem": 0, "response": "3", "length": 1, "finished": True}
    path = tmp_path / "eval.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert E.rescore(str(path))[0][1].pass1 == 1.0
    wrong = ({"k": 0}, {"k": "1"}, {"response": 3}, {"question": {}}, {"problem": 1}, {"k": 2})
    for change in wrong:
        path.write_text(json.dumps(line | change) + "\n")
        with pytest.raises(UserError, match=r"eval.jsonl(, line 1: not|: 1 responses of m)"):
            E.rescore(str(path))
    line["question"] |= {"task": "countdown", "tests": {"numbers": [3]}}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="line 1: not a response"):
        E.rescore(str(path))


def test_saved_responses_are_judged_again_without_the_model(tiny_model, world_tokenizer, tmp_path):
    tasks, cfg = (
        ("arithmetic", "countdown", "code", "general"),
        E.EvalConfig(k=2, max_new_tokens=20),
    )
    sets = [WORLD.problems(task, 4, "test") for task in tasks]
    rows = [("m", E.evaluate(tiny_model, world_tokenizer, problems, cfg)) for problems in sets]
    path = str(tmp_path / "eval.jsonl")
    responses.save(rows, sets, path)
    again = E.rescore(path)
    assert [name for name, _ in again] == ["m"] * 4 and [r for _, r in again] == [
        r for _, r in rows
    ]
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    for line in lines:  # the right answer, and a wrong verdict that was saved
        answer = line["question"]["answer"]
        line |= {"response": f"<think>a</think><answer>{answer}</answer>", "correct": False}
    with open(path, "w") as f:
        f.write("\n".join(map(json.dumps, lines)))
    assert [r.pass1 for _, r in E.rescore(path)] == [1.0, 1.0, 1.0, 0.0]
    for bad in ("{}", "[", json.dumps(lines[0] | {"question": {"prompt": 1}})):
        with open(path, "w") as f:
            f.write(json.dumps(lines[0]) + "\n" + bad)
        with pytest.raises(ValueError, match="line 2: not a response"):
            E.rescore(path)
    short = r"1 responses of m to 'arithmetic' are not 2 a problem"
    for text, message in (("", "holds no examples"), (json.dumps(lines[0]), short)):
        with open(path, "w") as f:
            f.write(text)
        with pytest.raises(ValueError, match=message):
            E.rescore(path)


def test_a_file_with_the_same_figures_stays_as_it_is(tmp_path):
    p, path = Problem("1+1?", "2", "math"), str(tmp_path / "eval.json")
    for answer, minutes, kept in ((2, 1, 1), (2, 3, 1), (3, 5, 5)):
        text = f"<think>a</think><answer>{answer}</answer>"
        r = E.summarise([p], E.score_texts([p], [(0, text, 5, True)]), 1)
        report.save_reports([("m", r)], path, minutes=minutes)
        with open(path) as f:
            assert json.load(f)["minutes"] == kept


def test_programs_are_judged_and_judged_again(tmp_path, monkeypatch, capsys):
    prompt = "def f(x):\n    'twice'\n"
    asserts = "def check(candidate):\n    assert candidate(2) == 4\ncheck(f)"
    tests = {"entry": "f", "prelude": prompt, "asserts": asserts}
    p = Problem(prompt, prompt + "    return 2 * x\n", "humaneval", tests=tests)
    texts = ["    return 2 * x\n", "    return x\n"]
    samples = E.score_texts([p], [(0, text, 5, True) for text in texts])
    rows = [("m", E.summarise([p], samples, 2))]
    # of two programs the first is the consensus
    assert (rows[0][1].pass1, rows[0][1].passk, rows[0][1].cons) == (0.5, 1.0, 1.0)
    path, out = str(tmp_path / "eval.jsonl"), str(tmp_path / "e.json")
    responses.save(rows, [[p]], path)
    assert E.rescore(path) == rows
    status, out, _ = run(monkeypatch, capsys, "eval", "--rescore", path, "--out", out)
    assert status == 0 and "programs run apart" in out and "50.0" in out


def test_an_evaluation_replaces_no_file(tiny_model, world_tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("m")
    world_tokenizer.save("m")
    problem = '{"question": "1+1?", "answer": "= 2\\n#### 2"}\n'
    (tmp_path / "math.jsonl").write_text(problem)
    words = ["m", "--data", "math.jsonl", "--k", "1", "--eval.max_new_tokens", "4"]
    status, _, err = run(monkeypatch, capsys, "eval", *words, "--out", "math.json")
    assert status == 2 and "'math.jsonl' is there already" in err
    assert (tmp_path / "math.jsonl").read_text() == problem
    for _ in range(2):
        assert run(monkeypatch, capsys, "eval", *words)[0] == 0
    assert {"eval.json", "eval.jsonl", "eval-2.json", "eval-2.jsonl"} <= set(os.listdir())
    status, _, err = run(monkeypatch, capsys, "eval", *words, "--resume")
    assert status == 2 and "there is no stopped evaluation here" in err
