"""Expand a word as the shell would, as far as the script decides it; the rest becomes a hole for the user."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from openrlhf_mtp.config.convert.arithmetic import evaluate
from openrlhf_mtp.config.convert.lexer import tokens
from openrlhf_mtp.config.convert.parts import (
    LINE_MARK,
    Computed,
    Holes,
    Literal,
    Operator,
    Part,
    Variable,
    Word,
)
from openrlhf_mtp.config.errors import JobError

_BRACES = re.compile(r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}")
_MOST_LETTERS = 200_000
"""Variables that hold one another twice, thirty times over, would fill the memory."""
_COMPUTED = "is computed by the shell"
_BLANKS = re.compile(f"((?:{re.escape(LINE_MARK)}|[ \t\n])+)")


@dataclass(frozen=True)
class Field:
    """One word as a program would get it, with the line of the script it comes from.

    `when` says under what condition it is there, "" for always.
    """

    text: str
    line: int
    when: str = ""


@dataclass(frozen=True)
class Known:
    """A variable's value: one field, or the elements of an array."""

    fields: tuple[Field, ...]
    array: bool = False


@dataclass(frozen=True)
class Unknown:
    """A variable that the script sets, but not to one value that can be told without running it."""

    reason: str


@dataclass
class Environment:
    """The variables at one place of a script.

    Attributes:
        values: what the script has set so far.
        exported: the names that programs see.
        holes: shared by a whole reading.
        notes: (line, text) of everything decided that a user should know of, shared too.
        inside: the script runs inside another shell, which passes on only what is exported.
    """

    holes: Holes
    notes: list[tuple[int, str]]
    values: dict[str, Known | Unknown] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)

    def copy(self) -> "Environment":
        """The same for a branch or a subshell: what it sets stays there."""
        return Environment(self.holes, self.notes, dict(self.values), set(self.exported))

    def inner_shell(self) -> "Environment":
        """The environment of `bash -c`, which sees exported variables alone."""
        hidden = "is set by the script but not exported, so the inner shell does not see it"
        values = {
            name: value if name in self.exported else Unknown(hidden) for name, value in self.values.items()
        }
        return Environment(self.holes, self.notes, values, set(self.exported))

    def put(self, name: str, value: Known | Unknown) -> None:
        """Set a variable."""
        self.values[name] = value


def expand(word: Word, env: Environment) -> list[Field]:
    """The fields that a word becomes: none for an empty unquoted variable, several for an array or a split one."""
    fields = _Fields(word.line)
    parts = tuple(_joined(word.parts))
    for part in parts:
        if isinstance(part, Literal):
            text = part.text
            if not part.quoted and _BRACES.search(text):
                text = env.holes.mark(text, "is expanded by bash to several words")
            fields.add(text, quoted=True)
        elif isinstance(part, Variable):
            _variable(part, env, fields)
        else:
            fields.add(_computed(part, env, word.line), quoted=part.quoted)
    return fields.done()


def text_of(word: Word, env: Environment) -> str:
    """The value of `X=word` or of a here-document: never split."""
    whole = tuple(_quoted(part) for part in word.parts)
    return " ".join(field.text for field in expand(Word(whole, word.line), env))


class _Fields:
    """Fields under construction."""

    def __init__(self, line: int) -> None:
        self.out: list[Field] = []
        self.line, self.text, self.when = line, "", ""
        self.open = False

    def add(self, text: str, *, quoted: bool, line: int | None = None) -> None:
        """Continue the current field; unquoted text is split at blanks."""
        if quoted:
            self._continue_field(text, line)
            return
        at = line
        for piece in _BLANKS.split(text):
            if _BLANKS.fullmatch(piece):
                self.close()
                at = None if at is None else at + piece.count("\n") + piece.count(LINE_MARK)
            elif piece:
                self._continue_field(piece, at)

    def _continue_field(self, text: str, line: int | None) -> None:
        if not self.text and line is not None:  # also after an opening quote
            self.here = line
        elif not self.open:
            self.here = self.line
        self.text += text
        self.open = True
        if len(self.text) > _MOST_LETTERS:
            raise JobError(
                f"got a word of more than {_MOST_LETTERS:,} letters in line {self.line}; give the command"
            )

    def close(self) -> None:
        """End the current field."""
        if self.open:
            self.out.append(Field(self.text, self.here, self.when))
        self.text, self.open = "", False

    def done(self) -> list[Field]:
        self.close()
        return self.out


def _joined(parts: tuple[Part, ...]) -> Iterator[Part]:
    """Neighboring unquoted texts as one, so that braces can be seen."""
    text = ""
    for part in parts:
        if isinstance(part, Literal) and not part.quoted:
            text += part.text
            continue
        if text:
            yield Literal(text)
        text = ""
        yield part
    if text:
        yield Literal(text)


def _quoted(part: Part) -> Part:
    if isinstance(part, Literal):
        return Literal(part.text, quoted=True)
    if isinstance(part, Variable):
        index = "*" if part.index == "@" else part.index
        return Variable(part.name, part.raw, True, index, part.operator, part.word)
    return Computed(part.raw, part.inner, True, part.arithmetic)


def _variable(part: Variable, env: Environment, fields: _Fields) -> None:
    value = env.values.get(part.name)
    if part.operator == "other":
        fields.add(env.holes.mark(part.raw, _COMPUTED), quoted=True)
    elif part.operator:
        _operated(part, value, env, fields)
    elif isinstance(value, Known) and part.name in ("@", "*"):
        _known(replace(part, index=part.name), value, env, fields)
    elif isinstance(value, Known):
        computed = _computed_value(part.name, value, env) if part.index is None else None
        _known(part, computed or value, env, fields)
    else:
        fields.add(_hole(part, value, env), quoted=True)


def _computed_value(name: str, value: Known, env: Environment) -> Known | None:
    """A value that says the name of a variable that the shell computes (`ROOT=$(dirname "$0")`), else None."""
    holes = [hole for each in value.fields for hole in env.holes.within(each.text)]
    if value.array or all(hole.variable is not None for hole in holes):
        return None
    shown = env.holes.shown(value.fields[0].text)
    return Known(
        (replace(value.fields[0], text=env.holes.mark(f"${{{name}}}", f"is {shown} in the script", name)),)
    )


def _known(part: Variable, value: Known, env: Environment, fields: _Fields) -> None:
    if part.index in ("@", "*"):
        if part.index == "*" and part.quoted:
            fields.add(" ".join(each.text for each in value.fields), quoted=True)
            return
        for place, each in enumerate(value.fields):
            if place:
                fields.close()
            fields.when = each.when
            fields.add(each.text, quoted=part.quoted, line=each.line)
        return
    if part.index not in (None, "0") or not value.fields:
        fits = part.index is not None and part.index.isdigit() and int(part.index) < len(value.fields)
        if fits and part.index is not None:
            fields.add(value.fields[int(part.index)].text, quoted=part.quoted)
        elif part.quoted:
            fields.add("", quoted=True)
        return
    first = value.fields[0]
    fields.add(first.text, quoted=part.quoted, line=None if part.quoted else first.line)


def _operated(part: Variable, value: Known | Unknown | None, env: Environment, fields: _Fields) -> None:
    """`${X:-word}` and its relatives."""
    bare = Variable(part.name, part.raw, part.quoted, part.index)
    if isinstance(value, Unknown) or part.word is None:
        fields.add(env.holes.mark(part.raw, _COMPUTED), quoted=True)
        return
    text = "".join(each.text for each in value.fields) if value else ""
    is_set = value is not None and (bool(text) or not part.operator.startswith(":"))
    kind = part.operator[-1]
    if kind == "+":
        if is_set:
            fields.add(text_of(part.word, env), quoted=part.quoted)
        return
    if is_set or kind == "?":
        _variable(bare, env, fields)
        return
    default = text_of(part.word, env)
    if value is None:
        shown = env.holes.shown(default) or "nothing"
        what = f"the script's argument {part.name}" if part.name.isdigit() else part.name
        env.notes.append(
            (fields.line, f"{part.raw}: the script does not set {what}; its default was taken, {shown}")
        )
    if kind == "=":
        env.put(part.name, Known((Field(default, fields.line),)))
    fields.add(default, quoted=part.quoted)


def _hole(part: Variable, value: Unknown | None, env: Environment) -> str:
    if value is not None:
        scalar = part.name if not part.index and not part.operator else None
        return env.holes.mark(part.raw, value.reason, scalar)
    if part.name in ("@", "*"):
        return env.holes.mark(part.raw, "means the arguments of the script")
    if part.name.isdigit():
        return env.holes.mark(part.raw, "is an argument of the script")
    if not part.name.isidentifier():
        return env.holes.mark(part.raw, "is known only while the script runs")
    variable = part.name if not part.index and not part.operator else None
    return env.holes.mark(part.raw, "is not set by the script", variable)


def _computed(part: Computed, env: Environment, line: int) -> str:
    if part.arithmetic:
        known = {
            name: value.fields[0].text
            for name, value in env.values.items()
            if isinstance(value, Known) and len(value.fields) == 1
        }
        number = evaluate(part.inner, known)
        if number is not None:
            return str(number)
    document = _only_cat(part.inner, line, env)
    if document is not None:
        return document
    return env.holes.mark(part.raw, _COMPUTED)


def _only_cat(inner: str, line: int, env: Environment) -> str | None:
    """The text of `$(cat <<EOF … EOF)`, which needs no machine to be known."""
    if not inner.lstrip().startswith("cat"):
        return None
    found = [
        token for token in tokens(inner, line) if not (isinstance(token, Operator) and token.text == "\n")
    ]
    if len(found) != 2 or not isinstance(found[0], Word) or found[0].bare != "cat":
        return None
    given = found[1]
    if not isinstance(given, Operator) or given.text != "<<" or given.target is None:
        return None
    return text_of(given.target, env).rstrip("\n")
