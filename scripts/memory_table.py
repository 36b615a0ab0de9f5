"""Compare the estimates of `openrlhf-mtp check` with the peak memory of a trainer rank and of an engine on a CPU.

    python scripts/memory_table.py [--only trainer|engine]

Each case runs in a process of its own and is estimated from its job alone. It prints the tables of docs/measured.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrlhf_mtp.bench.isolated import reset_peak, resident_peak
from openrlhf_mtp.bench.step_forms import Workload
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.memory import GIB, engine_memory, trainer_memory

SEQUENCES, CACHE_GIB = 64, 0.5
CHECKPOINTED = {"actor.gradient_checkpointing_enable": True}


@dataclass(frozen=True)
class Case:
    """A job's sizes.

    Attributes:
        name: row of the table.
        workload: policy and micro-batch.
        flags: of OpenRLHF, beside those of `bench step`.
        mtp: its `mtp:` section.
    """

    name: str
    workload: Workload
    flags: dict[str, Any] = field(default_factory=dict)
    mtp: dict[str, Any] = field(default_factory=dict)


SMALL = Workload(layers=6, hidden=512, vocab=32_768, sequences=4, response=224)
WIDE = Workload(layers=4, hidden=512, vocab=98_304, sequences=2, response=224)
LONG = Workload(layers=4, hidden=256, vocab=4_096, sequences=1, response=3_040)

TRAINERS = (
    Case("float32, 4 x 256 tokens", SMALL, {"ds.param_dtype": "fp32"}),
    Case("bfloat16, 4 x 256 tokens", SMALL),
    Case("large vocabulary, layers checkpointed", WIDE, {"ds.param_dtype": "fp32", **CHECKPOINTED}),
    Case("one response of 3,072 tokens", LONG, {"ds.param_dtype": "fp32"}),
    Case("joint_policy, 4 x 256 tokens", SMALL, {"ds.param_dtype": "fp32"}, {"regime": "joint_policy"}),
)
ENGINES = (
    Case("128M parameters, float32", Workload(layers=12, hidden=768), {"ds.param_dtype": "fp32"}),
    Case("large vocabulary, bfloat16", Workload(layers=4, hidden=768, vocab=98_304)),
)


def context_of(case: Case, folder: Path) -> JobContext:
    """The case as `check` sees it."""
    from openrlhf_mtp.bench.step_trainer import flags
    from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

    workload = case.workload
    length = workload.prompt + workload.response
    chosen = {
        **flags(folder / "policy", folder, workload),
        "data.max_len": length,
        "rollout.micro_batch_size": 1,
        **case.flags,
    }
    job = folder / "job.yaml"
    job.write_text(f"mtp: {{depths: {workload.depths}}}\n", encoding="utf-8")
    mtp = {f"mtp.{name}": value for name, value in case.mtp.items()}
    overrides = [f"{name}={str(v).lower() if v is True else v}" for name, v in {**chosen, **mtp}.items()]
    return JobContext(load_job(job, overrides, flag_specs()), Host(0))


def run_trainer(case: Case, folder: Path) -> tuple[int, int]:
    """Bytes of a trainer's process before the model, and at the peak of two steps."""
    from openrlhf_mtp.bench import step_trainer

    step_trainer.write_policy(folder / "policy", case.workload)
    before = resident_peak()
    actor = step_trainer.build_actor(folder / "policy", folder, case.workload, case.flags)
    section = {"depths": case.workload.depths, **case.mtp}
    trainer = actor.trainer
    trainer.mtp, trainer.head_trainer, trainer.head_steps = step_trainer.head_parts(actor, section)
    experiences = list(step_trainer.experiences(actor, case.workload))
    reset_peak()
    for _ in range(2):
        for experience in experiences:
            trainer.replay_buffer.append(experience)
        trainer.ppo_train(0.0)
        trainer.replay_buffer.clear()
    return before, resident_peak()


def run_engine(case: Case, folder: Path) -> tuple[int, int]:
    """Bytes of an engine's process before the model, and at the peak of a rollout."""
    from openrlhf_mtp.bench import rollout_engine, step_trainer
    from openrlhf_mtp.config.machine.precision import with_rollout_dtype
    from openrlhf_mtp.config.settings.mtp import MTPSettings
    from openrlhf_mtp.rollout.engine import engine_overrides

    step_trainer.write_policy(folder / "policy", case.workload)
    rollout_engine.prepare_process(on_cpu=True)
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    before = resident_peak()
    mtp = MTPSettings.model_validate({"depths": case.workload.depths, **case.mtp})
    settings = with_rollout_dtype(mtp, case.flags.get("ds.param_dtype", "bf16"))
    overrides = engine_overrides(settings, str(folder / "policy"))
    length = case.workload.prompt + case.workload.response
    engine = rollout_engine.start_engine(folder / "policy", overrides, max_model_len=length)
    reset_peak()
    parameters = SamplingParams(temperature=1.0, max_tokens=32, ignore_eos=True, logprobs=1, detokenize=False)
    prompts = [TokensPrompt(prompt_token_ids=[3] * case.workload.prompt) for _ in range(SEQUENCES)]
    engine.generate(prompts, parameters, use_tqdm=False)
    return before, resident_peak()


def estimated(case: Case, folder: Path, *, is_engine: bool) -> float:
    """Bytes that `check` expects."""
    context = context_of(case, folder)
    if not is_engine:
        memory = trainer_memory(context)
        assert memory is not None
        return memory.peak
    engine = engine_memory(context)
    assert engine is not None
    return engine.fixed + (engine.cache or 0)


def rows(
    cases: tuple[Case, ...], run: Callable[[Case, Path], tuple[int, int]], *, is_engine: bool
) -> Iterator[str]:
    """A line of the table for each case, as it is done."""
    spawn = multiprocessing.get_context("spawn")
    for case in cases:
        with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(1, mp_context=spawn) as process:
            folder = Path(scratch)
            before, peak = process.submit(run, case, folder).result()
            expected = estimated(case, folder, is_engine=is_engine)
            sizes = " | ".join(f"{size / GIB:.2f}" for size in (before, expected, peak))
            yield f"| {case.name} | {sizes} | {expected / peak:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("trainer", "engine"))
    only = parser.parse_args().only
    limits = {"max_num_seqs": SEQUENCES, "max_num_batched_tokens": 2048, "kv_cache_gib": CACHE_GIB}
    engines = tuple(Case(one.name, one.workload, one.flags, {"rollout": limits}) for one in ENGINES)
    print("| case | process, GiB | estimated, GiB | measured, GiB | ratio |\n|---|---|---|---|---|")
    if only != "engine":
        for row in rows(TRAINERS, run_trainer, is_engine=False):
            print(row, flush=True)
    if only != "trainer":
        for row in rows(engines, run_engine, is_engine=True):
            print(row, flush=True)


if __name__ == "__main__":
    main()
