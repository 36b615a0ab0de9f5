"""A head fits the policy it drafts for: angles and context."""

from tests.unit.config.equipped import HEAD, TRUNK, write_config

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def test_a_context_stretched_by_yarn_is_as_long_as_vllm_takes_it(problems, folder):
    write_config(folder / "policy" / "config.json", TRUNK, rope_scaling=YARN)
    write_config(folder / "policy" / "mtp" / "config.json", HEAD, rope_scaling=YARN)
    assert problems("data.max_len=512") == []
    assert any("at most the model's context, 512 tokens" in text for text in problems("data.max_len=513"))


def test_a_policy_that_was_stretched_after_it_was_equipped_does_not_fit_its_head(problems, folder):
    write_config(folder / "policy" / "config.json", TRUNK, rope_scaling=YARN)
    (found,) = problems()
    assert "rope_type: the head has default, the policy yarn" in found
    write_config(folder / "policy" / "config.json", TRUNK, rope_theta=1e6)
    (found,) = problems()
    assert "rope_theta: the head has 10000.0, the policy 1000000.0" in found


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
    assert found.startswith(f"error: mtp.head: the head in {folder}/policy/mtp has a context of 40 tokens")
    assert "and data.max_len is 128: vLLM would draft nothing" in found
    assert problems("data.max_len=40") == []
