"""Seconds left, in words for a line of progress."""


def in_words(seconds: float) -> str:
    """A duration as exact as an estimate can be.

    >>> in_words(40.2), in_words(700), in_words(9000)
    ('40 s', '12 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
