"""The parts of a shell word.

Text keeps two marks that no script can contain (a NUL is refused at the start): LINE_MARK is where a backslash and
a line break were taken out, so that lines can still be counted; HOLE brackets the number of something that only the
shell could compute.
"""

import re
from dataclasses import dataclass, field

LINE_MARK = "\x00\x01"
HOLE = re.compile("\x00([0-9]+)\x02")


@dataclass(frozen=True)
class Literal:
    """Plain text; `quoted` text is never split, nor are its braces expanded."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Variable:
    """`$X`, `${X}`, `${X[@]}` or `${X:-word}`.

    Attributes:
        name: the variable, a digit or one of the shell's own signs (`@`, `#`, `?`).
        raw: as written.
        quoted: inside double quotes: its value is one word.
        index: the text in square brackets, None without them.
        operator: `:-`, `-`, `:=`, `=`, `:+`, `+`, `:?`, `?`; "" for none, "other" for what is not computed here.
        word: the word after the operator.
    """

    name: str
    raw: str
    quoted: bool
    index: str | None = None
    operator: str = ""
    word: "Word | None" = None


@dataclass(frozen=True)
class Computed:
    """`$(command)`, backticks or `$((arithmetic))`; `inner` is the text between the brackets."""

    raw: str
    inner: str
    quoted: bool
    arithmetic: bool = False


Part = Literal | Variable | Computed


@dataclass(frozen=True)
class Word:
    """One word of a command; `array` holds the elements of `NAME=( … )`, whose parts are then `NAME=`."""

    parts: tuple[Part, ...]
    line: int
    array: "tuple[Word, ...] | None" = None

    @property
    def bare(self) -> str:
        """The text of a word without quotes and expansions, "" for any other."""
        if self.array is None and all(isinstance(part, Literal) and not part.quoted for part in self.parts):
            return "".join(part.text for part in self.parts if isinstance(part, Literal))
        return ""


@dataclass(frozen=True)
class Operator:
    """`;`, `&&`, `|`, a line break, a bracket, or a redirection with its target (for `<<` the document)."""

    text: str
    line: int
    target: Word | None = None


Token = Word | Operator


@dataclass
class Holes:
    """The values that only the shell could compute, by number."""

    found: list["Hole"] = field(default_factory=list)

    def mark(self, raw: str, reason: str, variable: str | None = None) -> str:
        """The text that represents it from now on."""
        self.found.append(Hole(raw, reason, variable))
        return f"\x00{len(self.found) - 1}\x02"

    def within(self, text: str) -> list["Hole"]:
        """The holes of a text, in order."""
        return [self.found[int(number)] for number in HOLE.findall(text)]

    def shown(self, text: str) -> str:
        """The text as the user wrote it: marks taken out, holes as in the script."""
        return HOLE.sub(lambda mark: self.found[int(mark[1])].raw, text.replace(LINE_MARK, ""))


@dataclass(frozen=True)
class Hole:
    """Something that is left for the user.

    Attributes:
        raw: as the script says it.
        reason: why it is not known, to follow it.
        variable: the environment variable that it is, None for anything else.
    """

    raw: str
    reason: str
    variable: str | None = None
