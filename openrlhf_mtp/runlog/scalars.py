"""Values that reward functions, servers and agents hand over: one number, however it is wrapped."""

from typing import Any

from openrlhf_mtp.config.reading.values import cut


def single_number(value: Any) -> float | None:
    """The number in a number, a tensor or array of one, or a list of one (in a list); None for anything else."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return float(value) if isinstance(value, bool | int | float) else None


def shortened(value: Any, limit: int = 80) -> str:
    """`repr(value)`, cut to about `limit` letters for a message."""
    return cut(repr(value), limit)
