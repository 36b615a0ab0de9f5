"""What each layer of packages weighs, from the lock: no wheel is downloaded.

    python docker/sizes.py gpu|cpu|tools

Asks the index that pip is set up with: its JSON has each wheel's size (PEP 691, PEP 700), and the directory at a
wheel's end, read alone, the size of every file in it. Bytecode, which install.sh adds, is estimated. Not counted: the
base image, system packages, CUDA's compiler, flash-attention's kernels.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from layers import LAYERS, layer_of
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from uv_environment import pip_settings  # noqa: E402

TORCH_CPU = "https://download.pytorch.org/whl/cpu"
"""Where install.sh looks for torch's CPU build when pip's own index has none."""
BYTECODE = 1.18
"""Bytes of bytecode for a byte of Python: measured over 9,837 modules (163 MB) of the CPU packages."""
DIRECTORY_BYTES = 1 << 18
"""Read from a wheel's end at first: the directory of all but the largest."""
PYTHON, GLIBC = (3, 11), range(39, 4, -1)


@dataclass(frozen=True)
class Wheel:
    """Attributes:
    name: the package.
    packed: bytes to download; None when the index has no wheel for this platform.
    unpacked: bytes of its files.
    python: bytes of its modules.
    """

    name: str
    packed: int | None
    unpacked: int = 0
    python: int = 0

    @property
    def on_disk(self) -> float:
        """Bytes with bytecode, estimated."""
        return self.unpacked + BYTECODE * self.python


class Remote(io.RawIOBase):
    """A file behind a URL whose end alone is read; for `zipfile`."""

    def __init__(self, url: str, size: int) -> None:
        self.url, self.size, self.at = url, size, 0
        self.end = b""

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As in files."""
        self.at = (0, self.at, self.size)[whence] + offset
        return self.at

    def tell(self) -> int:
        """As in files."""
        return self.at

    def read(self, count: int = -1) -> bytes:
        """As in files; fetches what is missing from here to the end."""
        stop = self.size if count < 0 else min(self.size, self.at + count)
        if self.at < self.size - len(self.end):
            start = max(0, min(self.at, self.size - DIRECTORY_BYTES))
            with _open(self.url, Range=f"bytes={start}-{self.size - 1}") as answer:
                if answer.status != 206:
                    raise ValueError(f"{self.url}: the index sends whole files only (status {answer.status})")
                self.end = answer.read()
        first = self.size - len(self.end)
        self.at, data = max(self.at, stop), self.end[self.at - first : stop - first]
        return data


def _open(url: str, **headers: str) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120)


def tags(machine: str = "x86_64") -> dict[Tag, int]:
    """Tag of a wheel that installs on Linux -> its rank, best first."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC]
    platforms += [f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    interpreter = f"cp{PYTHON[0]}{PYTHON[1]}"
    ordered = [*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, interpreter, platforms)]
    return {tag: rank for rank, tag in reversed([*enumerate(ordered)])}


def best(files: list[dict[str, Any]], version: str, ranks: dict[Tag, int]) -> dict[str, Any] | None:
    """The wheel of that version that pip would take, of an index page's files."""
    found: list[tuple[int, dict[str, Any]]] = []
    for file in files:
        try:
            _, at, _, of = parse_wheel_filename(file["filename"])
        except InvalidWheelFilename:
            continue
        fits = [ranks[tag] for tag in of if tag in ranks]
        if str(at) == version and fits and not file.get("yanked"):
            found.append((min(fits), file))
    return min(found, key=lambda one: one[0])[1] if found else None


def look_up(name: str, version: str, indices: list[str], ranks: dict[Tag, int]) -> Wheel:
    """Size of a package's wheel, from the first index that has it."""
    for index in indices:
        page = f"{index.rstrip('/')}/{name}/"
        try:
            with _open(page, Accept="application/vnd.pypi.simple.v1+json") as answer:
                if "json" not in answer.headers["Content-Type"]:
                    continue  # older than PEP 691
                file = best(json.load(answer)["files"], version, ranks)
        except urllib.error.URLError:
            continue
        if file and file.get("size"):
            listed = zipfile.ZipFile(Remote(urljoin(page, file["url"]), file["size"])).infolist()
            python = sum(one.file_size for one in listed if one.filename.endswith(".py"))
            return Wheel(name, file["size"], sum(one.file_size for one in listed), python)
    return Wheel(name, None)


def locked(target: str) -> Iterator[tuple[str, str]]:
    """Name and version of each package of a target; torch's CPU build is installed beside its lock."""
    for line in (ROOT / "requirements" / f"{target}.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?==([^ ;]+)", line):
            yield match[1], match[2]
    if target == "cpu":
        versions = (ROOT / "docker" / "versions.env").read_text(encoding="utf-8")
        yield "torch", re.findall(r"^TORCH_VERSION=(.*)$", versions, re.MULTILINE)[0] + "+cpu"


def _pips_own_index() -> str:
    # pip has no public name for it
    from pip._internal.models.index import PyPI

    return str(PyPI.simple_url)


def indices() -> list[str]:
    """Where pip looks, as far as it is the web."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = pip_settings(listing)
    given = [
        settings.get("index-url", _pips_own_index()),
        *settings.get("extra-index-url", "").split(),
    ]
    if cert := settings.get("cert"):
        os.environ.setdefault("SSL_CERT_FILE", cert)
    return [index for index in given if index.startswith("http")]


def table(wheels: list[Wheel]) -> str:
    """The layers, largest packages named."""
    lines = ["layer          packages  download MB  on disk MB  largest (download MB)"]
    known = [wheel for wheel in wheels if wheel.packed is not None]
    for layer in LAYERS:
        of = sorted((one for one in known if layer_of(one.name) == layer), key=lambda one: -(one.packed or 0))
        if of:
            names = ", ".join(f"{one.name} {(one.packed or 0) / 1e6:.0f}" for one in of[:3])
            lines.append(f"{layer:<14} {_row(of)}  {names}")
    lines.append(f"{'all':<14} {_row(known)}")
    if unknown := [wheel.name for wheel in wheels if wheel.packed is None]:
        lines.append(f"no wheel in the index, not counted: {', '.join(unknown)}")
    return "\n".join(lines)


def _row(wheels: list[Wheel]) -> str:
    packed, disk = sum(one.packed or 0 for one in wheels), sum(one.on_disk for one in wheels)
    return f"{len(wheels):8}  {packed / 1e6:11,.0f}  {disk / 1e6:10,.0f}"


def main() -> None:
    """Print the table of a target."""
    if len(sys.argv) != 2 or not (ROOT / "requirements" / f"{sys.argv[1]}.in").exists():
        sys.exit("usage: python docker/sizes.py gpu|cpu|tools")
    where, ranks = indices(), tags()

    def one(package: tuple[str, str]) -> Wheel:
        extra = [TORCH_CPU] if package[1].endswith("+cpu") else []
        return look_up(*package, [*where, *extra], ranks)

    with ThreadPoolExecutor(8) as pool:
        print(table(list(pool.map(one, locked(sys.argv[1])))))


if __name__ == "__main__":
    main()
