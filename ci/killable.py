"""A call in a process of its own, for work that nothing else can end at once.

Python sees no signal while Helm's Go code waits for a hook, and Helm's own cancellation gives up the wait alone: the
install continues in the background and would create the run after its removal.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def killable(function: Callable[..., None], *given: Any) -> None:
    """Call a module-level function in a fresh process; what interrupts the wait kills it, and so does our own end.

    Raises:
        Exception: what the function raised.
        RuntimeError: its process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy Go's runtime without its threads
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_call, args=(there, function, given), daemon=True)
    try:
        child.start()
        there.close()
        problem = here.recv()
    except EOFError:
        child.join()
        problem = RuntimeError(f"{function.__name__}: its process ended with {child.exitcode}")
    finally:
        if child.pid is not None:
            child.kill()
            child.join()
    if problem is not None:
        raise problem


def _call(answer: Connection, function: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*given)
    except Exception as problem:
        answer.send(problem)
    else:
        answer.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
