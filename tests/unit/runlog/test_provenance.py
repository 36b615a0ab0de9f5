import subprocess
from pathlib import Path

import pytest

import openrlhf_mtp
from openrlhf_mtp.runlog import provenance


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_an_edit_in_any_room_is_told_with_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(openrlhf_mtp.__file__).parent == provenance.SOURCE
    monkeypatch.setattr(provenance, "SOURCE", tmp_path / "package")
    assert provenance.git_revision() == "unknown"
    file = tmp_path / "package" / "bench" / "loss.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    clean = provenance.git_revision()
    assert len(clean) == 40
    file.write_text("edited")
    assert provenance.git_revision() == f"{clean}+changes"
