"""The measurements behind `bench rollout`, on a tiny random model: what they count, not how fast it is.

Whole rollouts have n-gram drafts too, which run beside our replacements in vLLM: a prompt in chunks, a seed and a
repetitive prompt show that those leave them alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import DEPTHS, FAMILIES, in_engine_process, write_checkpoint

LENGTHS = (3, 12, 20, 7)
PROMPTS = [[*range(32), *range(8)], [*range(31, -1, -1), *range(8)]]
VOCABULARY = 32
"""So few that a prompt has them all, and n-gram drafts follow on each token."""


def measure(root: str) -> dict[str, Any]:
    """Both settings at batch 1 and 2, as plain values."""
    from openrlhf_mtp.bench.rollout import compare
    from openrlhf_mtp.bench.rollout_engine import Workload, prepare_process
    from openrlhf_mtp.config.settings.mtp import MTPSettings

    prepare_process(on_cpu=True)
    write_checkpoint(Path(root), {**FAMILIES["qwen2"], "vocab_size": VOCABULARY})
    settings = MTPSettings.model_validate(
        {"depths": DEPTHS, "rollout": {"dtype": "float32", "kv_cache_gib": 0.25, "max_num_seqs": 2}}
    )
    reported = []
    workload = Workload([[1, 2, 3], [4, 5, 6, 7]], 12, [], batches=(1, 2), repeats=2)
    rows = compare(Path(root), settings, workload, reported.append)
    return {
        "whole": measure_whole(Path(root), settings),
        "reported": [(speed.batch, bool(speed.acceptance)) for speed in reported],
        "plain": [(row.plain.tok_s, row.plain.acceptance) for row in rows],
        "drafted": [(row.drafted.tok_s, row.drafted.acceptance) for row in rows],
    }


def measure_whole(root: Path, settings: Any) -> dict[str, Any]:
    """Two turns of three arms, whose engines live side by side; then seeded requests to the one with n-gram drafts."""
    from openrlhf_mtp.bench.drafting import parse_arms
    from openrlhf_mtp.bench.requests import with_lengths
    from openrlhf_mtp.bench.rollout_arms import WholeRollout, running_arms
    from openrlhf_mtp.bench.timeline import figures
    from openrlhf_mtp.bench.whole_rollout import measure

    settings = settings.model_copy(
        update={
            # prompts of 40 tokens are computed in chunks of 16
            "rollout": settings.rollout.model_copy(update={"max_num_seqs": 4, "max_num_batched_tokens": 16})
        }
    )
    work = WholeRollout(with_lengths(PROMPTS, LENGTHS), frozenset(range(VOCABULARY // 2)))
    arms = parse_arms("none,head,ngram:1:3", root / "mtp")
    lines: list[str] = []
    measured = measure(root, settings, arms, work, 2, lines.append)
    with running_arms(root, settings, arms[2:], work) as engines:
        alone = figures(engines["ngram:1:3"].roll_out())
        texts = [seeded(engines["ngram:1:3"].engine) for _ in range(2)]
    return {"measured": measured, "lines": lines, "alone": alone, "texts": texts}


def seeded(engine: Any) -> list[list[int]]:
    """Responses of requests with a seed to prompts that repeat themselves."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    parameters = [
        SamplingParams(seed=seed, max_tokens=12, ignore_eos=True, detokenize=False) for seed in (1, 2)
    ]
    prompts = [TokensPrompt(prompt_token_ids=[5, 6, 7, 8] * 10)] * 2
    return [list(each.outputs[0].token_ids) for each in engine.generate(prompts, parameters, use_tqdm=False)]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_engine_process(__file__, "measure", str(tmp_path_factory.mktemp("bench")))


def test_both_settings_are_measured_in_turn_in_one_process(result: dict[str, Any]) -> None:
    assert result["reported"] == [[1, False], [2, False], [1, True], [2, True]]
    for tok_s, acceptance in result["plain"]:
        assert len(tok_s) == 2
        assert min(tok_s) > 0
        assert acceptance == {}, "drafts were counted although nothing drafts"
    for tok_s, acceptance in result["drafted"]:
        assert len(tok_s) == 2
        # a random head is hardly ever right, and 12 tokens a sequence must come from somewhere
        assert 1.0 <= acceptance["spec/mean_acceptance_length"] < DEPTHS
        # two repeats of eight responses (or of eight in pairs) of 12 tokens, the first of which is not drafted
        tokens = acceptance["spec/drafts"] * acceptance["spec/mean_acceptance_length"]
        # and nothing beyond the end; the last draft of a response may give no token of the target's own
        assert 2 * 8 * 11 <= tokens <= 2 * 8 * 12


def test_whole_rollouts_take_turns_there_and_back_with_forced_lengths(result: dict[str, Any]) -> None:
    lines = result["whole"]["lines"]
    assert [line.split(":")[0] for line in lines] == ["none", "head", "ngram"] * 2 + ["ngram", "head", "none"]
    assert all("42 tokens" in line for line in lines[3:])
    for runs in result["whole"]["measured"].values():
        assert len(runs) == 2
        for run in runs:
            assert 0 < run["completion_p50"] < run["completion_max"] <= run["seconds"]
            assert run["tail_share"] == pytest.approx(1.0), "there are four responses in all"
            # half of the vocabulary counts as an end token, and ends nothing
            assert 0.5 < run["share_after_end"] < 1.0


def test_what_a_forward_gives_is_what_the_drafts_gave(result: dict[str, Any]) -> None:
    measured = result["whole"]["measured"]
    for run in measured["none"]:
        assert run["tokens_per_forward"] == 1.0
        assert "acceptance_rate" not in run
    for run in measured["head"]:
        assert 1.0 <= run["tokens_per_forward"] < DEPTHS
        assert 0.0 <= run["acceptance_rate"] < 1.0
    for run in [*measured["ngram:1:3"], result["whole"]["alone"]]:
        assert 1.0 <= run["tokens_per_forward"] < DEPTHS
        assert 0.0 <= run["acceptance_rate"] < 1.0, "every token stands in the prompt, so all are drafted for"


def test_seeded_responses_repeat_with_n_gram_drafts_beside_our_replacements(result: dict[str, Any]) -> None:
    first, again = result["whole"]["texts"]
    assert first == again
    assert first[0] != first[1]
