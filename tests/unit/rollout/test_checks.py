import json
from pathlib import Path
from typing import Any

import pytest

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout import checks, engine

POLICY = {"model_type": "qwen2", "hidden_size": 64, "vocab_size": 100}
HEAD = {
    "architectures": ["EagleMTPDraft"],
    "hidden_size": 64,
    "vocab_size": 100,
    "mtp": {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"},
}


def settings(**rollout: Any) -> MTPSettings:
    return MTPSettings.model_validate({"rollout": {"dtype": "float32", **rollout}})


def folders(root: Path, head: dict[str, Any]) -> Path:
    (root / "mtp").mkdir()
    (root / "config.json").write_text(json.dumps(POLICY))
    (root / "mtp" / "config.json").write_text(json.dumps(head))
    return root


def test_drafts_that_would_not_follow_the_policy_are_refused() -> None:
    """The rule is `config.checks.sampling`'s; here it is that engines ask for it."""
    with pytest.raises(JobErrors, match="got synthetic, expected standard"):
        checks.require_lossless(settings(rejection_sample_method="synthetic"))


def test_what_only_costs_speed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    mtp = MTPSettings.model_validate(
        {
            "objective": "ce",
            "pretrain": {"objective": "ce"},
            "rollout": {"draft_sample_method": "greedy"},
        }
    )
    checks.require_lossless(mtp)
    assert "acceptance falls as entropy grows" in caplog.text


def test_the_default_job_is_lossless_and_silent(caplog: pytest.LogCaptureFixture) -> None:
    checks.require_lossless(MTPSettings())
    assert caplog.text == ""


def test_a_fitting_head_is_let_pass(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    checks.require_head_fits(root, root / "mtp", MTPSettings())


def test_every_mismatch_is_named_with_both_values(tmp_path: Path) -> None:
    mtp = {**HEAD["mtp"], "trunk_model_type": "llama", "num_layers": 2}
    root = folders(tmp_path, {**HEAD, "hidden_size": 128, "vocab_size": 99, "mtp": mtp})
    with pytest.raises(JobErrors) as caught:
        checks.require_head_fits(root, root / "mtp", MTPSettings())
    message = str(caught.value)
    assert "hidden_size 128 against the policy's 64" in message
    assert "vocab_size 99 against the policy's 100" in message
    assert "model_type llama against the policy's qwen2" in message
    assert "mtp.num_layers: got 1, expected the head's own number of blocks, 2" in message


def test_an_ordinary_model_is_not_a_head(tmp_path: Path) -> None:
    root = folders(tmp_path, {**POLICY, "architectures": ["Qwen2ForCausalLM"]})
    with pytest.raises(JobErrors, match="expected a head written by openrlhf-mtp equip"):
        checks.require_head_fits(root, root / "mtp", MTPSettings())


def test_a_missing_head_names_the_folder_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(POLICY))
    with pytest.raises(JobError, match=r"mtp/config\.json does not exist; run `openrlhf-mtp equip`"):
        checks.require_head_fits(tmp_path, tmp_path / "mtp", MTPSettings())


def test_the_draft_is_sampled_and_as_deep_as_the_job_says(tmp_path: Path) -> None:
    config = engine.speculative_config(MTPSettings(depths=5), tmp_path)
    assert config is not None
    assert config["num_speculative_tokens"] == 5
    assert config["draft_sample_method"] == "probabilistic"
    assert config["rejection_sample_method"] == "standard"
    assert config["model"] == str(tmp_path)


def test_without_speculation_no_head_is_needed(tmp_path: Path) -> None:
    overrides = engine.engine_overrides(settings(speculate=False), str(tmp_path))
    assert overrides["speculative_config"] is None


def test_limits_reach_the_engine_only_when_set(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    assert "max_num_seqs" not in engine.engine_overrides(settings(), str(root))
    limited = engine.engine_overrides(settings(max_num_seqs=8, kv_cache_gib=0.5), str(root))
    assert limited["max_num_seqs"] == 8
    assert limited["kv_cache_memory_bytes"] == 2**29


def test_the_log_prob_of_the_sampled_token_is_always_asked_for(tmp_path: Path) -> None:
    overrides = engine.engine_overrides(settings(), str(folders(tmp_path, HEAD)))
    assert overrides["logprobs_mode"] == "processed_logprobs"
    assert overrides["max_logprobs"] == 1
    assert overrides["disable_log_stats"] is False
