"""Extend vLLM's worker by a probe of our patches and by the two calls of a weight sync.

vLLM mixes this class into its worker (`worker_extension_cls`), so names carry a prefix and there is no `__init__`.
"""

from __future__ import annotations

from typing import Any

from openrlhf_mtp.rollout import plugin


class MTPWorkerExtension:
    """Methods reachable through vLLM's `collective_rpc`."""

    def mtp_probe(self) -> None:
        """Raise `PluginNotLiveError` unless patches and registrations live in this worker, on their model runner."""
        plugin.probe(v2_runner=self.use_v2_model_runner)  # type: ignore[attr-defined]

    def mtp_manifest(self) -> Any:
        """Names, shapes and types of the weights this worker's policy and head expect."""
        from openrlhf_mtp.sync.readback import engine_manifest

        return engine_manifest(self)

    def mtp_sync_round(self, plan: dict[str, Any]) -> Any:
        """Receive policy and head, then report what this worker really computes with; see `sync.receiver`."""
        from openrlhf_mtp.sync.receiver import receive_round

        return receive_round(self, plan)
