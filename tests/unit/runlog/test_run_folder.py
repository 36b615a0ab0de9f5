"""A run's folder is claimed before the work, and an earlier run in it is never lost by accident."""

import pytest

from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run_folder import RunFolderError, claim


class TestClaim:
    def test_an_earlier_run_is_kept_unless_the_user_says_otherwise(self, tmp_path):
        RowWriter(tmp_path).close()
        with pytest.raises(RunFolderError, match="--resume, or start over with --overwrite"):
            claim(tmp_path)
        assert claim(tmp_path, resume=True) == tmp_path
        assert (tmp_path / METRICS).exists()

    def test_overwrite_removes_the_run_and_nothing_else(self, tmp_path):
        RowWriter(tmp_path).close()
        (tmp_path / "notes.md").write_text("mine")
        claim(tmp_path, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]

    def test_a_folder_that_cannot_be_written_is_refused(self, tmp_path):
        blocker = tmp_path / "file"
        blocker.touch()
        with pytest.raises(RunFolderError, match="is a file"):
            claim(blocker)
        with pytest.raises(RunFolderError, match="cannot write to"):
            claim(blocker / "below")

    def test_resume_and_overwrite_exclude_each_other(self, tmp_path):
        with pytest.raises(RunFolderError, match="choose one"):
            claim(tmp_path, resume=True, overwrite=True)
