"""How the image's packages are shared out over layers, what those weigh, and what is compiled ahead."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helm.engine import ROOT

DOCKER = ROOT / "docker"
sys.path.insert(0, str(DOCKER))

import deepspeed_ops  # noqa: E402
import sizes  # noqa: E402
from layers import LAYERS, layer_of, split  # noqa: E402

DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ("cpu", "gpu")


def copied(target):
    """Layers that a target's stage copies, in order."""
    return re.findall(
        rf"^COPY --link --from={target}-packages /opt/layers/(\S+)/ /$", DOCKERFILE, re.MULTILINE
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_package_of_the_lock_is_in_one_layer_that_the_image_copies(target):
    packages = [name for name, _ in sizes.locked(target)] + ["flash-attn"] * (target == "gpu")
    used = {layer_of(name) for name in packages}
    assert sorted(copied(target)) == sorted(used)  # none is lost, none is empty, none comes twice


def test_the_layers_are_copied_in_their_order_before_the_sources():
    for target in TARGETS:
        assert copied(target) == [layer for layer in LAYERS if layer in copied(target)]
        stage = DOCKERFILE.partition(f" AS {target}\n")[2]
        assert stage.index("/opt/layers/rest/") < stage.index("COPY openrlhf_mtp/")


def test_only_the_projects_own_modules_are_compiled_after_the_layers():
    """Compiling starts over whatever is there: every compiled module would lie in two layers."""
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE):
        if "install.sh project" in stage:
            assert re.findall(r"install\.sh compile (.*?) \\", stage) == ["/opt/venv openrlhf_mtp"]


@pytest.fixture
def venv(tmp_path):
    """An environment of two packages, one with a script, a compiled module and a folder that both have."""
    site = tmp_path / "venv/lib/python3.11/site-packages"
    files = {
        "torch": ["torch/__init__.py", "shared/a.py", "../../../bin/torchrun"],
        "Some_Thing": ["some/__init__.py", "shared/b.py"],
    }
    for name, own in files.items():
        info = site / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*own, f"{info.name}/METADATA"]))
        for file in own:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).resolve().write_text(name)
    (site / "torch/__pycache__").mkdir()
    (site / "torch/__pycache__/__init__.cpython-311.pyc").write_bytes(b"compiled")
    (tmp_path / "venv/bin/python").symlink_to("/usr/bin/python3.11")
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    return tmp_path / "venv"


def test_an_environment_is_split_without_losing_a_file(venv, tmp_path):
    before = {path.relative_to("/") for path in venv.rglob("*") if path.is_symlink() or path.is_file()}
    moved = split(venv, tmp_path / "layers")
    after = [
        path.relative_to(tmp_path / "layers")
        for path in (tmp_path / "layers").rglob("*")
        if path.is_symlink() or path.is_file()
    ]
    assert sorted(Path(*path.parts[1:]) for path in after) == sorted(before)
    place = {str(Path(*path.parts[1:]).relative_to(venv.relative_to("/"))): path.parts[0] for path in after}
    packages = "lib/python3.11/site-packages"
    assert {file for file, layer in place.items() if layer == "torch"} == {
        "bin/torchrun",
        f"{packages}/shared/a.py",
        f"{packages}/torch/__init__.py",
        f"{packages}/torch/__pycache__/__init__.cpython-311.pyc",
        f"{packages}/torch-1.dist-info/METADATA",
    }
    assert place["bin/python"] == place["pyvenv.cfg"] == place[f"{packages}/some/__init__.py"] == "rest"
    assert set(moved) == set(LAYERS) == {path.name for path in (tmp_path / "layers").iterdir()}
    assert moved["torch"] > 0
    assert moved["vllm"] == 0


def test_what_is_no_environment_is_said(tmp_path):
    with pytest.raises(ValueError, match="got 0 site-packages folders, expected an environment with one"):
        split(tmp_path, tmp_path / "layers")


def test_the_wheel_that_pip_would_take_is_measured():
    names = [
        "a-1.0-py3-none-any.whl",
        "a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "a-1.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "a-1.0.tar.gz",
    ]
    files = [{"filename": name, "size": 1} for name in names]
    assert sizes.best(files, "1.0", sizes.tags())["filename"] == names[1]
    assert sizes.best(files[:1], "1.0", sizes.tags())["filename"] == names[0]
    assert sizes.best(files[4:], "1.0", sizes.tags()) is None


def test_a_wheels_directory_is_read_from_its_end_alone(tmp_path, monkeypatch):
    file = tmp_path / "a.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("a/__init__.py", "x = 1\n" * 1000)
        wheel.writestr("a/data", bytes(3 << 20), zipfile.ZIP_STORED)
    read = []

    class Answer:
        status = 206

        def __init__(self, first):
            self.data = file.read_bytes()[first:]
            read.append(len(self.data))

        def read(self):
            return self.data

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

    monkeypatch.setattr(sizes, "_open", lambda url, Range: Answer(int(Range.split("=")[1].split("-")[0])))
    listed = zipfile.ZipFile(sizes.Remote("https://x/a.whl", file.stat().st_size)).infolist()
    assert [one.file_size for one in listed] == [6000, 3 << 20]
    assert sum(read) <= sizes.DIRECTORY_BYTES


def test_the_table_names_layers_packages_and_what_it_does_not_know():
    wheels = [
        sizes.Wheel("torch", 500_000_000, 1_000_000_000),
        sizes.Wheel("nvidia-cublas", 400_000_000, 600_000_000),
        sizes.Wheel("deepspeed", None),
    ]
    lines = sizes.table(wheels).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["nvidia-math", "torch", "all"]
    assert lines[3].split() == ["all", "2", "900", "1,600"]
    assert lines[4] == "no wheel in the index, not counted: deepspeed"


def test_architectures_are_written_as_torch_reads_them():
    assert deepspeed_ops.torch_architectures("80;90;100;120") == "8.0;9.0;10.0;12.0"
    for wrong in ("", "8.0", "80,90", "sm_90"):
        with pytest.raises(ValueError, match="expected numbers between semicolons"):
            deepspeed_ops.torch_architectures(wrong)


def test_the_kernels_that_are_compiled_ahead_are_deepspeeds():
    package = importlib.util.find_spec("deepspeed").submodule_search_locations[
        0
    ]  # not imported: it takes seconds
    source = Path(package, "ops/op_builder")
    text = "".join(path.read_text() for path in source.glob("*.py"))
    assert all(f"class {name}(" in text for name in deepspeed_ops.OPS)


def test_what_the_compiler_lacks_is_linked_from_pips_packages(tmp_path):
    pip, cuda = tmp_path / "venv/lib/python3.11/site-packages/nvidia/cu13", tmp_path / "cuda"
    for folder in (pip / "include", pip / "lib", cuda / "include", cuda / "lib64"):
        folder.mkdir(parents=True)
    for file in (pip / "include/cublas_v2.h", pip / "include/crt.h", cuda / "include/crt.h"):
        file.write_text(str(file))
    for name in ("libcublas.so.13", "libcudart.so.13"):
        (pip / "lib" / name).write_text("pip's")
    for name in ("libcudart.so.13", "libcudart.so"):
        (cuda / "lib64" / name).write_text("the toolkit's")
    command = ["bash", DOCKER / "install.sh", "toolkit", tmp_path / "venv", cuda]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (cuda / "include/cublas_v2.h").resolve() == pip / "include/cublas_v2.h"
    assert not (cuda / "include/crt.h").is_symlink()
    assert (cuda / "lib64/libcublas.so").resolve() == (cuda / "lib64/libcublas.so.13").resolve()
    assert (cuda / "lib64/libcudart.so").read_text() == "the toolkit's"
