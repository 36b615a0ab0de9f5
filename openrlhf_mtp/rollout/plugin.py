"""Entry point `vllm.general_plugins: openrlhf_mtp`: vLLM calls `register` in every one of its processes.

vLLM logs and then ignores a plugin that fails, and `VLLM_PLUGINS` can leave one out, so registration is
never taken for granted: `probe` raises in the process that asks, and `rollout.worker` asks in each worker
before the first rollout.
"""

from __future__ import annotations

from openrlhf_mtp.upstream import vllm_draft_depth, vllm_sampling

DRAFT_ARCHITECTURE = "EagleMTPDraft"
DRAFT_CLASS = "openrlhf_mtp.rollout.draft_model:EagleMTPDraft"
WEIGHT_TRANSFER_BACKEND = "mtp"
WEIGHT_TRANSFER_CLASS = ("openrlhf_mtp.sync.engine", "MTPWeightTransferEngine")


class PluginNotLiveError(RuntimeError):
    """This process runs vLLM without our patches or registrations."""


def register() -> None:
    """Patch vLLM and register the draft model and the weight-transfer engine. Cheap, and safe to repeat."""
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    vllm_sampling.apply()
    vllm_draft_depth.apply()
    if DRAFT_ARCHITECTURE not in ModelRegistry.models:
        ModelRegistry.register_model(DRAFT_ARCHITECTURE, DRAFT_CLASS)
    # vLLM offers no public way to ask, and registering twice is an error
    if WEIGHT_TRANSFER_BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(WEIGHT_TRANSFER_BACKEND, *WEIGHT_TRANSFER_CLASS)


def missing() -> list[str]:
    """What is not live in this process, one line each; empty when all is well.

    Ask after the worker has loaded its model: vLLM picks the sampling kernels no earlier.
    """
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    found = {
        f"draft architecture {DRAFT_ARCHITECTURE}": DRAFT_ARCHITECTURE in ModelRegistry.models,
        f"weight-transfer engine {WEIGHT_TRANSFER_BACKEND!r}": WEIGHT_TRANSFER_BACKEND
        in WeightTransferEngineFactory._registry,
        f"patch {vllm_sampling.PATCH.name!r}": vllm_sampling.probe(),
        f"patch {vllm_draft_depth.PATCH.name!r}": vllm_draft_depth.probe(),
    }
    return [what for what, live in found.items() if not live]


def probe() -> None:
    """Raise unless everything `register` does is live in this process.

    Raises:
        PluginNotLiveError: naming what is missing.
    """
    absent = missing()
    if absent:
        raise PluginNotLiveError(
            f"not live in this vLLM process: {'; '.join(absent)}. vLLM loads the plugin `openrlhf_mtp` through the "
            "entry points of the installed package: install openrlhf-mtp in this environment (pip install -e .), and "
            "if VLLM_PLUGINS is set, list openrlhf_mtp in it."
        )
