"""From YAML's events to plain values, each key with its line. Whatever is wrong is refused with the line it is in.

The parser is PyYAML's, by libyaml where it is there; what a value means is decided here, by YAML 1.2's core schema.
PyYAML's own composer and constructors recurse, hash whatever is a key, and raise Python's errors on bad tags.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.values import WrittenFloat, WrittenInt, cut, printable, shown
from openrlhf_mtp.config.reading.variables import UndefinedVariableError, expand

MOST_LEVELS = 50
MOST_COPIES = 100_000
"""Values that aliases may expand to, all together: a few nested ones would expand to billions."""
MOST_DIGITS = 4_000

_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
PLAIN = {
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"[-+]?[0-9]+\Z"),
    "float": re.compile(rf"(?:{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"),
}
"""YAML 1.2's plain values, in the order they are tried; every other plain value is text."""


class Section(dict[str, Any]):
    """A mapping that knows the line of each key, and which keys have nothing at all behind the colon."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}
        self.blank: set[str] = set()

    def put(self, key: str, value: object, line: int, *, blank: bool = False) -> None:
        """Add a key."""
        self[key] = value
        self.lines[key] = line
        if blank:
            self.blank.add(key)


@dataclass
class _Open:
    """A list or a mapping whose end has not come; `key` is the one that waits for its value."""

    value: list[Any] | Section
    anchor: str | None
    line: int
    size: int = 1
    key: str | None = None
    key_line: int = 0
    is_merge: bool = False
    bases: list[Section] = field(default_factory=list)


def read(text: str, environment: Mapping[str, str]) -> Any:
    """The one document of a text: None, bool, int, float, str, lists and `Section`s.

    Raises:
        JobError: what is wrong, "line N: " first.
    """
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise _at(line, f"the character U+{ord(bad[0]):04X}, which no text has; save the file as UTF-8 text")
    reader = _Reader(environment)
    try:
        reader.take(yaml.parse(text, Loader=_EVENTS))
    except yaml.YAMLError as error:
        raise _not_yaml(error, text) from error
    return reader.root


class _Reader:
    """Takes events one by one; nothing recurses, so depth is a limit and not a crash."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.root: Any = None
        self._environment = environment
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._copies = 0
        self._line = 1
        self._documents = 0

    def take(self, events: Iterable[yaml.Event]) -> None:
        for event in events:
            self._line = event.start_mark.line + 1 if event.start_mark else self._line
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                self._end()
            elif isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise self._wrong("a second document begins (`---`); a job file is one")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, Section) and top.key is None:
            self._begin_key(top, event)
            return
        plain = event.tag is None and event.implicit[0]
        value = self._plain(self._expanded(event.value)) if plain else self._tagged(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._put(value, 1, blank=plain and not event.value)

    def _begin_key(self, mapping: _Open, event: yaml.ScalarEvent) -> None:
        key = event.value
        assert isinstance(mapping.value, Section)
        if key in mapping.value:
            first = mapping.value.lines[key]
            raise self._wrong(
                f"the key {shown(key)} is given twice, in lines {first} and {self._line}; keep one of them"
            )
        if event.anchor:
            self._anchors[event.anchor] = (key, 1)
        mapping.key, mapping.key_line = key, self._line
        mapping.is_merge = key == "<<" and event.implicit[0]
        if mapping.is_merge and mapping.bases:
            raise self._wrong("a second `<<` in one section; write `<<: [*one, *other]`")

    def _alias(self, name: str | None) -> None:
        assert name is not None
        if any(one.anchor == name for one in self._open):
            raise self._wrong(
                f"*{printable(cut(name))} is inside its own anchor &{printable(cut(name))}, so it would never end"
            )
        if name not in self._anchors:
            raise self._wrong(f"*{printable(cut(name))}: there is no anchor &{printable(cut(name))} above it")
        value, size = self._anchors[name]
        self._copies += size
        if self._copies > MOST_COPIES:
            raise self._wrong(f"the aliases expand to more than {MOST_COPIES:,} values; write fewer")
        self._no_key("an alias")
        self._put(value, size)

    def _begin(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        kind, words = (
            ("seq", "a list") if isinstance(event, yaml.SequenceStartEvent) else ("map", "a mapping")
        )
        self._no_key(words)
        if event.tag not in (None, "!", _CORE + kind):
            raise self._wrong(f"the tag {_short(event.tag)} is not for job files; leave it out")
        if len(self._open) >= MOST_LEVELS:
            raise self._wrong(f"more than {MOST_LEVELS} levels, one inside the other; a job file has five")
        self._open.append(_Open([] if kind == "seq" else Section(), event.anchor, self._line))

    def _no_key(self, words: str) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, Section) and top.key is None:
            raise self._wrong(f"{words} as a key; a key is a word, such as `actor`")

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.value, Section):
            for base in done.bases:
                for key in base:
                    if key not in done.value:
                        done.value.put(key, base[key], base.lines[key], blank=key in base.blank)
        if done.anchor:
            self._anchors[done.anchor] = (done.value, done.size)
        self._put(done.value, done.size)

    def _put(self, value: Any, size: int, *, blank: bool = False) -> None:
        if not self._open:
            self.root = value
            return
        top = self._open[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
            return
        assert top.key is not None
        if top.is_merge:
            self._merge(top, value)
        else:
            top.value.put(top.key, value, top.key_line, blank=blank)
        top.key = None

    def _merge(self, top: _Open, value: Any) -> None:
        bases = value if isinstance(value, list) else [value]
        if not bases or not all(isinstance(base, Section) for base in bases):
            raise self._wrong("`<<` takes a section's alias, such as `<<: *base`, or a list of them")
        top.bases = bases

    def _plain(self, words: str) -> Any:
        kind = next((kind for kind, pattern in PLAIN.items() if pattern.match(words)), None)
        if kind is None:
            return words
        if kind == "null":
            return None
        if kind == "bool":
            return words.lower() == "true"
        digits = sum(map(str.isdigit, words))
        if digits > MOST_DIGITS:
            raise self._wrong(f"a number of {digits:,} digits; if it is text, write it in quotes")
        return WrittenInt(words) if kind == "int" else WrittenFloat(words)

    def _tagged(self, event: yaml.ScalarEvent) -> Any:
        if event.tag in (None, "!", _CORE + "str"):
            return self._expanded(event.value)
        kind = event.tag.removeprefix(_CORE)
        if kind not in PLAIN:
            raise self._wrong(f"the tag {_short(event.tag)} is not for job files; leave it out")
        words = self._expanded(event.value)
        if not (PLAIN[kind].match(words) or (kind == "float" and PLAIN["int"].match(words))):
            raise self._wrong(f"{_short(event.tag)} with {shown(words)}, which is none; leave the tag out")
        value = self._plain(words)
        return WrittenFloat(words) if kind == "float" else value

    def _expanded(self, words: str) -> str:
        try:
            return expand(words, self._environment)
        except UndefinedVariableError as error:
            raise UndefinedVariableError(f"line {self._line}: {error}") from error

    def _wrong(self, what: str) -> JobError:
        return _at(self._line, what)


def _at(line: int, what: str) -> JobError:
    return JobError(f"line {line}: {what}")


def _short(tag: str) -> str:
    return printable(cut("!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag))


def _not_yaml(error: yaml.YAMLError, text: str) -> JobError:
    """The parser's complaint in one line, with what helps in the usual cases."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    words = ", ".join(str(part) for part in parts if part) or str(error).splitlines()[0]
    line = 1 if mark is None else mark.line + 1
    here = "\n".join(text.splitlines()[max(0, line - 2) : line])
    if re.search(r"[\[{,:][^#\n]*\$\{", here):
        words += '; inside [ ] and { }, put a variable in quotes: "${NAME}"'
    elif re.search(r"^\s*\t", here, re.MULTILINE):
        words += "; indent with spaces, not with tabs"
    return JobError(f"is not valid YAML, line {line}: {words}")
