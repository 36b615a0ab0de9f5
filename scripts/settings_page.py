"""Print docs/settings.md: every setting of the `mtp:` section with its default, unit and meaning.

.venv/bin/python scripts/settings_page.py > docs/settings.md
"""

import json
from collections.abc import Iterator

from openrlhf_mtp.config.settings.annotations import takes
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.setting import Settings

HEADER = """# Settings

This page lists the `mtp:` section of a job file. `scripts/settings_page.py` writes it from the code, and a test
compares the two.

Every other key of a job file is one of OpenRLHF's flags. `openrlhf-mtp check` knows these flags and suggests the
nearest name for a misspelled one. `ds.param_dtype` accepts two more values here: `fp32`, and `auto`, the default.
`auto` is bf16 with CUDA. Without CUDA it is the faster of bf16 and fp32, which the run measures when it starts.

## How to write a job file

- Nest keys or join them with dots: `mtp: {optim: {lr: 1e-4}}` and `mtp.optim.lr: 1e-4` are the same.
- On the command line, `mtp.optim.lr=1e-4` replaces the value in the file.
- `null` removes a section: `mtp=null` runs plain OpenRLHF. For one of OpenRLHF's flags, `null` means its default.
- `${NAME}` is replaced by the environment variable. `${NAME:-otherwise}` gives a value to use if it is not set.
- `$${NAME}` is the text `${NAME}`. `$NAME` and any other dollar sign stay as they are.
- `~` is your home folder wherever a path is expected.
- `<<: *name` merges a section. A top-level section whose name begins with `x-` holds YAML anchors and is ignored.
- Plain values follow YAML 1.2: `off` and `yes` are text, and `1e-6` is a number. Text is kept as written
  (`run_name: 007`).
- The file may be `-` for standard input, or a pipe: `openrlhf-mtp check <(envsubst < job.yaml)`.

## What the units mean

A *head step* is one optimizer step of the head. An *RL step* is one round of rollout, training and sync. A *target
forward* is one forward pass of the policy that verifies drafts. An empty unit means a name, a switch or a plain number.
"""


def sections(model: type[Settings], prefix: str) -> Iterator[str]:
    """Yield the table of a section, then those of its inner sections."""
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
        yield f"| `{name}` | {text} | {takes(info.annotation, example=False)} | {extra['unit']} | {info.description} |"
    yield ""
    for name, section in inner:
        yield from sections(section, name)


def page() -> str:
    """Return the page."""
    return "\n".join([HEADER, *sections(MTPSettings, "mtp")]).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
