"""The flags among a command's words, cut as OpenRLHF's argparse cuts them, under old and new names alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from openrlhf_mtp.config.convert.expansion import Field
from openrlhf_mtp.config.convert.parts import LINE_MARK, Holes
from openrlhf_mtp.config.reading.flag_spec import FlagSpecs
from openrlhf_mtp.config.reading.names import unknown
from openrlhf_mtp.config.reading.old_names import DROPPED, SHORT_LIVED, name_today, old_names
from openrlhf_mtp.config.settings.section import mtp_names

_OLD_SWITCHES = frozenset(
    {
        "bf16",
        "flash_attn",
        "enable_vllm_is_correction",
        "use_icepop",
        "use_kl_estimator_k3",
        "universal_ckpt",
        "algo.advantage.is_correction_enable",
        "actor_init_on_gpu",
        "perf",
        "torch_compile",
    }
)
"""Flags of earlier versions that took no value, where today's takes one or there is none."""


@dataclass(frozen=True)
class Given:
    """One flag of the command.

    Attributes:
        name: today's or an old one, without dashes and in full.
        values: the words after it; none for a switch.
        line: of the script.
    """

    name: str
    values: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Unplaced:
    """Something of the command that has no place in the job file: what, and why."""

    line: int
    what: str
    why: str


def cut_flags(words: Iterable[Field], specs: FlagSpecs, holes: Holes) -> tuple[list[Given], list[Unplaced]]:
    """All flags in order, and the words that are none."""
    cutter = _Cutter(specs, holes)
    for word in words:
        cutter.word(word)
    return cutter.done()


class _Cutter:
    def __init__(self, specs: FlagSpecs, holes: Holes) -> None:
        self.specs, self.holes = specs, holes
        self.arity = _arity(specs)
        self.given: list[Given] = []
        self.unplaced: list[Unplaced] = []
        self.flag: Field | None = None
        self.values: list[Field] = []
        self.only_values = False

    def word(self, word: Field) -> None:
        """A flag starts a new entry; any other word is a value of the last flag."""
        text = word.text.replace(LINE_MARK, "")
        word = Field(text, word.line, word.when)
        if word.when:
            self._sometimes(word)
            return
        if text == "--" and not self.only_values:
            self.end()
            self.only_values = True
        elif self.only_values or not self._is_flag(text):
            self.values.append(word)
        else:
            self.end()
            self.flag = word

    def _sometimes(self, word: Field) -> None:
        """A word that the script adds under a condition is the user's to decide."""
        last = self.unplaced[-1] if self.unplaced else None
        if last is not None and last.why == word.when and not self._is_flag(word.text):
            self.unplaced[-1] = Unplaced(last.line, f"{last.what} {self._shown([word.text])}", last.why)
        else:
            self.end()
            self.unplaced.append(Unplaced(word.line, self._shown([word.text]), word.when))

    def done(self) -> tuple[list[Given], list[Unplaced]]:
        self.end()
        return self.given, self.unplaced

    def end(self) -> None:
        """File the flag that was open, with its values."""
        flag, values = self.flag, self.values
        self.flag, self.values = None, []
        if flag is None:
            self._stray(values)
            return
        head, equals, value = flag.text.partition("=")
        name = self._full_name(head)
        own = [Field(value, flag.line)] if equals else []
        if name is None:
            self._refuse(flag, [*own, *values], unknown(head.lstrip("-"), [*self.arity, *mtp_names()]))
            return
        wanted = self.arity[name]
        taken, rest = (own, values) if own else _split(values, wanted)
        if not _fits(len(taken), wanted) or (equals and wanted == 0):
            self._refuse(flag, [*taken, *rest], f"{head} takes {_words(wanted)}")
            return
        self.given.append(Given(name, tuple(each.text for each in taken), flag.line))
        self._stray(rest, after=head)

    def _is_flag(self, text: str) -> bool:
        if not text.startswith("-") or len(text) == 1 or _is_number(text):
            return False
        return self._full_name(text.partition("=")[0]) is not None or " " not in text

    def _full_name(self, head: str) -> str | None:
        """A flag's name in full: argparse takes a beginning that only one flag has."""
        name = head.removeprefix("--")
        if name == head:
            return None
        if name in self.arity:
            return name
        longer = [each for each in self.arity if each.startswith(name)] if name else []
        return longer[0] if len(longer) == 1 else None

    def _refuse(self, flag: Field, values: list[Field], why: str) -> None:
        head, equals, _ = flag.text.partition("=")
        words = [flag.text if equals else head, *(each.text for each in values[bool(equals) :])]
        self.unplaced.append(Unplaced(flag.line, self._shown(words), why))

    def _stray(self, words: list[Field], after: str = "") -> None:
        """Words that no flag takes."""
        if not words:
            return
        holes = [hole for each in words for hole in self.holes.within(each.text)]
        why = "; ".join(f"{hole.raw} {hole.reason}" for hole in holes) if holes else "no flag takes it"
        if after and not holes:
            why = f"{after} takes {_words(self.arity[self._full_name(after) or ''])}"
        self.unplaced.append(Unplaced(words[0].line, self._shown([each.text for each in words]), why))

    def _shown(self, words: list[str]) -> str:
        return " ".join(self.holes.shown(word) for word in words)


def _arity(specs: FlagSpecs) -> Mapping[str, int | str | None]:
    """The number of values of each flag, by its old and new names: None for one, 0 for a switch."""
    found: dict[str, int | str | None] = {
        name: 0 if spec.kind == "switch" else spec.nargs for name, spec in specs.items()
    }
    for name in (*old_names(), *SHORT_LIVED, *DROPPED):
        today = name_today(name)
        found[name] = 0 if name in _OLD_SWITCHES else found.get(today) if today else None
    return found


def _is_number(text: str) -> bool:
    """Negative numbers are values. argparse takes `-1e-6` for a flag and stops; what was meant is clear."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(values: list[Field], wanted: int | str | None) -> tuple[list[Field], list[Field]]:
    if isinstance(wanted, str):
        return values, []
    most = 1 if wanted is None else wanted
    return values[:most], values[most:]


def _fits(count: int, wanted: int | str | None) -> bool:
    if isinstance(wanted, str):
        return count > 0 or wanted == "*"
    return count == (1 if wanted is None else wanted)


def _words(wanted: int | str | None) -> str:
    """`one value`, for a message."""
    if isinstance(wanted, str):
        return "one value or more"
    return {0: "no value", 1: "one value"}.get(1 if wanted is None else wanted, f"{wanted} values")
