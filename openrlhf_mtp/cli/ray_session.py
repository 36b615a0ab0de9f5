"""A Ray cluster for the time of one command: the user's own, or one on this machine that ends with the command."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.cli.processes import (
    adopted_orphans,
    end_descendants,
    raise_on_sigterm,
    undisturbed,
    usual_sigterm,
)
from openrlhf_mtp.upstream.cpu_host import has_cuda
from openrlhf_mtp.upstream.processes import prepare_process, quiet_driver, ray_runtime_env
from openrlhf_mtp.upstream.ray_start import START_LIMIT, NodeEnded, be_patient, start_limit_s

_MAX_TEMP_PATH = 40
"""Ray puts a Unix socket about 65 characters below its folder, and such a path may have 107."""

_STARTS = 3
"""A node that a busy machine starts too slowly ends by itself; so often it is started."""

_LOGICAL_CPUS = 16
"""Ray counts CPUs only to place actors; a small machine must not run out of the count."""


def temporary_folder(cache: Path) -> str:
    folder = cache.resolve() / "ray"
    if len(str(folder)) <= _MAX_TEMP_PATH:
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)
    return tempfile.mkdtemp(prefix="ray-")


@contextmanager
def ray_session(
    *, gpus: int, verbose: bool = False, threads: int | None = None, cache: Path = Path(".cache")
) -> Iterator[Any]:
    """Connect to the cluster of `RAY_ADDRESS`, or start one here.

    On a host without CUDA the local cluster has `gpus` logical ones. On exit every process that was started
    on this machine has ended, also after SIGTERM, which raises `cli.processes.Terminated` while a local cluster is up.

    Args:
        gpus: what the job needs in all.
        verbose: show the workers' output.
        threads: that each worker computes with; None leaves it to Ray.
        cache: where a local cluster keeps its logs.

    Raises:
        RunFailed: Ray did not start here, or there is none at `RAY_ADDRESS`.
    """
    quiet_driver()
    prepare_process()
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        be_patient()
    import ray

    common: dict[str, Any] = {"runtime_env": ray_runtime_env(threads), "log_to_driver": verbose}
    with usual_sigterm(), adopted_orphans():  # the node's agents may outlive the node
        try:
            if address:
                _connect(ray, address, common)
            else:
                _start(ray, gpus, temporary_folder(cache), common)
                if threading.current_thread() is threading.main_thread():
                    raise_on_sigterm()  # Ray's own kills its processes, at whose end this one aborts in C++
            yield ray
        finally:
            with undisturbed():
                ray.shutdown()
                if not address:
                    end_descendants(grace_s=20.0)


def _connect(ray: ModuleType, address: str, common: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, TimeoutError) as problem:
        raise RunFailed(
            f"no Ray cluster at RAY_ADDRESS={address}: {problem}\nunset RAY_ADDRESS to start one on this machine"
        ) from problem


def _start(ray: ModuleType, gpus: int, folder: str, common: dict[str, Any]) -> None:
    try:
        for left in reversed(range(_STARTS)):
            try:
                _init(ray, gpus, folder, common)
                return
            except NodeEnded:
                if not left:
                    raise
                with undisturbed():  # what it started beside the node
                    ray.shutdown()
                    end_descendants(grace_s=0.0)
    except Exception as problem:  # Ray raises plain ones
        raise RunFailed(
            f"Ray did not start on this machine: {problem}\n"
            f"waited for its node for up to {start_limit_s():g} s ({START_LIMIT}=SECONDS waits longer)\n"
            f"its logs: {folder}/session_latest/logs"
        ) from problem


def _init(ray: ModuleType, gpus: int, folder: str, common: dict[str, Any]) -> None:
    ray.init(
        address="local",
        num_cpus=max(_LOGICAL_CPUS, os.cpu_count() or 1),
        num_gpus=None if has_cuda() else gpus,
        include_dashboard=False,
        object_store_memory=None if has_cuda() else 256 << 20,
        _temp_dir=folder,
        logging_level="WARNING",
        **common,
    )
