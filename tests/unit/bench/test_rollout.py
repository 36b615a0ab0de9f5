import json
from typing import Any

import pytest
from rich.console import Console

from openrlhf_mtp.bench import rollout
from openrlhf_mtp.bench.rollout import Comparison, Speed
from openrlhf_mtp.bench.rollout_engine import Workload

ACCEPTANCE = {
    "spec/mean_acceptance_length": 2.5,
    "spec/acceptance_rate/depth_1": 0.8,
    "spec/acceptance_rate/depth_2": 0.5,
}
ROWS = [Comparison(4, Speed(4, (10.0, 12.0, 20.0), {}), Speed(4, (24.0, 30.0, 36.0), ACCEPTANCE))]
NOTE: dict[str, Any] = {
    "policy": "runs/quickstart/rl/final",
    "parameters": 270_000_000,
    "dtype": "bfloat16",
    "stand_in": "a stand-in: the policy's distributions at a larger model's cost",
    "device": "CPU, 2 threads",
    "vllm": "0.29.0",
}


def test_the_table_says_what_was_measured_and_that_it_is_a_stand_in() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rollout.render(ROWS, NOTE))
    text = console.export_text()
    assert "270M parameters, bfloat16, CPU, 2 threads, vLLM 0.29.0, temperature 1" in text
    assert "a stand-in" in text
    assert "2.50x │ 1.20-3.60" in text
    assert "0.80 0.50" in text


def test_the_record_keeps_every_repeat() -> None:
    record = rollout.to_json(ROWS, NOTE)
    json.dumps(record)
    (row,) = record["rows"]
    assert row["plain_tok_s"] == [10.0, 12.0, 20.0]
    assert row["ratio"] == pytest.approx(2.5)
    assert row["spec/mean_acceptance_length"] == 2.5


def test_the_ratio_is_that_of_the_medians_and_its_spread_the_extremes() -> None:
    row = Comparison(4, Speed(4, (10.0, 20.0, 12.0), {}), Speed(4, (24.0, 36.0, 30.0), {}))
    assert row.ratio.middle == pytest.approx(30 / 12)
    assert row.ratio.low == pytest.approx(24 / 20)
    assert row.ratio.high == pytest.approx(36 / 10)


def test_room_for_the_longest_prompt_and_its_response() -> None:
    assert Workload([[1], [1, 2, 3]], 64, []).longest == 67
