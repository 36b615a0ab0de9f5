"""`scripts/gpu_check.py`: whatever a part does, the others run and the result names it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.patience import seconds

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def part(gpu_check: Any, name: str, code: str, **changes: Any) -> Any:
    return gpu_check.Part(
        **{
            "name": name,
            "limit_s": seconds(30),
            "needs": (),
            "words": (sys.executable, "-c", code),
            "reading": gpu_check.last_line,
            **changes,
        }
    )


def outcomes(out: Path) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads((out / "gpu_check.json").read_text())}


def test_each_part_has_an_outcome_whatever_it_does(gpu_check: Any, tmp_path: Path) -> None:
    chosen = [
        part(gpu_check, "good", "print('one'); print('two | three')"),
        part(gpu_check, "bad", "print('why'); raise SystemExit(3)"),
        part(gpu_check, "absent", "", needs=("no_such_module",)),
        part(gpu_check, "asked", "", missing="give --policy"),
        part(gpu_check, "slow", "import time; time.sleep(1000)", limit_s=0.5),
        part(gpu_check, "after", "print('still there')"),
    ]
    assert gpu_check.check(chosen, tmp_path, seconds(60)) == 1
    found = outcomes(tmp_path)
    assert [one["state"] for one in found.values()] == [
        "passed", "failed", "skipped", "skipped", "out of time", "passed"
    ]  # fmt: skip
    assert found["bad"]["line"] == "why"
    assert found["absent"]["line"] == "no_such_module not installed"
    assert found["asked"]["line"] == "give --policy"
    rows = (tmp_path / "gpu_check.md").read_text().splitlines()
    assert rows[2].startswith("| good | passed |")
    assert rows[2].endswith("two / three |")
    assert len(rows) == 2 + len(chosen)


def test_without_a_gpu_nothing_else_is_tried(gpu_check: Any, tmp_path: Path) -> None:
    chosen = [
        part(gpu_check, "machine", "raise SystemExit('no GPU')", decides=True),
        part(gpu_check, "tests", "print(1)"),
    ]
    assert gpu_check.check(chosen, tmp_path, seconds(60)) == 1
    assert outcomes(tmp_path)["machine"]["line"] == "no GPU"
    assert outcomes(tmp_path)["tests"]["line"] == "without machine"


def test_what_a_part_leaves_running_ends_with_it(gpu_check: Any, tmp_path: Path) -> None:
    leave = (
        "import subprocess, sys; nap = 'import time; time.sleep(1000)';"
        "print(subprocess.Popen([sys.executable, '-c', nap], stdout=subprocess.DEVNULL).pid)"
    )
    gpu_check.check([part(gpu_check, "leaves", leave)], tmp_path, seconds(60))
    child, until = outcomes(tmp_path)["leaves"]["line"], time.monotonic() + seconds(10)
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False
    ).stdout
    return state.strip()[:1] not in ("", "Z")


def test_a_part_that_would_begin_without_time_is_skipped(gpu_check: Any, tmp_path: Path) -> None:
    assert gpu_check.check([part(gpu_check, "late", "print(1)")], tmp_path, 1.0) == 0
    assert outcomes(tmp_path)["late"]["line"] == "no time left"


def test_the_first_parts_ask_for_neither_engine_nor_deepspeed(gpu_check: Any) -> None:
    every = gpu_check.parts(None)
    needs = [set(one.needs) & {"vllm", "ray", "deepspeed", "openrlhf"} for one in every]
    assert not any(needs[:4])
    assert all(needs[4:])
    assert [one.name for one in every if one.missing] == ["decoding"]


def test_a_part_that_shows_nothing_has_not_passed(gpu_check: Any, tmp_path: Path) -> None:
    def tests(name: str, summary: str) -> Any:
        code = f"print('SKIPPED [2] a.py:1: needs a CUDA GPU'); print({summary!r})"
        return part(gpu_check, name, code, reading=gpu_check.tests_line)

    unread = part(gpu_check, "unread", "print(1)", reading=gpu_check.loss_line)
    chosen = [tests("some", "1 passed, 2 skipped in 3 s"), tests("none", "2 skipped in 3 s"), unread]
    assert gpu_check.check(chosen, tmp_path, seconds(60)) == 1
    found = outcomes(tmp_path)
    assert [one["state"] for one in found.values()] == ["passed", "skipped", "failed"]
    assert found["some"]["line"] == "1 passed, 2 skipped in 3 s; needs a CUDA GPU"
    assert found["unread"]["line"].startswith("its result cannot be read: FileNotFoundError")


def test_the_lines_read_what_the_measurements_write(gpu_check: Any, tmp_path: Path) -> None:
    form = {"seconds": [0.2, 0.1, 0.3], "extra_bytes": 2**30}
    kernels = [{"share": 0.81, "vocab": 151936}]
    loss = {"kernels": kernels, "forms": {"ours": form, "speculators": {"problem": "not installed"}}}
    (tmp_path / "bench_loss.json").write_text(json.dumps(loss))
    assert (
        gpu_check.loss_line(tmp_path, "") == "kernels reach 81% at 151,936 of a copy; ours 200 ms, 1.00 GiB"
    )
    head = {
        "forms": [{"form": "chain", "tokens": 8192, **form}, {"form": "step", "tokens": 32768, "seconds": []}]
    }
    (tmp_path / "bench_head.json").write_text(json.dumps(head))
    assert gpu_check.head_line(tmp_path, "") == "chain at 8,192: 0.200 s, 1.0 GiB"
    head["forms"][1]["problem"] = "out of memory"
    (tmp_path / "bench_head.json").write_text(json.dumps(head))
    assert gpu_check.head_line(tmp_path, "").endswith("; step at 32,768: out of memory")
    (tmp_path / "bench_sync.json").write_text(json.dumps({"forms": {"ipc": {"later": [0.5, 0.25, 1.0]}}}))
    assert gpu_check.sync_line(tmp_path, "") == "ipc 0.50 s"
