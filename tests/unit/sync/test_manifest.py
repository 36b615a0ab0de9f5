import pytest

from openrlhf_mtp.sync.manifest import Manifest, TensorSpec, diff, held_by_engine


def manifest(**shapes: tuple[int, ...]) -> Manifest:
    return Manifest(tuple(TensorSpec(name, shape, "bfloat16") for name, shape in shapes.items()))


def test_equal_manifests_have_no_difference_whatever_their_order():
    assert diff(manifest(a=(2,), b=(3, 4)), manifest(b=(3, 4), a=(2,))) == []


def test_an_engine_holds_one_set_of_full_tensors_at_the_places_of_all_its_workers():
    rows = manifest(a=(4, 2)).to_wire()
    places = [["host", "gpu-1"], ["host", "gpu-2"]]
    workers = [{"policy": rows, "head": None, "place": place} for place in places]
    assert held_by_engine(workers) == {"policy": rows, "head": None, "places": places}


def test_every_kind_of_difference_is_listed_at_once():
    trainer = Manifest(
        (
            TensorSpec("only_here", (1,), "float32"),
            TensorSpec("shape", (2, 3), "float32"),
            TensorSpec("dtype", (2,), "float32"),
            TensorSpec("same", (2,), "float32"),
        )
    )
    engine = Manifest(
        (
            TensorSpec("same", (2,), "float32"),
            TensorSpec("shape", (3, 2), "float32"),
            TensorSpec("dtype", (2,), "bfloat16"),
            TensorSpec("only_there", (1,), "float32"),
        )
    )
    assert diff(trainer, engine) == [
        "dtype: dtype float32 in the trainer, bfloat16 in the engine",
        "only_here: missing in the engine",
        "only_there: missing in the trainer",
        "shape: shape [2, 3] in the trainer, [3, 2] in the engine",
    ]


def test_the_wire_form_gives_the_manifest_back():
    original = manifest(a=(2,), b=(3, 4))
    assert Manifest.from_wire(original.to_wire()) == original
    assert original.nbytes == 2 * (2 + 12)


def test_a_dtype_without_a_wire_form_is_refused_by_name():
    with pytest.raises(ValueError, match="w: dtype float8_e4m3fn cannot be synced; supported: bfloat16"):
        TensorSpec("w", (1,), "float8_e4m3fn")


def test_a_tensor_listed_twice_is_refused_by_name():
    spec = TensorSpec("w", (1,), "float32")
    with pytest.raises(ValueError, match="listed twice: w"):
        Manifest((spec, spec))
