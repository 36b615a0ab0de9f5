"""What ends the processes of a run is not disturbed by a second Ctrl-C or SIGTERM and finds those whose parent is gone;
how often memory is counted."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from openrlhf_mtp.cli.processes import (
    Terminated,
    adopted_orphans,
    end_descendants,
    raise_on_sigterm,
    sampling_interval_s,
    undisturbed,
    usual_sigterm,
)
from tests.processes import in_fresh_process


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


def orphans() -> dict[str, bool]:
    """In a process of its own, whose descendants are no other test's: what becomes of a child's child."""
    started = ["sh", "-c", "sleep 600 >/dev/null & echo $!"]
    with adopted_orphans():
        orphan = int(subprocess.run(started, stdout=subprocess.PIPE, check=True).stdout)
        adopted = psutil.Process(orphan).ppid() == os.getpid()
        ended = orphan in end_descendants(grace_s=0.0) and not psutil.pid_exists(orphan)
    outside = psutil.Process(int(subprocess.run(started, stdout=subprocess.PIPE, check=True).stdout))
    usual = outside.ppid() != os.getpid()
    outside.kill()
    return {"adopted": adopted, "ended": ended, "as usual after the context": usual}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="orphans are adopted on Linux")
def test_a_process_whose_parent_has_ended_is_ended_too():
    found = in_fresh_process(orphans)
    assert all(found.values()), found
