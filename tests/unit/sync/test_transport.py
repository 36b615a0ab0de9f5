from collections.abc import Sequence
from typing import get_args

import pytest
import torch

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.store import Broadcast
from openrlhf_mtp.sync.transport import CONNECT, Place, choose_backend, device_id, serving_ranks


def places(names: Sequence[str]) -> list[Place]:
    """ "a/gpu-0" is a device of machine a."""
    return [Place(*name.split("/")) for name in names]


@pytest.mark.parametrize(
    ("requested", "ranks", "workers", "chosen"),
    [
        ("auto", ["a/gpu-0"], ["a/gpu-1", "a/gpu-2"], "nccl"),
        ("nccl", ["a/gpu-0"], ["a/gpu-1"], "nccl"),
        ("gloo", ["a/gpu-0"], ["a/gpu-1"], "gloo"),
        ("gloo", ["a/gpu-0"], ["a/gpu-0"], "gloo"),
        ("auto", ["a/gpu-0"], ["a/gpu-0"], "ipc"),
        ("ipc", ["a/gpu-0"], ["a/gpu-0"], "ipc"),
        ("auto", ["a/gpu-0", "b/gpu-1"], ["b/gpu-1", "a/gpu-0"], "ipc"),
        ("auto", ["a/gpu-0", "a/gpu-1"], ["a/gpu-0", "a/gpu-2"], "gloo"),
        ("auto", ["a/gpu-0", "a/gpu-1"], ["a/gpu-1", "a/gpu-2"], "nccl"),
        ("auto", ["a/cpu"], ["a/cpu", "a/cpu"], "ipc"),
        ("auto", ["a/cpu"], ["a/cpu", "b/cpu"], "gloo"),
        ("auto", ["a/cpu"], ["a/gpu-1"], "gloo"),
        ("auto", ["a/gpu-0"], ["a/gpu-1", "a/gpu-0"], "gloo"),
        ("auto", ["a/gpu-0"], ["a/gpu-1", "a/gpu-2", "a/gpu-3", "a/cpu"], "gloo"),
    ],
)
def test_auto_takes_the_fastest_transport_that_every_worker_can_have(requested, ranks, workers, chosen):
    assert choose_backend(requested, places(ranks), places(workers)) == chosen


@pytest.mark.parametrize(
    ("requested", "rank", "workers", "why"),
    [
        ("nccl", "a/gpu-0", ["a/gpu-0"], "share a GPU"),
        ("nccl", "a/cpu", ["a/gpu-0"], "without a GPU"),
        ("nccl", "a/gpu-0", ["a/gpu-1", "a/gpu-0"], "share a GPU"),
        (
            "ipc",
            "a/gpu-0",
            ["a/gpu-0", "b/gpu-0"],
            "worker 1 of the engines shares its device with no trainer rank",
        ),
    ],
)
def test_an_impossible_transport_is_refused_not_replaced(requested, rank, workers, why):
    with pytest.raises(ValueError, match=rf"mtp\.sync\.backend: {requested} cannot be used because .*{why}"):
        choose_backend(requested, places([rank]), places(workers))


def test_workers_are_served_by_the_ranks_on_their_devices_evenly():
    ranks = places(["a/gpu-1", "a/gpu-0", "b/gpu-0"])
    assert serving_ranks(ranks, places(["a/gpu-0", "a/gpu-1", "b/gpu-0", "b/gpu-0"])) == [1, 0, 2, 2]
    assert serving_ranks(places(["a/cpu"] * 2), places(["a/cpu"] * 5)) == [0, 1, 0, 1, 0]


def test_a_host_without_gpu_has_one_device():
    assert device_id(torch.device("cpu")) == "cpu"


def test_every_transport_can_be_connected_and_asked_for() -> None:
    assert set(CONNECT) == set(get_args(Broadcast))
    for backend in ("ipc", *CONNECT, "auto"):
        assert SyncSettings.model_validate({"backend": backend}).backend == backend
