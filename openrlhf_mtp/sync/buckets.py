"""Packed buckets: many tensors of any dtype in one flat uint8 buffer, so that a round is a few large transfers.

    | tensor 0 | pad to 64 | rows of tensor 1 | pad | ... | checksum 0 | checksum 1 | ... |

Both sides compute the same buckets from the manifest. A tensor that is larger than a bucket is cut between rows, so no
buffer exceeds the size that both sides agreed on. The checksums travel in the bucket itself: the trainer can pack
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
    """The place of a tensor, or of some of its rows, in a bucket.

    Attributes:
        spec: the full tensor.
        offset: its first byte in the bucket.
        start, stop: rows of the full tensor that lie here.
    """

    spec: TensorSpec
    offset: int
    start: int
    stop: int

    @property
    def end(self) -> int:
        return self.offset + (self.stop - self.start) * self.spec.row_nbytes

    @property
    def padded_end(self) -> int:
        return _align(self.end)

    @property
    def is_whole(self) -> bool:
        return self.stop - self.start == self.spec.rows


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
    """Fill buckets in the given order, none larger than `bucket_bytes`.

    A tensor that does not fit the rest of a bucket begins the next one; it is cut if it is larger than a bucket.

    Raises:
        ValueError: a bucket cannot hold a row of a tensor.
    """
    if bucket_bytes <= 0:
        raise ValueError(f"bucket size must be positive, got {bucket_bytes} bytes")
    buckets: list[Bucket] = []
    slots: list[Slot] = []
    for spec in specs:
        start = 0
        while True:
            offset = slots[-1].padded_end if slots else 0
            stop = start + _rows_that_fit(spec, bucket_bytes - offset - WORD * (len(slots) + 1))
            if stop >= spec.rows:
                slots.append(Slot(spec, offset, start, spec.rows))
                break
            if not slots:
                if stop == start:
                    raise ValueError(
                        f"{spec.name}: a row of {list(spec.shape)} takes {spec.row_nbytes} bytes and a bucket has "
                        f"{bucket_bytes}; raise mtp.sync.bucket_mib"
                    )
                slots, start = [Slot(spec, 0, start, stop)], stop
            buckets.append(Bucket(tuple(slots)))
            slots = []
    if slots:
        buckets.append(Bucket(tuple(slots)))
    return buckets


def _rows_that_fit(spec: TensorSpec, room: int) -> int:
    """Rows of a tensor that fit so many bytes, padded; all rows of a tensor without elements."""
    if spec.row_nbytes == 0:
        return spec.rows
    return max(0, room) // ALIGNMENT * ALIGNMENT // spec.row_nbytes


def view(slot: Slot, buffer: Tensor) -> Tensor:
    """Return the rows of a slot [stop - start, ...], which share the memory of `buffer` [size] uint8."""
    flat = buffer[slot.offset : slot.end].view(getattr(torch, slot.spec.dtype))
    return flat.view(slot.stop - slot.start, *slot.spec.shape[1:])


class Packer:
    """Fills one model's buckets in their order, from one pass over its tensors.

    A tensor that is cut is held until its last rows are packed; the next one is asked for only then.

    Args:
        tensors: (name, full tensor) in the manifest's order.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._tensors = iter(tensors)
        self._tensor: Tensor | None = None

    def fill(self, bucket: Bucket, buffer: Tensor) -> None:
        """Cast and copy the bucket's tensors into `buffer` [bucket.size] uint8, and seal it with checksums.

        Raises:
            ValueError: the pass does not follow the manifest (name, shape), or a tensor holds NaN or inf.
        """
        finite = []
        for slot in bucket.slots:
            target = view(slot, buffer)
            target.copy_(self._rows(slot))
            finite.append(_is_finite(target))
            buffer[slot.end : slot.padded_end] = 0
        _checksums(bucket, buffer).copy_(_sums(bucket, buffer))
        good = torch.stack(finite).tolist()  # the only wait for the device
        bad = [slot.spec.name for slot, is_good in zip(bucket.slots, good, strict=True) if not is_good]
        if bad:
            raise ValueError(
                f"{bad[0]} holds NaN or infinite values; refusing to send it to the rollout engines"
            )

    def finish(self) -> None:
        """After the last bucket.

        Raises:
            ValueError: the pass has more tensors than the manifest.
        """
        self._tensor = None
        for extra, _ in self._tensors:
            raise ValueError(
                f"the weights no longer follow their manifest: {extra} came after the last tensor"
            )

    def _rows(self, slot: Slot) -> Tensor:
        """The slot's rows of its tensor, which is taken off the pass when its first rows are asked for."""
        if slot.start == 0:
            self._tensor = None  # whatever it was gathered from may be given back
            self._tensor = self._next(slot.spec)
        assert self._tensor is not None, "buckets are filled in their order"
        tensor = self._tensor if self._tensor.dim() else self._tensor[None]
        return tensor[slot.start : slot.stop]

    def _next(self, spec: TensorSpec) -> Tensor:
        name, tensor = next(self._tensors, ("nothing", None))
        if tensor is None or name != spec.name or tuple(tensor.shape) != spec.shape:
            got = name if tensor is None else f"{name} {list(tensor.shape)}"
            raise ValueError(
                f"the weights no longer follow their manifest: expected {spec.name} {list(spec.shape)},"
                f" got {got}; yield the same tensors in the same order every round"
            )
        return tensor.detach()


class Unpacker:
    """Gives one model's tensors back, from its buckets in their order."""

    def __init__(self) -> None:
        self._cut: Tensor | None = None

    def tensors(self, bucket: Bucket, buffer: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of each tensor whose last rows lie in this bucket.

        One that was cut is put together in memory of its own. Others are views, which keep `buffer` alive: never
        receive into it again.
        """
        for slot in bucket.slots:
            rows, spec = view(slot, buffer), slot.spec
            if slot.is_whole:
                yield spec.name, rows.view(spec.shape)
                continue
            if slot.start == 0:
                self._cut = torch.empty(spec.shape, dtype=rows.dtype, device=rows.device)
            assert self._cut is not None, "buckets come in their order"
            self._cut[slot.start : slot.stop] = rows
            if slot.stop == spec.rows:
                whole, self._cut = self._cut, None
                yield spec.name, whole


def damaged(bucket: Bucket, buffer: Tensor) -> list[str]:
    """Name the tensors whose bits differ from what `Packer.fill` sealed."""
    bad = _checksums(bucket, buffer) != _sums(bucket, buffer)
    return [slot.spec.name for slot, is_bad in zip(bucket.slots, bad.tolist(), strict=True) if is_bad]


def _is_finite(tensor: Tensor) -> Tensor:
    """A bool scalar, on the tensor's device. Smallest and largest value tell (NaN propagates), forty times faster on
    a CPU than `isfinite` of each."""
    if tensor.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    return torch.isfinite(torch.stack(torch.aminmax(tensor))).all()


def _checksums(bucket: Bucket, buffer: Tensor) -> Tensor:
    return buffer[bucket.payload : bucket.size].view(torch.int64)


def _sums(bucket: Bucket, buffer: Tensor) -> Tensor:
    words = buffer[: bucket.payload].view(torch.int64)
    return torch.stack([checksum(words[s.offset // WORD : s.padded_end // WORD]) for s in bucket.slots])
