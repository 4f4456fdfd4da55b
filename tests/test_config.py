"""The command line: settings, presets, limits, and one sentence for each mistake."""

import json
import math
from dataclasses import asdict, dataclass, replace

import pytest

import config
import distill
import experiments.search
from algorithms import ALGORITHM_SETTINGS
from config import section
from experiments.search import SearchConfig
from lib.errors import UserError, sentence


@dataclass
class Everything(distill.Config):
    """All sections of all scripts."""

    search: SearchConfig = section(SearchConfig)


def parse(*argv, **kw):
    return config.parse(config.Parser(""), Everything, argv=list(argv), **kw)[0]


def test_overrides_reach_their_section_with_their_type():
    told = "--grpo.lr 1e-6 --model.tie_embeddings=false --world.tasks countdown,arithmetic"
    cfg = parse(*told.split(), "--model.q_lora_rank", "7", "--seed", "3")
    assert (cfg.grpo.lr, cfg.model.tie_embeddings) == (1e-6, False)
    assert cfg.world.tasks == ("countdown", "arithmetic")
    assert (cfg.model.q_lora_rank, cfg.seed) == (7, 3)
    assert parse("--model.q_lora_rank", "none").model.q_lora_rank is None


def test_settings_may_stand_before_a_script_s_arguments():
    parser = config.Parser("")
    parser.add_argument("model")
    argv = ["--grpo.lr", "1e-4", "folder", "--eval.k=3"]
    cfg, args = config.parse(parser, Everything, argv=argv)
    assert (cfg.grpo.lr, cfg.eval.k, args.model) == (1e-4, 3, "folder")


def test_presets_and_quick():
    assert parse().model.dim == 128 and parse("--config", "small").model.dim == 768
    quick = {"grpo.steps": 3, "sft.tokens": 5}
    cfg = parse("--quick", "--grpo.steps", "7", quick=quick)
    assert (cfg.grpo.steps, cfg.sft.tokens) == (7, 5)  # a flag beats --quick
    for name, values in config.PRESETS.items():
        cfg = config.make(Everything, name)
        assert set(values) <= set(config.keys(cfg))  # no preset names a setting that is not there
        config.check(cfg)
    assert parse("--config", "x-1b", shapes={"x-1b": {"dim": 96}}).model.dim == 96


def test_a_saved_run_s_settings(tmp_path):
    path = tmp_path / "config.json"
    saved = {"seed": 7, "grpo": {"steps": 9, "tasks": ["countdown"]}, "init": 123, "rows": None}
    path.write_text(json.dumps(saved))
    cfg = parse("--config", str(path), "--grpo.lr", "1")
    assert (cfg.seed, cfg.grpo.steps, cfg.grpo.tasks, cfg.grpo.lr) == (7, 9, ("countdown",), 1.0)
    assert cfg.model == parse().model


def test_what_a_chat_template_reads(tmp_path):
    words = ["--template.enable_thinking", "false", "--template.system=7", "--template.budget", "9"]
    cfg, _ = config.parse(config.Parser(""), Everything, argv=words)
    told = {"enable_thinking": False, "system": "7", "budget": 9}
    assert cfg.asked == {"template": "auto", "template_args": told}
    (tmp_path / "config.json").write_text(json.dumps(asdict(cfg)))
    argv = ["--config", str(tmp_path / "config.json")]
    assert config.parse(config.Parser(""), Everything, argv=argv)[0].asked == cfg.asked


def test_an_algorithm_sets_what_the_command_line_leaves_open():
    quick = {"grpo.steps": 3}
    argv = ["--algorithm", "dapo", "--grpo.average", "sequence", "--quick"]
    cfg = parse(*argv, quick=quick, algorithms=ALGORITHM_SETTINGS).grpo
    found = cfg.algorithm, cfg.clip_high, cfg.average, cfg.steps
    assert found == ("dapo", 0.28, "sequence", 3)
    big = ["--config", "big"]
    assert parse(*big, "--algorithm", "gspo", algorithms=ALGORITHM_SETTINGS).grpo.kl_beta == 0.0
    plain = parse(*big, algorithms=ALGORITHM_SETTINGS)
    assert plain == parse(*big, "--algorithm", "grpo", algorithms=ALGORITHM_SETTINGS) == parse(*big)
    for name in ALGORITHM_SETTINGS:
        parse("--algorithm", name, algorithms=ALGORITHM_SETTINGS)


def test_a_saved_run_by_another_algorithm(tmp_path):
    """Nothing of the saved one's stays."""
    saved = parse("--algorithm", "dapo", "--grpo.lr", "0.1", algorithms=ALGORITHM_SETTINGS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(saved)))
    argv = ["--config", str(path), "--algorithm", "grpo"]
    found = parse(*argv, algorithms=ALGORITHM_SETTINGS).grpo
    assert found == replace(parse().grpo, lr=0.1)


MISTAKES = [
    ("--algorithm dppo", "there is no algorithm 'dppo'; the nearest is 'ppo'"),
    ("--world.reasoned 1.5", "--world.reasoned is 1.5; it must be at least 0 and at most 1"),
    (
        "--grpo.average word",
        "--grpo.average is word; use one of question, token, sequence, constant",
    ),
    ("--grpo.rows -1", "it must be at least 0"),
    ("--grpo.lr nan", "--grpo.lr is nan; it must be a finite number"),
    ("--grpo.lrr 1", "there is no setting '--grpo.lrr'; the nearest is '--grpo.lr'"),
    ("--config tyni", "the nearest is 'tiny'"),
    ("--config no/config.json", "cannot read the settings in 'no/config.json'"),
    ("--grpo.steps many", "--grpo.steps is 'many'; it must be a whole number"),
    ("--grpo.steps", "--grpo.steps needs a value"),
    ("--model.tie_embeddings maybe", "it must be true or false"),
    ("--model x", "there is no setting '--model'"),
    ("--model.attention mlp", "model.attention is 'mlp'"),
    ("--quik", "the nearest is '--quick'"),
    ("--world.tasks arithmetic,,", "--world.tasks is empty; use one of"),
    ("--grpo.tasks=", "--grpo.tasks is empty; use one of"),
    ("--model.topk_groups -1", "--model.topk_groups is -1; it must be at least 1"),
    ("--model.vocab_size 99", "--model.vocab_size is 99; a trained tokenizer needs 265"),
    ("--grpo.lr " + "x" * 300, "it must be a number"),
]


@pytest.mark.parametrize("argv,message", MISTAKES)
def test_mistakes_are_one_sentence_and_status_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv.split(), quick={}, algorithms=ALGORITHM_SETTINGS)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.count("\n") == 1 and len(err) <= 201


def test_a_misspelt_setting_of_a_file_is_named(tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"grpo": {"lrr": 1}, "other": {"x": 1}, "init": 3}))
    with pytest.raises(SystemExit) as stop:
        parse("--config", str(path))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "settings.json': there is no setting '--grpo.lrr'" in err
    for wrong in ("modle", "seeed"):
        path.write_text(json.dumps({"grpo": {"lr": 1}, wrong: 3}))
        with pytest.raises(SystemExit):
            parse("--config", str(path))
        assert f"there is no setting '--{wrong}'" in capsys.readouterr().err
    path.write_text(json.dumps({"grpo": {"lr": 1}, "other": {"x": 1}, "init": 3}))
    assert parse("--config", str(path)).grpo.lr == 1


def test_plain_flags_have_limits_too(capsys):
    parser = config.Parser("")
    parser.add_argument("--top-p", type=config.number(float, above=0, high=1))
    parser.add_argument("--out", type=config.path)
    found = parser.parse_args(["--top-p", "0.5", "--out", "runs/a b"])
    assert (found.top_p, found.out) == (0.5, "runs/a b")
    for words in ("--top-p nan", "--top-p 0", "--top-p 2", "--top-p x", "--out=", "--out=a\0b"):
        with pytest.raises(SystemExit):
            parser.parse_args(words.split())
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "argument --" in err
    with pytest.raises(SystemExit):
        parser.parse_args(["--topp", "1"])
    assert "the nearest is '--top-p'" in capsys.readouterr().err


def test_a_long_error_keeps_its_end():
    name = "/".join(["folder"] * 40)
    told = sentence(f"cannot read\n'{name}': give another file")
    assert told.startswith("cannot read 'folder/") and told.endswith("folder': give another file")
    assert len(told) < 100 and sentence("x " * 300) == "x " * 98 + "x..."


NONSENSE = {
    "grpo.save_every": 0,
    "eval.k": 0,
    "world.mixed": 1.5,
    "grpo.average": "foo",
    "r1.general": -1.0,
    "r1.preference_steps": 99,
    "r1.cold_prompts": 0,
    "preference.per_step": 0,
    "distill.samples": 0,
    "grpo.tasks": ("chess",),
    "grpo.temperature": math.nan,
    "model.qk_rope_head_dim": 7,
    "search.samples": (4, 0),
    "eval.top_p": 0.0,
}


@pytest.mark.parametrize("key", NONSENSE)
def test_nonsense_is_refused(key):
    broken = config.make(Everything)
    config.set_key(broken, key, NONSENSE[key])
    with pytest.raises(ValueError, match=key.split(".")[1]):
        config.check(broken)


def test_help_shows_the_script_s_sections_with_their_comments(capsys):
    with pytest.raises(SystemExit):
        config.parse(config.Parser("what it does"), experiments.search.Config, argv=["--help"])
    out = capsys.readouterr().out
    assert "search:" in out and "--search.expansions 4" in out and "what it does" in out
    assert "--grpo." not in out and "--distill." not in out
    keys = config.keys(config.make(Everything))
    assert {"seed", "model.dim", "world.reasoned", "grpo.clip_low", "eval.k"} <= set(keys)
    with pytest.raises(SystemExit):
        config.parse(config.Parser(""), Everything, argv=["--help"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "--grpo.group_size" in line]
    assert "16" in line and "responses to each problem" in line


def test_runs_with_other_models_have_folders_of_their_own():
    def parsed(*argv):
        quick = {"grpo.steps": 1}
        return config.parse(config.Parser(""), Everything, quick=quick, argv=list(argv))

    told = [[], ["--quick"], ["--config", "small"], ["--config", "big", "--quick"]]
    folders = [config.run_folder("zero", *parsed(*argv)) for argv in told]
    assert folders == ["runs/zero", "runs/zero-quick", "runs/zero-small", "runs/zero-big-quick"]


@pytest.mark.parametrize("fault", [ValueError("too many values"), KeyError("x"), OSError("odd")])
def test_a_fault_of_the_code_is_no_sentence(fault):
    with pytest.raises(type(fault)), config.user_errors():
        raise fault


def test_traceback_shows_where_an_error_for_users_was_raised(monkeypatch, capsys):
    for words, kind in (([], SystemExit), (["--traceback"], UserError)):
        monkeypatch.setattr("sys.argv", ["x.py", *words])
        with pytest.raises(kind), config.user_errors():
            raise UserError("there is no file: give one")
    assert capsys.readouterr().err == "x.py: there is no file: give one\n"


def test_settings_that_differ_from_the_preset_s():
    cfg = config.make(Everything, "small")
    assert config.changed(cfg) == {}
    cfg.grpo.lr, cfg.world.tasks, cfg.seed = 0.5, ("logic",), 3
    assert config.changed(cfg) == {"seed": 3, "world.tasks": ("logic",), "grpo.lr": 0.5}
    cfg = config.make(Everything)
    cfg.name = "saved"  # of a run's config.json
    assert config.changed(cfg) == {"name": "saved"}


def test_flags_may_stand_between_what_they_are_not_of():
    parser = config.Parser("doc")
    parser.add_argument("model")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--k", type=int)
    args = parser.parse_args(["m", "--k", "3", "hello"])
    assert (args.model, args.k, args.prompt) == ("m", 3, "hello")
    args = parser.parse_args(["m", "--k", "3", "--", "-5+3?"])
    assert args.prompt == "-5+3?"
