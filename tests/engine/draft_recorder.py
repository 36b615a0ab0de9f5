"""Keep what vLLM's proposer (V2: speculator) drafts, so that it can be compared with the chain that training computes.

Two worker extensions to start an engine with, by import path (`worker_extension_cls`): `RecordingExtension` records and
does nothing else, `RecordingMTPExtension` is the product's with the recorder on top.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from openrlhf_mtp.rollout.worker import MTPWorkerExtension

Proposal = tuple[list[int], list[list[float]] | None]
"""One draft of one request: its k tokens, and their distributions [k, V] unless drafts are greedy."""


class DraftRecorder:
    """Wraps the proposer of one model runner.

    Attributes:
        proposals: request id -> its proposals in order; those at the end of a prompt's chunk, which the engine throws
            away, are left out.
    """

    def __init__(self, runner: Any) -> None:
        self.proposals: dict[str, list[Proposal]] = {}
        proposer = runner.drafter
        propose = proposer.propose

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            tokens: Tensor = propose(*args, **kwargs)
            drawn_from = proposer.take_last_draft_probs()
            for row, request in enumerate(runner.input_batch.req_ids):
                if runner.discard_request_mask.np[row]:
                    continue
                distributions = None if drawn_from is None else drawn_from[row].tolist()
                self.proposals.setdefault(request, []).append((tokens[row].tolist(), distributions))
            return tokens

        proposer.propose = recorded


class SpeculatorRecorder:
    """The same for the V2 model runner, which keeps the drafts' logits as they were before the temperature."""

    def __init__(self, runner: Any) -> None:
        self.proposals: dict[str, list[Proposal]] = {}
        speculator = runner.speculator
        propose = speculator.propose
        signature = inspect.signature(propose)

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            tokens: Tensor = propose(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            batch = given["input_batch"]
            for row, request in enumerate(() if given.get("dummy_run") else batch.req_ids):
                if given["num_sampled"][row] == 0:  # the end of a prompt's chunk
                    continue
                state = batch.idx_mapping[row]
                logits = speculator.draft_logits[state].float() / given["temperature"][state]
                kept = (tokens[row].tolist(), logits.softmax(-1).tolist())
                self.proposals.setdefault(request, []).append(kept)
            return tokens

        speculator.propose = recorded


class RecordingExtension:
    """Worker methods for `collective_rpc`."""

    def mtp_record_drafts(self) -> None:
        """Keep every proposal from now on."""
        worker: Any = self
        recorder = SpeculatorRecorder if worker.use_v2_model_runner else DraftRecorder
        self._mtp_recorder = recorder(worker.model_runner)

    def mtp_recorded_drafts(self) -> dict[str, list[Proposal]]:
        """Proposals since recording began, by request."""
        return self._mtp_recorder.proposals


class RecordingMTPExtension(RecordingExtension, MTPWorkerExtension):
    """The product's worker extension, with the recorder."""
