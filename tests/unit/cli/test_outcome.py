"""However a command ends, it ends in words: no traceback on the terminal, and the exit code says whose fault it was."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_mtp.cli.outcome import INTERRUPTED, RUN_FAILED, TERMINATED, run_to_exit_code
from openrlhf_mtp.cli.processes import Terminated
from openrlhf_mtp.cli.usage import App
from openrlhf_mtp.config.errors import USER_ERROR


def ends(problem: BaseException | int) -> int:
    """The exit code of an app that raises, or returns."""

    def app(**_: object) -> int:
        if isinstance(problem, BaseException):
            raise problem
        return problem

    return run_to_exit_code(app)


def test_an_error_of_the_program_is_said_and_its_traceback_kept(capsys):
    assert ends(ZeroDivisionError("division by zero")) == RUN_FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: ZeroDivisionError: division by zero This is a bug in openrlhf-mtp")
    assert "Traceback" not in said
    file = Path(re.search(r"traceback is in (\S+\.log)", said)[1])
    assert "ZeroDivisionError: division by zero" in file.read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted\n"),
        (
            KeyboardInterrupt("runs/x holds a checkpoint"),
            INTERRUPTED,
            "interrupted: runs/x holds a checkpoint\n",
        ),
        (Terminated("runs/x holds a checkpoint"), TERMINATED, "terminated: runs/x holds a checkpoint\n"),
        (
            OSError(28, "No space left on device", "runs/x"),
            RUN_FAILED,
            "error: no space left to write: runs/x;",
        ),
        (
            PermissionError(13, "Permission denied", "job.yaml"),
            USER_ERROR,
            "error: job.yaml: permission denied",
        ),
        (0, 0, ""),
        (USER_ERROR, USER_ERROR, ""),
    ],
)
def test_what_the_machine_refuses_is_said(capsys, problem, code, said):
    assert ends(problem) == code
    assert capsys.readouterr().err.startswith(said)


def test_an_interrupt_keeps_its_words_on_the_way_through_typer(capsys, monkeypatch):
    app = App()

    @app.command()
    def work() -> None:
        raise KeyboardInterrupt("half of it stands")

    monkeypatch.setattr(sys, "argv", ["work"])
    assert run_to_exit_code(app) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted: half of it stands\n"


def test_sigterm_is_told_from_an_interrupt_under_every_name(capsys, monkeypatch):
    app = App()

    @app.command()
    def work() -> None:
        try:
            raise Terminated
        except KeyboardInterrupt as end:
            raise KeyboardInterrupt("in stage 2") from end

    monkeypatch.setattr(sys, "argv", ["work"])
    assert run_to_exit_code(app) == TERMINATED == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "terminated: in stage 2\n"


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "openrlhf_mtp", *words],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def test_the_package_is_the_command():
    done = command("--version")
    assert (done.returncode, done.stdout[:12]) == (0, b"openrlhf-mtp")


def test_a_path_that_the_terminal_cannot_show_comes_out_escaped(tmp_path):
    job = tmp_path / "\u8bad\u7ec3" / "job.yaml"
    done = command("check", str(job), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (USER_ERROR, b"")
    assert b"error: " in done.stderr
    assert b"\\u8bad\\u7ec3" in done.stderr
    job.parent.mkdir()
    job.write_text("vllm: {num_engines: 1}\nmtp: {}")
    done = command("check", str(job), PYTHONIOENCODING="ascii")
    assert b"Traceback" not in done.stderr
    assert b"\\u8bad" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_said(project_root):
    job = "examples/dapo_qwen3-8b_8gpu/job.yaml"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "openrlhf_mtp", "check", job, "--no-files", "--gpus", "8"],
            cwd=project_root,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == RUN_FAILED
    assert done.stderr.startswith(b"error: no space left to write")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full"])
def test_a_stream_that_is_closed_or_full_changes_no_exit_code(tmp_path, closed):
    (tmp_path / "job.yaml").write_text("vllm: {num_engines: 1}")
    words = f"{sys.executable} -m openrlhf_mtp check job.yaml --no-files {closed}"
    # buffered, as for most users: what cannot be written is then noticed when Python ends
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, shell=True, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert done.returncode == USER_ERROR
    assert b"fault of" not in done.stdout + done.stderr
