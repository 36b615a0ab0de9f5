"""What the machine has, found out without torch."""

import shutil
import subprocess
from dataclasses import dataclass


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


def detect_host() -> Host:
    """Ask the NVIDIA driver's own tool; a machine without it has no CUDA GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Host(cuda_gpus=0)
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return Host(cuda_gpus=sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))
