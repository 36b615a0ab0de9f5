"""Models and heads on this machine, as far as their `config.json` tells: family, sizes, parameters."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.families import Family, family_of
from openrlhf_mtp.config.reading.paths import too_long
from openrlhf_mtp.config.reading.values import LARGEST_WHOLE, shown


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder-only model that its `config.json` gives."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    attention_bias: bool
    experts: int = 0
    expert_size: int = 0

    @property
    def family(self) -> Family:
        """The model's family."""
        return family_of(self.model_type)

    def layer_parameters(self) -> int:
        """Parameters of one dense decoder layer, norms included."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        if self.family.biases_qkv or self.attention_bias:
            attention += self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        if self.attention_bias and not self.family.biases_qkv:
            attention += self.hidden_size
        if self.family.normalizes_qk:
            attention += 2 * self.head_dim
        mlp = self._mlp_tensors() * self.hidden_size * self.intermediate_size
        return attention + mlp + 2 * self.hidden_size

    def _experts_instead(self) -> int:
        """Parameters that a trunk's layer has beyond a head's, for its router and experts."""
        if not self.experts:
            return 0
        parameters = self.experts * (self.hidden_size + 3 * self.hidden_size * self.expert_size)
        return parameters - 3 * self.hidden_size * self.intermediate_size

    def _mlp_tensors(self) -> int:
        return 3 if self.family.gates_mlp else 2

    def layer_tensors(self) -> int:
        """Tensors of one dense decoder layer in a checkpoint."""
        biases = 3 if self.family.biases_qkv else 4 if self.attention_bias else 0
        return 4 + self._mlp_tensors() + 2 + biases + (2 if self.family.normalizes_qk else 0)

    def sent_tensors(self) -> int:
        """Tensors of the policy as they travel to the engines: a layer's experts are two stacked ones, beside a router,
        where a dense layer has the three of its MLP (its family's has a gate)."""
        return self.num_layers * self.layer_tensors() + (2 if self.tied else 3)

    def head_tensors(self, num_blocks: int) -> int:
        """Tensors of an MTP head in its checkpoint."""
        return num_blocks * (self.layer_tensors() + 4)

    def policy_parameters(self) -> int:
        """Parameters of the whole policy: embedding, layers, final norm and, when not tied, the output head."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        layer = self.layer_parameters() + self._experts_instead()
        return embeddings + self.num_layers * layer + self.hidden_size

    def head_parameters(self, num_blocks: int) -> int:
        """Parameters of an MTP head: per block one decoder layer, a projection 2H -> H and three norms."""
        block = self.layer_parameters() + 2 * self.hidden_size**2 + 3 * self.hidden_size
        return num_blocks * block


def read_model_config(name: str) -> dict[str, Any] | None:
    """A model's `config.json`: from its folder, or from the Hugging Face cache of this machine; else None.

    Raises:
        JobError: the file is there and is not JSON.
    """
    folder = model_folder(name)
    file = None if folder is None else folder / "config.json"
    return read_json(file) if file is not None and file.is_file() else None


def model_folder(name: str) -> Path | None:
    """The folder that holds a model's files: its own, or the snapshot in this machine's Hub cache; else None."""
    folder = Path(name)
    return folder if folder.is_dir() else _cached_snapshot(name)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        JobError: not a JSON object, or not readable.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise JobError(
            f"{file} is not JSON ({error}); write it again, for example with openrlhf-mtp equip"
        ) from error
    if not isinstance(content, dict):
        raise JobError(f"{file}: got {shown(content)}, expected a JSON object with sizes by name")
    return content


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Sizes from a supported family's config.

    Raises:
        JobError: a size is missing, or is none.
    """
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    family = family_of(str(config.get("model_type")))
    return ModelShape(
        model_type=family.model_type,
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size"),
        num_layers=_size(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", max(1, hidden // heads)),
        vocab_size=_size(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias", False)),
        experts=_size(config, "num_experts", 0) if family.has_experts else 0,
        expert_size=_size(config, "moe_intermediate_size", 0),
    )


def _size(config: Mapping[str, Any], name: str, otherwise: int | None = None) -> int:
    """A size of a config.json; `otherwise` where it may be missing, null or 0."""
    value = config.get(name)
    if not value and value is not False and otherwise is not None:
        return otherwise
    if value is None:
        raise JobError(f"the model's config.json has no {name}; is it a causal language model?")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_WHOLE:
        raise JobError(
            f"the model's config.json: {name}: got {shown(value)}, expected a whole number of 1 or more"
        )
    return value


def _cached_snapshot(name: str) -> Path | None:
    """The folder in the local Hub cache, of the revision that a load by name takes; without any network.

    `huggingface_hub` answers the same (a contract test compares them), but takes 0.2 s to import, and the pods beside
    a run do not have it.
    """
    if too_long(f"models--{name}"):
        return None
    model = _hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        revision = (model / "refs" / "main").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return model / "snapshots" / revision


def _hub_cache() -> Path:
    """The folder in which `huggingface_hub` keeps downloads."""
    given = os.environ.get
    home = given("HF_HOME") or Path(given("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(given("HF_HUB_CACHE") or given("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")).expanduser()
