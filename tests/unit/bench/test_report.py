import json
from pathlib import Path

import pytest

from openrlhf_mtp.bench import report


def test_a_result_says_what_was_measured_and_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["openrlhf-mtp", "bench", "x", "--out", "a folder"])
    tables = [report.table("title", "caption", ("form", "seconds"), [("ours", "1.0")])]
    report.publish(tmp_path, "bench_x.json", {"cores": "the measurement's own", "seconds": 1.0}, tables)
    record = json.loads((tmp_path / "bench_x.json").read_text())
    assert (record["cores"], record["seconds"]) == ("the measurement's own", 1.0)
    assert record["command"] == "openrlhf-mtp bench x --out 'a folder'"
    assert set(record) >= {"date", "revision", "versions", "machine"}
    printed = capsys.readouterr().out
    assert "ours" in printed
    assert printed.endswith(f"result: {tmp_path / 'bench_x.json'}\n")


def test_names_stand_to_the_left_and_figures_to_the_right() -> None:
    made = report.table("", "", ("form", "plain tok/s", "range"), [("a", "1", "2")], wrap=("plain tok/s",))
    assert [(one.justify, one.no_wrap) for one in made.columns] == [
        ("left", True), ("right", False), ("right", True)
    ]  # fmt: skip
    assert made.row_count == 1


def test_progress_is_a_plain_line_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    report.show_seconds(2)("ours", 1.234)
    assert capsys.readouterr().err == "ours: 1.23 s\n"
