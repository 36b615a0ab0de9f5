"""The position of a run in its prompts, so that a resumed run continues with the next: none twice, none left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import openrlhf.trainer.ppo_trainer as upstream

from openrlhf_mtp.config.updates import Updates
from openrlhf_mtp.training.controller.experience import training_ranks
from openrlhf_mtp.training.controller.prompt_tokens import say_about_prompts

Batch = tuple[list[Any], list[Any], list[Any], list[Any]]
"""What OpenRLHF's loader yields: data sources, prompts, labels, images."""

LOADER, WAITING = "loader", "generated_untrained"
_FINISHED = "_iterator_finished"
"""torchdata's key for an iterator that has raised StopIteration."""

# OpenRLHF's own `prepare_datasets`, before ours is bound in its place
_prepare_datasets = upstream.prepare_datasets


class PromptLoader:
    """OpenRLHF's loader of prompts with two more things in its state.

    A loader that was saved after its last prompt is at the end of its episode. torchdata starts the next pass at once
    when such a state is loaded, and the episode would be trained again; here the first pass after loading is empty.

    Prompts that were generated for and wait for their training (`rollout.vllm_generate_batch_size` above
    `rollout.batch_size`) are drawn again first.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.generated: list[Batch] = []
        """Generated for and not yet handed to the trainer; the samples generator keeps it up to date."""
        self._again: list[Batch] = []
        self._is_at_end = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        while self._again:
            yield self._again.pop(0)
        if self._is_at_end:
            self._is_at_end = False
            return
        yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        """The position after the last prompt that was handed to the trainer."""
        return {LOADER: self.loader.state_dict(), WAITING: [*self.generated, *self._again]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, or from the state of OpenRLHF's own loader, as older checkpoints have it."""
        position = state.get(LOADER, state)
        self._again = list(state.get(WAITING, []))
        self._is_at_end = bool(position.get(_FINISHED))
        self.loader.load_state_dict(position)


def waiting(samples: Sequence[Any], samples_per_prompt: int) -> list[Batch]:
    """The prompts of samples that lie side by side, as a loader yields them."""
    return [([""], one.prompts, one.labels, one.images) for one in samples[::samples_per_prompt]]


def updates_of(args: Any) -> Updates:
    """The split of this job's prompts into optimizer steps."""
    return Updates(
        rollout_prompts=args.rollout.batch_size,
        samples_per_prompt=args.rollout.n_samples_per_prompt,
        batch=args.train.batch_size,
        ranks=training_ranks(args),
        passes=args.train.max_epochs,
    )


def prepare_datasets(strategy: Any, tokenizer: Any) -> tuple[PromptLoader, Any, int]:
    """OpenRLHF's loaders of prompts and evaluation prompts, and the number of optimizer steps for the schedule.

    OpenRLHF counts samples over full optimizer steps, which is too few where rollouts have a smaller last step.
    """
    loader, evaluation, _ = _prepare_datasets(strategy, tokenizer)
    args = strategy.args
    for data in (loader, *([] if evaluation is None else [evaluation])):
        say_about_prompts(args, tokenizer, data.dataset.prompts)
    planned = updates_of(args).planned(len(loader), args.train.num_episodes)
    return PromptLoader(loader), evaluation, max(1, planned)
