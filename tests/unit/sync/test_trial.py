"""A layer that cannot be read back: what its trial finds, with a kernel of each rounding habit in vLLM's place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from openrlhf_mtp.config.machine.precision import dtype_name
from openrlhf_mtp.sync.manifest import TensorSpec
from openrlhf_mtp.sync.packed_experts import PackedExperts
from openrlhf_mtp.sync.readback import Probe
from openrlhf_mtp.sync.trial import CUT, NEAREST, Rounding, Trials

EXPERTS, HIDDEN, WIDTH = 4, 64, 32
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
ALL, SOME = Probe(columns=None, seed=1), Probe(columns=8, seed=1)


class Kernel:
    """vLLM's `RoutedExperts` as far as a trial goes: sums in float32, and one of the two habits when it stores.

    Args:
        tensors: that it computes with, by name, whole.
        cuts: towards zero.
        routes: it takes router logits, not experts and weights.
        shard: this worker's number, and how many there are.
    """

    global_num_experts, top_k = EXPERTS, 2

    def __init__(
        self,
        tensors: dict[str, Tensor],
        *,
        cuts: bool = False,
        routes: bool = True,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        rank, workers = shard
        self.gate_up, self.w2_weight = tensors[GATE_UP].clone(), tensors[DOWN].clone()
        self.w13_weight = self.gate_up
        self.params_dtype = self.gate_up.dtype
        self.rounding = CUT if cuts else NEAREST
        self.quant_method = SimpleNamespace(is_monolithic=routes, topk_indices_dtype=None)
        self.moe_config = SimpleNamespace(intermediate_size=WIDTH, tp_size=workers, tp_rank=rank)
        self.own = slice(rank * WIDTH // workers, (rank + 1) * WIDTH // workers)

    def forward_monolithic(self, x: Tensor, router_logits: Tensor) -> Tensor:
        weights, ids = router_logits.softmax(-1).topk(self.top_k)
        return self.forward_modular(x, weights, ids)

    def forward_modular(self, x: Tensor, topk_weights: Tensor, topk_ids: Tensor) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.float32)
        for expert in topk_ids.unique().tolist():
            gate, up = (x.float() @ half[self.own].float().t() for half in self.gate_up[expert].chunk(2))
            hidden = self.store(up * (gate / (1 + (-gate).exp()))).float()
            weight = (topk_weights * (topk_ids == expert)).sum(-1, keepdim=True)
            total += weight * (hidden @ self.w2_weight[expert][:, self.own].float().t())
        return self.store(total)

    def store(self, values: Tensor) -> Tensor:
        return self.rounding.of(values, self.params_dtype).to(self.params_dtype)


def some_tensors(dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {GATE_UP: (EXPERTS, 2 * WIDTH, HIDDEN), DOWN: (EXPERTS, HIDDEN, WIDTH)}
    return {name: (0.1 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def packed(kernel: Any, dtype: torch.dtype) -> PackedExperts:
    specs = [
        TensorSpec(name, tuple(tensor.shape), dtype_name(dtype))
        for name, tensor in some_tensors(dtype).items()
    ]
    slices = tuple(SimpleNamespace(spec=spec, copies=1) for spec in specs)
    layer: Any = SimpleNamespace(path="mlp.experts.routed_experts", module=kernel, slices=slices)
    return PackedExperts(layer)


def tried(kernel: Any, tensors: dict[str, Tensor], probe: Probe = ALL) -> Trials:
    """A round in which these tensors arrived."""
    trials = Trials([packed(kernel, tensors[DOWN].dtype)], probe)
    for name, tensor in tensors.items():
        trials.try_loaded()
        trials.receive(name, tensor)
    trials.try_loaded()
    return trials


CASES = [
    (torch.float32, False),
    (torch.bfloat16, False),
    (torch.bfloat16, True),
    (torch.float16, False),
]


@pytest.mark.parametrize(("dtype", "cuts"), CASES)
@pytest.mark.parametrize("routes", [True, False])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_a_healthy_layer_passes_whatever_its_type_habit_router_and_shard(dtype, cuts, routes, shard):
    tensors = some_tensors(dtype)
    trials = tried(Kernel(tensors, cuts=cuts, routes=routes, shard=shard), tensors, SOME)
    rows = trials.finish()
    assert trials.problems == []
    assert rows == [
        [name, "mlp.experts.routed_experts", 1, SOME.expected(tensor)] for name, tensor in tensors.items()
    ]


def missed(tensors: dict[str, Tensor]) -> None:
    tensors[DOWN][2] = torch.randn(HIDDEN, WIDTH)


def permuted(tensors: dict[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor[[1, 3]] = tensor[[3, 1]]


def halves_exchanged(tensors: dict[str, Tensor]) -> None:
    tensors[GATE_UP].copy_(torch.cat(tensors[GATE_UP].chunk(2, 1)[::-1], 1))


def not_numbers(tensors: dict[str, Tensor]) -> None:
    tensors[DOWN][0, 0, 0] = torch.nan


def stale(tensors: dict[str, Tensor]) -> None:
    tensors.update(some_tensors(tensors[DOWN].dtype, seed=1))


@pytest.mark.parametrize(("dtype", "cuts"), CASES)
@pytest.mark.parametrize(
    ("fault", "experts"),
    [
        (missed, "2"),
        (permuted, "1, 3"),
        (halves_exchanged, "0, 1, 2, 3"),
        (not_numbers, "0"),
        (stale, "0, 1, 2, 3"),
    ],
)
def test_what_does_not_compute_with_what_arrived_is_named_by_expert(dtype, cuts, fault, experts):
    tensors = some_tensors(dtype)
    wrong = {name: tensor.clone() for name, tensor in tensors.items()}
    fault(wrong)
    (problem,) = tried(Kernel(wrong, cuts=cuts), tensors, SOME).problems
    assert problem.startswith(f"mlp.experts.routed_experts: expert {experts}: not what arrived, off by ")


def one_unit_more(tensor: Tensor, at: tuple[int, ...]) -> None:
    """Change one element of a bfloat16 tensor by a unit of its last place."""
    bits = tensor.view(torch.int16)
    bits[at] += 1


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("name", [GATE_UP, DOWN])
def test_one_element_that_differs_by_one_unit_is_found(name, cuts):
    """In bfloat16, in the largest element of an expert: the smallest ones drown in what rounding explains."""
    tensors = some_tensors(torch.bfloat16)
    wrong = {name: tensor.clone() for name, tensor in tensors.items()}
    largest = divmod(int(tensors[name][1].abs().argmax()), tensors[name].shape[-1])
    one_unit_more(wrong[name], (1, *largest))
    (problem,) = tried(Kernel(wrong, cuts=cuts), tensors).problems
    assert "expert 1: not what arrived" in problem


def test_a_layer_that_changes_after_it_was_loaded_is_found_at_the_end() -> None:
    tensors = some_tensors(torch.float32)
    kernel = Kernel(tensors)
    trials = tried(kernel, tensors)
    kernel.w2_weight[3, 0, 0] += 1e-6
    rows = trials.finish()
    assert trials.problems == [
        "mlp.experts.routed_experts: changed between its loading and the end of the round"
    ]
    assert len(rows) == 2


def test_a_layer_waits_until_it_is_loaded_and_keeps_no_tensor_afterwards() -> None:
    tensors = some_tensors(torch.float32)
    kernel = Kernel(tensors)
    weight, kernel.w13_weight = kernel.w13_weight, kernel.w13_weight.to("meta")
    trials = tried(kernel, tensors)
    assert trials._received == [], "it has no weights yet"
    kernel.w13_weight = weight
    trials.finish()
    assert {row[0] for row in trials._received} == set(tensors)
    assert trials._held == {"mlp.experts.routed_experts": {}}


def test_a_layer_whose_tensors_did_not_all_arrive_has_no_rows() -> None:
    tensors = some_tensors(torch.float32)
    trials = Trials([packed(Kernel(tensors), torch.float32)], ALL)
    trials.receive(DOWN, tensors[DOWN])
    trials.receive("model.norm.weight", torch.ones(HIDDEN))
    assert trials.finish() == []


def test_cutting_keeps_the_upper_bits_and_nearest_rounds() -> None:
    values = torch.tensor([1.0 + 2**-8, 1.0 + 3 * 2**-9, -1.0 - 3 * 2**-9], dtype=torch.float64)
    assert Rounding(cuts=True).of(values, torch.bfloat16).tolist() == [1.0, 1.0, -1.0]
    assert Rounding(cuts=False).of(values, torch.bfloat16).tolist() == [1.0, 1.0 + 2**-7, -1.0 - 2**-7]
    assert Rounding(cuts=True).of(values, torch.float32).tolist() == values.tolist()
