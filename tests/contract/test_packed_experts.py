"""vLLM's CPU kernel of experts: it is what a trial assumes, and one element that differs is found.

The kernel is vLLM's own, on random experts; no engine is needed for that.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402  (after vLLM, which sets up its platform first)
from torch import Tensor  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from tests.unit.sync.test_trial import DOWN, GATE_UP, SOME, some_tensors, tried  # noqa: E402

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the CPU build's kernel")

DRAWS = 40
"""Elements that are changed, one at a time. Seeds are fixed; a kernel that rounds otherwise finds others."""


class Experts:
    """The kernel with weights of its own, as vLLM's `RoutedExperts` runs it."""

    global_num_experts, top_k = 4, 2
    quant_method = SimpleNamespace(is_monolithic=True)
    moe_config = SimpleNamespace(intermediate_size=32, tp_size=1, tp_rank=0)

    def __init__(self, tensors: dict[str, Tensor], *, packs: bool = True) -> None:
        from vllm._custom_ops import cpu_prepack_moe_weight

        self.w13_weight, self.w2_weight = (
            cpu_prepack_moe_weight(tensors[name], "vec") if packs else tensors[name]
            for name in (GATE_UP, DOWN)
        )
        self.params_dtype = self.w13_weight.dtype

    def forward_monolithic(self, x: Tensor, router_logits: Tensor) -> Tensor:
        from vllm._custom_ops import cpu_fused_moe
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import select_experts

        weights, ids = select_experts(x, router_logits, self.top_k, use_grouped_topk=False, renormalize=True)
        return cpu_fused_moe(x, self.w13_weight, self.w2_weight, None, None, weights, ids, "silu", "vec")


def problems(computes_with: Experts, arrived: dict[str, Tensor]) -> list[str]:
    trials = tried(computes_with, arrived)
    assert len(trials.finish()) == 2
    return trials.problems


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.02, 0.1, 1.0, 10.0])
def test_healthy_experts_are_within_the_tolerance_whatever_the_size_of_their_weights(dtype, size):
    for seed in range(5):
        tensors = {name: tensor * (10 * size) for name, tensor in some_tensors(dtype, seed).items()}
        assert problems(Experts(tensors), tensors) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_reads_weights_that_were_not_packed_as_others(dtype):
    """Otherwise the patch that packs them again could go."""
    tensors = some_tensors(dtype)
    (problem,) = problems(Experts(tensors, packs=False), tensors)
    assert "expert 0, 1, 2, 3: not what arrived" in problem


def change(tensor: Tensor, relative: float | None, draw: torch.Generator) -> None:
    """One element at random, by so much of itself; None for a unit of a bfloat16's last place."""
    at = tuple(int(torch.randint(size, (1,), generator=draw)) for size in tensor.shape)
    if relative is None:
        tensor.view(torch.int16)[at] += 1
    else:
        tensor[at] *= 1 + relative


@pytest.mark.parametrize("name", [GATE_UP, DOWN])
@pytest.mark.parametrize(
    ("dtype", "relative", "least"),
    [(torch.bfloat16, None, 0.7), (torch.bfloat16, 0.03, 0.9), (torch.float32, 1e-3, 0.9)],
)
def test_one_element_that_differs_is_found(name, dtype, relative, least):
    """What is missed are small weights, whose change rounding explains."""
    found = 0
    for seed in range(DRAWS):
        arrived = some_tensors(dtype, seed)
        wrong = {name: tensor.clone() for name, tensor in arrived.items()}
        change(wrong[name], relative, torch.Generator().manual_seed(seed))
        found += bool(problems(Experts(wrong), arrived))
    assert found / DRAWS >= least


def test_sixteen_columns_see_every_stale_expert() -> None:
    arrived, old = some_tensors(torch.bfloat16), some_tensors(torch.bfloat16)
    for tensor in old.values():
        tensor.view(torch.int16).add_(1)  # a unit of the last place
    (problem,) = tried(Experts(old), arrived, SOME).problems
    assert "expert 0, 1, 2, 3: not what arrived" in problem


def test_vllms_reload_still_skips_the_packing() -> None:
    """`upstream.vllm.packed_experts` repairs this method; when vLLM packs there itself, the patch can go."""
    import ast
    import inspect
    import textwrap

    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as methods

    unpatched: Any = inspect.unwrap(methods.UnquantizedFusedMoEMethod._setup_kernel)
    body = ast.parse(textwrap.dedent(inspect.getsource(unpatched)))
    (first,) = [
        node
        for node in ast.walk(body)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "not is_weight_update"
    ]
    packing = "fused_experts.process_weights_after_loading"
    assert packing in ast.unparse(first)
    assert ast.unparse(body).count(packing) == 1


class BiasedExperts(Experts):
    """With the router of GLM-4.5 and DeepSeek-V3: sigmoid scores, groups, and a bias that decides who is chosen."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__(tensors)
        self.e_score_correction_bias = torch.nn.Parameter(torch.tensor([-5.0, 5.0, 0.0, 5.0]))

    def forward_monolithic(self, x: Tensor, router_logits: Tensor) -> Tensor:
        from vllm._custom_ops import cpu_fused_moe
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import select_experts

        weights, ids = select_experts(
            *(x, router_logits, self.top_k),
            use_grouped_topk=True,
            renormalize=True,
            topk_group=1,
            num_expert_group=2,
            scoring_func="sigmoid",
            e_score_correction_bias=self.e_score_correction_bias,
        )
        return cpu_fused_moe(x, self.w13_weight, self.w2_weight, None, None, weights, ids, "silu", "vec")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_routers_bias_keeps_no_expert_from_its_trial_and_is_as_before_afterwards(dtype):
    arrived = some_tensors(dtype)
    experts = BiasedExperts(arrived)
    bias = experts.e_score_correction_bias
    assert problems(experts, arrived) == []
    assert experts.e_score_correction_bias is bias
    arrived[DOWN][0] = torch.randn(arrived[DOWN][0].shape)
    (problem,) = problems(experts, arrived)
    assert "expert 0: not what arrived" in problem
