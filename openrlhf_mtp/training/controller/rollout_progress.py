"""Progress of a rollout within an RL step, from the engines' counters, for the line of progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openrlhf_mtp.runlog.activity import Activity
from openrlhf_mtp.runlog.generation_progress import LOOK_EVERY_S, GenerationProgress


@contextmanager
def told_progress(
    out: Path, name: str, progress: GenerationProgress, generated: Callable[[], tuple[int, int]]
) -> Iterator[None]:
    """Say how far a rollout is, every few seconds until the context ends; the rollout waits for nothing here.

    Args:
        out: the run folder.
        name: of the rollout.
        progress: what is expected of it.
        generated: tokens sampled and requests ended since the engines started; called in a thread.
    """
    ended, now = threading.Event(), Activity(out, name)

    def watch() -> None:
        with suppress(Exception):  # who waits for the responses says why an engine does not answer
            tokens, requests = generated()
            while not ended.wait(LOOK_EVERY_S):
                more_tokens, more_requests = generated()
                progress.see(more_tokens - tokens, more_requests - requests)
                if not ended.is_set():
                    now.say(f"{name} {progress}")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        now.end()
