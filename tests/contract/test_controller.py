"""Our controllers on OpenRLHF's own methods: what is written, said and saved of a step, and how a run ends."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.config.errors import JobError
from tests.processes import in_fresh_process

STATUS = {"timing/generation": 1.0, "policy_loss": 0.1, "rollout/reward_mean": 0.5}


class Group:
    """The policy's ranks, which note what they are asked to save."""

    def __init__(self) -> None:
        self.saved: list[str] = []

    def async_run_method(self, method_name: str, **kwargs: Any) -> list[Any]:
        if method_name == "save_checkpoint":
            self.saved.append(kwargs["tag"])
        return [{}]


def controller(out: Path, alarms: dict[int, Any]) -> Any:
    """A synchronous controller between its start and its end, with engines that alarm at given steps."""
    import openrlhf.trainer.ppo_trainer as upstream

    from openrlhf_mtp.training.controller import loop as ours

    upstream.ray = ours.ray = SimpleNamespace(get=lambda refs: refs)
    made = object.__new__(ours.SyncController)
    monitor = SimpleNamespace(measure=lambda *_: {}, check=lambda step, row: alarms.get(step))
    made.args = SimpleNamespace(
        run=SimpleNamespace(run_folder=str(out), monitor_factory=lambda engines: monitor),
        ckpt=SimpleNamespace(save_steps=float("inf"), path=str(out / "checkpoints")),
        logger=SimpleNamespace(logging_steps=1),
        rollout=SimpleNamespace(max_new_tokens=64),
    )
    made.vllm_engines, made.actor_model_group, made.critic_model_group = [], Group(), None
    made.wandb_logger = made.tensorboard_logger = None
    made.best_eval_metric_key, made.best_eval_metric_value, made._latest_eval_metric_value = "", 0.0, None
    made.start_measuring(0)
    return made


def guarded(stops: bool) -> dict[str, Any]:
    """Three steps, the second with an alarm."""
    from openrlhf_mtp.rollout.guard import Alarm
    from openrlhf_mtp.runlog.notices import read_notices
    from openrlhf_mtp.runlog.run import read_run

    out = Path(tempfile.mkdtemp())
    made, ended = controller(out, {2: Alarm("collapsed", stops)}), ""
    try:
        for step in (1, 2, 3):
            made.save_logs_and_checkpoints(step, STATUS, {})
    except JobError as problem:
        ended = str(problem)
    return {
        "rows": [row["step"] for row in read_run(out).rows],
        "saved": made.actor_model_group.saved,
        "said": read_notices(out),
        "ended": ended,
    }


def cut(shares: list[float]) -> list[str]:
    """What is said of steps with these shares of cut responses."""
    from openrlhf_mtp.runlog.notices import read_notices

    out = Path(tempfile.mkdtemp())
    made = controller(out, {})
    for step, share in enumerate(shares, start=1):
        made.save_logs_and_checkpoints(step, {**STATUS, "rollout/truncated_rate": share}, {})
    return read_notices(out)


def ending(steps: int) -> str:
    """What a run of so many steps ends with, empty if with nothing."""
    made = controller(Path(tempfile.mkdtemp()), {})
    for step in range(1, steps + 1):
        made.save_logs_and_checkpoints(step, STATUS, {})
    try:
        made.finish_measuring()
    except JobError as problem:
        return str(problem)
    return ""


def look() -> dict[str, Any]:
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    return {
        "warns": guarded(stops=False),
        "stops": guarded(stops=True),
        "without a step": ending(0),
        "with one": ending(1),
        "few cut": cut([0.2, 0.49]),
        "most cut": cut([0.2, 0.87, 0.9]),
    }


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    return in_fresh_process(look)


def test_an_alarm_that_warns_is_said_and_the_run_continues(seen):
    assert seen["warns"] == {"rows": [1, 2, 3], "saved": [], "said": ["collapsed"], "ended": ""}


def test_a_stopping_alarm_writes_its_row_and_saves_a_checkpoint(seen):
    expected = {"rows": [1, 2], "saved": ["global_step2"], "said": ["collapsed"], "ended": "collapsed"}
    assert seen["stops"] == expected


def test_a_run_without_a_step_does_not_end_like_a_success(seen):
    assert "no step was trained" in seen["without a step"]
    assert seen["with one"] == ""


def test_responses_that_are_cut_are_said_once_when_they_are_most(seen):
    assert seen["few cut"] == []
    (text,) = seen["most cut"]
    assert text.startswith("87 % of the responses were cut at rollout.max_new_tokens = 64")
