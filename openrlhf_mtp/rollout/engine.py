"""Rollout engines of a job: OpenRLHF's own `create_vllm_engines` with our actor and our engine arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openrlhf_mtp.config import head_contract
from openrlhf_mtp.config.engine_args import owned
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import WHOLE_POLICY, Sampling, head_folder
from openrlhf_mtp.config.machine.precision import AUTO
from openrlhf_mtp.config.model_files import read_model_config
from openrlhf_mtp.config.problem import require_no_errors
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.environment import OWN_SYNC, THREADS

GIB = 2**30


def speculative_config(mtp: MTPSettings, head_dir: Path) -> dict[str, Any] | None:
    """vLLM's `speculative_config`, or None when the job decodes token by token.

    vLLM's own draft model of a native head is built by the policy's `config.json`, without weights: they come with a
    sync round before the first rollout (`training.controller.loop`).
    """
    if not mtp.rollout.speculate:
        return None
    if head_contract.drafts_natively(head_dir):
        drafter: dict[str, Any] = {"method": "mtp", "draft_load_config": {"load_format": "dummy"}}
    else:
        drafter = {"method": "eagle", "model": str(head_dir.absolute())}
    return {
        **drafter,
        "num_speculative_tokens": mtp.depths,
        "draft_sample_method": mtp.rollout.draft_sample_method,
        "rejection_sample_method": mtp.rollout.rejection_sample_method,
    }


def engine_overrides(
    mtp: MTPSettings, policy_dir: str, sampling: Sampling = WHOLE_POLICY, *, trained: bool = False
) -> dict[str, Any]:
    """Arguments of vLLM's engine that replace or complete OpenRLHF's.

    Args:
        mtp: the job's settings, `rollout.dtype` decided.
        policy_dir: the policy's folder or Hub name.
        sampling: how the job samples; by default from the whole policy at temperature 1.
        trained: a trainer sends weights before the first rollout. vLLM's own draft models have none until then.

    Raises:
        JobErrors: the engines would draft, and the head does not fit the policy or a setting would change the sampling
            distribution (`config.head_contract`, the rules of `openrlhf-mtp check`); or `engine_args` sets what a job
            sets elsewhere.
        JobError: vLLM's own draft model is to draft without a trainer.
    """
    # to vLLM `auto` is the type of the files, whatever the trainer computes in
    assert mtp.rollout.dtype != AUTO, "with_rollout_dtype() comes first"
    if mtp.rollout.speculate:
        head_contract.require(mtp, policy_dir, sampling)
        if not trained and head_contract.drafts_natively(head_folder(mtp.head, policy_dir)):
            raise JobError(
                "mtp.head: got a head that vLLM's own draft model runs, expected one of our draft class where no "
                "trainer sends weights; export it with openrlhf-mtp export --format native and serve that"
            )
    rollout = mtp.rollout
    # with each response its drafts in order, from which acceptance is counted
    detail = {"per_request_spec_decode_metrics": "detailed"} if rollout.speculate else {}
    limits = {
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": rollout.max_num_batched_tokens,
        "kv_cache_memory_bytes": None if rollout.kv_cache_gib is None else int(rollout.kv_cache_gib * GIB),
        "async_scheduling": rollout.async_scheduling,
    }
    require_no_errors(
        owned(rollout.engine_args), "these arguments of vLLM's engines are not the job's to set:"
    )
    return {
        **rollout.engine_args,
        **OWN_SYNC,
        "speculative_config": speculative_config(mtp, head_folder(mtp.head, policy_dir)),
        # the log-prob of the sampled token under the distribution that it was sampled from
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": 1,
        "dtype": rollout.dtype,
        "disable_log_stats": False,  # tokens and ended requests are read from vLLM's own counters
        **detail,
        **{name: value for name, value in limits.items() if value is not None},
    }


def plain_overrides(mtp: MTPSettings, policy_dir: str, sampling: Sampling = WHOLE_POLICY) -> dict[str, Any]:
    """As `engine_overrides` for engines that OpenRLHF's own sync feeds: what is measured in every run, no more."""
    ours = engine_overrides(mtp, policy_dir, sampling)
    return {name: value for name, value in ours.items() if name not in OWN_SYNC}


class _ActorFactory:
    """Stands where `create_vllm_engines` looks for its Ray actor class, and adds our engine arguments.

    `environment` holds for the actor's process, and for vLLM's workers in Ray, which inherit it.
    """

    def __init__(self, actor_class: type, overrides: dict[str, Any], environment: dict[str, str]) -> None:
        self.actor_class = actor_class
        self.overrides = overrides
        self.environment = environment
        self.ray_options: dict[str, Any] = {}

    def options(self, **ray_options: Any) -> _ActorFactory:
        runtime_env = {"runtime_env": {"env_vars": self.environment}} if self.environment else {}
        self.ray_options = {**ray_options, **runtime_env}
        return self

    def remote(self, **arguments: Any) -> Any:
        import ray

        given = {**arguments, **self.overrides}
        require_exact_caching(given)
        actor: Any = ray.remote(self.actor_class).options(**self.ray_options)
        return actor.remote(**given)


def require_exact_caching(arguments: Mapping[str, Any]) -> None:
    """Refuse engine arguments with which cached prompts would corrupt drafted text.

    Raises:
        JobErrors: with the reason.
    """
    require_no_errors(
        head_contract.caching_problems(
            arguments.get("speculative_config") is not None,
            read_model_config(arguments["model"]),
            bool(arguments.get("enable_prefix_caching")),
        ),
        "engines would corrupt text:",
    )


def engine_factory(
    mtp: MTPSettings,
    *,
    sampling: Sampling = WHOLE_POLICY,
    threads: int | None = None,
    placement_group: Callable[..., Any] | None = None,
    own_sync: bool = True,
    actor: type | None = None,
) -> Callable[..., list[Any]]:
    """A replacement for OpenRLHF's `create_vllm_engines`, same signature.

    Args:
        mtp: the job's settings, `rollout.dtype` decided.
        sampling: how the job samples its rollouts.
        threads: that each worker of an engine computes with on a CPU; None leaves it to Ray.
        placement_group: in place of Ray's; OpenRLHF waits for its group without a limit, so pass one that
            fails when the cluster is too small.
        own_sync: false leaves weights to OpenRLHF's worker extension where it works (`sync.transport.uses_own_sync`).
        actor: the class of the Ray actors, by default `rollout.actor.MTPRolloutActor`.
    """

    def create_engines(
        num_engines: int, tensor_parallel_size: int, pretrain: str, *args: Any, **kwargs: Any
    ) -> list[Any]:
        # refuses a misfit before anything heavy is imported
        overrides = (
            engine_overrides(mtp, pretrain, sampling, trained=True)
            if own_sync
            else plain_overrides(mtp, pretrain, sampling)
        )
        # before the binding below, because our actor's base class is found under the name that it replaces
        from openrlhf_mtp.rollout.actor import MTPRolloutActor
        from openrlhf_mtp.upstream.openrlhf.bindings import bind_engines

        # one worker computes in the actor's process, or is its child; several are processes of Ray's own
        environment = {} if threads is None or tensor_parallel_size == 1 else {THREADS: str(threads)}
        ours = {**overrides, "threads": threads, "logprobs": mtp.rollout.logprobs}  # no arguments of vLLM's
        factory = _ActorFactory(actor or MTPRolloutActor, ours, environment)
        create = bind_engines(actor=factory, placement_group=placement_group)
        return create(num_engines, tensor_parallel_size, pretrain, *args, **kwargs)

    return create_engines
