"""Native layouts: how model families keep an MTP head in their own checkpoint, and where its math differs from ours.

Read off vLLM 0.29's model classes, which serve these checkpoints by `method: mtp`:

| layout | tensors of block n | fc reads | depth 1 reads | depth j + 1 reads | token at position 0 |
|---|---|---|---|---|---|
| ours | `mtp/` | [hidden; token] | h after the trunk's last norm | z after the block's last norm | as others |
| `mimo` | `model.mtp_layers.{n}.*` | [hidden; token] | h before that norm | z after | hidden (zeros) |
| `qwen3_5`, `qwen3_next` | `mtp.*`, `mtp.layers.0.*` | [token; hidden] | h after | z after | as others |
| `glm4_moe` | `model.layers.{L + n}.*` | [token; hidden] | h after | z before | hidden (zeros) |
| `deepseek_v3` | `model.layers.{L + n}.*` | [token; hidden] | h after | z after | hidden (zeros) |

L is the number of the trunk's layers. Only names and facts here; `native.py` moves tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Wiring:
    """Possible differences of a chain's math. The defaults are those of a head made by `equip`.

    Attributes:
        reads_unnormed: depth 1 reads the trunk's states before its final norm.
        chains_unnormed: a deeper depth reads its predecessor before the block's final norm; logits are always taken
            after it.
        hides_first_token: the embedding is zero where the RoPE position is 0.
    """

    reads_unnormed: bool = False
    chains_unnormed: bool = False
    hides_first_token: bool = False


@dataclass(frozen=True)
class Layout:
    """The form in which one family's checkpoints hold their head. `{n}` is the block, `{l}` the layer L + n.

    Attributes:
        name: as in `mtp.layout` of a head's config.json.
        model_types: trunks that carry it, by the model type of their (text) configuration.
        remote_type: the model type of checkpoints that need remote code; `equip` writes the first of `model_types`,
            whose trunk is the same.
        root: what all names of the head, and no others, begin with.
        hidden_norm, token_norm, final_norm, proj: the module that is ours of that name.
        layer: the decoder layer, whose tensors have the family's own names below it.
        count_field: the configuration's field with the number of blocks.
        architecture: what vLLM must find in `architectures` to serve the head; None if the model type is enough.
        plain_architecture: the same trunk for a head of our own.
        token_first: the projection reads [token; hidden]; ours reads [hidden; token], so its halves are swapped.
        wiring: where the math differs.
        max_blocks: what vLLM serves.
        copies: tensors of the trunk that the checkpoint holds once more for each block, copy -> original.
        draft_type: the model type that vLLM gives the configuration of its own draft model.
        engine_names: what differs in the paths of that model's modules, and what a checkpoint has in its place.
    """

    name: str
    model_types: tuple[str, ...]
    root: str
    hidden_norm: str
    token_norm: str
    final_norm: str
    proj: str
    layer: str
    count_field: str
    architecture: str | None = None
    plain_architecture: str | None = None
    remote_type: str | None = None
    token_first: bool = True
    wiring: Wiring = Wiring()
    max_blocks: int = 1
    copies: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    draft_type: str | None = None
    engine_names: tuple[tuple[str, str], ...] = ()

    def modules(self, block: int, trunk_layers: int) -> dict[str, str]:
        """Our module's name -> the checkpoint's, for one block."""
        names = {
            "hidden_norm": self.hidden_norm,
            "token_norm": self.token_norm,
            "final_norm": self.final_norm,
            "proj": self.proj,
            "layer": self.layer,
        }
        return {ours: theirs.format(n=block, l=trunk_layers + block) for ours, theirs in names.items()}

    def copied(self, block: int, trunk_layers: int) -> dict[str, str]:
        """Copies of the trunk's tensors in one block, copy -> original."""
        return {
            copy.format(n=block, l=trunk_layers + block): original for copy, original in self.copies.items()
        }

    def owns(self, tensor: str, trunk_layers: int, blocks: int) -> bool:
        """Whether a checkpoint's tensor belongs to the head."""
        return any(tensor.startswith(self.root.format(l=trunk_layers + block)) for block in range(blocks))


def _qwen(name: str, model_type: str, count_field: str) -> Layout:
    """Qwen3.5 and Qwen3-Next differ in the decoder layer alone. Several layers would share one projection."""
    return Layout(
        name=name,
        model_types=(model_type,),
        root="mtp.",
        hidden_norm="mtp.pre_fc_norm_hidden",
        token_norm="mtp.pre_fc_norm_embedding",
        final_norm="mtp.norm",
        proj="mtp.fc",
        layer="mtp.layers.{n}",
        count_field=count_field,
        draft_type=f"{name}_mtp",
        engine_names=(("model.", "mtp."),),
    )


def _deepseek(model_type: str, draft_type: str, wiring: Wiring) -> Layout:
    """DeepSeek-V3's and GLM-4.5's: blocks counted as further layers, each with copies of two of the trunk's tensors."""
    return Layout(
        name=model_type,
        model_types=(model_type,),
        root="model.layers.{l}.",
        hidden_norm="model.layers.{l}.hnorm",
        token_norm="model.layers.{l}.enorm",
        final_norm="model.layers.{l}.shared_head.norm",
        proj="model.layers.{l}.eh_proj",
        layer="model.layers.{l}",
        count_field="num_nextn_predict_layers",
        wiring=wiring,
        copies=MappingProxyType(
            {
                "model.layers.{l}.embed_tokens.weight": "model.embed_tokens.weight",
                "model.layers.{l}.shared_head.head.weight": "lm_head.weight",
            }
        ),
        draft_type=draft_type,
        engine_names=((".mtp_block.", "."),),
    )


def vllm_architecture(content: Mapping[str, Any], layout: Layout | None) -> list[str]:
    """The `architectures` of a policy's config.json with which vLLM's class hands over the hidden states that a
    head of this layout (None: one of our own) reads."""
    listed: list[str] = list(content.get("architectures") or [])
    if layout is not None and layout.architecture is not None:
        return [layout.architecture]
    plain = {other.architecture: other.plain_architecture for other in LAYOUTS.values()}
    return [plain.get(architecture) or architecture for architecture in listed]


def engine_names(model_type: str) -> tuple[tuple[str, str], ...]:
    """The differences between the paths in one of vLLM's models and a checkpoint's names: none but in vLLM's own draft
    models.

    Args:
        model_type: of the model's configuration as vLLM has it, which for a draft is not the trunk's.
    """
    return next((one.engine_names for one in LAYOUTS.values() if one.draft_type == model_type), ())


def split_expert(stacked: str, expert: int) -> tuple[str, ...]:
    """The names under which a checkpoint holds one expert of a stacked tensor, in the order of its rows; none if the
    tensor does not hold experts.

    >>> split_expert("mlp.experts.gate_up_proj", 3)
    ('mlp.experts.3.gate_proj.weight', 'mlp.experts.3.up_proj.weight')
    """
    parent, _, matrix = stacked.rpartition(".")
    if not parent.endswith(".experts"):
        return ()
    parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(matrix, ())
    return tuple(f"{parent}.{expert}.{part}.weight" for part in parts)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="mimo",
            model_types=("qwen2", "mimo"),
            remote_type="mimo",
            root="model.mtp_layers.",
            hidden_norm="model.mtp_layers.{n}.hidden_layernorm",
            token_norm="model.mtp_layers.{n}.token_layernorm",
            final_norm="model.mtp_layers.{n}.final_layernorm",
            proj="model.mtp_layers.{n}.input_proj",
            layer="model.mtp_layers.{n}",
            count_field="num_nextn_predict_layers",
            architecture="MiMoForCausalLM",
            plain_architecture="Qwen2ForCausalLM",
            token_first=False,
            wiring=Wiring(reads_unnormed=True, hides_first_token=True),
        ),
        _qwen("qwen3_5", "qwen3_5_text", "mtp_num_hidden_layers"),
        _qwen("qwen3_next", "qwen3_next", "num_nextn_predict_layers"),
        _deepseek("glm4_moe", "glm4_moe_mtp", Wiring(chains_unnormed=True, hides_first_token=True)),
        _deepseek("deepseek_v3", "deepseek_mtp", Wiring(hides_first_token=True)),
    )
}
"""Name -> layout."""

BUILT_IN: dict[str, str] = {
    layout.remote_type: layout.model_types[0] for layout in LAYOUTS.values() if layout.remote_type is not None
}
"""Model types that need remote code, and the built-in one with the same trunk."""

REFUSED: dict[str, str] = {
    "deepseek_v32": "its block attends with sparse latent attention over an indexer's choice of keys",
    "qwen3_5_moe_text": "no test has served its block of experts yet: it would need a row in "
    "config/native_layouts.py and the names under which its checkpoints keep experts",
    "mimo_v2_flash": "vLLM runs other attention (sinks, sliding window) in its blocks than the chain's",
}
"""Model type -> why its native head cannot be trained."""
