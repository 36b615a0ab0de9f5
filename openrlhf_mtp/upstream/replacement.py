"""The declaration of a replacement in a dependency, and the two kinds that are made where they are needed.

A `Binding` puts a class or function of ours into a module of the dependency; a `Wrapping` wraps a method of one object
for a while. The third kind, `patching.Patch`, is applied in every process when its module is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

Method = Callable[..., Any]


class ReplacementInactiveError(RuntimeError):
    """A replacement was made and its probe says that it has no effect."""


@dataclass(frozen=True, kw_only=True)
class Replacement(ABC):
    """Something of a dependency in whose place ours is used.

    Attributes:
        name: what it does, for messages.
        target: dotted name of the module that is changed.
        touches: what is replaced, as paths inside that module: `function`, `Class.method`.
        reason: why the dependency cannot be used as it is.
        versions: versions it was checked on, for the person who upgrades.
    """

    name: str
    target: str
    touches: tuple[str, ...]
    reason: str
    versions: str

    @abstractmethod
    def is_live(self, module: ModuleType) -> bool:
        """Probe the imported target: true when the replacement has, or can have, its effect there."""

    def missing(self, module: ModuleType) -> list[str]:
        """The touched names that the imported target does not have."""
        return [path for path in self.touches if not _has(module, path)]


def _has(owner: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


@dataclass(frozen=True, kw_only=True)
class Binding(Replacement):
    """Globals of a module in whose place ours are looked up, in one process.

    OpenRLHF has no plug-in points: its functions find their collaborators by the global names of their module.
    """

    def is_live(self, module: ModuleType) -> bool:
        """True when the module has every global that is to be replaced."""
        return not self.missing(module)

    def bind(self, module: ModuleType, **ours: Any) -> None:
        """Replace globals of the imported target.

        Raises:
            AttributeError: a name does not exist there, so that the dependency was changed and the seam moved.
        """
        assert module.__name__ == self.target, f"{module.__name__} is not {self.target}"
        assert set(ours) <= set(self.touches), f"{self.name}: {sorted(ours)} are not all in {self.touches}"
        missing = self.missing(module)
        if missing:
            raise AttributeError(
                f"{module.__name__} has no {', '.join(missing)}: the installed version is not {self.versions}"
            )
        for name, value in ours.items():
            setattr(module, name, value)


@dataclass(frozen=True, kw_only=True)
class Wrapping(Replacement):
    """A method that is wrapped on one object, for the time of a context."""

    def is_live(self, module: ModuleType) -> bool:
        """True when the module has the method; whether it is called shows when the context ends."""
        return not self.missing(module)

    @contextmanager
    def around(self, owner: Any, wrap: Callable[[Method], Method]) -> Iterator[None]:
        """Within this context the method of `owner` is what `wrap` makes of it.

        Raises:
            ReplacementInactiveError: the context ended without a call, so that the method is no seam any more.
        """
        (path,) = self.touches
        method = path.rpartition(".")[2]
        own, wrapped = vars(owner).get(method), wrap(getattr(owner, method))
        called = False

        def noticed(*args: Any, **kwargs: Any) -> Any:
            nonlocal called
            called = True
            return wrapped(*args, **kwargs)

        setattr(owner, method, noticed)
        try:
            yield
        finally:
            delattr(owner, method)  # the class's method again
            if own is not None:
                setattr(owner, method, own)
        if not called:
            raise ReplacementInactiveError(
                f"{self.name}: {path} of {self.target} was not called (checked on {self.versions}); it is wrapped "
                f"because: {self.reason}. Install the pinned versions."
            )
