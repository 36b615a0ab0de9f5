"""How long does a weight sync take? Rounds of random weights into a real vLLM engine in this process, over gloo.

    OMP_NUM_THREADS=1 python docs/sync_round.py --size 270m --out runs/sync_round

Prints one line a round. The first verified round reads every weight back, later ones a sample of each matrix.
CPU: half a minute for `tiny`, two minutes for `270m` (4 GB). Trainer and engine share the process and its cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.heads.formats.equip import equip
from openrlhf_mtp.heads.formats.head_folder import load_head, named_tensors
from openrlhf_mtp.rollout.engine import engine_overrides
from openrlhf_mtp.rollout.environment import prepare_environment
from openrlhf_mtp.sync.manifest import Manifest, TensorSpec, WeightSource
from openrlhf_mtp.sync.opening import open_sync

DTYPE = "bfloat16"
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 256, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2},
    "270m": {"vocab_size": 44000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16},
}


class InProcessEngine:
    """`sync.sender.RolloutEngine` over an `LLM` in this process, with calls in a thread as a Ray actor's would be."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._pool = ThreadPoolExecutor(1)

    def _rpc(self, method: str, *args: Any) -> Future[Any]:
        return self._pool.submit(self._llm.collective_rpc, method, args=args)

    def sync_manifest(self) -> Future[Any]:
        return self._pool.submit(lambda: self._llm.collective_rpc("mtp_manifest")[0])

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        return self._rpc("init_weight_transfer_engine", init_info)

    def sync_round(self, request: dict[str, Any]) -> Future[Any]:
        return self._rpc("mtp_sync_round", request)


def source(parameters: Callable[[], Iterable[tuple[str, Tensor]]]) -> WeightSource:
    specs = tuple(TensorSpec(name, tuple(p.shape), DTYPE) for name, p in parameters())
    return WeightSource(Manifest(specs), parameters)


def make_policy(folder: Path, size: dict[str, int]) -> None:
    """A random policy with a fresh head, unless there is one."""
    if folder.exists():
        return
    torch.manual_seed(0)
    config = Qwen2Config(**size, num_attention_heads=size["hidden_size"] // 64, num_key_value_heads=2)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    equip(folder, folder, depths=3)


def main(size: str, out: Path, rounds: int) -> None:
    from vllm import LLM

    folder = out / size
    make_policy(folder, SIZES[size])
    mtp = MTPSettings.model_validate({"rollout": {"kv_cache_gib": 0.25, "dtype": DTYPE}})
    llm = LLM(
        str(folder),
        **engine_overrides(mtp, str(folder)),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=128,
    )
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    head = load_head(folder / "mtp", policy.config, dtype=torch.bfloat16, device="cpu")
    sources = source(policy.named_parameters), source(lambda: named_tensors(head))
    for verify_every in (1, 0):
        settings = mtp.sync.model_copy(update={"verify_every": verify_every})
        sync = open_sync([InProcessEngine(llm)], settings, *sources)
        for number in range(1, rounds + 1):
            report = sync.round()
            assert report is not None
            print(
                f"verify_every {verify_every} round {number}: {report.seconds:.2f} s for {report.bytes / 1e6:.1f} MB"
                f" (pack {report.pack_s:.2f}, broadcast and load {report.broadcast_s:.2f}, verify"
                f" {report.verify_s:.2f}), {report.buckets} buckets, {report.rpc_calls} call an engine",
                flush=True,
            )
        sync.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="folder for the random policy")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    prepare_environment(cpu=not torch.cuda.is_available())
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    main(arguments.size, arguments.out, arguments.rounds)
