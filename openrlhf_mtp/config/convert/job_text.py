"""A converted job as the text of a job file: grouped by section, each line saying where it came from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from openrlhf_mtp.config.convert.arguments import Unplaced
from openrlhf_mtp.config.convert.parts import HOLE, Holes
from openrlhf_mtp.config.convert.translation import Setting
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading import yaml_text
from openrlhf_mtp.config.reading.flag_spec import Scalar

_SECTIONS = (
    "actor",
    "critic",
    "reward",
    "ref",
    "data",
    "eval",
    "rollout",
    "train",
    "algo",
    "vllm",
    "ds",
    "ckpt",
    "logger",
)
_WIDTH = 110
_COLUMN = 44
"""The column at which comments begin, behind shorter lines."""
_ESCAPES = {'"': '"', "\\": "\\", "\n": "n", "\t": "t"}
_BARE = re.compile(r"[A-Za-z_./~][\w./~@%+-]*\Z", re.ASCII)
_REFERENCE = re.compile(r"\$+\{[A-Za-z_]\w*(?::-[^{}]*)?\}")
"""Text that a job file would replace by the environment's variable."""


def job_text(
    settings: Mapping[str, Setting],
    unplaced: Iterable[Unplaced],
    holes: Holes,
    *,
    title: str,
    head: str,
) -> str:
    """The whole file.

    Args:
        settings: by dotted name.
        unplaced: what the user must decide.
        holes: environment variables inside texts.
        title: the first line, without `#`.
        head: the `mtp:` section with its comments, "" for none.
    """
    lines = [
        f"# {_one_line(title)}",
        "# Comments: the line of the script, and the name there if it was another.",
    ]
    left = list(unplaced)
    if left:
        lines += ["#", "# NOT CONVERTED, decide about each:"]
        lines += [f"#   line {each.line}: {_one_line(each.what)}: {_one_line(each.why)}" for each in left]
    tree = _tree(settings.values())
    order = {name: place for place, name in enumerate(_SECTIONS)}
    for name in sorted(tree, key=lambda name: order.get(name, len(order))):
        lines += ["", *_lines({name: tree[name]}, holes, 0)]
    return "\n".join([*lines, *(["", head.rstrip("\n")] if head else []), ""])


def head_section(model: str, *, job: str, run: str) -> str:
    """The `mtp:` section of a converted job, with the commands that lead to a trained head.

    Args:
        model: the policy's folder or Hub name as YAML-safe text.
        job: the job file's name in the commands.
        run: the name of run folders.
    """
    folder = (
        re.sub(r"[^\w.-]+", "-", model.rstrip("/").rpartition("/")[2].lower(), flags=re.ASCII).strip("-.")
        or "policy"
    )
    return f"""\
# The head that drafts. Make one for the policy, train it before RL, then train both:
#   openrlhf-mtp equip {_one_line(model)} --out models/{folder} --depths 3
#   openrlhf-mtp pretrain {job} --out runs/{run}-head
#   openrlhf-mtp train {job} --out runs/{run} mtp.head=runs/{run}-head/head
# `mtp=null` behind the last command runs the same job as plain OpenRLHF. Every setting: docs/settings.md.
mtp:
  head: models/{folder}/mtp
  depths: 3              # tokens drafted per target forward
  regime: detach         # the head learns in every step and never touches the policy
  objective: e2e_tv      # trained for accepted drafts
"""


def scalar(value: Scalar, holes: Holes, written: str = "") -> str:
    """One value as YAML on one line; a number as it was `written`, if that means the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value, holes)
    if written and _same(written, value):
        return written
    return {"inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))


def _tree(settings: Iterable[Setting]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for setting in settings:
        *sections, leaf = setting.name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = setting
    return tree


def _lines(node: Mapping[str, Any], holes: Holes, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, value in node.items():
        if not isinstance(value, Setting):
            yield f"{indent}{key}:"
            yield from _lines(value, holes, depth + 1)
            continue
        line = f"{indent}{key}: {_value(value, holes)}"
        comment = f"# line {value.line}" + (f", {value.was}" if value.was else "")
        if max(len(line), _COLUMN) + len(comment) + 2 > _WIDTH:
            yield f"{indent}{comment}"
            yield line
        else:
            yield f"{line:<{_COLUMN}}  {comment}"


def _value(setting: Setting, holes: Holes) -> str:
    value, written = setting.value, setting.written
    if setting.waits:
        return (
            f"${{{holes.within(str(value))[0].variable}}}"  # without quotes: what it holds decides the type
        )
    if isinstance(value, tuple):
        texts = written if len(written) == len(value) else ("",) * len(value)
        return f"[{', '.join(scalar(each, holes, text) for each, text in zip(value, texts, strict=True))}]"
    assert value is not None
    return scalar(value, holes, written[0] if len(written) == 1 else "")


def _same(written: str, value: int | float) -> bool:
    try:
        return bool(yaml_text.load(written, "") == value) and re.fullmatch(r"[-+.\deE]+", written) is not None
    except JobError:
        return False


def _text(value: str, holes: Holes) -> str:
    """Text that a job file reads back as it is, with `${NAME}` for a variable that the environment has to set."""
    if _BARE.match(value) and not HOLE.search(value) and yaml_text.load(value, "") == value:
        return value
    pieces = HOLE.split(value)
    out = ""
    for place, piece in enumerate(pieces):
        if place % 2:
            out += f"${{{holes.found[int(piece)].variable}}}"
        else:
            out += _REFERENCE.sub(lambda reference: f"${reference[0]}", piece)
    return '"' + "".join(_escaped(sign) for sign in out) + '"'


def _escaped(sign: str) -> str:
    if sign in _ESCAPES:
        return "\\" + _ESCAPES[sign]
    if sign == " " or sign.isprintable():
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _one_line(text: str) -> str:
    """The text as a comment holds it: no line breaks, no control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
