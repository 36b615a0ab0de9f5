"""Files beside a job that are not what they should be: each is named with what is wrong, and nothing else happens."""

import contextlib
import json

import pytest

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import model_shape, read_json, read_model_config
from openrlhf_mtp.config.rope import context_limit

CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe{\0}\0", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[1, true]", r"got \[1, true\], expected a JSON object"),
        (b"null", "got nothing, expected a JSON object"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(tmp_path, content, expected):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(JobError, match=expected):
        read_model_config(str(tmp_path))


def test_a_folder_where_a_config_belongs_is_refused(tmp_path):
    with pytest.raises(JobError, match="is not JSON"):
        read_json(tmp_path)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("value", ["many", 0, -1, 1.5, True, [64], {}, 10**12])
def test_a_size_that_is_none_is_named(name, value):
    with pytest.raises(
        JobError, match=rf"config\.json: {name}: got .*, expected a whole number of 1 or more"
    ):
        model_shape({**CONFIG, name: value})


@pytest.mark.parametrize("name", ["num_key_value_heads", "head_dim"])
def test_a_size_that_may_be_left_out_may_be_null(name):
    assert model_shape({**CONFIG, name: None}) == model_shape(CONFIG)
    with pytest.raises(JobError, match=f"{name}: got 'many'"):
        model_shape({**CONFIG, name: "many"})


def test_a_missing_size_is_named():
    with pytest.raises(JobError, match=r"no vocab_size; is it a causal language model\?"):
        model_shape({name: value for name, value in CONFIG.items() if name != "vocab_size"})


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": "four"},
        {"rope_type": "linear", "factor": [4]},
        {"rope_type": "linear", "factor": 0},
        {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": "many"},
        {"rope_theta": "large"},
    ],
)
def test_an_angle_that_is_no_number_is_named(rope):
    with pytest.raises(JobError, match=r"config\.json: \w+: got .*, expected a number above 0"):
        context_limit({"max_position_embeddings": 128, "rope_parameters": rope})


def test_any_json_in_a_config_is_read_or_refused(tmp_path):
    for value in ("text", 1, None, [], {}, [1], {"a": 1}, True, 1e300):
        for name in (
            *CONFIG,
            "rope_scaling",
            "rope_parameters",
            "max_position_embeddings",
            "tie_word_embeddings",
        ):
            (tmp_path / "config.json").write_text(json.dumps({**CONFIG, name: value}))
            config = read_model_config(str(tmp_path))
            assert config is not None
            with contextlib.suppress(JobError):  # an error of another kind would end the test here
                model_shape(config).policy_parameters()
                context_limit(config)
