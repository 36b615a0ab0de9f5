"""The installed vLLM's loaders take a head exported under native names: every name and every shape.

For layouts that cannot be served here (`test_native_heads` serves the others). vLLM builds its own draft model of the
export's configuration, on the meta device, and loads the export's tensors into it with its own code, which asserts
shapes. What is left unset would be a tensor we did not write, or wrote under another name.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_native_heads import export_changed
from tests.processes import free_port, in_fresh_process


def stand_in_for_torchvision(folder: Path) -> None:
    """Let this process, and those it starts, import torchvision's stand-in."""
    (folder / "torchvision").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("torchvision_stand_in.py"), folder / "torchvision" / "__init__.py")
    about = folder / "torchvision-0.28.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    (about / "top_level.txt").write_text("torchvision\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def load(root: Path, layout: str, left_out: str) -> dict[str, Any]:
    """What an export leaves unset in vLLM's draft model of it: as it is, and without the tensors named `left_out`."""
    if layout == "qwen3_5":
        stand_in_for_torchvision(root / "stand_in")
    export_changed(root, layout, "native")

    import torch
    from safetensors.torch import load_file
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model

    folder = root / "exported"
    tensors = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
    config = EngineArgs(
        model=str(folder),
        dtype="bfloat16",  # vLLM's latent attention has no float32
        skip_tokenizer_init=True,
        max_model_len=128,
        enforce_eager=True,
        speculative_config={"method": "mtp", "num_speculative_tokens": 3},
    ).create_engine_config()
    found: dict[str, Any] = {}
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"tcp://127.0.0.1:{free_port()}", 0, "gloo")
        initialize_model_parallel(1, 1)
        for what, names in (
            ("whole", set(tensors)),
            ("part", {name for name in tensors if left_out not in name}),
        ):
            with torch.device("meta"):
                draft = initialize_model(
                    vllm_config=config, model_config=config.speculative_config.draft_model_config
                )
            loaded = draft.load_weights((name, tensors[name].to("meta")) for name in names)
            found[what] = {name for name, _ in draft.named_parameters()} - set(loaded)
            config.compilation_config.static_forward_context.clear()
    return {**found, "class": type(draft).__name__, "parameters": len(list(draft.parameters()))}


@pytest.mark.parametrize(
    ("layout", "draft", "some"),
    [
        ("qwen3_5", "Qwen3_5MTP", "pre_fc_norm_hidden"),
        ("deepseek_v3", "DeepSeekMTP", "kv_a_layernorm"),
    ],
)
def test_vllm_loads_every_parameter_and_misses_one_left_out(
    tmp_path: Path, layout: str, draft: str, some: str
) -> None:
    found = in_fresh_process(load, tmp_path, layout, some, warm=False)
    assert found["class"] == draft
    assert found["parameters"] > 10
    assert found["whole"] == set()
    assert found["part"], "a tensor that is not there is noticed"
    assert all(some in name for name in found["part"])
