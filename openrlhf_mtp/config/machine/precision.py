"""In which precision trainers and engines compute: OpenRLHF's `ds.param_dtype`, with two values of ours.

OpenRLHF knows bf16 and fp16. `fp32` is float32 throughout (`upstream.openrlhf.precision`), and `auto`, the
default, is bf16 with CUDA and otherwise what a measurement on this machine found faster: processors without
bfloat16 instructions multiply several times slower in bfloat16 than in float32, and even those with them
often do. The engines follow the trainer unless `mtp.rollout.dtype` says otherwise. The choice is made once,
in the driver, and handed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import DType, MTPSettings

SETTING = "ds.param_dtype"
AUTO = "auto"
HALF = "bf16"
FULL = "fp32"
DTYPES: Mapping[str, DType] = MappingProxyType({"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"})
"""OpenRLHF's name of a precision -> torch's and vLLM's."""
DTYPE_BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})
"""torch's name of a type -> bytes of a number."""


def dtype_name(dtype: object) -> str:
    """A torch dtype's name, "float32" for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Speed:
    """Seconds that a machine takes for the same products in both precisions."""

    bfloat16_s: float
    float32_s: float

    @property
    def ratio(self) -> float:
        """Time in bfloat16 over time in float32."""
        return self.bfloat16_s / self.float32_s


@dataclass(frozen=True)
class Precision:
    """A precision and the reason for it.

    Attributes:
        name: OpenRLHF's name, a key of `DTYPES`.
        why: the reason, for the plan and the run folder.
    """

    name: str
    why: str

    @property
    def dtype(self) -> DType:
        """torch's and vLLM's name."""
        return DTYPES[self.name]

    def __str__(self) -> str:
        return f"{self.dtype}: {self.why}"


def choose(setting: str, *, has_cuda: bool, speed: Speed | None) -> Precision:
    """The precision of a job.

    Args:
        setting: the job's `ds.param_dtype`.
        has_cuda: whether it runs on GPUs.
        speed: of the machine; None where it was not measured, and then `auto` counts as bf16, the smaller one's size.
    """
    if setting != AUTO:
        return Precision(setting, f"{SETTING} says so")
    if has_cuda:
        return Precision(HALF, "the default with CUDA")
    if speed is None:
        return Precision(HALF, "or float32, whichever a measurement at the start finds faster")
    if speed.ratio > 1:
        return Precision(FULL, f"products in bfloat16 take {speed.ratio:.1f} times as long here")
    return Precision(HALF, f"products in float32 take {1 / speed.ratio:.1f} times as long here")


def with_rollout_dtype(mtp: MTPSettings, param_dtype: str) -> MTPSettings:
    """The settings with `rollout.dtype` decided: `auto` is the trainer's precision."""
    if mtp.rollout.dtype != AUTO:
        return mtp
    rollout = mtp.rollout.model_copy(update={"dtype": DTYPES[param_dtype]})
    return mtp.model_copy(update={"rollout": rollout})
