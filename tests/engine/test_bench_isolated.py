"""A form in a process of its own: its memory, its figures, and what is said when it cannot run."""

from __future__ import annotations

import os
import signal

import pytest

from openrlhf_mtp.bench.harness import UnavailableError
from openrlhf_mtp.bench.isolated import IsolatedForm, Prepared

MIB = 2**20


def _takes(mib: int) -> Prepared:
    runs = []

    def run() -> None:
        runs.append(len(b"x" * (mib * MIB)))

    return Prepared(run, lambda: {"runs": len(runs), "process": os.getpid()}, "cpu")


def _unavailable() -> Prepared:
    raise UnavailableError("it needs a GPU")


def _killed() -> Prepared:
    return Prepared(lambda: os.kill(os.getpid(), signal.SIGKILL), dict, "cpu")


def test_a_form_has_a_process_of_its_own_and_its_peak_is_that_of_all_its_runs() -> None:
    with IsolatedForm(_takes, 64) as form:
        assert min(form.run(), form.run()) > 0
        extra_bytes, figures = form.result()
    assert figures["runs"] == 2
    assert figures["process"] != os.getpid()
    assert 63 * MIB < extra_bytes < 96 * MIB


def test_a_form_that_cannot_run_says_why() -> None:
    with IsolatedForm(_unavailable) as form, pytest.raises(UnavailableError, match="it needs a GPU"):
        form.run()


def test_a_form_whose_process_is_killed_gives_its_exit_code() -> None:
    with IsolatedForm(_killed) as form:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="ended with exit code -9"):
                form.run()
