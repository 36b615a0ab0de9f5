"""Every `helm install` that the docs show renders: its values files and settings are there and fit each other."""

import re
import shlex

import pytest
import yaml

from helm.engine import ROOT, job_values, merged, render

GUIDE = sorted((ROOT / "docs").glob("kubernetes*.md"))
PAGES = [ROOT / "README.md", *GUIDE, ROOT / "docker" / "README.md"]
INSTALL = re.compile(r"^helm install (\S+) helm/openrlhf-mtp (.*)$", re.M)


def installs():
    """(page, release, words) of every command in a block of code that is whole."""
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            for release, rest in INSTALL.findall(block.replace("\\\n", " ")):
                if "…" not in rest:
                    yield pytest.param(release, shlex.split(rest), id=f"{page.name} {release}")


def setting(text):
    """Values of one `--set`: a dotted name, and a text, true or false."""
    name, _, value = text.partition("=")
    given = {"true": True, "false": False}.get(value, value)
    for key in reversed(name.split(".")):
        given = {key: given}
    return given


FOUND = list(installs())


@pytest.mark.parametrize(("release", "words"), FOUND)
def test_an_install_of_the_docs_renders(release, words):
    values = {}
    for option, given in zip(words[::2], words[1::2], strict=True):
        if option in ("-f", "--values"):
            values = merged(values, yaml.safe_load((ROOT / given).read_text(encoding="utf-8")))
        elif option == "--set":
            values = merged(values, setting(given))
        elif option == "--set-file":
            name, _, file = given.partition("=")
            values = merged(values, setting(f"{name}={(ROOT / file).read_text(encoding='utf-8')}"))
        else:
            assert option == "--timeout", option
    made = render(values, name=release)
    assert made.notes


VALUES = [
    text
    for page in GUIDE
    for text in re.findall(
        r"^```(?:yaml)?\n((?:[a-z]+:.*\n)(?:.*\n)*?)```$", page.read_text(encoding="utf-8"), re.M
    )
]


@pytest.mark.parametrize("text", VALUES, ids=range(len(VALUES)))
def test_values_that_the_guide_shows_render(text):
    job = ROOT / "examples" / "llama-3.1-8b_2nodes" / "job.yaml"
    assert render(merged(job_values(job), yaml.safe_load(text))).objects


def test_there_are_some():
    assert len(FOUND) >= 3
    assert len(VALUES) >= 3
