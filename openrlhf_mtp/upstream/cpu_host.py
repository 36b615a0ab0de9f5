"""Substitutes for OpenRLHF on a host without CUDA: it calls `torch.cuda` and imports flash-attn unconditionally.

Each patch checks for CUDA when its target is imported, in the process that imports it: on a cluster the
driver may have no GPU while its workers do.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch, Undo

_OPENRLHF = "openrlhf 0.11.2"
_ASK_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


def has_cuda() -> bool:
    """True when this process sees a CUDA device. Asks the driver's library without opening a device: it runs when torch
    is imported, and what is opened then could not be narrowed down by CUDA_VISIBLE_DEVICES any more."""
    import torch

    usual = os.environ.get(_ASK_NVML)
    os.environ[_ASK_NVML] = "1"
    try:
        return torch.cuda.is_available()
    finally:
        if usual is None:
            del os.environ[_ASK_NVML]
        else:
            os.environ[_ASK_NVML] = usual


# torch.cuda ---------------------------------------------------------------------------------------------


def _replace_cuda_calls(torch_module: ModuleType) -> None:
    if has_cuda():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    cuda = torch_module.cuda
    cuda.current_device = lambda: "cpu"
    # one function each: torch.compile refuses the same one under two names
    cuda.synchronize = lambda *args, **kwargs: None
    cuda.set_device = lambda *args, **kwargs: None
    cuda.current_stream = lambda *args, **kwargs: None


def _cuda_calls_are_safe(torch_module: ModuleType) -> bool:
    return has_cuda() or torch_module.cuda.current_device() == "cpu"


# flash-attn ---------------------------------------------------------------------------------------------


def _flash_attn_stub() -> dict[str, ModuleType]:
    """The five functions that `openrlhf.models.ring_attn_utils` imports, in plain torch."""
    import torch
    import torch.distributed as dist
    from einops import rearrange

    def index_first_axis(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return values[indices]

    def unpad_input(values: torch.Tensor, mask: torch.Tensor) -> tuple[Any, ...]:
        lengths = mask.sum(-1, dtype=torch.int32)
        indices = mask.flatten().nonzero().flatten()
        offsets = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        flat = values.reshape(-1, *values.shape[2:])
        return flat[indices], indices, offsets, int(lengths.max()), lengths

    def pad_input(values: torch.Tensor, indices: torch.Tensor, batch: int, length: int) -> torch.Tensor:
        padded = values.new_zeros(batch * length, *values.shape[1:]).index_put((indices,), values)
        return padded.view(batch, length, *values.shape[1:])

    def all_gather(values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, values, group=group)
        return torch.cat(parts)

    padding = ModuleType("flash_attn.bert_padding")
    padding.__dict__.update(
        index_first_axis=index_first_axis, unpad_input=unpad_input, pad_input=pad_input, rearrange=rearrange
    )
    distributed = ModuleType("flash_attn.utils.distributed")
    distributed.__dict__.update(all_gather=all_gather)
    return {
        "flash_attn": ModuleType("flash_attn"),
        "flash_attn.bert_padding": padding,
        "flash_attn.utils": ModuleType("flash_attn.utils"),
        "flash_attn.utils.distributed": distributed,
    }


def _show_flash_attn_stub() -> Undo:
    """Show the stub while one module is imported; a lasting one would mislead transformers and vLLM."""
    if importlib.util.find_spec("flash_attn") is not None:
        return lambda: None
    stub = _flash_attn_stub()
    sys.modules.update(stub)

    def hide() -> None:
        for name in stub:
            sys.modules.pop(name, None)

    return hide


def _flash_attn_is_hidden(module: ModuleType) -> bool:
    stubbed = importlib.util.find_spec("flash_attn") is None
    return callable(module.unpad_input) and (not stubbed or "flash_attn" not in sys.modules)


# DeepSpeed strategy ---------------------------------------------------------------------------------------


def _use_cpu_strategy(module: ModuleType) -> None:
    if has_cuda():
        return
    make_mesh = module.init_device_mesh
    strategy = module.DeepspeedStrategy
    train_config = strategy.get_ds_train_config

    def init_device_mesh(device: str, *args: Any, **kwargs: Any) -> Any:
        return make_mesh("cpu" if device == "cuda" else device, *args, **kwargs)

    def get_ds_train_config(self: Any, optim_dict: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if optim_dict and optim_dict["type"] in ("AdamW", "Muon"):
            # torch's AdamW, which Muon takes for what is no matrix: DeepSpeed's own would be compiled at run time
            optim_dict = {**optim_dict, "params": {**optim_dict["params"], "torch_adam": True}}
        return train_config(self, optim_dict=optim_dict, **kwargs)

    module.__dict__["init_device_mesh"] = init_device_mesh
    strategy.get_ds_train_config = get_ds_train_config


def _strategy_is_cpu(module: ModuleType) -> bool:
    return has_cuda() or module.init_device_mesh.__module__ == __name__


# DeepSpeed's shared-memory all-reduce ---------------------------------------------------------------------


def _skip_shm_op(module: ModuleType) -> None:
    if has_cuda():
        return

    def no_shm_op() -> None:
        """gloo does the all-reduces; nothing is compiled."""

    module.__dict__["build_shm_op"] = no_shm_op


def _shm_op_is_skipped(module: ModuleType) -> bool:
    return has_cuda() or module.build_shm_op() is None


# ZeRO-3's gathering of parameters ------------------------------------------------------------------------


def _gather_one_by_one(module: ModuleType) -> None:
    if has_cuda():
        return
    init = module.Init
    gather = init._allgather_params_coalesced

    def gather_one_by_one(self: Any, param_list: list[Any], *args: Any, **kwargs: Any) -> None:
        # DeepSpeed starts all gathers and waits for the last one. NCCL runs them in order, so that is enough there;
        # gloo does not, and a gather that is still running overwrites what has been loaded into its parameter.
        for param in param_list:
            gather(self, [param], *args, **kwargs)

    init._allgather_params_coalesced = gather_one_by_one


def _gathers_one_by_one(module: ModuleType) -> bool:
    return has_cuda() or module.Init._allgather_params_coalesced.__name__ == "gather_one_by_one"


# replay buffer --------------------------------------------------------------------------------------------


def _use_cpu_replay_buffer(module: ModuleType) -> None:
    if has_cuda():
        return
    import torch

    buffer = module.NaiveReplayBuffer
    original = buffer.__init__

    def init_on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        current_device = torch.cuda.current_device
        torch.cuda.current_device = lambda: 0  # only to get past torch.device(f"cuda:{...}")
        try:
            original(self, *args, **kwargs)
        finally:
            torch.cuda.current_device = current_device
        self.target_device = torch.device("cpu")

    buffer.__init__ = init_on_cpu


def _replay_buffer_is_cpu(module: ModuleType) -> bool:
    return has_cuda() or module.NaiveReplayBuffer(1).target_device.type == "cpu"


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="torch.cuda calls without a device",
        target="torch",
        touches=("cuda.current_device", "cuda.synchronize", "cuda.set_device", "cuda.current_stream"),
        reason="OpenRLHF calls torch.cuda.current_device, synchronize, set_device and current_stream",
        versions=f"{_OPENRLHF}, torch 2.13.0",
        apply=_replace_cuda_calls,
        probe=_cuda_calls_are_safe,
    ),
    Patch(
        name="flash-attn's padding helpers",
        target="openrlhf.models.ring_attn_utils",
        touches=("index_first_axis", "pad_input", "unpad_input", "all_gather"),
        reason="flash-attn is imported unconditionally and cannot be built without CUDA",
        versions=_OPENRLHF,
        before=_show_flash_attn_stub,
        apply=lambda module: None,
        probe=_flash_attn_is_hidden,
    ),
    Patch(
        name="DeepSpeed strategy on CPU",
        target="openrlhf.utils.deepspeed.deepspeed",
        touches=("init_device_mesh", "DeepspeedStrategy.get_ds_train_config"),
        reason='the device mesh names "cuda", the fused Adam needs a compiler',
        versions=f"{_OPENRLHF}, deepspeed 0.19.6",
        apply=_use_cpu_strategy,
        probe=_strategy_is_cpu,
    ),
    Patch(
        name="DeepSpeed's shared-memory op",
        target="deepspeed.comm.torch",
        touches=("build_shm_op",),
        reason="it is compiled at the first start (20 s), only inference uses it, and a start that is killed while "
        "compiling leaves a lock for which every later run waits forever",
        versions="deepspeed 0.19.6",
        apply=_skip_shm_op,
        probe=_shm_op_is_skipped,
    ),
    Patch(
        name="ZeRO-3 gathers that are waited for",
        target="deepspeed.runtime.zero.partition_parameters",
        touches=("Init._allgather_params_coalesced",),
        reason="of several gathers only the last is waited for; over gloo the others overwrite weights that were "
        "loaded meanwhile: on two ranks 2 of 6 loads left whole parameters uninitialized",
        versions="deepspeed 0.19.6",
        apply=_gather_one_by_one,
        probe=_gathers_one_by_one,
    ),
    Patch(
        name="replay buffer on CPU",
        target="openrlhf.trainer.ppo_utils.replay_buffer",
        touches=("NaiveReplayBuffer.__init__",),
        reason='the target device is built as torch.device(f"cuda:...")',
        versions=_OPENRLHF,
        apply=_use_cpu_replay_buffer,
        probe=_replay_buffer_is_cpu,
    ),
)
