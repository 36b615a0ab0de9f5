from typing import get_args

import pytest
import torch

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.store import Backend
from openrlhf_mtp.sync.transport import CONNECT, choose_backend, device_id


@pytest.mark.parametrize(
    ("requested", "trainer", "engines", "chosen"),
    [
        ("auto", "gpu-0", ["gpu-1", "gpu-2"], "nccl"),
        ("nccl", "gpu-0", ["gpu-1"], "nccl"),
        ("gloo", "gpu-0", ["gpu-1"], "gloo"),
        ("auto", "gpu-0", ["gpu-0"], "gloo"),
        ("auto", "cpu", ["cpu", "cpu"], "gloo"),
        ("auto", "cpu", ["gpu-1"], "gloo"),
    ],
)
def test_nccl_only_where_every_rank_has_a_gpu_of_its_own(requested, trainer, engines, chosen):
    assert choose_backend(requested, trainer, engines) == chosen


@pytest.mark.parametrize(
    ("trainer", "engines", "why"), [("gpu-0", ["gpu-0"], "share a GPU"), ("cpu", ["gpu-0"], "without a GPU")]
)
def test_an_impossible_nccl_is_refused_not_replaced(trainer, engines, why):
    with pytest.raises(ValueError, match=rf"mtp\.sync\.backend: nccl cannot be used because .*{why}"):
        choose_backend("nccl", trainer, engines)


def test_a_host_without_gpu_has_one_device():
    assert device_id(torch.device("cpu")) == "cpu"


def test_every_transport_can_be_connected_and_asked_for() -> None:
    assert set(CONNECT) == set(get_args(Backend))
    for backend in (*CONNECT, "auto"):
        assert SyncSettings.model_validate({"backend": backend}).backend == backend
