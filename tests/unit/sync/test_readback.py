import pytest
import torch

from openrlhf_mtp.sync.digest import add, digest
from openrlhf_mtp.sync.errors import StaleWeights
from openrlhf_mtp.sync.readback import Probe, compare, stale


def test_equal_digests_are_fine_whole_sharded_and_replicated_in_groups():
    whole = [["norm", "norm.weight", 4, 7]]
    workers = [
        [*whole, ["q", "qkv.weight", 1, digest], ["k", "qkv.weight", 2, k]]
        for digest, k in ((1, 10), (2, 10), (3, 20), (4, 20))
    ]
    assert stale({"norm": 7, "q": 10, "k": 30}, workers) == []


def test_sums_wrap_as_digests_do():
    workers = [[["q", "qkv.weight", 1, 2**64 - 1]], [["q", "qkv.weight", 1, 5]]]
    assert stale({"q": 4}, workers) == []


def test_a_stale_tensor_is_named_with_its_layer_and_worker():
    workers = [[["norm", "norm.weight", 2, 7]], [["norm", "norm.weight", 2, 8]]]
    assert stale({"norm": 7}, workers) == ["norm (layer norm.weight, worker 1)"]


def test_a_worker_that_does_not_report_its_copy_is_missed():
    assert stale({"norm": 7}, [[["norm", "norm.weight", 2, 7]], []]) == [
        "norm (layer norm.weight): read back by 1 of 2 workers"
    ]


def test_replicas_whose_errors_cancel_in_the_sum_are_still_named():
    workers = [[["norm", "norm.weight", 2, 6]], [["norm", "norm.weight", 2, 8]]]
    assert stale({"norm": 7}, workers) == ["norm (layer norm.weight, worker 0, 1)"]


def test_a_stale_shard_is_named():
    workers = [[["q", "qkv.weight", 1, 1]], [["q", "qkv.weight", 1, 1]]]
    assert stale({"q": 3}, workers) == ["q (layer qkv.weight, sharded over 2 workers)"]


def test_a_tied_output_head_is_compared_as_its_own_layer():
    rows = [["embed", "embed_tokens.weight", 1, 5], ["embed", "lm_head.weight", 1, 4]]
    assert stale({"embed": 5}, [rows]) == ["embed (layer lm_head.weight, worker 0)"]


def test_tensors_that_only_one_side_knows_are_named():
    assert stale({"a": 1}, [[["b", "b.weight", 1, 1]]]) == [
        "a: not read back by the engine",
        "b (layer b.weight): not sent by the trainer",
    ]


def test_the_comparison_names_engine_and_model_and_passes_over_equal_ones() -> None:
    same, other = [["norm", "norm.weight", 1, 7]], [["norm", "norm.weight", 1, 8]]
    expected = {"policy": {"norm": 7}, "head": {"norm": 7}}
    compare(expected, [[{"policy": same, "head": same}]] * 2)
    with pytest.raises(StaleWeights) as error:
        compare(expected, [[{"policy": same, "head": same}], [{"policy": same, "head": other}]])
    assert str(error.value).splitlines()[1:] == ["  engine 1 head: norm (layer norm.weight, worker 0)"]


def test_a_probe_uses_the_same_columns_for_a_width_and_whole_vectors() -> None:
    probe = Probe(columns=3, seed=5)
    matrix = torch.randn(4, 20)
    chosen = probe.chosen(20)
    assert chosen is not None
    changed, unseen = matrix.clone(), matrix.clone()
    changed[2, chosen[0]] += 1
    unseen[2, next(c for c in range(20) if c not in chosen)] += 1
    assert probe.expected(matrix) == probe.expected(unseen) != probe.expected(changed)
    assert Probe(columns=None, seed=5).expected(matrix) == digest(matrix)
    assert probe.expected(matrix[0]) == digest(matrix[0])


def test_stacked_matrices_count_as_rows_with_many_columns() -> None:
    probe = Probe(columns=3, seed=5)
    stacked = torch.randn(4, 6, 5)
    whole = probe.expected(stacked)
    assert whole == probe.expected(stacked.flatten(1))
    assert whole == add(*(int(probe.expected_sum(stacked[[row]], row)) % 2**64 for row in range(4))), "cut"
    assert whole != probe.expected(stacked[[1, 0, 2, 3]]), "two that changed places"
