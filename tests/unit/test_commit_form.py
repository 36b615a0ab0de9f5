"""scripts/commit_form.py accepts the form of CONTRIBUTING.md and names every fault of another."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.commit_form import faults, main, rooms

KNOWN = {"losses", "docs", "tests", "all"}
BODY = "\n\nThe loss counted prompt tokens, which no engine drafts.\n"
SCRIPT = Path(__file__).parents[2] / "scripts" / "commit_form.py"


@pytest.mark.parametrize(
    "subject",
    [
        "losses: mask prompt tokens",
        "docs, tests: follow the moved files",
        "losses/kernels: keep tiles in reused memory",
        "all: spell the American way",
        "losses: OCC takes its proxy from log-probs",
        "losses: " + "x" * 64,
    ],
)
def test_a_subject_of_the_form_is_accepted(subject):
    assert faults(subject + BODY, KNOWN) == []


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Mask prompt tokens" + BODY, "expected `room: imperative`"),
        ("losses: " + "x" * 65 + BODY, "got 73 characters"),
        ("loses: mask prompt tokens" + BODY, "loses is no folder"),
        ("losses, dogs: mask prompt tokens" + BODY, "dogs is no folder"),
        ("losses: Mask prompt tokens" + BODY, "lower-case"),
        ("losses: mask prompt tokens." + BODY, "no period"),
        ("losses: mask prompt tokens", "body: missing"),
        ("losses: mask prompt tokens\n\n# a comment of git's\n", "body: missing"),
        ("losses: mask prompt tokens\nno blank line", "blank line"),
        ("losses: mask prompt tokens\n\n" + "word " * 15, "got a line of 74"),
        ("# nothing but comments\n", "subject: missing"),
    ],
)
def test_a_fault_is_named(message, fault):
    found = faults(message, KNOWN)
    assert len(found) == 1
    assert fault in found[0]


def test_reverts_addresses_and_the_diff_of_a_verbose_commit_are_let_be():
    assert (
        faults('Revert "Whatever it was called at the time, however long that was, and so on"', KNOWN) == []
    )
    assert faults("docs: link a page" + BODY + "https://example.com/" + "x" * 80, KNOWN) == []
    verbose = "# ------------------------ >8 ------------------------\ndiff " + "word " * 40
    assert faults("docs: link a page" + BODY + verbose, KNOWN) == []


def test_rooms_are_the_folders_of_this_checkout():
    assert {"losses", "sync", "tests", "helm", "github", "pyproject", "all"} <= rooms()


def git(folder, *words):
    who = ["-c", "user.name=n", "-c", "user.email=n@example.com"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)


def test_a_branch_is_judged_commit_by_commit_without_its_merges(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "Before the form")
    git(tmp_path, "checkout", "-q", "-b", "branch")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "docs: say it" + BODY)
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "Say something else")
    git(tmp_path, "checkout", "-q", "-b", "side", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "docs: say a third thing" + BODY)
    git(tmp_path, "checkout", "-q", "branch")
    git(tmp_path, "merge", "-q", "--no-ff", "-m", "Merge branch 'side'", "side")
    done = subprocess.run(
        [sys.executable, SCRIPT, "main..branch"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    wrong = git(tmp_path, "log", "--format=%h", "--grep=something else").stdout.strip()
    assert {line.partition(":")[0] for line in done.stderr.splitlines()} == {wrong}


def test_a_hook_gets_the_answer_as_an_exit_code(tmp_path, capsys):
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text("docs: say it" + BODY, encoding="utf-8")
    assert main([str(file)]) == 0
    file.write_text("Say it", encoding="utf-8")
    assert main([str(file)]) == 1
    assert "expected `room: imperative`" in capsys.readouterr().err
    assert main([]) == 2
