"""The quickstart around its stages: how it ends in words, what it never removes, and what it says to do next."""

import psutil
import pytest

from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.cli.quickstart import command as module
from openrlhf_mtp.cli.quickstart.command import Quickstart, empty, opener, run_quickstart
from openrlhf_mtp.cli.quickstart.lessons import take_lessons
from openrlhf_mtp.cli.quickstart.stages import StageFailed
from openrlhf_mtp.runlog.run_folder import RunFolderError


def failing(monkeypatch, error):
    def equip(self, resume):
        raise error

    monkeypatch.setattr(Quickstart, "equip", equip)


def test_a_failure_says_which_stage_why_where_and_how_to_continue(tmp_path, monkeypatch):
    failing(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(StageFailed) as failure:
        run_quickstart(tmp_path)
    assert str(failure.value).splitlines() == [
        "stage 1 of 3, equip (a policy with an MTP head, and prompts), failed:",
        "  OSError: [Errno 28] No space left on device",
        f"log: {tmp_path}/quickstart.log",
        f"to continue: openrlhf-mtp quickstart --out {tmp_path}",
    ]
    assert "Traceback" in (tmp_path / "quickstart.log").read_text()


def test_an_interrupt_says_how_to_continue(tmp_path, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt("the same command with --resume"))
    with pytest.raises(KeyboardInterrupt) as end:
        run_quickstart(tmp_path)
    assert str(end.value).splitlines() == [
        "in stage 1 of 3, equip (a policy with an MTP head, and prompts); finished stages are kept",
        f"to continue: openrlhf-mtp quickstart --out {tmp_path}",
    ]


def test_what_fails_outside_a_stage_is_words_too(tmp_path, monkeypatch):
    (tmp_path / ".stages").mkdir()
    (tmp_path / ".stages" / "equip.begun").mkdir()  # nonsense in our own folder
    monkeypatch.setattr(module, "JOB", module.JOB)
    with pytest.raises(StageFailed, match="to continue: openrlhf-mtp quickstart"):
        run_quickstart(tmp_path)


@pytest.mark.parametrize("name", ["rl", "pretrain", "data", "equipped", "policy"])
def test_nothing_is_removed_that_no_quickstart_wrote(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=f"{name} exists, and no earlier quickstart wrote it"):
        run_quickstart(tmp_path)
    assert (tmp_path / name / "thesis.txt").read_text() == "mine"


def test_a_stages_folder_is_emptied_whatever_took_its_place(tmp_path):
    place, elsewhere = tmp_path / "rl", tmp_path / "elsewhere"
    empty(place)
    place.write_text("nonsense")
    empty(place)
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    place.symlink_to(elsewhere)
    empty(place)
    assert not place.exists()
    assert (elsewhere / "kept").exists()
    place.mkdir()
    (place / "file").touch()
    empty(place)
    assert not place.exists()


@pytest.mark.parametrize(
    ("out", "teach", "command"),
    [
        ("runs/quickstart", False, "openrlhf-mtp quickstart"),
        ("runs/my run", True, "openrlhf-mtp quickstart --out 'runs/my run' --teach"),
    ],
)
def test_the_command_that_continues_is_the_one_that_was_given(tmp_path, out, teach, command):
    assert Quickstart(type(tmp_path)(out), teach=teach, verbose=False).command() == command


def test_the_taught_policy_is_taken_unless_it_is_to_be_taught(tmp_path):
    assert [stage.name for stage in Quickstart(tmp_path, teach=False, verbose=False).stages()] == [
        "equip",
        "pretrain",
        "train",
    ]
    taught = Quickstart(tmp_path, teach=True, verbose=False)
    assert taught.stages()[0].name == "teach"
    assert taught.policy == tmp_path / "policy"


def test_the_report_is_opened_by_what_the_machine_has(tmp_path, monkeypatch):
    report = tmp_path / "the report.html"
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert opener(report) == f"python3 -m webbrowser {report.as_uri()}"
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/" + name)
    assert opener(report) == f"xdg-open '{report}'"


def test_lessons_that_fail_end_with_their_last_line_and_leave_a_log(tmp_path, monkeypatch):
    script = tmp_path / "teach.py"
    script.write_text("import sys; print('lesson one', flush=True); sys.exit('the hasty teacher gave all')")
    with pytest.raises(RunFailed, match=r"the hasty teacher gave all \(exit code 1 of teach.py\)"):
        take_lessons(script, tmp_path / "policy", tmp_path / "log")
    assert "lesson one" in (tmp_path / "log").read_text()


def test_lessons_end_with_the_command_that_takes_them(tmp_path, monkeypatch):
    script, pid = tmp_path / "teach.py", tmp_path / "pid"
    script.write_text(
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(600)"
    )

    def interrupt(line):
        raise KeyboardInterrupt

    monkeypatch.setattr("openrlhf_mtp.cli.quickstart.lessons._tell", interrupt)
    with pytest.raises(KeyboardInterrupt):
        take_lessons(script, tmp_path / "policy", tmp_path / "log")
    assert not psutil.pid_exists(int(pid.read_text()))
