"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for one.

The interpreter is chosen when triton is imported, so it runs in a process of its own and returns every case at once.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from openrlhf_mtp.losses.kernels import rows
from tests.processes import in_fresh_process
from tests.unit.losses.row_cases import cases, check, computed

CASES = cases()


def _interpreted() -> dict[str, dict[str, np.ndarray]]:
    os.environ["TRITON_INTERPRET"] = "1"
    from openrlhf_mtp.losses.kernels import rows_triton

    rows._kernels = lambda logits: rows_triton
    found = {name: computed(case) for name, case in cases().items()}
    nan = cases()["only alpha"]
    nan.draft[3, 40] = torch.nan
    found["nan"] = computed(nan)
    # numpy has no bfloat16, and float32 holds each of its values
    return {
        name: {
            field: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            for field, value in one.items()
        }
        for name, one in found.items()
    }


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = in_fresh_process(
        _interpreted,
        warm=False,  # Triton decides when it is imported whether it interprets
    )
    return found


@pytest.mark.parametrize("name", CASES)
def test_scalars_and_gradient_equal_the_formulas_in_float64(
    name: str, interpreted: dict[str, dict[str, np.ndarray]]
) -> None:
    check(CASES[name], {field: torch.from_numpy(value) for field, value in interpreted[name].items()})


def test_a_logit_that_is_not_a_number_stays_visible(interpreted: dict[str, dict[str, np.ndarray]]) -> None:
    found = interpreted["nan"]
    assert np.isnan(found["alpha"]).tolist() == [False, False, False, True, False]
    assert np.isnan(found["gradient"][3]).all()


ROW = "*fp32"  # a number of each row
KERNELS = {
    "_peak_kernel": {"largest": ROW, "total": ROW, "mode": "*i32"},
    "_overlap_kernel": {"target_row": "*i64", "lse_q": ROW, "lse_p": ROW, "shares": ROW},
    "_gradient_kernel": {
        "target_row": "*i64", "tokens": "*i64",
        **dict.fromkeys(("lse_q", "lse_p", "overlap_mass", "reverse_kl"), ROW),
        **dict.fromkeys(("g_alpha", "g_kl", "g_reverse_kl", "g_log_q"), ROW),
    },
}  # fmt: skip


EVERY_GRADIENT: tuple[str, ...] = ()
ONLY_ALPHA, ONLY_LOG_Q = ("g_kl", "g_reverse_kl", "g_log_q"), ("g_alpha", "g_kl", "g_reverse_kl")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("logits", ["*bf16", "*fp32"])
@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("_peak_kernel", ()),
        ("_overlap_kernel", ()),
        ("_gradient_kernel", EVERY_GRADIENT),
        ("_gradient_kernel", ONLY_ALPHA),
        ("_gradient_kernel", ONLY_LOG_Q),
    ],
)
def test_the_kernels_compile_for_a_hopper_gpu(
    name: str, absent: tuple[str, ...], logits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the interpreter accepts Python that the compiler does not
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget

    from openrlhf_mtp.losses.kernels import rows_triton

    kernel = getattr(rows_triton, name)
    types = {
        **dict.fromkeys(("logits", "draft", "target"), logits),
        **dict.fromkeys(("stride", "draft_stride", "target_stride", "columns"), "i32"),
        **KERNELS[name],
    }
    constants = {
        "WIDE": tl.float32,
        "TILE": rows_triton.TILE,
        "SPAN": rows_triton.SPAN,
        **dict.fromkeys(absent),
    }
    constants = {argument: value for argument, value in constants.items() if argument in kernel.arg_names}
    source = triton.compiler.ASTSource(
        kernel,
        {
            argument: "constexpr" if argument in constants else types[argument]
            for argument in kernel.arg_names
        },
        constexprs={(kernel.arg_names.index(argument),): value for argument, value in constants.items()},
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": rows_triton.WARPS}
    )
    assert compiled.asm["cubin"]
