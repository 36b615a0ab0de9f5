"""A job file's text: from a file, standard input (`-`) or a pipe (`<(…)`); and what a text is that is no job."""

import os
import re
import stat
import sys
from pathlib import Path

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.values import cut

STANDARD_INPUT = Path("-")
MOST_BYTES = 32 << 20
_SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch")


def source_name(path: Path) -> str:
    """The job file's name in messages; a URL in full, which a Path writes with one slash."""
    if path == STANDARD_INPUT:
        return "standard input"
    return cut(re.sub(r"^(\w+):/(?!/)", r"\1://", str(path)), 200)


def read_text(path: Path) -> str:
    """The text of a job file.

    Raises:
        JobError: no such file, not readable, too large, or not UTF-8 text.
    """
    name = source_name(path)
    try:
        content = _read_bytes(path, name)
    except OSError as error:
        raise JobError(f"job file: got {name}, which cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise JobError(
            f"job file: got {name}, which has more than {MOST_BYTES >> 20} MiB; give a YAML job file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "UTF-16" if utf16 else f"the byte 0x{content[error.start]:02x}, which no UTF-8 text has there"
        raise JobError(f"{name}, line {line}: got {found}; save the file as UTF-8 text") from error


def is_script(path: Path, text: str) -> bool:
    """Whether a text that is no job is a launch script or command of OpenRLHF's."""
    if path.suffix in _SCRIPTS or text.startswith("#!"):
        return True
    return re.search(r"^[^#\n]*train_ppo_ray", text, re.MULTILINE) is not None


def script_error(path: Path) -> JobError:
    """The error for a script that is given as a job file."""
    name = source_name(path)
    return JobError(
        f"{name}, line 1: got a shell script or command line, expected a YAML job file; "
        f"openrlhf-mtp convert {name} --out job.yaml makes one of it"
    )


def _read_bytes(path: Path, name: str) -> bytes:
    if path == STANDARD_INPUT and sys.stdin is not None:
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    if "://" in name:
        raise JobError(f"job file: got {name}, which is on the network; download it and give the file")
    if not _is_readable(path):
        raise JobError(
            f"job file: got {name}, which is not a file (looked from {Path.cwd()}); give a YAML job file"
        )
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _is_readable(path: Path) -> bool:
    """Whether a path is a file, a pipe or a terminal: no folder, and no device that never ends."""
    if os.path.isfile(path):
        return True
    if not os.path.exists(path):
        return False
    kind = path.stat().st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or (stat.S_ISCHR(kind) and _is_terminal(path))


def _is_terminal(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return file.isatty()
