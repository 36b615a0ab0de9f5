"""Memory of one process that another one on the same machine maps: device memory over CUDA IPC, or host memory.

Host memory is a file without a name (memfd), which the kernel frees with its last user, however that one ends. Device
memory is freed once the owner and everyone who mapped it have let go of it.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

NAME = "openrlhf-mtp-sync"
"""Of the files without a name, as /proc shows them."""

Handle = dict[str, Any]
"""What another process needs to map the memory, in plain values: JSON can carry it."""

_BYTES = ("handle", "counter", "event")
_FIELDS = ("handle", "size", "offset", "requires_grad", "counter", "counter_offset", "event", "has_event")
"""The end of `reduce_tensor`'s arguments in torch 2.13, after type, size, stride, offset, storage, dtype and device."""
_BEFORE_FIELDS = 7


class SharedMemory:
    """`size` bytes on a device that other processes can map; freed with `close`.

    Args:
        size: in bytes.
        device: "cpu" or a GPU.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._file = -1
        if device.type == "cpu":
            self._file = os.memfd_create(NAME, os.MFD_CLOEXEC)
            os.ftruncate(self._file, size)
            self.tensor = _mapped(self._file, size)
        else:
            self.tensor = torch.empty(size, dtype=torch.uint8, device=device)

    def share(self) -> tuple[Handle, int | None]:
        """The handle for one more process that maps it, and the open file to send along; None on a GPU."""
        if self._file >= 0:
            return {"size": self.tensor.numel()}, self._file
        _, arguments = reduce_tensor(self.tensor)
        fields = dict(zip(_FIELDS, arguments[_BEFORE_FIELDS:], strict=True))
        return fields | {name: bytes(fields[name]).hex() for name in _BYTES}, None

    def close(self) -> None:
        """Let go of it. The memory is back once those who mapped it have done so, too."""
        device = self.tensor.device
        del self.tensor
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if device.type == "cuda":
            torch.cuda.ipc_collect()


def attach(handle: Handle, file: int | None, device: torch.device) -> Tensor:
    """Map another process's memory: [size] uint8 on `device`, until the tensor is gone.

    Args:
        handle: from `SharedMemory.share`.
        file: the open file that came along, which is closed here; None on a GPU.
        device: the one that the memory lies on, as this process counts devices.
    """
    if file is not None:
        try:
            return _mapped(file, handle["size"])
        finally:
            os.close(file)
    fields = handle | {name: bytes.fromhex(handle[name]) for name in _BYTES}
    size = fields["size"]
    tensor: Tensor = rebuild_cuda_tensor(
        *(Tensor, torch.Size([size]), (1,), 0, torch.storage.TypedStorage, torch.uint8, device.index),
        *(fields[name] for name in _FIELDS),
    )
    return tensor


def _mapped(file: int, size: int) -> Tensor:
    # by its path, because Python's mmap keeps a copy of the open file
    return torch.from_file(f"/proc/self/fd/{file}", shared=True, size=size, dtype=torch.uint8)
