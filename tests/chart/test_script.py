"""The script of a run, run: with the package's commands replaced by ones that write down how they were called."""

import os
import re
import signal
import subprocess
import time

import pytest

from helm.engine import render_ci
from tests.patience import seconds

RECORDER = """#!/bin/bash
echo "CALL {name} $*"
case "$*" in
  *exporter*) exec sleep 60 ;;
  *preflight*) exit ${{PREFLIGHT:-0}} ;;
  train*) trap 'sleep 1.5; [[ -e "$RUN/.running" ]] && echo SAVED; exit 15' TERM
    [[ -e "$RUN/.stepping" ]] && echo STALE; touch "$RUN/.stepping"
    while [[ -n "${{WAIT:-}}" ]]; do sleep 0.1; done
    [[ -e "$RUN/.running" ]] && echo ALIVE; echo '{{"steps": 3}}' > "$RUN/summary.json"; exit ${{TRAIN:-0}} ;;
  equip*) exit ${{EQUIP:-0}} ;;
esac
"""


class Script:
    """run.sh of the CPU smoke run, in a folder of its own."""

    def __init__(self, folder):
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        (folder / "bin").mkdir()
        for name in ("python", "openrlhf-mtp"):
            command = folder / "bin" / name
            command.write_text(RECORDER.format(name=name), encoding="utf-8")
            command.chmod(0o755)
        text = render_ci("cpu-smoke").of_kind("ConfigMap")[0]["data"]["run.sh"]
        self.path = folder / "run.sh"
        self.path.write_text(text.replace("/workspace", str(self.workspace)), encoding="utf-8")
        self.environment = {"PATH": f"{folder / 'bin'}:{os.defpath}", "HOME": str(folder)}

    def start(self):
        """A run that trains until it is ended, in a process group of its own."""
        return subprocess.Popen(
            ["bash", self.path],
            env={**self.environment, "WAIT": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def run(self, **codes):
        """(exit code, output)"""
        environment = {**self.environment, **{name.upper(): str(code) for name, code in codes.items()}}
        done = subprocess.run(
            ["bash", self.path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds(30),
        )
        return done.returncode, done.stdout

    @property
    def folder(self):
        (found,) = self.workspace.glob("runs/run1-*")
        return found


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


def calls(output, word):
    return [line for line in output.splitlines() if line.startswith("CALL") and word in line]


def test_a_run_is_checked_prepared_and_trained_and_its_log_ends_with_the_summary(script):
    code, output = script.run()
    assert code == 0
    order = [
        output.index(word)
        for word in ("preflight", "make_data", "equip", "pretrain", "CALL openrlhf-mtp train")
    ]
    assert order == sorted(order)
    assert output.splitlines()[-1] == 'summary: {"steps": 3}'


def test_a_run_says_that_it_lives_and_takes_that_back_at_its_end(script):
    _, output = script.run()
    assert "ALIVE" in output
    assert not (script.folder / ".running").exists()


def test_a_job_that_ray_ends_lives_until_the_driver_has_its_checkpoint(script):
    process = script.start()
    until_trained(script)
    os.killpg(process.pid, signal.SIGTERM)  # Ray sends it to every process of the job
    output, _ = process.communicate(timeout=seconds(30))
    assert "SAVED" in output
    assert process.returncode == 143
    assert left_of(script) == []


def test_a_run_does_not_step_before_its_controller_says_so(script):
    script.run()
    (script.folder / ".stepping").touch()  # an attempt that was killed
    _, output = script.run()
    assert "STALE" not in output
    assert left_of(script) == []


def until_trained(script):
    end = time.monotonic() + seconds(20)
    while not list(script.workspace.glob("runs/*/.stepping")):
        assert time.monotonic() < end
        time.sleep(0.05)


def left_of(script):
    return [name for name in (".running", ".stepping") if (script.folder / name).exists()]


def test_another_run_in_the_same_folder_is_waited_for_until_it_is_silent(script):
    script.run()
    running = script.folder / ".running"
    running.write_text("run1-other\n", encoding="utf-8")
    almost_silent = time.time() - 60 + seconds(1.5)  # the script must have started by then
    os.utime(running, (almost_silent, almost_silent))
    code, output = script.run()
    assert code == 0
    assert output.startswith(f"waiting for run1-other, which still runs in {script.folder}")
    assert not running.exists()


def test_a_retry_does_not_wait_for_the_attempt_before_it(script):
    script.run()
    own = re.search(r"ME=(\S+)", script.path.read_text(encoding="utf-8"))[1]
    (script.folder / ".running").write_text(f"{own}\n", encoding="utf-8")
    _, output = script.run()
    assert "waiting" not in output


def test_a_failed_run_ends_with_the_code_of_training_and_a_retry_does_not_prepare_again(script):
    code, output = script.run(train=3)
    assert code == 3
    assert "summary:" not in output
    assert not (script.folder / ".running").exists()
    code, output = script.run()
    assert code == 0
    assert output.count("prepared before:") == 3
    assert len(calls(output, "openrlhf-mtp train")) == 1


def test_a_preparation_that_fails_is_tried_again_and_the_ones_before_it_are_not(script):
    code, output = script.run(equip=1)
    assert code == 1
    assert calls(output, "pretrain") == []
    code, output = script.run()
    assert code == 0
    assert len(calls(output, "make_data")) == 0
    assert len(calls(output, "equip")) == 1


def test_a_cluster_that_cannot_run_costs_no_preparation(script):
    code, output = script.run(preflight=2)
    assert code == 2
    assert len(calls(output, "")) == 1
