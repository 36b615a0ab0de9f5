"""The first page of the room names every module in it."""

import re
from pathlib import Path

from openrlhf_mtp import bench


def test_the_table_names_every_module_and_no_other() -> None:
    rows = [line for line in (bench.__doc__ or "").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    modules = {file.stem for file in Path(bench.__path__[0]).glob("*.py")} - {"__init__"}
    assert sorted(named) == sorted(modules)
