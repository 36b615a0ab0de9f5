"""A secret in the values is said in the notes, and a setting that only sounds like one is not."""

import pytest

from helm.engine import ci_values, merged, render

BASE = ci_values("four-nodes")


def said(values):
    """The lines of the notes about secrets."""
    notes = render(merged(BASE, values)).notes
    return [line.removeprefix("  - ") for line in notes.splitlines() if "looks like a secret" in line]


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "my_api_key", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD_SECRET", "SSH_PRIVATE_KEY", "TOKEN"],
)
def test_a_secret_is_said_before_anything_else_is_left_open(name):
    values = {"trainer": {"extraEnv": [{"name": name, "value": "hf_abcdefgh"}]}}
    expected = (
        f"trainer.extraEnv: {name} looks like a secret, and whoever may read the release or its pods reads it; name a "
        "Secret with valueFrom.secretKeyRef, and change the secret."
    )
    assert said(values) == [expected]
    assert render(merged(BASE, values)).notes.partition("Left open\n")[2].startswith(f"  - {expected}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", "8192"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/var/run/gcp/key.json"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("HF_TOKEN", ""),
        ("USE_TOKEN", "True"),
        ("MAX_TOKEN", "-1"),
        ("MY_SECRET", "$(HF_TOKEN)"),
        ("MY_SECRET", "https://vault.example.com/v1/secret"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("SECRETARY", "anna"),
    ],
)
def test_a_setting_that_sounds_like_a_secret_is_none(name, value):
    assert said({"pods": {"extraEnv": [{"name": name, "value": value}]}}) == []


def test_a_reference_is_what_is_asked_for():
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    assert said({"pods": {"extraEnv": [{"name": "MY_TOKEN", "valueFrom": reference}]}}) == []


def test_a_password_in_an_address_is_a_secret_whatever_the_name():
    values = {"pods": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://me:word@proxy:3128"}]}}
    assert len(said(values)) == 1


def test_a_sidecars_environment_is_looked_at_too():
    sidecar = {"name": "sync", "image": "x", "env": [{"name": "S3_SECRET_KEY", "value": "abc"}]}
    (line,) = said({"rollout": {"extraContainers": [sidecar]}})
    assert line.startswith("rollout.extraContainers.sync: S3_SECRET_KEY looks like a secret")
