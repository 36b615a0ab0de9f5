"""Print docs/replacements.md: what is replaced in OpenRLHF and the packages below it.

.venv/bin/python scripts/replacements_page.py > docs/replacements.md
"""

from collections.abc import Iterator

from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.registry import replacements
from openrlhf_mtp.upstream.replacement import Binding, Replacement, Wrapping

HEADER = """# What is replaced in the dependencies

openrlhf-mtp changes no dependency on disk. It replaces functions and classes in the running process, all of them from
`openrlhf_mtp/upstream/`. A test searches the package for assignments to anything of another package and fails where
one is missing here. `scripts/replacements_page.py` writes this page from the code, and a test compares the two.

`openrlhf-mtp doctor` says how many are live on your machine. After an upgrade of a dependency, check each entry that
names it.
"""

KINDS: dict[type[Replacement], str] = {
    Patch: """## Patches

A patch changes a module in every process, right after the module is imported. Its probe asks whether the change is
live. If it is not, the import fails with the reason.""",
    Binding: """## Bindings

A binding puts a class or function of ours into a module that looks it up by name. It fails if the name is gone.""",
    Wrapping: """## Wrappings

A wrapping wraps a method of one object, for example for one training step. It fails if the method was not called.""",
}


def page() -> str:
    """The page."""
    return "\n".join([HEADER, *(line for kind in KINDS for line in section(kind))]).rstrip()


def section(kind: type[Replacement]) -> Iterator[str]:
    """The replacements of a kind, each under its effect."""
    yield KINDS[kind]
    yield ""
    for module, own in replacements().items():
        for one in own:
            if type(one) is kind:
                yield f"### {heading(one.name)}"
                yield ""
                yield f"- replaced: {', '.join(f'`{path}`' for path in one.touches)} of `{one.target}`"
                yield f"- why: {one.reason}"
                yield f"- file: `openrlhf_mtp/upstream/{module.replace('.', '/')}.py`"
                yield f"- checked on: {one.versions}"
                yield ""


def heading(name: str) -> str:
    """A name as a heading; an identifier at its beginning stays as it is."""
    is_identifier = any(sign in name.partition(" ")[0] for sign in "._")
    return name if is_identifier else f"{name[0].upper()}{name[1:]}"


if __name__ == "__main__":
    print(page())
