"""The samples generator of a run: says what filtering leaves, and knows which prompts still wait for their training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrlhf_mtp.runlog.generation_progress import GenerationProgress
from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.training.controller.experience import all_ranks
from openrlhf_mtp.training.controller.prompt_position import waiting
from openrlhf_mtp.training.controller.rollout_progress import told_progress
from openrlhf_mtp.training.controller.samples import CheckedSamples

DEFAULT_MAX_LEN = 2048
"""OpenRLHF's own, where a job gives none."""


class FilterWatch:
    """The prompts of one rollout that dynamic filtering kept and dropped.

    Args:
        wanted: prompts of a rollout.
        allowed: `algo.dynamic_filtering_range`, which a prompt's mean score must lie within.
    """

    def __init__(self, wanted: int, allowed: tuple[float, float]) -> None:
        self.wanted, self.allowed = wanted, allowed
        self.drawn = 0
        self._scores: list[float] = []
        self._next_word = 2 * wanted

    def draw(self, prompts: int) -> str | None:
        """Count prompts; a line when it is time for one: at twice a rollout's prompts, and whenever that doubles."""
        self.drawn += prompts
        if self.drawn < self._next_word:
            return None
        self._next_word *= 2
        return (
            f"dynamic filtering has drawn {self.drawn} prompts for a rollout of {self.wanted}; {self._why()}"
        )

    def score(self, score: float) -> None:
        """Take note of a response's score."""
        self._scores.append(score)

    def nothing_left(self) -> str:
        """The message for a rollout in which no prompt passed the filter."""
        return f"dynamic filtering let none of {self.drawn} prompts pass: nothing was trained on them; {self._why()}"

    def _why(self) -> str:
        low, high = self.allowed
        scores = self._scores
        seen = f"{min(scores):g} to {max(scores):g}" if scores else "none"
        return (
            f"a prompt passes when the mean score of its responses is above {low:g} and below {high:g} "
            f"(algo.dynamic_filtering_range); scores seen: {seen}"
        )


class TrainingSamples(CheckedSamples):
    """The samples generator of our controllers; its prompts come from a `PromptLoader`."""

    _watch: FilterWatch | None = None
    _progress: GenerationProgress | None = None
    _all_expected = False

    @contextmanager
    def _showing(self, name: str) -> Iterator[None]:
        """Within this context the line of progress shows how far the engines are."""
        self._progress = GenerationProgress("requests" if self.args.train.agent_func_path else "responses")
        out = Path(self.args.run.run_folder)
        try:
            with told_progress(out, name, self._progress, self._generated):
                yield
        finally:
            self._progress, self._all_expected = None, False

    def _generated(self) -> tuple[int, int]:
        counted: tuple[int, int] = self.args.run.count_generated(self.vllm_engines)
        return counted

    def generate_eval_samples(self, **generate_kwargs: Any) -> list[Any]:
        """OpenRLHF's, and says how far it is."""
        with self._showing("evaluation"):
            # all at once, because OpenRLHF asks for as many prompts as a rollout has, one lot after the other
            self._expect(len(self.eval_dataloader), generate_kwargs)
            self._all_expected = True
            samples: list[Any] = super().generate_eval_samples(**generate_kwargs)
        return samples

    def generate_samples(self, **generate_kwargs: Any) -> tuple[list[Any], float | None, int, bool]:
        """OpenRLHF's; a rollout with too few samples for the ranks is dropped, and said."""
        if self.args.algo.dynamic_filtering_enable:
            low, high = self.args.algo.dynamic_filtering_range
            self._watch = FilterWatch(self.args.rollout.batch_size, (low, high))
        try:
            with self._showing("rollout"):
                samples, rate, consumed, exhausted = super().generate_samples(**generate_kwargs)
            if self._watch is not None and self._watch.drawn and not samples:
                self._say(self._watch.nothing_left())
        finally:
            self._watch = None
        self.prompts_dataloader.generated = waiting(
            self._sample_buffer, self.args.rollout.n_samples_per_prompt
        )
        if samples and len(samples) < (needed := all_ranks(self.args)):
            self._say(
                f"the last rollout of an episode has {len(samples)} responses and is not trained on: {needed} ranks "
                "need at least one each"
            )
            samples = []
        return samples, rate, consumed, exhausted

    def _dispatch_prompts_to_vllm(self, prompts: list[str], *args: Any, **kwargs: Any) -> list[Any]:
        if not self._all_expected:
            self._expect(len(prompts), kwargs)
        if self._watch is not None and (text := self._watch.draw(len(prompts))) is not None:
            self._say(text)
        refs: list[Any] = super()._dispatch_prompts_to_vllm(prompts, *args, **kwargs)
        return refs

    def _expect(self, prompts: int, kwargs: dict[str, Any]) -> None:
        """Count what the engines are asked for; an agent's requests are not known beforehand."""
        if self._progress is None or self.args.train.agent_func_path:
            return
        responses = prompts * kwargs.get("n_samples_per_prompt", self.args.rollout.n_samples_per_prompt)
        longest = kwargs.get("max_new_tokens") or kwargs.get("max_len", DEFAULT_MAX_LEN)
        self._progress.expect(responses, responses * longest)

    def _process_response_into_experience(self, response: Any, **generate_kwargs: Any) -> Any:
        experience = super()._process_response_into_experience(response, **generate_kwargs)
        if self._watch is not None and experience.scores is not None:
            self._watch.score(experience.scores[0].item())
        return experience

    def _say(self, text: str) -> None:
        say(Path(self.args.run.run_folder), text)
