"""RL on a Ray cluster of two nodes, each on a host of its own (`network_hosts`): one run with engines on the trainers'
devices, one with the engine on the other node.

On GPUs NCCL chooses the trainers' interface; here gloo has to be told, because it would take what the host name
resolves to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import rl_jobs
from tests.engine.network_hosts import CABLE, Host, two_hosts
from tests.engine.test_rl_runs import sound_rows
from tests.patience import seconds
from tests.processes import free_port

pytestmark = [pytest.mark.alone, pytest.mark.nightly]

BRIEF = ("eval.dataset=null", "data.max_samples=16")
STEPS = 2
ENVIRONMENT = {"GLOO_SOCKET_IFNAME": CABLE}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
        for host in pair:  # Ray takes the address from which a packet would leave for the internet
            host.run("ip", "route", "add", "default", "dev", CABLE)
        yield pair


@pytest.fixture(scope="module")
def cluster(hosts: tuple[Host, Host]) -> Iterator[str]:
    """A head on the first host and a node on the second, with one logical GPU each; the cluster's address."""
    address = f"{hosts[0].address}:{free_port()}"
    nodes = []
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        try:
            head = ("--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}")
            for host, words in zip(
                hosts, ((*head, "--include-dashboard=false"), (f"--address={address}",)), strict=True
            ):
                nodes.append(start_node(host, *words))
                wait_for_nodes(hosts[0], address, len(nodes), nodes[-1])
            yield address
        finally:
            for node in nodes:
                node.send_signal(signal.SIGTERM)
            for node in nodes:
                node.wait(timeout=seconds(60))


def start_node(host: Host, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--num-cpus=8",
        "--num-gpus=1",
    ]
    own = [f"--node-ip-address={host.address}", f"--object-store-memory={128 << 20}"]
    return host.start(*command, *own, *words, **ENVIRONMENT)


def wait_for_nodes(host: Host, address: str, count: int, started: subprocess.Popen[str]) -> None:
    """Wait until so many nodes are alive."""
    code = (
        "import ray, sys\n"
        f"ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR')\n"
        f"sys.exit(sum(node['Alive'] for node in ray.nodes()) < {count})\n"
    )
    end = time.monotonic() + seconds(180)
    while True:
        asked = subprocess.run(
            host.inside(sys.executable, "-c", code), capture_output=True, timeout=seconds(120), check=False
        )
        if asked.returncode == 0:
            return
        assert started.poll() is None, started.communicate()[0][-3000:]
        assert time.monotonic() < end, asked.stderr.decode()[-3000:]


@pytest.mark.parametrize(
    ("name", "words", "backend"),
    [
        (
            "engines-beside-trainers",
            ("train.colocate_all=true", "actor.num_nodes=2", "vllm.num_engines=2"),
            "ipc",
        ),
        ("an-engine-on-the-other-node", (), "gloo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_spans_two_nodes(
    name: str,
    words: tuple[str, ...],
    backend: str,
    hosts: tuple[Host, Host],
    cluster: str,
    tmp_path: Path,
) -> None:
    rl_jobs.write_assets(tmp_path)
    command = [
        *rl_jobs.COMMAND,
        "train",
        "job.yaml",
        "--out",
        name,
        *BRIEF,
        *words,
        f"mtp.sync.backend={backend}",
    ]
    kept = {variable: value for variable, value in os.environ.items() if variable not in rl_jobs.NOT_OURS}
    driver = subprocess.Popen(
        hosts[0].inside(
            "sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path), *command
        ),  # nsenter leaves the folder
        env={**kept, **ENVIRONMENT, "RAY_ADDRESS": cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = driver.communicate(timeout=seconds(600))
    finally:
        driver.kill()
    assert driver.returncode == 0, output[-3000:]
    rows = sound_rows(tmp_path / name, steps=STEPS)
    assert {row["sync/rpc_calls"] for row in rows} == {2 if backend == "ipc" else 1}
