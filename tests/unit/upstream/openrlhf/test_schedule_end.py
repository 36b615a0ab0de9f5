"""A learning-rate schedule does not rise again after its end."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from openrlhf_mtp.upstream.openrlhf.schedule_end import PATCH, held_at


class Module:
    """Stands for OpenRLHF's module: a cosine that, like that of transformers, knows no end."""

    @staticmethod
    def get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=None):
        return LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / num_training_steps)))


def rates(module, planned, taken):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = module.get_scheduler("cosine", optimizer, num_training_steps=planned)
    found = []
    for _ in range(taken):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_the_patched_schedule_is_the_same_up_to_its_end_and_stays_there():
    module = type("Patched", (Module,), {})
    before = rates(Module, planned=4, taken=7)
    assert before[6] > before[4], "what the patch is for"
    PATCH.apply(module)
    assert PATCH.probe(module)
    after = rates(module, planned=4, taken=7)
    assert after[:5] == before[:5]
    assert after[5:] == [after[4]] * 2


@given(st.integers(0, 50), st.integers(0, 100))
def test_a_held_schedule_is_the_schedule_of_a_bounded_step(last, step):
    assert held_at(last, lambda at: float(at))(step) == min(step, last)
