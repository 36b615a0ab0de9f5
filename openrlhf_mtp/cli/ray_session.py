"""A Ray cluster for the time of one command: the user's own, or one on this machine that ends with the command."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrlhf_mtp.cli.processes import end_descendants
from openrlhf_mtp.upstream.cpu_host import has_cuda
from openrlhf_mtp.upstream.processes import prepare_process, quiet_driver, ray_runtime_env

_MAX_TEMP_PATH = 40
"""Ray puts a Unix socket about 65 characters below its folder, and such a path may have 107."""

_LOGICAL_CPUS = 16
"""Ray counts CPUs only to place actors; a small machine must not run out of the count."""


def temporary_folder(cache: Path) -> str:
    folder = cache.resolve() / "ray"
    if len(str(folder)) <= _MAX_TEMP_PATH:
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)
    return tempfile.mkdtemp(prefix="ray-")


@contextmanager
def ray_session(*, gpus: int, verbose: bool = False, cache: Path = Path(".cache")) -> Iterator[Any]:
    """Connect to the cluster of `RAY_ADDRESS`, or start one here.

    On a host without CUDA the local cluster has `gpus` logical ones. On exit every process that was started
    on this machine has ended.

    Args:
        gpus: what the job needs in all.
        verbose: show the workers' output.
        cache: where a local cluster keeps its logs.
    """
    quiet_driver()
    prepare_process()
    import ray

    common: dict[str, Any] = {"runtime_env": ray_runtime_env(), "log_to_driver": verbose}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **common)
    else:
        ray.init(
            address="local",
            num_cpus=max(_LOGICAL_CPUS, os.cpu_count() or 1),
            num_gpus=None if has_cuda() else gpus,
            include_dashboard=False,
            object_store_memory=None if has_cuda() else 256 << 20,
            _temp_dir=temporary_folder(cache),
            logging_level="WARNING",
            **common,
        )
    try:
        yield ray
    finally:
        ray.shutdown()
        if not address:
            end_descendants(grace_s=20.0)
