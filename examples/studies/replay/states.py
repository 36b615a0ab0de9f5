"""What heads need of an RL step: its text, and the policy's hidden states on it, in one file of 5 to 10 MB a step.

The rollout of step t was sampled by the policy after t - 1 updates, the *own* policy of the step; the *next* one is
the policy after t updates, which samples the rollout of step t + 1. Heads train on the own one's states. The next one's
are kept for arms that are told the future (`arms.py`) and for the drift of the step.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.runlog.rollouts import RecordedResponse
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.trunk import Trunk

ROWS = 64
"""Responses in a forward pass of the policy."""


@dataclass(frozen=True)
class View:
    """A step as one policy sees it.

    Attributes:
        hidden: last hidden states after the final norm, of present tokens [P, H].
        embedding: [V, H].
        output: the output head's weight [V, H].
    """

    hidden: Tensor
    embedding: Tensor
    output: Tensor

    @property
    def trunk(self) -> Trunk:
        """The two matrices as `HeadTrainer` looks them up; nothing else of the policy is there."""
        vocabulary, width = self.embedding.shape
        embedding = nn.Embedding.from_pretrained(self.embedding)
        output = nn.Linear(width, vocabulary, bias=False)
        output.weight = nn.Parameter(self.output, requires_grad=False)
        return Trunk(embedding, output, nn.Identity(), SimpleNamespace(vocab_size=vocabulary))


@dataclass(frozen=True)
class Step:
    """The responses of one step, padded on the right, and the policy's states on them.

    Attributes:
        sequences: tokens [B, T].
        present: true where there is a token [B, T].
        actions: true where the policy sampled it [B, T].
        rewards, advantages: of the responses [B].
        own: of the policy that sampled them.
        ahead: of the policy after the step's update; None where the path ends.
    """

    sequences: Tensor
    present: Tensor
    actions: Tensor
    rewards: Tensor
    advantages: Tensor
    own: View
    ahead: View | None = None

    def batch(self, *, ahead: bool = False, temperature: float = 1.0) -> HeadBatch:
        """The step as the head trainer reads it."""
        view = self.ahead if ahead else self.own
        assert view is not None, "the last step of a path has no next policy"
        hidden = view.hidden.new_zeros(*self.sequences.shape, view.hidden.shape[1])
        hidden[self.present] = view.hidden
        return HeadBatch(
            sequences=self.sequences,
            attention_mask=self.present.long(),
            action_mask=self.actions,
            hidden=hidden,
            targets=from_hidden(hidden, view.output, temperature),
        )

    @property
    def tokens(self) -> int:
        """Sampled tokens."""
        return int(self.actions.sum())

    def rows(self, chosen: Tensor) -> "Step":
        """Some of the responses [B'], for a smaller batch; without the next policy."""
        packed = torch.zeros(self.present.shape, dtype=torch.long)
        packed[self.present] = torch.arange(int(self.present.sum()))
        kept = packed[chosen][self.present[chosen]]
        width = int(self.present[chosen].sum(1).max())
        return Step(
            self.sequences[chosen, :width],
            self.present[chosen, :width],
            self.actions[chosen, :width],
            self.rewards[chosen],
            self.advantages[chosen],
            View(self.own.hidden[kept], self.own.embedding, self.own.output),
        )

    @cached_property
    def predicted(self) -> Tensor:
        """Packed numbers of the tokens whose successor the policy sampled [N]: where its distribution counts."""
        before = torch.zeros_like(self.actions)
        before[:, :-1] = self.actions[:, 1:]
        return before[self.present].nonzero().flatten()

    def log_probs(self, view: View) -> Tensor:
        """The policy's distribution at `predicted`, in nats [N, V]."""
        return (view.hidden[self.predicted] @ view.output.T).log_softmax(-1)

    def divergence(self, view: View, other: View) -> float:
        """Mean over sampled tokens of KL(view || other), nat a token, along this text."""
        p, q = self.log_probs(view), self.log_probs(other)
        return float((p.exp() * (p - q)).sum(-1).mean())

    def log_ratio(self) -> Tensor:
        """log of next over own probability of each response [B]."""
        assert self.ahead is not None, "the last step of a path has no next policy"
        taken = self.sequences[self.actions][:, None]
        change = (self.log_probs(self.ahead) - self.log_probs(self.own)).gather(-1, taken).squeeze(-1)
        row = self.actions.nonzero()[:, 0]
        return torch.zeros(len(self.sequences)).index_add(0, row, change)


def pad(responses: list[RecordedResponse]) -> dict[str, Tensor]:
    """The recorded responses as tensors of equal length, padded on the right with token 0."""
    width = max(len(each.ids) for each in responses)
    sequences = torch.zeros(len(responses), width, dtype=torch.long)
    present, actions = (torch.zeros(sequences.shape, dtype=torch.bool) for _ in range(2))
    for row, each in enumerate(responses):
        sequences[row, : len(each.ids)] = torch.tensor(each.ids)
        present[row, : len(each.ids)] = True
        for start, end in each.sampled:
            actions[row, start:end] = True
    rewards = torch.tensor([each.reward for each in responses])
    advantages = torch.tensor([each.advantage for each in responses])
    return {
        "sequences": sequences,
        "present": present,
        "actions": actions,
        "rewards": rewards,
        "advantages": advantages,
    }


def load_policy(folder: Path) -> PreTrainedModel:
    """A recorded policy in float32, ready to be asked."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


@torch.no_grad()
def view_of(policy: PreTrainedModel, sequences: Tensor, present: Tensor) -> View:
    """The policy's states on right-padded sequences [B, T]."""
    parts = []
    for at in range(0, len(sequences), ROWS):
        rows = slice(at, at + ROWS)
        width = int(present[rows].sum(1).max())
        ids, mask = sequences[rows, :width], present[rows, :width]
        states = policy.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        parts.append(states[mask])
    embedding = policy.get_input_embeddings().weight.detach()
    output = policy.get_output_embeddings().weight.detach()
    return View(torch.cat(parts), embedding, output)


def see(responses: list[RecordedResponse], own: PreTrainedModel, ahead: PreTrainedModel | None) -> Step:
    """The step of these responses."""
    text = pad(responses)
    views = [
        None if policy is None else view_of(policy, text["sequences"], text["present"])
        for policy in (own, ahead)
    ]
    assert views[0] is not None, "own is a policy"
    return Step(**text, own=views[0], ahead=views[1])


TEXT = ("sequences", "present", "actions", "rewards", "advantages")
VIEW = ("hidden", "embedding", "output")


def save_step(path: Path, step: Step) -> None:
    """Write a step, whole or not at all."""
    tensors = {name: getattr(step, name) for name in TEXT}
    for prefix, view in (("own", step.own), ("ahead", step.ahead)):
        if view is not None:
            tensors |= {f"{prefix}.{name}": getattr(view, name).clone() for name in VIEW}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    save_file(tensors, partial)
    partial.replace(path)


def load_step(path: Path) -> Step:
    """Read a step."""
    tensors = load_file(path)
    views = {
        prefix: View(*(tensors[f"{prefix}.{name}"] for name in VIEW))
        for prefix in ("own", "ahead")
        if f"{prefix}.hidden" in tensors
    }
    return Step(**{name: tensors[name] for name in TEXT}, **views)
