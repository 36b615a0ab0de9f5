"""Set-up is reproducible: everything pinned, the package's own needs covered, one script for users and CI."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements"
CUDA_ONLY = {"torchvision", "torchaudio", "torchcodec", "flash-attn"}


def names(file: Path) -> dict[str, str]:
    """Package -> the rest of its line, without comments."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    parts = (re.match(r"([A-Za-z0-9._-]+)(.*)", line) for line in lines if line)
    return {re.sub(r"[-_.]+", "-", part[1]).lower(): part[2] for part in parts if part}


@pytest.mark.parametrize("lock", ["cpu", "test", "gpu"])
def test_every_package_of_a_lock_has_one_exact_version(lock):
    for name, rest in names(LOCK / f"{lock}.txt").items():
        assert re.fullmatch(r"(\[[a-z,]+\])?==[\w.+!]+", rest), name


EXTRA = sorted((ROOT / "examples").rglob("requirements.txt"))
LICENSE = re.compile(r"#.*\b(Apache-2\.0|MIT|BSD-3-Clause)\b")


@pytest.mark.parametrize("file", EXTRA, ids=lambda file: file.parent.name)
def test_what_an_example_installs_is_pinned_with_its_license_and_leaves_the_locks_alone(file):
    locked = names(LOCK / "cpu.txt") | names(LOCK / "test.txt") | names(LOCK / "gpu.txt")
    for name, rest in names(file).items():
        assert re.fullmatch(r"==[\w.+!]+( --hash=sha256:[0-9a-f]{64})?", rest), name
        assert locked.get(name, rest) == rest, f"{name}: another version than a lock's"
    lines = file.read_text(encoding="utf-8").splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        assert line.startswith("#") or LICENSE.search(line) or LICENSE.search(above), line


def test_the_cpu_lock_holds_nothing_that_needs_cuda_to_import():
    assert not CUDA_ONLY & set(names(LOCK / "cpu.txt"))
    assert not [name for name in names(LOCK / "cpu.txt") if name.startswith("nvidia-cu")]


@pytest.mark.parametrize("source", ["cpu", "test", "gpu"])
def test_the_lock_was_written_after_its_source_changed(source):
    cpu = {} if source == "gpu" else names(LOCK / "cpu.txt")
    locked = cpu | names(LOCK / f"{source}.txt")
    for name, rest in names(LOCK / f"{source}.in").items():
        assert name in locked, f"{name}: run make lock"
        version = rest.rpartition("==")[2] if "==" in rest else ""
        assert not version or locked[name] == f"=={version}", f"{name}: run make lock"


@pytest.mark.parametrize(("group", "lock"), [("dependencies", "cpu"), ("test", "test")])
def test_what_the_package_declares_is_locked(group, lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project[group] if group == "dependencies" else project["optional-dependencies"][group]
    locked = names(LOCK / "cpu.txt") | names(LOCK / f"{lock}.txt")
    wanted = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[]", text)[0]).lower() for text in declared}
    assert wanted <= set(locked)


def test_both_stacks_have_the_same_openrlhf():
    assert names(LOCK / "gpu.txt")["openrlhf"] == names(LOCK / "cpu.txt")["openrlhf"] == "==0.11.2"


@pytest.mark.parametrize(
    "script", [".ci/run", *(f"scripts/{p.name}" for p in sorted((ROOT / "scripts").glob("*.sh")))]
)
def test_a_script_is_valid_bash(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_continuous_integration_runs_what_a_user_runs():
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert (workflow["permissions"], job["permissions"]) == ({}, {"contents": "read"})
    steps = job["steps"]
    assert steps[-1]["run"] == "bash .ci/run"
    for step in steps:
        assert "uses" not in step or re.search(r"@[0-9a-f]{40}$", step["uses"]), "pin actions by commit"


def environment_of_scripts(tmp_path, **given):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "env.sh").write_text((ROOT / "scripts" / "env.sh").read_text(encoding="utf-8"))
    done = subprocess.run(
        ["bash", "-c", "set -eu; . scripts/env.sh; env"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)


def test_modules_are_compiled_once_whatever_the_container_says(tmp_path):
    assert "PYTHONDONTWRITEBYTECODE" not in environment_of_scripts(tmp_path, PYTHONDONTWRITEBYTECODE="1")


def test_every_cache_lies_in_the_checkout(tmp_path):
    settings = environment_of_scripts(tmp_path)
    for name in ("HF_HOME", "VLLM_CACHE_ROOT", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR"):
        assert settings[name].startswith(f"{tmp_path}/.cache/"), name
