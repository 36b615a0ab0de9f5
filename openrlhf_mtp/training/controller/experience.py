"""Every rank gets the same number of samples, also of the last, smaller rollout of an episode.

OpenRLHF deals out groups of samples in order: with two ranks and one group it raises, with three groups the ranks get
unequal numbers and wait for each other's collectives. Rollouts that come out even are left exactly as OpenRLHF deals
them.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from torch import Tensor

from openrlhf_mtp.config.updates import data_parallel_ranks
from openrlhf_mtp.runlog.activity import activity
from openrlhf_mtp.runlog.notices import say


def data_parallel(args: Any, *roles: str) -> int:
    """The number of ranks that samples are dealt to, for models of these roles (`actor`, `critic`, ...)."""
    shared = args.ds.ring_attn_size * args.ds.tensor_parallel_size
    settings = [getattr(args, role) for role in roles]
    return data_parallel_ranks(*(one.num_nodes * one.num_gpus_per_node // shared for one in settings))


def training_ranks(args: Any) -> int:
    """The number of ranks that samples to train on are dealt to."""
    return data_parallel(args, "actor", *(["critic"] if args.critic.model_name_or_path else []))


def all_ranks(args: Any) -> int:
    """The number of ranks that samples are dealt to when every model reads them; fewer samples cannot be trained on."""
    return data_parallel_ranks(
        training_ranks(args),
        *(
            data_parallel(args, role)
            for role, runs in (("ref", args.algo.kl.init_coef > 0), ("reward", not args.reward.remote_url))
            if runs
        ),
    )


def one_row(experience: Experience, row: int) -> Experience:
    """A sample of a batch, as a batch of one."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor | list):
            return value[row : row + 1]
        return {name: cut(part) for name, part in value.items()} if isinstance(value, dict) else value

    return Experience(**{field.name: cut(getattr(experience, field.name)) for field in fields(Experience)})


def rows_of(experiences: list[Experience]) -> list[Experience]:
    """All samples, each as a batch of one."""
    return [one_row(each, row) for each in experiences for row in range(len(each.sequences))]


def in_equal_parts(items: list[Any], parts: int) -> list[list[Any]]:
    """Consecutive parts whose sizes differ by one at most; there must be at least one item a part."""
    size, longer = divmod(len(items), parts)
    ends = [part * size + min(part, longer) for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


class EvenExperienceMaker(RemoteExperienceMaker):
    """OpenRLHF's experience maker, with every rank's share of a rollout alike."""

    def split_rollout_samples(self, rollout_samples: list[Experience]) -> list[Experience]:
        """Groups for one forward pass each, a multiple of the ranks of every model."""
        groups: list[Experience] = super().split_rollout_samples(rollout_samples)
        ranks = all_ranks(self.args)
        if len(groups) % ranks == 0 or self.args.train.dynamic_batch_enable:  # those are made for the ranks
            return groups
        rounds = -(-len(groups) // ranks)
        parts = in_equal_parts(rollout_samples, min(rounds * ranks, len(rollout_samples)))
        return [self._joined(part) for part in parts]

    def make_experience_batch(self, rollout_samples: list[Experience]) -> list[Experience]:
        """Experiences to train on: samples that cannot be shared out equally are left out, and said."""
        out = Path(self.args.run.run_folder)
        with activity(out, "scoring") as now:
            now.begin(f"scoring {len(rollout_samples)} responses by policy, reference and critic")
            experiences: list[Experience] = super().make_experience_batch(rollout_samples)
        ranks = training_ranks(self.args)
        sizes = [len(each.sequences) for each in experiences]
        if len(sizes) % ranks == 0 and len({sum(part) for part in in_equal_parts(sizes, ranks)}) == 1:
            return experiences
        rows = rows_of(experiences)
        rest = len(rows) % ranks
        if rest:
            say(
                out,
                f"{rest} of {len(rows)} responses of a rollout are not trained on: they cannot be shared out equally "
                f"over {ranks} ranks",
            )
        return [self._joined(part) for part in in_equal_parts(rows[: len(rows) - rest], ranks)]

    def _joined(self, rows: list[Experience]) -> Experience:
        joined: Experience = Experience.concat_experiences(rows, self.tokenizer.pad_token_id)
        return joined
