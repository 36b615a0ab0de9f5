"""Responses of the policy by the rollout engines, for the pre-RL stage."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from openrlhf_mtp.cli.progress.counting import counted
from openrlhf_mtp.cli.train import PLACEMENT_TIMEOUT_S
from openrlhf_mtp.cluster.placement import Placements
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.monitor import fetch_counters
from openrlhf_mtp.rollout.stats import EngineCounters, generated
from openrlhf_mtp.runlog.count import Count
from openrlhf_mtp.runlog.generation_progress import LOOK_EVERY_S, GenerationProgress
from openrlhf_mtp.training.pretrain.responses import Response, ResponseCache


@dataclass(frozen=True)
class Shard:
    """Prompts whose responses are generated together and kept in one file.

    Attributes:
        prompts: token ids of each.
        first: the number of the first prompt; the others follow.
        sampling: arguments of vLLM's `SamplingParams`.
        cache, number: where the responses go.
    """

    prompts: Sequence[Sequence[int]]
    first: int
    sampling: dict[str, Any]
    cache: ResponseCache
    number: int


def generate_responses(args: Any, mtp: MTPSettings, shards: Sequence[Shard]) -> None:
    """Generate shards with the job's engines and end the engines.

    The engines decode without speculation: the head is not trained yet.

    Args:
        args: OpenRLHF's arguments.
        mtp: the job's settings.
        shards: what to generate.
    """
    placements = Placements.from_environment(PLACEMENT_TIMEOUT_S)
    engines = _engines(args, mtp, placements)

    def submit(shard: Shard) -> list[Any]:
        parameters = _parameters(shard)
        return [
            engines[at % len(engines)].generate.remote(
                list(ids), _own(parameters, shard.first + at, args.data.max_len - len(ids))
            )
            for at, ids in enumerate(shard.prompts)
        ]

    progress = GenerationProgress()
    for shard in shards:
        samples, most = shard.sampling["n"], shard.sampling["max_tokens"]
        for ids in shard.prompts:
            progress.expect(samples, samples * min(most, args.data.max_len - len(ids)))
    count = Generated(progress)
    with counted("responses", count), watched(engines, count):
        for shard, references in _two_at_a_time(shards, submit):
            shard.cache.write(shard.number, _collected(references, shard.first, shard.sampling["n"]))
        count.done = count.total  # whatever the engines have counted by now
    placements.release()


def _parameters(shard: Shard) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # with n > 1, any other kind of output leaves out the samples that ended before the last one
    return SamplingParams(detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **shard.sampling)


def _two_at_a_time(
    shards: Sequence[Shard], submit: Callable[[Shard], list[Any]]
) -> Iterator[tuple[Shard, list[Any]]]:
    """Submit each shard while the one before still runs: the last long responses of one leave the engines room."""
    ahead: deque[tuple[Shard, list[Any]]] = deque()
    for shard in shards:
        ahead.append((shard, submit(shard)))
        if len(ahead) == 2:
            yield ahead.popleft()
    yield from ahead


def _collected(references: Sequence[Any], first: int, samples: int) -> list[Response]:
    """The responses of a shard, whose prompts are numbered from `first`, as soon as all are there."""
    import ray

    responses: list[Response] = []
    for prompt, reference in enumerate(references, start=first):
        request = ray.get(reference)
        assert len(request.outputs) == samples, "a sample of the prompt is missing"
        prompt_ids = tuple(request.prompt_token_ids)
        responses += [
            Response(prompt, prompt_ids, tuple(one.token_ids), cut=one.finish_reason == "length")
            for one in request.outputs
        ]
    return responses


class Generated(Count):
    """Responses that ended out of all, with the engines' tokens beside them."""

    def __init__(self, progress: GenerationProgress) -> None:
        super().__init__(progress.expected, progress.unit)
        self.progress = progress

    def see(self, counters: Sequence[EngineCounters]) -> None:
        """Take note of the engines' counters since they started."""
        tokens, ended = generated(counters)
        self.progress.see(tokens, ended)
        self.done = self.progress.ended

    @property
    def has_begun(self) -> bool:
        return self.progress.tokens > 0

    @property
    def detail(self) -> str:
        rate = self.progress.rate()
        return f"{rate:.3g} tok/s" if rate else ""

    def __str__(self) -> str:
        return str(self.progress)


@contextmanager
def watched(engines: Sequence[Any], count: Generated) -> Iterator[None]:
    """Show `count` what the engines count, every few seconds, until the context ends."""
    ended = threading.Event()

    def watch() -> None:
        with suppress(Exception):  # whoever waits for the responses says why an engine does not answer
            while not ended.wait(LOOK_EVERY_S):
                count.see(fetch_counters(engines))

    # not joined: an engine that still starts answers when it is up
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _own(parameters: Any, prompt: int, room: int) -> Any:
    """A prompt's own parameters.

    Its seed does not depend on which shards were generated before, and its responses end at `data.max_len`.
    """
    own = parameters.clone()
    own.seed = parameters.seed * 1_000_003 + prompt
    own.max_tokens = min(parameters.max_tokens, room)
    return own


def _engines(args: Any, mtp: MTPSettings, placements: Placements) -> list[Any]:
    from openrlhf_mtp.rollout.engine import engine_factory

    plain = mtp.model_copy(update={"rollout": mtp.rollout.model_copy(update={"speculate": False})})
    create_engines = engine_factory(
        plain, threads=args.run.engine_threads, placement_group=placements.for_role("rollout")
    )
    return create_engines(
        args.vllm.num_engines,
        args.vllm.tensor_parallel_size,
        args.actor.model_name_or_path,
        args.train.seed,
        args.train.full_determinism_enable,
        args.vllm.enable_prefix_caching,
        args.vllm.enforce_eager,
        args.data.max_len,
        gpu_memory_utilization=args.vllm.gpu_memory_utilization,
    )
