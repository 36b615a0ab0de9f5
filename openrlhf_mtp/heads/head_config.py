"""The configuration of a head, and its `config.json`.

The file is a model configuration of the trunk's family with as many layers as the head has blocks, which is what vLLM
reads, plus an `mtp` object of ours:

    {"model_type": "qwen2", "architectures": ["EagleMTPDraft"], "num_hidden_layers": 1, "hidden_size": 896, ...,
     "mtp": {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"}}

A head that was taken over from a checkpoint's own also has `"layout": "mimo"`, a name of `layouts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openrlhf_mtp.config.families import Family, family_of
from openrlhf_mtp.config.head_contract.fit import DRAFT_ARCHITECTURE, FORMAT, not_a_head, wiring_of
from openrlhf_mtp.config.native_layouts import LAYOUTS, Layout, Wiring

_NOT_OF_THE_HEAD = ("_name_or_path", "auto_map", "quantization_config", "transformers_version")


@dataclass(frozen=True)
class HeadConfig:
    """A head's shape.

    Attributes:
        depths: k, the depths it was made for; fewer or more can be drafted with the same parameters.
        num_blocks: depth j uses block (j - 1) % num_blocks; `num_layers` in the file.
        model: configuration of one block's decoder layer (transformers' config object).
        trunk_model_type: the trunk's family; that of `model` unless the trunk has experts and the block has none.
        layout: name of the native layout the head came from, or None for one of our own.
    """

    depths: int
    num_blocks: int
    model: Any
    trunk_model_type: str
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.depths < 1:
            raise ValueError(f"depths: got {self.depths}, expected at least 1; 3 suits most models")
        if not 1 <= self.num_blocks <= self.depths:
            raise ValueError(
                f"num_blocks: got {self.num_blocks}, expected 1 to depths = {self.depths}, since depth j uses block "
                "(j - 1) % num_blocks and the rest would never run"
            )

    @property
    def family(self) -> Family:
        """The trunk's family."""
        return family_of(self.trunk_model_type)

    @property
    def native(self) -> Layout | None:
        """The native layout, None for a head of our own."""
        return None if self.layout is None else LAYOUTS[self.layout]

    @property
    def wiring(self) -> Wiring:
        """Differences of the chain's math from that of a head of our own."""
        return wiring_of(self.layout)

    @classmethod
    def from_trunk(
        cls, trunk_config: Any, *, depths: int, num_blocks: int = 1, layout: str | None = None
    ) -> HeadConfig:
        """The head for a trunk: the same layer shape, full attention, `num_blocks` layers.

        Raises:
            ValueError: an unsupported family, or impossible depths or blocks.
        """
        family = family_of(trunk_config.model_type)
        model = _layer_config(trunk_config.to_dict(), num_blocks, family)
        return cls(depths, num_blocks, model, trunk_config.model_type, layout)

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        mtp = {
            "format": FORMAT,
            "depths": self.depths,
            "num_layers": self.num_blocks,
            "trunk_model_type": self.trunk_model_type,
        }
        if self.layout is not None:
            mtp["layout"] = self.layout
        content = {k: v for k, v in self.model.to_dict().items() if k not in _NOT_OF_THE_HEAD}
        return {**content, "architectures": [DRAFT_ARCHITECTURE], "mtp": mtp}

    @classmethod
    def from_json(cls, content: dict[str, Any], *, source: str) -> HeadConfig:
        """Read config.json's content; `source` names the file in errors.

        Raises:
            ValueError: not a head's configuration, or of another format.
        """
        reason = not_a_head(content)
        if reason is not None:
            raise ValueError(f"{source}: {reason}")
        mtp = content["mtp"]
        trunk = mtp["trunk_model_type"]
        model = _layer_config(content, mtp["num_layers"], family_of(trunk))
        return cls(mtp["depths"], mtp["num_layers"], model, trunk, mtp.get("layout"))


def _layer_config(fields: dict[str, Any], num_blocks: int, family: Family) -> Any:
    """A configuration object of the block's family with `num_blocks` layers of full attention."""
    from transformers import AutoConfig

    fields = {k: v for k, v in fields.items() if k not in (*_NOT_OF_THE_HEAD, "mtp", "architectures")}
    if family.block_type is not None:
        known = AutoConfig.for_model(family.block_type).to_dict()
        fields = {k: v for k, v in fields.items() if k in known} | {"model_type": family.block_type}
    changes: dict[str, Any] = {
        "num_hidden_layers": num_blocks,
        "layer_types": ["full_attention"] * num_blocks,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": num_blocks,
        "first_k_dense_replace": 0,  # the block of a trunk with experts has experts
        "use_cache": True,
        # an engine drafts without, and what it drafts is what is trained
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
    }
    fields.update({k: v for k, v in changes.items() if k in fields})
    return AutoConfig.for_model(**fields)
