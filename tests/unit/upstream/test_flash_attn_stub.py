"""The stand-ins for flash-attn's padding helpers do what flash-attn documents: unpad and pad are inverse."""

import importlib.util
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.upstream import cpu_host

STUB = cpu_host._flash_attn_stub()
PADDING = STUB["flash_attn.bert_padding"]

masks = st.integers(1, 6).flatmap(
    lambda length: st.lists(
        st.lists(st.booleans(), min_size=length, max_size=length).filter(any), min_size=1, max_size=4
    )
)


@given(masks)
def test_unpad_then_pad_gives_the_tokens_back_and_zero_elsewhere(mask_rows):
    mask = torch.tensor(mask_rows)
    values = torch.arange(1.0, mask.numel() * 2 + 1).view(*mask.shape, 2)
    flat, indices, offsets, longest, lengths = PADDING.unpad_input(values, mask)
    assert torch.equal(flat, values[mask])
    assert lengths.tolist() == mask.sum(-1).tolist()
    assert longest == max(lengths.tolist())
    assert offsets.dtype == torch.int32, "flash-attn's kernels take int32 offsets"
    assert offsets.tolist() == [0, *torch.cumsum(lengths, 0).tolist()]
    padded = PADDING.pad_input(flat, indices, *mask.shape)
    assert torch.equal(padded, values * mask[..., None])


def test_gradients_flow_through_both():
    mask = torch.tensor([[True, False, True]])
    values = torch.randn(1, 3, 2, requires_grad=True)
    flat, indices, *_ = PADDING.unpad_input(values, mask)
    PADDING.pad_input(flat * 3, indices, 1, 3).sum().backward()
    assert torch.equal(values.grad, 3 * mask[..., None].expand(1, 3, 2).float())


def test_tokens_are_taken_by_index():
    values = torch.tensor([[1.0], [2.0], [3.0]])
    assert PADDING.index_first_axis(values, torch.tensor([2, 0])).tolist() == [[3.0], [1.0]]


def test_the_stub_is_gone_after_the_import_that_needs_it():
    """A lasting stub makes transformers and vLLM believe that flash-attn is there."""
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash-attn is installed, so nothing is stubbed")
    hide = cpu_host._show_flash_attn_stub()
    assert set(STUB) <= set(sys.modules)
    hide()
    assert not set(STUB) & set(sys.modules)
