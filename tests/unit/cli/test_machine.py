"""What a run makes of its machine is decided once, recorded, and kept when the run is resumed."""

from pathlib import Path

import pytest

from openrlhf_mtp.cli import machine
from openrlhf_mtp.cli.machine import settle, this_machine
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.machine.precision import Speed
from openrlhf_mtp.runlog.run_folder import read_machine
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

SLOW_IN_BFLOAT16 = Host(0, cores=4, speed=Speed(4e-3, 1e-3))
FAST_IN_BFLOAT16 = Host(0, cores=2, speed=Speed(1e-3, 4e-3))


@pytest.fixture(autouse=True)
def no_choices_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def job(folder: Path, *overrides: str) -> Job:
    file = folder / "job.yaml"
    file.write_text(
        "actor: {num_gpus_per_node: 2}\nvllm: {num_engines: 1}\nmtp: {depths: 2}\n"
        "algo: {advantage: {estimator: group_norm}}\n"
    )
    return load_job(file, overrides, flag_specs())


def test_the_choice_and_what_it_rests_on_are_in_the_run_folder(tmp_path: Path) -> None:
    choice = settle(JobContext(job(tmp_path), SLOW_IN_BFLOAT16), tmp_path, resume=False)
    assert choice.precision.name == "fp32"
    assert read_machine(tmp_path) == {
        "ds.param_dtype": "fp32",
        "why": "products in bfloat16 take 4.0 times as long here",
        "speed": {"bfloat16_s": 4e-3, "float32_s": 1e-3},
        "cores": 4,
        "threads": {"engine": 4, "trainer": 2, "turns": True},
    }


def test_a_run_that_is_resumed_on_another_kind_of_machine_keeps_its_precision(tmp_path: Path) -> None:
    settle(JobContext(job(tmp_path), SLOW_IN_BFLOAT16), tmp_path, resume=False)
    resumed = settle(JobContext(job(tmp_path), FAST_IN_BFLOAT16), tmp_path, resume=True)
    assert resumed.precision.name == "fp32"
    assert resumed.trainer_threads == 1, "the threads are this machine's"
    assert read_machine(tmp_path)["ds.param_dtype"] == "fp32", "for the next time it is resumed"


def test_a_new_run_or_a_named_precision_ignores_the_earlier_choice(
    tmp_path: Path,
) -> None:
    settle(JobContext(job(tmp_path), SLOW_IN_BFLOAT16), tmp_path, resume=False)
    named = JobContext(job(tmp_path, "ds.param_dtype=bf16"), SLOW_IN_BFLOAT16)
    assert settle(named, tmp_path, resume=True).precision.name == "bf16"
    settle(JobContext(job(tmp_path), SLOW_IN_BFLOAT16), tmp_path, resume=False)
    fresh = settle(JobContext(job(tmp_path), FAST_IN_BFLOAT16), tmp_path, resume=False)
    assert fresh.precision.name == "bf16"


def test_the_machine_is_measured_only_where_the_job_leaves_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Speed(2.0, 1.0)
    monkeypatch.setattr(machine, "measure_speed", lambda: measured)
    monkeypatch.setattr(machine, "detect_host", lambda: Host(0))
    assert this_machine(job(tmp_path)).speed is measured
    assert this_machine(job(tmp_path, "ds.param_dtype=bf16")).speed is None
    monkeypatch.setattr(machine, "detect_host", lambda: Host(8))
    assert this_machine(job(tmp_path)) == Host(8)


def test_a_measurement_is_of_both_precisions_and_leaves_torchs_threads_alone() -> None:
    import torch

    threads = torch.get_num_threads()
    speed = machine.measure_speed()
    assert 0 < speed.bfloat16_s < 60
    assert 0 < speed.float32_s < 60
    assert torch.get_num_threads() == threads


def test_a_slow_moment_of_the_machine_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product of one precision but one is interrupted for long; what counts is what the machine can do."""
    import torch

    seconds = {torch.bfloat16: iter([5.0, 5.0, 1e-3] + [5.0] * 99), torch.float32: iter([2e-3] * 99)}
    monkeypatch.setattr(machine, "_product", lambda rows, dtype: lambda: dtype)
    monkeypatch.setattr(machine, "timed", lambda run: next(seconds[run()]))
    monkeypatch.setattr(machine, "ROWS", (64,))
    assert machine.measure_speed() == Speed(bfloat16_s=1e-3, float32_s=2e-3)
