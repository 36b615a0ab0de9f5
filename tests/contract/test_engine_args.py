"""A job's own arguments are named and typed by the installed vLLM, and those that we own are arguments of it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")

from openrlhf_mtp.config.engine_args import KEPT, SET_BY  # noqa: E402  (after the skip)
from openrlhf_mtp.rollout.engine_args import unfit  # noqa: E402
from openrlhf_mtp.rollout.gpu_limits import gpu_limits  # noqa: E402

KNOWN = {field.name for field in fields(vllm.AsyncEngineArgs)}


def test_what_a_job_may_not_set_and_what_we_complete_are_arguments_of_vllm() -> None:
    assert set(SET_BY) | set(KEPT) <= KNOWN
    wide = gpu_limits({"speculative_config": {"num_speculative_tokens": 3}}, graphs_up_to=512)
    assert set(wide) <= KNOWN
    assert list(unfit({"cudagraph_capture_sizes": wide["cudagraph_capture_sizes"]})) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kv_cache_dtype": "fp8"},
        {"block_size": 32, "disable_cascade_attn": True, "swap_space_of_another_kind": None},
        {"compilation_config": {"cudagraph_mode": "PIECEWISE"}},
        {"hf_overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}},
    ],
    ids=str,
)
def test_vllms_own_names_and_types_are_taken(arguments: dict[str, Any]) -> None:
    unknown = {name for name in arguments if name not in KNOWN}
    assert {str(problem).split(": ")[0].rpartition(".")[2] for problem in unfit(arguments)} == unknown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"kv_cache_dtyp": "fp8"},
            "mtp.rollout.engine_args.kv_cache_dtyp: unknown key; did you mean mtp.rollout.engine_args.kv_cache_dtype?",
        ),
        (
            {"kv_cache_dtype": "fp7"},
            "mtp.rollout.engine_args.kv_cache_dtype: got fp7, expected 'auto', 'float16'",
        ),
        ({"block_size": "wide"}, "mtp.rollout.engine_args.block_size: got wide, expected a valid integer"),
        (
            {"disable_cascade_attn": [1]},
            "mtp.rollout.engine_args.disable_cascade_attn: got [1], expected a valid",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_names_and_values_are_refused(arguments: dict[str, Any], words: str) -> None:
    (problem,) = unfit(arguments)
    assert problem.level == "error"
    assert str(problem).startswith(words), problem
