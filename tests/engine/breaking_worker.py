"""A worker extension with which one worker of an engine can be made to fail in the middle of a sync round."""

from __future__ import annotations

from typing import Any

from openrlhf_mtp.rollout.worker import MTPWorkerExtension


class BreakingMTPExtension(MTPWorkerExtension):
    """The product's, with one method more; start an engine with it by import path (`worker_extension_cls`)."""

    def mtp_break(self, worker: int) -> None:
        """From now on the worker of this rank cannot load a policy's weights; the others can."""
        this: Any = self

        def load_weights(weights: Any) -> None:
            raise MemoryError("this worker was told to fail")

        if this.rank == worker:
            this.model_runner.get_model().load_weights = load_weights
