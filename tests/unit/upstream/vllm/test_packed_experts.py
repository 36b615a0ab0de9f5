"""A CPU engine packs its experts at every reload, and at the first loading once, as vLLM does."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.upstream.vllm.packed_experts import PATCH


class Experts:
    """vLLM's kernel; it knows how often the layer was packed."""

    def __init__(self) -> None:
        self.packed: list[str] = []

    def process_weights_after_loading(self, layer: str) -> None:
        self.packed.append(layer)


class Method:
    """vLLM's `UnquantizedFusedMoEMethod`, which sets its kernel up once and packs there."""

    def __init__(self, backend: str) -> None:
        self.unquantized_backend, self.moe_kernel = backend, None

    def _setup_kernel(self, layer: str, w13: object, w2: object) -> None:
        if self.moe_kernel is None:
            vars(self)["moe_kernel"] = SimpleNamespace(fused_experts=Experts())
            if self.unquantized_backend == "CPU":
                vars(self)["moe_kernel"].fused_experts.process_weights_after_loading(layer)


@pytest.mark.parametrize(("backend", "packed"), [("CPU", ["layer"] * 3), ("TRITON", [])])
def test_experts_are_packed_at_each_loading_on_a_cpu(backend: str, packed: list[str]) -> None:
    methods: Any = ModuleType(PATCH.target)
    methods.UnquantizedMoeBackend = SimpleNamespace(CPU="CPU")
    methods.UnquantizedFusedMoEMethod = type("UnquantizedFusedMoEMethod", (Method,), dict(vars(Method)))
    assert not PATCH.probe(methods)
    PATCH.apply(methods)
    assert PATCH.probe(methods)
    method = methods.UnquantizedFusedMoEMethod(backend)
    for _ in range(3):
        method._setup_kernel("layer", w13=None, w2=None)
    assert method.moe_kernel.fused_experts.packed == packed
