"""A run's notices beside its numbers: `notices.jsonl` in its folder, one JSON text a line.

Any process of a run may say something there. The driver shows it as a warning during the run
(`cli.progress.run_line`), and the report repeats it, so that nothing is left in a worker's log that a user should know.
"""

import json
from pathlib import Path

from openrlhf_mtp.config.run_files import NOTICES

_said: set[tuple[Path, str]] = set()


def say(out: Path, text: str) -> None:
    """Add one notice to the run in `out`; a process says the same text once.

    Args:
        out: the run folder.
        text: what happened, at which step, and what can be done about it; one paragraph.
    """
    key = (out.absolute(), text)
    if key in _said:
        return
    _said.add(key)
    # One write in append mode: lines of several processes do not mix.
    with (out / NOTICES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(text) + "\n")


def read_notices(out: Path) -> list[str]:
    """Every different notice of a run, in the order first said; a line that was cut off is left out."""
    path = out / NOTICES
    if not path.exists():
        return []
    texts: dict[str, None] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            text = json.loads(line)
        except ValueError:
            continue
        texts[str(text)] = None
    return list(texts)
