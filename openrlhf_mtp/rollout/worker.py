"""Extend vLLM's worker: the sync's receiver, and proof that our patches live there.

vLLM mixes this class into its worker (`worker_extension_cls`), so names carry a prefix and there is no `__init__`.
"""

from __future__ import annotations

from typing import Any

from openrlhf_mtp.rollout import plugin
from openrlhf_mtp.sync.receiver import ReceivingWorker


class MTPWorkerExtension(ReceivingWorker):
    """Methods reachable through vLLM's `collective_rpc`."""

    def mtp_probe(self) -> None:
        """Raise unless patches and registrations live in this worker, and its model runner drafts as the job says."""
        worker: Any = self
        plugin.probe(v2_runner=worker.use_v2_model_runner, speculative=worker.speculative_config)
