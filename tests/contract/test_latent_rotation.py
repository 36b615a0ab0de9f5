"""vLLM's rotary operator on a CPU, as latent attention (DeepSeek-V3) calls it: with a query of three dimensions.

It counts the heads of such a query as one, and turns the first rows alone, at wrong positions. Engines with
`enforce_eager` run it, so that stock vLLM computes another model there;
`compilation_config={"custom_ops": ["all", "-rotary_embedding"]}` takes the plain form. When this test fails, vLLM has
repaired it, and `tests/engine/test_native_heads.py` needs that setting no more.
"""

from __future__ import annotations

import inspect

import pytest

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402  (after vLLM, which sets up its platform first)
from vllm.platforms import current_platform  # noqa: E402

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the CPU build's operator")

TOKENS, HEADS, WIDTH = 5, 4, 64


@pytest.mark.parametrize("heads", [1, HEADS])
def test_the_cpu_operator_turns_one_head_of_a_latent_query(heads):
    from vllm.config import VllmConfig, set_current_vllm_config

    with set_current_vllm_config(VllmConfig()):
        from vllm.model_executor.layers.rotary_embedding import get_rope

        rope = get_rope(
            WIDTH,
            max_position=128,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            is_neox_style=False,
        )
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(TOKENS, heads, WIDTH, generator=generator)
    key = torch.randn(TOKENS, 1, WIDTH, generator=generator)
    positions = torch.arange(TOKENS)
    expected, _ = rope.forward_native(positions, query.clone(), key.clone())
    stock = inspect.unwrap(type(rope).forward_cpu)  # our patch may be live in this process
    found, _ = stock(rope, positions, query.clone(), key.clone())
    assert torch.allclose(found, expected, atol=1e-5) == (heads == 1)
