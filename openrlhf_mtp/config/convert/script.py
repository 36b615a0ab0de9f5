"""The commands of a shell script in order, each with the variables at that point. Nothing is run.

Of control flow only what decides a variable's value is followed: what a branch or a loop sets is unknown after it, but
for words added to an array, which keep their condition; what a subshell sets is gone; functions count where called.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openrlhf_mtp.config.convert.assignments import Target, target_of, value_word
from openrlhf_mtp.config.convert.branches import Frame, after_branches
from openrlhf_mtp.config.convert.expansion import Environment, Field, Known, Unknown, expand, text_of
from openrlhf_mtp.config.convert.functions import Function, function_at
from openrlhf_mtp.config.convert.lexer import tokens
from openrlhf_mtp.config.convert.parts import Operator, Token, Word

_SEPARATORS = frozenset({"\n", ";", "&", "&&", "||", "|", "|&", ";;", ";&", ";;&", "(", ")"})
_DECLARES = frozenset({"export", "declare", "typeset", "local", "readonly"})
_SET_ELSEWHERE = frozenset({"mapfile", "readarray", "getopts", "let", "printf"})
_OPENS = frozenset({"if", "while", "until"})
_GOES_ON = frozenset({"then", "do", "!", "time"})
_CLOSES = frozenset({"fi", "done", "esac", "}"})
_MOST_DEPTH, _MOST_CALLS = 8, 50
"""Functions inside functions, and calls of one: enough for any script, and an end for one that calls itself."""


@dataclass(frozen=True)
class Command:
    """One simple command.

    Attributes:
        fields: its words as the program gets them.
        line: where it starts.
        prefix: names of the variables set for it alone (`FOO=1 python …`).
        documents: its here-documents and here-strings.
        writes: whether its output goes to a file.
        before: the operator before it, "" at the start.
        after: the operator after it, "" at the end.
        env: the variables there.
    """

    fields: list[Field]
    line: int
    prefix: list[str]
    documents: list[Field]
    writes: bool
    before: str
    after: str
    env: Environment


def commands(text: str, first_line: int, env: Environment) -> Iterator[Command]:
    """Every simple command, in the order of the script; `env` is changed on the way."""
    yield from _Walk(env).run(tokens(text, first_line))


class _Walk:
    def __init__(
        self, env: Environment, functions: dict[str, Function] | None = None, depth: int = 0
    ) -> None:
        self.env, self.depth = env, depth
        self.functions = {} if functions is None else functions
        self.frames: list[Frame] = []
        self.words: list[Word] = []
        self.redirections: list[Operator] = []
        self.set_names: set[str] = set()
        self.before = ""

    def run(self, stream: Sequence[Token]) -> Iterator[Command]:
        at = 0
        while at < len(stream):
            token = stream[at]
            function = None if self.words else function_at(stream, at)
            if function is not None:
                self.functions[function.name] = function
                at = function.end
                continue
            at += 1
            if isinstance(token, Word):
                self.words.append(token)
            elif token.text not in _SEPARATORS:
                self.redirections.append(token)
            else:
                yield from self._separator(token)
        yield from self._finish("")
        if self.depth == 0:
            for function in list(self.functions.values()):
                if not function.calls:
                    yield from _Walk(self.env.copy(), self.functions, depth=1).run(function.body)

    def _separator(self, token: Operator) -> Iterator[Command]:
        if token.text == ")" and self._top() == "case":
            self.words = []
        else:
            yield from self._finish(token.text)
        if token.text == "(":
            self._push("subshell", token.line)
        elif token.text == ")" and self._top() == "subshell":
            self._pop()
        elif token.text in (";;", ";&", ";;&") and self._top() == "case":
            self._next_branch()
        self.before = token.text

    def _finish(self, after: str) -> Iterator[Command]:
        words, redirections = self.words, self.redirections
        self.words, self.redirections = [], []
        words = self._structure(words)
        if not words and not redirections:
            return
        line = words[0].line if words else redirections[0].line
        prefix: list[str] = []
        while words and (target := target_of(words[0])):
            prefix.append(target.name)
            if all(target_of(word) for word in words):
                self._assign(words[0], target, sometimes=self.before in ("&&", "||"))
            words = words[1:]
        if not words and not redirections:
            return
        fields = [each for word in words for each in expand(word, self.env)]
        function = self.functions.get(fields[0].text) if fields else None
        if function is not None:
            if function.calls < _MOST_CALLS and self.depth < _MOST_DEPTH:
                yield from self._call(function, fields[1:])
            return
        documents = [
            Field(text_of(each.target, self.env), each.target.line)
            for each in redirections
            if each.text in ("<<", "<<<") and each.target is not None
        ]
        writes = any(">" in each.text for each in redirections)
        self._builtin(words, documents)
        yield Command(fields, line, prefix, documents, writes, self.before, after, self.env)

    def _call(self, function: Function, arguments: list[Field]) -> Iterator[Command]:
        """A function's commands, with its arguments in place."""
        function.calls += 1
        places = [str(number) for number in range(1, 10)]
        before = {name: self.env.values.get(name) for name in (*places, "@", "*")}
        given: dict[str, Known | Unknown] = {
            **{place: Known((each,)) for place, each in zip(places, arguments, strict=False)},
            **dict.fromkeys("@*", Known(tuple(arguments), array=True)),
        }
        self.env.values = {
            name: value for name, value in self.env.values.items() if name not in before
        } | given
        inner = _Walk(self.env, self.functions, self.depth + 1)
        yield from inner.run(function.body)
        self._touch(inner.set_names)
        outside = {name: value for name, value in self.env.values.items() if name not in before}
        self.env.values = outside | {name: value for name, value in before.items() if value is not None}

    def _structure(self, words: list[Word]) -> list[Word]:
        """Take the shell's reserved words off the front; what is left is a command."""
        while words:
            first, line = words[0].bare, words[0].line
            if first in _OPENS:
                self._push(first, line)
            elif first == "{":
                self._push("group", line)
            elif first in ("else", "elif") and self.frames:
                self._next_branch()
            elif first in _CLOSES:
                self._pop()
            elif first in ("for", "select"):
                self._push(first, line)
                self._loop(words)
                return []
            elif first == "case":
                self._push(first, line)
                return []
            elif first not in _GOES_ON:
                return words
            words = words[1:]
        return words

    def _loop(self, words: list[Word]) -> None:
        name = words[1].bare if len(words) > 1 else ""
        if not name.isidentifier():
            return
        fields = [each for word in words[3:] for each in expand(word, self.env)]
        if len(fields) == 1:
            self._put(name, Known((fields[0],)))
            return
        shown = ", ".join(self.env.holes.shown(each.text) for each in fields[:4])
        more = ", …" if len(fields) > 4 else ""
        over = f" ({shown}{more})" if fields else ""
        self._put(name, Unknown(f"runs over several values in the loop of line {words[0].line}{over}"))

    def _top(self) -> str:
        return self.frames[-1].kind if self.frames else ""

    def _push(self, kind: str, line: int) -> None:
        self.frames.append(Frame(kind, self.env.copy(), line))

    def _next_branch(self) -> None:
        frame = self.frames[-1]
        frame.close_branch(self.env.values)
        self.env.values = dict(frame.before.values)

    def _pop(self) -> None:
        if not self.frames:
            return
        frame = self.frames.pop()
        if frame.kind == "group":
            self._touch(frame.touched)
            return
        frame.close_branch(self.env.values)
        self.env.values, self.env.exported = frame.before.values, frame.before.exported
        if frame.kind == "subshell":
            return
        where = f"{'in a branch' if frame.kind in ('if', 'case') else 'in a loop'} of the script, line {frame.line}"
        for name in frame.touched:
            self._put(name, after_branches(self.env.values.get(name), frame.ends.get(name, []), where))

    def _touch(self, names: set[str]) -> None:
        self.set_names |= names
        if self.frames:
            self.frames[-1].touched |= names

    def _put(self, name: str, value: Known | Unknown, *, local: bool = False) -> None:
        self.env.put(name, value)
        if not local:
            self._touch({name})

    def _assign(self, word: Word, target: Target, *, sometimes: bool = False, local: bool = False) -> None:
        """`X=…`, `X+=…`, `X=( … )` or `X[i]=…`."""
        name, index, add = target
        old = self.env.values.get(name)
        value: Known | Unknown
        if index:
            value = Unknown("is set element by element")
        elif add and isinstance(old, Unknown):
            value = old
        elif word.array is not None:
            elements = tuple(each for element in word.array for each in expand(element, self.env))
            value = Known((*(old.fields if add and isinstance(old, Known) else ()), *elements), array=True)
        else:
            value = self._text(word, old if add else None)
        if sometimes:
            value = after_branches(old, [value], f"under a condition, line {word.line}")
        self._put(name, value, local=local)

    def _text(self, word: Word, old: Known | Unknown | None) -> Known:
        text = text_of(value_word(word), self.env)
        if isinstance(old, Known) and old.fields:
            first = old.fields[0]
            return Known((Field(first.text + text, first.line), *old.fields[1:]), old.array)
        return Known((Field(text, word.line),))

    def _builtin(self, words: list[Word], documents: list[Field]) -> None:
        """Builtins that set variables."""
        first = words[0].bare if words else ""
        rest = words[1:]
        if first in _DECLARES:
            removes = first == "export" and any(word.bare == "-n" for word in rest)
            exports = (first == "export" and not removes) or any(word.bare.startswith("-x") for word in rest)
            for word in rest:
                target = target_of(word)
                name = target.name if target else word.bare
                if target:
                    self._assign(word, target, local=first == "local")
                if exports and name.isidentifier():
                    self.env.exported.add(name)
                elif removes:
                    self.env.exported.discard(name)
        elif first == "read":
            self._read(rest, documents)
        elif first == "unset":
            for word in rest:
                self.env.values.pop(word.bare, None)
        elif first in _SET_ELSEWHERE:
            for word in rest:
                target = target_of(word)
                name = target.name if target else word.bare
                if name in self.env.values or (
                    first == "printf" and rest[0].bare == "-v" and word is rest[1]
                ):
                    self._put(name, Unknown(f"is set by {first} in line {word.line}"))

    def _read(self, rest: list[Word], documents: list[Field]) -> None:
        names = [word.bare for word in rest if word.bare.isidentifier()]
        for name in names:
            self._put(name, Unknown("is read while the script runs"))
        whole = any(word.bare == "-d" for word in rest) or any(word.bare.endswith("d") for word in rest[:1])
        if len(names) == 1 and len(documents) == 1 and whole:
            body = documents[0].text.strip()
            skipped = documents[0].text[: documents[0].text.find(body)] if body else ""
            self._put(names[0], Known((Field(body, documents[0].line + skipped.count("\n")),)))
