"""Limits and expectations of a sync round, from its bytes."""

from pathlib import Path

import pytest

from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.model_files import model_shape
from openrlhf_mtp.config.plan import make_plan
from openrlhf_mtp.config.sync_time import Cost, bucket_bytes, costs, round_limit_s
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config.test_plan import LLAMA_3_1_8B


def test_a_limit_grows_with_the_bytes():
    assert round_limit_s(300, 0) == 300
    assert round_limit_s(300, 50_000_000) == 302
    assert round_limit_s(10, 140_000_000_000) == 5610


@pytest.mark.parametrize(
    ("mib", "most", "size"), [(1, 1, 1), (40, 256, 8), (800, 256, 100), (16_000, 256, 256), (16_000, 64, 64)]
)
def test_a_round_has_eight_buckets_or_more_of_eight_mib_or_more(mib: int, most: int, size: int):
    assert bucket_bytes(mib << 20, most) == size << 20


def test_a_broadcast_costs_more_with_each_doubling_of_the_workers_and_a_handover_does_not():
    broadcast, handover = Cost(each=0.5, doubling=0.25, in_full=2.0), Cost(0.5, 0.0, 2.0)
    assert [broadcast.seconds(10**9, workers) for workers in (1, 3, 7)] == [0.75, 1.0, 1.25]
    assert [handover.seconds(10**9, workers) for workers in (1, 3, 7)] == [0.5] * 3
    assert broadcast.seconds(10**9, 1, first=True) == 2.75


@pytest.mark.parametrize(
    ("has_cuda", "colocated", "transports"),
    [
        (True, True, ["ipc", "gloo"]),
        (True, False, ["nccl", "gloo"]),
        (False, False, ["ipc", "gloo"]),
        (False, True, ["ipc", "gloo"]),
    ],
)
def test_auto_is_the_first_of_the_transports_that_a_job_can_have(has_cuda, colocated, transports):
    assert list(costs(has_cuda=has_cuda, colocated=colocated)) == transports


def plan_of_the_sync(tmp_path: Path, *overrides: str) -> dict[str, str]:
    file = tmp_path / "job.yaml"
    file.write_text("actor: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\nmtp: {depths: 3}\n")
    context = JobContext(load_job(file, overrides, flag_specs()), Host(cuda_gpus=8))
    context.__dict__["shape"] = model_shape(LLAMA_3_1_8B)  # a cached property
    return dict(dict(make_plan(context).sections)["Weight sync"])


def test_the_plan_names_transport_seconds_and_limit(tmp_path):
    apart = plan_of_the_sync(tmp_path)
    together = plan_of_the_sync(tmp_path, "train.colocate_all=true", "mtp.sync.timeout_s=100")
    assert (apart["transport"], together["transport"]) == ("auto: nccl", "auto: ipc")
    assert " s over nccl (the first " in apart["expected"]
    assert " s over ipc (the first " in together["expected"]
    assert " s over gloo (the first " in together["expected"]
    seconds = {name: int(plan["limit"].split()[0]) for name, plan in (("a", apart), ("t", together))}
    assert seconds["a"] - seconds["t"] == 200
    assert seconds["t"] > 100 + 16e9 / 25e6
