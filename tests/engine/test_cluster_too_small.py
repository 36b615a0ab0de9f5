"""A job that asks for more GPUs than the cluster has ends with the numbers; OpenRLHF alone would wait for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrlhf_mtp.cluster.placement import ClusterTooSmallError, Placements, require_gpus
from tests.patience import seconds

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def one_gpu_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    from openrlhf_mtp.cli.ray_session import ray_session

    with ray_session(gpus=1, cache=tmp_path_factory.mktemp("r")):
        yield
    assert not ray.is_initialized()


@pytest.mark.usefixtures("one_gpu_cluster")
def test_the_preflight_names_what_is_needed_and_what_is_there() -> None:
    with pytest.raises(ClusterTooSmallError, match=r"needs 4 GPUs \(actor 2, rollout engines 2\).* has 1"):
        require_gpus(4, what="actor 2, rollout engines 2")
    require_gpus(1, what="actor 1")


@pytest.mark.usefixtures("one_gpu_cluster")
def test_a_group_that_cannot_be_placed_is_given_up_in_time() -> None:
    start = time.monotonic()
    with pytest.raises(ClusterTooSmallError, match=r"no place for 2 GPUs .* within 2 s: 1 of 1 GPUs"):
        Placements(2.0)([{"GPU": 1, "CPU": 1}] * 2, strategy="PACK")
    assert time.monotonic() - start < seconds(30)


@pytest.mark.usefixtures("one_gpu_cluster")
def test_released_groups_leave_their_gpus_to_the_next() -> None:
    first, second = Placements(seconds(20)), Placements(seconds(20))
    first([{"GPU": 1, "CPU": 1}])
    with pytest.raises(ClusterTooSmallError, match="0 of 1 GPUs"):
        Placements(1.0)([{"GPU": 1, "CPU": 1}])
    first.release()
    second([{"GPU": 1, "CPU": 1}])
    second.release()


def test_the_temporary_folder_leaves_room_for_rays_socket(tmp_path: Path) -> None:
    from openrlhf_mtp.cli.ray_session import temporary_folder

    deep = tmp_path / ("a" * 60)
    deep.mkdir()
    assert len(temporary_folder(deep)) <= 40
