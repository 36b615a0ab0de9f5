"""Check that commit messages have the form of CONTRIBUTING.md: `room: imperative`, at most 72 characters, then why.

python scripts/commit_form.py main..HEAD    the commits of a branch, without merges
python scripts/commit_form.py FILE          one message, as git's hook `commit-msg` calls it
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 72
SUBJECT = re.compile(r"(?P<rooms>[\w./-]+(, [\w./-]+)*): (?P<what>\S.*)")
REVERT = re.compile(r'Revert "|Reapply "')


def rooms() -> set[str]:
    """Return the names that may precede the colon: folders, files at the top without their ending, and `all`."""
    top = [path for path in ROOT.iterdir() if not path.name.startswith(".") or path.name == ".github"]
    inner = [path for path in (ROOT / "openrlhf_mtp").iterdir() if path.is_dir()]
    return {path.name.strip(".").partition(".")[0].lower() for path in [*top, *inner]} | {"all"}


def subject_faults(subject: str, known: set[str]) -> Iterator[str]:
    """Yield what is wrong with the first line of a message."""
    if len(subject) > WIDTH:
        yield f"subject: got {len(subject)} characters, expected at most {WIDTH}"
    found = SUBJECT.fullmatch(subject)
    if found is None:
        yield "subject: expected `room: imperative`, for example `losses: mask prompt tokens`"
        return
    for room in found["rooms"].split(", "):
        if room.partition("/")[0].lower() not in known:
            yield f"subject: {room} is no folder of the project; use one, or `all`"
    if found["what"][0].isupper() and not found["what"].split()[0].isupper():
        yield "subject: expected a lower-case letter after the colon"
    if subject.endswith("."):
        yield "subject: expected no period at the end"


def body_faults(lines: list[str]) -> Iterator[str]:
    """Yield what is wrong with the lines after the subject."""
    if not any(line.strip() for line in lines):
        yield "body: missing; say why, after a blank line"
        return
    if lines[0].strip():
        yield "body: expected a blank line after the subject"
    for line in lines:
        if len(line) > WIDTH and " " in line.strip():  # an address cannot be wrapped
            yield f"body: got a line of {len(line)} characters, expected at most {WIDTH}: {line[:40]}…"


def faults(message: str, known: set[str]) -> list[str]:
    """Return what is wrong with a message, nothing for a revert.

    Args:
        message: The whole message; lines that start with `#` are git's own comments.
        known: Names of rooms, see `rooms`.
    """
    text = message.partition("# ------------------------ >8")[0]
    lines = [line.rstrip() for line in text.strip().splitlines() if not line.startswith("#")]
    if not lines or REVERT.match(lines[0]):
        return [] if lines else ["subject: missing"]
    return [*subject_faults(lines[0], known), *body_faults(lines[1:])]


def messages(argument: str) -> list[tuple[str, str]]:
    """Return (name, message) of each commit in a range of git's, or of one file."""
    if ".." not in argument:
        return [(argument, Path(argument).read_text(encoding="utf-8"))]
    command = ["git", "log", "--no-merges", "--reverse", "--format=%h%x00%B%x01", argument, "--"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    entries = [entry.strip().split("\0", 1) for entry in output.split("\1") if entry.strip()]
    return [(name, message) for name, message in entries]


def main(arguments: list[str]) -> int:
    """Print the faults of every message, and return 1 if there is one."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    known = rooms()
    found = [(name, fault) for name, message in messages(arguments[0]) for fault in faults(message, known)]
    for name, fault in found:
        print(f"{name}: {fault}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
