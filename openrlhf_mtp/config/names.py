"""Unknown names, with the nearest known one."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(name: str, known: Iterable[str]) -> str:
    """One line that says `name` is not known and offers the nearest name.

    >>> unknown("actor.adam.ir", ["actor.adam.lr", "critic.adam.lr"])
    'actor.adam.ir: unknown key; did you mean actor.adam.lr?'
    """
    known = list(known)
    leaf = name.rpartition(".")[2]
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    nearest = get_close_matches(name, same_leaf, n=1, cutoff=0.5) or get_close_matches(
        name, known, n=1, cutoff=0.5
    )
    nearest = nearest or same_leaf[:1]
    return f"{name}: unknown key" + (f"; did you mean {nearest[0]}?" if nearest else "")
