"""`${NAME}` in a job file's values is the environment's variable, as it was in the shell script the job came from.

`${NAME:-otherwise}` gives a value for when it is not set. One more dollar keeps it as it is: `$${NAME}` is the text
`${NAME}`. Nothing else with a dollar is touched: prompts and templates have `$NAME`, `$x$` and `${}`.
"""

import re
from collections.abc import Mapping

from openrlhf_mtp.config.errors import JobError

_REFERENCE = re.compile(r"(?P<dollars>\$+)\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<otherwise>[^{}]*))?\}")
BARE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
"""A variable without braces, which stays as it is written."""


class UndefinedVariableError(JobError):
    """A variable that the environment does not have."""


def expand(words: str, environment: Mapping[str, str]) -> str:
    """`words` with the variables put in.

    Raises:
        UndefinedVariableError: one that is not set and has no `:-otherwise`.
    """

    def put_in(match: re.Match[str]) -> str:
        dollars, name, otherwise = match["dollars"], match["name"], match["otherwise"]
        if len(dollars) > 1:
            return match[0][1:]
        value = environment.get(name)
        if otherwise is not None:
            return value or otherwise
        if value is None:
            raise UndefinedVariableError(
                f"${{{name}}}: the environment has no variable {name}; set it (export {name}=…), "
                f"or write $${{{name}}} if you mean the text"
            )
        return value

    return _REFERENCE.sub(put_in, words) if "${" in words else words


def escape(words: str) -> str:
    """Text that `expand` turns into `words`, whatever the environment has."""
    return _REFERENCE.sub(lambda match: f"${match[0]}", words) if "${" in words else words
