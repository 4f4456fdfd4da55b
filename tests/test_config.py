import argparse

import pytest

import config


def parse(*argv, **kw):
    return config.parse(argparse.ArgumentParser(), argv=list(argv), **kw)[0]


def test_overrides_reach_their_section_with_their_type():
    cfg = parse("--grpo.lr", "1e-6", "--model.tie_embeddings=false", "--world.tasks", "countdown,arithmetic", "--model.q_lora_rank", "7", "--seed", "3")
    assert (cfg.grpo.lr, cfg.model.tie_embeddings, cfg.world.tasks, cfg.model.q_lora_rank, cfg.seed) == (1e-6, False, ("countdown", "arithmetic"), 7, 3)
    assert parse("--model.q_lora_rank", "none").model.q_lora_rank is None


def test_settings_may_stand_before_a_script_s_own_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    cfg, args = config.parse(parser, argv=["--grpo.lr", "1e-4", "folder", "--eval.k=3"])
    assert (cfg.grpo.lr, cfg.eval.k, args.model) == (1e-4, 3, "folder")


def test_presets_and_quick():
    assert parse().model.dim == 128 and parse("--config", "small").model.dim == 768
    cfg = parse("--quick", "--grpo.steps", "7", quick={"grpo.steps": 3, "sft.tokens": 5})
    assert (cfg.grpo.steps, cfg.sft.tokens) == (7, 5)  # a flag beats --quick
    for name in config.PRESETS:
        config.make(name)
    assert parse("--config", "x-1b", shapes={"x-1b": {"dim": 99}}).model.dim == 99


def test_an_algorithm_sets_what_the_command_line_leaves_open():
    cfg = parse("--algorithm", "dapo", "--grpo.dynamic", "1", "--quick", quick={"grpo.steps": 3}, algorithm=True).grpo
    assert (cfg.clip_high, cfg.average, cfg.overlong, cfg.dynamic, cfg.steps) == (0.28, "token", 0.2, 1, 3)
    assert parse("--config", "big", "--algorithm", "gspo", algorithm=True).grpo.kl_beta == 0.0
    assert parse("--config", "big", algorithm=True) == parse("--config", "big", "--algorithm", "grpo", algorithm=True) == parse("--config", "big")
    for name in config.ALGORITHMS:
        parse("--algorithm", name, algorithm=True)


@pytest.mark.parametrize("argv,message", [
    (("--algorithm", "dppo"), "there is no algorithm 'dppo'; the nearest is 'ppo'"), (("--grpo.overlong", "1.5"), "it is a share, between 0 and 1"),
    (("--grpo.ratio", "word"), "grpo.ratio is 'word'; use 'token' or 'sequence'"),
    (("--grpo.advantage", "rlo"), "use 'grpo', 'centred', 'rloo', 'batch' or 'gae'"), (("--grpo.dynamic", "-1"), "it must be at least 0"),
    (("--grpo.lrr", "1"), "there is no setting '--grpo.lrr'; the nearest is '--grpo.lr'"), (("--config", "tyni"), "the nearest is 'tiny'"),
    (("--grpo.steps", "many"), "--grpo.steps should be a int, not 'many'"), (("--grpo.steps",), "--grpo.steps needs a value"),
    (("--model.tie_embeddings", "maybe"), "should be a bool"), (("--model", "x"), "there is no setting '--model'"),
    (("--model.attention", "mlp"), "model.attention is 'mlp'"), (("--quik",), "the nearest is '--quick'")])
def test_mistakes_are_one_sentence_and_status_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv, quick={}, algorithm=True)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.count("\n") == 1


def test_every_key_is_known_and_nonsense_is_refused():
    cfg = config.make()
    assert {"seed", "model.dim", "world.direct", "sft.muon_lr", "grpo.clip_low", "rewards.format", "eval.k"} <= set(config.keys(cfg))
    for key, value in (("grpo.save_every", 0), ("eval.k", 0), ("world.mixed", 1.5), ("grpo.average", "foo"), ("r1.general", 2.0), ("r1.preference_steps", 99),
                       ("r1.cold_prompts", 0), ("preference.per_step", 0), ("distill.samples", 0), ("grpo.tasks", ("chess",)), ("grpo.kl", "k1"), ("grpo.objective", "ppo"), ("grpo.gae_lambda", 2.0), ("grpo.off_policy_mask", -1.0), ("model.qk_rope_head_dim", 7)):
        broken = config.make()
        config.set_key(broken, key, value)
        with pytest.raises(ValueError, match=key.split(".")[1]):
            config.check(broken)


def test_runs_with_other_models_have_folders_of_their_own():
    def folder(*argv):
        parser = config.Parser("")
        return config.folder("zero", *config.parse(parser, quick={"grpo.steps": 1}, argv=list(argv)))

    assert [folder(), folder("--quick"), folder("--config", "small"), folder("--config", "big", "--quick")] == ["runs/zero", "runs/zero-quick", "runs/zero-small", "runs/zero-big-quick"]
    parsed = [config.parse(config.Parser("a script"), quick={"grpo.steps": 1}, argv=argv) for argv in ([], ["--quick"])]
    assert [config.zero_folder("runs/r1-quick", *p) for p in parsed] == ["runs/zero", "runs/r1-quick/zero"]
