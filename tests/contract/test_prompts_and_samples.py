"""OpenRLHF's loader, samples generator and experience maker with what we add: positions, equal shares, filtering."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.processes import in_fresh_process

PROMPTS, EPISODES = 11, 3


def loader(workers: int = 0) -> Any:
    """OpenRLHF's prompt loader in ours, over `PROMPTS` numbers, shuffled again in each pass."""
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    from openrlhf_mtp.training.controller.prompt_position import PromptLoader

    torch.manual_seed(3)  # from which the loader draws its own seed
    data = [f"prompt {number}" for number in range(PROMPTS)]
    return PromptLoader(
        StatefulDataLoader(
            data,
            batch_size=1,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=lambda batch: ([""], batch, [None], [None]),
        )
    )


class Engine:
    """An engine that answers at once with two responses; their score is 1 when `passes` is true of the prompt."""

    def __init__(self, passes: Any) -> None:
        remote = lambda function: SimpleNamespace(remote=function)  # noqa: E731
        self.get_num_unfinished_requests = remote(lambda: 0)
        self.generate_responses = remote(self._answer)
        self._passes = passes

    def _answer(self, *, prompt: str, label: Any, **_: Any) -> list[dict[str, Any]]:
        response = {
            "prompt": prompt,
            "label": label,
            "observation_tokens": [1, 2, 3, 4],
            "action_ranges": [(2, 4)],
            "reward": 0.0,
            "scores": float(self._passes is None or self._passes(prompt)),
            "rollout_log_probs": None,
            "extra_logs": {},
        }
        return [response, response]


def generator(
    prompts: Any, out: str, *, rollout: int, generate: int, keep: Any = None, ranks: int = 1
) -> Any:
    """Our samples generator; Ray's calls return at once what they are asked for."""
    import openrlhf.trainer.ppo_utils.samples_generator as upstream

    from openrlhf_mtp.training.controller.sampling import TrainingSamples

    upstream.ray = SimpleNamespace(get=lambda refs: refs, wait=lambda refs, **_: (refs[:1], refs[1:]))
    args = SimpleNamespace(
        rollout=SimpleNamespace(
            batch_size=rollout, n_samples_per_prompt=2, vllm_generate_batch_size=generate
        ),
        algo=SimpleNamespace(
            advantage=SimpleNamespace(is_correction_level="off"),
            dynamic_filtering_enable=keep is not None,
            dynamic_filtering_range=(0.5, 2.0),
            kl=SimpleNamespace(init_coef=0.0),
        ),
        vllm=SimpleNamespace(enable_sleep=False),
        actor=SimpleNamespace(num_nodes=1, num_gpus_per_node=ranks),
        critic=SimpleNamespace(model_name_or_path=None),
        reward=SimpleNamespace(remote_url=["none"]),
        train=SimpleNamespace(agent_func_path=None, dynamic_batch_enable=False),
        ds=SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1),
        run=SimpleNamespace(run_folder=out),
    )
    return TrainingSamples(SimpleNamespace(args=args), prompts, None, None, [Engine(keep)])


def episodes(
    samples: Any, first: int, stop_after: int | None = None
) -> tuple[list[tuple[int, list[str]]], Any]:
    """(episode, prompts) of each rollout, as OpenRLHF's loop makes them, and the client state after the last one."""
    rollouts: list[tuple[int, list[str]]] = []
    state = None
    for episode in range(first, EPISODES):
        while True:
            found, _, _, exhausted = samples.generate_samples()
            if found:
                rollouts.append((episode, [one.prompts[0] for one in found[::2]]))
                state = (episode, copy.deepcopy(samples.prompts_dataloader.state_dict()))
                if len(rollouts) == stop_after:
                    return rollouts, state
            if exhausted:
                break
    return rollouts, state


def resumed_rollouts(rollout: int, generate: int, workers: int = 0) -> list[str]:
    """What is wrong when a run is resumed after each of its rollouts in turn."""
    import tempfile

    out = tempfile.mkdtemp()

    def fresh() -> Any:
        return generator(loader(workers), out, rollout=rollout, generate=generate)

    whole, _ = episodes(fresh(), 0)
    wrong = []
    for cut in range(1, len(whole) + 1):
        _, state = episodes(fresh(), 0, stop_after=cut)
        assert state is not None
        again = fresh()
        again.prompts_dataloader.load_state_dict(state[1])
        rest, _ = episodes(again, state[0])
        if rest != whole[cut:]:
            wrong.append(f"after {cut}: {rest} for {whole[cut:]}")
    return wrong


def resumed_with_an_old_checkpoint() -> list[tuple[int, list[str]]]:
    """Rollouts after the last one, with the state that OpenRLHF's own loader left."""
    import tempfile

    out = tempfile.mkdtemp()
    first = generator(loader(), out, rollout=4, generate=4)
    _, state = episodes(first, 0)
    assert state is not None
    again = generator(loader(), out, rollout=4, generate=4)
    again.prompts_dataloader.load_state_dict(state[1]["loader"])
    return episodes(again, state[0])[0]


def filtered(keep: Any, ranks: int = 1) -> tuple[int, list[str]]:
    """Rollouts of a run whose prompts are filtered, and what it says."""
    import tempfile
    from pathlib import Path

    from openrlhf_mtp.runlog.notices import read_notices

    out = tempfile.mkdtemp()
    rollouts, _ = episodes(generator(loader(), out, rollout=4, generate=4, keep=keep, ranks=ranks), 0)
    return len(rollouts), read_notices(Path(out))


def expected(keep: Any) -> list[tuple[str, int, str]]:
    """What the line of progress is told of the first rollout: its name, the responses asked for, and their word."""
    import tempfile
    from unittest.mock import patch

    from openrlhf_mtp.training.controller import sampling

    told = []

    @contextmanager
    def keep_progress(out: Any, name: str, progress: Any, generated: Any) -> Iterator[None]:
        yield
        told.append((name, progress.expected, progress.unit))

    with patch.object(sampling, "told_progress", keep_progress):
        episodes(generator(loader(), tempfile.mkdtemp(), rollout=4, generate=4, keep=keep), 0, stop_after=1)
    return told


def expected_of_evaluation() -> list[int]:
    """The responses that the line of progress expects of an evaluation, each time prompts are handed to an engine."""
    import tempfile

    made = generator(loader(), tempfile.mkdtemp(), rollout=4, generate=4)
    made.eval_dataloader, made.tokenizer = list(loader()), None
    seen, (engine,) = [], made.vllm_engines
    answer = engine.generate_responses.remote

    def watched(**asked: Any) -> Any:
        seen.append(made._progress.expected)
        return answer(**asked)

    engine.generate_responses = SimpleNamespace(remote=watched)
    made.generate_eval_samples(n_samples_per_prompt=2, max_len=64)
    made.generate_samples(n_samples_per_prompt=2, max_len=64)
    return seen


def shares(samples: int, ranks: int, micro: int) -> dict[str, Any]:
    """How a rollout is dealt out: sizes of the groups for the forward passes, and samples that each rank trains on."""
    import tempfile
    from pathlib import Path

    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    from openrlhf_mtp.runlog.notices import read_notices
    from openrlhf_mtp.training.controller.experience import EvenExperienceMaker, in_equal_parts

    def sample(number: int) -> Any:
        length = 3 + number % 4
        return Experience(
            sequences=torch.full((1, length), number),
            attention_mask=torch.ones(1, length, dtype=torch.long),
            action_mask=torch.ones(1, length - 1, dtype=torch.bool),
            rewards=torch.tensor([float(number)]),
            prompts=[str(number)],
            info={"reward": torch.tensor([float(number)])},
        )

    out = tempfile.mkdtemp()
    maker = object.__new__(EvenExperienceMaker)
    args = generator(None, out, rollout=4, generate=4, ranks=ranks).args
    args.rollout.micro_batch_size = micro
    maker.args, maker.tokenizer = args, SimpleNamespace(pad_token_id=0)
    groups = maker.split_rollout_samples([sample(number) for number in range(samples)])
    RemoteExperienceMaker.make_experience_batch = lambda self, rollout: (
        groups
    )  # the models' part is not the point here
    experiences = maker.make_experience_batch([])
    numbers = [[int(n) for one in part for n in one.rewards] for part in in_equal_parts(experiences, ranks)]
    for one in experiences:
        rows = zip(
            one.rewards.tolist(),
            one.info["reward"].tolist(),
            one.prompts,
            one.sequences.tolist(),
            strict=True,
        )
        for reward, in_info, prompt, tokens in rows:
            assert reward == in_info == float(prompt)
            length = 3 + int(prompt) % 4
            assert tokens[:length] == [int(prompt)] * length
    return {
        "groups": [len(group.sequences) for group in groups],
        "ranks": numbers,
        "said": read_notices(Path(out)),
        "untouched": all(mine is theirs for mine, theirs in zip(experiences, groups, strict=False)),
    }


def look() -> dict[str, Any]:
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    sizes = [(4, 4), (11, 11), (4, 8), (2, 11), (5, 12)]
    return {
        "resumed": {
            f"{rollout} of {generate}": resumed_rollouts(rollout, generate) for rollout, generate in sizes
        },
        "old checkpoint": resumed_with_an_old_checkpoint(),
        "nothing passes": filtered(lambda text: False),
        "half passes": filtered(lambda text: int(text.split()[1]) % 2 == 0),
        "fewer than ranks": filtered(lambda text: True, ranks=7),
        "expected": (expected(None), expected(lambda text: int(text.split()[1]) % 2 == 0)),
        "expected of an evaluation": expected_of_evaluation(),
        "shares": {case: shares(*case) for case in CASES},
    }


# samples, ranks, rollout.micro_batch_size -> sizes of groups, samples of each rank
CASES: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {
    (32, 2, 16): ([16, 16], [16, 16]),
    (32, 1, 12): ([12, 12, 8], [32]),
    (4, 2, 16): ([2, 2], [2, 2]),
    (12, 2, 16): ([6, 6], [6, 6]),
    (32, 2, 12): ([8, 8, 8, 8], [16, 16]),
    (7, 2, 16): ([4, 3], [3, 3]),
    (5, 4, 2): ([2, 1, 1, 1], [1, 1, 1, 1]),
}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    return in_fresh_process(look)


def test_a_resumed_run_draws_the_prompts_of_the_uninterrupted_one(seen):
    """Also after an episode's last, smaller one, and with prompts that were generated ahead of their training."""
    assert {case: wrong for case, wrong in seen["resumed"].items() if wrong} == {}


def test_a_finished_run_of_an_older_version_is_finished_when_resumed(seen):
    assert seen["old checkpoint"] == []


def test_filtering_that_leaves_nothing_is_said_while_it_happens_and_at_the_end(seen):
    rollouts, said = seen["nothing passes"]
    assert rollouts == 0
    while_it_happens, at_the_end = said
    assert "has drawn" in while_it_happens
    assert f"none of {PROMPTS} prompts" in at_the_end
    assert "scores seen: 0 to 0" in at_the_end


def test_filtering_that_leaves_enough_is_not_worth_a_word(seen):
    rollouts, said = seen["half passes"]
    assert rollouts > 0
    assert not [text for text in said if "none of" in text]


def test_a_last_rollout_with_fewer_samples_than_ranks_is_left_out_and_said(seen):
    rollouts, said = seen["fewer than ranks"]
    assert rollouts == EPISODES * 2, "two of four prompts an episode, the rest has six samples"
    assert "7 ranks need at least one each" in said[0]


def test_progress_counts_every_response_that_is_asked_for(seen):
    plain, with_replacements = seen["expected"]
    assert plain == [("rollout", 4 * 2, "responses")]
    (name, responses, _), *_ = with_replacements
    assert name == "rollout"
    assert responses > 4 * 2, "prompts that were filtered out are replaced"


def test_an_evaluation_is_expected_whole_from_its_beginning(seen):
    """OpenRLHF asks for as many prompts as a rollout has, one lot after the other."""
    assert seen["expected of an evaluation"] == [PROMPTS * 2] * PROMPTS + [4 * 2] * 4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_rank_gets_as_many_samples_as_the_others(seen, case):
    found, (groups, ranks) = seen["shares"][case], CASES[case]
    assert found["groups"] == groups
    assert [len(numbers) for numbers in found["ranks"]] == ranks
    dealt = [number for numbers in found["ranks"] for number in numbers]
    assert dealt == list(range(sum(ranks))), "in order, none twice"
    left_out = case[0] - sum(ranks)
    assert bool(found["said"]) == bool(left_out)
    if left_out:
        assert f"{left_out} of {case[0]} responses" in found["said"][0]
    assert found["untouched"] == (left_out == 0), "what comes out even stays as OpenRLHF deals it"
