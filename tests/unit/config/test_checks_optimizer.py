"""Muon and the moving average: what ends in a worker is refused, what DeepSpeed ignores is a warning."""

import pytest

MUON = ("actor.optim=muon", "actor.max_norm=0")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["ds.zero_stage=3"],
            "error: actor.optim: got muon with ds.zero_stage 3, expected adam there",
        ),
        (
            ["ds.adam_offload=true"],
            "error: actor.optim: got muon with ds.adam_offload, expected adam with it",
        ),
        (
            ["actor.max_norm=1.0"],
            "warning: actor.max_norm: got 1.0, expected 0 with actor.optim muon",
        ),
        (["actor.muon.ns_steps=4"], "warning: actor.muon.ns_steps: got 4, expected 5"),
        (["actor.muon.nesterov=false"], "warning: actor.muon.nesterov: got false, expected true"),
    ],
)
def test_muon_is_refused_or_corrected_where_deepspeed_would_not_say_it_in_time(problems, overrides, expected):
    found = problems(*MUON, *overrides, gpus=8)
    assert [text[: len(expected)] for text in found] == [expected]


def test_muon_without_clipping_is_no_problem(problems):
    assert problems(*MUON, gpus=8) == []


def test_a_critics_optimizer_is_looked_at_where_there_is_a_critic(problems):
    muon = ("critic.optim=muon", "critic.num_gpus_per_node=1", "ds.zero_stage=2")
    assert not [text for text in problems(*muon, gpus=8) if "critic.max_norm" in text]
    found = problems(*muon, "algo.advantage.estimator=gae", gpus=8)
    assert [text for text in found if text.startswith("warning: critic.max_norm: got")]


def test_an_average_of_adapters_is_refused(problems):
    assert problems("train.enable_ema=true", gpus=8) == []
    found = problems("train.enable_ema=true", "ds.lora.rank=8", gpus=8)
    assert [text.split(": ")[:2] for text in found] == [["error", "train.enable_ema"]]


def test_an_average_of_a_policy_that_no_rank_has_whole_is_refused(problems):
    split = ("mtp=null", "ds.tensor_parallel_size=2", "actor.num_gpus_per_node=2")
    assert not [text for text in problems(*split, gpus=8) if "enable_ema" in text]
    found = problems("train.enable_ema=true", *split, gpus=8)
    assert [
        text
        for text in found
        if text.startswith("error: train.enable_ema: got true with ds.tensor_parallel_size")
    ]
