"""A look at the prompts' tokens before the first rollout, as OpenRLHF's executors make them.

OpenRLHF cuts a prompt that is too long at its beginning, and says so in an engine's log. A token without a row in the
embedding ends the engine. Both are found here, on the driver's side, with the number of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import model_folder, read_model_config
from openrlhf_mtp.config.tokenizer_files import end_tokens, read_tokenizer
from openrlhf_mtp.runlog.notices import say

MOST_PROMPTS = 1000
"""Evenly spaced prompts that are looked at: a second or two of a start."""


def tokenize(tokenizer: Any, text: str) -> list[int]:
    """A prompt's tokens. The text is whole: a chat template writes the begin token, which is not added again."""
    ids: list[int] = tokenizer(text=text, add_special_tokens=False)["input_ids"]
    return ids


def spaced(prompts: Sequence[str], most: int = MOST_PROMPTS) -> Sequence[str]:
    """All prompts, or about `most` of them at equal distances."""
    return prompts[:: -(-len(prompts) // most)] if prompts else prompts


def say_about_prompts(args: Any, tokenizer: Any, prompts: Sequence[str]) -> None:
    """Look at a job's prompts, and put what a user should know among the run's notices."""
    if hasattr(tokenizer, "image_processor"):  # its prompts get their tokens with the images
        return
    tokens = [tokenize(tokenizer, text) for text in spaced(prompts)]
    # without a limit of its own a response still needs one token of the context
    room = None if args.train.agent_func_path else args.data.max_len - (args.rollout.max_new_tokens or 1)
    for text in examine(args, tokenizer, tokens, of=len(prompts), room=room):
        say(Path(args.run.run_folder), text)


def examine(
    args: Any, tokenizer: Any, tokens: Sequence[Sequence[int]], *, of: int, room: int | None
) -> Iterator[str]:
    """Yield what a user should know about the prompts and their tokenizer.

    Args:
        args: OpenRLHF's arguments.
        tokenizer: the policy's.
        tokens: of the prompts that are looked at.
        of: number of all prompts.
        room: tokens of a prompt that the engine takes; None where an agent decides.

    Raises:
        JobError: a token has no row in the policy's embedding.
    """
    policy, templated = args.actor.model_name_or_path, bool(args.data.apply_chat_template)
    config = read_model_config(policy) or {}
    if isinstance(rows := config.get("vocab_size"), int):
        require_rows(tokens, rows, tokenizer)
    if room is not None:
        yield from cut_prompts(tokens, of=of, room=room, templated=templated)
    yield from begun_twice(tokens, of=of, begin=tokenizer.bos_token_id)
    if templated and (folder := model_folder(policy)) is not None:
        yield from unended_turns(tokenizer, end_tokens(folder, read_tokenizer(folder), config))


def cut_prompts(tokens: Sequence[Sequence[int]], *, of: int, room: int, templated: bool) -> Iterator[str]:
    """Prompts of which the engine takes only the end; arguments as those of `examine`."""
    cut = sum(len(ids) > room for ids in tokens)
    if cut:
        lost = ", which takes the start of the chat template and the system prompt" if templated else ""
        yield (
            f"prompts: {cut} of {_seen(tokens, of)} were cut at the beginning to fit {room} tokens{lost}; the longest "
            f"has {max(map(len, tokens))}, and there is room for data.max_len less the limit of a response: raise "
            "data.max_len, or leave long prompts out"
        )


def begun_twice(tokens: Sequence[Sequence[int]], *, of: int, begin: int | None) -> Iterator[str]:
    """Prompts with two begin tokens: the data hold one, and the chat template writes another."""
    twice = 0 if begin is None else sum(list(ids[:2]) == [begin, begin] for ids in tokens)
    if twice:
        yield (
            f"prompts: {twice} of {_seen(tokens, of)} start with two begin tokens ({begin}); the chat template writes "
            "one, so leave it out of the data"
        )


def unended_turns(tokenizer: Any, ends: frozenset[int]) -> Iterator[str]:
    """A chat template that closes an answer with a token at which no response ends.

    Such a policy goes on after its answer with a user's turn that it makes up.

    Args:
        tokenizer: with a chat template.
        ends: tokens at which the engine ends a response.
    """
    answer = "4711"
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    except Exception:  # a template with rules of its own; the prompts themselves have passed it
        return
    after = tokenize(tokenizer, text.rpartition(answer)[2])
    if after and after[0] not in ends and after[0] in tokenizer.added_tokens_decoder:
        listed = ", ".join(_named(tokenizer, token) for token in sorted(ends)) or "no token"
        yield (
            f"the chat template closes an answer with {_named(tokenizer, after[0])}, and responses end at {listed}: "
            "add it to eos_token_id in the policy's generation_config.json, or they go on after the answer"
        )


def require_rows(tokens: Sequence[Sequence[int]], rows: int, tokenizer: Any) -> None:
    """Every token has a row in the embedding.

    Raises:
        JobError: with the token.
    """
    largest = max((max(ids) for ids in tokens if ids), default=0)
    if largest >= rows:
        raise JobError(
            f"data.prompt_dataset or eval.dataset: a prompt holds the token {_named(tokenizer, largest)}, and the "
            f"policy's embedding has {rows} rows (ids from 0); keep the token out of the data, or enlarge the model "
            "with transformers' resize_token_embeddings"
        )


def _named(tokenizer: Any, token: int) -> str:
    return f"{token} ({tokenizer.convert_ids_to_tokens(token)})"


def _seen(tokens: Sequence[Sequence[int]], of: int) -> str:
    return f"{of}" if len(tokens) == of else f"{len(tokens)} that were looked at (of {of})"
