"""The escapes of bash's `$'…'`."""

import re

_SIMPLE = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|(.))", re.S
)


def ansi_c(body: str) -> str:
    r"""The text that `$'body'` denotes.

    >>> ansi_c(r"a\nb\x41")
    'a\nbA'
    """
    return _ESCAPE.sub(_meaning, body)


def _meaning(escape: re.Match[str]) -> str:
    hexadecimal = escape[1] or escape[2] or escape[3]
    code = int(hexadecimal, 16) if hexadecimal else int(escape[4], 8) & 0xFF if escape[4] else None
    if code is None:
        return _SIMPLE.get(escape[5], escape[0])
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else ""
