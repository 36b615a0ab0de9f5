"""The vLLM engine of `bench.rollout`: started in this process, asked for batches, and ended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.head_contract import Sampling
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.engine import engine_overrides
from openrlhf_mtp.rollout.environment import V2_RUNNER, prepare_environment

MIN_REQUESTS = 8  # of a repeat; small batches run several times in a row


@dataclass(frozen=True)
class Workload:
    """The prompts and lengths that both settings generate.

    Attributes:
        prompts: token ids; a batch takes them in turn.
        max_new_tokens: longest response.
        stop_token_ids: end a response; none decodes to `max_new_tokens`.
        batches: sequences decoded at once, one row of the table each.
        repeats: timed repetitions of each batch.
    """

    prompts: Sequence[Sequence[int]]
    max_new_tokens: int
    stop_token_ids: Sequence[int]
    batches: Sequence[int] = (1, 4, 16)
    repeats: int = 3

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(prompt) for prompt in self.prompts) + self.max_new_tokens


def prepare_process(*, on_cpu: bool, v1_runner: bool = False) -> None:
    """Set vLLM's environment; call it before anything imports vLLM.

    Args:
        on_cpu: the engines run without a GPU.
        v1_runner: all engines run vLLM's V1 model runner, because some would, and they are compared.
    """
    # one process, so that both settings run under the same conditions
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # without a tokenizer vLLM warns at length; errors are raised anyway
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    prepare_environment(cpu=on_cpu)
    if v1_runner:
        os.environ[V2_RUNNER] = "0"  # whatever the user set: V2 would not know the drafts of some arms


def start_engine(
    model_dir: Path,
    overrides: dict[str, Any],
    *,
    max_model_len: int,
    enable_prefix_caching: bool = False,
    share: float = 1.0,
) -> Any:
    """A vLLM engine in this process, after a look that our patches are live in it.

    Args:
        model_dir: the policy.
        overrides: our arguments, see `rollout.engine.engine_overrides`.
        max_model_len: tokens of the longest sequence and the drafts after it.
        enable_prefix_caching: keep prompts for later requests.
        share: of a GPU's memory, where several engines live at once.
    """
    import torch

    on_cpu = not torch.cuda.is_available()
    from vllm import LLM

    memory: dict[str, Any] = {} if on_cpu else {"gpu_memory_utilization": 0.9 * share}
    engine = LLM(
        str(model_dir),
        **overrides,
        **memory,
        skip_tokenizer_init=True,
        enforce_eager=on_cpu,  # compiling for the CPU takes minutes
        max_model_len=max_model_len,
        enable_prefix_caching=enable_prefix_caching,
        use_tqdm_on_load=False,
        seed=0,
    )
    engine.collective_rpc("mtp_probe")
    return engine


def stop_engines(*engines: Any) -> None:
    """End all engines of this process."""
    from vllm.distributed import cleanup_dist_env_and_memory

    for engine in engines:
        engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


@contextmanager
def running_engine(model_dir: Path, mtp: MTPSettings, workload: Workload) -> Iterator[Any]:
    """An engine for the time of a `with`.

    Args:
        model_dir: policy with its head (`mtp.head`, or the folder `mtp` inside).
        mtp: how to draft; `mtp.rollout.speculate` chooses the setting.
        workload: its longest sequence is the engine's context.
    """
    overrides = engine_overrides(mtp, str(model_dir), Sampling(max_len=workload.longest))
    engine = start_engine(model_dir, overrides, max_model_len=workload.longest + mtp.depths + 1)
    try:
        yield engine
    finally:
        stop_engines(engine)


def generate(engine: Any, batch: int, workload: Workload) -> list[Any]:
    """At least MIN_REQUESTS responses at temperature 1, `batch` at a time, as vLLM's `CompletionOutput`s."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    parameters = SamplingParams(
        temperature=1.0,
        max_tokens=workload.max_new_tokens,
        stop_token_ids=list(workload.stop_token_ids),
        ignore_eos=not workload.stop_token_ids,
        detokenize=False,
    )
    prompts = cycle(workload.prompts)
    responses = []
    for _ in range(max(1, MIN_REQUESTS // batch)):
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in islice(prompts, batch)]
        outputs = engine.generate(requests, parameters, use_tqdm=False)
        responses += [request.outputs[0] for request in outputs]
    return responses
