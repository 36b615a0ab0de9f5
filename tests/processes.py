"""Fresh processes for tests that import OpenRLHF: its patches and its process groups stay out of pytest's own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
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


def _child(connection: Any, environment: dict[str, str], function: Callable[..., Any], args: Any) -> None:
    os.environ.update(environment)
    try:
        connection.send((True, function(*args)))
    except BaseException:
        connection.send((False, traceback.format_exc()))


def on_ranks(ranks: int, function: Callable[..., Any], *args: Any, timeout_s: float = 600) -> list[Any]:
    """Run a module-level function in `ranks` fresh processes that see no GPU; their (plain) results by rank.

    They find each other through the environment variables of `torch.distributed`. `timeout_s` is scaled to the machine.

    Raises:
        AssertionError: with a rank's traceback, or when one took too long.
    """
    context = multiprocessing.get_context("spawn")
    common = {
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
        process = context.Process(target=_child, args=(there, environment, function, args))
        process.start()
        processes.append(process)
        there.close()
    try:
        return [_result(here, rank, timeout_s) for rank, (here, _) in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(seconds(5))
            process.kill()


def in_fresh_process(function: Callable[..., Any], *args: Any, timeout_s: float = 300) -> Any:
    """`on_ranks` with one rank."""
    return on_ranks(1, function, *args, timeout_s=timeout_s)[0]


def _result(connection: Any, rank: int, timeout_s: float) -> Any:
    limit_s = seconds(timeout_s)
    assert connection.poll(limit_s), f"rank {rank}: no result within {limit_s:g} s"
    try:
        succeeded, result = connection.recv()
    except EOFError:
        raise AssertionError(f"rank {rank} ended without a result") from None
    assert succeeded, f"rank {rank}:\n{result}"
    return result
