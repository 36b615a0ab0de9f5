"""Write what follows from other files: values.schema.json, files/values.json and the table in the chart's README.md
from its values.yaml, and the Grafana dashboard from helm/dashboard.py.

    python -m helm.generate [--check]

A value's documentation is the comment above it; its type is that of its default, or null, which means the default. A
comment line `@schema {...}` holds JSON Schema to add, and words of ours:

- `is`: the kind of a text (helm/kinds.py), or nothing where the default is nothing (or with `optional`: true);
  `each`: that of a list's items or a map's values; `keys`: of a map's keys;
  `fields`: of the fields of a list's items;
- `free`: a map with any keys; true, or the type of its values;
- `kubernetes`: Kubernetes' type of the value, or of a list's items;
- `copies`: the section has the keys and defaults of another one too;
- `extends`: it may set the keys of another one for itself, or those in `only`, and has no defaults for them.
"""

import json
import sys
from pathlib import Path
from typing import Any

from helm.dashboard import dashboard
from helm.documented import ROOT, VALUES, Value, read_values
from helm.schema import schema, template_data

SCHEMA = VALUES.with_name("values.schema.json")
TEMPLATE_DATA = VALUES.parent / "files" / "values.json"
DASHBOARD = VALUES.parent / "files" / "dashboard.json"
PAGE = VALUES.with_name("README.md")
BEGIN, END = "<!-- values: written by helm/generate.py -->", "<!-- end of values -->"

HEAD = "| value | default | meaning |\n|---|---|---|"


def table(values: list[Value]) -> str:
    """Markdown: a table for the values without a section, then one for each section."""
    general = [value for value in values if "." not in value.path and not value.is_section]
    blocks = [[HEAD, *map(_row, general)]]
    for section in values:
        if "." in section.path or not section.is_section:
            continue
        title = f"**`{section.path}`** — {section.text}"
        if section.parent:
            title += f" {_inherits(section)}"
        leaves = [
            value
            for value in values
            if value.path.startswith(f"{section.path}.") and (not value.is_section or value.parent)
        ]
        blocks.append([title, *(["", HEAD, *map(_row, leaves)] if leaves else [])])
    return "\n" + "\n\n".join("\n".join(block) for block in blocks)


def _inherits(section: Value) -> str:
    keys = ", ".join(f"`{key}`" for key in section.only)
    return f"Takes {keys or 'every key'} of `{section.parent}`."


def _row(value: Value) -> str:
    if value.is_section:
        return f"| `{value.path}.*` | | {_cell(value.text)} {_inherits(value)} |"
    return f"| `{value.path}` | {_shown(value.default)} | {_cell(value.text)} |"


def _shown(default: Any) -> str:
    return "" if default in ("", None) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page_with_table(page: str, made: str) -> str:
    """The page with the part between the two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n\n{END}{after}"


def outputs() -> dict[Path, str]:
    """Every generated file as it should be."""
    values = read_values()
    return {
        DASHBOARD: json.dumps(dashboard(), indent=2) + "\n",
        TEMPLATE_DATA: json.dumps(template_data(values), indent=2, ensure_ascii=False) + "\n",
        SCHEMA: json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n",
        PAGE: page_with_table(PAGE.read_text(encoding="utf-8"), table(values)),
    }


def main(argv: list[str]) -> int:
    """Write the files, or with --check say which are out of date."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{'out of date' if '--check' in argv else 'written'}: {path.relative_to(ROOT)}")
        if "--check" not in argv:
            path.write_text(outputs()[path], encoding="utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
