"""vLLM's V2 model runner takes weights, drafts what training computes and counts, as V1's does.

Without a GPU its kernels run in Triton's interpreter (tests/engine/interpreter.py). That is slow, so that every run has
one engine, in which all hard cases meet: weights that arrived in a sync round, a head of two blocks, prompts in chunks,
four temperatures in a batch, and a sequence that fills the context. Nightly each family has one of its own.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.engine import test_draft_parity as parity
from tests.engine.test_sync_round import TOLERANCE as GAP_TOLERANCE
from tests.engine.test_sync_round import Job
from tests.engine.tiny import DEPTHS, FAMILIES, in_engine_process, write_checkpoint

BATCH = 4
ENGINE: dict[str, Any] = {
    "num_blocks": 2,
    "max_model_len": parity.CONTEXT,
    "max_num_batched_tokens": 16,
    "max_num_seqs": BATCH,
    "worker_extension_cls": parity.RECORDING,
}
NIGHTLY = ("qwen2_tied", "qwen2_tied_in_chunks", "qwen3", "llama", "mistral")
COINS = 48
"""Requests in the test of random numbers: fair coins come out alike for all of them once in 10^14 runs."""


def log_prob_gap(policy: Any, requests: list[Any]) -> float:
    """Largest difference between the engine's log-probs of its samples and the policy's at their temperatures."""
    import torch

    worst = 0.0
    for request, prompt, temperature in zip(requests, parity.prompts(), parity.TEMPERATURES, strict=True):
        output = request.outputs[0]
        tokens = torch.tensor([*prompt, *output.token_ids])
        with torch.no_grad():
            rows = policy(tokens[None]).logits[0, len(prompt) - 1 : -1] / temperature
        expected = rows.log_softmax(-1).gather(-1, tokens[len(prompt) :, None])[:, 0].tolist()
        got = [entry[token].logprob for token, entry in zip(output.token_ids, output.logprobs, strict=True)]
        worst = max([worst, *(abs(a - b) for a, b in zip(expected, got, strict=True))])
    return worst


def profiled(runner: Any) -> dict[str, Any]:
    """Sampling all drafts of a full batch as where memory is profiled, and what that leaves in the sampler."""
    import torch

    from openrlhf_mtp.config.sampler_memory import sampler_bytes
    from openrlhf_mtp.upstream.vllm.v2.sampler_profile import verify_all_drafts
    from tests.live_bytes import LiveBytes

    states = runner.sampler.sampling_states
    before = (states.temperature.np.tolist(), states.num_logprobs.tolist())
    hidden = torch.randn(BATCH, runner.model_config.get_hidden_size(), device=runner.device)
    with torch.inference_mode(), LiveBytes() as counted:
        output = verify_all_drafts(runner, hidden)
    return {
        "taken": counted.peak + runner.speculator.draft_logits.nbytes,
        "estimated": sampler_bytes(BATCH, DEPTHS, runner.vocab_size),
        "tokens": list(output.sampled_token_ids.shape),
        "log_probs": list(output.logprobs_tensors.logprobs.shape),
        "unchanged": (states.temperature.np.tolist(), states.num_logprobs.tolist()) == before,
    }


def coins(verify: Any, device: Any) -> list[list[bool]]:
    """Acceptance of a draft token at one position: as the second of a block, and as the first of the next one.

    Its chance is 1/2 both times: the policy gives it half the draft's probability, and a first token before it is as
    likely under both.
    """
    import torch

    with torch.device(device):
        even, draft, policy = (torch.tensor(p).log() for p in ([0.5, 0.5], [0.8, 0.2], [0.4, 0.6]))
        second = accepted(verify, [even, policy, even], [even, draft])
        return [second, accepted(verify, [policy, even], [draft, even])]


def accepted(verify: Any, target: list[Any], drawn_from: list[Any]) -> list[bool]:
    """Whether all drafts are accepted, for each of COINS requests; the last draft stands after position 7.

    Args:
        verify: `rejection_sample`, vLLM's or ours.
        target: logits of the policy after the last known token and after each draft.
        drawn_from: logits of the drafts, two always; token 0 was drawn of each.
    """
    import torch

    rows, ids = len(target), torch.arange(COINS)
    first = 7 + 2 - rows
    _, sampled = verify(
        torch.stack(target).repeat(COINS, 1),
        torch.stack(drawn_from).repeat(COINS, 1, 1),
        torch.zeros(COINS * rows, dtype=torch.int64),
        torch.arange(COINS + 1, dtype=torch.int32) * rows,
        (first + torch.arange(rows)).repeat(COINS),
        ids,
        ids.repeat_interleave(rows),
        torch.arange(rows, dtype=torch.int32).repeat(COINS),
        torch.ones(COINS),
        1000 + ids,
        2,
        use_block_verification=True,
    )
    return (sampled == rows).tolist()  # one token follows them


def measure(root: str) -> dict[str, Any]:
    """Everything that the tests below ask about."""
    from vllm.v1.worker.gpu.spec_decode import rejection_sampler, rejection_sampler_utils

    from openrlhf_mtp.rollout.ended_responses import EndedResponses

    folder = Path(root)
    write_checkpoint(folder, FAMILIES["qwen2"], num_blocks=2)
    with Job(folder, **ENGINE) as job:
        job.open()
        gaps = [job.gap()]
        job.train()
        gaps.append(job.gap())
        report = job.sync.round()
        gaps.append(job.gap())
        requests, proposals = parity.respond(job.llm)
        runner = job.worker().model_runner
        return {
            "runner": [one.__module__ for one in type(runner).__mro__],
            "gaps": gaps,
            "verified": report.verified,
            "parity": asdict(parity.compare(job.policy, job.head, requests, proposals)),
            "counted": [EndedResponses.of_outputs(request.outputs).responses[0] for request in requests],
            "log_prob_gap": log_prob_gap(job.policy, requests),
            "profiled": profiled(runner),
            "vLLM's coins": coins(rejection_sampler_utils.rejection_sample, runner.device),
            "our coins": coins(rejection_sampler.rejection_sample, runner.device),
        }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("v2"))
    results: dict[str, Any] = in_engine_process(__file__, "measure", folder, v2_runner=True)
    assert "vllm.v1.worker.gpu.model_runner" in results["runner"]
    return results


def test_after_a_round_the_engine_computes_what_the_trainer_does(measured: dict[str, Any]) -> None:
    start, stale, synced = measured["gaps"]
    assert max(start, synced) < GAP_TOLERANCE
    assert stale > 0.1
    assert measured["verified"] is True


def test_the_engine_drafts_what_training_computes(measured: dict[str, Any]) -> None:
    result = parity.Parity(**measured["parity"])
    print(result)
    assert max(result.tv) <= parity.TOLERANCE, result
    assert min(result.accepted, result.rejected) >= 5, result


def test_drafts_are_counted_and_log_probs_are_those_that_were_sampled_from(measured: dict[str, Any]) -> None:
    result = parity.Parity(**measured["parity"])
    # the last sequence fills the context, where vLLM verifies fewer drafts than were made
    assert measured["counted"][:-1] == result.by_request[:-1]
    assert measured["log_prob_gap"] < GAP_TOLERANCE


def test_all_drafts_are_sampled_where_memory_is_profiled(measured: dict[str, Any]) -> None:
    found, tokens = measured["profiled"], DEPTHS + 1
    assert found["tokens"] == [BATCH, tokens]
    assert found["log_probs"] == [BATCH * tokens, 2]
    assert found["unchanged"]
    assert found["taken"] < found["estimated"], "the estimate is V1's"


def test_a_position_gets_a_new_random_number_in_each_block(measured: dict[str, Any]) -> None:
    theirs, ours = measured["vLLM's coins"], measured["our coins"]
    assert theirs[0] == theirs[1], (
        "vLLM has new ones by itself: upstream.vllm.v2.block_noise is not needed any more"
    )
    assert 0 < sum(theirs[0]) < COINS
    assert sum(a != b for a, b in zip(*ours, strict=True)) > COINS / 8  # of fair coins half do


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("families"))
    results: dict[str, Any] = in_engine_process(
        parity.__file__, "measure_all", folder, list(NIGHTLY), {}, v2_runner=True, timeout_s=1500
    )
    return results


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", NIGHTLY)
def test_every_family_drafts_what_training_computes(case: str, families: dict[str, Any]) -> None:
    assert isinstance(families[case], dict), families[case]
    result = parity.Parity(**families[case])
    assert max(result.tv) <= parity.TOLERANCE, result
    assert min(result.accepted, result.rejected) >= 5, result


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_seeded_response_is_the_same_whether_its_prompt_was_cut_or_not(families: dict[str, Any]) -> None:
    whole, cut = (parity.Parity(**families[case]) for case in ("qwen2_tied", "qwen2_tied_in_chunks"))
    assert cut.responses == whole.responses
