"""Where a job may come from, and what is said of a text that is no job."""

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import load_job
from tests.unit.config.conftest import SPECS

JOB = b"train: {seed: 7}\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: caf\xe9\n", r"job\.yaml, line 2: got the byte 0xe9, .* save the file as UTF-8"),
        ("a: 1".encode("utf-16"), r"job\.yaml, line 1: got UTF-16; save the file as UTF-8"),
        ("a: 1".encode("utf-16-le"), r"line 1: the character U\+0000.*save the file as UTF-8"),
        (b"\x89PNG\r\n\x1a\n", r"line 1: got the byte 0x89"),
        (b"\x1f\x8b\x08\0", r"line 1: got the byte 0x8b"),
        (b"a: 1\n\xed\xa0\x80: 2", r"line 2: got the byte 0xed"),
        (b"a: \x07", r"line 1: the character U\+0007"),
        (b"", "line 1: got nothing, expected sections such as `actor:`"),
        (b"# no more\n", "line 1: got nothing, expected sections"),
        (b"just words", "line 1: got 'just words', expected sections"),
        (b"[1, true]", r"line 1: got \[1, true\], expected sections"),
        (b"{}", r"line 1: got \{\}, expected sections"),
        (b"word " * 100_000, r"got 'word .{0,200}… \(\d+,\d+ characters\), expected sections"),
    ],
)
def test_a_text_that_is_no_job_is_refused_with_its_line(tmp_path, content, expected):
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(JobError, match=expected) as refusal:
        load_job(tmp_path / "job.yaml", [], SPECS)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.sh", "set -x\nray job submit -- python3 train.py \\\n  --actor.num_nodes 1\n"),
        ("job.yaml", "#!/bin/bash\nset -x\n"),
        ("job", "python3 -m openrlhf.cli.train_ppo_ray \\\n   --train.seed 1" + " \\\n --x 1" * 100_000),
    ],
)
def test_a_launch_script_is_sent_to_convert(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(
        JobError, match=f"a shell script .*; openrlhf-mtp convert .*{name} --out job.yaml"
    ) as refusal:
        load_job(tmp_path / name, [], SPECS)
    assert len(str(refusal.value)) < 400


def test_a_comment_about_the_script_does_not_make_a_job_one(tmp_path):
    (tmp_path / "job.yaml").write_text("# made from train_ppo_ray\ntrain: [1\n")
    with pytest.raises(JobError, match="is not valid YAML, line 3"):
        load_job(tmp_path / "job.yaml", [], SPECS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("none.yaml", "got none.yaml, which is not a file"),
        (".", r"got \., which is not a file"),
        ("/dev/zero", "got /dev/zero, which is not a file"),
        ("x" * 5000, r"got x{200}… \(5,000 characters\), which is not a file"),
        ("https://host/job.yaml", "got https://host/job.yaml, which is on the network; download it"),
    ],
)
def test_a_path_without_a_job_is_named(path, expected):
    with pytest.raises(JobError, match=expected):
        load_job(Path(path), [], SPECS)


def test_a_file_that_may_not_be_read_says_why(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_bytes(JOB)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the mode alone would not do
    with pytest.raises(JobError, match=r"job\.yaml, which cannot be read \(Permission denied\)"):
        load_job(tmp_path / "job.yaml", [], SPECS)


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(JOB)))
    assert load_job(Path("-"), [], SPECS).value("train.seed") == 7


def test_what_is_wrong_on_standard_input_is_said_of_it(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"train: [")))
    with pytest.raises(JobError, match="standard input is not valid YAML, line"):
        load_job(Path("-"), [], SPECS)


def test_a_pipe_is_read_as_the_shell_gives_it():
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, JOB), os.close(writing)))
    writer.start()
    assert load_job(Path(f"/dev/fd/{reading}"), [], SPECS).value("train.seed") == 7
    writer.join()
    os.close(reading)


def test_a_job_saved_by_windows_is_read(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbftrain:\r\n  seed: 7\r\n")
    assert load_job(tmp_path / "job.yaml", [], SPECS).value("train.seed") == 7


def test_ten_megabytes_of_comments_are_read(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"# a comment that says little\n" * 350_000 + JOB)
    assert load_job(tmp_path / "job.yaml", [], SPECS).value("train.seed") == 7


def test_more_than_a_job_could_be_is_not_read(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"#" * (33 << 20))
    with pytest.raises(JobError, match="more than 32 MiB"):
        load_job(tmp_path / "job.yaml", [], SPECS)
