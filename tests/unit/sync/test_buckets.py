from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.sync.buckets import ALIGNMENT, WORD, Bucket, Packer, Unpacker, damaged, pack_into_buckets
from openrlhf_mtp.sync.manifest import TensorSpec
from openrlhf_mtp.sync.readback import Probe, add_expected

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


ROW = 9 * 9 * 4 + ALIGNMENT + WORD  # a bucket with room for any row of SPECS
LIMITS = st.integers(ROW, 4000)


def packed(bucket: Bucket, packer: Packer) -> torch.Tensor:
    buffer = torch.full((bucket.size,), 77, dtype=torch.uint8)  # garbage from an earlier round
    packer.fill(bucket, buffer)
    return buffer


@given(SPECS, LIMITS)
def test_a_plan_holds_every_row_once_in_order_aligned_and_never_more_than_the_limit(
    specs: list[TensorSpec], limit: int
):
    buckets = pack_into_buckets(specs, limit)
    slots = [slot for bucket in buckets for slot in bucket.slots]
    rows = [(slot.spec, row) for slot in slots for row in range(slot.start, slot.stop)]
    assert rows == [(spec, row) for spec in specs for row in range(spec.rows)]
    for bucket in buckets:
        assert bucket.size <= limit
        ends = [0]
        for slot in bucket.slots:
            assert slot.offset % ALIGNMENT == 0
            assert slot.offset >= ends[-1]
            ends.append(slot.end)
        assert bucket.size >= ends[-1] + WORD * len(bucket.slots)


@given(SPECS, LIMITS)
def test_a_tensor_is_cut_only_if_no_bucket_could_hold_it(specs: list[TensorSpec], limit: int):
    for bucket in pack_into_buckets(specs, limit):
        for slot in bucket.slots:
            assert slot.is_whole or slot.spec.nbytes + WORD > limit - ALIGNMENT


@given(SPECS, LIMITS)
def test_unpacking_gives_the_packed_bits_back(specs: list[TensorSpec], limit: int):
    tensors = values(specs)
    packer, unpacker = Packer(tensors), Unpacker()
    received = []
    for bucket in pack_into_buckets(specs, limit):
        buffer = packed(bucket, packer)
        assert damaged(bucket, buffer) == []
        received += unpacker.tensors(bucket, buffer)
    packer.finish()
    assert [name for name, _ in received] == [name for name, _ in tensors]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(received, tensors, strict=True))


@given(SPECS, LIMITS, st.sampled_from([None, 2]))
def test_digests_of_rows_add_up_to_those_of_their_tensors(
    specs: list[TensorSpec], limit: int, columns: int | None
):
    """What the trainer expects, from buckets, is what an engine reads back of the whole tensor."""
    specs = [spec for spec in specs if len(spec.shape) < 3]
    tensors, probe = values(specs), Probe(columns, seed=3)
    packer, expected = Packer(tensors), dict[str, int]()
    for bucket in pack_into_buckets(specs, limit):
        add_expected(expected, probe, bucket, packed(bucket, packer))
    assert expected == {name: probe.expected(tensor) for name, tensor in tensors}


@given(SPECS, st.data())
def test_a_flipped_bit_is_found_and_the_tensor_named(specs: list[TensorSpec], data: st.DataObject):
    (bucket,) = pack_into_buckets(specs, 1 << 20)
    buffer = packed(bucket, Packer(values(specs)))
    slot = data.draw(st.sampled_from(bucket.slots))
    buffer[data.draw(st.integers(slot.offset, slot.end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert damaged(bucket, buffer) == [slot.spec.name]


def test_a_tensor_larger_than_a_bucket_is_cut_and_its_rest_shares_a_bucket():
    specs = [TensorSpec(name, (size, 8), "float32") for name, size in (("a", 4), ("big", 70), ("b", 4))]
    cuts = [
        [(slot.spec.name, slot.start, slot.stop) for slot in bucket.slots]
        for bucket in pack_into_buckets(specs, 1024)
    ]
    assert cuts == [[("a", 0, 4)], [("big", 0, 30)], [("big", 30, 60)], [("big", 60, 70), ("b", 0, 4)]]


def test_a_row_that_no_bucket_can_hold_is_refused_with_the_setting():
    specs = [TensorSpec("a", (4,), "float32"), TensorSpec("wide", (2, 300), "float32")]
    with pytest.raises(
        ValueError, match=r"wide: a row of \[2, 300\] takes 1200 bytes .* mtp\.sync\.bucket_mib"
    ):
        pack_into_buckets(specs, 1024)


def test_a_gathered_tensor_is_held_until_its_last_rows_are_packed():
    specs = [TensorSpec(name, (100,), "float32") for name in ("a", "b")]
    held: list[str] = []

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in values(specs):
            held.append(name)
            yield name, tensor
            held.remove(name)

    packer = Packer(gathered())
    for bucket in pack_into_buckets(specs, 300):
        packed(bucket, packer)
        assert held == [bucket.slots[-1].spec.name]
    packer.finish()
    assert held == []


def test_values_are_cast_to_the_dtype_on_the_wire():
    (bucket,) = pack_into_buckets([TensorSpec("w", (3,), "bfloat16")], 1024)
    exact = torch.tensor([1.0, 1.00390625, -2.5])
    ((_, received),) = Unpacker().tensors(bucket, packed(bucket, Packer([("w", exact)])))
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
        packed(bucket, Packer(tensors))


def test_a_bucket_needs_room():
    with pytest.raises(ValueError, match="bucket size must be positive, got 0"):
        pack_into_buckets([], 0)
