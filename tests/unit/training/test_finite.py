"""NaN runs exit with code 0 on this stack; `require_finite` is what stops them."""

import math

import pytest
import torch

from openrlhf_mtp.training.finite import NonFiniteError, require_finite


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (math.nan, "policy/loss = nan"),
        (-math.inf, "policy/loss = -inf"),
        (torch.tensor([[1.0, math.nan], [math.inf, 0.0]]), r"2 of 4 values in a tensor of shape \[2, 2\]"),
        (torch.tensor(math.nan, dtype=torch.bfloat16), r"1 of 1 values in a tensor of shape \[\]"),
    ],
    ids=["nan", "minus infinity", "tensor", "bfloat16 scalar"],
)
def test_a_bad_value_stops_the_run_naming_step_place_and_value(bad, said):
    with pytest.raises(NonFiniteError, match=f"step 12, training: .*{said}"):
        require_finite({"policy/kl": 0.0, "policy/loss": bad}, step=12, where="training")


def test_every_bad_name_is_listed_and_no_good_one():
    values = {"a": math.nan, "b": 1.0, "c": torch.tensor([math.inf])}
    with pytest.raises(NonFiniteError) as error:
        require_finite(values, step=1, where="metrics")
    message = str(error.value)
    assert "a = nan" in message
    assert "c = 1 of 1" in message
    assert "b = " not in message


def test_finite_numbers_and_values_that_are_no_numbers_pass():
    require_finite(
        {
            "float": 1e30,
            "int": 3,
            "text": "nan",
            "none": None,
            "ids": torch.tensor([1, 2]),
            "empty": torch.tensor([]),
        },
        step=1,
        where="metrics",
    )
