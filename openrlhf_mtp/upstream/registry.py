"""Everything that is replaced, found in the modules of this package."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from openrlhf_mtp import upstream
from openrlhf_mtp.upstream.replacement import Replacement

LISTS = ("processes", "vllm.patches")
"""Modules that name the patches of a process, which others define."""


def replacements() -> dict[str, tuple[Replacement, ...]]:
    """The replacements that each module of this package defines, by the module's name below the package.

    A module defines those that are its globals, alone or in a tuple.
    """
    names = sorted(info.name for info in _modules() if not info.ispkg)
    by_module = {
        name.removeprefix(f"{upstream.__name__}."): tuple(_defined(importlib.import_module(name)))
        for name in names
    }
    return {name: own for name, own in by_module.items() if own and name not in LISTS}


def _modules() -> Iterator[pkgutil.ModuleInfo]:
    return pkgutil.walk_packages(upstream.__path__, f"{upstream.__name__}.")


def _defined(module: ModuleType) -> Iterator[Replacement]:
    for value in vars(module).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Replacement):
                yield one


@dataclass(frozen=True)
class State:
    """The replacements of this process.

    Attributes:
        live: how many have, or can have, their effect.
        waiting: how many have a target that was not imported.
        dead: names of those without effect.
    """

    live: int
    waiting: int
    dead: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.live} live, {self.waiting} wait for their module" + "".join(
            f", without effect: {name}" for name in self.dead
        )


def state() -> State:
    """Probe every replacement whose target this process has imported."""
    everything = [one for own in replacements().values() for one in own]
    imported = [one for one in everything if one.target in sys.modules]
    dead = tuple(one.name for one in imported if not one.is_live(sys.modules[one.target]))
    return State(len(imported) - len(dead), len(everything) - len(imported), dead)
