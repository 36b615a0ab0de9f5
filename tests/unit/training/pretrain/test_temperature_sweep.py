"""A point of the temperature sweep: the figures that the trainer logs, at another temperature and by response."""

import math

import numpy as np
import pytest
import torch

from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.training.pretrain.temperature_sweep import length_of, measure, responses_at
from tests.unit.training.test_head_trainer import TEMPERATURE, random_batch, some_rows, trainer


@pytest.mark.parametrize("temperature", [TEMPERATURE, 1.3])
def test_a_point_is_what_a_trainer_at_that_temperature_measures(temperature):
    batch = random_batch()
    point = measure(trainer(), [some_rows(batch, slice(n, n + 2)) for n in (0, 2)], temperature)
    own = trainer()
    own.temperature = temperature
    own.accumulate(batch, 1.0)
    row = own.drain()
    reach = [row[f"mtp/reach/depth_{j}"] for j in range(1, own.depths + 1)]
    assert point.entropy == pytest.approx(row["mtp/entropy"], rel=1e-5)
    assert point.length == pytest.approx(1.0 + sum(reach), rel=1e-5)
    assert (point.temperature, point.responses) == (temperature, 4)


def test_a_point_follows_the_engines_verification():
    batch = random_batch()
    rows = [some_rows(batch, slice(n, n + 2)) for n in (0, 2)]
    standard, block = (measure(trainer(verifies_blocks=way), rows, TEMPERATURE) for way in (False, True))
    assert block.length > standard.length
    assert (block.entropy, block.responses) == (standard.entropy, standard.responses)


def test_a_responses_drafts_are_those_of_a_walk_from_its_first_anchor():
    own, batch = trainer(), random_batch()
    with torch.no_grad():
        output = own.loss(batch)
    accept = (output.records.log_q - output.records.log_p).double().exp().clamp(max=1.0)
    accept = accept.masked_fill(~output.anchors.mask, 0.0).numpy()
    row = output.anchors.row.numpy()
    for number, (drafts, accepted) in enumerate(own.replay(output).responses.tolist()):
        mine = accept[row == number]
        visited = np.zeros(len(mine) + own.depths + 2)
        visited[0], expected = 1.0, 0.0
        for at, chances in enumerate(mine):
            through = np.cumprod(chances)
            expected += visited[at] * through.sum()
            ended = -np.diff(np.concatenate([[1.0], through, [0.0]]))
            for taken, chance in enumerate(ended):
                visited[at + taken + 1] += visited[at] * chance
        assert drafts == pytest.approx(visited[: len(mine)].sum())
        assert accepted == pytest.approx(expected)


def test_the_error_of_a_length_is_that_of_a_ratio_over_responses():
    rng, share = np.random.default_rng(0), []
    for _ in range(400):
        tried = rng.integers(5, 15, 40).astype(float)
        own = rng.binomial(tried.astype(int), rng.beta(6, 4, 40)).astype(float)
        share.append(length_of(list(zip(tried.tolist(), own.tolist(), strict=True))))
    lengths, errors = np.array(share).T
    assert errors.mean() == pytest.approx(lengths.std(ddof=1), rel=0.1)
    assert length_of([(2.0, 3.0)]) == (2.5, math.inf)


def test_too_few_responses_make_no_point():
    batch = random_batch()
    assert measure(trainer(), [some_rows(batch, slice(0, 1))], 1.0) is None
    assert measure(trainer(), [], 1.0) is None


@pytest.mark.parametrize(
    ("factors", "own", "temperatures"),
    [((0.8, 1.2), 1.0, [0.8, 1.2]), ((1.0, 2.0, 2.0), 0.5, [1.0]), ((), 1.0, [])],
)
def test_factors_are_of_the_stages_own_temperature(factors, own, temperatures, tmp_path):
    settings = PretrainSettings(temperature_sweep=factors)
    assert settings.swept_temperatures(own) == temperatures
    assert responses_at(tmp_path, 0.8).name == "temperature_0.8"


def test_a_factor_that_is_no_temperature_is_refused():
    with pytest.raises(ValueError, match=r"temperature_sweep: got \[0.0\], expected positive factors"):
        PretrainSettings(temperature_sweep=(0.0,))
    with pytest.raises(ValueError, match="a list of numbers"):
        PretrainSettings(temperature_sweep=(True,))
