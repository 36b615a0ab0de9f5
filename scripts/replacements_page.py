"""Print docs/replacements.md: what is replaced in OpenRLHF and the packages below it.

.venv/bin/python scripts/replacements_page.py > docs/replacements.md
"""

from collections.abc import Iterator

from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.registry import replacements
from openrlhf_mtp.upstream.replacement import Binding, Replacement, Wrapping
from openrlhf_mtp.upstream.vllm.patches import IN_V2, V2_PATCHES
from openrlhf_mtp.upstream.vllm.v2 import block_noise

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


RUNNERS = """## vLLM's two model runners

vLLM takes its V2 model runner where Triton works, and V1 elsewhere: on a CPU, for drafts of a method that V2 lacks, and
with `VLLM_USE_V2_MODEL_RUNNER=0`. A worker asks for the patches of its own runner before the first rollout.

| patch in V1's runner | counterpart in V2's, or why there is none |
|---|---|"""

BESIDE = """
Without a counterpart in V1, which does not verify sampled drafts as blocks: {alone}.

Beside the patches, the head's draft class follows either runner's depth. vLLM compiles it with all blocks of the head;
the active one is chosen after the compiled part. The weight sync reaches policy and draft by methods that both runners
have. The estimate of a sampler's memory (`openrlhf_mtp/config/sampler_memory.py`) is V1's;
V2's sampler takes less. `bench rollout` runs all its arms on V1 if one of them drafts by n-grams or suffixes.
`tests/engine/test_v2_runner.py` and `tests/engine/test_v2_losslessness.py` run V2 on a CPU, in Triton's interpreter.
"""


def page() -> str:
    """The page."""
    sections = (line for kind in KINDS for line in section(kind))
    return "\n".join([HEADER, *runners(), *sections]).rstrip()


def runners() -> Iterator[str]:
    """What became of each replacement in V1's model runner in V2's."""
    yield RUNNERS
    for own, counterpart in IN_V2.items():
        yield f"| {own} | {counterpart} |"
    alone = [one.name for one in V2_PATCHES if one.name not in IN_V2.values()]
    assert set(alone) == {one.name for one in block_noise.PATCHES}, "say why V1 needs no counterpart"
    yield BESIDE.format(alone=", ".join(alone))


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
