"""Whatever comes back from Ray after an interrupt is the interrupt, and the message says how to continue the run."""

import os
import signal
from pathlib import Path

import pytest
from ray.exceptions import RayActorError, RayTaskError

from openrlhf_mtp.cli.failures import how_to_continue, user_facing_errors
from openrlhf_mtp.cli.processes import Terminated, raise_on_sigterm, usual_sigterm
from openrlhf_mtp.config.errors import JobError


def test_workers_that_fail_after_an_interrupt_are_not_what_ended_the_run(tmp_path):
    def dying_workers() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 0)  # a bytecode at which the handler runs
        except KeyboardInterrupt:
            raise RayActorError from None

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="holds no checkpoint yet"), user_facing_errors(tmp_path):
        dying_workers()
    assert signal.getsignal(signal.SIGINT) is before


def test_workers_that_fail_after_sigterm_are_not_what_ended_the_run(tmp_path):
    def dying_workers() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            raise RayActorError from None

    with usual_sigterm():
        raise_on_sigterm()
        with pytest.raises(Terminated, match="holds no checkpoint yet"), user_facing_errors(tmp_path):
            dying_workers()


def test_sigterm_says_how_to_continue_as_an_interrupt_does(tmp_path):
    def within_ray_get() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            raise KeyboardInterrupt from None  # all that Ray lets through

    with usual_sigterm():
        raise_on_sigterm()
        with pytest.raises(Terminated, match="--overwrite"), user_facing_errors(tmp_path):
            within_ray_get()


def test_an_interrupt_says_which_checkpoint_it_continues_from(tmp_path):
    checkpoints = tmp_path / "checkpoints" / "_actor"
    checkpoints.mkdir(parents=True)
    (checkpoints / "latest").write_text("global_step10")
    with pytest.raises(KeyboardInterrupt) as end, user_facing_errors(tmp_path):
        raise KeyboardInterrupt
    assert str(end.value) == (
        f"{tmp_path} holds a checkpoint (global_step10); to continue from it, run the same command with --resume"
    )


def test_the_newest_checkpoint_counts(tmp_path: Path):
    for number, part in enumerate(("_critic", "_actor")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "latest").write_text(f"global_step{number}")
        os.utime(tmp_path / part / "latest", (number, number))
    assert "(global_step1)" in how_to_continue(tmp_path)


def test_what_another_attempt_would_end_with_too_keeps_its_words_and_its_exit_code(tmp_path):
    error = RayTaskError("fit", "traceback", JobError("no step was trained"))
    with pytest.raises(JobError, match=r"^no step was trained$"), user_facing_errors(tmp_path):
        raise RayTaskError("fit", "traceback", error)
