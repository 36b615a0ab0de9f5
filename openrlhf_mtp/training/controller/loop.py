"""OpenRLHF's single controller with our metrics: one row a step, finite numbers only, acceptance under guard.

The controller runs in a Ray actor of its own. It reaches the rollout side only through `RolloutMonitor`, which
the command line puts into `args.run`, because training and rollout do not import each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import openrlhf.trainer.ppo_trainer as upstream
import openrlhf.trainer.ppo_trainer_async as upstream_async
import ray
import torch

from openrlhf_mtp.config.checkpoints import latest
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import drafts_natively, head_folder
from openrlhf_mtp.runlog import checkpoint_request, metrics
from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.runlog.rollouts import write_rollouts
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.unasked import UNASKED
from openrlhf_mtp.training.controller.context import RunContext
from openrlhf_mtp.training.controller.experience import EvenExperienceMaker
from openrlhf_mtp.training.controller.prompt_position import prepare_datasets
from openrlhf_mtp.training.controller.prompts import CheckedPrompts
from openrlhf_mtp.training.controller.recorded_rollouts import recorded
from openrlhf_mtp.training.controller.sampling import TrainingSamples
from openrlhf_mtp.training.controller.step_row import evaluation_row, step_row
from openrlhf_mtp.training.cut_responses import WORTH_A_NOTICE, cut_notice, rollout_limit
from openrlhf_mtp.training.finite import require_finite
from openrlhf_mtp.upstream.openrlhf.bindings import bind_async_workers, bind_controller, plain_class
from openrlhf_mtp.upstream.openrlhf.evaluation import kept_samples

HELD_OUT_TOKENS = 8192
"""Action tokens of an evaluation on which the head is measured: as many as a figure needs."""


class StoppedByGuardError(JobError):
    """Acceptance has collapsed, or engine and trainer disagree, and the job says to stop then."""


class NothingTrainedError(JobError):
    """A run came to its end without a single step."""


def bind_ours() -> None:
    """Put our classes where OpenRLHF's controllers look for theirs, in this process."""
    bind_controller(
        prepare_datasets=prepare_datasets,
        prompt_dataset=CheckedPrompts,
        samples_generator=TrainingSamples,
        experience_maker=EvenExperienceMaker,
    )


class MeasuredTraining:
    """Mixin for OpenRLHF's controllers: rows for the run folder and checks before anything is saved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bind_ours()
        super().__init__(*args, **kwargs)

    def start_measuring(self, resumed_at: int) -> None:
        """Call once, after models and engines are up. `resumed_at` is the step to resume from, 0 for a new run."""
        context: RunContext = self.args.run  # type: ignore[attr-defined]
        self.monitor = context.monitor_factory(self.vllm_engines)  # type: ignore[attr-defined]
        self.writer = RowWriter(Path(context.run_folder), after_step=resumed_at or None)
        self._step_started = time.time()
        self._told_of_cuts = False
        self._sealed: set[str] = set()
        checkpoint_request.accept(self.writer.out)

    def _compute_rollout_stats(self, experiences: list[Any]) -> dict[str, float]:
        """OpenRLHF's rollout statistics, plus the gap between the engine's log-probs and the trainer's."""
        for number, experience in enumerate(experiences):
            named = {
                "rewards": experience.rewards,
                "trainer log-probs": experience.action_log_probs,
                "engine log-probs": experience.rollout_log_probs,
                "advantages": experience.advantages,
            }
            present = {name: value for name, value in named.items() if value is not None}
            require_finite(present, step=self._next_step(), where=f"rollout batch {number}")
        stats: dict[str, float] = super()._compute_rollout_stats(experiences)  # type: ignore[misc]
        stats.update(logprob_gap(experiences))
        mtp = self.args.mtp  # type: ignore[attr-defined]
        if mtp is not None and mtp.record.rollouts:
            responses = recorded(experiences, self.tokenizer)  # type: ignore[attr-defined]
            write_rollouts(self.writer.out, self._next_step(), responses)
        return stats

    def finish_measuring(self) -> None:
        """Called once, after the last step.

        Raises:
            NothingTrainedError: there was none, in this run or the one it resumes; what would be saved is untrained.
        """
        self.writer.close()
        if self.writer.last_step < 1:
            raise NothingTrainedError(
                "no step was trained, because no rollout was left to train on; the policy is what it was and is not "
                "saved. The warnings above, which notices.jsonl in the run folder repeats, say why. Usual causes: "
                "algo.dynamic_filtering_range leaves no prompt, or there are fewer responses than ranks"
            )

    def _next_step(self) -> int:
        return max(self.writer.last_step, 0) + 1

    def save_logs_and_checkpoints(
        self, global_step: int, logs_dict: dict[str, Any] | None = None, client_states: Any = None
    ) -> None:
        """Write the step's row, check it, and only then let OpenRLHF log and save."""
        status = dict(logs_dict or {})
        status.update(ray.get(self.actor_model_group.async_run_method(method_name="get_sync_report"))[0])  # type: ignore[attr-defined]
        rollout_seconds = status["timing/generation"]
        row = step_row(status, step_seconds=time.time() - self._step_started)
        row.update(self.monitor.measure(rollout_seconds, row))
        self._step_started = time.time()
        self.writer.append({metrics.STEP: global_step, **row})
        require_finite(row, step=global_step, where="metrics")
        self._say_when_cut(row)
        alarm = self.monitor.check(global_step, row)
        if alarm is not None:
            say(self.writer.out, alarm.text)
        ckpt = self.args.ckpt  # type: ignore[attr-defined]
        stops = alarm is not None and alarm.stops
        with (
            checkpoint_request.serve_request(self.writer.out, ckpt),
            checkpoint_request.saving_now(ckpt) if stops else nullcontext(),
        ):
            super().save_logs_and_checkpoints(global_step, {**status, **row}, client_states)  # type: ignore[misc]
        self._seal()
        if alarm is not None and alarm.stops:
            raise StoppedByGuardError(alarm.text)

    def _say_when_cut(self, row: Mapping[str, float]) -> None:
        """Once a run: most responses of a step were cut at their limit."""
        share = row.get(metrics.POLICY_TRUNCATED_RATE, 0.0)
        if share >= WORTH_A_NOTICE and not self._told_of_cuts:
            say(self.writer.out, cut_notice(share, *rollout_limit(self.args)))  # type: ignore[attr-defined]
            self._told_of_cuts = True

    def save_best_checkpoint(
        self, eval_metrics: dict[str, float], global_step: int, client_states: Any = None
    ) -> None:
        """OpenRLHF's, and the list of its files when they are all written."""
        super().save_best_checkpoint(eval_metrics, global_step, client_states)  # type: ignore[misc]
        self._seal()

    def _seal(self) -> None:
        """All ranks of all roles have saved: list the newest checkpoint's files, so that a cut one is known."""
        checkpoint = latest(Path(self.args.ckpt.path))  # type: ignore[attr-defined]
        if checkpoint is not None and checkpoint.tag not in self._sealed:
            checkpoint.seal()
            self._sealed.add(checkpoint.tag)


def logprob_gap(experiences: list[Any]) -> dict[str, float]:
    """Mean and largest |engine log-prob - trainer log-prob| over the action tokens, in nats; the share of them beyond
    `WIDE_GAP`; and the share that has the engine's log-prob at all (`mtp.rollout.logprobs`).

    Both sides hold the same weights here (except in asynchronous mode, where the gap includes the staleness),
    so what is left is numerical noise, about 1e-2 in bfloat16. A larger gap means a stale engine.
    """
    pairs = [
        (experience.rollout_log_probs[mask].float(), experience.action_log_probs[mask].float())
        for experience in experiences
        if experience.rollout_log_probs is not None
        for mask in [experience.action_mask.bool()]
    ]
    if not pairs:
        return {}
    engine, trainer = (torch.cat(side) for side in zip(*pairs, strict=True))
    asked = engine != UNASKED
    found = {metrics.SPEC_LOGPROB_SHARE: asked.float().mean().item()}
    if asked.any():
        gap = (engine - trainer)[asked].abs()
        found |= {
            metrics.SPEC_LOGPROB_GAP: gap.mean().item(),
            metrics.SPEC_LOGPROB_GAP_MAX: gap.max().item(),
            metrics.SPEC_LOGPROB_GAP_TAIL: (gap > metrics.WIDE_GAP).float().mean().item(),
        }
    return found


def spread(samples: list[Any], tokens: int) -> list[Any]:
    """Evenly spaced samples with about `tokens` action tokens in all, or all samples if they have less."""
    total = sum(int(sample.action_mask.sum()) for sample in samples)
    return samples[:: max(1, math.ceil(total / tokens))]


class SyncController(MeasuredTraining, plain_class(upstream.PPOTrainer)):  # type: ignore[misc]
    """OpenRLHF's synchronous controller, with an evaluation before the first step and after the last."""

    _evaluated_at = -1

    def fit(self, global_step: int = 0) -> None:
        """OpenRLHF's loop between two evaluations, so that a run always shows where it started and ended."""
        resumed_at = self.init_checkpoint_states()["global_step"]
        self.start_measuring(resumed_at)
        if not resumed_at and self._engines_wait_for_head():  # OpenRLHF sends weights where it resumes
            self.broadcast_to_vllm()
        if self.writer.last_step < 0:
            self._evaluate_at(0)
        super().fit(global_step)
        self._evaluate_at(self.writer.last_step)
        self.finish_measuring()

    def _engines_wait_for_head(self) -> bool:
        """Whether the engines draft with vLLM's own draft model, which starts without weights (`rollout.engine`)."""
        mtp = self.args.mtp
        if mtp is None or not mtp.rollout.speculate:
            return False
        return drafts_natively(head_folder(mtp.head, self.args.actor.model_name_or_path))

    def _evaluate_at(self, step: int) -> None:
        if self.eval_dataloader is None or self._evaluated_at == step:
            return
        self.evaluate(
            step,
            **{
                **self.generate_kwargs,
                "temperature": self.args.eval.temperature,
                "n_samples_per_prompt": self.args.eval.n_samples_per_prompt,
            },
        )

    def evaluate(self, global_step: int, **generate_kwargs: Any) -> dict[str, Any]:
        """OpenRLHF's evaluation; its result also goes into the run folder."""
        start = time.time()
        with kept_samples(self.samples_generator) as samples:
            logs: dict[str, Any] = super().evaluate(global_step, **generate_kwargs)
        row = {**evaluation_row(logs), **self._held_out(samples), metrics.TIME_EVAL_S: time.time() - start}
        if self.writer.last_step == global_step:
            self.writer.amend(row, step=global_step)
        else:
            self.writer.append({metrics.STEP: global_step, **row})
        self._evaluated_at = global_step
        self.monitor.measure(0.0)  # the evaluation's drafts do not count for the next step
        self._step_started = time.time()
        return logs

    def _held_out(self, samples: list[Any]) -> dict[str, float]:
        """The head's acceptance on the evaluation's responses."""
        if self.args.mtp is None or not samples:
            return {}
        chosen = ray.put(spread(samples, HELD_OUT_TOKENS))
        asked = self.actor_model_group.async_run_method(method_name="measure_held_out", experiences=chosen)
        row: dict[str, float] = ray.get(asked)[0]
        return row


class AsyncTrainingController(MeasuredTraining, plain_class(upstream_async.TrainingActor)):  # type: ignore[misc]
    """The training side of OpenRLHF's asynchronous mode."""

    def fit(self, global_step: int = 0) -> None:
        """OpenRLHF's loop, measured."""
        self.start_measuring(global_step)
        super().fit(global_step)
        self.finish_measuring()

    def save_best_checkpoint(
        self, eval_metrics: dict[str, float], global_step: int, client_states: Any = None
    ) -> None:
        """Called with every evaluation of the generating side, which runs beside training."""
        self.writer.amend(evaluation_row(eval_metrics), step=global_step)
        super().save_best_checkpoint(eval_metrics, global_step, client_states)


class AsyncGeneratingController(plain_class(upstream_async.GenerateSamplesActor)):  # type: ignore[misc]
    """The generating side of OpenRLHF's asynchronous mode, with our prompts and samples."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bind_ours()
        super().__init__(*args, **kwargs)


class AsyncController(plain_class(upstream_async.PPOTrainerAsync)):  # type: ignore[misc]
    """OpenRLHF's asynchronous controller, with our two sides in it."""

    def __init__(self, pretrain: str, strategy: Any, *args: Any, **kwargs: Any) -> None:
        bind_async_workers(
            training_actor=ray.remote(AsyncTrainingController),
            generating_actor=ray.remote(AsyncGeneratingController),
        )
        super().__init__(pretrain, strategy, *args, **kwargs)
