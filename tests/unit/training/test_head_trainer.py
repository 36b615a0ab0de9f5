"""The head's trainer on a toy trunk: what it hands to the loss, what it reports, and that ranks agree on both."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_metrics import anchor_records
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.held_out import evaluate_head
from openrlhf_mtp.training.trunk import Trunk
from tests.processes import on_ranks
from tests.unit.heads.tiny import DEPTHS, VOCAB, WIDTH, random_head, trunk_config
from tests.unit.losses import reference

TEMPERATURE = 0.7
COLD = {"objective": "e2e_tv", "kl_warmup_steps": 1000}
"""Trains with KL for ever."""


def trainer(
    *, engine: Any = None, seed: int = 0, verifies_blocks: bool = False, **objective: Any
) -> HeadTrainer:
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(VOCAB, WIDTH, generator=generator)
    output_head = nn.Linear(WIDTH, VOCAB, bias=False)
    output_head.weight = nn.Parameter(0.3 * torch.randn(VOCAB, WIDTH, generator=generator))
    trunk = Trunk(
        nn.Embedding(VOCAB, WIDTH, _weight=table), output_head, nn.Identity(), trunk_config("qwen2")
    )
    head = random_head("qwen2")
    return HeadTrainer(
        engine=engine and engine(head),
        head=head,
        trunk=trunk,
        depths=DEPTHS,
        settings=ObjectiveSettings.model_validate({"kl_warmup_steps": 0, **objective}),
        temperature=TEMPERATURE,
        seed=seed,
        verifies_blocks=verifies_blocks,
    )


def random_batch(rows: int = 4, length: int = 16) -> HeadBatch:
    """Right-padded rows of other lengths each; the first response has one token fewer than the depths reach."""
    generator = torch.Generator().manual_seed(4)
    attention, actions = torch.zeros(2, rows, length, dtype=torch.long)
    for row in range(rows):
        prompt, response = 3 + row, DEPTHS + 3 * row
        attention[row, : prompt + response] = 1
        actions[row, prompt : prompt + response] = 1
    return HeadBatch(
        sequences=torch.randint(VOCAB, (rows, length), generator=generator),
        attention_mask=attention,
        action_mask=actions.bool(),
        hidden=torch.randn(rows, length, WIDTH, generator=generator),
    )


def some_rows(batch: HeadBatch, rows: slice) -> HeadBatch:
    parts = (batch.sequences, batch.attention_mask, batch.action_mask, batch.hidden)
    return HeadBatch(*(part[rows] for part in parts))


@dataclass(frozen=True)
class Rows:
    """Logits at the rollout's temperature [N, k, V] and what belongs to them, anchors in the order of the batch."""

    draft: Any
    target: Any
    token: Any
    mask: Any
    response: list[int]

    def sums(self, objective: str) -> dict[str, Any]:
        return reference.sums(objective, self.draft, self.target, self.token, self.mask)


@torch.no_grad()
def gathered(own: HeadTrainer, batch: HeadBatch) -> Rows:
    """By the definition of the masks, with the head run at every position."""
    table, weight = own.trunk.embedding.weight, own.trunk.output_head.weight.double()
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    ahead = [table[batch.sequences.roll(-j, 1)] for j in range(1, DEPTHS + 1)]
    states = own.head(batch.hidden, ahead, positions, batch.attention_mask, DEPTHS)
    rows, length = batch.sequences.shape
    found: dict[str, list[Any]] = {"draft": [], "target": [], "token": [], "mask": []}
    response = []
    for b in range(rows):
        for i in range(length - 2):
            mask = [
                bool(batch.action_mask[b, i + 1 : i + j + 2].all()) and i + j + 1 < length for j in (1, 2, 3)
            ]
            if not mask[0]:
                continue
            at = [min(i + j, length - 2) for j in (1, 2, 3)]
            found["draft"].append([(z[b, i].double() @ weight.T / TEMPERATURE).numpy() for z in states])
            found["target"].append(
                [(batch.hidden[b, n].double() @ weight.T / TEMPERATURE).numpy() for n in at]
            )
            found["token"].append([int(batch.sequences[b, n + 1]) for n in at])
            found["mask"].append(mask)
            response.append(b)
    return Rows(**{name: np.array(values) for name, values in found.items()}, response=response)


def replay(rows: Rows, *, blocks: bool = False) -> tuple[list[float], float, dict[str, float]]:
    """How likely depths 1..j of a draft are all accepted, the standard deviation of how many are, and their spread.

    Means over an engine's drafts, by following one response at a time.
    """
    drafts, variance, reached = 0.0, 0.0, np.zeros(DEPTHS)
    lengths, quarters = [], np.zeros((4, 2))
    for response in sorted(set(rows.response)):
        own = [n for n, row in enumerate(rows.response) if row == response]
        visited, one = np.zeros(len(own) + DEPTHS + 1), np.zeros(2)
        visited[0] = 1.0
        for place, n in enumerate(own):
            sides = [[reference.softmax(row) for row in side[n]] for side in (rows.draft, rows.target)]
            at_token = [(q[t], p[t]) for q, p, t in zip(*sides, rows.token[n], strict=True)]
            ratios = [q / p * m for (q, p), m in zip(at_token, rows.mask[n], strict=True)]
            joint = np.cumprod(ratios if blocks else np.minimum(1.0, ratios))
            through = [1.0, *np.minimum(np.minimum.accumulate(joint), 1.0), 0.0]
            drafts += visited[place]
            reached += visited[place] * np.array(through[1:-1])
            chances = -np.diff(through)
            mean = chances @ range(DEPTHS + 1)
            variance += visited[place] * (chances @ (np.arange(DEPTHS + 1) - mean) ** 2)
            quarters[4 * place // len(own)] += visited[place] * np.array([1.0, sum(through[1:-1])])
            one += visited[place] * np.array([1.0, sum(through[1:-1])])
            for a in range(DEPTHS + 1):
                visited[place + a + 1] += visited[place] * (through[a] - through[a + 1])
        lengths.append(1.0 + one[1] / one[0])
    spread = {
        f"mtp/replayed_length/quarter_{q}": 1.0 + accepted / drafted
        for q, (drafted, accepted) in enumerate(quarters, start=1)
        if drafted
    }
    spread["mtp/replayed_length_p10"] = float(np.quantile(lengths, 0.1))
    spread["mtp/slow_responses"] = float(np.mean(np.array(lengths) < 1.5))
    return (reached / drafts).tolist(), float(np.sqrt(variance / drafts)), spread


@pytest.mark.parametrize(("objective", "blocks"), [("kl", False), ("e2e_tv", False), ("e2e_tv", True)])
def test_every_metric_is_the_formula_at_the_rollouts_temperature(objective, blocks):
    own, batch = trainer(objective=objective, verifies_blocks=blocks), random_batch()
    own.accumulate(batch, 1.0)
    row, rows = own.drain(), gathered(own, batch)
    sums = rows.sums(objective)
    assert sums["depth_count"][0] > sums["depth_count"][2] > 0
    expected = {
        "mtp/anchors": sums["depth_count"][0],
        "mtp/loss": sums["loss_sum"] / sums["loss_count"],
        "mtp/entropy": sums["entropy_sum"] / sums["depth_count"][0],
        "mtp/expected_length": sums["length_sum"] / sums["depth_count"][0],
    }
    replayed, expected["mtp/accepted_std"], spread = replay(rows, blocks=blocks)
    expected |= spread
    expected["mtp/replayed_length_se"] = row[
        "mtp/replayed_length_se"
    ]  # losses/test_replayed_acceptance.py has it
    expected["mtp/replayed_length"] = 1.0 + sum(replayed)
    for j, reached in enumerate(replayed, start=1):
        count = sums["depth_count"][j - 1]
        expected[f"mtp/loss/depth_{j}"] = sums["depth_loss_sum"][j - 1] / count
        expected[f"mtp/alpha/depth_{j}"] = sums["alpha_sum"][j - 1] / count
        expected[f"mtp/alpha_greedy/depth_{j}"] = sums["greedy_sum"][j - 1] / count
        expected[f"mtp/reach/depth_{j}"] = reached
    del row["time/mtp_s"]
    assert row == pytest.approx(expected, rel=1e-4)


def test_what_is_kept_by_anchor_is_the_formula():
    own, batch = trainer(), random_batch()
    records, rows = anchor_records(own.accumulate(batch, 1.0)), gathered(own, batch)
    p, q = (
        [[reference.softmax(row) for row in anchor] for anchor in side] for side in (rows.target, rows.draft)
    )
    expected = {
        "entropy": -(np.array(p) * np.log(p)).sum(-1),
        "alpha": np.minimum(p, q).sum(-1),
        "greedy": np.take_along_axis(np.array(p), np.argmax(q, -1)[..., None], -1)[..., 0],
    }
    assert records.pop("response").tolist() == rows.response
    assert records.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(
            records[name], np.where(rows.mask, values, np.nan), rtol=1e-4, err_msg=name
        )


def test_the_settings_depth_weights_are_used():
    batch = random_batch()
    one = trainer(objective="kl", depth_decay=0.6).loss(batch)
    weight = np.array([1.0, 0.6, 0.36]) / (1.0 + 0.6 + 0.36)
    # the loss by depth is reported without weights
    assert one.loss_sum.item() == pytest.approx(
        float((one.sums.depth_loss_sum * torch.tensor(weight)).sum()), rel=1e-5
    )
    assert one.loss_sum.item() != pytest.approx(trainer(objective="kl").loss(batch).loss_sum.item(), rel=1e-3)


def chosen(own: HeadTrainer, batch: HeadBatch, step: int) -> list[int]:
    own.steps = step
    output = own.loss(batch)
    assert output.anchors.fraction == own.settings.anchor_fraction
    return output.anchors.index.tolist()


def test_each_step_chooses_other_anchors_and_a_resumed_step_the_same():
    batch = random_batch(rows=6, length=30)
    half = [trainer(objective="kl", anchor_fraction=0.5, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (chosen(own, batch, 5) for own in half)
    assert first == again
    assert len({tuple(draw) for draw in (first, other, chosen(half[0], batch, 6))}) == 3
    assert len(first) < len(chosen(trainer(objective="kl"), batch, 5))


@pytest.mark.parametrize(
    "objective",
    [{"objective": "kl", "depth_decay": 0.6}, {"objective": "e2e_tv"}, {"objective": {"kl": 1.0, "tv": 2.0}}],
)
def test_what_is_counted_of_a_row_is_what_its_loss_counts(objective):
    own, batch = trainer(**objective), random_batch()
    counts = own.row_counts(batch.action_mask, batch.attention_mask)
    for row, count in enumerate(counts.tolist()):
        assert count == pytest.approx(own.loss(some_rows(batch, slice(row, row + 1))).sums.loss_count.item())
    assert counts[-1] > counts[0]


def test_all_held_out_anchors_are_measured_with_the_final_objective():
    own, batch = trainer(**COLD, anchor_fraction=0.5), random_batch()
    parts = [some_rows(batch, slice(n, n + 2)) for n in (0, 2)]
    found = evaluate_head(own, own.settings, parts)
    rows = gathered(own, batch)
    sums = rows.sums("e2e_tv")
    assert found.metrics["eval/mtp/loss"] == pytest.approx(sums["loss_sum"] / sums["loss_count"], rel=1e-4)
    assert found.metrics["eval/mtp/alpha_greedy/depth_2"] == pytest.approx(
        sums["greedy_sum"][1] / sums["depth_count"][1], rel=1e-4
    )
    assert len(found.records["alpha"]) == len(rows.response)
    assert own.drain().get("mtp/anchors") == 0.0, "nothing of it is counted as training"


class Engine:
    """DeepSpeed's part, left out: gradients go nowhere, every micro-batch is a step."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 0.0}])

    def __call__(self, *inputs: Any) -> list[Tensor]:
        states: list[Tensor] = self.head(*inputs)
        return states

    def managed_gradient_accumulation(self) -> bool:
        return False

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        """Nothing to update."""

    def get_global_grad_norm(self) -> float:
        return 0.0


def test_the_gradient_is_that_of_the_summed_loss_over_what_the_step_divides_by():
    def gradient(normalizer: float) -> Tensor:
        own = trainer(engine=Engine, objective="tv")
        own.accumulate(random_batch(), normalizer)
        return torch.cat([p.grad.flatten() for p in own.head.parameters() if p.grad is not None])

    whole = gradient(1.0)
    assert whole.norm() > 1e-3
    torch.testing.assert_close(gradient(50.0), whole / 50.0)


@pytest.mark.parametrize("objective", ["ce", "e2e_tv"])
def test_responses_that_end_at_once_train_no_head_and_give_no_figure_but_their_count(objective):
    whole = random_batch()
    first = whole.action_mask.int().argmax(1, keepdim=True)
    ended = torch.zeros_like(whole.action_mask).scatter(1, first, True)
    batch = HeadBatch(whole.sequences, whole.attention_mask, ended, whole.hidden)
    stopped = trainer(engine=Engine, objective=objective)
    output = stopped.accumulate(batch, normalizer=float(ended.sum()))
    stopped.step()
    gradients = [parameter.grad for parameter in stopped.head.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in gradients)
    assert len(anchor_records(output)["response"]) == 0
    row = stopped.drain()
    assert row["mtp/anchors"] == 0
    assert not [
        name for name in row if name.startswith(("mtp/alpha", "mtp/loss", "mtp/expected", "mtp/reach"))
    ]


def alpha_of(rows: slice) -> float:
    own = trainer(objective="tv")
    count = anchor_records(own.accumulate(some_rows(random_batch(), rows), 1.0))
    row = own.drain()
    alpha = [float(row[f"mtp/alpha/depth_{j}"]) for j in (1, 2, 3)]
    counted = np.isfinite(count["alpha"]).sum(0)
    return float((np.array(alpha) * counted).sum() / counted.sum())


OF_RANK = (slice(0, 2), slice(2, 4))


def on_one_rank(threshold: float) -> tuple[dict[str, float], int]:
    """A step of this rank's half of the rows: the metrics, and when the warm-up ends."""
    torch.distributed.init_process_group("gloo")
    own = trainer(engine=Engine, objective="tv", kl_warmup_steps=10, kl_until_alpha=threshold)
    own.accumulate(some_rows(random_batch(), OF_RANK[torch.distributed.get_rank()]), 1.0)
    own.step()
    row = own.drain()
    torch.distributed.destroy_process_group()
    return row, own.schedule.warmup_steps


def test_ranks_report_the_same_figures_and_end_the_warm_up_in_the_same_step():
    apart = sorted(alpha_of(rows) for rows in OF_RANK)
    together = alpha_of(slice(0, 4))
    assert apart[0] < together < apart[1]
    # what both reach together, one of them does not reach alone
    (first, ended), (second, ended_there) = on_ranks(2, on_one_rank, (apart[0] + together) / 2)
    assert ended == ended_there == 1
    whole = without_times(alone())
    assert without_times(first) == pytest.approx(whole, rel=1e-5)
    assert without_times(second) == pytest.approx(whole, rel=1e-5)


def alone() -> dict[str, float]:
    own = trainer(engine=Engine, objective="tv", kl_warmup_steps=10)
    own.accumulate(random_batch(), 1.0)
    return own.drain()


def without_times(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}
