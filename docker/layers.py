"""An environment's files shared out over folders, one a layer of the image.

    layers.py VENV FOLDER      moves every file of VENV into FOLDER/<layer>/<path of VENV>

Layers are pulled beside each other and an update pulls only those that differ, so the large packages lie apart. A
package falls into the first layer whose pattern its name matches, and files of no package (the interpreter's links,
what pip wrote beside) into the last one, which matches every name.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

LAYERS = {
    "nvidia-math": r"nvidia-(cublas|cuda-.*|cudnn-.*)",
    "nvidia": r"nvidia-(?!ml-py).*|cuda-.*",  # nvidia-ml-py is a module of Python, needed without a GPU too
    "torch": r"torch|(.*-)?triton",
    "vllm": r"vllm(-cpu)?|flashinfer-.*",
    "flash-attn": r"flash-attn",
    "rest": r".*",
}
"""Layer -> pattern of its packages' names as PyPI compares them; the first that matches counts."""


def layer_of(package: str) -> str:
    """The layer of a package, by its name in any spelling."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    return next(layer for layer, pattern in LAYERS.items() if re.fullmatch(pattern, name))


def owners(site: Path) -> dict[Path, str]:
    """File -> layer, for every file that an installed package of this site-packages folder lists as its own."""
    found: dict[Path, str] = {}
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        for file in distribution.files or []:
            # normalized: scripts are listed as ../../../bin/x
            path = Path(*_normal((site / file).parts))
            found.setdefault(path, layer_of(distribution.metadata["Name"]))
    return found


def _normal(parts: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return kept


def source_of(path: Path) -> Path:
    """The module that a compiled one was made from; any other file itself."""
    if path.parent.name == "__pycache__" and path.suffix == ".pyc":
        return path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path


def split(venv: Path, folder: Path) -> dict[str, int]:
    """Move every file of the environment; returns layer -> bytes. Every layer gets its folder, also an empty one.

    Raises:
        ValueError: not an environment with packages.
    """
    sites = sorted(venv.glob("lib/python3*/site-packages"))
    if len(sites) != 1:
        raise ValueError(f"{venv}: got {len(sites)} site-packages folders, expected an environment with one")
    found = owners(sites[0])
    sizes = dict.fromkeys(LAYERS, 0)
    files = [path for path in venv.rglob("*") if path.is_symlink() or not path.is_dir()]
    for layer in LAYERS:
        (folder / layer).mkdir(parents=True, exist_ok=True)
    for path in files:
        layer = found.get(source_of(path), list(LAYERS)[-1])
        target = folder / layer / path.absolute().relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        sizes[layer] += path.lstat().st_size
        path.rename(target)
    return sizes


def main() -> None:
    """Split, and say what went where."""
    if len(sys.argv) != 3:
        sys.exit("usage: layers.py VENV FOLDER")
    venv, folder = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    for layer, size in split(venv, folder).items():
        print(f"layers: {layer:<12} {size / 1e6:8,.0f} MB")


if __name__ == "__main__":
    main()
