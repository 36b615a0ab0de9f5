"""The hidden states of the pre-RL stage on one rank: stored in one pass before training, read at every visit.

States are computed in batches of responses of similar length, which do not depend on the ranks or on what an earlier
run has stored. A training batch's own forward pass would pad other rows, so that its states differ by rounding.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.config.run_files import STATES
from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.runlog.activity import activity
from openrlhf_mtp.runlog.count import Count
from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.runlog.run_folder import read_machine, write_machine
from openrlhf_mtp.training.pretrain import state_store
from openrlhf_mtp.training.pretrain.responses import Response
from openrlhf_mtp.training.pretrain.state_plan import StatePlan, plan_states
from openrlhf_mtp.training.pretrain.state_store import DamagedError, StateStore, length
from openrlhf_mtp.training.reduce import all_gather_objects, all_reduce_sum

Compute = Callable[[Sequence[Response]], Tensor]
"""Responses -> their hidden states as the head reads them, padded on the right [B, T, H]."""


def batches_of_similar_length(responses: Sequence[Response], size: int) -> list[list[Response]]:
    """Different responses in batches of `size`, the longest first: what does not fit into memory fails at once."""
    ordered = sorted(dict.fromkeys(responses), key=length, reverse=True)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


class StoredStates:
    """The stored states, as one rank reads and writes them.

    Args:
        out: the run folder.
        settings: of the stage.
        training: the training responses.
        held_out: the held-out responses.
        like: a tensor of the states' width [.., H] and type.
        compute: the policy's forward pass.
        together: whether a forward pass needs all ranks, so that each makes as many as the one that misses most.
    """

    def __init__(
        self,
        out: Path,
        settings: PretrainSettings,
        training: Sequence[Response],
        held_out: Sequence[Response],
        *,
        like: Tensor,
        compute: Compute,
        together: bool = False,
    ) -> None:
        self._out, self._settings, self._compute, self._together = out, settings, compute, together
        self._training, self._held_out = training, held_out
        self._width, self._dtype = like.shape[-1], like.dtype
        self._store: StateStore | None = None

    def fill(self, made_with: dict[str, Any]) -> None:
        """Decide, and compute and store what is missing (collective). If that fails, nothing is stored.

        Args:
            made_with: everything that determines the states.
        """
        began = time.monotonic()
        made_with = made_with | {"width": self._width, "dtype": str(self._dtype)}
        plan = _from_rank_0(lambda: self._prepared(made_with))
        if plan.stores:
            failure = self._filled(plan)
            if float(all_reduce_sum(torch.tensor(0.0 if failure is None else 1.0))):
                self._give_up(failure)
        if _rank() == 0:
            stored = plan.stores and self._store is not None
            record = asdict(plan) | {"stored": stored, "seconds": round(time.monotonic() - began, 1)}
            write_machine(self._out, read_machine(self._out) | {"hidden_states": record})

    def _prepared(self, made_with: dict[str, Any]) -> StatePlan:
        """The plan, with the folder as it needs it."""
        self._out.mkdir(parents=True, exist_ok=True)
        folder = self._out / STATES
        held = sum(path.stat().st_blocks * 512 for path in folder.glob("*"))
        plan = plan_states(
            self._settings,
            self._training,
            self._held_out,
            token_bytes=self._width * self._dtype.itemsize,
            free=shutil.disk_usage(self._out).free + held,
        )
        if plan.refused is not None:
            say(self._out, plan.refused)
        if not plan.stores:
            state_store.remove(folder)
            return plan
        try:
            state_store.prepare(folder, made_with)
        except OSError as error:
            say(self._out, _not_stored(error))
            return StatePlan(False, False, 0, str(error))
        return plan

    def _filled(self, plan: StatePlan) -> OSError | None:
        """Open the store and compute this rank's share of what is missing; what went wrong, if anything did."""
        failure, missing = None, []
        try:
            missing = self._missing(plan)
        except OSError as error:
            failure = error
        count = Count(sum(length(response) for batch in missing for response in batch), "tokens")
        passes = max(all_gather_objects(len(missing))) if self._together else len(missing)
        with activity(self._out, "states") as now:
            for number in range(passes):
                batch = missing[number] if number < len(missing) else []
                states = self._compute(batch or self._held_out[:1]).cpu()
                if failure is not None:
                    continue  # for the other ranks
                try:
                    self._write(batch, states, count)
                except OSError as error:
                    failure = error
                    if not self._together:
                        break
                if _rank() == 0:
                    now.say(f"hidden states of {count}")
        return failure

    def _missing(self, plan: StatePlan) -> list[list[Response]]:
        """Open the store; the batches of this rank's share that it does not have."""
        size = self._settings.micro_batch_size
        parts = (self._training if plan.training else (), self._held_out if plan.held_out else ())
        batches = [batch for part in parts for batch in batches_of_similar_length(part, size)]
        self._store = store = StateStore(
            self._out / STATES, [*self._training, *self._held_out], self._width, self._dtype
        )
        mine = batches[_rank() :: _ranks()]
        return [batch for batch in mine if not all(response in store for response in batch)]

    def _write(self, batch: Sequence[Response], states: Tensor, count: Count) -> None:
        """Store the states of responses, padded on the right [B, T, H]."""
        assert self._store is not None, "_missing() opens it"
        for row, response in enumerate(batch):
            self._store.write(response, states[row, : length(response)])
            count.advance(length(response))

    def _give_up(self, failure: OSError | None) -> None:
        """A rank could not write: compute at every visit, and leave the disk to the checkpoints."""
        if failure is not None:
            say(self._out, _not_stored(failure))
        self.close()
        _barrier()
        if _rank() == 0:
            state_store.remove(self._out / STATES)

    def read(self, responses: Sequence[Response]) -> Tensor | None:
        """The stored states of responses, padded with zeros on the right [B, T, H]; None if they are to be computed."""
        store = self._store
        if store is None or not all(response in store for response in responses):
            return None
        try:
            return store.read(responses)
        except (DamagedError, OSError) as error:
            say(self._out, f"{error}; the policy's forward pass runs again where that happens")
            return None

    def close(self) -> None:
        """Read nothing from the disk any more."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def remove(self) -> None:
        """The stage is over: give the disk back (called on every rank)."""
        self.close()
        if _rank() == 0:
            state_store.remove(self._out / STATES)


def _not_stored(error: OSError) -> str:
    return (
        f"hidden states cannot be stored ({error.strerror or error}); the policy's forward pass runs again at every "
        "visit. Make room on the disk of the run folder, and resume the run to store them"
    )


def _from_rank_0(decide: Callable[[], StatePlan]) -> StatePlan:
    """Decide on rank 0 and tell every rank (collective)."""
    if _ranks() == 1:
        return decide()
    box: list[Any] = [decide() if _rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    plan: StatePlan = box[0]
    return plan


def _barrier() -> None:
    if _ranks() > 1:
        dist.barrier()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
