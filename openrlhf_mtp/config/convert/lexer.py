"""A shell script as words and operators, by the rules of the shell's own token recognition.

No library fits: `shlex` knows neither `$'…'` nor which expansions were quoted nor here-documents, tree-sitter's grammar
for bash cuts `a'b'\\ c` in two, and bashlex is GPL. Control flow stays ordinary words here (`script` looks at it).
A script that bash would refuse is read as far as it makes sense, without an error.
"""

import re

from openrlhf_mtp.config.convert.parts import (
    LINE_MARK,
    Computed,
    Literal,
    Operator,
    Part,
    Token,
    Variable,
    Word,
)
from openrlhf_mtp.config.convert.quoting import ansi_c

_OPERATORS = (
    ";;&",
    "&>>",
    "<<<",
    "<<-",
    "&&",
    "||",
    ";;",
    ";&",
    "|&",
    "&>",
    ">>",
    "<<",
    ">&",
    "<&",
    "<>",
    ">|",
)
_SINGLE = ";&|()<>\n"
_REDIRECTIONS = frozenset({"&>>", "&>", ">>", "<<<", ">&", "<&", "<>", ">|", "<", ">"})
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ARRAY_HEAD = re.compile(r"[A-Za-z_]\w*\+?=\Z", re.ASCII)
_OPERATED = re.compile(
    r"(?P<name>\w+|[@*#?$!-])(?:\[(?P<index>[^]]*)\])?(?P<op>:?[-=+?])(?P<word>.*)\Z", re.S | re.ASCII
)
_PLAIN = re.compile(r"(?P<name>\w+|[@*#?$!-])(?:\[(?P<index>[^]]*)\])?\Z", re.ASCII)


def tokens(text: str, first_line: int = 1) -> list[Token]:
    """All tokens; line breaks are operators, comments are gone."""
    return _Lexer(text, first_line).run()


def document(text: str, line: int) -> Word:
    """A here-document whose variables are expanded."""
    return Word(tuple(_Lexer(text, line).quoted_parts(heredoc=True)), line)


class _Lexer:
    def __init__(self, text: str, line: int) -> None:
        self.text, self.at, self.line = text, 0, line
        self.pending: list[tuple[int, str, bool, bool]] = []
        """Here-documents whose bodies start at the next line: place in `out`, delimiter, quoted, tabs stripped."""
        self.out: list[Token] = []

    def run(self) -> list[Token]:
        while self._skip_blanks():
            if not self._operator():
                self.out.append(self._word())
        return self.out

    def peek(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    def take(self, length: int = 1) -> str:
        taken = self.peek(length)
        self.at += length
        self.line += taken.count("\n") + taken.count(LINE_MARK)
        return taken

    def _skip_blanks(self) -> bool:
        """Skip blanks, continued lines and comments; whether anything is left."""
        while self.at < len(self.text):
            if self.peek() in " \t\r":
                self.take()
            elif self.peek(2) in ("\\\n", LINE_MARK):
                self.take(2)
            elif self.peek() == "#":
                end = self.text.find("\n", self.at)
                self.take((len(self.text) if end < 0 else end) - self.at)
            else:
                return True
        return False

    def _operator(self) -> bool:
        line = self.line
        descriptor = re.compile(r"\d+(?=[<>])").match(self.text, self.at)
        if descriptor:
            self.take(len(descriptor[0]))
        if self.peek(2) in ("<(", ">("):
            return False
        sign = next((sign for sign in _OPERATORS if self.text.startswith(sign, self.at)), self.peek())
        if sign not in _OPERATORS and (not sign or sign not in _SINGLE):
            return False
        self.take(len(sign))
        if sign == "\n":
            self.out.append(Operator(sign, line))
            self._bodies()
        elif sign in ("<<", "<<-"):
            self._heredoc(sign, line)
        elif sign in _REDIRECTIONS:
            target = self._word() if self._same_line() else None
            self.out.append(Operator(sign, line, target))
        else:
            self.out.append(Operator(sign, line))
        return True

    def _same_line(self) -> bool:
        while self.peek() in (" ", "\t"):
            self.take()
        return self.peek(2) in ("<(", ">(") or (bool(self.peek()) and self.peek() not in _SINGLE)

    def _heredoc(self, sign: str, line: int) -> None:
        word = self._word() if self._same_line() else Word((), line)
        delimiter = "".join(part.text if isinstance(part, Literal) else part.raw for part in word.parts)
        quoted = any(isinstance(part, Literal) and part.quoted for part in word.parts)
        self.pending.append((len(self.out), delimiter, quoted, sign == "<<-"))
        self.out.append(Operator("<<", line))

    def _bodies(self) -> None:
        for place, delimiter, quoted, tabs in self.pending:
            line, lines = self.line, []
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                row = self.take((len(self.text) if end < 0 else end + 1) - self.at)
                row = row.lstrip("\t") if tabs else row
                if row.rstrip("\n") == delimiter:
                    break
                lines.append(row)
            body = "".join(lines)
            target = Word((Literal(body, quoted=True),), line) if quoted else document(body, line)
            self.out[place] = Operator("<<", self.out[place].line, target)
        self.pending.clear()

    def _word(self) -> Word:
        line, parts = self.line, list[Part]()
        start = self.at
        while self.at < len(self.text):
            sign = self.peek()
            if sign in " \t\r\n" or (sign in ";&|)" or (sign in "<>" and not self._process(start))):
                break
            if sign == "(":
                head = Word(tuple(parts), line).bare
                if _ARRAY_HEAD.match(head):
                    return Word(tuple(parts), line, self._array())
                break
            self._part(parts)
        if self.at == start:  # a stray sign must not stop the reading
            parts.append(Literal(self.take()))
        return Word(tuple(parts), line)

    def _process(self, start: int) -> bool:
        return self.at == start and self.peek(2) in ("<(", ">(")

    def _array(self) -> tuple[Word, ...]:
        self.take()
        elements: list[Word] = []
        while self._skip_blanks():
            if self.peek() == ")":
                self.take()
                break
            if self.peek() in _SINGLE and self.peek(2) not in ("<(", ">("):
                self.take()
            else:
                elements.append(self._word())
        return tuple(elements)

    def _part(self, parts: list[Part]) -> None:
        """One piece of an unquoted word, appended to `parts`."""
        sign, pair = self.peek(), self.peek(2)
        if pair in ("\\\n", LINE_MARK):
            self.take(2)
        elif sign == "\\":
            self.take()
            parts.append(Literal(self.take(), quoted=True))
        elif sign == "'":
            self.take()
            parts.append(Literal(self._until("'"), quoted=True))
        elif pair == "$'":
            self.take(2)
            parts.append(Literal(self._ansi(), quoted=True))
        elif sign == '"' or pair == '$"':
            self.take(len(pair) if pair == '$"' else 1)
            parts.append(Literal("", quoted=True))
            parts.extend(self.quoted_parts())
        elif sign in "$`" or pair in ("<(", ">("):
            parts.append(self._expansion(quoted=False))
        else:
            parts.append(Literal(self.take()))

    def quoted_parts(self, *, heredoc: bool = False) -> list[Part]:
        """Up to the closing double quote; a here-document has no end but the text's."""
        parts: list[Part] = []
        text = ""
        while self.at < len(self.text):
            sign, pair = self.peek(), self.peek(2)
            if sign == '"' and not heredoc:
                self.take()
                break
            if pair in ("\\\n", LINE_MARK):
                self.take(2)
                text += LINE_MARK
            elif sign == "\\" and pair[1:] in ("$", "`", "\\", *([] if heredoc else ['"'])):
                text += self.take(2)[1:]
            elif sign in "$`":
                parts += [Literal(text, quoted=True)] if text else []
                text = ""
                parts.append(self._expansion(quoted=True))
            else:
                text += self.take()
        return parts + ([Literal(text, quoted=True)] if text else [])

    def _expansion(self, *, quoted: bool) -> Part:
        start = self.at
        sign, pair = self.take(), self.peek()
        if sign == "`":
            inner = self._until("`")
            return Computed(self.text[start : self.at], inner, quoted)
        if pair == "(":
            return self._bracketed(start, quoted)
        if pair == "{":
            self.take()
            inner = self._balanced("}")
            return _braced(inner, self.text[start : self.at], quoted, self.line)
        name = _NAME.match(self.text, self.at)
        if name or pair in tuple("0123456789@*#?$!-"):
            text = self.take(len(name[0]) if name else 1)
            return Variable(text, self.text[start : self.at], quoted)
        return Literal(sign, quoted)

    def _bracketed(self, start: int, quoted: bool) -> Computed:
        """`$( … )` and `<( … )`, the opening bracket not yet taken."""
        self.take()
        inner = self._balanced(")")
        raw = self.text[start : self.at]
        if raw.startswith("$((") and inner.endswith(")"):
            return Computed(raw, inner[1:-1], quoted, arithmetic=True)
        return Computed(raw, inner, quoted)

    def _balanced(self, close: str) -> str:
        """Up to the bracket that closes this one, over quotes and inner brackets; that bracket is taken too."""
        opening = {")": "(", "}": "{"}[close]
        start, depth = self.at, 1
        while self.at < len(self.text):
            sign = self.take()
            if sign == "\\":
                self.take()
            elif sign == "'" and close == ")":
                self._until("'")
            elif sign == '"':
                self._skip_quoted()
            elif sign == opening:
                depth += 1
            elif sign == close:
                depth -= 1
                if depth == 0:
                    return self.text[start : self.at - 1]
        return self.text[start:]

    def _skip_quoted(self) -> None:
        """Over the rest of a double-quoted text, without a look at what it means."""
        while self.at < len(self.text):
            sign = self.take()
            if sign == '"':
                return
            if sign == "\\":
                self.take()
            elif sign == "$" and self.peek() in ("(", "{"):
                self._balanced({"(": ")", "{": "}"}[self.take()])

    def _until(self, quote: str) -> str:
        end = self.text.find(quote, self.at)
        body = self.take((len(self.text) if end < 0 else end) - self.at)
        self.take(len(quote))
        return body

    def _ansi(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.peek() != "'":
            self.take(2 if self.peek() == "\\" else 1)
        body = self.text[start : self.at]
        self.take()
        return ansi_c(body)


def _braced(inner: str, raw: str, quoted: bool, line: int) -> Variable:
    """The variable between `${` and `}`."""
    plain = _PLAIN.match(inner)
    if plain:
        return Variable(plain["name"], raw, quoted, plain["index"])
    operated = _OPERATED.match(inner)
    if operated is None:
        name = _NAME.search(inner)
        return Variable(name[0] if name else inner, raw, quoted, operator="other")
    parts = _Lexer(operated["word"], line).quoted_parts() if quoted else _unquoted(operated["word"], line)
    return Variable(
        operated["name"], raw, quoted, operated["index"], operated["op"], Word(tuple(parts), line)
    )


def _unquoted(text: str, line: int) -> list[Part]:
    """The word after an operator: blanks belong to it."""
    lexer, parts = _Lexer(text, line), list[Part]()
    while lexer.at < len(text):
        lexer._part(parts)
    return parts
