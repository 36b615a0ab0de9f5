"""The script of a run, run: with the package's commands replaced by ones that write down how they were called.

Only the count of attempts is the real one, and Ray is one that answers to its client's name and tells the job to stop.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from helm.engine import ROOT, ci_values, merged, render
from openrlhf_mtp.cluster import own_job
from openrlhf_mtp.cluster.attempts import NONE_LEFT
from tests.patience import seconds

RECORDER = """#!/bin/bash
[[ "$*" == *attempts* ]] && exec {python} "$@"
echo "CALL {name} $*"
case "$*" in
  *exporter*) exec sleep 60 ;;
  *preflight*) exit ${{PREFLIGHT:-0}} ;;
  train*) trap 'sleep 1.5; [[ -e "$RUN/.running" ]] && echo SAVED; exit 15' TERM
    [[ -e "$RUN/.stepping" ]] && echo STALE; touch "$RUN/.stepping"
    while [[ -n "${{WAIT:-}}" ]]; do sleep 0.1; done
    [[ -n "${{SAVES:-}}" ]] && {{ mkdir -p "$RUN/checkpoints/_actor/global_step$SAVES";
      cp "$0.pt" "$RUN/checkpoints/_actor/global_step$SAVES/mp_rank_00_model_states.pt"; }}
    [[ -e "$RUN/.running" ]] && echo ALIVE; echo '{{"steps": 3}}' > "$RUN/summary.json"; exit ${{TRAIN:-0}} ;;
  equip*) exit ${{EQUIP:-0}} ;;
esac
"""


RAY = """
import os, signal

class JobSubmissionClient:
    def __init__(self, address):
        assert address == "http://127.0.0.1:8265" == os.environ["RAY_API_SERVER_ADDRESS"]

    def stop_job(self, job_id):
        print("STOP", job_id, flush=True)
        for process in (os.getppid(), os.getpid()):
            os.kill(process, signal.SIGTERM)
        return True
"""


class Script:
    """run.sh of the CPU smoke run, in a folder of its own, with other values where they are given."""

    def __init__(self, folder, values=None):
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        (folder / "bin").mkdir()
        for name in ("python", "openrlhf-mtp"):
            command = folder / "bin" / name
            command.write_text(RECORDER.format(name=name, python=sys.executable), encoding="utf-8")
            command.chmod(0o755)
        with zipfile.ZipFile(folder / "bin" / "openrlhf-mtp.pt", "w") as weights:
            weights.writestr("data/0", b"0")
        (folder / "ray").mkdir()
        (folder / "ray" / "__init__.py").touch()
        (folder / "ray" / "job_submission.py").write_text(RAY, encoding="utf-8")
        text = render(merged(ci_values("cpu-smoke"), values or {})).of_kind("ConfigMap")[0]["data"]["run.sh"]
        self.path = folder / "run.sh"
        self.path.write_text(text.replace("/workspace", str(self.workspace)), encoding="utf-8")
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.defpath}",
            "HOME": str(folder),
            "PYTHONPATH": f"{folder}:{ROOT}",
            own_job.CONFIG: json.dumps({"metadata": {"job_submission_id": "run1-x"}}),
        }

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


def test_a_run_is_checked_prepared_trained_and_summed_up(script):
    code, output = script.run()
    assert code == 0
    order = [
        output.index(word)
        for word in ("preflight", "make_data", "equip", "pretrain", "CALL openrlhf-mtp train")
    ]
    assert order == sorted(order)
    # the exporter runs beside: when its words come is not the run's order
    lines = [line for line in output.splitlines() if "cluster.exporter" not in line]
    assert lines[-1] == 'summary: {"steps": 3}'


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
    script.run(train=1)
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
    script.run(train=1)
    own = re.search(r"ME=(\S+)", script.path.read_text(encoding="utf-8"))[1]
    (script.folder / ".running").write_text(f"{own}\n", encoding="utf-8")
    _, output = script.run()
    assert "waiting" not in output


def test_a_failure_keeps_trainings_code_and_a_retry_skips_prepare(script):
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


OPERATOR = {"backend": "rayjob", "job": {"retries": 1}}


def test_what_another_attempt_would_not_change_ends_as_a_job_that_was_stopped(tmp_path):
    script = Script(tmp_path, OPERATOR)
    code, output = script.run(train=2)
    assert code == 2
    *_, reason, stopped = output.splitlines()
    assert reason.startswith("attempts: the run has failed and is not started again: exit code 2 says that")
    assert stopped == "STOP run1-x"
    assert json.loads((script.folder / "failed.json").read_text(encoding="utf-8"))["exit_code"] == 2
    assert left_of(script) == []


def test_a_run_ends_as_a_job_that_was_stopped_once_it_makes_no_progress(tmp_path):
    script = Script(tmp_path, OPERATOR)
    for step in (1, 2, 3):
        code, output = script.run(train=1, saves=step)
        assert code == 1
        assert f"1 failed since checkpoint global_step{step}, job.retries=1" in output
        assert "STOP" not in output
    code, output = script.run(train=1)
    assert code == NONE_LEFT
    assert output.splitlines()[-1] == "STOP run1-x"
    code, _ = script.run()  # by a user who has seen to it: a new life
    assert code == 0


def test_a_run_started_again_after_success_holds_no_gpu(script):
    script.run()
    code, output = script.run()
    assert code == 0
    assert output.splitlines() == [
        "attempts: this run has succeeded before, in attempt 1; nothing is left to do",
        'summary: {"steps": 3}',
    ]


def test_a_hopeless_run_of_a_statefulset_says_so_by_its_exit_code_alone(tmp_path):
    script = Script(tmp_path, {"backend": "statefulset", "job": {"retries": 1}})
    codes, outputs = zip(*(script.run(train=1) for _ in range(2)), strict=True)
    assert codes == (1, NONE_LEFT)
    assert "STOP" not in "".join(outputs)


def test_without_a_shared_folder_only_what_cannot_change_is_ended(tmp_path):
    script = Script(tmp_path, merged(OPERATOR, {"storage": {"checkpoints": {"create": False}}}))
    outputs = [script.run(train=1) for _ in range(3)]
    assert [code for code, _ in outputs] == [1] * 3
    assert "STOP" not in "".join(output for _, output in outputs)
    assert script.run(train=2)[1].splitlines()[-1] == "STOP run1-x"


def test_a_checkpoint_is_progress_wherever_the_job_keeps_it(tmp_path):
    there = tmp_path / "elsewhere's"
    script = Script(tmp_path, merged(OPERATOR, {"job": {"overrides": [f"ckpt.path={there}"]}}))
    script.run(train=1)
    folder = there / "_actor" / "global_step3"
    folder.mkdir(parents=True)
    (folder / "mp_rank_00_model_states.pt").write_bytes((tmp_path / "bin" / "openrlhf-mtp.pt").read_bytes())
    code, output = script.run(train=1)
    assert code == 1
    assert "1 failed since checkpoint global_step3" in output


def test_a_volume_that_cannot_be_written_to_ends_the_run_before_it_begins(tmp_path):
    script = Script(tmp_path, OPERATOR)
    (script.workspace / "runs").touch(mode=0o400)  # nobody can make a folder in it, root included
    code, output = script.run()
    assert code == 2
    assert f"{script.workspace}/runs cannot be written to by uid {os.getuid()}" in output
    assert output.splitlines()[-1] == "STOP run1-x"
    assert calls(output, "") == []
