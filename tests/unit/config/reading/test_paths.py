"""Paths: absolute, with the home folder put in, wherever OpenRLHF or the mtp section takes one."""

from pathlib import Path

import pytest

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.paths import (
    DATASETS,
    FOLDERS,
    MODELS,
    OUTPUTS,
    SCRIPTS,
    absolute_path,
    too_long,
)


@pytest.mark.parametrize("name", OUTPUTS + FOLDERS + MODELS + DATASETS + SCRIPTS)
def test_the_home_folder_is_put_in_everywhere(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute_path(name, "~/x.jsonl") == "/home/me/x.jsonl"
    assert absolute_path(name, "~") == "/home/me"


@pytest.mark.parametrize("name", OUTPUTS + FOLDERS + MODELS)
def test_the_home_of_nobody_is_refused(name):
    with pytest.raises(
        JobError, match=rf"{name}: got '~nobody_at_all/x', expected a folder or ~ for your own home"
    ):
        absolute_path(name, "~nobody_at_all/x")


def test_a_tilde_elsewhere_is_a_letter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_path("ckpt.path", "a~b/~c") == f"{tmp_path}/a~b/~c"
    assert absolute_path("ckpt.path", "./~me") == f"{tmp_path}/~me"
    assert absolute_path("logger.wandb.run_name", "~/x") == "~/x"


@pytest.mark.parametrize("name", OUTPUTS + FOLDERS + MODELS + DATASETS + SCRIPTS)
@pytest.mark.parametrize("path", ["a" * 256, "/" + "a" * 5000, "./" + "ab/" * 2000])
def test_a_path_that_no_file_system_holds_is_refused(name, path):
    with pytest.raises(JobError, match=rf"{name}: got .* expected a path of at most 4000 bytes") as refusal:
        absolute_path(name, path)
    assert len(str(refusal.value)) < 300


def test_a_long_url_stays():
    url = "http://host/" + "a" * 300
    assert absolute_path("reward.remote_url", url) == url


def test_what_is_too_long_is_what_the_file_system_says(tmp_path):
    assert not too_long(tmp_path / ("a" * 255))
    (tmp_path / ("a" * 255)).touch()
    assert too_long(tmp_path / ("a" * 256))
    with pytest.raises(OSError, match="name too long"):
        Path(tmp_path / ("a" * 256)).exists()


def test_bytes_count_and_not_letters(tmp_path):
    assert too_long("é" * 128)
    assert not too_long("é" * 127)
