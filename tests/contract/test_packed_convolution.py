"""vLLM's CPU kernel of linear attention's convolution gives its packed weights back, and so a stale one shows."""

from __future__ import annotations

import pytest

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402  (after vLLM, which sets up its platform first)
from torch import nn  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from openrlhf_mtp.sync.convolution import PLAIN, is_packed, taps  # noqa: E402
from openrlhf_mtp.sync.loaded_layers import LoadedLayer, Slice  # noqa: E402
from openrlhf_mtp.sync.manifest import TensorSpec  # noqa: E402
from openrlhf_mtp.sync.readback import Probe  # noqa: E402

pytestmark = pytest.mark.skipif(
    not current_platform.is_cpu() or not torch.cpu._is_avx512_bf16_supported(),
    reason="this CPU build packs no convolutions",
)
CHANNELS, WIDTH = 128, 4


def convolution(plain: torch.Tensor, packs: torch.Tensor | None = None) -> nn.Module:
    """The layer as vLLM leaves it after loading `plain`, or with another weight packed."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    layer = nn.Module()
    weight = (plain if packs is None else packs).clone().unsqueeze(1)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    assert is_packed(layer)
    setattr(layer, PLAIN, plain)
    return layer


def read(layer: nn.Module) -> list[int]:
    """Digests of the packed weight and of its plain copy."""
    spec = TensorSpec("conv1d.weight", (CHANNELS, 1, WIDTH), "bfloat16")
    whole = (Slice(spec, 0, CHANNELS, 0, 1),)
    layers = [
        LoadedLayer("conv1d", layer, "convolution", "weight", whole, 0, WIDTH),
        LoadedLayer("conv1d", layer, "table", PLAIN, whole, 0, WIDTH),
    ]
    return [row[-1] for row in Probe(None, 0).read(layers)]


@pytest.mark.parametrize("channels", [32, 128, 2048])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_an_impulse_gives_the_weights_back_bit_for_bit(channels: int, size: float) -> None:
    plain = (size * torch.randn(channels, WIDTH)).bfloat16()
    layer = convolution(plain)
    assert not torch.equal(layer.weight.flatten(), plain.flatten()), "it is really packed"
    assert torch.equal(taps(layer), plain)


def test_what_is_read_back_is_what_the_trainer_expects_of_its_own_shape() -> None:
    plain = torch.randn(CHANNELS, WIDTH).bfloat16()
    assert read(convolution(plain)) == [Probe(None, 0).expected(plain.unsqueeze(1))] * 2


def test_one_element_of_a_stale_packed_weight_shows_and_so_does_one_of_the_plain_copy() -> None:
    plain = torch.randn(CHANNELS, WIDTH).bfloat16()
    expected = Probe(None, 0).expected(plain.unsqueeze(1))
    for channel, tap in ((0, 0), (CHANNELS - 1, WIDTH - 1), (37, 2)):
        older = plain.clone()
        older.view(torch.int16)[channel, tap] += 1  # a unit of the last place
        packed, copy = read(convolution(plain, packs=older))
        assert (packed == expected, copy == expected) == (False, True)
        packed, copy = read(convolution(older, packs=plain))
        assert (packed == expected, copy == expected) == (True, False)
