"""Linear attention ends at the border of a sample in a packed row.

OpenRLHF packs samples into one row (`ds.packing_samples`) and tells transformers by positions that begin again at 0.
Attention obeys that. A gated delta net does not: its state and its convolution run on into the next sample, unless the
model is called with `cu_seq_lens_q`, and then with kernels (flash-linear-attention, causal-conv1d) alone. Without them
transformers drops that argument without a word.

Here a model finds the borders in its positions, and its linear layers compute the samples of a row as the rows of a
right-padded batch. That is exact with every kernel, because a later position does not reach an earlier one, and these
layers pay for the padding. The critic, the reference and reward models are covered, too.

Left-padded batches need nothing: transformers sets the states of padding to zero, which is what a sequence begins with
(`tests/unit/upstream/test_linear_attention.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from openrlhf_mtp.upstream.patching import Patch

if TYPE_CHECKING:
    from torch import Tensor

_BORDERS = "cu_seq_lens_q"
"""Transformers' name for the first position of each sample in a row, and the row's length at the end [samples + 1]."""

MODULES = {
    "transformers.models.qwen3_5.modeling_qwen3_5": ("Qwen3_5TextModel", "Qwen3_5GatedDeltaNet"),
    "transformers.models.qwen3_5_moe.modeling_qwen3_5_moe": (
        "Qwen3_5MoeTextModel",
        "Qwen3_5MoeGatedDeltaNet",
    ),
    "transformers.models.qwen3_next.modeling_qwen3_next": ("Qwen3NextModel", "Qwen3NextGatedDeltaNet"),
}
"""Module -> its decoder and its linear attention."""


def borders(position_ids: Tensor) -> Tensor | None:
    """Find where the samples of a packed row begin, and where it ends [samples + 1]; None of a row with one sample.

    Args:
        position_ids: of a row [1, P].

    Raises:
        ValueError: the row begins within a sample.
    """
    import torch

    (positions,) = position_ids
    starts = (positions == 0).nonzero().flatten()
    if len(starts) == 0 or int(starts[0]) != 0:
        raise ValueError(
            f"ds.ring_attn_size: got a packed row that begins at position {int(positions[0])}, expected one that "
            "begins with a sample: linear attention needs the states before it; set ds.ring_attn_size 1"
        )
    if len(starts) == 1:
        return None
    return torch.cat([starts, starts.new_tensor([len(positions)])])


def _finds_borders(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The decoder's forward pass, which tells its layers where samples begin."""

    @functools.wraps(forward)
    def with_borders(
        self: Any, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **kwargs: Any
    ) -> Any:
        is_row = attention_mask is None and position_ids is not None and position_ids.ndim == 2
        if is_row and len(position_ids) == 1 and kwargs.get("past_key_values") is None:
            kwargs.setdefault(_BORDERS, borders(position_ids))
        return forward(self, input_ids, attention_mask, position_ids, **kwargs)

    return with_borders


def _computes_apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A linear layer's forward pass, sample by sample."""

    @functools.wraps(forward)
    def of_samples(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        starts = kwargs.pop(_BORDERS, None)
        if starts is None:
            return forward(self, hidden_states, *args, **kwargs)
        lengths = starts.diff().tolist()
        batch = pad_sequence(hidden_states[0].split(lengths), batch_first=True)
        outputs = forward(self, batch, *args, **kwargs)
        return torch.cat([output[:length] for output, length in zip(outputs, lengths, strict=True)])[None]

    return of_samples


def _apply(module: ModuleType) -> None:
    decoder, layer = (getattr(module, name) for name in MODULES[module.__name__])
    decoder.forward = _finds_borders(decoder.forward)
    layer.forward = _computes_apart(layer.forward)


def _is_live(module: ModuleType) -> bool:
    decoder, layer = (getattr(module, name) for name in MODULES[module.__name__])
    return (decoder.forward.__code__.co_name, layer.forward.__code__.co_name) == (
        "with_borders",
        "of_samples",
    )


PATCHES = tuple(
    Patch(
        name=f"linear attention ends with its sample in {layer}",
        target=module,
        touches=(f"{decoder}.forward", f"{layer}.forward"),
        reason="the state and the convolution of a linear layer would run on into the next sample of a packed row",
        versions="transformers 5.15.0",
        apply=_apply,
        probe=_is_live,
    )
    for module, (decoder, layer) in MODULES.items()
)
