"""A pod's view of itself and of the shared storage; `look` runs in each pod."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

TOKEN = ".preflight"
SHM = Path("/dev/shm")
INFINIBAND = Path("/dev/infiniband")
VERBS = "libibverbs.so.1"


def write_token(run: Path) -> str:
    """Leave a fresh token in the run folder, for other pods to find."""
    run.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    (run / TOKEN).write_text(token, encoding="utf-8")
    return token


def nvidia_devices() -> list[str]:
    """Lines of `nvidia-smi -L`, whatever CUDA_VISIBLE_DEVICES says. OSError or SubprocessError when it cannot run."""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def look(
    run: str,
    token: str,
    min_shm_bytes: int,
    gpus: int = 0,
    *,
    rdma: bool = False,
    shm: Path = SHM,
    infiniband: Path = INFINIBAND,
    verbs: str = VERBS,
    devices: Callable[[], list[str]] = nvidia_devices,
) -> list[str]:
    """Problems of this pod, empty when it can run the job.

    Args:
        run: the run folder.
        token: what the head wrote there; "" where the storage is not shared.
        min_shm_bytes: how large /dev/shm must be.
        gpus: NVIDIA GPUs that the pod must have; 0: not looked at.
        rdma: whether a pod with GPUs must have what NCCL needs for InfiniBand or RoCE.
        shm: where it is.
        infiniband: where its devices are.
        verbs: its library.
        devices: lists them.
    """
    return [
        *_gpu_problems(gpus, devices),
        *(_rdma_problems(infiniband, verbs) if rdma and gpus else []),
        *_shm_problems(shm, min_shm_bytes),
        *_folder_problems(Path(run), token),
    ]


def _gpu_problems(gpus: int, devices: Callable[[], list[str]]) -> list[str]:
    if gpus == 0:
        return []
    try:
        lines = devices()
    except (OSError, subprocess.SubprocessError) as error:
        return [
            f"nvidia-smi does not run ({error}), so there is no GPU in the container; is NVIDIA's runtime the nodes' "
            "default? otherwise set pods.runtimeClassName=nvidia"
        ]
    slices = [line for line in lines if line.strip().startswith("MIG")]
    seen = slices or [line for line in lines if line.startswith("GPU")]
    if len(seen) >= gpus:
        return []
    return [
        f"has {len(seen)} GPUs, expected {gpus}; look at the nodes' device plug-in and accelerator.resource"
    ]


def _rdma_problems(infiniband: Path, verbs: str) -> list[str]:
    """Problems with the RDMA devices; without one of them NCCL silently uses TCP."""
    problems = []
    if not list(infiniband.glob("uverbs*")):
        problems.append(
            f"has no verbs device ({infiniband}/uverbs*), which network.rdma promises; look at the RDMA device plug-in "
            "and network.rdma.resource"
        )
    try:
        ctypes.CDLL(verbs)
    except OSError as error:
        problems.append(
            f"cannot load {verbs} ({error}); build the image from docker/Dockerfile, or install libibverbs1 and "
            "ibverbs-providers in yours"
        )
    return problems


def _shm_problems(shm: Path, least: int) -> list[str]:
    if not shm.is_dir():
        return [f"{shm} is missing; mount a memory volume there (shmSize)"]
    size = shutil.disk_usage(shm).total
    if size >= least:
        return []
    return [f"{shm} has {size >> 20} MiB, expected {least >> 20} or more; raise shmSize"]


def _folder_problems(run: Path, token: str) -> list[str]:
    probe = run / f".preflight-{socket.gethostname()}-{os.getpid()}"
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return [
            f"cannot write to {run} as user {os.getuid()}: {error.strerror}; "
            "give the volume to the pod's fsGroup, or mount it read-write"
        ]
    if not token:
        return []
    try:
        seen = (run / TOKEN).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen == token:
        return []
    return [
        f"{run} is not the head's folder; storage.checkpoints must be one volume that all pods mount (ReadWriteMany)"
    ]
