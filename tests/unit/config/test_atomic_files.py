"""Atomic files: a reader sees the old content or the new one, never a part."""

import pytest

from openrlhf_mtp.config.atomic_files import atomic_path, write_atomically


def test_a_file_is_made_and_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, "first")
    write_atomically(path, "Ünicode\n")
    assert path.read_bytes() == "Ünicode\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_while_it_is_written_the_old_content_is_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"


def test_a_failed_write_keeps_the_old_file_and_removes_its_part(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_a_killed_process_left_is_replaced(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as partial:
        partial.write_text("new")
        left = partial
    left.write_text("of a process that was killed, and longer than the new text")
    write_atomically(path, "newer")
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]
