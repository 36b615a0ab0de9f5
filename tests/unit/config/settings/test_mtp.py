"""The mtp section: documented, immutable, and only combinations that make sense."""

import pytest
from pydantic import ValidationError

from openrlhf_mtp.config.reading.values import WrittenFloat, WrittenInt
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim, PretrainSettings
from openrlhf_mtp.config.settings.section import mtp_names
from openrlhf_mtp.config.settings.setting import Settings


def every_section(model: type[Settings]):
    yield model
    for info in model.model_fields.values():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            yield from every_section(info.annotation)


@pytest.mark.parametrize("section", list(every_section(MTPSettings)), ids=lambda section: section.__name__)
def test_every_field_has_help_text_and_a_unit(section):
    for name, info in section.model_fields.items():
        assert info.description, name
        assert "unit" in info.json_schema_extra, name


def test_settings_cannot_be_changed_behind_the_users_back():
    with pytest.raises(ValidationError, match="frozen"):
        MTPSettings().depths = 5


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        MTPSettings(depth=3)


def test_more_blocks_than_depths_are_refused_because_some_would_never_run():
    with pytest.raises(ValidationError, match="expected at most depths = 2"):
        MTPSettings(depths=2, num_blocks=3)


def test_a_guard_that_no_run_can_pass_is_refused():
    with pytest.raises(
        ValidationError, match=r"min_acceptance_length: got 4\.5, expected below depths \+ 1 = 4"
    ):
        MTPSettings(depths=3, guard={"min_acceptance_length": 4.5})


def test_pretraining_batches_must_divide_over_ranks():
    with pytest.raises(ValidationError, match=r"multiple of micro_batch_size \* num_ranks = 8 \* 3 = 24"):
        PretrainSettings(batch_size=64, micro_batch_size=8, num_ranks=3)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1)])
def test_decay_rates_outside_0_to_1_are_refused(betas):
    with pytest.raises(ValidationError, match="betas"):
        HeadOptim(betas=betas)


def test_one_changed_key_of_the_pretraining_optimizer_keeps_its_other_defaults():
    changed = MTPSettings(pretrain={"optim": {"lr": 5e-4}}).pretrain.optim
    assert changed.warmup_steps == PretrainSettings().optim.warmup_steps != HeadOptim().warmup_steps


def test_names_list_every_leaf_and_no_section():
    assert {"mtp.depths", "mtp.pretrain.optim.lr", "mtp.guard.patience"} <= set(mtp_names())
    assert "mtp.optim" not in mtp_names()


@pytest.mark.parametrize(
    ("given", "steps", "expected"),
    [
        ({}, 120, 60),
        ({"objective": "e2e_tv_sampled"}, 7, 3),
        ({"objective": {"ce": 0.5, "tv": 0.5}}, 10, 5),
        ({"objective": "ce"}, 120, 0),
        ({"objective": "kl"}, 120, 0),
        ({"kl_warmup_steps": 50}, 120, 50),
        ({"objective": "ce", "kl_warmup_steps": 9}, 120, 9),
        ({"kl_until_alpha": 0.6}, 120, 60),
    ],
)
def test_half_of_the_stage_warms_a_head_that_needs_it_unless_the_job_says_how_much(given, steps, expected):
    settings = PretrainSettings(**given).with_warmup(steps)
    assert settings.kl_warmup_steps == expected
    assert settings.model_copy(update={"kl_warmup_steps": None}) == PretrainSettings(
        **{**given, "kl_warmup_steps": None}
    )


def test_engine_arguments_are_plain_values_whatever_the_job_file_knew_of_their_text() -> None:
    given = {
        "kv_cache_dtype": "fp8",
        "compilation_config": {"level": WrittenInt("3")},
        "sizes": [WrittenFloat("1e3")],
    }
    rollout = MTPSettings.model_validate({"rollout": {"engine_args": given}}).rollout
    assert rollout.engine_args == {
        "kv_cache_dtype": "fp8",
        "compilation_config": {"level": 3},
        "sizes": [1000.0],
    }
    assert type(rollout.engine_args["compilation_config"]["level"]) is int
    assert type(rollout.engine_args["sizes"][0]) is float
    with pytest.raises(ValidationError, match="a mapping of names to values"):
        MTPSettings.model_validate({"rollout": {"engine_args": ["fp8"]}})
