"""The policy's tokenizer: its tokens have rows in the embedding, and responses can end."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, refuse, warn
from openrlhf_mtp.config.tokenizer_files import configured_ends, end_tokens

SETTING = "actor.model_name_or_path"


def embedded(context: JobContext) -> Iterator[Problem]:
    """A token beyond the embedding ends the run in its first batch, on a GPU with a device-side assertion."""
    rows = (context.model_config or {}).get("vocab_size")
    tokenizer = context.tokenizer
    if tokenizer is None or not isinstance(rows, int):
        return
    text, token = tokenizer.last
    beyond = {role: entry for role, entry in tokenizer.special.items() if entry[1] >= rows}
    if beyond:
        listed = ", ".join(f"{role} {name} = {number}" for role, (name, number) in beyond.items())
        yield refuse(
            SETTING,
            f"the tokenizer in {tokenizer.folder} has {listed}, and the embedding has {rows} rows (vocab_size, ids "
            f"from 0); name a token below {rows} in tokenizer_config.json, or enlarge the model with transformers' "
            "resize_token_embeddings and save it",
        )
    elif token >= rows:
        yield warn(
            SETTING,
            f"the tokenizer in {tokenizer.folder} has tokens up to {token} ({text}), and the embedding has {rows} rows "
            "(vocab_size, ids from 0): the run ends when a prompt holds one without a row; enlarge the model with "
            "transformers' resize_token_embeddings, or keep such tokens out of the data",
        )


def ends(context: JobContext) -> Iterator[Problem]:
    """A response ends at each end token of the tokenizer and of generation_config.json, and at no other."""
    tokenizer = context.tokenizer
    if tokenizer is None:
        return
    folder = tokenizer.folder
    config = context.model_config or {}
    found = end_tokens(folder, tokenizer, config)
    if not {"eos_token", "pad_token"} & tokenizer.special.keys():
        yield refuse(
            SETTING,
            f"the tokenizer in {folder} names neither pad_token nor eos_token, and batches cannot be padded; name one "
            "in its tokenizer_config.json",
        )
    elif not found:
        yield warn(
            SETTING,
            f"no end token is named in {folder}, so that every response is cut at its limit; name eos_token in "
            "tokenizer_config.json",
        )
    elif missing := configured_ends(config) - found:
        listed = ", ".join(tokenizer.named(token) for token in sorted(missing))
        yield warn(
            SETTING,
            f"config.json has the end token {listed}, and responses do not end there: the engine reads "
            "generation_config.json and the tokenizer; add it to eos_token_id in generation_config.json if they should",
        )
