"""What a head is, and its `config.json`.

The file is a model configuration of the trunk's family with as many layers as the head has blocks, which is what vLLM
reads, plus an `mtp` object of ours:

    {"model_type": "qwen2", "architectures": ["EagleMTPDraft"], "num_hidden_layers": 1, "hidden_size": 896, ...,
     "mtp": {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"}}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openrlhf_mtp.heads.families import Family, family_of

ARCHITECTURE = "EagleMTPDraft"
"""The draft class that our vLLM plugin registers; vLLM insists on the prefix "Eagle"."""

FORMAT = 1
"""Version of the head's folder."""

_NOT_OF_THE_HEAD = ("_name_or_path", "auto_map", "quantization_config", "transformers_version")


@dataclass(frozen=True)
class HeadConfig:
    """A head's shape.

    Attributes:
        depths: k, the depths it was made for; fewer or more can be drafted with the same parameters.
        num_layers: blocks; depth j uses block (j - 1) % num_layers.
        model: the trunk family's configuration of one block's decoder layer (transformers' config object).
    """

    depths: int
    num_layers: int
    model: Any

    def __post_init__(self) -> None:
        if self.depths < 1:
            raise ValueError(f"depths: got {self.depths}, expected at least 1; 3 suits most models")
        if not 1 <= self.num_layers <= self.depths:
            raise ValueError(
                f"num_layers: got {self.num_layers}, expected 1 to depths = {self.depths}, since depth j uses block "
                "(j - 1) % num_layers and the rest would never run"
            )

    @property
    def family(self) -> Family:
        """The trunk's family."""
        return family_of(self.model.model_type)

    @classmethod
    def from_trunk(cls, trunk_config: Any, *, depths: int, num_layers: int = 1) -> HeadConfig:
        """The head for a trunk: the same layer shape, full attention, `num_layers` layers.

        Raises:
            ValueError: an unsupported family, or impossible depths or blocks.
        """
        family_of(trunk_config.model_type)
        return cls(depths, num_layers, _layer_config(trunk_config.to_dict(), num_layers))

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        mtp = {
            "format": FORMAT,
            "depths": self.depths,
            "num_layers": self.num_layers,
            "trunk_model_type": self.model.model_type,
        }
        content = {k: v for k, v in self.model.to_dict().items() if k not in _NOT_OF_THE_HEAD}
        return {**content, "architectures": [ARCHITECTURE], "mtp": mtp}

    @classmethod
    def from_json(cls, content: dict[str, Any], *, source: str) -> HeadConfig:
        """Read config.json's content; `source` names the file in errors.

        Raises:
            ValueError: not a head's configuration, or of another format.
        """
        if "mtp" not in content:
            raise ValueError(
                f'{source}: got architectures {content.get("architectures")} without an "mtp" object, expected a head '
                "written by `openrlhf-mtp equip`; point mtp.head at the head's folder, not at the policy's"
            )
        mtp = content["mtp"]
        if mtp["format"] != FORMAT:
            raise ValueError(
                f"{source}: got head format {mtp['format']}, expected {FORMAT}; equip the model again"
            )
        family_of(mtp["trunk_model_type"])
        return cls(mtp["depths"], mtp["num_layers"], _layer_config(content, mtp["num_layers"]))


def _layer_config(fields: dict[str, Any], num_layers: int) -> Any:
    """A configuration object of the same family with `num_layers` layers of full attention."""
    from transformers import AutoConfig

    fields = {k: v for k, v in fields.items() if k not in (*_NOT_OF_THE_HEAD, "mtp", "architectures")}
    changes: dict[str, Any] = {
        "num_hidden_layers": num_layers,
        "layer_types": ["full_attention"] * num_layers,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": num_layers,
        "use_cache": True,
    }
    fields.update({k: v for k, v in changes.items() if k in fields})
    return AutoConfig.for_model(**fields)
