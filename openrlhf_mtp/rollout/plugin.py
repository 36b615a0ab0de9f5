"""Entry point `vllm.general_plugins: openrlhf_mtp`: vLLM calls `register` in every one of its processes.

vLLM logs and then ignores a plugin that fails, and `VLLM_PLUGINS` can leave one out, so registration is
never taken for granted: `probe` raises in the process that asks, and `rollout.worker` asks in each worker
before the first rollout.
"""

from __future__ import annotations

from typing import Any

from openrlhf_mtp.config.head_contract.fit import DRAFT_ARCHITECTURE
from openrlhf_mtp.upstream.patching import install
from openrlhf_mtp.upstream.vllm.patches import PATCHES, not_live

DRAFT_CLASS = f"openrlhf_mtp.rollout.draft_model:{DRAFT_ARCHITECTURE}"
WEIGHT_TRANSFER_BACKEND = "mtp"
WEIGHT_TRANSFER_CLASS = ("openrlhf_mtp.sync.receiver", "MTPWeightTransferEngine")


class PluginNotLiveError(RuntimeError):
    """This process runs vLLM without our patches or registrations."""


class ModelRunnerError(RuntimeError):
    """The worker's model runner would not do what the job asks for, and would not say so."""


def register() -> None:
    """Patch vLLM and register the draft model and the weight-transfer engine. Cheap, and safe to repeat."""
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    install(PATCHES)
    if DRAFT_ARCHITECTURE not in ModelRegistry.models:
        ModelRegistry.register_model(DRAFT_ARCHITECTURE, DRAFT_CLASS)
    # vLLM offers no public way to ask, and registering twice is an error
    if WEIGHT_TRANSFER_BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(WEIGHT_TRANSFER_BACKEND, *WEIGHT_TRANSFER_CLASS)


def missing(*, v2_runner: bool = False) -> list[str]:
    """The registrations that are not live in this process, one line each; empty when all are.

    Ask after the worker has loaded its model: vLLM picks the sampling kernels no earlier.

    Args:
        v2_runner: the patches of vLLM's V2 model runner count, not those of V1's.
    """
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    found = {
        f"draft architecture {DRAFT_ARCHITECTURE}": DRAFT_ARCHITECTURE in ModelRegistry.models,
        f"weight-transfer engine {WEIGHT_TRANSFER_BACKEND!r}": WEIGHT_TRANSFER_BACKEND
        in WeightTransferEngineFactory._registry,
    }
    patches = [f"patch {name!r}" for name in not_live(v2_runner=v2_runner)]
    return [what for what, live in found.items() if not live] + patches


def probe(*, v2_runner: bool = False, speculative: Any = None) -> None:
    """Raise unless everything `register` does is live in this process, and its runner drafts as the job says.

    Args:
        v2_runner: the worker runs vLLM's V2 model runner.
        speculative: vLLM's `SpeculativeConfig`; None where nothing drafts.

    Raises:
        PluginNotLiveError: naming what is missing.
        ModelRunnerError: block verification of sampled drafts on V1's runner.
    """
    absent = missing(v2_runner=v2_runner)
    if absent:
        raise PluginNotLiveError(
            f"not live in this vLLM process: {'; '.join(absent)}. vLLM loads the plugin `openrlhf_mtp` through the "
            "entry points of the installed package: install openrlhf-mtp in this environment (pip install -e .), and "
            "if VLLM_PLUGINS is set, list openrlhf_mtp in it."
        )
    would_be_greedy = (
        not v2_runner
        and speculative is not None
        and speculative.rejection_sample_method == "block"
        and speculative.draft_sample_method == "probabilistic"
    )
    if would_be_greedy:
        raise ModelRunnerError(
            "mtp.rollout.rejection_sample_method: got block, expected standard on vLLM's V1 model runner, which would "
            "draft greedily without saying so. Set standard, or let vLLM take its V2 model runner: unset "
            "VLLM_USE_V2_MODEL_RUNNER, on a GPU with Triton"
        )
