"""A flag that checks, the plan or a command reads by its name is one of OpenRLHF's, and of the type it is read as."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import openrlhf_mtp
from openrlhf_mtp.config.reading.flag_spec import FlagSpec
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

PACKAGE = Path(openrlhf_mtp.__file__).parent
KINDS = {"on": {"switch"}, "number": {"int"}, "real": {"int", "float"}, "text": {"str"}}
"""Method of `JobContext` -> kinds of flags that it reads."""
SECTIONS = {
    "role": ("actor", "ref", "critic", "reward"),
    "trained": ("actor", "critic"),
    "phase": ("train", "rollout"),
}
"""Variable at the start of a name -> the sections that it means."""
READERS = ("self", "context")
"""Names that a `JobContext` has in the code."""


def reads(source: str) -> Iterator[tuple[str, str]]:
    """(method, flag) of every read by name; a name that begins with a variable is several."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=reader), attr=method), args=[name]) if (
                method in KINDS and reader in READERS
            ):
                yield from ((method, flag) for flag in names(name))


def names(argument: ast.expr) -> Iterator[str]:
    match argument:
        case ast.Constant(value=str(flag)):
            yield flag
        case ast.JoinedStr(
            values=[ast.FormattedValue(value=ast.Name(id=variable)), ast.Constant(value=str(rest))]
        ):
            yield from (f"{section}{rest}" for section in SECTIONS[variable])


def found() -> list[tuple[str, str]]:
    files = [*(PACKAGE / "config").rglob("*.py"), *(PACKAGE / "cli").rglob("*.py")]
    return sorted({read for file in files for read in reads(file.read_text(encoding="utf-8"))})


@pytest.mark.parametrize(("method", "flag"), found())
def test_a_flag_is_read_by_a_name_and_as_a_type_that_openrlhf_has(method: str, flag: str) -> None:
    spec: FlagSpec = flag_specs()[flag]
    assert spec.kind in KINDS[method]


def test_the_reads_are_found() -> None:
    assert ("number", "data.max_len") in found()
    assert ("number", "ref.num_nodes") in found()
    assert len(found()) > 50
    assert list(reads('context.text("no.such_flag")')) == [("text", "no.such_flag")]
