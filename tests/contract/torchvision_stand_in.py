"""Stands in for torchvision, which has no build for a CPU host here: vLLM's module of Qwen3.5 imports it for images.

Copied to a folder of its own as `torchvision/__init__.py`. Whatever is imported from it is there and does nothing.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar


class Anything(ModuleType):
    """A module whose attributes are modules, and which can be called."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class Finder(MetaPathFinder, Loader):
    """Finds every module below torchvision."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Ours, or nothing."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith("torchvision.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A stand-in."""
        return Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It is complete."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything(f"torchvision.{name}")


if __name__ == "torchvision":
    sys.meta_path.insert(0, Finder())
