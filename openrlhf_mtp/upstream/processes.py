"""Get the patches into every process: the driver calls `prepare_process`, Ray runs it in each worker.

vLLM's engine processes are not Ray workers; they load `openrlhf_mtp.rollout.plugin` through the
`vllm.general_plugins` entry point instead.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping, MutableMapping
from typing import Any

from openrlhf_mtp.config.threads import PASSIVE
from openrlhf_mtp.upstream import cpu_host, linear_attention, ray_start, uncompiled
from openrlhf_mtp.upstream.openrlhf import (
    dynamic_batches,
    last_step,
    moving_average,
    precision,
    reward_scale,
    schedule_end,
    zero3_rotary,
)
from openrlhf_mtp.upstream.patching import install
from openrlhf_mtp.upstream.vllm import ray_on_cpu

PATCHES = (
    *cpu_host.PATCHES,
    zero3_rotary.PATCH,
    dynamic_batches.PATCH,
    moving_average.PATCH,  # before the one that says when to average
    *last_step.PATCHES,
    reward_scale.PATCH,
    schedule_end.PATCH,
    *linear_attention.PATCHES,
    ray_start.PATCH,
    uncompiled.TRAINER_PATCH,
    *uncompiled.MUON_PATCHES,
    precision.PATCH,
    ray_on_cpu.PATCH,
)
"""The patches of the driver and of Ray's workers; those of vLLM's processes are in `upstream.vllm.patches`. A worker
of a tensor-parallel engine is both: Ray's first, and vLLM's from the loading of its plugins on."""

# With RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 Ray leaves CUDA_VISIBLE_DEVICES of workers without a GPU alone, which will
# be its default; unset, it prints a paragraph about that at every start.
_RAY_ENV = {
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Variables that a worker of Ray reads while it starts: they are there before it, in place of its node's own."""

_WORKER_DEFAULTS = {
    "TOKENIZERS_PARALLELISM": "true",
    "NCCL_DEBUG": "WARN",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # 600 s and 300 s; an engine that dies is noticed at once, this is for one that is slow
    "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1800",
}
"""Variables that a worker gets where its node has none of that name: a pod's own setting is for that pod."""

DEFAULTS = "OPENRLHF_MTP_WORKER_DEFAULTS"
"""Carries them to a worker, as JSON. Ray's `env_vars` themselves would replace what the worker's node sets."""


def fill_in_defaults(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what the driver has sent for a worker and its node does not set. The driver itself is sent nothing."""
    for name, value in json.loads(environ.get(DEFAULTS, "{}")).items():
        environ.setdefault(name, value)


def prepare_process() -> None:
    """Register the host patches; each is applied when its target is imported. Safe to repeat."""
    fill_in_defaults()
    # OpenRLHF requires the pynvml package, at whose sight torch prints this in every process
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    # imported by OpenRLHF for 4-bit loading; warns about a missing optional kernel package
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    install(PATCHES)


def quiet_driver() -> None:
    """Environment of the driver itself, before Ray starts in it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def ray_runtime_env(threads: int | None = None) -> dict[str, Any]:
    """The `runtime_env` of `ray.init`: patches and environment of every worker.

    A variable that the user has set for the driver wins over our default, and one that a worker's node sets (a group's
    `extraEnv` of the chart) wins over both; an empty one is not sent.

    Args:
        threads: that a worker computes with; None leaves it to Ray. `rollout.engine` gives engines their own number.
    """
    own = {} if threads is None else {"OMP_NUM_THREADS": str(threads), **PASSIVE}
    defaults = json.dumps(_as_set(_WORKER_DEFAULTS), sort_keys=True)
    return {
        "worker_process_setup_hook": "openrlhf_mtp.upstream.processes.prepare_process",
        "env_vars": {**_as_set({**_RAY_ENV, **own}), DEFAULTS: defaults},
    }


def _as_set(defaults: Mapping[str, str]) -> dict[str, str]:
    """Defaults, or what the driver's environment has in their place; what it empties is left out."""
    chosen = {name: os.environ.get(name, default) for name, default in defaults.items()}
    return {name: value for name, value in chosen.items() if value}
