"""A tokenizer on this machine, as far as its files tell: its tokens, its special ones, and at which a response ends.

Read without transformers, which takes seconds to import. A tokenizer without `tokenizer.json` (a bare SentencePiece
model) is not judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import read_json

ROLES = ("eos_token", "pad_token", "bos_token", "unk_token")
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "chat_templates")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as its files tell.

    Attributes:
        folder: where they are.
        last: the token with the largest id, and that id.
        special: role (`pad_token`, ...) -> text and id, of the roles that the tokenizer fills.
        names: id -> text of the added tokens, all special ones among them.
    """

    folder: Path
    last: tuple[str, int]
    special: Mapping[str, tuple[str, int]]
    names: Mapping[int, str]

    def named(self, token: int) -> str:
        """A token id for a message: with its text, where it is an added token."""
        return f"{token} ({self.names[token]})" if token in self.names else str(token)


def read_tokenizer(folder: Path) -> TokenizerFiles | None:
    """The tokenizer in a model's folder; None when there is no `tokenizer.json` that can be read."""
    try:
        content = read_json(folder / "tokenizer.json")
        vocabulary = dict(_vocabulary(content))
        added = {str(token["content"]): int(token["id"]) for token in content.get("added_tokens") or ()}
    except (JobError, KeyError, TypeError, ValueError):
        return None
    ids = vocabulary | added | _added_by_config(folder)
    if not ids:
        return None
    roles = _first_of(folder, ("tokenizer_config.json", "special_tokens_map.json"))
    texts = {role: _text(roles.get(role)) for role in ROLES}
    return TokenizerFiles(
        folder=folder,
        last=max(ids.items(), key=lambda item: item[1]),
        special={role: (text, ids[text]) for role, text in texts.items() if text in ids},
        names={token: text for text, token in (added | _added_by_config(folder)).items()},
    )


def has_chat_template(folder: Path) -> bool:
    """Whether `apply_chat_template` finds a template there."""
    if any((folder / name).exists() for name in CHAT_TEMPLATES):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")


def writes_the_date(folder: Path) -> bool:
    """Whether the chat template asks for today's date (`strftime_now` of transformers), as Llama 3.2's does."""
    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    files = [folder / name for name in names if (folder / name).is_file()]
    return any("strftime_now" in file.read_text(encoding="utf-8", errors="replace") for file in files)


def end_tokens(folder: Path, tokenizer: TokenizerFiles | None, config: Mapping[str, Any]) -> frozenset[int]:
    """The tokens at which the rollout engine ends a response.

    vLLM takes the tokenizer's end token and those of `generation_config.json`, or of `config.json` if there is no such
    file (`SamplingParams.update_from_generation_config`).
    """
    own = {} if tokenizer is None else tokenizer.special
    found = {own["eos_token"][1]} if "eos_token" in own else set()
    generation = folder / "generation_config.json"
    source = _read(generation) if generation.is_file() else config
    return frozenset(found | configured_ends(source))


def configured_ends(config: Mapping[str, Any]) -> set[int]:
    """`eos_token_id` of a configuration, which is one id, a list or nothing."""
    given = config.get("eos_token_id")
    return {each for each in (given if isinstance(given, list) else [given]) if isinstance(each, int)}


def _vocabulary(content: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Text and id of every token of the model: a table, or for Unigram a list of (text, score)."""
    model = content.get("model") or {}
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, Mapping):
        yield from ((str(text), int(token)) for text, token in vocabulary.items())
    else:
        yield from ((str(text), token) for token, (text, _) in enumerate(vocabulary))


def _added_by_config(folder: Path) -> dict[str, int]:
    """Tokens that `tokenizer_config.json` adds; transformers lays them over those of `tokenizer.json`."""
    added = _read(folder / "tokenizer_config.json").get("added_tokens_decoder")
    if not isinstance(added, Mapping):
        return {}
    texts = {token: _text(entry) for token, entry in added.items() if str(token).isdecimal()}
    return {text: int(token) for token, text in texts.items() if text is not None}


def _first_of(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The entries of several files; an earlier file wins."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _read(folder / name) | merged
    return merged


def _read(file: Path) -> dict[str, Any]:
    """A JSON file's object; nothing where it is missing or damaged, which the loaders say better."""
    try:
        return read_json(file) if file.is_file() else {}
    except JobError:
        return {}


def _text(entry: Any) -> str | None:
    """A token's text: as it is, or in the object that transformers writes for one."""
    text = entry.get("content") if isinstance(entry, Mapping) else entry
    return text if isinstance(text, str) else None
