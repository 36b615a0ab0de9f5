"""`bench sync` on a tiny policy: real engines, both syncs in turn, and what their calls are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_mtp.bench.sync import OPENRLHF, RESULT
from tests.patience import seconds

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


def test_both_syncs_take_turns_with_their_calls_counted(tmp_path: Path) -> None:
    words = ["bench", "sync", "--smoke", "--engines", "2", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "openrlhf_mtp.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=seconds(400),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / RESULT).read_text())
    assert record["tensors"] == 26
    forms = record["forms"]
    assert set(forms) == {OPENRLHF, "gloo", "gloo, verified", "ipc", "ipc, verified"}
    assert forms.pop(OPENRLHF)["calls"] == [26 * 2], "a call a parameter and engine"
    for form in forms.values():
        assert form["calls"] == [2], "a call an engine"
        assert 0 < form["later"][0] < 60
    assert set(record["verified_over_plain"]) == {"gloo", "ipc"}
