"""`openrlhf-mtp export`: write a policy and its head for others, and show what was written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import head_folder
from openrlhf_mtp.heads.formats.accounting import Planned

SHOWN = 40
"""Rows of the table; a head with experts has hundreds."""


def run_export(policy: Path, head: Path | None, out: Path, format: str, published: Path | None = None) -> int:
    """Export, print the list, and return 0.

    Raises:
        JobError: a folder is missing or damaged, the head does not fit, or something was left out.
    """
    from openrlhf_mtp.heads.formats.export import export
    from openrlhf_mtp.heads.formats.policy_files import LIST_FILE

    try:
        written = export(policy, head_folder(head, policy), out, format, published)
    except (OSError, ValueError) as problem:
        raise JobError(str(problem)) from problem
    Console().print(table(written))
    for file, count in sorted(Counter(tensor.file for tensor in written).items()):
        print(f"{out / file}: {count} tensors")
    print(f"list: {out / LIST_FILE}")
    return 0


def table(written: list[Planned]) -> Table:
    """The head's tensors one by one, up to `SHOWN`; the rest and the policy's are in the list alone."""
    rows = Table("tensor of the head", "shape", "type", "from", box=None)
    of_head = [tensor for tensor in written if tensor.source not in ("policy", "published")]
    for tensor in of_head[:SHOWN]:
        shape = " x ".join(map(str, tensor.stored.shape))
        rows.add_row(tensor.name, shape, tensor.stored.dtype, tensor.source)
    if len(of_head) > SHOWN:
        rows.add_row(f"and {len(of_head) - SHOWN} more")
    return rows
