"""Renders of every values file as committed: a change of the chart shows as a change of what it makes.

UPDATE_GOLDEN=1 pytest tests/chart/test_golden.py      # accept the new renders
"""

import os
import re
from pathlib import Path

import pytest
import yaml

from helm.engine import CI_NAMES, ci_values, merged, render

GOLDEN = Path(__file__).parent / "golden"
READ = ("num_nodes", "num_gpus_per_node", "num_engines", "tensor_parallel_size", "init_coef", "estimator")
READ += ("remote_url", "async_enable", "colocate_all", "save_steps")

CHECKED = re.compile(r"^  template:\n(?:    .*\n?)+", re.MULTILINE)
"""A pod's template in podtemplates.yaml, which test_podtemplates.py compares with the pod's own."""


def settings_read(tree, prefix=""):
    """The settings of a job that the chart reads, dotted: so that nothing else in an example changes a render."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from settings_read(value, f"{prefix}{key}.")
        elif key in READ:
            yield f"{prefix}{key}", value


def text_of(name):
    """The render as one file: objects in the order of their templates, then the notes."""
    values = ci_values(name)
    config = yaml.safe_dump(dict(settings_read(yaml.safe_load(values["job"]["config"]))))
    rendered = render(merged(values, {"job": {"config": config}}))
    (check,) = (name for name in rendered.files if name.endswith("/podtemplates.yaml"))
    files = {**rendered.files, check: CHECKED.sub("  template: (the pod's own)\n", rendered.files[check])}
    parts = [
        f"# {template.removeprefix('openrlhf-mtp/templates/')}\n{text.strip()}\n"
        for template, text in sorted(files.items())
        if text.strip()
    ]
    return "\n---\n".join("\n".join(line.rstrip() for line in part.splitlines()) + "\n" for part in parts)


@pytest.mark.parametrize("name", CI_NAMES)
def test_a_values_file_renders_as_committed(name):
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text_of(name), encoding="utf-8")
    assert golden.exists(), "run with UPDATE_GOLDEN=1"
    assert text_of(name) == golden.read_text(encoding="utf-8"), "run with UPDATE_GOLDEN=1 if this is meant"


def test_no_render_is_left_of_a_values_file_that_is_gone():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CI_NAMES)
