"""OpenRLHF's rollout actor with counters, weight sync in few calls, and rewards that may not fail silently."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import replace
from typing import Any

import openrlhf.trainer.ray.vllm_engine as upstream
import torch

from openrlhf_mtp.rollout.ended_responses import EndedResponses
from openrlhf_mtp.rollout.environment import OWN_SYNC, executor, prepare_environment
from openrlhf_mtp.rollout.gpu_limits import gpu_limits
from openrlhf_mtp.rollout.log_probs import LogProbRequests, mark_unasked
from openrlhf_mtp.rollout.rewards import StrictSingleTurnExecutor, settle_rewards
from openrlhf_mtp.rollout.stats import EngineCounters, read_counters
from openrlhf_mtp.sync.errors import SyncError
from openrlhf_mtp.sync.manifest import held_by_engine
from openrlhf_mtp.sync.transport import uses_own_sync
from openrlhf_mtp.upstream.openrlhf.bindings import bind_executor, plain_class


def graphs_up_to() -> int:
    """Tokens of the largest CUDA graph that vLLM captures by itself on this GPU (`VllmConfig._set_cudagraph_sizes`).

    vLLM asks the driver's library; torch would open the device, which this process leaves to its workers.
    """
    from vllm.platforms import current_platform

    return 1024 if current_platform.is_device_capability_family(100) else 512


def on_whole_policy(sampling_params: Any, *, log_probs: bool = True) -> Any:
    """A copy of vLLM's `SamplingParams` with or without log-probs, and without OpenRLHF's hidden `min_tokens=1`.

    The trainer's log-probs are the whole policy's. An end that the engine may not sample at a response's (or an agent's
    turn's) first token makes its distribution another one, and the more so the more the policy wants to end there.
    """
    params = copy(sampling_params)
    params.logprobs = 1 if log_probs else None
    params.min_tokens = 0
    return params


class MTPRolloutActor(plain_class(upstream.RolloutRayActor)):  # type: ignore[misc]
    """Runs inside Ray, one per engine; `rollout.engine` makes them.

    Sampled tokens come back with their log-prob under the distribution they were sampled from, all of them or those of
    a share of the prompts, because the gap to the trainer's log-prob is watched in every run (`rollout.log_probs`).

    Attributes:
        engine_arguments: of vLLM, where our sync feeds the engine.
    """

    engine_arguments = OWN_SYNC

    async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]  # Ray awaits it
        cpu = not torch.cuda.is_available()
        own_sync = uses_own_sync("weight_transfer_config" in kwargs)
        prepare_environment(cpu=cpu, threads=kwargs.pop("threads", None))
        bind_executor(StrictSingleTurnExecutor)
        self._log_probs = LogProbRequests(kwargs.pop("logprobs", "always"), cpu=cpu)
        if own_sync:
            kwargs |= self.engine_arguments
        kwargs["distributed_executor_backend"] = executor(kwargs.get("distributed_executor_backend"), cpu=cpu)
        if not cpu:
            kwargs |= gpu_limits(kwargs, graphs_up_to=graphs_up_to())
        await super().__init__(*args, **kwargs)
        if own_sync:
            await self.llm.collective_rpc("mtp_probe")
        self._in_flight = 0
        self._busy_since = 0.0
        self._busy_seconds = 0.0
        self._ended: list[EndedResponses] = []

    # generation -------------------------------------------------------------------------------------------

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        """OpenRLHF's `generate`; the time during which any request runs counts as busy, and its drafts are kept."""
        if self._in_flight == 0:
            self._busy_since = time.monotonic()
        self._in_flight += 1
        try:
            output = await super().generate(*args, **kwargs)
            if output is not None:
                self._ended.append(EndedResponses.of_outputs(output.outputs))
            return output
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._busy_seconds += time.monotonic() - self._busy_since

    async def generate_responses(
        self, prompt: str, label: str, sampling_params: Any, *args: Any, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """OpenRLHF's `generate_responses`, on the whole policy, with rewards as checked numbers.

        Raises:
            RewardError: a reward is missing or no finite number, or the reward function raised.
        """
        asked = self._log_probs.wants(upstream=sampling_params.logprobs is not None)
        responses: list[dict[str, Any]] = await super().generate_responses(
            prompt, label, on_whole_policy(sampling_params, log_probs=asked), *args, **kwargs
        )
        mark_unasked(responses)
        settle_rewards(responses)
        return responses

    async def rollout_stats(self, *, take_ended: bool = False) -> dict[str, Any]:
        """Cumulative counters since the engine started.

        Args:
            take_ended: add the drafts of the responses that ended, and forget them. One caller takes them, once a
                step; others may look at the counters in between.
        """
        running = time.monotonic() - self._busy_since if self._in_flight else 0.0
        counters: EngineCounters = read_counters(busy_seconds=self._busy_seconds + running)
        if take_ended:
            counters = replace(counters, ended=EndedResponses.joined(self._ended))
            self._ended = []
            self._log_probs.begin_step()
        return counters.to_dict()

    # weight sync ------------------------------------------------------------------------------------------

    async def sync_manifest(self) -> Any:
        """Names, shapes and types of the policy and head that the engine holds, and where each worker is."""
        return held_by_engine(await self.llm.collective_rpc("mtp_manifest"))

    async def sync_init(self, init_info: dict[str, Any]) -> None:
        """Have every worker of this engine connect to the trainer."""
        await self.llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": init_info})

    async def sync_round(self, request: dict[str, Any]) -> list[Any]:
        """Have every worker receive policy and head, and return what each of them read back.

        Args:
            request: for `sync.receiver.ReceivingWorker.mtp_sync_round`.
        """
        paused_here = not await self.llm.is_paused()
        if paused_here:
            await self.pause_generation()
        reports: list[Any] = await self.llm.collective_rpc("mtp_sync_round", args=(request,))
        await self.reset_prefix_cache()
        if paused_here:  # after an error the engine stays paused: half-loaded weights must not sample
            await self.resume_generation()
        return reports

    async def reset_prefix_cache(self) -> None:
        """Forget every cached block; requests that run are put back in the queue and computed again.

        Without that vLLM refuses while a request runs, answers False, and serves the blocks of older weights.

        Raises:
            SyncError: the engine kept its cache.
        """
        if not await self.llm.reset_prefix_cache(reset_running_requests=True):
            raise SyncError(
                "the engine kept its prefix cache, whose blocks older weights computed: later responses would mix two "
                "policies. Set vllm.enable_prefix_caching false"
            )
