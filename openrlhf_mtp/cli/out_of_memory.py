"""The message for a user after Ray ended a worker for lack of memory: how much was in use, by whom, and what helps."""

import re

_USED = re.compile(r"was (?P<used>[\d.]+GB) / (?P<total>[\d.]+GB)")
_PROCESS = re.compile(r"\b\d+\t(?P<size>[\d.]+)\t(?P<command>[^\t]+?), (?=\d+\t|Refer|$)")
"""A line of Ray's table of the largest processes: PID, gigabytes, command."""
SHOWN = 3
COMMAND_WIDTH = 60

REMEDIES = (
    "to need less: lower train.micro_batch_size, rollout.micro_batch_size, mtp.pretrain.micro_batch_size or "
    "mtp.rollout.kv_cache_gib; or end other programs on this machine"
)


def out_of_memory_words(ray_text: str) -> str:
    """Say shortly what Ray says in a page; text that is in another form keeps its first sentence.

    >>> print(out_of_memory_words("Memory on the node (IP: a) was 7.80GB / 8.00GB (0.97), which").splitlines()[0])
    the machine ran out of memory: 7.80GB of 8.00GB were in use, so Ray ended a worker
    """
    used = _USED.search(ray_text)
    if used is None:
        return f"the machine ran out of memory: {ray_text.strip().split('. ')[0]}\n{REMEDIES}"
    lines = [
        f"the machine ran out of memory: {used['used']} of {used['total']} were in use, so Ray ended a worker"
    ]
    largest = [f"{found['size']} GB {_short(found['command'])}" for found in _PROCESS.finditer(ray_text)][
        :SHOWN
    ]
    if largest:
        lines.append(f"the largest processes: {'; '.join(largest)}")
    return "\n".join([*lines, REMEDIES])


def _short(command: str) -> str:
    """The command on one line of bounded width."""
    words = " ".join(command.split())
    return words if len(words) <= COMMAND_WIDTH else f"{words[: COMMAND_WIDTH - 3]}..."
