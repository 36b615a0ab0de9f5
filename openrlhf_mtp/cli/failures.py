"""Errors that cross Ray arrive wrapped; the user sees the one that a worker raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RunFailed(RuntimeError):
    """A run ended with an error in one of its processes; the message is that error's."""


@contextmanager
def user_facing_errors() -> Iterator[None]:
    """Unwrap Ray's task errors.

    Raises:
        RunFailed: with the worker's error type and message; its traceback is the cause.
    """
    from ray.exceptions import RayActorError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        raise RunFailed(f"{type(cause).__name__}: {cause}") from error
    except RayActorError as error:
        raise RunFailed(f"a process of the run died: {error}") from error
