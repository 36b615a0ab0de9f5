"""Records as files: six significant digits, and null for what is no number."""

import json
import math
from pathlib import Path
from typing import Any


def write_record(path: Path, record: Any) -> None:
    """Write it, whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(_short(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_record(path: Path) -> Any:
    """Read what `write_record` wrote; null is not a number again."""
    return _whole(json.loads(path.read_text(encoding="utf-8")))


def _short(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _short(value) for name, value in record.items()}
    if isinstance(record, list | tuple):
        return [_short(value) for value in record]
    if isinstance(record, float):
        return float(f"{record:.6g}") if math.isfinite(record) else None
    return record


def _whole(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _whole(value) for name, value in record.items()}
    return math.nan if record is None else record
