"""`check` and `rollout` answer alike, for every combination of the settings that both look at.

The contract has two parts that read disjoint arguments: how drafts are drawn and verified (`mtp`, how the job samples)
and whether the head fits (two configurations, `Wanted`). So each part is tried over its whole product, with the other
part once right and once wrong.
"""

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from openrlhf_mtp.config import head_contract
from openrlhf_mtp.config.checks import head, model, sampling
from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.head_contract.fit import WIDTHS
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.objectives import Objective
from openrlhf_mtp.config.problem import Problem
from openrlhf_mtp.config.settings.mtp import MTPSettings, RolloutSettings
from openrlhf_mtp.config.settings.regime import Regime
from openrlhf_mtp.rollout.engine import engine_overrides
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config import equipped

RULES = (model.policy, head.head_fits, sampling.distribution, sampling.drafts)
"""The checks that ask the contract."""


def values(settings: type, name: str) -> tuple[Any, ...]:
    """All values of a field: those of its Literal, or both of a switch."""
    annotation = settings.model_fields[name].annotation
    assert get_origin(annotation) is Literal or annotation is bool, f"{name} has no list of values"
    return (True, False) if annotation is bool else get_args(annotation)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    equipped.fill(tmp_path)
    # files are read once, and again after read_again()
    for name in ("read_json", "read_model_config"):
        monkeypatch.setattr(head_contract, name, functools.cache(getattr(head_contract, name)))
    return load_job(tmp_path / "job.yaml", [], flag_specs())


def read_again() -> None:
    """Forget what the files held."""
    for read in (head_contract.read_json, head_contract.read_model_config):
        read.cache_clear()  # type: ignore[attr-defined]


def checked(context: JobContext) -> set[Problem]:
    return {problem for rule in RULES for problem in rule(context)}


class Heard(logging.Handler):
    """What `rollout` logs."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: set[Problem] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.problems.add(record.args[0])  # type: ignore[index,arg-type]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    head_contract.logger.addHandler(handler)
    head_contract.logger.propagate = False
    yield handler
    head_contract.logger.removeHandler(handler)
    head_contract.logger.propagate = True


def answer_alike(context: JobContext, heard: Heard) -> bool:
    """Compare both answers word for word; whether the job is accepted.

    Engines that do not draft load no head, so `rollout` asks nothing: then check's answers are the trainer's.
    """
    assert context.mtp is not None
    heard.problems.clear()
    errors: set[str] = set()
    try:
        policy = str(context.job.value("actor.model_name_or_path"))
        engine_overrides(context.mtp, policy, context.sampling, trained=True)
    except JobErrors as refusal:
        errors = set(refusal.problems)
    if not context.mtp.rollout.speculate:
        assert not errors
        assert not heard.problems
        assert not list(head_contract.drafting_problems(context.mtp))
        return True
    found = checked(context)
    assert errors == {str(problem) for problem in found if problem.level == "error"}
    assert heard.problems == {problem for problem in found if problem.level == "warning"}
    return not errors


def test_over_all_ways_to_draw_and_verify_drafts(job: Job, heard: Heard, tmp_path: Path) -> None:
    accepted, tried = 0, 0
    ways = ways_to_draft()
    for temperature, top_p in product((0.0, 0.7), (0.9, 1.0)):
        sampled = job.with_flags(rollout__temperature=temperature, rollout__top_p=top_p)
        for mtp in ways:
            accepted += answer_alike(JobContext(replace(sampled, mtp=mtp), Host(0)), heard)
            tried += 1
    assert 0 < accepted < tried
    equipped.write_config(tmp_path / "policy" / "mtp" / "config.json", equipped.HEAD, hidden_size=128)
    read_again()
    contexts = [JobContext(replace(job, mtp=mtp), Host(0)) for mtp in ways if mtp.rollout.speculate]
    assert not any(answer_alike(context, heard) for context in contexts)


def ways_to_draft() -> list[MTPSettings]:
    """Every combination of speculation, both sampling methods, regime and both stages' objectives."""
    objectives = [*get_args(Objective), {"kl": 0.5, "e2e_tv": 0.5}, {"ce": 0.5, "kl": 0.5}]
    base = MTPSettings.model_validate({"rollout": {"dtype": "float32"}})
    stages = [base.pretrain.model_copy(update={"objective": objective}) for objective in objectives]
    rollouts = [
        base.rollout.model_copy(
            update={"speculate": speculate, "draft_sample_method": draft, "rejection_sample_method": verify}
        )
        for speculate, draft, verify in product(
            values(RolloutSettings, "speculate"),
            values(RolloutSettings, "draft_sample_method"),
            values(RolloutSettings, "rejection_sample_method"),
        )
    ]
    return [
        base.model_copy(
            update={"regime": regime, "objective": objective, "pretrain": pretrain, "rollout": rollout}
        )
        for regime, objective, pretrain, rollout in product(get_args(Regime), objectives, stages, rollouts)
    ]


def heads() -> Iterator[dict[str, Any]]:
    """A right head, and one for each way to misfit."""
    own = equipped.HEAD["mtp"]
    yield equipped.HEAD
    for width in WIDTHS:
        yield {**equipped.HEAD, width: 7}
    yield {**equipped.HEAD, "rope_theta": 5.0}
    yield {**equipped.HEAD, "max_position_embeddings": 64}
    yield {**equipped.HEAD, "architectures": ["Qwen2ForCausalLM"]}
    yield equipped.TRUNK
    for changes in (
        {"format": 2},
        {"trunk_model_type": "llama"},
        {"trunk_model_type": "glm4_moe"},
        {"depths": 2},
        {"num_layers": 2},
        {"depths": None},
        {"layout": "nobody's"},
        {"layout": "mimo"},
        {"trunk_model_type": "glm4_moe", "layout": "glm4_moe"},
    ):
        yield {**equipped.HEAD, "mtp": {**own, **changes}}


POLICIES = (
    equipped.TRUNK,
    {**equipped.TRUNK, "architectures": ["Qwen2ForCausalLM"]},
    {**equipped.TRUNK, "architectures": ["MiMoForCausalLM"]},
    {**equipped.TRUNK, "model_type": "glm4_moe", "num_nextn_predict_layers": 1},
    {**equipped.TRUNK, "model_type": "glm4_moe", "num_nextn_predict_layers": 2},
)


def test_over_all_heads_and_shapes_that_a_job_wants(job: Job, heard: Heard, tmp_path: Path) -> None:
    accepted, tried = 0, 0
    for policy, content in product(POLICIES, heads()):
        equipped.write_config(tmp_path / "policy" / "config.json", policy)
        equipped.write_config(tmp_path / "policy" / "mtp" / "config.json", content)
        read_again()
        for depths, blocks, max_len in product((2, 3, 4), (1, 2), (64, 256)):
            sized = job.with_flags(data__max_len=max_len)
            for speculate, verify in product(
                (True, False), values(RolloutSettings, "rejection_sample_method")
            ):
                rollout = RolloutSettings(
                    speculate=speculate, rejection_sample_method=verify, dtype="float32"
                )
                mtp = MTPSettings().model_copy(
                    update={"depths": depths, "num_blocks": blocks, "rollout": rollout}
                )
                accepted += answer_alike(JobContext(replace(sized, mtp=mtp), Host(0)), heard)
                tried += 1
    assert 0 < accepted < tried


@pytest.mark.parametrize(
    "gone", ["policy/config.json", "policy/mtp/config.json", "policy/mtp/model.safetensors"]
)
def test_over_all_files_that_may_be_missing(job: Job, heard: Heard, tmp_path: Path, gone: str) -> None:
    assert job.mtp is not None
    rollout = job.mtp.rollout.model_copy(update={"dtype": "float32"})
    drafting = replace(job, mtp=job.mtp.model_copy(update={"rollout": rollout}))
    assert answer_alike(JobContext(drafting, Host(0)), heard)
    (tmp_path / gone).unlink()
    read_again()
    assert not answer_alike(JobContext(drafting, Host(0)), heard)
