"""Fresh processes for tests that import OpenRLHF: its patches and its process groups stay out of pytest's own.

They are forked from a server that has imported the libraries below OpenRLHF once (`tests.warm_imports`), which saves
most of a start. Environment and folder are those of the caller all the same, but for what a library
reads while it is imported (`HF_HOME`, `DS_ACCELERATOR`): a test that sets such a variable passes `warm=False`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import shutil
import socket
import traceback
from collections.abc import Callable
from typing import Any

from tests.patience import seconds


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now.

    Below those that the system hands out by itself: other tests run beside this one and would get it a moment later.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def forking() -> Any:
    """A context of `multiprocessing` whose processes are forked from the server.

    On a host with a GPU it has imported torch alone: other libraries look for the device while they are imported, and
    what a server has opened its processes could not use.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"] if shutil.which("nvidia-smi") else ["tests.warm_imports"])
    return context


def _child(
    connection: Any, folder: str, environment: dict[str, str], function: Callable[..., Any], args: Any
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        connection.send((True, function(*args)))
    except BaseException:
        connection.send((False, traceback.format_exc()))


def on_ranks(
    ranks: int, function: Callable[..., Any], *args: Any, timeout_s: float = 600, warm: bool = True
) -> list[Any]:
    """Run a module-level function in `ranks` fresh processes that see no GPU; their (plain) results by rank.

    They find each other through the environment variables of `torch.distributed`.

    Args:
        ranks: how many.
        function: what each runs.
        args: its arguments.
        timeout_s: how long a result may take, scaled to the machine.
        warm: false for a function that must import torch, transformers, DeepSpeed or vLLM itself.

    Raises:
        AssertionError: with a rank's traceback, or when one took too long.
    """
    context: Any = forking() if warm else multiprocessing.get_context("spawn")
    common = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    processes = []
    for rank, (_, there) in enumerate(pipes):
        environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(target=_child, args=(there, os.getcwd(), environment, function, args))
        process.start()
        processes.append(process)
        there.close()
    try:
        return [_result(here, rank, timeout_s) for rank, (here, _) in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(seconds(5))
            process.kill()


def in_fresh_process(
    function: Callable[..., Any], *args: Any, timeout_s: float = 300, warm: bool = True
) -> Any:
    """`on_ranks` with one rank."""
    return on_ranks(1, function, *args, timeout_s=timeout_s, warm=warm)[0]


def _result(connection: Any, rank: int, timeout_s: float) -> Any:
    limit_s = seconds(timeout_s)
    assert connection.poll(limit_s), f"rank {rank}: no result within {limit_s:g} s"
    try:
        succeeded, result = connection.recv()
    except EOFError:
        raise AssertionError(f"rank {rank} ended without a result") from None
    assert succeeded, f"rank {rank}:\n{result}"
    return result
