"""What ends the processes of a run is not disturbed by a second Ctrl-C or SIGTERM; how often memory is counted."""

import os
import signal

import pytest

from openrlhf_mtp.cli.processes import (
    Terminated,
    raise_on_sigterm,
    sampling_interval_s,
    undisturbed,
    usual_sigterm,
)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_is_ignored_while_processes_are_ended_and_only_then():
    usual = signal.getsignal(signal.SIGINT)
    with undisturbed():
        press()
    assert signal.getsignal(signal.SIGINT) is usual
    with pytest.raises(KeyboardInterrupt):
        press()


def test_sigterm_raises_within_its_context_and_is_ignored_while_processes_are_ended():
    usual = signal.getsignal(signal.SIGTERM)
    with usual_sigterm():
        raise_on_sigterm()
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is usual


def test_counting_pages_that_a_gpu_has_pinned_is_done_seldom():
    assert sampling_interval_s(has_cuda=True) >= 10 * sampling_interval_s(has_cuda=False)
