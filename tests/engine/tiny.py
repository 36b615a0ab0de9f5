"""Tiny random checkpoints (policy and head) and a process of their own for engines.

vLLM keeps process-wide state (thread counts, process groups, metrics), so the tests start engines in a child and get
back plain values.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from openrlhf_mtp.rollout.environment import V2_RUNNER
from tests.engine.interpreter import interpret_on_cpu
from tests.patience import seconds

DEPTHS = 3
ROOT = Path(__file__).parents[2]

_ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
    V2_RUNNER: "0",
    # On a GPU vLLM's attention for float32 is Triton's, which rounds what it multiplies to 10 bits otherwise (TF32):
    # that moves distributions of the tests' heads by 0.005, and a token across the edge of top_p. Kernels that were
    # compiled without this stay where they are.
    "TRITON_F32_DEFAULT": "ieee",
    "TRITON_CACHE_DIR": str(ROOT / ".cache" / "triton_ieee"),
}

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "initializer_range": 0.15,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2"},
    "qwen2_tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 64},
    "llama": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral": {"model_type": "mistral", "head_dim": 64, "sliding_window": None},
    "seed_oss": {"model_type": "seed_oss", "head_dim": 64},
    "arcee": {"model_type": "arcee"},
}
"""Dense families, and what sets each apart: tied embeddings, query-key norms, head width, RoPE scaling, no gate."""

WITH_EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "head_dim": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
"""A trunk with experts, whose head is dense."""


def write_checkpoint(
    folder: Path, changes: dict[str, Any], *, num_blocks: int = 1, init_scale: float = 1.0
) -> None:
    """A random policy in `folder` and a random head in `folder/mtp`, both float32.

    Every parameter is random, norms and biases too, so that one that is forgotten or misplaced shows.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.head_folder import save_head
    from openrlhf_mtp.heads.head import MTPHead
    from openrlhf_mtp.heads.head_config import HeadConfig

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**SIZES, **changes})
    config.initializer_range *= init_scale
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    head = MTPHead(HeadConfig.from_trunk(config, depths=DEPTHS, num_blocks=num_blocks))
    with torch.no_grad():
        for module in (policy, head):
            for parameter in module.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        for parameter in head.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=config.initializer_range)
    policy.save_pretrained(folder)
    save_head(folder / "mtp", head)


def start_engine(folder: Path, *, speculate: bool = True, **changes: Any) -> Any:
    """An in-process `vllm.LLM` as the rollout actor would set it up, in float32.

    Args:
        folder: of the policy, with the head in `mtp`.
        speculate: whether it drafts.
        changes: to the engine's arguments; `num_blocks` of the head, and `verification` of the drafts, too.
    """
    from vllm import LLM

    from openrlhf_mtp.config.settings.mtp import MTPSettings
    from openrlhf_mtp.rollout.engine import engine_overrides

    num_blocks, verification = changes.pop("num_blocks", 1), changes.pop("verification", "standard")
    settings = MTPSettings.model_validate(
        {
            "depths": DEPTHS,
            "num_blocks": num_blocks,
            "rollout": {
                "speculate": speculate,
                "rejection_sample_method": verification,
                "dtype": "float32",
                "kv_cache_gib": 0.25,
                "max_num_seqs": 64,
            },
        }
    )
    arguments: dict[str, Any] = {
        **engine_overrides(settings, str(folder), trained=True),
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "max_model_len": 128,
        "enable_prefix_caching": False,
        "seed": 1,
        **changes,
    }
    engine = LLM(str(folder), **arguments)
    engine.collective_rpc("mtp_probe")
    return engine


def stop_engine(engine: Any) -> None:
    """Free an in-process engine, so that the next one starts clean."""
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def in_engine_process(
    test_file: str, function: str, *arguments: Any, timeout_s: float = 600, v2_runner: bool = False
) -> Any:
    """Run a function of a test module in a fresh Python; arguments and result are plain JSON values.

    `timeout_s` is scaled to the machine. With `v2_runner` the engines run vLLM's V2 model runner, without a GPU in
    Triton's interpreter; else V1's.

    Raises:
        AssertionError: with the child's output, when it failed.
        subprocess.TimeoutExpired: when it took too long.
    """
    with tempfile.NamedTemporaryFile("r") as result:
        words = [Path(test_file).stem, function, json.dumps(arguments), result.name]
        command = [sys.executable, "-c", f"from {__name__} import main; main()", *words]
        chosen = {"PYTHONPATH": python_path(), V2_RUNNER: str(int(v2_runner))}
        environment = {**os.environ, **_ENGINE_ENVIRONMENT, **chosen}
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds(timeout_s), check=False
        )
        assert child.returncode == 0, f"{child.stdout[-5000:]}\n{child.stderr[-10000:]}"
        return json.load(result)


def python_path() -> str:
    """The checkout first: pytest alone knows our test folders, and an installed package may be called `tests` too."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def main() -> None:
    """In the fresh process: call the function and leave its result."""
    interpret_on_cpu()
    module, function, arguments, result = sys.argv[1:]
    measured = vars(importlib.import_module(f"tests.engine.{module}"))[function](*json.loads(arguments))
    Path(result).write_text(json.dumps(measured))
