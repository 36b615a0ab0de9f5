"""What a real model's folder brings along: several end tokens, a padded vocabulary, responses cut at their limit.

One engine with drafts, as the rollout actor sets it up, on a policy whose tokenizer knows fewer tokens than the
embedding has rows, whose `generation_config.json` has two end tokens and whose tokenizer has a third. Its responses go
through OpenRLHF's samples generator into the trainer's alignment.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import DEPTHS, FAMILIES, in_engine_process, start_engine, stop_engine, write_checkpoint

KNOWN = 200
"""Tokens of the tokenizer; the embedding has 256 rows."""
OWN_END, CONFIGURED_ENDS = 5, (17, 91)
ENDS = (OWN_END, *CONFIGURED_ENDS)
NOT_AN_END = 33
"""An end token by `config.json` alone, which nobody reads where there is a `generation_config.json`."""
PROMPT = [20, 21, 22, 23, 24]
SAMPLES, NEW_TOKENS, MAX_LEN = 400, 60, 128


def write_policy(folder: Path) -> None:
    """A nearly uniform policy, so that each token, the end tokens among them, is sampled once in 256 times."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    write_checkpoint(folder, FAMILIES["qwen2_tied"], init_scale=0.2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": [OWN_END, NOT_AN_END]}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(CONFIGURED_ENDS)}))
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(KNOWN)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=f"w{OWN_END}", pad_token=f"w{OWN_END}", unk_token="w0"
    ).save_pretrained(folder)


def respond(folder: Path) -> list[Any]:
    """Requests as OpenRLHF's executor makes them, answered with drafts."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from openrlhf_mtp.rollout.actor import on_whole_policy

    engine = start_engine(folder, skip_tokenizer_init=False, max_model_len=MAX_LEN)
    parameters = on_whole_policy(SamplingParams(max_tokens=NEW_TOKENS, min_tokens=1, seed=1))
    parameters.n = SAMPLES
    parameters.skip_special_tokens = False
    (request,) = engine.generate([TokensPrompt(prompt_token_ids=PROMPT)], parameters, use_tqdm=False)
    stop_engine(engine)
    return list(request.outputs)


def sampled(output: Any) -> Any:
    """OpenRLHF's sample of a response."""
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    tokens = PROMPT + list(output.token_ids)
    response = {
        "prompt": "",
        "label": "",
        "observation_tokens": tokens,
        "action_ranges": [(len(PROMPT), len(tokens))],
        "truncated": output.finish_reason == "length",
        "rollout_log_probs": None,
    }
    return SamplesGenerator._process_response_into_experience(None, response, max_len=MAX_LEN)


def targets(samples: list[Any], pad: int) -> list[list[list[int]]]:
    """For each sample and depth the tokens that the head is trained to predict, in one batch with padding."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    from openrlhf_mtp.losses.alignment import action_positions, find_anchors

    trajectories = [
        Experience(sequences=one.sequences, attention_mask=one.attention_mask, action_mask=one.action_mask)
        for one in samples
    ]
    batch = Experience.concat_experiences(trajectories, pad)
    anchors = find_anchors(
        batch.sequences, action_positions(batch.action_mask), batch.attention_mask.long(), DEPTHS
    )
    found: list[list[list[int]]] = [[[] for _ in range(DEPTHS)] for _ in samples]
    for row, tokens, counts in zip(
        anchors.row.tolist(), anchors.tokens.tolist(), anchors.mask.tolist(), strict=True
    ):
        for depth in range(DEPTHS):
            if counts[depth]:
                found[row][depth].append(tokens[depth])
    return found


def measure(root: str) -> dict[str, Any]:
    """Everything that the tests below ask about."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from openrlhf_mtp.config.model_files import read_model_config
    from openrlhf_mtp.config.tokenizer_files import end_tokens, read_tokenizer
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    folder = Path(root)
    write_policy(folder)
    outputs = respond(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    worst, unknown = 0.0, 0
    for output in outputs:
        ids = list(output.token_ids)
        with torch.no_grad():
            logits = policy(torch.tensor([PROMPT + ids])).logits[0, len(PROMPT) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()
        reported = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
        worst = max([worst, *(abs(a - b) for a, b in zip(expected, reported, strict=True))])
        unknown += sum(token >= KNOWN for token in ids)
        # as OpenRLHF does for the reward
        text = tokenizer.decode(PROMPT + ids, skip_special_tokens=False)
        assert text.replace(" ", "") == "".join(f"w{token}" for token in PROMPT + ids if token < KNOWN)
    samples = [sampled(output) for output in outputs]
    return {
        "responses": [list(output.token_ids) for output in outputs],
        "reasons": [output.finish_reason for output in outputs],
        "check": sorted(end_tokens(folder, read_tokenizer(folder), read_model_config(root) or {})),
        "worst": worst,
        "unknown": unknown,
        "targets": targets(samples, tokenizer.pad_token_id),
        "actions": [int(sample.action_mask.sum()) for sample in samples],
        "truncated": [bool(sample.truncated) for sample in samples],
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results: dict[str, Any] = in_engine_process(__file__, "measure", str(tmp_path_factory.mktemp("policy")))
    return results


def test_a_response_ends_at_each_end_token_that_check_names_and_at_no_other(measured: dict[str, Any]) -> None:
    assert measured["check"] == sorted(ENDS)
    last = Counter(response[-1] for response in measured["responses"])
    assert all(last[end] >= 5 for end in ENDS), last
    assert sum(response.count(NOT_AN_END) for response in measured["responses"]) > 0
    for response, reason in zip(measured["responses"], measured["reasons"], strict=True):
        assert not set(response[:-1]) & set(ENDS), "the response goes on after an end token"
        assert (reason == "stop") == (response[-1] in ENDS)
        assert reason == "stop" or len(response) == NEW_TOKENS


def test_the_end_token_is_an_action_and_a_cut_response_has_none(measured: dict[str, Any]) -> None:
    assert measured["actions"] == [len(response) for response in measured["responses"]]
    assert measured["truncated"] == [reason == "length" for reason in measured["reasons"]]
    assert any(measured["truncated"])
    assert not all(measured["truncated"])


def test_the_end_token_is_the_last_target_of_the_head_and_padding_is_none(measured: dict[str, Any]) -> None:
    # padding is made of an end token here: a target beyond the end would be one more
    for response, by_depth in zip(measured["responses"], measured["targets"], strict=True):
        for depth, tokens in enumerate(by_depth, start=1):
            assert tokens == response[depth:]


def test_tokens_beyond_the_tokenizer_are_sampled_and_scored_alike(measured: dict[str, Any]) -> None:
    count = sum(map(len, measured["responses"]))
    assert measured["unknown"] > 0.15 * count, "a fifth of the embedding's rows have no token"
    assert measured["worst"] < 1e-3
