"""Draft for the whole batch also while one of its sequences is near the end of the context.

Before each proposal vLLM's model runner asks whether the longest sequence of the batch plus k tokens fits the draft's
context, and if not, nobody drafts: every neighbor of a sequence near `data.max_len` decodes on drafts of token 0, all
rejected and all counted. Agents, and responses without a limit of their own, have such a sequence in the batch most of
the time. The proposer itself needs no such rule: at each depth it takes positions beyond the context out of the cache
and of attention (`eagle_step_update_slot_mapping_and_metadata`), and the scheduler verifies no draft beyond it.

An EAGLE draft's context is the target's, whatever its own `config.json` says: vLLM raises its number of positions.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_TARGET = "vllm.v1.worker.gpu_model_runner"


def _let_neighbors_draft(runners: ModuleType) -> None:
    runner = runners.GPUModelRunner
    fits = runner._input_fits_in_drafter

    @functools.wraps(fits)
    def fits_by_sequence(self: Any, common_attn_metadata: Any) -> bool:
        if self.speculative_config.method != "eagle":
            return bool(fits(self, common_attn_metadata))
        return common_attn_metadata is not None

    runner._input_fits_in_drafter = fits_by_sequence


def _is_live(runners: ModuleType) -> bool:
    return runners.GPUModelRunner._input_fits_in_drafter.__code__.co_name == "fits_by_sequence"


PATCH = Patch(
    name="drafts beside a sequence at its context's end",
    target=_TARGET,
    touches=("GPUModelRunner._input_fits_in_drafter",),
    reason="one sequence within k tokens of the context's end takes the drafts of its whole batch",
    versions="vllm 0.29.0",
    apply=_let_neighbors_draft,
    probe=_is_live,
)
