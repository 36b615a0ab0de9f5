from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.sync.buckets import ALIGNMENT, WORD, Bucket, damaged, pack, pack_into_buckets, unpack
from openrlhf_mtp.sync.manifest import TensorSpec

SPECS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
        st.sampled_from(["float32", "bfloat16", "float16"]),
    ),
    min_size=1,
    max_size=20,
).map(lambda items: [TensorSpec(f"t{i}", shape, dtype) for i, (shape, dtype) in enumerate(items)])


def values(specs: list[TensorSpec]) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(s.name, torch.randn(s.shape, generator=generator).to(getattr(torch, s.dtype))) for s in specs]


def packed(bucket: Bucket, tensors: Iterator[tuple[str, torch.Tensor]]) -> torch.Tensor:
    buffer = torch.full((bucket.size,), 77, dtype=torch.uint8)  # garbage from an earlier round
    pack(bucket, tensors, buffer)
    return buffer


@given(SPECS, st.integers(1, 4000))
def test_a_plan_holds_every_tensor_once_in_order_aligned_and_within_the_limit(
    specs: list[TensorSpec], limit: int
):
    buckets = pack_into_buckets(specs, limit)
    assert [slot.spec for bucket in buckets for slot in bucket.slots] == specs
    for bucket in buckets:
        assert bucket.size <= limit or len(bucket.slots) == 1
        ends = [0]
        for slot in bucket.slots:
            assert slot.offset % ALIGNMENT == 0
            assert slot.offset >= ends[-1]
            ends.append(slot.end)
        assert bucket.size >= ends[-1] + WORD * len(bucket.slots)


@given(SPECS, st.integers(1, 4000))
def test_unpacking_gives_the_packed_bits_back(specs: list[TensorSpec], limit: int):
    tensors = values(specs)
    stream = iter(tensors)
    received = []
    for bucket in pack_into_buckets(specs, limit):
        buffer = packed(bucket, stream)
        assert damaged(bucket, buffer) == []
        received += unpack(bucket, buffer)
    assert [name for name, _ in received] == [name for name, _ in tensors]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(received, tensors, strict=True))


@given(SPECS, st.data())
def test_a_flipped_bit_is_found_and_the_tensor_named(specs: list[TensorSpec], data: st.DataObject):
    (bucket,) = pack_into_buckets(specs, 1 << 20)
    buffer = packed(bucket, iter(values(specs)))
    slot = data.draw(st.sampled_from(bucket.slots))
    buffer[data.draw(st.integers(slot.offset, slot.end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert damaged(bucket, buffer) == [slot.spec.name]


def test_a_tensor_larger_than_a_bucket_travels_alone():
    specs = [TensorSpec(name, (size,), "float32") for name, size in (("a", 4), ("big", 9999), ("b", 4))]
    assert [[s.spec.name for s in bucket.slots] for bucket in pack_into_buckets(specs, 1024)] == [
        ["a"],
        ["big"],
        ["b"],
    ]


def test_values_are_cast_to_the_dtype_on_the_wire():
    (bucket,) = pack_into_buckets([TensorSpec("w", (3,), "bfloat16")], 1024)
    exact = torch.tensor([1.0, 1.00390625, -2.5])
    ((_, received),) = unpack(bucket, packed(bucket, iter([("w", exact)])))
    assert torch.equal(received, exact.bfloat16())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("v", torch.zeros(2))], r"expected w \[2\], got v \[2\]"),
        ([("w", torch.zeros(3))], r"expected w \[2\], got w \[3\]"),
        ([], r"expected w \[2\], got nothing"),
        ([("w", torch.tensor([1.0, torch.nan]))], "w holds NaN or infinite values"),
        ([("w", torch.tensor([-torch.inf, 1.0]))], "w holds NaN or infinite values"),
        ([("w", torch.tensor([1e38, 1.0]) * 100)], "w holds NaN or infinite values"),
    ],
)
def test_a_source_that_leaves_its_manifest_is_refused(tensors: list, message: str):
    (bucket,) = pack_into_buckets([TensorSpec("w", (2,), "float32")], 1024)
    with pytest.raises(ValueError, match=message):
        packed(bucket, iter(tensors))


def test_a_bucket_needs_room():
    with pytest.raises(ValueError, match="bucket size must be positive, got 0"):
        pack_into_buckets([], 0)
