"""Records: each depth has its own entropy, the two splits never mix, and a broken file costs only itself."""

import numpy as np
import pytest

from openrlhf_mtp.runlog.anchor_records import joined, read_records, write_records

ENTROPY = np.array([[0.1, 0.2], [0.3, np.nan]])
ALPHA = np.array([[0.9, 0.8], [0.7, np.nan]])
GREEDY = np.array([[0.6, 0.5], [0.4, np.nan]])


def read(out, split="rollout"):
    warnings = []
    return read_records(out, split, warnings.append), warnings


def test_every_depth_comes_back_beside_its_entropy(tmp_path):
    write_records(tmp_path, 7, ENTROPY, ALPHA, GREEDY, response=np.array([4, 4]))
    found, warnings = read(tmp_path)
    assert (list(found), warnings) == ([7], [])
    records = found[7]
    np.testing.assert_allclose(records.entropy, ENTROPY)
    np.testing.assert_allclose(records.alpha, ALPHA)
    np.testing.assert_allclose(records.greedy, GREEDY)
    assert records.response.tolist() == [4, 4]
    assert records.depths == 2


def test_held_out_anchors_lie_apart_from_those_of_the_rollout(tmp_path):
    write_records(tmp_path, 2, ENTROPY, ALPHA, GREEDY)
    write_records(tmp_path, 2, ENTROPY, ALPHA / 2, GREEDY, split="heldout")
    assert read(tmp_path)[0][2].alpha[0, 0] == pytest.approx(0.9)
    assert read(tmp_path, "heldout")[0][2].alpha[0, 0] == pytest.approx(0.45)


def test_steps_come_in_the_order_of_their_numbers(tmp_path):
    for step in (1_000_001, 31, 4):
        write_records(tmp_path, step, ENTROPY, ALPHA, GREEDY)
    assert sorted(read(tmp_path)[0]) == [4, 31, 1_000_001]


@pytest.mark.parametrize(
    ("arrays", "response"),
    [
        ((ENTROPY[:1], ALPHA, GREEDY), None),
        ((ENTROPY, ALPHA, GREEDY[:, :1]), None),
        ((ENTROPY, ALPHA), np.zeros(3)),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, arrays, response):
    with pytest.raises(ValueError, match="expected"):
        write_records(tmp_path, 1, *arrays, response=response)
    assert read(tmp_path) == ({}, [])


def test_a_broken_file_is_named_and_the_others_are_read(tmp_path):
    write_records(tmp_path, 1, ENTROPY, ALPHA, GREEDY)
    (tmp_path / "records" / "step_000002.npz").write_bytes(b"PK not a zip")
    np.savez(tmp_path / "records" / "step_000003.npz", alpha=ALPHA)
    np.savez(tmp_path / "records" / "step_000004.npz", entropy=ENTROPY, alpha=ALPHA[:1], greedy=GREEDY)
    found, warnings = read(tmp_path)
    assert list(found) == [1]
    assert [w.split()[0] for w in warnings] == [f"records/step_00000{n}.npz" for n in (2, 3, 4)]


def test_micro_batches_are_joined_with_their_responses_apart():
    parts = [
        {"alpha": np.full((3, 2), 0.1), "response": np.array([0, 0, 1])},
        {"alpha": np.full((2, 2), 0.2), "response": np.array([0, 4])},
        {"alpha": np.full((1, 2), 0.3), "response": np.array([0])},
    ]
    everything = joined(parts)
    assert everything["alpha"][:, 0].tolist() == [0.1, 0.1, 0.1, 0.2, 0.2, 0.3]
    assert everything["response"].tolist() == [0, 0, 1, 2, 6, 7]
    assert {name: len(array) for name, array in joined(parts, limit=4).items()} == {"alpha": 4, "response": 4}
