"""Workflows ask for no more than they need, pin what they use, and are what GitHub and GitLab understand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helm.engine import ROOT

TOOLS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CONFIG = ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"
TEMPLATE = ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md"
GITLAB = ROOT / "ci" / "gitlab.yml"
BENCHMARK = yaml.safe_load((ROOT / ".github" / "workflows" / "benchmark.yml").read_text(encoding="utf-8"))
NODE_24 = {"actions/checkout": 5, "actions/upload-artifact": 6}
"""The first major version of an action that runs on Node 24: GitHub retires Node 20."""


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_zizmor_finds_nothing():
    done = run(TOOLS / "zizmor", "--offline", "--no-progress", "--persona", "auditor", *WORKFLOWS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.gitlab-ci", [GITLAB]),
        ("vendor.github-issue-forms", [path for path in FORMS if path != CONFIG]),
        ("vendor.github-issue-config", [CONFIG]),
    ],
    ids=["GitHub", "GitLab", "issue forms", "issue chooser"],
)
def test_a_workflow_fits_its_schema(schema, files):
    done = run(TOOLS / "check-jsonschema", "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*FORMS, TEMPLATE], ids=lambda path: path.stem)
def test_a_form_names_pages_and_files_that_are_there(path):
    named = re.findall(r"`([\w./-]+\.(?:md|yaml))`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_permission_but_to_read_and_ends_in_time(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 180


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_pinned_by_commit_and_runs_on_node_24(path):
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    for line in used:
        action, major = re.fullmatch(r"([\w/-]+)@[0-9a-f]{40}  # v(\d+)\.\d+\.\d+", line).groups()
        assert int(major) >= NODE_24[action], line


def test_one_image_by_digest_stands_for_a_bare_machine_everywhere():
    texts = [path.read_text(encoding="utf-8") for path in [*WORKFLOWS, GITLAB]]
    images = re.findall(r"(?:container|image): (\S+)", "\n".join(texts))
    assert len(images) == 6
    assert len(set(images)) == 1
    assert re.fullmatch(r"debian:12@sha256:[0-9a-f]{64}", images[0])


def test_the_benchmark_runs_nightly_and_on_a_label_and_no_fork_sees_the_cluster():
    triggers = BENCHMARK[True]  # YAML 1.1 reads `on` so
    assert triggers["schedule"][0]["cron"]
    assert triggers["pull_request"] == {"types": ["labeled"]}
    assert "github.event_name != 'pull_request'" in BENCHMARK["jobs"]["cluster"]["if"]
    assert "github.event.label.name == 'benchmark'" in BENCHMARK["jobs"]["local"]["if"]


def test_what_the_clusters_job_needs_is_named_as_the_job_reads_it():
    text = (ROOT / ".github" / "workflows" / "benchmark.yml").read_text(encoding="utf-8")
    comment = " ".join(line.strip(" #") for line in text.splitlines() if line.strip().startswith("#"))
    assert set(re.findall(r"vars\.(\w+)", text)) == set(
        re.findall(r"variable (\w+) .* of the repository", comment)
    )
    assert set(re.findall(r"secrets\.(\w+)", text)) == set(re.findall(r"secret (\w+)", comment))


def benchmark_words(commands):
    """Options and files of the one command that runs the benchmark, which another may follow."""
    words = " ".join(commands).replace("\\", " ").partition("ci.benchmark")[2].partition(".venv/")[0].split()
    return {word for word in words if word.startswith("--") or ("/" in word and "$" not in word)}


def test_both_systems_run_the_same_commands():
    gitlab = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
    for job in ("local", "cluster"):
        steps = [step.get("run", "") for step in BENCHMARK["jobs"][job]["steps"]]
        assert benchmark_words(steps) == benchmark_words(gitlab[f"benchmark:{job}"]["script"]) != set()


def test_the_submitting_machine_gets_the_locked_versions():
    locked = [
        line
        for name in ("cpu", "test")
        for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    ]
    lines = (ROOT / "ci" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(line in locked for line in lines if not line.startswith("#"))
