"""A small set of flags with OpenRLHF's shapes, so that these tests do not depend on the installed version."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.reading.flag_spec import FlagSpec, FlagSpecs
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config import equipped

SPECS: FlagSpecs = {
    spec.name: spec
    for spec in (
        FlagSpec("actor.adam.lr", "float", default=1e-6),
        FlagSpec("actor.adam.betas", "float", nargs=2, default=(0.9, 0.95)),
        FlagSpec("actor.muon.nesterov", "switch", default=True, off_name="actor.muon.no_nesterov"),
        FlagSpec("actor.muon.no_nesterov", "switch", default=False, opposite="actor.muon.nesterov"),
        FlagSpec("actor.model_name_or_path", "str"),
        FlagSpec("algo.kl.estimator", "str", choices=("k1", "k2", "k3"), default="k1"),
        FlagSpec("algo.threshold", "float", nargs="+", default=(0.5, 5.0)),
        FlagSpec("data.input_template", "str"),
        FlagSpec("data.prompt_dataset", "str"),
        FlagSpec("ds.lora.target_modules", "str", nargs="*", default="all-linear"),
        FlagSpec("train.colocate_all", "switch", default=False),
        FlagSpec("train.always", "switch", default=True),
        FlagSpec("train.seed", "int", default=42),
        FlagSpec("vllm.num_engines", "int"),
    )
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Job]:
    """Write a job file and load it with overrides."""

    def write_and_load(text: str, *overrides: str) -> Job:
        file = tmp_path / "job.yaml"
        file.write_text(text, encoding="utf-8")
        return load_job(file, overrides, SPECS)

    return write_and_load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the job of `equipped` is right, as the current directory."""
    monkeypatch.chdir(tmp_path)
    equipped.fill(tmp_path)
    return tmp_path


@pytest.fixture
def problems(folder: Path) -> Callable[..., list[str]]:
    """Check that job with overrides and the installed OpenRLHF's flags; returns `level: text` of each problem."""

    def run(*overrides: str, gpus: int = 0, host: Host | None = None, **situation: object) -> list[str]:
        job = load_job(folder / "job.yaml", overrides, flag_specs())
        return [f"{c.level}: {c}" for c in check(JobContext(job, host or Host(gpus), **situation))]

    return run
