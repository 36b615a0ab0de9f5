"""Small computations that live in modules which import OpenRLHF or DeepSpeed, run in a process of their own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.processes import in_fresh_process


def observed_states() -> list[Any]:
    """Two sequences of 2 and 3 tokens, left- and right-padded to 4; packed they are one row of 5 states."""
    import torch

    from openrlhf_mtp.losses.kernels.projection import Scratch
    from openrlhf_mtp.training.observed_policy import observation

    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    sequences, nothing = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 3)
    packed = torch.arange(1.0, 6.0).view(1, 5, 1).requires_grad_()
    padded = torch.arange(8.0).view(2, 4, 1)
    inputs = (sequences, nothing, mask)
    seen = observation(packed, packed, nothing, inputs)
    seen.attached_hidden.sum().backward()
    assert seen.batch.targets is not None
    assert packed.grad is not None
    packing = seen.batch.packing
    assert packing is not None
    return [
        packing.padded(seen.batch.hidden).squeeze(-1).tolist(),
        seen.batch.targets(torch.arange(5), Scratch()).flatten().tolist(),
        packed.grad.flatten().tolist(),
        observation(padded, padded, nothing, inputs).attached_hidden is padded,
    ]


def gaps() -> list[dict[str, float]]:
    """A gap counts at action tokens only; without engine log-probs there is none."""
    from types import SimpleNamespace

    import torch

    from openrlhf_mtp.runlog.unasked import UNASKED
    from openrlhf_mtp.training.controller.loop import logprob_gap

    def experience(engine: Any, trainer: Any, mask: Any) -> Any:
        return SimpleNamespace(
            rollout_log_probs=None if engine is None else torch.tensor(engine),
            action_log_probs=torch.tensor(trainer),
            action_mask=torch.tensor(mask),
        )

    first = experience([[-1.0, -2.0, 9.0]], [[-1.5, -2.0, 0.0]], [[1, 1, 0]])
    second = experience([[-4.0]], [[-3.0]], [[True]])
    unasked = experience([[UNASKED, UNASKED, 0.0]], [[-1.5, -2.0, 0.0]], [[1, 1, 0]])
    cases = [[first, second], [experience(None, [[0.0]], [[1]])], [first, unasked], [unasked]]
    return [logprob_gap(case) for case in cases]


def learning_rates() -> list[float]:
    """The first six steps of a warm-up over three."""
    import torch

    from openrlhf_mtp.training.head_engine import warmup_then_constant

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
    scheduler = warmup_then_constant(optimizer, warmup_steps=3)
    rates = []
    for _ in range(6):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def weights_after_the_replay_buffer() -> list[list[float]]:
    """Advantage weights of a batch as OpenRLHF collects it, and as its replay buffer hands it out."""
    import torch
    from openrlhf.trainer.ppo_utils.experience import (
        Experience,
        make_experience_batch,
        split_experience_batch,
    )

    from openrlhf_mtp.config.settings.regime import AdvantageSettings
    from openrlhf_mtp.training.advantage_weights import advantages_of, step_weights

    mask = torch.ones(3, 4, dtype=torch.bool)
    collected = Experience(
        sequences=torch.zeros(3, 5, dtype=torch.long),
        action_mask=mask,
        advantages=torch.tensor([[0.4], [-1.0], [2.0]]) * mask,
        info={"group_reward_std": torch.tensor([0.0, 0.5, 0.5])},
    )
    handed_out = make_experience_batch(split_experience_batch(collected))
    found = []
    for batch in (collected, handed_out):
        settings = AdvantageSettings(weighting="positive")
        weights = step_weights(settings, [batch], lambda one: one.action_mask.sum(1))
        found.append(weights(advantages_of(batch)).tolist())
    return found


def engine_configurations() -> dict[int, dict[str, Any]]:
    """The head's DeepSpeed configuration for a policy at each ZeRO stage."""
    from types import SimpleNamespace

    from openrlhf.utils.deepspeed import DeepspeedStrategy

    from openrlhf_mtp.config.settings.pretrain import HeadOptim
    from openrlhf_mtp.training.head_engine import head_ds_config

    args = SimpleNamespace(ds=SimpleNamespace(param_dtype="bf16"), train=SimpleNamespace())
    optim = HeadOptim(lr=0.5, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.25, max_norm=3.0)
    return {
        stage: head_ds_config(DeepspeedStrategy(zero_stage=stage, args=args), optim, elements=12_345)
        for stage in (0, 1, 2, 3)
    }


def pre_rl_metrics() -> list[dict[str, float]]:
    """What a head's trainer reports on a pre-RL batch, and on the same batch when it makes the targets itself."""
    from dataclasses import replace
    from types import SimpleNamespace

    import torch

    from openrlhf_mtp.training.pretrain.responses import Response
    from openrlhf_mtp.training.pretrain.worker import HeadPretrainWorker
    from tests.unit.heads.tiny import WIDTH
    from tests.unit.training.test_head_trainer import trainer

    states = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(5))
    worker = object.__new__(HeadPretrainWorker)
    worker.policy = SimpleNamespace(
        device=torch.device("cpu"), spares_all=lambda *, here: here, states=lambda batch: (states, states)
    )
    worker.head_trainer, worker.pad_token_id = trainer(), 0
    batch = worker._head_batch(
        [Response(0, (1, 2, 3), (4, 5, 6, 7, 8)), Response(1, (3, 1), tuple(range(10)))]
    )
    assert batch.targets is not None
    found = []
    for each in (batch, replace(batch, targets=None)):
        own = trainer()
        own.accumulate(each, 1.0)
        row = own.drain()
        del row["time/mtp_s"]
        found.append(row)
    return found


def texts_of_training() -> list[str]:
    """What the line of progress shows as each of the first two micro-batches begins, right after one another."""
    import tempfile
    from pathlib import Path

    import torch.distributed as dist

    from openrlhf_mtp.runlog.activity import activity, read_activities
    from openrlhf_mtp.training.policy_trainer import PolicyTrainer

    class Buffer(list[int]):
        sample_batch_size = 2

    dist.get_rank = lambda: 0  # in a process of its own
    out, texts = Path(tempfile.mkdtemp()), []
    trainer = object.__new__(PolicyTrainer)
    trainer.replay_buffer, trainer.max_epochs, trainer._count = Buffer(range(8)), 2, None
    with activity(out, "training") as trainer._now:
        for _ in range(2):
            trainer._tell()
            texts.append(read_activities(out))
    return [*texts, read_activities(out)]


def compute() -> dict[str, Any]:
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    parts = (
        observed_states,
        gaps,
        learning_rates,
        weights_after_the_replay_buffer,
        pre_rl_metrics,
        engine_configurations,
        texts_of_training,
    )
    return {f.__name__: f() for f in parts}


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    return in_fresh_process(compute)


def test_packed_hidden_states_return_to_their_rows_with_their_graph(
    computed,
):
    hidden, logits, gradient, is_padded_left_alone = computed["observed_states"]
    assert hidden == [[0.0, 0.0, 1.0, 2.0], [3.0, 4.0, 5.0, 0.0]]
    assert logits == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert gradient == [1.0] * 5
    assert is_padded_left_alone


def test_the_logprob_gap_is_over_action_tokens_of_all_experiences(computed):
    both, none, half, unasked = computed["gaps"]
    gap, largest, share = "spec/logprob_gap", "spec/logprob_gap_max", "spec/logprob_share"
    tail = "spec/logprob_gap_tail"
    assert both == {
        gap: pytest.approx(0.5),
        largest: pytest.approx(1.0),
        tail: pytest.approx(2 / 3),
        share: 1.0,
    }
    assert none == {}
    assert half == {gap: pytest.approx(0.25), largest: pytest.approx(0.5), tail: 0.5, share: 0.5}
    assert unasked == {share: 0.0}, "no gap is reported where none was measured"


def test_the_learning_rate_warms_up_from_its_first_step_and_stays(computed):
    assert computed["learning_rates"] == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]


def test_a_batch_from_the_replay_buffer_is_weighted_as_it_was_collected(computed):
    collected, handed_out = computed["weights_after_the_replay_buffer"]
    assert handed_out == pytest.approx(collected)
    assert collected == pytest.approx([1.0, 0.0, 2.0])


def test_targets_before_rl_are_the_policy_at_the_rollouts_temperature(computed):
    """The trainer's own targets are compared with float64 at temperature 0.7 in its unit tests."""
    before_rl, own = computed["pre_rl_metrics"]
    assert own["mtp/anchors"] > 0
    assert before_rl == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_heads_engine_has_its_own_optimizer_and_clipping(computed, stage):
    config = computed["engine_configurations"][stage]
    adam = config["optimizer"]["params"]
    assert {**adam, "betas": tuple(adam["betas"])}.items() >= {
        "lr": 0.5,
        "betas": (0.8, 0.9),
        "eps": 1e-6,
        "weight_decay": 0.25,
    }.items()
    assert math.isclose(config["gradient_clipping"], 3.0)
    assert config["zero_optimization"]["reduce_bucket_size"] == 12_345


def test_the_head_is_never_sharded_even_when_the_policy_is(computed):
    stages = {
        at: config["zero_optimization"]["stage"] for at, config in computed["engine_configurations"].items()
    }
    assert stages == {0: 0, 1: 1, 2: 2, 3: 2}


def test_training_is_shown_from_its_first_micro_batch(computed):
    """Which can take a minute; later texts come no oftener than every two seconds, and none stays at the end."""
    first, second, ended = computed["texts_of_training"]
    assert first.startswith("training 0/8 micro-batches")
    assert second == first
    assert ended == ""
