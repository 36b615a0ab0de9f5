"""The look of the command line's help, and what it answers to words it does not know."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

from openrlhf_mtp.config.reading.old_names import name_today

SETTINGS = "overrides"
"""Parameter of the commands that take settings as `key=value`."""


class Interrupted(Exception):
    """A command was interrupted; the message says what the interrupted work had to say, "" for nothing.

    Typer turns `KeyboardInterrupt` into a bare exit code, so it has to leave the command under another name.
    """


class Command(TyperCommand):
    """A command whose help names arguments as one writes them, without types: `JOB.yaml [key=value]...`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as end:
            raise Interrupted(str(end)) from end

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.options_metavar or "", *map(_in_usage, _arguments(self, ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                sections["Arguments"].append((_name(parameter), record[1]))
            else:
                sections["Options"].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class App(typer.Typer):
    """Commands that look so, without colors and frames, and with tracebacks left to `main`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **settings,
        )

    def command(
        self, name: str | None = None, *, cls: Any = Command, **settings: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command; give `short_help` of at most 60 characters, or the list of commands cuts the help."""
        return super().command(name, cls=cls, **settings)


def usage_message(problem: Any, argv: Sequence[str]) -> str:
    """A mistake on the command line in the words of all other errors.

    Args:
        problem: typer's `UsageError`.
        argv: the words of the command line, without the program's name.
    """
    text = str(problem.format_message()).strip().rstrip(".")
    text = (
        (text[:1].lower() + text[1:]).replace("Input should be", "must be").partition(", unable to parse")[0]
    )
    command = problem.ctx.command if problem.ctx is not None else None
    if command is not None and any(one.name == SETTINGS for one in command.params):
        settings = list(_settings(argv))
        option = getattr(problem, "option_name", "")
        if any(_key(option) == written.partition("=")[0] for written in settings):
            return f"settings of a job are written without dashes: {shlex.join(settings)}"
    help_of = problem.ctx.command_path if problem.ctx is not None else "openrlhf-mtp"
    return f"{text}{'' if text.endswith('?') else ';'} see {help_of} --help"


def _settings(argv: Sequence[str]) -> Iterator[str]:
    """The words that are OpenRLHF's flags as its own command line has them, each as the setting that is meant.

    >>> list(_settings(["--actor.adam.lr", "1e-6", "--train.async_enable", "--actor.adam.betas", "0.9", "0.95"]))
    ['actor.adam.lr=1e-6', 'train.async_enable=true', 'actor.adam.betas=[0.9, 0.95]']
    """
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if not _key(name):
            continue
        values = [value] if equals else list(_values(argv[at + 1 :]))
        text = values[0] if len(values) == 1 else f"[{', '.join(values)}]" if values else "true"
        yield f"{_key(name)}={text}"


def _key(option: str) -> str:
    """Today's name of a flag that is written as an option, "" for an option of ours."""
    name = option.removeprefix("--")
    if name == option:
        return ""
    return name if "." in name else name_today(name) or ""


def _values(words: Sequence[str]) -> Iterator[str]:
    """The words up to the next option or setting; a negative number is a value."""
    for word in words:
        if "=" in word or (word.startswith("-") and not word[1:2].isdigit()):
            return
        yield word


def _arguments(command: Any, ctx: Any) -> list[Any]:
    return [one for one in command.get_params(ctx) if one.param_type_name == "argument"]


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _in_usage(argument: Any) -> str:
    name = _name(argument) if argument.required else f"[{_name(argument)}]"
    return name if argument.nargs == 1 else f"{name}..."
