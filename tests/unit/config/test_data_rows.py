"""Every row of the data is looked at before the start, and one that would end a run is named with its line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.checks import data
from openrlhf_mtp.config.data_files import UnreadableRow, read_rows
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

SPECS = flag_specs()
GOOD = {"input": "1+1=", "label": "2"}
Found = Callable[..., list[str]]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Problems of a job on these rows, or on a file that is given as it is."""
    monkeypatch.chdir(tmp_path)

    def run(rows: list[object] | bytes, *overrides: str, name: str = "rows.jsonl") -> list[str]:
        text = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text)
        Path("job.yaml").write_text("data: {max_len: 64}\n")
        settings = (f"data.prompt_dataset={name}", "data.label_key=label", *overrides)
        situation = JobContext(load_job(tmp_path / "job.yaml", settings, SPECS), Host(0))
        return [f"{c.level}: {c}" for c in (*data.prompt_rows(situation), *data.chat_template(situation))]

    return run


def test_good_rows_pass_with_a_byte_order_mark_and_blank_lines(found):
    assert found([GOOD] * 3) == []
    assert found(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n\n") == []


@pytest.mark.parametrize(
    ("bad", "overrides", "expected"),
    [
        ({"input": ""}, (), "error: data.prompt_dataset: the prompt is empty in line 2 of the 4 rows"),
        (
            {"input": None},
            (),
            "error: data.prompt_dataset: there is no prompt (input) in line 2 of the 4 rows",
        ),
        ({"input": 7}, (), "error: data.prompt_dataset: the prompt is not text in line 2 of"),
        (
            {"input": [{"role": "user", "content": "?"}]},
            (),
            "error: data.prompt_dataset: the prompt is a list of messages in line 2 of the 4 rows",
        ),
        (
            {"input": [{"content": "?"}]},
            ("data.apply_chat_template=true",),
            "error: data.prompt_dataset: the prompt is neither text nor a list of messages, each with role and "
            "content, in line 2 of",
        ),
        ({"label": None}, (), "warning: data.label_key: there is no label (label) in line 2 of the 4 rows"),
    ],
    ids=["empty", "null", "a number", "messages without a template", "broken messages", "null label"],
)
def test_a_bad_row_is_named(found, bad, overrides, expected):
    (text,) = found([GOOD, {**GOOD, **bad}, GOOD, GOOD], *overrides)
    assert text.startswith(expected)


def test_a_row_without_a_column_is_named_and_many_are_counted(found):
    (text,) = found([GOOD, *[{"label": "2"}] * 5, GOOD])
    assert "there is no prompt (input) in line 2, line 3, line 4 and 2 more of the 7 rows looked at" in text


def test_messages_and_templates_are_fine_where_they_are_asked_for(found):
    assert (
        found([{**GOOD, "input": [{"role": "user", "content": "?"}]}], "data.apply_chat_template=true") == []
    )
    assert found([{**GOOD, "input": ""}], "data.input_template=Say: {}") == []


def test_rows_that_are_not_used_are_not_looked_at(found):
    assert found([GOOD, GOOD, {**GOOD, "input": ""}], "data.max_samples=2") == []


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b'{"input": "1"}\n1 + 1 = 2\n', "a.jsonl", "line 2 is no JSON object"),
        (b'{"input": "1"}\n3\n', "a.jsonl", "line 2 is no JSON object"),
        ('{"input": "é"}'.encode("latin-1"), "a.jsonl", "it is not UTF-8 text"),
        (b"[" * 100_000, "a.json", "it is no JSON array"),
        (b"[1]", "a.json", "row 1 is no JSON object"),
        (b"no parquet", "a.parquet", "it is no Parquet file"),
        (b"", "a.jsonl", "{folder}/a.jsonl has no rows"),
    ],
    ids=["text", "scalar", "latin-1", "deep", "array of numbers", "parquet", "empty"],
)
def test_a_file_that_cannot_be_read_is_refused(found, tmp_path, content, name, expected):
    (text,) = found(content, name=name)
    assert text.startswith("error: data.prompt_dataset")
    assert expected.format(folder=tmp_path) in text


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.parquet"])
def test_other_formats_are_looked_at_too(found, name, tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [GOOD, {"input": None, "label": "2"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "made.parquet")
    content = {
        "rows.json": json.dumps(rows).encode(),
        "rows.csv": b"input,label\n1+1=,2\n,2\n",
        "rows.parquet": (tmp_path / "made.parquet").read_bytes(),
    }[name]
    (text,) = found(content, name=name)
    place = "line 3" if name.endswith("csv") else "row 2"
    assert f"there is no prompt (input) in {place} of the 2 rows looked at" in text
    (text,) = found(content, "data.label_key=answer", name=name)
    assert "data.label_key: got answer, expected one of the columns of" in text


def test_a_folder_with_an_at_sign_is_refused_before_loading(found):
    (text,) = found([GOOD], name="data/u@home/rows.jsonl")
    assert "expected a path without @" in text


def test_a_tokenizer_without_a_chat_template_is_found(found, tmp_path):
    (tmp_path / "policy").mkdir()
    config = tmp_path / "policy" / "tokenizer_config.json"
    config.write_text('{"eos_token": "x"}')
    asked = ("data.apply_chat_template=true", "actor.model_name_or_path=./policy")
    (text,) = found([GOOD], *asked)
    assert "this is true, and the tokenizer in" in text
    (tmp_path / "policy" / "chat_template.jinja").write_text("{{ messages }}")
    assert found([GOOD], *asked) == []
    (tmp_path / "policy" / "chat_template.jinja").unlink()
    config.write_text('{"chat_template": "{{ messages }}"}')
    assert found([GOOD], *asked) == []
    config.write_text('{"chat_template": "{{ strftime_now(0) }}"}')
    (text,) = found([GOOD], *asked)
    assert "warning: data.apply_chat_template: the chat template in" in text
    assert "writes today's date" in text


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_content_of_a_file_raises_anything_but_its_own_error(tmp_path_factory, suffix, content):
    file = tmp_path_factory.mktemp("rows") / f"file{suffix}"
    file.write_bytes(content)
    try:
        list(read_rows(file, 10))
    except UnreadableRow:
        return
