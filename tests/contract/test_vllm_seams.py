"""What we rely on inside vLLM is there, and what we put there works."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402  (after vLLM, which sets up its platform first)

from openrlhf_mtp.rollout import plugin  # noqa: E402
from openrlhf_mtp.upstream import uncompiled  # noqa: E402
from openrlhf_mtp.upstream.patching import Patch, install  # noqa: E402
from openrlhf_mtp.upstream.vllm import sampling  # noqa: E402
from tests.patience import seconds  # noqa: E402


def vllm_on_cpu() -> bool:
    from vllm.platforms import current_platform

    return current_platform.is_cpu()


def test_the_installed_package_declares_the_plugin() -> None:
    from importlib.metadata import entry_points

    (ours,) = [point for point in entry_points(group="vllm.general_plugins") if point.name == "openrlhf_mtp"]
    assert ours.load() is plugin.register


def test_registering_twice_changes_nothing() -> None:
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    plugin.register()
    model = ModelRegistry.models[plugin.DRAFT_ARCHITECTURE]
    engine = WeightTransferEngineFactory._registry[plugin.WEIGHT_TRANSFER_BACKEND]
    plugin.register()
    assert ModelRegistry.models[plugin.DRAFT_ARCHITECTURE] is model
    assert WeightTransferEngineFactory._registry[plugin.WEIGHT_TRANSFER_BACKEND] is engine


def test_a_process_without_the_plugin_is_noticed() -> None:
    # a fresh process that never registers: what a worker looks like when VLLM_PLUGINS leaves us out
    script = "from openrlhf_mtp.rollout.plugin import missing; print(missing())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=seconds(110)
    )
    assert "draft architecture EagleMTPDraft" in done.stdout
    assert "weight-transfer engine 'mtp'" in done.stdout
    assert "depth of a draft step" in done.stdout
    if vllm_on_cpu():
        assert "draft temperatures on CPU" in done.stdout


def test_what_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "missing", lambda **_: ["draft architecture EagleMTPDraft"])
    with pytest.raises(plugin.PluginNotLiveError, match=r"EagleMTPDraft.*VLLM_PLUGINS"):
        plugin.probe()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.tensor([0.7, 0.0, 1.3]), [0.7, 0.7, 1.0, 1.3, 1.3, 1.3]),
        (torch.tensor([5, 0, 9], dtype=torch.int32), [5, 5, 1, 9, 9, 9]),
        (torch.tensor([2, 0, 3], dtype=torch.int64), [2, 2, 1, 3, 3, 3]),
    ],
    ids=["float32 temperatures", "int32 top-k", "int64"],
)
def test_our_kernel_repeats_a_value_for_each_drafted_token(
    values: torch.Tensor, expected: list[float]
) -> None:
    output = torch.full((6,), -1, dtype=values.dtype)
    sampling.ExpandKernel()[(3,)](output, values, torch.tensor([2, 3, 6], dtype=torch.int32), 0, 1)
    assert output.tolist() == pytest.approx(expected)


def test_a_request_without_drafts_takes_no_room() -> None:
    output = torch.full((2,), -1.0)
    sampling.expand(output, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([1, 1, 2]), 0, 1)
    assert output.tolist() == pytest.approx([0.5, 0.7])


def test_a_kernel_that_writes_nothing_is_recognised() -> None:
    class WritesNothing:
        def __getitem__(self, grid: object) -> object:
            return lambda *args, **kwargs: None

    assert not sampling.is_right(WritesNothing())
    assert sampling.is_right(sampling.ExpandKernel())


def test_the_patch_leaves_a_right_kernel_alone() -> None:
    from types import ModuleType

    kernels = ModuleType("kernels")
    right = sampling.ExpandKernel()
    kernels.expand_kernel = right  # type: ignore[attr-defined]
    sampling.PATCH.apply(kernels)
    assert kernels.expand_kernel is right


def test_the_patch_is_live_where_the_kernel_is_wrong() -> None:
    if not vllm_on_cpu():
        pytest.skip("only CPU workers use these kernels")
    import vllm.utils.cpu_triton_utils as kernels

    install([sampling.PATCH])
    assert sampling.is_right(kernels.expand_kernel)


@pytest.mark.parametrize("patch", uncompiled.ENGINE_PATCHES, ids=lambda patch: patch.name.split()[0])
def test_an_engine_on_a_cpu_compiles_no_three_lines_of_sampling(patch: Patch) -> None:
    if not vllm_on_cpu():
        pytest.skip("on a GPU they are worth it")
    module = importlib.import_module(patch.target)
    name = patch.name.split()[0]
    compiled = torch.compile(uncompiled.plain(vars(module)[name]))
    as_vllm_has_it = ModuleType(patch.target)
    vars(as_vllm_has_it)[name] = compiled
    assert not patch.probe(as_vllm_has_it)
    patch.apply(as_vllm_has_it)
    assert vars(as_vllm_has_it)[name] is not compiled
    plugin.register()
    assert patch.probe(module)


def test_torchs_exponential_noise_has_no_zeros() -> None:
    """vLLM compiled its sampler to avoid them: a token of any probability would win against every other."""
    noise = torch.empty(5_000_000).exponential_(generator=torch.Generator().manual_seed(0))
    assert noise.min() > 0


def test_the_proposer_still_knows_the_depth_and_asks_for_it_by_name() -> None:
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    plugin.register()
    build = SpecDecodeBaseProposer.build_per_group_and_layer_attn_metadata
    assert list(inspect.signature(build).parameters) == ["self", "common_attn_metadata", "draft_index"]
    assert "draft_index=token_index + 1" in inspect.getsource(SpecDecodeBaseProposer.propose)


def test_the_proposer_samples_drafts_only_under_the_settings_we_write() -> None:
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    source = inspect.getsource(SpecDecodeBaseProposer.__init__)
    assert 'rejection_sample_method == "standard"' in source
    assert 'draft_sample_method == "probabilistic"' in source


def test_a_finished_request_still_brings_its_drafts_in_order() -> None:
    from vllm import AsyncEngineArgs
    from vllm.outputs import CompletionOutput
    from vllm.v1.metrics.stats import RequestSpecDecodeMetrics

    assert "per_request_spec_decode_metrics" in {field.name for field in fields(AsyncEngineArgs)}
    assert "spec_decode_metrics" in {field.name for field in fields(CompletionOutput)}
    counted = RequestSpecDecodeMetrics.new(3)
    for accepted in (2, 0, 3):
        counted.observe(3, accepted, detailed=True)
    assert counted.per_step_accepted == [2, 0, 3]
    assert counted.per_step_drafted == [3, 3, 3]
    assert counted.num_spec_tokens == 3


def test_drafts_are_still_counted_before_a_response_is_cut() -> None:
    """So `EndedResponses` leaves out what lies beyond the end, and vLLM's own counters are not used."""
    from vllm.v1.core.sched.scheduler import Scheduler

    update = inspect.getsource(Scheduler.update_from_output)
    assert update.index("spec_decode_metrics.observe(") < update.index("_update_request_with_output(")
    assert "del new_token_ids[num_new:]" in inspect.getsource(Scheduler._update_request_with_output)


def test_the_engine_still_takes_every_argument_we_pass() -> None:
    from vllm import AsyncEngineArgs

    from openrlhf_mtp.config.settings.mtp import MTPSettings
    from openrlhf_mtp.rollout.engine import engine_overrides

    settings = MTPSettings.model_validate(
        {
            "rollout": {
                "speculate": False,
                "dtype": "float32",
                "max_num_seqs": 1,
                "max_num_batched_tokens": 1,
                "kv_cache_gib": 1.0,
            }
        }
    )
    known = {field.name for field in fields(AsyncEngineArgs)}
    assert set(engine_overrides(settings, "")) <= known


def executor_of(folder: Path, backend: str | None) -> type:
    """What vLLM would run the workers of an engine with, after its platform has had its say."""
    from vllm import AsyncEngineArgs
    from vllm.v1.executor.abstract import Executor

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 32, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    arguments = AsyncEngineArgs(
        str(folder), distributed_executor_backend=backend, skip_tokenizer_init=True, enforce_eager=True
    )
    return Executor.get_class(arguments.create_engine_config())


def test_an_engine_of_one_worker_keeps_no_second_process_that_burns_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not vllm_on_cpu():
        pytest.skip("only the CPU platform replaces the executor")
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from openrlhf_mtp.rollout.environment import executor

    monkeypatch.setattr(os, "environ", dict(os.environ))  # the platform writes into it
    os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    assert executor_of(tmp_path, executor("uni", cpu=True)) is UniProcExecutor
    upstreams = executor_of(tmp_path, "uni")
    assert upstreams is MultiprocExecutor, "vLLM no longer replaces `uni` on a CPU: pass it as OpenRLHF does"


@pytest.mark.parametrize(
    ("chosen", "cpu"), [("ray", True), ("mp", True), (None, True), ("uni", False), ("ray", False)]
)
def test_other_engines_run_as_openrlhf_has_it(chosen: str | None, cpu: bool) -> None:
    from openrlhf_mtp.rollout.environment import executor

    assert executor(chosen, cpu=cpu) == chosen


@pytest.mark.parametrize(
    "method",
    [
        "init_weight_transfer_engine",
        "start_weight_update",
        "start_draft_weight_update",
        "update_weights",
        "finish_weight_update",
    ],
)
def test_the_worker_still_has_the_calls_of_a_weight_update(method: str) -> None:
    from vllm.v1.worker.gpu_worker import Worker

    assert callable(vars(Worker)[method])


def test_a_compiled_draft_is_kept_by_its_configuration() -> None:
    from types import SimpleNamespace

    from transformers import Qwen2Config
    from vllm.config.speculative import SpeculativeConfig

    def engine(draft: object) -> SimpleNamespace:
        return SimpleNamespace(method="eagle", draft_model_config=draft)

    def of_blocks(number: int) -> SimpleNamespace:
        own = f"vLLM's hash of {number} blocks"
        return engine(
            SimpleNamespace(hf_config=Qwen2Config(mtp={"num_layers": number}), compute_hash=lambda: own)
        )

    plugin.register()
    key = SpeculativeConfig.compute_hash
    one, again, two = (key(of_blocks(number)) for number in (1, 1, 2))
    assert one == again
    assert len({one, two, key(engine(None))}) == 3
    upstreams = {inspect.unwrap(key)(of_blocks(number)) for number in (1, 2)}
    assert len(upstreams) == 1, "vLLM hashes the draft itself now: drop the patch"


def test_every_family_names_a_decoder_layer_that_vllm_has() -> None:
    from vllm.utils.import_utils import resolve_obj_by_qualname

    from openrlhf_mtp.config.families import FAMILIES

    for family in FAMILIES.values():
        layer = resolve_obj_by_qualname(family.vllm_layer.replace(":", "."))
        assert "prefix" in inspect.signature(layer.__init__).parameters
