"""Each host patch is live after its module is imported, and its probe notices when it is not."""

from __future__ import annotations

import importlib.util
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.upstream import cpu_host, uncompiled
from openrlhf_mtp.upstream.openrlhf import precision, reward_scale, zero3_rotary
from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.vllm import ray_on_cpu
from tests.processes import in_fresh_process

PATCHES = [
    *cpu_host.PATCHES,
    zero3_rotary.PATCH,
    uncompiled.TRAINER_PATCH,
    *uncompiled.MUON_PATCHES,
    precision.PATCH,
    reward_scale.PATCH,
    ray_on_cpu.PATCH,
]
BY_TARGET = {patch.target: patch for patch in PATCHES}
FLASH_ATTN_TARGET = "openrlhf.models.ring_attn_utils"
SHM_OP_TARGET = "deepspeed.comm.torch"
THE_OTHERS = [t for t in BY_TARGET if t not in ("torch", FLASH_ATTN_TARGET, SHM_OP_TARGET)]


def state_of(patch: Patch) -> str:
    """The probe's answer after an import of the target, or what the import or the probe raised."""
    try:
        return str(patch.probe(importlib.import_module(patch.target)))
    except Exception as error:
        return type(error).__name__


def states(applied: list[str], asked: list[str]) -> dict[str, Any]:
    """In a process with the patches of `applied`: the state of the targets `asked`."""
    from openrlhf_mtp.upstream.patching import install

    install([patch for patch in PATCHES if patch.target in applied])
    return {target: state_of(BY_TARGET[target]) for target in asked}


def cuda_calls() -> list[Any]:
    """What OpenRLHF's hard-coded calls return."""
    import torch

    return [
        torch.cuda.current_device(),
        torch.cuda.synchronize(),
        torch.cuda.set_device(0),
        torch.cuda.current_stream(),
        torch.cuda.is_available(),
        str(torch.zeros(1, device=torch.cuda.current_device()).device),
    ]


def adam_and_average() -> dict[str, Any]:
    """The strategy's Adam settings, and a moving average that asks for "cuda" as OpenRLHF's trainer does."""
    import torch
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    args = SimpleNamespace(ds=SimpleNamespace(param_dtype="bf16"), train=SimpleNamespace())
    strategy = DeepspeedStrategy(args=args)
    strategy.accumulated_gradient = 1
    given = {"type": "AdamW", "params": {"lr": 0.5}}
    config = strategy.get_ds_train_config(optim_dict=given, max_norm=2.0)
    muon = strategy.get_ds_train_config(optim_dict={"type": "Muon", "params": {"lr": 0.25}})
    model, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(average.weight, 0.0)
    strategy.moving_average(model, average, 0.75, "cuda")
    return {
        "adam": config["optimizer"]["params"],
        "muon": muon["optimizer"]["params"],
        "clipping": config["gradient_clipping"],
        "given": given,
        "average": average.weight.item(),
        "without optimizer": "optimizer" in strategy.get_ds_train_config(),
    }


def sixteen_bits_of(param_dtype: str) -> dict[str, Any]:
    """What OpenRLHF makes of a precision: the type models are loaded in, and what DeepSpeed is told to switch on."""
    from openrlhf.utils.deepspeed import DeepspeedStrategy
    from openrlhf.utils.utils import convert_to_torch_dtype

    strategy = DeepspeedStrategy(
        args=SimpleNamespace(ds=SimpleNamespace(param_dtype=param_dtype), train=SimpleNamespace())
    )
    strategy.accumulated_gradient = 1
    configs = [strategy.get_ds_train_config(), strategy.get_ds_eval_config()]
    return {
        "models": str(convert_to_torch_dtype(param_dtype)),
        "on": [[bits for bits in ("bf16", "fp16") if config[bits]["enabled"]] for config in configs],
        "gradients": [
            config["data_types"]["grad_accum_dtype"] for config in configs if "data_types" in config
        ],
    }


def scale_of_a_reward_model() -> list[float]:
    """Mean and standard deviation of a reward model that was saved with 0.5 and 2."""
    import torch
    from openrlhf.models import get_llm_for_sequence_regression
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=16, num_hidden_layers=1, num_labels=1, **sizes)
    config.mean, config.std = 0.5, 2.0
    with TemporaryDirectory() as folder:
        Qwen2ForSequenceClassification(config).save_pretrained(folder)
        model = get_llm_for_sequence_regression(
            folder, "reward", normalize_reward=True, attn_implementation="eager"
        )
    assert next(model.parameters()).dtype == torch.bfloat16
    return [model.mean.item(), model.std.item()]


def look_at_prepared_process() -> dict[str, Any]:
    """A process as the driver and every worker prepare it."""
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    return {
        "states": {target: state_of(patch) for target, patch in BY_TARGET.items()},
        "cuda calls": cuda_calls(),
        "strategy": adam_and_average(),
        "scale": scale_of_a_reward_model(),
        "precisions": {name: sixteen_bits_of(name) for name in ("bf16", "fp16", "fp32")},
    }


def look_at_unprepared_process() -> dict[str, Any]:
    """A process without any patch; the operator's own function is not called, because it would compile."""
    import torch

    return {
        "torch": state_of(BY_TARGET["torch"]),
        SHM_OP_TARGET: BY_TARGET[SHM_OP_TARGET].probe(SimpleNamespace(build_shm_op=lambda: torch)),
        FLASH_ATTN_TARGET: state_of(BY_TARGET[FLASH_ATTN_TARGET]),
    }


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    return in_fresh_process(look_at_prepared_process)


@pytest.fixture(scope="module")
def unprepared() -> dict[str, Any]:
    return in_fresh_process(look_at_unprepared_process)


def test_every_patch_is_live_in_a_prepared_process(prepared):
    assert prepared["states"] == dict.fromkeys(BY_TARGET, "True")


def test_hard_coded_cuda_calls_are_harmless(prepared):
    assert prepared["cuda calls"] == ["cpu", None, None, None, False, "cpu"]


def test_the_strategy_trains_with_torchs_adam_and_averages_on_the_cpu(prepared):
    assert prepared["strategy"] == {
        "adam": {"lr": 0.5, "torch_adam": True},
        "muon": {"lr": 0.25, "torch_adam": True},
        "clipping": 2.0,
        "given": {"type": "AdamW", "params": {"lr": 0.5}},
        "average": 0.25,
        "without optimizer": False,
    }


def test_a_loaded_reward_model_has_the_scale_that_it_was_saved_with(prepared):
    assert prepared["scale"] == [0.5, 2.0]


def test_float32_reaches_models_and_deepspeed_and_16_bits_stay(prepared):
    found = prepared["precisions"]
    assert {name: one["models"] for name, one in found.items()} == {
        "bf16": "torch.bfloat16",
        "fp16": "torch.float16",
        "fp32": "torch.float32",
    }
    assert {name: one["on"] for name, one in found.items()} == {
        "bf16": [["bf16"], ["bf16"]],
        "fp16": [["fp16"], ["fp16"]],
        "fp32": [[], []],
    }
    assert all(one["gradients"] == [None] for one in found.values()), "no type of their own: the model's"


def test_probes_notice_a_patch_that_is_not_applied():
    found = in_fresh_process(states, ["torch", FLASH_ATTN_TARGET, SHM_OP_TARGET], THE_OTHERS)
    assert "openrlhf.utils.deepspeed.deepspeed" in found
    assert "True" not in found.values(), found


def test_probes_notice_a_device_request_and_a_compiling_operator(unprepared):
    assert unprepared["torch"] != "True"
    assert unprepared[SHM_OP_TARGET] is False


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed, nothing is stubbed"
)
def test_openrlhf_cannot_be_imported_without_the_stub(unprepared):
    """When this fails, OpenRLHF has made flash-attn optional and the stub can go."""
    assert unprepared[FLASH_ATTN_TARGET] == "ModuleNotFoundError"
