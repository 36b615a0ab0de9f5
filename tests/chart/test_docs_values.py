"""Every piece of values that the docs show renders, and what it makes is valid."""

import re

import pytest
import yaml

from helm.engine import ROOT, ci_values, merged, render
from tests.chart import schemas

PAGES = sorted((ROOT / "docs").glob("kubernetes*.md"))
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.M | re.S)


def pieces():
    """Blocks of YAML that are values and no objects."""
    for page in PAGES:
        for number, text in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if "kind" not in (values := yaml.safe_load(text)):
                yield pytest.param(values, id=f"{page.stem}-{number}")


FOUND = list(pieces())


@pytest.mark.parametrize("values", FOUND)
@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_values_of_the_docs_give_valid_objects(values, backend):
    made = render(merged(merged(ci_values("four-nodes"), {"backend": backend}), values))
    assert [problem for one in made.objects for problem in schemas.problems(one, "1.32")] == []


def test_there_are_some():
    assert len(FOUND) >= 5
