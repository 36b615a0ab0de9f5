"""Apply a patch right after the module it changes has been imported, in whichever process that happens.

Ray starts many worker processes and most of them never import torch. A patch is therefore registered by
the name of its target module and applied when that module is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from openrlhf_mtp.upstream.replacement import Replacement, ReplacementInactiveError

Undo = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Patch(Replacement):
    """A change of one module, made in every process that imports the module.

    Attributes:
        apply: changes the freshly imported module.
        probe: true when the change is live in this process.
        before: optional, runs before the target's own code and returns what undoes it afterwards.
    """

    apply: Callable[[ModuleType], None]
    probe: Callable[[ModuleType], bool]
    before: Callable[[], Undo] | None = None

    def is_live(self, module: ModuleType) -> bool:
        """True when the change is live in this process."""
        return self.probe(module)


def _apply(patch: Patch, module: ModuleType) -> None:
    patch.apply(module)
    if not patch.probe(module):
        raise ReplacementInactiveError(
            f"patch {patch.name!r} on {patch.target} has no effect (checked on {patch.versions}); "
            f"it exists because: {patch.reason}. Install the pinned versions."
        )


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds nothing by itself; wraps the loader of patched modules."""

    def __init__(self) -> None:
        self.patches: dict[str, list[Patch]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patches = self.patches.get(name)
        if not patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run_module = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            undo = [patch.before() for patch in patches if patch.before is not None]
            try:
                run_module(module)
            finally:
                for restore in reversed(undo):
                    restore()
            for patch in patches:
                _apply(patch, module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_FINDER = _AfterImport()


def install(patches: Sequence[Patch]) -> None:
    """Register patches; those whose target is already imported are applied at once. Safe to repeat."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for patch in patches:
        known = _FINDER.patches.setdefault(patch.target, [])
        if any(other.name == patch.name for other in known):
            continue
        module = sys.modules.get(patch.target)
        if module is not None:
            _apply(patch, module)
        known.append(patch)


def installed() -> list[Patch]:
    """All registered patches of this process, in order of registration."""
    return [patch for patches in _FINDER.patches.values() for patch in patches]
