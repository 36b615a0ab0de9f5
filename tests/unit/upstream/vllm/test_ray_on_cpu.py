"""vLLM on a CPU finds its workers' places by the name that OpenRLHF's bundles have."""

from types import ModuleType

from openrlhf_mtp.upstream.vllm.ray_on_cpu import PATCH


def test_the_cpu_platform_takes_rays_logical_gpus() -> None:
    platforms = ModuleType(PATCH.target)
    platforms.CpuPlatform = type("CpuPlatform", (), {"ray_device_key": ""})
    assert not PATCH.probe(platforms)
    PATCH.apply(platforms)
    assert PATCH.probe(platforms)
    assert platforms.CpuPlatform.ray_device_key == "GPU"
