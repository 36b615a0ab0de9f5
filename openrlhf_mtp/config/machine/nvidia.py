"""NVIDIA GPUs by the driver's own tool, which may fail or never answer, and which of them a process may use."""

import functools
import subprocess
from dataclasses import dataclass

TIMEOUT_S = 6.0
"""A healthy driver answers in about a second, a first call without persistence mode in a few."""

_QUERY = ("--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits")


class DriverError(RuntimeError):
    """The driver's tool is there and did not list its GPUs; the message says what it did instead."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that the NVIDIA driver lists.

    Attributes:
        uuid: `GPU-` and a hexadecimal number.
        memory_mib: its memory, None when the driver does not say (some virtual GPUs).
    """

    uuid: str
    memory_mib: int | None


def ask_driver(tool: str) -> tuple[Gpu, ...]:
    """All GPUs of this machine, in the driver's order; asked once a process.

    Args:
        tool: path of `nvidia-smi`.

    Raises:
        DriverError: it failed, or did not answer in time.
    """
    answer = _answer(tool)
    if isinstance(answer, DriverError):
        raise answer
    return answer


@functools.cache
def _answer(tool: str) -> tuple[Gpu, ...] | DriverError:
    try:
        process = subprocess.Popen(
            [tool, *_QUERY], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as problem:
        return DriverError(f"{tool} cannot be started ({problem})")
    try:
        answer, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: a process that hangs in the driver cannot be ended
        return DriverError(f"nvidia-smi did not answer within {TIMEOUT_S:g} s")
    if process.returncode:
        said = " ".join(answer.split()) or "it printed nothing"
        return DriverError(f"nvidia-smi failed with exit code {process.returncode}: {said[:200]}")
    return tuple(_gpu(line) for line in answer.splitlines() if line.startswith("GPU-"))


def visible(gpus: tuple[Gpu, ...], chosen: str | None) -> list[Gpu]:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves, by CUDA's rule: numbers or the beginnings of ids, up to the first that
    names no GPU or one that was named before. A slice (`MIG-...`) counts as a GPU of unknown memory.

    Args:
        gpus: all of the machine.
        chosen: the variable's value, None when it is not set.
    """
    if chosen is None:
        return list(gpus)
    found: list[Gpu] = []
    for name in (part.strip() for part in chosen.split(",")):
        if name.startswith("MIG-") and gpus:
            found.append(Gpu(name, None))
            continue
        if name.isascii() and name.isdigit():
            named = gpus[int(name) : int(name) + 1]
        else:
            named = tuple(gpu for gpu in gpus if name.startswith("GPU-") and gpu.uuid.startswith(name))
        if len(named) != 1 or named[0] in found:
            break
        found += named
    return found


def _gpu(line: str) -> Gpu:
    uuid, _, memory = line.partition(",")
    return Gpu(uuid.strip(), int(memory) if memory.strip().isdigit() else None)
