"""Adam on the host (`ds.adam_offload`): DeepSpeed's own CPU Adam, for policy and head, takes the updates of torch's.

`check` refuses the setting on a host without CUDA, where torch's Adam computes: DeepSpeed's has to be compiled, once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine import trainer_runs as runs
from tests.engine.tiny import ROOT
from tests.processes import on_ranks

pytestmark = pytest.mark.nightly

ROLLOUTS = 2
MTP: dict[str, Any] = {"objective": "kl", "optim": {"lr": 1e-3, "warmup_steps": 0}}


def use_deepspeeds_adam() -> None:
    """As on a host with CUDA: the optimizer that DeepSpeed chooses by itself."""
    from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy

    configured = DeepspeedStrategy.get_ds_train_config

    def as_deepspeed_chooses(self: Any, optim_dict: Any = None, **kwargs: Any) -> Any:
        config = configured(self, optim_dict=optim_dict, **kwargs)
        config.get("optimizer", {"params": {}})["params"].pop("torch_adam", None)
        return config

    DeepspeedStrategy.get_ds_train_config = as_deepspeed_chooses


def trained(folder: Path, out: Path, **flags: Any) -> dict[str, Any]:
    """The optimizers of policy and head, the float32 parameters before and after some updates, and the status."""
    actor = runs.build_float32_actor(runs.arguments(folder, out, MTP, **flags))
    engines = {"policy": actor.actor.model, "head": actor.trainer.head_trainer.engine}

    def everything() -> dict[str, Any]:
        head = runs.head_masters(actor.trainer.head_trainer)
        return runs.policy_parameters(actor) | {f"head {name}": value for name, value in head.items()}

    before = everything()
    statuses = runs.train(actor, range(ROLLOUTS), own_order=True)
    return {
        "optimizers": {name: type(engine.optimizer.optimizer).__name__ for name, engine in engines.items()},
        "before": before,
        "after": everything(),
        "norms": [(status["actor_grad_norm"], status["mtp/grad_norm"]) for status in statuses],
    }


def compare(folder: Path, out: Path) -> dict[str, Any]:
    """Plain values of this rank."""
    runs.prepare()
    on_gpu = trained(folder, out / "torch")
    use_deepspeeds_adam()
    offloaded = trained(folder, out / "offloaded", ds__adam_offload=True)
    return {
        "optimizers": offloaded["optimizers"],
        "norms": (on_gpu["norms"], offloaded["norms"]),
        "moved": runs.distance(on_gpu["after"], on_gpu["before"]),
        "apart": runs.distance(on_gpu["after"], offloaded["after"]),
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_offloaded_adam_takes_the_same_updates(
    ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("g++") is None or shutil.which("ninja") is None:
        pytest.skip("needs g++ and ninja: DeepSpeed compiles its Adam at its first use")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(ROOT / ".cache" / "torch_extensions"))
    monkeypatch.setenv("MAX_JOBS", "1")
    folder = runs.write_policy(tmp_path / "policy")
    for found in on_ranks(ranks, compare, folder, tmp_path / "runs"):
        assert found["optimizers"] == {"policy": "DeepSpeedCPUAdam", "head": "DeepSpeedCPUAdam"}
        assert found["moved"] > 0.1, "a model that did not move proves nothing"
        assert found["apart"] < 1e-3 * found["moved"], found
        plain, offloaded = found["norms"]
        for first, second in zip(plain, offloaded, strict=True):
            assert first == pytest.approx(second, rel=1e-3)
