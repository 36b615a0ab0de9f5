"""`. <(python -m openrlhf_mtp.cluster.caches)`: whether compiled kernels can be kept where the chart says.

Each pod runs it before Ray. Compilers rename files onto others and lock them, which not every volume allows (object
stores), and a pod that was killed while it wrote may have left a file that would end every later start. So the folder
is tried, and such files are deleted; where it cannot be used, the lines printed here take the variables back, and the
pod compiles on its own disk as it would without a cache. It starts in every case. Standard library only.
"""

from __future__ import annotations

import ast
import fcntl
import os
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = "OPENRLHF_MTP_COMPILE_CACHE"
"""Environment variable of the folder."""
VARIABLES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
"""Those that lead into it."""
LIMIT_S = 60.0
"""A volume that takes longer for one small file, or for the list of its files, is of no use."""
_LITERAL = "vllm_compile_cache.py"
_ELF_TABLE = struct.Struct("<QIHHHHHH")
"""From byte 40 of a 64-bit ELF file: where its section headers are, and after six more fields their size and number."""


def try_folder(folder: Path) -> None:
    """Do in a folder what compilers do.

    Raises:
        OSError: it cannot be written to, or does not allow that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    probe.write_text("old", encoding="utf-8")
    try:
        new = probe.with_suffix(".new")
        new.write_text("new", encoding="utf-8")
        new.replace(probe)
        with probe.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        probe.unlink(missing_ok=True)


def damaged(folder: Path) -> Iterator[Path]:
    """Files that were not written to their end: vLLM's list of what it compiled, libraries of FlashInfer and others."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if (name == _LITERAL and not _is_literal(path)) or (name.endswith(".so") and not _is_whole(path)):
                yield path


def _is_literal(path: Path) -> bool:
    try:
        ast.literal_eval(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Whether a library reaches to its last section header, which linkers write last."""
    with path.open("rb") as file:
        head = file.read(40 + _ELF_TABLE.size)
    if len(head) < 40 + _ELF_TABLE.size or head[:5] != b"\x7fELF\x02":
        return False
    start, _, _, _, _, size, number, _ = _ELF_TABLE.unpack_from(head, 40)
    return bool(path.stat().st_size >= start + size * number)


def problem_of(folder: str, limit_s: float = LIMIT_S) -> str:
    """Why a folder cannot be used, empty when it can. Another process looks: a volume that hangs hangs that one.

    Args:
        folder: its path.
        limit_s: seconds that looking may take.
    """
    command = [sys.executable, "-m", "openrlhf_mtp.cluster.caches", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: it may hang in the volume
        return f"it did not answer within {limit_s:g} s"
    return said.strip() if process.returncode else ""


def look(folder: Path) -> str:
    """Try the folder and delete what is damaged in it; the problem, empty when there is none."""
    try:
        try_folder(folder)
        for path in damaged(folder):
            path.unlink(missing_ok=True)
            print(f"compile cache: deleted {path}, which was not written to its end", file=sys.stderr)
    except OSError as problem:
        return f"{problem.strerror or problem} (user {os.getuid()})"
    return ""


def lines(environ: Mapping[str, str]) -> Iterator[str]:
    """Lines for the shell: none where the cache can be used or there is none."""
    folder = environ.get(FOLDER, "")
    problem = problem_of(folder) if folder else ""
    if problem:
        print(
            f"compile cache: {folder} cannot be used: {problem}; kernels are compiled again on this pod's disk. Give "
            "the folder to the pods' user, choose another volume in storage.compileCache, or set "
            "storage.compileCache.enabled=false",
            file=sys.stderr,
        )
        for name in VARIABLES:
            if environ.get(name, "").startswith(f"{folder}/"):
                yield f"unset {name}"


def main(argv: list[str]) -> int:
    """With a folder: look at it, 1 when it cannot be used. Without: the lines for this environment."""
    if argv:
        problem = look(Path(argv[0]))
        print(problem)
        return 1 if problem else 0
    for line in lines(os.environ):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
