"""A head fits the policy it drafts for: sizes, angles and context; check and engines ask the same rules."""

import pytest

from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.rollout.engine import engine_overrides
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config.equipped import HEAD, TRUNK, write_config

SPECS = flag_specs()

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def test_a_context_stretched_by_yarn_is_as_long_as_vllm_takes_it(problems, folder):
    write_config(folder / "policy" / "config.json", TRUNK, rope_scaling=YARN)
    write_config(folder / "policy" / "mtp" / "config.json", HEAD, rope_scaling=YARN)
    assert problems("data.max_len=512") == []
    assert any("at most the model's context, 512 tokens" in text for text in problems("data.max_len=513"))


def test_a_policy_that_was_stretched_after_it_was_equipped_does_not_fit_its_head(problems, folder):
    write_config(folder / "policy" / "config.json", TRUNK, rope_scaling=YARN)
    (found,) = problems()
    assert "rope_type default against the policy's yarn" in found
    write_config(folder / "policy" / "config.json", TRUNK, rope_theta=1e6)
    (found,) = problems()
    assert "rope_theta 10000.0 against the policy's 1000000.0" in found


def test_the_same_angles_in_the_old_and_the_new_form_fit(problems, folder):
    write_config(
        folder / "policy" / "config.json", TRUNK, rope_theta=1e6, rope_scaling={**YARN, "type": "yarn"}
    )
    parameters = {**YARN, "rope_theta": 1_000_000, "attention_factor": None}
    write_config(folder / "policy" / "mtp" / "config.json", HEAD, rope_parameters=parameters)
    assert problems() == []


def test_a_head_with_a_shorter_context_than_the_jobs_samples_is_refused(problems, folder):
    write_config(folder / "policy" / "mtp" / "config.json", HEAD, max_position_embeddings=40)
    (found,) = problems()
    assert found.startswith(f"error: mtp.head: got {folder}/policy/mtp with a context of 40 tokens")
    assert "at least data.max_len = 128" in found
    assert problems("data.max_len=40") == []


@pytest.mark.parametrize("objective", ["ce", "e2e_tv"])
@pytest.mark.parametrize("draft", ["probabilistic", "greedy"])
@pytest.mark.parametrize("verify", ["standard", "block", "synthetic"])
@pytest.mark.parametrize("speculate", ["true", "false"])
@pytest.mark.parametrize("regime", ["frozen", "detach"])
def test_the_engines_refuse_what_check_refuses_and_nothing_else(
    problems, folder, objective, draft, verify, speculate, regime
):
    """Every combination of the settings that both look at."""
    overrides = (
        f"mtp.objective={objective}",
        f"mtp.pretrain.objective={objective}",
        f"mtp.rollout.draft_sample_method={draft}",
        f"mtp.rollout.rejection_sample_method={verify}",
        f"mtp.rollout.speculate={speculate}",
        f"mtp.regime={regime}",
        "mtp.rollout.dtype=float32",
    )
    refused = [text for text in problems(*overrides) if text.startswith("error")]
    mtp = load_job(folder / "job.yaml", overrides, SPECS).mtp
    if not refused:
        engine_overrides(mtp, str(folder / "policy"))
        return
    with pytest.raises(JobErrors) as refusal:
        engine_overrides(mtp, str(folder / "policy"))
    assert [f"error: {text}" for text in refusal.value.problems] == refused
