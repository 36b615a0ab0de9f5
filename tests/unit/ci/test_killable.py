"""A call that is given up ends at once and for good, also when the caller itself is killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ci.killable import killable
from helm.engine import ROOT, NameTakenError
from tests.patience import seconds

LATE_S = seconds(2.0)


@pytest.fixture(autouse=True)
def usual_interrupt():
    """A shell that starts a command in the background has it ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def write_late(path):
    path.with_suffix(".started").touch()
    time.sleep(LATE_S)
    path.touch()


def refuse(name):
    raise NameTakenError(f"{name} is in use")


def test_an_error_comes_back_as_it_was_raised():
    with pytest.raises(NameTakenError, match="mine is in use"):
        killable(refuse, "mine")


def test_a_process_that_is_killed_is_an_error():
    with pytest.raises(RuntimeError, match="_exit: its process ended with 3"):
        killable(os._exit, 3)


def test_a_signal_ends_the_wait_and_the_call(tmp_path):
    def cancel():
        wait_for(tmp_path / "late.started")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=cancel).start()
    with pytest.raises(KeyboardInterrupt):
        killable(write_late, tmp_path / "late")
    time.sleep(LATE_S + 1)
    assert not (tmp_path / "late").exists()


def test_the_call_does_not_outlive_a_caller_that_is_killed(tmp_path):
    script = tmp_path / "caller.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom ci.killable import killable\n"
        "from tests.unit.ci.test_killable import write_late\n"
        "if __name__ == '__main__':\n    killable(write_late, Path(sys.argv[1]))\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, str(script), str(tmp_path / "late")], env=environment)
    wait_for(tmp_path / "late.started")
    caller.kill()
    caller.wait()
    time.sleep(LATE_S + 1)
    assert not (tmp_path / "late").exists()


def wait_for(path, limit_s=60.0):
    end = time.monotonic() + seconds(limit_s)
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come within {limit_s:g} s"
        time.sleep(0.05)
