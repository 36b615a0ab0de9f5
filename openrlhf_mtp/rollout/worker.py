"""What we add to vLLM's worker: proof that our patches live there, weight checks, and a recorder of drafts for tests.

vLLM mixes this class into its worker (`worker_extension_cls`), so names carry a prefix and there is no `__init__`.
"""

from __future__ import annotations

from typing import Any

from openrlhf_mtp.rollout import plugin
from openrlhf_mtp.rollout.recorder import DraftRecorder


class MTPWorkerExtension:
    """Methods reachable through vLLM's `collective_rpc`."""

    def mtp_probe(self) -> None:
        """Raise `PluginNotLiveError` unless patches and registrations live in this worker."""
        plugin.probe()

    def mtp_manifest(self) -> Any:
        """Names, shapes and types of the weights this worker's policy and head expect."""
        from openrlhf_mtp.sync.effective import engine_manifest

        return engine_manifest(self)

    def mtp_effective_digests(self) -> Any:
        """Digests of the weights this worker really computes with; see `sync.effective`."""
        from openrlhf_mtp.sync.effective import effective_digests

        return effective_digests(self)

    def mtp_record_drafts(self, on: bool) -> None:
        """Start or stop keeping every proposal's tokens and distributions (tests and diagnosis; uses memory)."""
        proposer = self.model_runner.drafter  # type: ignore[attr-defined]
        if on:
            self._mtp_recorder = DraftRecorder(proposer)
        else:
            self._mtp_recorder.remove()

    def mtp_recorded_drafts(self) -> list[tuple[list[list[int]], list[list[list[float]]] | None]]:
        """Proposals since recording began: tokens [B, k] and, if drafts are sampled, distributions [B, k, V]."""
        return [
            (tokens.tolist(), None if probabilities is None else probabilities.tolist())
            for tokens, probabilities in self._mtp_recorder.proposals
        ]
