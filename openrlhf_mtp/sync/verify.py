"""After a round: does every engine compute with the trainer's weights? Pure comparison of digests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from openrlhf_mtp.sync.digest import add

Digests = Mapping[str, int]  # checkpoint name -> digest


def stale(expected: Digests, workers: Sequence[Sequence[Sequence[Any]]]) -> list[str]:
    """Every tensor of one model that an engine does not compute with, one line each.

    expected: the trainer's digests. workers: for each worker the rows [name, layer, copies, digest] of
    `sync.readback.digests_of`. A tensor that every worker holds whole (copies = workers) must agree on each of
    them; one that is sharded must add up over the workers to `copies` times the trainer's digest.
    """
    per_layer: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for rows in workers:
        for name, layer, copies, digest in rows:
            per_layer[name, layer, copies].append(digest)
    problems = [
        f"{name}: not read back by the engine" for name in expected.keys() - {key[0] for key in per_layer}
    ]
    for (name, layer, copies), digests in per_layer.items():
        if name not in expected:
            problems.append(f"{name} (layer {layer}): not sent by the trainer")
        elif copies == len(workers):
            bad = [str(i) for i, digest in enumerate(digests) if digest != expected[name]]
            if bad:
                problems.append(f"{name} (layer {layer}, worker {', '.join(bad)})")
            if len(digests) != len(workers):
                problems.append(
                    f"{name} (layer {layer}): read back by {len(digests)} of {len(workers)} workers"
                )
        elif add(*digests) != add(*[expected[name]] * copies):
            problems.append(f"{name} (layer {layer}, sharded over {len(workers)} workers)")
    return sorted(problems)
