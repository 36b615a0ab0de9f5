"""The processes below this one: how much memory they take together, and that none outlives the command, however it is
told to end."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import psutil

_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37
"""Of `prctl`, which Python does not offer (Linux, include/uapi/linux/prctl.h)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. It ends a command as Ctrl-C does, with another exit code."""


def tree_memory_bytes() -> int:
    """Memory of this process and all below it; shared pages are counted once (proportional set size)."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue  # ended meanwhile, or a system without PSS
    return total


class PeakMemory:
    """The highest memory of the process tree that was seen so far, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def sample(self) -> None:
        """Measure the memory now and keep the peak."""
        self.bytes = max(self.bytes, tree_memory_bytes())


def sampling_interval_s(*, has_cuda: bool) -> float:
    """Seconds between two samples. With a GPU a process may hold 100 GB of pinned memory, and counting its pages takes
    seconds in which its memory map is locked."""
    return 60.0 if has_cuda else 2.0


@contextmanager
def peak_memory(interval_s: float = 2.0) -> Iterator[PeakMemory]:
    """Sample the process tree in the background while the context lasts.

    Args:
        interval_s: between two samples; see `sampling_interval_s` for a run on a GPU.
    """
    peak, done = PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(interval_s):
            peak.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.sample()
        done.set()
        thread.join()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while the context lasts: a second one would leave behind what is being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises `Terminated` in the main thread, from which alone this may be called."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


@contextmanager
def usual_sigterm() -> Iterator[None]:
    """SIGTERM does after the context what it did before, whoever set a handler within."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def adopted_orphans() -> Iterator[None]:
    """While the context lasts, a process whose parent has ended stays below this one, where `end_descendants` finds it;
    elsewhere than on Linux it goes to the system's first process as usual."""
    if not sys.platform.startswith("linux"):
        yield
        return
    system, before = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    system.prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    system.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        system.prctl(_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def end_descendants(grace_s: float) -> list[int]:
    """Wait for all processes below this one to end, then end those that did not; returns their ids."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=grace_s)
    for process in alive:
        process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=5.0)
    for process in stubborn:
        process.kill()
    return [process.pid for process in alive]
