"""Files that appear whole or not at all, whatever stops the process that writes them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a hidden path beside `path` to write to, and move it over `path` at the end.

    After an exception `path` is as it was, and the part that was written is removed. A process that is killed leaves
    the part behind; the next one to write `path` replaces it.

    Args:
        path: the file to make or replace; its folder exists.

    Raises:
        OSError: the file cannot be moved.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8, flushed to the disk before the file gets its name.

    Args:
        path: the file to make or replace; its folder exists.
        text: the whole content.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file's content.

    Args:
        source: the file; a link is followed.
        target: the file to make or replace; its folder exists.

    Raises:
        OSError: the file cannot be read or written.
    """
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
