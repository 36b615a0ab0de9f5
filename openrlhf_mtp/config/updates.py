"""The rollouts, samples for each rank and optimizer steps that an episode's prompts make. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Updates:
    """The split of a job's prompts into optimizer steps.

    Attributes:
        rollout_prompts: prompts of a full rollout (`rollout.batch_size`).
        samples_per_prompt: responses to each (`rollout.n_samples_per_prompt`).
        batch: samples of a full optimizer step (`train.batch_size`).
        ranks: data-parallel ranks; each trains on as many samples as the others.
        passes: optimizer steps on each sample (`train.max_epochs`).
    """

    rollout_prompts: int
    samples_per_prompt: int
    batch: int
    ranks: int
    passes: int = 1

    def rollouts(self, prompts: int) -> list[int]:
        """Samples of an episode's rollouts; the last has what is left over."""
        full, rest = divmod(prompts, self.rollout_prompts)
        sizes = [self.rollout_prompts] * full + ([rest] if rest else [])
        return [size * self.samples_per_prompt for size in sizes]

    def trained(self, samples: int) -> int:
        """The number of a rollout's samples that are trained: as many as can be shared out equally."""
        return samples - samples % self.ranks

    def steps(self, samples: int) -> int:
        """Optimizer steps of a rollout; the last one may have fewer samples."""
        return math.ceil(self.trained(samples) / self.batch) * self.passes

    def planned(self, prompts: int, episodes: int) -> int:
        """Optimizer steps of a job when no prompt is filtered out."""
        return episodes * sum(map(self.steps, self.rollouts(prompts)))


def data_parallel_ranks(*ranks: int) -> int:
    """The number that a rollout's samples are shared out by when models on `ranks` ranks all see all of them."""
    return math.lcm(*(max(1, count) for count in ranks))
