"""Statistics per row, and their gradient: the torch kernels against float64 autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openrlhf_mtp.losses.kernels.rows import RowGradients, Shard
from tests.processes import on_ranks
from tests.unit.losses.row_cases import Case, cases, check, computed

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_scalars_and_gradient_equal_the_formulas_in_float64(name: str) -> None:
    check(CASES[name], computed(CASES[name]))


def test_a_tie_counts_as_accepted() -> None:
    # p and q agree at token 0; a gradient through torch.minimum would give half of it to p
    target = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64)
    draft, zero = target[:, [0, 2, 1]].clone(), torch.zeros(1, dtype=torch.long)
    p, q = target.softmax(-1)[0], draft.softmax(-1)[0]
    assert p[0] == q[0]
    found = computed(Case(draft, target, zero, zero, RowGradients(alpha=torch.ones(1, dtype=torch.float64))))
    overlap_mass = q[0] + q[1]
    torch.testing.assert_close(found["overlap_mass"][0], overlap_mass)
    torch.testing.assert_close(found["gradient"][0], q * (torch.tensor([1.0, 1.0, 0.0]) - overlap_mass))


def test_a_logit_that_is_not_a_number_stays_visible() -> None:
    case = CASES["only alpha"]
    broken = replace(case, draft=case.draft.clone())
    broken.draft[3, 40] = torch.nan
    found = computed(broken)
    assert found["alpha"].isnan().tolist() == [False, False, False, True, False]
    assert found["gradient"][3].isnan().all()


SPLIT = ("float64, 7 columns", "tokens banned in the target", "one-hot draft")


def _own_part() -> dict[str, dict[str, np.ndarray]]:
    """This rank's columns of each case: a third for the first, the rest for the second."""
    torch.distributed.init_process_group("gloo")
    found = {}
    for name in SPLIT:
        case = cases()[name]
        cut = case.draft.shape[1] // 3
        own = slice(0, cut) if torch.distributed.get_rank() == 0 else slice(cut, None)
        part = replace(case, draft=case.draft[:, own], target=case.target[:, own])
        shard = Shard(own.start, torch.distributed.group.WORLD)
        found[name] = {field: value.numpy() for field, value in computed(part, shard).items()}
    torch.distributed.destroy_process_group()
    return found


def test_a_vocabulary_split_over_two_ranks_gives_the_numbers_of_the_whole() -> None:
    first, second = on_ranks(2, _own_part)
    for name in SPLIT:
        gradient = np.concatenate([first[name].pop("gradient"), second[name].pop("gradient")], axis=1)
        for field, value in first[name].items():
            np.testing.assert_array_equal(value, second[name][field])
        whole = {**first[name], "gradient": gradient}
        check(CASES[name], {field: torch.from_numpy(value) for field, value in whole.items()})
