"""The responses of each RL step, where the job asks for them: `rollouts/step_000012.jsonl`, a line a response.

    {"prompt": "...", "response": "...", "ids": [...], "sampled": [[12, 40]], "reward": 1.0, "advantage": 0.87}

`reward` is what advantages were computed from. `advantage` is its mean over the sampled tokens, which in GRPO all have
the same. A response of several turns has a span in `sampled` for each; the tokens between them came from outside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.run_files import ROLLOUTS


@dataclass(frozen=True)
class RecordedResponse:
    """One response as the trainer got it.

    Attributes:
        prompt: text given to the policy.
        response: text of the tokens after the prompt, special tokens included.
        ids: tokens of prompt and response, without padding.
        sampled: spans [start, end) of `ids` that the policy sampled, in order.
        reward: the response's reward.
        advantage: mean advantage of the sampled tokens.
    """

    prompt: str
    response: str
    ids: tuple[int, ...]
    sampled: tuple[tuple[int, int], ...]
    reward: float
    advantage: float


def write_rollouts(out: Path, step: int, responses: Sequence[RecordedResponse]) -> None:
    """Keep the responses of an RL step (from 1) in the run folder `out`."""
    path = rollout_file(out, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in responses))


def read_rollouts(out: Path, step: int) -> list[RecordedResponse]:
    """The responses of an RL step, in the order in which they were dealt to the trainer's ranks.

    Raises:
        FileNotFoundError: the step was not recorded.
    """
    path = rollout_file(out, step)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: the run did not reach step {step}, or its job lacks mtp.record.rollouts: true"
        )
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        RecordedResponse(
            **{
                **row,
                "ids": tuple(row["ids"]),
                "sampled": tuple((start, end) for start, end in row["sampled"]),
            }
        )
        for row in rows
    ]


def recorded_steps(out: Path) -> list[int]:
    """The RL steps whose responses are kept, ascending."""
    return sorted(int(path.stem.rpartition("_")[2]) for path in (out / ROLLOUTS).glob("step_*.jsonl"))


def drop_rollouts(out: Path, *, after_step: int) -> None:
    """Remove the responses of later steps; a resumed run generates them again."""
    for step in recorded_steps(out):
        if step > after_step:
            rollout_file(out, step).unlink()


def rollout_file(out: Path, step: int) -> Path:
    """The file of an RL step."""
    return out / ROLLOUTS / f"step_{step:06d}.jsonl"
