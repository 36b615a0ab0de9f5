"""The MTP head as a draft model inside vLLM: one class for every trunk family, through vLLM's own decoder layer.

Depth j of the chain anchored at position i computes (`heads.head` trains the same function):

    z^j = final_norm(layer(proj([hidden_norm(z^{j-1}); token_norm(emb(x_{i+j}))])))        z^0 = h_i, RoPE at i+j-1

vLLM's proposer (with its V2 model runner: speculator) runs depth 1 over all positions of a batch, which writes the
head's keys and values there, and depths 2..k one token at a time. z^j is both the hidden state for the logits and the
next depth's input. Embedding and output head belong to the target: vLLM attaches them after loading, so a sync of the
policy reaches the draft by itself.

A head taken over from a checkpoint's own (`config.native_layouts`) differs in up to three facts, its wiring: what depth
1 reads (the target's vLLM class decides that), what the next depth reads, and whether the token at position 0 is seen.

Several blocks: depth j takes block (j - 1) % n, and *every* block sees every input, because each has a cache
of its own whose entries deeper depths and later chains attend to. Only the active block's output is passed on.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    get_draft_quant_config,
    maybe_prefix,
)
from vllm.utils.import_utils import resolve_obj_by_qualname

from openrlhf_mtp.config.families import FUSED, family_of
from openrlhf_mtp.config.head_contract.fit import wiring_of, wrong_architecture
from openrlhf_mtp.config.native_layouts import Wiring


def _stacked(model: nn.Module) -> WeightsMapper:
    """From a checkpoint's tensors to the fused layers that this model has; an MLP without a gate has none."""
    leaves = {path.rpartition(".")[2] for path, _ in model.named_modules()}
    return WeightsMapper(
        orig_to_new_stacked={
            f".{part}": (f".{fused}", shard)
            for fused, parts in FUSED.items()
            if fused in leaves
            for part, shard in parts.items()
        }
    )


def _draft_config(vllm_config: VllmConfig) -> Any:
    """The Hugging Face configuration of the head's folder."""
    speculative = vllm_config.speculative_config
    assert speculative is not None, "vLLM makes a draft model only where it is to draft"
    return speculative.draft_model_config.hf_config


def _wiring(vllm_config: VllmConfig) -> Wiring:
    """The head's wiring, after a check that the target hands over the states that it reads.

    Raises:
        ValueError: the target's class norms its hidden states, and the head reads them before the norm, or reversed.
    """
    layout = _draft_config(vllm_config).mtp.get("layout")
    wrong = wrong_architecture(vllm_config.model_config.architectures, layout)
    if wrong is not None:
        raise ValueError(wrong)
    return wiring_of(layout)


def _layer_config(vllm_config: VllmConfig) -> VllmConfig:
    """The engine's configuration as the draft's layer must see it: the target's quantization and sliding window
    are not the head's, which is trained unquantized and with full attention."""
    config = copy.copy(vllm_config)
    config.quant_config = get_draft_quant_config(vllm_config)
    config.cache_config = copy.copy(vllm_config.cache_config)
    config.cache_config.sliding_window = None
    return config


def _decoder_layer(vllm_config: VllmConfig, prefix: str) -> nn.Module:
    """vLLM's decoder layer of the trunk's family; `prefix` ends in the layer's number."""
    config, hf_config = _layer_config(vllm_config), _draft_config(vllm_config)
    family = family_of(hf_config.mtp["trunk_model_type"])
    assert family.vllm_layer is not None, "the head contract refuses a head of another family"
    layer_class = resolve_obj_by_qualname(family.vllm_layer.replace(":", "."))
    if family.vllm_layer_takes_all:
        return layer_class(config, prefix, hf_config)
    return layer_class(hf_config, config.cache_config, config.quant_config, prefix)


class DraftBlock(nn.Module):
    """One MTP block: three norms, the projection of [hidden; embedding] and a decoder layer."""

    def __init__(self, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        config = _draft_config(vllm_config)
        width, eps = config.hidden_size, config.rms_norm_eps
        self.hidden_norm = RMSNorm(width, eps=eps)
        self.token_norm = RMSNorm(width, eps=eps)
        self.final_norm = RMSNorm(width, eps=eps)
        self.proj = ReplicatedLinear(
            2 * width, width, bias=False, return_bias=False, prefix=maybe_prefix(prefix, "proj")
        )
        self.layer = _decoder_layer(vllm_config, prefix)

    def forward(
        self, embeddings: torch.Tensor, positions: torch.Tensor, hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """embeddings [T, H], positions [T], hidden_states [T, H] -> z before its norm [T, H]."""
        inputs = torch.cat([self.hidden_norm(hidden_states), self.token_norm(embeddings)], dim=-1)
        output, residual = self.layer(positions, self.proj(inputs), None)
        return output + residual


@support_torch_compile
class DraftChain(nn.Module):
    """The blocks, and the target's embedding once vLLM has attached it as `embed_tokens`.

    Every block's result is returned, because a compiled graph would freeze a choice among them: `EagleMTPDraft` takes
    the active one's outside of it.
    """

    embed_tokens: nn.Module

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = _draft_config(vllm_config)
        # Layer numbers continue after the target's, so that caches of the two never share a name.
        first = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
        config.target_layer_count = first
        blocks = nn.ModuleList(
            DraftBlock(vllm_config, maybe_prefix(prefix, f"layers.{first + n}"))
            for n in range(config.mtp["num_layers"])
        )
        self.blocks = cast(Sequence[DraftBlock], blocks)
        self.wiring = _wiring(vllm_config)

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, hidden_states: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """input_ids [T] (x_{t+1} at position t), positions [T], hidden_states [T, H] -> of each block z for the logits
        and what the next depth reads, [T, H] each."""
        embeddings = self.embed_tokens(input_ids)
        if self.wiring.hides_first_token:
            embeddings = torch.where(positions[:, None] == 0, 0, embeddings)
        results = []
        for block in self.blocks:
            output = block(embeddings, positions, hidden_states)
            z = block.final_norm(output)
            results.append((z, output if self.wiring.chains_unnormed else z))
        return results


class ActiveBlock:
    """The block whose result a forward passes on: block (j - 1) % n at depth j.

    V1's model runner announces the depth before each forward (`upstream.vllm.draft_depth`). V2's keeps it, less 1, in a
    tensor on the device (`upstream.vllm.v2.draft_depth`), because it records one CUDA graph for all depths but the
    first, in which a choice in Python would be frozen.
    """

    def __init__(self) -> None:
        self.depth = 1
        self.step: torch.Tensor | None = None

    def of(self, results: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The active one of the blocks' results, [T, H] each."""
        if len(results) == 1 or self.step is None:
            return results[(self.depth - 1) % len(results)]
        active = (self.step % len(results)).reshape(1)
        z, following = (
            torch.stack(list(each)).index_select(0, active)[0] for each in zip(*results, strict=True)
        )
        return z, following


class EagleMTPDraft(nn.Module):
    """The model that vLLM's proposer loads from the head's folder (`architectures: ["EagleMTPDraft"]`)."""

    lm_head: nn.Module  # the target's, once vLLM has attached it

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        stages = vllm_config.parallel_config.pipeline_parallel_size
        if stages != 1:
            raise ValueError(
                f"pipeline_parallel_size: got {stages}, expected 1, because the head shares "
                "the target's embedding and output head; use tensor_parallel_size instead"
            )
        self.config = _draft_config(vllm_config)
        self.model = DraftChain(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.active = ActiveBlock()
        self.logits_processor = LogitsProcessor(self.config.vocab_size)
        self._names = _stacked(self.model)

    def begin_depth(self, depth: int) -> None:
        """The next forward computes this depth, counted from 1 (see `upstream.vllm.draft_depth`)."""
        self.active.depth = depth

    def follow_step(self, step: torch.Tensor) -> None:
        """From now on `step`, an integer on the device, is the depth less 1 (see `upstream.vllm.v2.draft_depth`)."""
        self.active.step = step

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[T] -> [T, H], by the target's embedding."""
        return self.model.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (hidden state for the logits, hidden state for the next depth), [T, H] each."""
        if inputs_embeds is not None:
            raise NotImplementedError("the MTP head drafts text only; it takes no image or audio embeddings")
        return self.active.of(self.model(input_ids, positions, hidden_states))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[T, H] -> [T, V], by the target's output head."""
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load tensors named as in the head's checkpoint; unknown names are refused by vLLM's loader."""
        return AutoWeightsLoader(self).load_weights(weights, mapper=self._names)
