import json
from pathlib import Path

import pytest

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout import engine
from openrlhf_mtp.rollout.environment import OWN_SYNC
from tests.unit.config.head_contract.equipped_folder import HEAD, POLICY, folders, settings


def test_the_draft_is_sampled_and_as_deep_as_the_job_says(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD) / "mtp"
    config = engine.speculative_config(MTPSettings(depths=5), root)
    assert config is not None
    assert config["num_speculative_tokens"] == 5
    assert config["draft_sample_method"] == "probabilistic"
    assert config["rejection_sample_method"] == "standard"
    assert (config["method"], config["model"]) == ("eagle", str(root))


def native_head(root: Path) -> Path:
    """A policy of a family whose head vLLM's own draft model runs."""
    native = {"trunk_model_type": "glm4_moe", "layout": "glm4_moe"}
    folders(root, {**HEAD, "mtp": {**HEAD["mtp"], **native}})
    policy = {**POLICY, "model_type": "glm4_moe", "num_nextn_predict_layers": 1}
    (root / "config.json").write_text(json.dumps(policy))
    return root


def test_vllms_own_draft_model_is_built_by_the_policy_and_waits_for_the_trainers_weights(
    tmp_path: Path,
) -> None:
    root = native_head(tmp_path)
    config = engine.engine_overrides(settings(), str(root), trained=True)["speculative_config"]
    assert config["method"] == "mtp"
    assert "model" not in config
    assert config["draft_load_config"] == {"load_format": "dummy"}
    assert config["draft_sample_method"] == "probabilistic"


def test_vllms_own_draft_model_is_refused_where_nobody_sends_weights(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match="a head that vLLM's own draft model runs, expected one of our draft class"
    ):
        engine.engine_overrides(settings(), str(native_head(tmp_path)))


def test_without_speculation_no_head_is_needed(tmp_path: Path) -> None:
    overrides = engine.engine_overrides(settings(speculate=False), str(tmp_path))
    assert overrides["speculative_config"] is None


def test_limits_reach_the_engine_only_when_set(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    assert "max_num_seqs" not in engine.engine_overrides(settings(), str(root))
    limited = engine.engine_overrides(settings(max_num_seqs=8, kv_cache_gib=0.5), str(root))
    assert limited["max_num_seqs"] == 8
    assert limited["kv_cache_memory_bytes"] == 2**29


def test_a_jobs_own_arguments_reach_the_engine_beside_ours(tmp_path: Path) -> None:
    root = str(folders(tmp_path, HEAD))
    tuned = engine.engine_overrides(settings(engine_args={"kv_cache_dtype": "fp8"}), root)
    assert tuned["kv_cache_dtype"] == "fp8"
    assert tuned["worker_extension_cls"] == OWN_SYNC["worker_extension_cls"]
    with pytest.raises(JobErrors, match=r"engine_args\.max_logprobs: got 5, expected nothing"):
        engine.engine_overrides(settings(engine_args={"max_logprobs": 5}), root)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_scheduling_is_vllms_choice_unless_the_job_makes_it(asynchronous: bool, tmp_path: Path) -> None:
    root = str(folders(tmp_path, HEAD))
    assert "async_scheduling" not in engine.engine_overrides(settings(), root)
    chosen = engine.engine_overrides(settings(async_scheduling=asynchronous), root)
    assert chosen["async_scheduling"] is asynchronous


def test_the_log_prob_of_the_sampled_token_is_always_asked_for(tmp_path: Path) -> None:
    overrides = engine.engine_overrides(settings(), str(folders(tmp_path, HEAD)))
    assert overrides["logprobs_mode"] == "processed_logprobs"
    assert overrides["max_logprobs"] == 1
    assert overrides["disable_log_stats"] is False


def test_an_engine_that_would_corrupt_drafted_text_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_next"}')
    arguments = {"model": str(tmp_path), "enable_prefix_caching": True}
    engine.require_exact_caching({**arguments, "speculative_config": None})
    with pytest.raises(JobErrors, match=r"vllm\.enable_prefix_caching: got true, expected false"):
        engine.require_exact_caching({**arguments, "speculative_config": {"method": "mtp"}})
