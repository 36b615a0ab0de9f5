"""Print pip's settings as the shell's `export` lines that make uv install from the same places.

    eval "$(.venv/bin/python scripts/uv_environment.py)"

uv reads none of pip's files and variables. What is not here (constraints, a user name prompt) does not matter to a lock
that is installed without a resolver. A `UV_…` variable that is set already stays.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration, those that count for `pip install`; a later one wins."""

SEVERAL = {
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
"""Settings that hold several values, the variable of each, and what uv wants between them."""

ONE = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
}


def pip_settings(listing: str) -> dict[str, str]:
    """Setting -> value, from the lines of `pip config list`: `global.index-url='https://…'`."""
    ranked: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        place, separator, literal = line.partition("=")
        section, _, name = place.rpartition(".")
        if separator and section in SECTIONS:
            rank = SECTIONS.index(section)
            if rank >= ranked.get(name, (0, ""))[0]:
                ranked[name] = rank, str(ast.literal_eval(literal))
    return {name: value for name, (_, value) in ranked.items()}


def uv_environment(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to set for uv.

    Raises:
        ValueError: a setting that uv has no variable for and that must not be ignored.
    """
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise ValueError("pip is set to no-index")
    # a slow line is no reason to give up
    wanted = {"UV_HTTP_TIMEOUT": "180"}
    # pip takes the best version of all its indices; uv by default looks no further than the first that has a name
    wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    for name, (variable, separator) in SEVERAL.items():
        if values := settings.get(name, "").split():
            wanted[variable] = separator.join(values)
    for name, variables in ONE.items():
        if settings.get(name):
            wanted |= dict.fromkeys(variables, settings[name])
    return {name: value for name, value in wanted.items() if name not in environ}


def main() -> None:
    """Ask the pip of this interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    try:
        variables = uv_environment(pip_settings(done.stdout), os.environ)
    except ValueError as problem:
        sys.exit(str(problem))
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
