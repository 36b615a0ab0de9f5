"""A prompt is the same tokens before RL and in it: with a chat template, a system prompt, and where it is cut."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openrlhf")

from openrlhf_mtp.config.errors import JobError
from tests.processes import in_fresh_process

BOS, EOS, TURN = "<bos>", "<eos>", "<turn>"
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}" + TURN + " system help " + TURN + "{% endif %}"
    "{% for m in messages %}" + TURN + " {{ m['role'] }} {{ m['content'] }} " + TURN + "{% endfor %}"
    "{% if add_generation_prompt %}" + TURN + " assistant{% endif %}"
)
WORDS = ("system", "help", "user", "assistant", "a", "b", "c", "short", "4711")
MAX_LEN, NEW_TOKENS = 24, 8
ROWS: list[Any] = [
    "a b",
    [{"role": "user", "content": "c"}],
    [{"role": "system", "content": "short"}, {"role": "user", "content": "a"}],
    " ".join(["a"] * 15 + ["b"]),
]
"""The last one is longer than the room beside a response."""


def tokenizer() -> Any:
    """One token a word; like Llama's it adds the begin token by itself, and the chat template writes it too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(("<unk>", BOS, EOS, TURN, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BOS, eos_token=EOS, pad_token=EOS, additional_special_tokens=[TURN]
    )
    made.chat_template = TEMPLATE
    return made


def arguments(folder: Path, rows: list[Any] = ROWS, **data: Any) -> Any:
    """OpenRLHF's arguments for a policy in `folder`, whose embedding has twenty rows, and these rows of data."""
    (folder / "rows.jsonl").write_text("".join(json.dumps({"input": row}) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 20, "eos_token_id": 2}))
    tokenizer().save_pretrained(folder)
    settings = {
        "prompt_dataset": str(folder / "rows.jsonl"),
        "prompt_probs": None,
        "max_samples": 100,
        "prompt_split": "train",
        "input_key": "input",
        "label_key": None,
        "input_template": None,
        "apply_chat_template": True,
        "max_len": MAX_LEN,
    }
    return SimpleNamespace(
        data=SimpleNamespace(**(settings | data)),
        actor=SimpleNamespace(model_name_or_path=str(folder)),
        train=SimpleNamespace(seed=0, agent_func_path=None),
        rollout=SimpleNamespace(max_new_tokens=NEW_TOKENS),
        run=SimpleNamespace(run_folder=str(folder)),
    )


def before_rl(args: Any, heard: list[str]) -> list[list[int]]:
    from openrlhf_mtp.cli.pretrain import tokenized_prompts

    return tokenized_prompts(args, tokenizer(), None, MAX_LEN - NEW_TOKENS, tell=heard.append)


def in_rl(args: Any) -> list[list[int]]:
    """The tokens that OpenRLHF's executor gives to an engine."""
    from vllm import SamplingParams

    from openrlhf_mtp.cli.pretrain import _OfflineStrategy
    from openrlhf_mtp.rollout.rewards import StrictSingleTurnExecutor
    from openrlhf_mtp.training.controller.prompts import CheckedPrompts

    given: list[list[int]] = []

    async def generate(tokens: list[int], *_: Any, **__: Any) -> Any:
        given.append(list(tokens))
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=[2], finish_reason="stop", logprobs=None, text="")]
        )

    with Path(args.data.prompt_dataset).open() as lines:
        rows = [json.loads(line) for line in lines]
    data = rows  # all that OpenRLHF asks of a data set is to go through it
    executor, made = StrictSingleTurnExecutor(), tokenizer()
    for prompt in CheckedPrompts(data, made, _OfflineStrategy(args)).prompts:
        asyncio.run(
            executor.execute(
                prompt,
                "",
                SamplingParams(max_tokens=NEW_TOKENS),
                MAX_LEN,
                made,
                SimpleNamespace(generate=generate),
            )
        )
    return given


@pytest.mark.parametrize("rows", [ROWS[:1] + ROWS[3:], ROWS[1:3]], ids=["texts", "messages"])
def test_prompts_before_rl_and_in_rl_are_the_same_tokens(tmp_path: Path, rows: list[Any]) -> None:
    args = arguments(tmp_path, rows)
    assert before_rl(args, []) == in_rl(args)


def test_a_template_is_applied_with_one_begin_token_and_the_generation_prompt(tmp_path: Path) -> None:
    made = tokenizer()
    assert made("a")["input_ids"][0] == made.bos_token_id, "this tokenizer adds none, so nothing is proven"
    for row, tokens in zip(ROWS[1:3], before_rl(arguments(tmp_path, ROWS[1:3]), []), strict=True):
        assert tokens.count(made.bos_token_id) == 1
        assert made.decode(tokens[-2:]) == f"{TURN} assistant"
        assert ("help" in made.decode(tokens)) == (row[0]["role"] != "system")


def test_a_prompt_that_is_cut_is_said_with_what_it_loses(tmp_path: Path) -> None:
    heard: list[str] = []
    args = arguments(tmp_path, [ROWS[0], ROWS[3]])
    tokens = before_rl(args, heard)
    assert tokens[1][0] != tokenizer().bos_token_id
    assert len(tokens[1]) == MAX_LEN - NEW_TOKENS
    text = next(one for one in heard if "cut at the beginning" in one)
    assert "1 of 2 were cut at the beginning to fit 16 tokens" in text
    assert "the start of the chat template and the system prompt" in text


def test_a_template_whose_turns_end_where_no_response_ends_is_said(tmp_path: Path) -> None:
    heard: list[str] = []
    args = arguments(tmp_path, ROWS[:1])
    before_rl(args, heard)
    (text,) = heard
    assert f"closes an answer with 3 ({TURN}), and responses end at 2 ({EOS})" in text
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    heard.clear()
    before_rl(args, heard)
    assert heard == []


def test_a_begin_token_in_the_data_beside_the_templates_is_said(tmp_path: Path) -> None:
    heard: list[str] = []
    args = arguments(tmp_path, [f"{BOS} {BOS} a"], apply_chat_template=False)
    before_rl(args, heard)
    assert heard == [heard[0]]
    assert "1 of 1 start with two begin tokens (1)" in heard[0]


def test_a_token_without_a_row_in_the_embedding_ends_the_run_by_name(tmp_path: Path) -> None:
    args = arguments(tmp_path, ["a b", "c 4711"])
    (tmp_path / "config.json").write_text('{"vocab_size": 12}')
    with pytest.raises(JobError, match=r"a prompt holds the token 12 \(4711\), and .* embedding has 12 rows"):
        before_rl(args, [])


def test_rl_says_the_same_before_its_first_rollout(tmp_path: Path) -> None:
    from openrlhf_mtp.runlog.notices import read_notices
    from openrlhf_mtp.training.controller.prompt_tokens import say_about_prompts

    args = arguments(tmp_path, apply_chat_template=False)
    say_about_prompts(args, tokenizer(), ["a b", *["a"] * 2, " ".join(["a"] * 30)])
    (text,) = read_notices(tmp_path)
    assert "1 of 4 were cut at the beginning to fit 16 tokens; the longest has 30" in text


def prepared(folder: str) -> tuple[list[str], list[str]]:
    """The prompts that OpenRLHF's loader yields for a job with an evaluation, and what is said of them."""
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    from torchdata.stateful_dataloader import StatefulDataLoader

    from openrlhf_mtp.runlog.notices import read_notices
    from openrlhf_mtp.training.controller.loop import bind_ours
    from openrlhf_mtp.training.controller.prompt_position import prepare_datasets

    bind_ours()
    args = arguments(Path(folder), [ROWS[0], ROWS[3]], dataloader_num_workers=0)
    args.eval = SimpleNamespace(dataset=args.data.prompt_dataset, split="train")
    args.train = SimpleNamespace(seed=0, agent_func_path=None, batch_size=2, num_episodes=1, max_epochs=1)
    args.rollout = SimpleNamespace(max_new_tokens=NEW_TOKENS, batch_size=2, n_samples_per_prompt=1)
    args.ds = SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1)
    args.actor.num_nodes = args.actor.num_gpus_per_node = 1
    args.critic = SimpleNamespace(model_name_or_path=None)
    strategy = SimpleNamespace(
        args=args,
        print=lambda *_: None,
        is_rank_0=lambda: False,
        setup_dataloader=lambda data, size, _pin, _shuffle, collate, num_workers: StatefulDataLoader(
            data, batch_size=size, collate_fn=collate, num_workers=num_workers
        ),
    )
    loader, _, _ = prepare_datasets(strategy, tokenizer())
    return [prompt for _, prompts, _, _ in loader for prompt in prompts], read_notices(Path(folder))


def test_a_controller_says_it_of_training_and_evaluation_data(tmp_path: Path) -> None:
    prompts, said = in_fresh_process(prepared, str(tmp_path))
    assert len(prompts) == 2
    assert all(prompt.endswith(f"{TURN} assistant") for prompt in prompts)
    assert any("1 of 2 were cut at the beginning to fit 16 tokens" in text for text in said)


@pytest.mark.parametrize(
    ("rows", "template", "expected"),
    [
        (ROWS[:1], None, "data.apply_chat_template: this is true, and the policy's tokenizer has no chat"),
        (ROWS[1:3], False, "got something else than text in row 1, 2 of 2, .*data.apply_chat_template=true"),
    ],
    ids=["no template", "messages without the setting"],
)
def test_prompts_that_cannot_be_made_are_refused_by_setting(
    tmp_path: Path, rows: list[Any], template: Any, expected: str
) -> None:
    from openrlhf_mtp.cli.pretrain import _OfflineStrategy
    from openrlhf_mtp.training.controller.prompts import CheckedPrompts

    args, made = arguments(tmp_path, rows, apply_chat_template=template is None), tokenizer()
    made.chat_template = template
    with pytest.raises(JobError, match=expected):
        CheckedPrompts([{"input": row} for row in rows], made, _OfflineStrategy(args))
