import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from openrlhf_mtp.bench import loss
from openrlhf_mtp.bench.kernels import KernelSpeed, render_kernels
from openrlhf_mtp.bench.loss import Result
from openrlhf_mtp.bench.loss_forms import Workload
from openrlhf_mtp.config.errors import JobError

RESULTS = [
    Result("ours", (8.0, 9.0, 10.0), 90 * 2**20, 0.5, 0.1),
    Result("plain", (10.0, 12.0, 20.0), 1000 * 2**20, 0.5, 0.1),
    Result("speculators", problem="its fused loss needs a CUDA GPU"),
]
NOTE: dict[str, Any] = {
    "objective": "e2e_tv",
    "vocab": 151_936,
    "hidden": 1024,
    "tokens": 1024,
    "depths": 3,
    "dtype": "float32",
    "device": "CPU, 2 threads",
    "torch": "2.13.0",
}
KERNELS = [KernelSpeed(32_000, 16_777, 0.003, 2.5e12, 3.0e12, 0.004)]


def text_of(table: Table) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_the_table_shows_both_ratios_and_why_a_form_did_not_run() -> None:
    text = text_of(loss.render(RESULTS, NOTE))
    assert "vocabulary 151,936, hidden 1,024, 1,024 tokens, 3 depths" in text
    ours = next(line for line in text.splitlines() if "ours" in line)
    assert [cell.strip() for cell in ours.split("│")[1:-1]] == [
        "ours", "9.000", "0.75", "0.40-1.00", "90", "9.0%"
    ]  # fmt: skip
    assert "speculators: its fused loss needs a CUDA GPU" in text


def test_without_plain_there_is_no_ratio() -> None:
    plain = Result("plain", problem="its process ended with exit code -9")
    text = text_of(loss.render([RESULTS[0], plain], NOTE))
    assert "plain: its process ended with exit code -9" in text
    assert "0.75" not in text
    assert loss.to_json([RESULTS[0], plain], [], NOTE)["forms"]["plain"] == {"problem": plain.problem}


def test_the_kernels_table_shows_the_share_of_a_copy() -> None:
    text = text_of(render_kernels(KERNELS, NOTE))
    assert "83%" in text
    assert "4.00" in text


def test_the_record_keeps_every_repeat() -> None:
    record = loss.to_json(RESULTS, KERNELS, NOTE)
    json.dumps(record)
    ours = record["forms"]["ours"]
    assert ours["seconds"] == (8.0, 9.0, 10.0)
    assert ours["time_ratio"]["middle"] == pytest.approx(0.75)
    assert ours["memory_ratio"] == pytest.approx(0.09)
    assert record["kernels"][0]["share"] == pytest.approx(2.5 / 3.0)


def test_an_objective_without_a_plain_form_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="got 'nla', expected one that can be compared: e2e_tv, ce"):
        loss.bench_loss(tmp_path, Workload(objective="nla"))
