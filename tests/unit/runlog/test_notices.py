"""A run's notices: said by any process, each text once, and read back whatever else happened to the file."""

from openrlhf_mtp.cli.progress.run_line import follow_run
from openrlhf_mtp.runlog.notices import NOTICES, read_notices, say
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import claim


def test_a_notice_is_kept_once_with_its_line_breaks_and_letters(tmp_path):
    for text in ("step 3: two\nlines", "Maß", "step 3: two\nlines"):
        say(tmp_path, text)
    assert read_notices(tmp_path) == ["step 3: two\nlines", "Maß"]
    assert len((tmp_path / NOTICES).read_text().splitlines()) == 2


def test_what_two_processes_say_is_read_once_and_a_cut_line_is_left_out(tmp_path):
    (tmp_path / NOTICES).write_text('"the same"\n"the same"\n"another"\n"cut of')
    assert read_notices(tmp_path) == ["the same", "another"]


def test_a_folder_without_notices_has_none(tmp_path):
    assert read_notices(tmp_path) == []


def test_a_notice_is_shown_during_the_run_and_not_again_on_resume(tmp_path, capsys):
    for _ in range(2):
        with RowWriter(tmp_path), follow_run(tmp_path, title="RL"):
            say(tmp_path, "step 1: nothing passed the filter")
    assert capsys.readouterr().err.splitlines() == ["warning: step 1: nothing passed the filter"]


def test_a_run_is_read_with_its_notices_and_overwriting_removes_them(tmp_path):
    RowWriter(tmp_path).close()
    say(tmp_path, "something")
    assert read_run(tmp_path).notices == ["something"]
    claim(tmp_path, overwrite=True)
    assert not (tmp_path / NOTICES).exists()
