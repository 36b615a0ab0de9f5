"""`scripts/gpu_check.py` as far as a CPU can tell: its commands work, and its first parts need few packages."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import seconds

ROOT = Path(__file__).parents[2]
ABSENT = ("pydantic", "typer", "vllm", "ray", "deepspeed", "openrlhf")
"""A new GPU machine may have none of these."""
WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
COLLECT = """
import json, sys, pytest

class Collected:
    def pytest_collection_finish(self, session):
        self.names = [item.name for item in session.items]

found = {}
for name, words in json.loads(sys.argv[1]).items():
    seen = Collected()
    code = pytest.main([*words, "--collect-only", "-q"], plugins=[seen])
    found[name] = [int(code), seen.names]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("gpu_check_parts", ROOT / "scripts" / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check_parts"] = module
    spec.loader.exec_module(module)
    return {part.name: part for part in module.parts(None)}


def collected(parts: dict[str, Any], names: list[str], environment: dict[str, str]) -> dict[str, list[str]]:
    words = {name: parts[name].words[parts[name].words.index("pytest") + 1 :] for name in names}
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, json.dumps(words)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds(100),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: code for name, (code, _) in found.items()} == dict.fromkeys(names, 0), done.stdout
    return {name: items for name, (_, items) in found.items()}


def without_packages(folder: Path) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(WITHOUT)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_the_tests_of_a_gpu_need_neither_pydantic_nor_an_engine(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    items = collected(parts, ["GPU tests"], without_packages(tmp_path))["GPU tests"]
    assert len(items) > 90
    assert {"test_work_that_was_queued_before_is_not_charged"} <= set(items)


def test_the_parts_with_an_engine_run_the_tests_that_they_name(parts: dict[str, Any]) -> None:
    names = ["draft parity", "losslessness", "losslessness, blocks"]
    found = collected(parts, names, {})
    assert [len(found[name]) for name in names] == [1, 1, 1]
    assert all("as a job" in item and "V2" in item for name in names[:2] for item in found[name])


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["loss", "head, 8B shape"])
def test_the_measurements_run_without_pydantic_in_their_tiny_form(
    name: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    words = [word.replace("{out}", str(tmp_path / "out")) for word in parts[name].words]
    done = subprocess.run(
        words,
        env={**os.environ, **without_packages(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds(100),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = parts[name].reading(tmp_path / "out", done.stdout)
    assert ("ours" if name == "loss" else "chain at 64: ") in line
    if name != "loss":
        assert "step at 64: not installed (pip install pydantic)" in line
