"""Rows of a local data file, one after the other, as OpenRLHF's loader (Hugging Face datasets) reads them."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

READABLE = frozenset({".json", ".jsonl", ".csv", ".parquet"})
"""Suffixes whose rows can be looked at without loading everything; folders, scripts and .arrow files cannot."""

WHOLE_FILE_BYTES = 64 * 2**20
"""A JSON array has to be read whole; a larger one is not looked at."""


class UnreadableRow(ValueError):
    """A row, or the whole file, cannot be read; the message says where and why."""


@dataclass(frozen=True)
class DataRow:
    """A row: its place (`line 3`, `row 3`, from 1) and its columns."""

    place: str
    columns: Mapping[str, Any]


def read_rows(file: Path, limit: int) -> Iterator[DataRow]:
    """At most `limit` rows of a file whose suffix is in READABLE.

    Raises:
        UnreadableRow: at the first row that the loader would refuse as well.
    """
    readers = {".jsonl": _json_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    try:
        yield from islice(readers[file.suffix](file), limit)
    except UnicodeDecodeError as error:
        raise UnreadableRow(f"it is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UnreadableRow(f"it cannot be read ({error.strerror or error})") from error


def _json_rows(file: Path) -> Iterator[DataRow]:
    # a byte order mark is skipped by the loader, too
    with file.open(encoding="utf-8-sig") as lines:
        if file.suffix == ".json" and lines.read(1) == "[":
            yield from _array_rows(file)
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield DataRow(f"line {number}", _object(line, f"line {number}"))


def _array_rows(file: Path) -> Iterator[DataRow]:
    if file.stat().st_size > WHOLE_FILE_BYTES:
        return
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnreadableRow(f"it is no JSON array ({error})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UnreadableRow(f"row {number} is no JSON object")
        yield DataRow(f"row {number}", row)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise UnreadableRow(f"{place} is no JSON object ({reason})") from error
    if not isinstance(row, dict):
        raise UnreadableRow(f"{place} is no JSON object")
    return row


def _csv_rows(file: Path) -> Iterator[DataRow]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                named = {str(name): value or None for name, value in row.items() if name is not None}
                yield DataRow(f"line {reader.line_num}", named)
        except csv.Error as error:
            raise UnreadableRow(f"line {reader.line_num} is no CSV ({error})") from error


def _parquet_rows(file: Path) -> Iterator[DataRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as content:
            number = 0
            for batch in content.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield DataRow(f"row {number}", row)
    except pyarrow.ArrowException as error:
        raise UnreadableRow(f"it is no Parquet file ({str(error).splitlines()[0]})") from error
