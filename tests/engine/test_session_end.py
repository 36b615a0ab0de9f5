"""A command on Ray that is told to end does so in words, by its own exit code, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.rl_jobs import processes_of_session
from tests.patience import seconds

pytestmark = pytest.mark.alone

COMMAND = """
import sys
from pathlib import Path

from openrlhf_mtp.cli.failures import user_facing_errors
from openrlhf_mtp.cli.outcome import run_to_exit_code
from openrlhf_mtp.cli.ray_session import ray_session

def work(**_):
    out = Path(sys.argv[1])
    with ray_session(gpus=1, cache=out) as ray, user_facing_errors(out):
        @ray.remote
        def wait():
            (out / "waits").touch()
            while True:
                pass
        ray.get(wait.remote())

sys.exit(run_to_exit_code(work))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_session_in_words(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COMMAND, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + seconds(120)
    while not (tmp_path / "waits").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end, "Ray never started"
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=seconds(120))
    assert process.returncode == code, said[-3000:]
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    assert " ".join(said.split()).startswith(f"{word}: {tmp_path} holds no checkpoint yet"), said[-3000:]
    assert processes_of_session(process.pid) == []
