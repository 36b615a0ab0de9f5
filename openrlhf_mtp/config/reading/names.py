"""Unknown names, with what was probably meant: the name that replaced an old one, or the nearest known one."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

from openrlhf_mtp.config.reading.old_names import DROPPED, RENAMED, advice, name_today
from openrlhf_mtp.config.reading.values import cut

_NAME_CUTOFF = 0.8
"""A name less alike than this is another setting, not a slip: names of OpenRLHF's forks find nothing."""
_LEAF_CUTOFF = 0.5
"""As much as `ir` is like `lr`."""
_LENGTHS_APART = 2
"""`ref_pretrain`, of a fork, is no slip for `reward_pretrain`."""
_MOST_SHOWN = 6
_LONGEST = 100
"""A longer name is no slip of the pen, and comparing it takes long."""


def unknown(name: str, known: Iterable[str]) -> str:
    """One line that says `name` is not known and what it is called.

    OpenRLHF's old names come first, because the nearest name of today is often another setting: `temperature` would
    be taken for `eval.temperature`. Otherwise the same key in other sections, or a slip of the pen.

    >>> unknown("actor.adam.ir", ["actor.adam.lr", "critic.adam.lr"])
    'actor.adam.ir: unknown key; did you mean actor.adam.lr?'
    >>> unknown("pretrain", ["actor.model_name_or_path", "mtp.pretrain.epochs"])
    'pretrain: unknown key; did you mean actor.model_name_or_path, its name since OpenRLHF 0.10.2?'
    """
    if len(name) > _LONGEST:
        return f"{cut(name)}: unknown key"
    if name in RENAMED:
        return f"{name}: unknown key; it is called {RENAMED[name]} now"
    others = [other for other in known if other != name]
    today = name_today(name)
    if today in others:
        more = advice(name)
        since = "" if "." in name else ", its name since OpenRLHF 0.10.2"
        return f"{name}: unknown key; did you mean {today}{since}?" + (f" ({more})" if more else "")
    if name in DROPPED:
        return f"{name}: unknown key; OpenRLHF has it no more: {DROPPED[name]}"
    elsewhere = _same_leaf(name, others)
    if elsewhere:
        return f"{name}: unknown key; there {'is' if len(elsewhere) == 1 else 'are'} {_listed(elsewhere)}"
    meant = _nearest(name, others)
    return f"{name}: unknown key" + (f"; did you mean {meant}?" if meant else "")


def _nearest(name: str, known: list[str]) -> str | None:
    """The most similar name, if whole name and last part are both similar enough, or one letter alone differs."""
    for other in get_close_matches(name, known, n=1, cutoff=_NAME_CUTOFF):
        if len(name) == len(other) and sum(a != b for a, b in zip(name, other, strict=True)) == 1:
            return other  # it may be the dot, and then there is no last part to compare
        alike = SequenceMatcher(None, _leaf(name), _leaf(other)).ratio() >= _LEAF_CUTOFF
        if alike and abs(len(name) - len(other)) <= _LENGTHS_APART:
            return other
    return None


def _same_leaf(name: str, known: list[str]) -> list[str]:
    """Names that end alike, for a key without its section or in a wrong one; none for a section nobody knows."""
    section = name.rpartition(".")[0]
    if section and not any(other.startswith(f"{section}.") for other in known):
        return []
    return [other for other in known if _leaf(other) == _leaf(name)]


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`; only the number of very many."""
    if len(names) > _MOST_SHOWN:
        return f"{len(names)} in other sections"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
