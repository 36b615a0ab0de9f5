"""The dial as options of a command line; names and defaults come from `walk.Dial`."""

import argparse
from dataclasses import fields

from task.walk import Dial


def add_dial(parser: argparse.ArgumentParser) -> None:
    """One option for each field of the dial."""
    group = parser.add_argument_group("dial", "how hard the walks are (walk.py)")
    for field in fields(Dial):
        group.add_argument(f"--{field.name}", type=type(field.default), default=field.default)


def dial_of(args: argparse.Namespace) -> Dial:
    """The dial that was asked for."""
    return Dial(**{field.name: getattr(args, field.name) for field in fields(Dial)})
