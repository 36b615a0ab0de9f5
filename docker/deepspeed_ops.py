"""The kernels of DeepSpeed that a job on GPUs can load, compiled into the installed package.

    deepspeed_ops.py "80;90;100;120"      the GPUs' architectures as flash-attention writes them

Left alone, every trainer pod of every attempt compiles them before its first step. (A job on CPUs loads none, see
openrlhf_mtp/upstream/cpu_host.py.) DeepSpeed's own way (DS_BUILD_OPS) does not work with
torch 2.13 and setuptools 77: torch hands an option on that the latter's Command refuses. No GPU is needed.
"""

from __future__ import annotations

import importlib
import os
import pprint
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

OPS = ("FusedAdamBuilder", "CPUAdamBuilder")
"""DeepSpeed's builders of them: the optimizer, and the one of `ds.adam_offload`."""
CPU_ARCH, SIMD = "-march=x86-64-v3", "-D__AVX256__"
"""DeepSpeed compiles for the CPU of the machine it runs on; an image runs on others. AVX2 is what every server with a
GPU has, AMD's had no AVX-512 before 2022."""


def torch_architectures(given: str) -> str:
    """`80;100` as flash-attention writes it is `8.0;10.0` to torch.

    Raises:
        ValueError: not numbers between semicolons.
    """
    if not re.fullmatch(r"\d{2,3}(;\d{2,3})*", given):
        raise ValueError(f"architectures: got {given!r}, expected numbers between semicolons, 80;90")
    return ";".join(f"{one[:-1]}.{one[-1]}" for one in given.split(";"))


def compile_op(builder: Any) -> Path:
    """Compile one op and put it where DeepSpeed imports it from; it is loaded once on the way.

    Args:
        builder: DeepSpeed's builder of it.
    """
    from torch.utils.cpp_extension import load

    extension = builder.builder()
    package, _, name = builder.absolute_name().rpartition(".")
    flags = extension.extra_compile_args
    with tempfile.TemporaryDirectory() as folder:
        module = load(
            name=name,
            sources=[str(builder.deepspeed_src_path(source)) for source in extension.sources],
            extra_include_paths=[str(builder.deepspeed_src_path(path)) for path in builder.include_paths()],
            extra_cflags=flags["cxx"],
            extra_cuda_cflags=flags.get("nvcc"),
            extra_ldflags=builder.strip_empty_entries(builder.extra_ldflags()),
            build_directory=folder,
            with_cuda="nvcc" in flags or None,  # CPU Adam has no file of CUDA's and includes its headers
        )
        target = Path(importlib.import_module("deepspeed").__file__ or "").parent.parent / package.replace(
            ".", "/"
        )
        return Path(shutil.copy(module.__file__, target))


def note(ops: list[str], accelerator: str) -> None:
    """Tell DeepSpeed which ops it has, for which accelerator and torch: else it compiles them all the same."""
    import deepspeed
    import torch

    file = Path(deepspeed.__file__).parent / "git_version_info_installed.py"
    lines = file.read_text(encoding="utf-8").splitlines()
    known: dict[str, Any] = {}
    exec("\n".join(lines), known)  # its own file: names and literals
    known["installed_ops"] |= dict.fromkeys(ops, True)
    known["accelerator_name"] = accelerator
    version, cuda = (
        ".".join((text or "0.0").split(".")[:2]) for text in (torch.__version__, torch.version.cuda)
    )
    known["torch_info"] |= {"version": version, "cuda_version": cuda}
    names = [line.partition("=")[0] for line in lines if "=" in line]
    file.write_text(
        "".join(f"{name}={pprint.pformat(known[name], sort_dicts=False)}\n" for name in names),
        encoding="utf-8",
    )


def compile_ops(names: tuple[str, ...], accelerator: str) -> None:
    """Compile these ops, for the accelerator that DeepSpeed will find where they are used: "cuda" or "cpu"."""
    os.environ["DS_ACCELERATOR"] = accelerator  # a builder has no GPU to find
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.builder import OpBuilder

    OpBuilder.cpu_arch = lambda self: CPU_ARCH
    OpBuilder.simd_width = lambda self: SIMD
    builders = [get_accelerator().create_op_builder(name) for name in names]
    for builder in builders:
        print(f"deepspeed: {compile_op(builder)}", flush=True)
    note([builder.name for builder in builders], accelerator)


def main() -> None:
    """Compile those of a job on GPUs."""
    if len(sys.argv) != 2:
        sys.exit("usage: deepspeed_ops.py ARCHITECTURES")
    os.environ["TORCH_CUDA_ARCH_LIST"] = torch_architectures(sys.argv[1])
    compile_ops(OPS, "cuda")


if __name__ == "__main__":
    main()
