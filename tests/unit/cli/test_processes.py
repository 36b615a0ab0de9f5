"""What ends the processes of a run is not disturbed by a second Ctrl-C, and how often memory is counted."""

import os
import signal

import pytest

from openrlhf_mtp.cli.processes import sampling_interval_s, undisturbed


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_is_ignored_while_processes_are_ended_and_only_then():
    usual = signal.getsignal(signal.SIGINT)
    with undisturbed():
        press()
    assert signal.getsignal(signal.SIGINT) is usual
    with pytest.raises(KeyboardInterrupt):
        press()


def test_counting_pages_that_a_gpu_has_pinned_is_done_seldom():
    assert sampling_interval_s(has_cuda=True) >= 10 * sampling_interval_s(has_cuda=False)
