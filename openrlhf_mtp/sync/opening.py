"""Before the first round, on the trainer: both sides hold the same tensors, and all ranks are connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import torch

from openrlhf_mtp.sync.doors import Card, Door
from openrlhf_mtp.sync.errors import ManifestMismatch
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.handover import Handover
from openrlhf_mtp.sync.manifest import Manifest, WeightSource, diff
from openrlhf_mtp.sync.outlets import Broadcasts, Outlet
from openrlhf_mtp.sync.rounds import parts_of
from openrlhf_mtp.sync.sender import OtherRank, RolloutEngine, Sender
from openrlhf_mtp.sync.store import TRAINER_RANK, Broadcast, Rendezvous, serve_store
from openrlhf_mtp.sync.transport import Place, choose_backend, serving_ranks
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Calls, Deadline

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import SyncSettings

Held = Mapping[str, Any]
"""The tensors and places that an engine reports: `sync.manifest.held_by_engine`."""


def open_sync(
    engines: Sequence[RolloutEngine],
    settings: SyncSettings,
    policy: WeightSource,
    head: WeightSource | None,
    *,
    host: str = "127.0.0.1",
    door: Door | None = None,
    cards: Sequence[Card] = (),
) -> Sender | OtherRank:
    """Compare the tensors' names, shapes and types with those of every engine, then connect all ranks.

    Engines may still be loading their model; the first answer has a time limit of its own.

    Args:
        engines: one handle per rollout engine.
        settings: `mtp.sync` of the job.
        policy, head: the trainer's tensors; `head` is None when the rollouts do not speculate.
        host: an address of this machine that the engines can reach; the sync listens there alone.
        door: this trainer rank's, on the device of its weights; by default a CPU's. Rank 0 talks to the engines.
        cards: of all trainer ranks in their order; may be left out by an only one.

    Returns:
        What to call `round()` on after the updates of every RL step, in every trainer process.

    Raises:
        ManifestMismatch: lists every difference.
        SyncTimeout: names the ranks that did not come.
        ValueError: `mtp.sync.backend` asks for a transport that cannot work.
    """
    sources = {"policy": policy} | ({} if head is None else {"head": head})
    door = door or Door(torch.device("cpu"))
    cards = cards or (door.card,)
    parts = parts_of(sources, settings)
    if door.card.rank != TRAINER_RANK:
        door.open(cards[TRAINER_RANK].token)
        return OtherRank(parts, Handover(door), settings)
    held = _ask_what_they_hold(engines, settings)
    _require_same_tensors(sources, held)
    places = [[Place(*place) for place in engine["places"]] for engine in held]
    workers = list(chain.from_iterable(places))
    backend = choose_backend(settings.backend, [card.place for card in cards], workers)
    outlet: Outlet
    if backend == "ipc":
        outlet = _let_in(engines, places, settings, door, cards)
    else:
        outlet = _join(engines, places, settings, backend, host, door)
    return Sender(engines, parts, outlet, settings)


def _ask_what_they_hold(engines: Sequence[RolloutEngine], settings: SyncSettings) -> list[Held]:
    calls = Calls("sync_manifest", [engine.sync_manifest() for engine in engines])
    return calls.results(Deadline(settings.start_timeout_s, "mtp.sync.start_timeout_s"))


def _require_same_tensors(sources: Mapping[str, WeightSource], held: Sequence[Held]) -> None:
    problems = []
    for number, engine in enumerate(held):
        if "head" not in sources and engine["head"] is not None:
            problems.append(f"engine {number}: drafts with a head that the trainer does not send")
        for part, source in sources.items():
            if engine[part] is None:
                problems.append(
                    f"engine {number}: has no draft model for the head; set mtp.rollout.speculate"
                )
                continue
            lines = diff(source.manifest, Manifest.from_wire(engine[part]))
            problems += [f"engine {number} {part}: {line}" for line in lines]
    if problems:
        raise ManifestMismatch("trainer and engines hold different weights:\n  " + "\n  ".join(problems))


def _let_in(
    engines: Sequence[RolloutEngine],
    places: Sequence[Sequence[Place]],
    settings: SyncSettings,
    door: Door,
    cards: Sequence[Card],
) -> Handover:
    """Have every worker come to the door of the trainer rank on its device."""
    deadline = Deadline(settings.timeout_s, ROUND_LIMIT)
    token = cards[TRAINER_RANK].token
    door.open(token)
    doors = [[card.rank, card.address] for card in cards]
    serving = iter(serving_ranks([card.place for card in cards], list(chain.from_iterable(places))))
    calls = Calls(
        "sync_init",
        [
            engine.sync_init(
                {
                    "engine": number,
                    "doors": [doors[next(serving)] for _ in workers],
                    "token": token,
                    "timeout_s": settings.timeout_s,
                }
            )
            for number, (engine, workers) in enumerate(zip(engines, places, strict=True))
        ],
    )
    calls.results(deadline)
    return Handover(door)


def _join(
    engines: Sequence[RolloutEngine],
    places: Sequence[Sequence[Place]],
    settings: SyncSettings,
    backend: Broadcast,
    host: str,
    door: Door,
) -> Broadcasts:
    """Serve the store, call every engine there, and connect.

    Rank 0 is the trainer; the workers follow, engine by engine.
    """
    deadline = Deadline(settings.timeout_s, ROUND_LIMIT)
    *first_ranks, world_size = accumulate(map(len, places), initial=1)
    store = serve_store(host, settings.timeout_s)
    at = Rendezvous(host, store.port, door.card.token, world_size, backend, settings.timeout_s)
    calls = Calls(
        "sync_init",
        [
            engine.sync_init({"engine": number, "rendezvous": asdict(at), "rank_offset": first})
            for number, (engine, first) in enumerate(zip(engines, first_ranks, strict=True))
        ],
    )
    door.close()  # nobody comes to it
    group = SyncGroup(at, TRAINER_RANK, "trainer", device=door.device, store=store, watch=calls.check)
    calls.results(deadline)
    return Broadcasts(group, door.device)
