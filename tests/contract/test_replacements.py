"""Everything that we replace is there in the installed versions, under the names that the table says."""

from __future__ import annotations

import importlib

import pytest

from tests.processes import in_fresh_process

pytest.importorskip("vllm")


def look() -> tuple[dict[str, list[str]], str]:
    """Touched names that are missing, by replacement; and the state of a process that has imported every target."""
    from openrlhf_mtp.rollout import plugin
    from openrlhf_mtp.upstream.processes import prepare_process
    from openrlhf_mtp.upstream.registry import replacements, state

    prepare_process()
    plugin.register()
    from vllm.platforms import current_platform

    everything = [one for own in replacements().values() for one in own]
    if not current_platform.is_cpu():  # CPU workers alone may import its target
        everything = [one for one in everything if one.target != "vllm.utils.cpu_triton_utils"]
    missing = {one.name: one.missing(importlib.import_module(one.target)) for one in everything}
    return {name: names for name, names in missing.items() if names}, ", ".join(state().dead)


def test_every_touched_name_exists_and_every_probe_answers():
    assert in_fresh_process(look) == ({}, "")
