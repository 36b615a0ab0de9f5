"""Responses of the policy by the rollout engines, for the pre-RL stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openrlhf_mtp.cli.progress.counting import counted
from openrlhf_mtp.cli.train import PLACEMENT_TIMEOUT_S
from openrlhf_mtp.cluster.placement import Placements
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.training.pretrain.responses import Response, ResponseCache


def generate_responses(
    args: Any,
    mtp: MTPSettings,
    shards: Sequence[Sequence[Sequence[int]]],
    missing: Sequence[int],
    sampling: dict[str, Any],
    cache: ResponseCache,
    *,
    prompts_per_shard: int,
) -> None:
    """Generate the missing shards with the job's engines and end the engines.

    The engines decode without speculation: the head is not trained yet.

    Args:
        args: OpenRLHF's arguments.
        mtp: the job's settings.
        shards: token ids of the prompts of each shard.
        missing: numbers of the shards to generate.
        sampling: arguments of vLLM's `SamplingParams`.
        cache: where the responses go.
        prompts_per_shard: so that a prompt's number is unique over shards.
    """
    import ray
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    placements = Placements.from_environment(PLACEMENT_TIMEOUT_S)
    engines = _engines(args, mtp, placements)
    # with n > 1, any other kind of output leaves out the samples that ended before the last one
    parameters = SamplingParams(detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **sampling)
    with counted("responses", sum(len(shards[number]) for number in missing), "prompts") as count:
        for number in missing:
            references = [
                engines[at % len(engines)].generate.remote(
                    list(ids), _own(parameters, number * prompts_per_shard + at, args.data.max_len - len(ids))
                )
                for at, ids in enumerate(shards[number])
            ]
            responses: list[Response] = []
            for at, reference in enumerate(references):
                request = ray.get(reference)
                assert len(request.outputs) == parameters.n, "a sample of the prompt is missing"
                responses += [
                    Response(
                        number * prompts_per_shard + at, tuple(request.prompt_token_ids), tuple(one.token_ids)
                    )
                    for one in request.outputs
                ]
                count.advance()
            cache.write(number, responses)
    placements.release()


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
