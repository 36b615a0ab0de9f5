"""Print docs/settings.md: every setting of the `mtp:` section with its default, unit and meaning.

.venv/bin/python scripts/settings_page.py > docs/settings.md
"""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.setting import Settings

HEADER = """# Settings

The `mtp:` section of a job file. Everything else in a job file is one of OpenRLHF's own flags: `openrlhf-mtp check`
knows them all and offers the nearest name for a wrong one. One of them takes more here: `ds.param_dtype` also `fp32`,
and `auto`, its default (bf16 with CUDA, otherwise the faster of bf16 and fp32 by a measurement at the start). Written
by `scripts/settings_page.py`; a test keeps it in step with the code.

How a job file is written:

- Nested or dotted alike: `mtp: {optim: {lr: 1e-4}}`, `mtp.optim.lr: 1e-4`; on the command line `mtp.optim.lr=1e-4`,
  which replaces what the file says. A section's `null` takes the section out (`mtp=null` is plain OpenRLHF), and the
  null of one of OpenRLHF's flags leaves it at its default.
- `${NAME}` is the environment's variable, `${NAME:-otherwise}` has a value for when it is not set, and `$${NAME}` is
  the text `${NAME}`. `$NAME` and any other dollar stay as they are. `~` is your home folder wherever a path belongs.
- `<<: *name` merges a section; sections at the top whose name begins with `x-` are for anchors and mean nothing else.
- Plain values are YAML 1.2's: `off` and `yes` are text, `1e-6` is a number. Text keeps its form (`run_name: 007`).
- The file may be `-` for standard input, or a pipe: `openrlhf-mtp check <(envsubst < job.yaml)`.
"""


def allowed(annotation: Any) -> str:
    """What a field takes, in a few words."""
    if get_origin(annotation) is dict:
        return "a mapping of these names to numbers"
    choices = get_args(annotation)
    if get_origin(annotation) is tuple:
        return f"list of {len(choices)} numbers"
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)
    names = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "null"}
    if annotation in names:
        return names[annotation]
    return " or ".join(dict.fromkeys(allowed(choice) for choice in choices)) if choices else "section"


def sections(model: type[Settings], prefix: str) -> Iterator[str]:
    """One table for a section, then those of its own sections."""
    instance = model()
    yield f"## `{prefix}`\n\n{(model.__doc__ or '').strip().splitlines()[0]}\n"
    yield "| setting | default | takes | unit | meaning |\n|---|---|---|---|---|"
    inner: list[tuple[str, type[Settings]]] = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            inner.append((f"{prefix}.{name}", info.annotation))
            continue
        text = json.dumps(instance.model_dump(mode="json")[name]).strip('"')
        extra = info.json_schema_extra
        assert isinstance(extra, dict)
        yield f"| `{name}` | {text} | {allowed(info.annotation)} | {extra['unit']} | {info.description} |"
    yield ""
    for name, section in inner:
        yield from sections(section, name)


def page() -> str:
    """The whole page."""
    return "\n".join([HEADER, *sections(MTPSettings, "mtp")]).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
