"""What a GPU's memory is shared by, as far as a CPU can tell: torch's arguments, and their way through JSON."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor

from openrlhf_mtp.sync import shared_memory
from openrlhf_mtp.sync.shared_memory import SharedMemory, attach

SIZE = 1000


def test_torch_takes_these_fields_in_this_order() -> None:
    names = list(inspect.signature(rebuild_cuda_tensor).parameters)
    storage = ("handle", "size_bytes", "offset_bytes")
    assert names[shared_memory._BEFORE_FIELDS :] == [
        *(f"storage_{name}" for name in storage),
        *("requires_grad", "ref_counter_handle", "ref_counter_offset", "event_handle", "event_sync_required"),
    ]
    assert len(shared_memory._FIELDS) == len(names) - shared_memory._BEFORE_FIELDS


def test_a_gpus_handle_comes_out_of_json_as_torch_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = (b"\x00\xffhandle", SIZE, 512, False, b"counter", 3, b"\x80event", True)
    given: list[Any] = []
    before = (torch.Tensor, torch.Size([SIZE]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 0)
    monkeypatch.setattr(shared_memory, "reduce_tensor", lambda _: (rebuild_cuda_tensor, (*before, *made)))
    monkeypatch.setattr(shared_memory, "rebuild_cuda_tensor", lambda *arguments: given.extend(arguments))
    memory = object.__new__(SharedMemory)
    memory._file, memory.tensor = -1, torch.empty(0)
    handle, file = memory.share()
    attach(json.loads(json.dumps(handle)), file, torch.device("cuda", 0))
    assert (file, tuple(given)) == (None, (*before, *made))
