"""The machine's GPUs, cores and memory, found without torch."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.machine.nvidia import DriverError, Gpu, ask_driver, visible
from openrlhf_mtp.config.machine.precision import Speed

CLUSTER_GPUS = "OPENRLHF_MTP_CLUSTER_GPUS"
"""Environment variable of a driver on a Kubernetes pod without GPUs: how many the run's other pods have in all."""

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

OTHER_VENDORS = {"rocm-smi": "AMD", "amd-smi": "AMD", "xpu-smi": "Intel"}
"""Driver tool -> the vendor of the GPUs it manages."""


@dataclass(frozen=True)
class Host:
    """A machine's GPUs, cores and speed.

    Attributes:
        cuda_gpus: CUDA GPUs of this machine that a process may use; 0 on a host where everything runs on the CPU.
        gpu_memory_gib: memory of the smallest of them, None when not known.
        driver_problem: why the NVIDIA driver did not say how many there are, None when it did or there is none.
        not_counted: whose GPUs there seem to be that nothing here can use, "AMD" or "Intel"; None when there are none.
        cores: that computing may use; None when not looked for (with CUDA, or on another machine).
        speed: of products in both precisions; None when not measured.
    """

    cuda_gpus: int
    gpu_memory_gib: float | None = None
    driver_problem: str | None = None
    not_counted: str | None = None
    cores: int | None = None
    speed: Speed | None = None

    @property
    def has_cuda(self) -> bool:
        """Whether engines and trainers run on GPUs here."""
        return self.cuda_gpus > 0

    def __str__(self) -> str:
        """The host in the words of the plan."""
        if self.driver_problem:
            return f"GPUs not known, all on the CPU: {self.driver_problem}"
        if not self.has_cuda:
            others = f" ({self.not_counted} GPUs are not counted)" if self.not_counted else ""
            return f"no CUDA GPU{others}: all on the CPU, GPUs are logical"
        memory = f" of {self.gpu_memory_gib:.1f} GiB" if self.gpu_memory_gib else ""
        return f"{self.cuda_gpus} CUDA GPU{'s' if self.cuda_gpus > 1 else ''}{memory}"


def detect_host(environ: Mapping[str, str] = os.environ) -> Host:
    """Ask the NVIDIA driver's own tool; a machine without it has no CUDA GPU, unless it drives others that have.

    `CUDA_VISIBLE_DEVICES` counts, as it does for Ray and torch; empty, it hides every GPU and nothing is asked.

    Raises:
        JobError: an environment variable is not what it must be.
    """
    if environ.get(CLUSTER_GPUS):
        return Host(cuda_gpus=_whole_number(environ[CLUSTER_GPUS]))
    chosen = environ.get(VISIBLE_DEVICES)
    tool = shutil.which("nvidia-smi")
    if tool is None or chosen == "":
        return Host(cuda_gpus=0, not_counted=_other_vendor() if tool is None else None)
    try:
        gpus = visible(ask_driver(tool), chosen)
    except DriverError as problem:
        return Host(cuda_gpus=0, driver_problem=str(problem))
    return Host(len(gpus), _least_memory(gpus))


def _least_memory(gpus: list[Gpu]) -> float | None:
    known = [gpu.memory_mib for gpu in gpus if gpu.memory_mib is not None]
    return min(known) / 1024 if known and len(known) == len(gpus) else None


def _other_vendor() -> str | None:
    return next((vendor for tool, vendor in OTHER_VENDORS.items() if shutil.which(tool)), None)


def _whole_number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise JobError(
            f"environment variable {CLUSTER_GPUS}: got {text!r}, expected the number of GPUs of the run's other pods; "
            "correct or unset it"
        )
    return int(text)
