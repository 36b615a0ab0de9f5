"""Tokens per second with and without drafts: the measurement (`bench.rollout_table` chooses the model and prints)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from openrlhf_mtp.config.head_contract import Sampling
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.engine import engine_overrides, prepare_environment
from openrlhf_mtp.rollout.stats import EngineCounters, acceptance_metrics, read_counters

MIN_REQUESTS = 8  # of a repeat; small batches run several times in a row


@dataclass(frozen=True)
class Workload:
    """What both settings generate.

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


@dataclass(frozen=True)
class Speed:
    """One setting at one batch: tokens per second of each repeat, and what verification did (empty without drafts)."""

    batch: int
    tok_s: tuple[float, ...]
    acceptance: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Both settings at one batch. Ratios are drafted over plain: of the medians, and between the extremes."""

    batch: int
    plain: Speed
    drafted: Speed

    @property
    def ratio(self) -> float:
        return median(self.drafted.tok_s) / median(self.plain.tok_s)

    @property
    def ratio_low(self) -> float:
        """The slowest drafted repeat against the fastest plain one."""
        return min(self.drafted.tok_s) / max(self.plain.tok_s)

    @property
    def ratio_high(self) -> float:
        """The fastest drafted repeat against the slowest plain one."""
        return max(self.drafted.tok_s) / min(self.plain.tok_s)


Report = Callable[[Speed], None]
"""Called after each batch, so that a long measurement shows where it is."""


def measure(model_dir: Path, mtp: MTPSettings, workload: Workload, report: Report) -> list[Speed]:
    """Start one engine in this process, generate everything, and end it.

    Args:
        model_dir: policy with its head (`mtp.head`, or the folder `mtp` inside).
        mtp: how to draft; `mtp.rollout.speculate` chooses the setting.
        workload: what to generate, at temperature 1.
        report: see `Report`.
    """
    engine = _start(model_dir, mtp, workload)
    speeds = []
    try:
        for batch in workload.batches:
            speeds.append(_measure_batch(engine, batch, workload))
            report(speeds[-1])
    finally:
        _stop(engine)
    return speeds


def prepare_process(*, on_cpu: bool) -> None:
    """Set vLLM's environment; call it before anything imports vLLM."""
    import os

    # one process, so that both settings run under the same conditions
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # without a tokenizer vLLM warns at length; errors are raised anyway
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    prepare_environment(cpu=on_cpu)


def _start(model_dir: Path, mtp: MTPSettings, workload: Workload) -> Any:
    import torch

    on_cpu = not torch.cuda.is_available()
    from vllm import LLM

    engine = LLM(
        str(model_dir),
        **engine_overrides(mtp, str(model_dir), Sampling(max_len=workload.longest)),
        skip_tokenizer_init=True,
        enforce_eager=on_cpu,  # compiling for the CPU takes minutes
        max_model_len=workload.longest + mtp.depths + 1,
        enable_prefix_caching=False,
        use_tqdm_on_load=False,
        seed=0,
    )
    engine.collective_rpc("mtp_probe")
    return engine


def _stop(engine: Any) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def _measure_batch(engine: Any, batch: int, workload: Workload) -> Speed:
    _generate(engine, batch, workload)  # warm-up: kernels and caches of this batch's shapes
    before, rates = read_counters(busy_seconds=0.0), []
    for _ in range(workload.repeats):
        start = time.perf_counter()
        tokens = _generate(engine, batch, workload)
        rates.append(tokens / (time.perf_counter() - start))
    after: EngineCounters = read_counters(busy_seconds=0.0)
    return Speed(batch, tuple(rates), acceptance_metrics(after.since(before)))


def _generate(engine: Any, batch: int, workload: Workload) -> int:
    """At least MIN_REQUESTS responses, `batch` at a time; returns their tokens."""
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
    tokens = 0
    for _ in range(max(1, MIN_REQUESTS // batch)):
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in islice(prompts, batch)]
        outputs = engine.generate(requests, parameters, use_tqdm=False)
        tokens += sum(len(request.outputs[0].token_ids) for request in outputs)
    return tokens


def compare(model_dir: Path, mtp: MTPSettings, workload: Workload, report: Report) -> list[Comparison]:
    """Both settings in turn, in this process: token by token first, then drafted with the head."""
    plain = mtp.model_copy(update={"rollout": mtp.rollout.model_copy(update={"speculate": False})})
    without = measure(model_dir, plain, workload, report)
    drafted = measure(model_dir, mtp, workload, report)
    return [Comparison(slow.batch, slow, fast) for slow, fast in zip(without, drafted, strict=True)]
