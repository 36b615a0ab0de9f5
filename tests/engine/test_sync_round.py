"""A round into a real vLLM engine with a draft: it computes with the new policy and head, and every fault is found.

Trainer and engine share a process, and all cases are run there one after the other; the engine's calls run in a
thread, as a Ray actor's would.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.engine.tiny import (
    FAMILIES,
    WITH_EXPERTS,
    in_engine_process,
    start_engine,
    stop_engine,
    write_checkpoint,
)
from tests.patience import seconds

PROMPT_LENGTH = 48
# float32 on both sides: rounding of two implementations, 4e-6 was the largest seen
TOLERANCE = 1e-4
SIX_LAYERS = {"num_hidden_layers": 6}
CUT = {"vocab_size": 4200}  # an embedding of 2.05 MiB, in buckets of one
MANY_EXPERTS = {**WITH_EXPERTS, "num_experts": 16, "moe_intermediate_size": 80}
"""1.3 MB of stacked matrices, in buckets of one; the CPU kernel pads their width to 96."""
BREAKING = "tests.engine.breaking_worker.BreakingMTPExtension"
TWO_WORKERS = "qwen2, tied, 2 workers, 1 key-value head"

Measured = Callable[[str], dict[str, Any]]
"""What a case found, by its name."""


class LocalEngine:
    """`sync.sender.RolloutEngine` over an in-process LLM, calling what the rollout actor calls."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.calls: list[str] = []
        self._pool = ThreadPoolExecutor(1)

    def _rpc(self, method: str, *args: Any) -> Any:
        self.calls.append(method)
        return self.llm.collective_rpc(method, args=args)

    def sync_manifest(self) -> Future[Any]:
        from openrlhf_mtp.sync.manifest import held_by_engine

        return self._pool.submit(lambda: held_by_engine(self._rpc("mtp_manifest")))

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        return self._pool.submit(self._rpc, "init_weight_transfer_engine", init_info)

    def sync_round(self, request: dict[str, Any]) -> Future[Any]:
        return self._pool.submit(self._rpc, "mtp_sync_round", request)


class ActorsEngine(LocalEngine):
    """Receives a round as the rollout actor does, with all that it does to the engine before and afterwards."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        from openrlhf_mtp.rollout.actor import MTPRolloutActor

        self._actor = object.__new__(MTPRolloutActor)
        self._actor.llm = self
        self._core = llm.llm_engine.engine_core.engine_core

    def sync_round(self, request: dict[str, Any]) -> Future[Any]:
        return self._pool.submit(lambda: asyncio.run(self._actor.sync_round(request)))

    # what the actor calls on its `AsyncLLM`, here on the core that such a one runs in another process

    async def is_paused(self) -> bool:
        return bool(self._core.is_scheduler_paused())

    async def pause_generation(self, *, mode: str) -> None:
        self._core.pause_scheduler(mode)

    async def resume_generation(self) -> None:
        self._core.resume_scheduler()

    async def collective_rpc(self, method: str, args: tuple[Any, ...]) -> Any:
        return self._rpc(method, *args)

    async def reset_prefix_cache(self, *, reset_running_requests: bool) -> bool:
        return bool(self._core.reset_prefix_cache(reset_running_requests))


class Job:
    """Trainer copies of policy and head, one engine, and a sync between them; leaving it stops the engine.

    `engine` changes the arguments of an engine of one worker.
    """

    def __init__(self, folder: Path, workers: int = 1, backend: str = "ipc", **engine: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from openrlhf_mtp.config.settings.mtp import SyncSettings
        from openrlhf_mtp.heads.formats.head_folder import load_head, named_tensors

        self.policy = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.head = load_head(folder / "mtp", self.policy.config, dtype=torch.float32, device="cpu")
        several = {
            "tensor_parallel_size": workers,
            "distributed_executor_backend": "mp",
            "worker_extension_cls": BREAKING,
        }
        caching = engine or {"enable_prefix_caching": True, "block_size": 32}
        self.llm = start_engine(folder, **(several if workers > 1 else caching))
        self.engine = LocalEngine(self.llm)
        self.settings = SyncSettings.model_validate(
            {"bucket_mib": 1, "timeout_s": seconds(30), "backend": backend}
        )
        self.head_source = _source(lambda: named_tensors(self.head))
        self.policy_source = _source(self.policy.named_parameters)
        self.sync: Any = None

    def open(self) -> None:
        """Connect trainer and engine."""
        from openrlhf_mtp.sync.opening import open_sync

        self.sync = open_sync([self.engine], self.settings, self.policy_source, self.head_source)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        if self.sync is not None:
            self.sync.close()
        stop_engine(self.llm)

    def train(self) -> None:
        """An update that no tensor survives unchanged."""
        import torch

        with torch.no_grad():
            for parameter in [*self.policy.parameters(), *self.head.parameters()]:
                parameter += 0.05 * torch.randn_like(parameter)

    def gap(self) -> float:
        """Largest difference between the engine's prompt log-probs and the trainer's."""
        import torch
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        tokens = torch.randint(0, 256, (PROMPT_LENGTH,), generator=torch.Generator().manual_seed(1))
        sampling = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompt = TokensPrompt(prompt_token_ids=tokens.tolist())
        (output,) = self.llm.generate([prompt], sampling, use_tqdm=False)
        entries = zip(tokens[1:].tolist(), output.prompt_logprobs[1:], strict=True)
        engine = torch.tensor([logprobs[token].logprob for token, logprobs in entries])
        with torch.no_grad():
            trainer = self.policy(tokens[None]).logits[0, :-1].log_softmax(-1)
        return float((engine - trainer.gather(-1, tokens[1:, None])[:, 0]).abs().max())

    def start_request(self) -> int:
        """From now on a request runs; the number of tokens that it has produced so far."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        sampling = SamplingParams(max_tokens=40, ignore_eos=True, detokenize=False, logprobs=1)
        self.llm.llm_engine.add_request("running", TokensPrompt(prompt_token_ids=[7] * 40), sampling)
        outputs = [output for _ in range(3) for output in self.llm.llm_engine.step()]
        return len(outputs[-1].outputs[0].token_ids)

    def finish_request(self) -> Any:
        """The output of the request that runs, when it has ended."""
        outputs = []
        while self.llm.llm_engine.has_unfinished_requests():
            outputs = self.llm.llm_engine.step()
        (finished,) = outputs
        return finished

    def response(self) -> tuple[int, float]:
        """A response: how many tokens of its prompt came from the cache, and the largest difference between its
        log-probs and the trainer's."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        sampling = SamplingParams(max_tokens=8, ignore_eos=True, detokenize=False, logprobs=1)
        prompt = TokensPrompt(prompt_token_ids=list(range(20, 90)))
        (request,) = self.llm.generate([prompt], sampling, use_tqdm=False)
        return request.num_cached_tokens, max(gaps(request, self.policy))

    def failure(self) -> str:
        """The text of the error that the next round ends with."""
        from openrlhf_mtp.sync.errors import SyncError

        with pytest.raises(SyncError) as error:
            self.sync.round()
        return str(error.value)

    def worker(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.worker

    def keep_packed(self, layers: list[Any]) -> None:
        """From now on a finished update leaves these layers with the packed weights they have now."""
        packed = [layer.cpu_linear for layer in layers]
        transfer = self.worker().weight_transfer_engine
        finish = transfer.finish_weight_update

        def finish_and_forget() -> None:
            finish()
            for layer, old in zip(layers, packed, strict=True):
                layer.cpu_linear = old

        transfer.finish_weight_update = finish_and_forget


def gaps(request: Any, policy: Any) -> list[float]:
    """How far the log-probs that an engine returned with a response are from a policy's, token by token."""
    import torch

    prompt, output = request.prompt_token_ids, request.outputs[0]
    entries = zip(output.token_ids, output.logprobs, strict=True)
    engine = torch.tensor([entry[token].logprob for token, entry in entries])
    tokens = torch.tensor([*prompt, *output.token_ids])
    with torch.no_grad():
        rows = policy(tokens[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    found: list[float] = (engine - rows.gather(-1, tokens[len(prompt) :, None])[:, 0]).abs().tolist()
    return found


def response_gaps(llm: Any, policy: Any) -> list[float]:
    """The gaps of one sampled response of 24 tokens."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    sampling = SamplingParams(max_tokens=24, ignore_eos=True, detokenize=False, logprobs=1, seed=1)
    prompt = TokensPrompt(prompt_token_ids=list(range(20, 90)))
    (request,) = llm.generate([prompt], sampling, use_tqdm=False)
    return gaps(request, policy)


def round_undone(job: Any, undo: Callable[[], None]) -> str:
    """The error of a round after an update, at whose end the engine's worker is given back what `undo` puts there."""
    from openrlhf_mtp.sync.errors import StaleWeights

    transfer = job.worker.weight_transfer_engine
    finish = transfer.finish_weight_update

    def finish_and_forget() -> None:
        finish()
        undo()

    job.train()
    transfer.finish_weight_update = finish_and_forget
    with pytest.raises(StaleWeights) as stale:
        job.sync.round()
    del transfer.finish_weight_update
    return str(stale.value)


def _source(parameters: Callable[[], Any]) -> Any:
    from openrlhf_mtp.sync.manifest import Manifest, TensorSpec, WeightSource

    specs = tuple(TensorSpec(name, tuple(p.shape), "float32") for name, p in parameters())
    return WeightSource(Manifest(specs), parameters)


def sync_twice(job: Job) -> dict[str, Any]:
    """Two rounds after two updates; what was measured before and after, and what it took."""
    job.open()
    gaps, reports = [job.gap()], []
    for _ in range(2):
        job.train()
        gaps.append(job.gap())
        job.engine.calls.clear()
        reports.append(job.sync.round())
        gaps.append(job.gap())
    first, second = reports
    return {
        "gaps": gaps,
        "calls": job.engine.calls,
        "rpc_calls": second.rpc_calls,
        "buckets": second.buckets,
        "verified": (first.verified, second.verified),
        "tensors": len(list(job.policy.parameters())) + len(list(job.head.parameters())),
    }


def break_one_of_two(job: Job) -> dict[str, Any]:
    """Two rounds, and one in which a worker cannot load what it received, while the other waits for the next bucket."""
    found = sync_twice(job)
    found["calls"] = list(found["calls"])
    job.llm.collective_rpc("mtp_break", args=(1,))
    job.train()
    begin = time.monotonic()
    return {**found, "failure": job.failure(), "seconds": time.monotonic() - begin}


def sync_adapters(job: Job) -> dict[str, Any]:
    """A round after each of two updates of LoRA adapters alone: log-prob gaps before and after."""
    import torch
    from peft import LoraConfig, get_peft_model

    from openrlhf_mtp.training.trunk import unwrapped
    from openrlhf_mtp.training.weight_source import policy_source

    job.policy = get_peft_model(job.policy, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    job.policy_source = policy_source(unwrapped(job.policy), "float32", sharded=False)
    job.open()
    gaps, verified = [job.gap()], []
    for _ in range(2):
        with torch.no_grad():
            for name, parameter in job.policy.named_parameters():
                if "lora_" in name:
                    parameter += 0.05 * torch.randn_like(parameter)
        gaps.append(job.gap())
        verified.append(job.sync.round().verified)
        gaps.append(job.gap())
    return {"gaps": gaps, "verified": verified}


def sync_beside_a_request(job: Job) -> dict[str, Any]:
    """The same prompt twice, so that the cache serves it, and again after a round while another request ran, as in a
    partial rollout; how far that one's log-probs are from those of the policy before and after the update."""
    job.engine = ActorsEngine(job.llm)
    job.open()
    job.sync.round()
    responses = [job.response(), job.response()]
    begun, before = job.start_request(), copy.deepcopy(job.policy)
    job.train()
    verified = job.sync.round().verified
    running = job.finish_request()
    return {
        "responses": [*responses, job.response()],
        "verified": verified,
        "begun": begun,
        "before": gaps(running, before),
        "after": gaps(running, job.policy),
    }


def find_stale_copies(job: Job) -> dict[str, Any]:
    """Layers that keep their old packed weights through a round, as if processing had skipped them."""
    job.open()
    job.sync.round()
    target, draft = job.worker().model_runner.get_model(), job.worker().get_draft_model()
    layers = [
        target.model.layers[1].self_attn.qkv_proj,
        target.lm_head,
        draft.model.blocks[0].layer.mlp.down_proj,
    ]
    elements = [layer.weight.numel() for layer in layers]
    job.keep_packed(layers)
    job.train()
    return {"elements": elements, "failure": job.failure()}


def sync_experts(job: Job) -> dict[str, Any]:
    """Two rounds, then one after each fault that an engine's experts can have, and a last round without one."""
    import torch

    found = sync_twice(job)
    experts = job.worker().model_runner.get_model().model.layers[1].mlp.experts.routed_experts
    kernel, transfer = experts.quant_method.moe_kernel.fused_experts, job.worker().weight_transfer_engine
    finish, old = transfer.finish_weight_update, experts.w2_weight.detach().clone()
    place = "_map_global_expert_id_to_local_expert_id"

    def finish_with_an_old_copy() -> None:
        finish()
        with torch.no_grad():
            experts.w2_weight.copy_(old)

    faults = {
        "not packed": (kernel, "process_weights_after_loading", kernel._pad_moe_intermediate),
        "missed": (experts, place, lambda expert: -1 if expert == 2 else expert),
        "permuted": (experts, place, lambda expert: {1: 3, 3: 1}.get(expert, expert)),
        "stale": (transfer, "finish_weight_update", finish_with_an_old_copy),
    }
    failures = {}
    for name, (owner, method, fault) in faults.items():
        job.train()
        with patch.object(owner, method, fault):
            failures[name] = job.failure().splitlines()[1:]
    job.train()
    job.sync.round()
    return {**found, "failures": failures, "last_gap": job.gap()}


def refuse_and_damage(job: Job) -> dict[str, Any]:
    """A sync whose trainer holds other tensors, then one whose head is damaged on the way."""
    from openrlhf_mtp.sync.buckets import pack_into_buckets
    from openrlhf_mtp.sync.errors import ManifestMismatch
    from openrlhf_mtp.sync.opening import open_sync

    wrong = [(n.replace("norm.weight", "ln.weight"), p) for n, p in job.policy.named_parameters()]
    wrong[0] = (wrong[0][0], wrong[0][1][:-1])
    with pytest.raises(ManifestMismatch) as mismatch:
        open_sync([job.engine], job.settings, _source(lambda: wrong[:-1]), None)
    job.open()
    job.sync.round()
    send = job.sync._outlet.send
    name = "model.blocks.0.proj.weight"
    bucket = pack_into_buckets(job.head_source.manifest.tensors, job.settings.bucket_mib * 2**20)[0]
    offset = next(slot.offset for slot in bucket.slots if slot.spec.name == name)

    def damage(buffer: Any, place: str, *args: Any) -> None:
        if place == "round 2 head bucket 1/1":
            buffer[offset + 5] ^= 1
        send(buffer, place, *args)

    job.sync._outlet.send = damage
    return {"mismatch": str(mismatch.value), "failure": job.failure()}


ROUNDS: dict[str, tuple[dict[str, Any], int]] = {
    "qwen2": (FAMILIES["qwen2"], 1),
    "qwen2, tied, 6 layers": ({**FAMILIES["qwen2_tied"], **SIX_LAYERS, **CUT}, 1),
    TWO_WORKERS: ({**FAMILIES["qwen2_tied"], **CUT, "num_key_value_heads": 1}, 2),
    "qwen3": (FAMILIES["qwen3"], 1),
    "llama": (FAMILIES["llama"], 1),
    "mistral": (FAMILIES["mistral"], 1),
    "seed_oss": (FAMILIES["seed_oss"], 1),
    "arcee": (FAMILIES["arcee"], 1),
}
"""Case -> (what the policy's configuration changes, workers of the engine)."""

OVER_GLOO = ("qwen2, tied, 6 layers", "llama")
"""The cases in which rank 0 broadcasts; in the others it hands buckets over in shared memory."""

OTHERS: dict[str, tuple[Callable[[Job], dict[str, Any]], dict[str, Any]]] = {
    "adapters": (sync_adapters, FAMILIES["qwen2_tied"]),
    "beside a request": (sync_beside_a_request, FAMILIES["qwen2"]),
    "stale copies": (find_stale_copies, FAMILIES["qwen2_tied"]),
    "experts": (sync_experts, MANY_EXPERTS),
    "refused and damaged": (refuse_and_damage, FAMILIES["qwen2"]),
}


def measure_two_workers(root: str) -> dict[str, Any]:
    """The case whose engine cannot be stopped: after a failed call vLLM waits for its queues forever."""
    atexit.register(os._exit, 0)  # before vLLM's own
    folder = Path(root)
    changes, workers = ROUNDS[TWO_WORKERS]
    write_checkpoint(folder, changes)
    return break_one_of_two(Job(folder, workers))


def measure_all(root: str) -> dict[str, Any]:
    """Every case in one process; a case that fails gives its traceback."""
    cases = {name: (sync_twice, *case) for name, case in ROUNDS.items() if name != TWO_WORKERS}
    cases |= {name: (function, changes, 1) for name, (function, changes) in OTHERS.items()}
    results: dict[str, Any] = {}
    for name, (function, changes, workers) in cases.items():
        folder = Path(root) / name
        try:
            write_checkpoint(folder, changes)
            with Job(folder, workers, "gloo" if name in OVER_GLOO else "ipc") as job:
                results[name] = function(job)
        except Exception:
            results[name] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    results = in_engine_process(__file__, "measure_all", str(tmp_path_factory.mktemp("sync")))
    folder = str(tmp_path_factory.mktemp("two"))
    results[TWO_WORKERS] = in_engine_process(__file__, "measure_two_workers", folder)

    def of(case: str) -> dict[str, Any]:
        assert isinstance(results[case], dict), results[case]
        found: dict[str, Any] = results[case]
        return found

    return of


def assert_synced(found: dict[str, Any]) -> None:
    """Verification passed, and the prompt's log-probs, stale before each round, agree after it."""
    start, stale, synced, stale_again, synced_again = found["gaps"]
    assert max(start, synced, synced_again) < TOLERANCE
    assert min(stale, stale_again) > 0.1
    assert list(found["verified"]) == [True, True]


@pytest.mark.parametrize("case", ROUNDS)
def test_after_a_round_the_engine_computes_what_the_trainer_does(case: str, measured: Measured):
    found = measured(case)
    assert_synced(found)
    assert found["rpc_calls"] == 1, "however many tensors"
    assert found["calls"] == ["mtp_sync_round"]
    assert found["buckets"] < found["tensors"] / 2


def test_a_worker_that_fails_ends_the_round_of_its_engines_others_at_once(measured: Measured):
    found = measured(TWO_WORKERS)
    assert "engine 0 worker 1" in found["failure"]
    assert "this worker was told to fail" in found["failure"]
    assert found["seconds"] < seconds(15), "half of the deadline"


def test_engines_compute_with_merged_adapters_after_a_round(measured: Measured):
    assert_synced(measured("adapters"))


def test_no_request_is_served_from_blocks_that_older_weights_computed(measured: Measured):
    cached, gaps = zip(*measured("beside a request")["responses"], strict=True)
    assert cached == (0, 32, 0)
    assert max(gaps) < TOLERANCE


def test_each_part_of_a_response_that_a_round_interrupts_is_of_the_policy_that_sampled_it(measured: Measured):
    """A partial rollout, verified: the text before it was sampled by the old weights, and all of it, its first part
    computed again, is what the new weights continue."""
    found = measured("beside a request")
    assert found["verified"]
    begun, before, after = found["begun"], found["before"], found["after"]
    assert 3 <= begun < len(before) - 3 == len(after) - 3
    assert max(before[:begun] + after[begun:]) < TOLERANCE
    assert min(max(after[:begun]), max(before[begun:])) > 0.1, "two policies that differ"


def test_a_stale_packed_copy_is_found_and_named_in_policy_tied_output_head_and_draft(measured: Measured):
    found = measured("stale copies")
    # the linear layers' parameters are empty, so that no look at parameters could have found this
    assert found["elements"][0] == found["elements"][2] == 0
    assert found["failure"].splitlines()[1:] == [
        "  engine 0 policy: model.embed_tokens.weight (layer lm_head.weight, worker 0)",
        *(
            f"  engine 0 policy: model.layers.1.self_attn.{name}_proj.weight"
            " (layer model.layers.1.self_attn.qkv_proj.weight, worker 0)"
            for name in "kqv"
        ),
        "  engine 0 head: model.blocks.0.layer.mlp.down_proj.weight"
        " (layer model.blocks.0.layer.mlp.down_proj.weight, worker 0)",
    ]


def test_experts_are_sent_loaded_and_tried(measured: Measured):
    found = measured("experts")
    assert_synced(found)
    assert found["last_gap"] < TOLERANCE, "after rounds that failed"


@pytest.mark.parametrize(
    ("fault", "experts"),
    [
        ("not packed", ", ".join(map(str, range(16)))),
        ("missed", "2"),
        ("permuted", "1, 3"),
    ],
)
def test_experts_that_do_not_compute_with_what_arrived_are_named(
    fault: str, experts: str, measured: Measured
):
    (line,) = measured("experts")["failures"][fault]
    path = "model.layers.1.mlp.experts.routed_experts"
    assert line.startswith(f"  engine 0 policy: {path}: expert {experts}: not what arrived, off by ")


def test_a_stale_packed_copy_of_experts_is_found_at_the_end_of_the_round(measured: Measured):
    assert measured("experts")["failures"]["stale"] == [
        "  engine 0 policy: model.layers.1.mlp.experts.routed_experts: changed between its loading and the end of the"
        " round (worker 0)"
    ]


def test_other_tensors_are_listed_before_the_first_byte_and_damage_in_transit_is_named(
    measured: Measured,
):
    found = measured("refused and damaged")
    norms = [f"layers.{n}.{norm}_layer" for n in range(2) for norm in ("input", "post_attention")] + [""]
    expected = {"lm_head.weight: missing in the trainer"}
    expected |= {f"model.{norm}norm.weight: missing in the trainer" for norm in norms}
    expected |= {f"model.{norm}ln.weight: missing in the engine" for norm in norms}
    expected.add("model.embed_tokens.weight: shape [255, 128] in the trainer, [256, 128] in the engine")
    expected.add("  engine 0: drafts with a head that the trainer does not send")
    assert {
        line.removeprefix("  engine 0 policy: ") for line in found["mismatch"].splitlines()[1:]
    } == expected
    assert found["failure"].endswith(
        "round 2 head bucket 1/1: damaged in transit: model.blocks.0.proj.weight"
    )
