"""Whose hidden states the pre-RL stage stores: of responses that it reads more than once, if there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.training.pretrain.batches import planned_steps, steps_per_epoch
from openrlhf_mtp.training.pretrain.responses import Response
from openrlhf_mtp.training.pretrain.state_store import length

GIB = 2**30
SETTING = "mtp.pretrain.state_cache_gib"


@dataclass(frozen=True)
class StatePlan:
    """The responses whose states are stored, and the reason.

    Attributes:
        training: whether those of the training responses are.
        held_out: whether those of the held-out responses are.
        nbytes: size of what is stored.
        why: in words, for `machine.json`.
        refused: what a user should know, where room is missing; else None.
    """

    training: bool
    held_out: bool
    nbytes: int
    why: str
    refused: str | None = None

    @property
    def stores(self) -> bool:
        """Whether anything is stored."""
        return self.training or self.held_out


def plan_states(
    settings: PretrainSettings,
    training: Sequence[Response],
    held_out: Sequence[Response],
    *,
    token_bytes: int,
    free: int,
) -> StatePlan:
    """Decide for the whole stage, so that a resumed run decides the same.

    Args:
        settings: passes, evaluations, and how much may be stored.
        training: the training responses.
        held_out: the held-out responses.
        token_bytes: of the states of one token.
        free: bytes on the disk that are free or hold states already.
    """
    steps = planned_steps(len(training), settings)
    passes = steps > steps_per_epoch(len(training), settings.batch_size)
    evaluations = -(-steps // settings.eval_steps) > 1
    given = settings.state_cache_gib
    if not (passes or evaluations):
        return StatePlan(False, False, 0, "every response is read once")
    if given == 0:
        return StatePlan(False, False, 0, f"{SETTING} is 0")
    room = free // 2 if given is None else int(given * GIB)
    sizes = [sum(map(length, set(part))) * token_bytes for part in (training, held_out)]
    wanted = passes * sizes[0] + evaluations * sizes[1]
    if wanted <= room:
        return StatePlan(passes, evaluations, wanted, _fits(wanted, room))
    refused = (
        f"hidden states of {wanted / GIB:.3g} GiB do not fit into {room / GIB:.3g} GiB "
        f"({SETTING if given is not None else 'half of the free disk'}); the policy's forward pass runs again in each "
        f"of {settings.epochs} passes. To store them, make room or set {SETTING}"
    )
    if evaluations and sizes[1] <= room:
        return StatePlan(False, True, sizes[1], _fits(sizes[1], room), refused)
    return StatePlan(False, False, 0, "too large", refused)


def _fits(nbytes: int, room: int) -> str:
    return f"{nbytes / GIB:.3g} GiB fit into {room / GIB:.3g} GiB"
