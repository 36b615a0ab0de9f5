"""Packed buckets: many tensors of any dtype in one flat uint8 buffer, so that a round is a few large broadcasts.

    | tensor 0 | pad to 64 | tensor 1 | pad | ... | checksum 0 | checksum 1 | ... |

Both sides compute the same buckets from the manifest. The checksums travel in the bucket itself: the trainer can pack
bucket by bucket (gathering sharded parameters as it goes) and still the receiver can name the tensor that was damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openrlhf_mtp.sync.digest import checksum
from openrlhf_mtp.sync.manifest import TensorSpec

ALIGNMENT = 64  # bytes: a multiple of every item size and of the 8-byte words of a checksum
WORD = 8


@dataclass(frozen=True)
class Slot:
    """The place of one tensor in its bucket (bytes)."""

    spec: TensorSpec
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.spec.nbytes

    @property
    def padded_end(self) -> int:
        return _align(self.end)


@dataclass(frozen=True)
class Bucket:
    """Slots in travelling order, then one 8-byte checksum per slot."""

    slots: tuple[Slot, ...]

    @property
    def payload(self) -> int:
        return self.slots[-1].padded_end

    @property
    def size(self) -> int:
        return self.payload + WORD * len(self.slots)


def _align(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def pack_into_buckets(specs: Iterable[TensorSpec], bucket_bytes: int) -> list[Bucket]:
    """Fill buckets in the given order, up to `bucket_bytes` each; a tensor larger than that travels alone.

    Raises:
        ValueError: `bucket_bytes` is not positive.
    """
    if bucket_bytes <= 0:
        raise ValueError(f"bucket size must be positive, got {bucket_bytes} bytes")
    buckets: list[Bucket] = []
    slots: list[Slot] = []
    for spec in specs:
        offset = slots[-1].padded_end if slots else 0
        if slots and _align(offset + spec.nbytes) + WORD * (len(slots) + 1) > bucket_bytes:
            buckets.append(Bucket(tuple(slots)))
            slots, offset = [], 0
        slots.append(Slot(spec, offset))
    if slots:
        buckets.append(Bucket(tuple(slots)))
    return buckets


def view(slot: Slot, buffer: Tensor) -> Tensor:
    """Return the tensor of a slot, which shares the memory of `buffer` [size] uint8."""
    return buffer[slot.offset : slot.end].view(getattr(torch, slot.spec.dtype)).view(slot.spec.shape)


def pack(bucket: Bucket, tensors: Iterator[tuple[str, Tensor]], buffer: Tensor) -> None:
    """Take the bucket's tensors off the iterator, cast and copy them into `buffer`, and seal it with checksums.

    Args:
        bucket: the slots to fill.
        tensors: (name, full tensor) in the manifest's order.
        buffer: [bucket.size] uint8.

    Raises:
        ValueError: the iterator does not follow the manifest (name, shape), or a tensor holds NaN or inf.
    """
    for slot in bucket.slots:
        name, tensor = next(tensors, ("nothing", None))
        if tensor is None or name != slot.spec.name or tuple(tensor.shape) != slot.spec.shape:
            got = name if tensor is None else f"{name} {list(tensor.shape)}"
            raise ValueError(
                f"the weights no longer follow their manifest: expected {slot.spec.name} {list(slot.spec.shape)},"
                f" got {got}; yield the same tensors in the same order every round"
            )
        target = view(slot, buffer)
        target.copy_(tensor.detach())
        if not _is_finite(target):
            raise ValueError(
                f"{name} holds NaN or infinite values; refusing to send it to the rollout engines"
            )
        buffer[slot.end : slot.padded_end] = 0
    _checksums(bucket, buffer).copy_(_sums(bucket, buffer))


def damaged(bucket: Bucket, buffer: Tensor) -> list[str]:
    """Name the tensors whose bits differ from what `pack` sealed."""
    bad = _checksums(bucket, buffer) != _sums(bucket, buffer)
    return [slot.spec.name for slot, is_bad in zip(bucket.slots, bad.tolist(), strict=True) if is_bad]


def unpack(bucket: Bucket, buffer: Tensor) -> list[tuple[str, Tensor]]:
    """List (name, view) of every tensor; the views keep `buffer` alive, so never receive into it again."""
    return [(slot.spec.name, view(slot, buffer)) for slot in bucket.slots]


def _is_finite(tensor: Tensor) -> bool:
    """Smallest and largest value tell (NaN propagates), forty times faster on CPU than `isfinite` of each."""
    return tensor.numel() == 0 or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _checksums(bucket: Bucket, buffer: Tensor) -> Tensor:
    return buffer[bucket.payload : bucket.size].view(torch.int64)


def _sums(bucket: Bucket, buffer: Tensor) -> Tensor:
    words = buffer[: bucket.payload].view(torch.int64)
    return torch.stack([checksum(words[s.offset // WORD : s.padded_end // WORD]) for s in bucket.slots])
