"""Write requirements/cpu.txt, test.txt and tools.txt from the `.in` files and the installed environment.

    .venv/bin/python scripts/lock.py            cpu.txt, test.txt and tools.txt
    .venv/bin/python scripts/lock.py gpu UV     gpu.txt, resolved by the uv at UV, on any host

Follows the installed packages' own metadata from the direct requirements, so that the lock holds what is
needed and nothing else. Fails when a requirement is not installed, or at another version than asked. The GPU stack
cannot be installed on every host, so its lock is resolved; packages that the CPU stack has too keep that version where
both can.
"""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Set
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).parent.parent / "requirements"
# No published build of these works without CUDA.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "flash-attn"}
# Installed by scripts/setup.sh before the lock; what it needs itself is locked.
INSTALLED_FIRST = {"torch"}
# Comes to the helper pods for its source alone.
READ_ONLY = {"openrlhf"}


def normal(name: str) -> str:
    """A package name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(file: Path) -> list[Requirement]:
    """The requirements of a `.in` file."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def closure(
    roots: list[Requirement], bare: Set[str] = frozenset()
) -> dict[str, importlib.metadata.Distribution]:
    """Every installed distribution that the roots need, by normal name; `bare` ones without what they need."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = list(roots)
    while todo:
        requirement = todo.pop()
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key[0] in LEFT_OUT or key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        if requirement in roots and not requirement.specifier.contains(distribution.version):
            sys.exit(
                f"{requirement} is asked for and {distribution.version} is installed: install it, then lock"
            )
        found[key[0]] = distribution
        for text in [] if key[0] in bare else distribution.requires or []:
            needed = Requirement(text)
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def write(name: str, distributions: dict[str, importlib.metadata.Distribution]) -> None:
    """Write one lock file."""
    lines = [
        f"{key}=={distribution.version}"
        for key, distribution in sorted(distributions.items())
        if key not in INSTALLED_FIRST
    ]
    header = f"# Written by scripts/lock.py from {name}.in; reasons are there.\n"
    (FOLDER / f"{name}.txt").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def write_gpu(uv: str) -> None:
    """Resolve the GPU stack for Linux, without flash-attention, which is built against the torch of this lock."""
    versions = (FOLDER.parent / "docker" / "versions.env").read_text(encoding="utf-8")
    flash = re.search(r"^FLASH_ATTN_VERSION=(.*)$", versions, re.MULTILINE)
    assert flash is not None
    with tempfile.TemporaryDirectory() as folder:
        config, found = Path(folder, "uv.toml"), Path(folder, "gpu.txt")
        config.write_text(  # else uv would build it to learn what it needs
            '[[dependency-metadata]]\nname = "flash-attn"\nrequires-dist = ["torch", "einops"]\n'
            f'version = "{flash[1]}"\n'
        )
        found.write_text((FOLDER / "cpu.txt").read_text())  # uv prefers the versions of the file it writes
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--config-file", config]
        command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        subprocess.run([*command, FOLDER / "gpu.in", "--output-file", found], check=True)
        lines = [line for line in found.read_text().splitlines() if not line.startswith("flash-attn==")]
    header = "# Written by scripts/lock.py from gpu.in; reasons are there.\n"
    (FOLDER / "gpu.txt").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements/gpu.txt: {len(lines)} packages")


def main() -> None:
    """Write all three; the test lock holds only what the first one does not."""
    if sys.argv[1:2] == ["gpu"]:
        write_gpu(sys.argv[2])
        return
    cpu = closure(direct(FOLDER / "cpu.in"))
    test = closure(direct(FOLDER / "test.in"))
    write("cpu", cpu)
    write("test", {key: one for key, one in test.items() if key not in cpu})
    write("tools", closure(direct(FOLDER / "tools.in"), READ_ONLY))


if __name__ == "__main__":
    main()
