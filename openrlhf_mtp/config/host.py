"""What the machine has, found out without torch."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

CLUSTER_GPUS = "OPENRLHF_MTP_CLUSTER_GPUS"
"""Environment variable of a driver on a Kubernetes pod without GPUs: how many the run's other pods have in all."""


@dataclass(frozen=True)
class Host:
    """Attributes:
    cuda_gpus: CUDA GPUs of this machine; 0 on a host where everything runs on the CPU.
    """

    cuda_gpus: int

    @property
    def has_cuda(self) -> bool:
        """Whether engines and trainers run on GPUs here."""
        return self.cuda_gpus > 0


def detect_host(environ: Mapping[str, str] = os.environ) -> Host:
    """Ask the NVIDIA driver's own tool; a machine without it has no CUDA GPU, unless it drives others that have."""
    if environ.get(CLUSTER_GPUS):
        return Host(cuda_gpus=int(environ[CLUSTER_GPUS]))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Host(cuda_gpus=0)
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return Host(cuda_gpus=sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))
