"""The head at the shape of a large model, on random hidden states: what `bench.head` times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openrlhf_mtp.bench.harness import UnavailableError
from openrlhf_mtp.bench.isolated import Prepared
from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.grid import AnchorGrid
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.plain_engine import PlainEngine
from openrlhf_mtp.training.trunk import Trunk

WIDTH, GROUPS = 128, 4
"""Width of an attention head, and query heads that share a key-value head."""
QUARTER = 0.25


@dataclass(frozen=True)
class Shape:
    """Sizes of the policy that the head would belong to.

    Attributes:
        hidden: width H, a multiple of `WIDTH * GROUPS`.
        vocab: entries of the vocabulary V.
        depths: depths k.
        dtype: of head, states and output head, a name in torch.
        device: cpu or cuda.
    """

    hidden: int = 1024
    vocab: int = 32_768
    depths: int = 3
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def heads(self) -> int:
        """The number of query heads."""
        return self.hidden // WIDTH

    def config(self) -> Any:
        """The policy's configuration: Llama, 3.5 times as wide inside (Llama 3), embedding and output head tied."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            "llama",
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 7 // 2,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads // GROUPS,
            num_hidden_layers=1,
            vocab_size=self.vocab,
            tie_word_embeddings=True,
        )

    def normal(self, *size: int) -> Tensor:
        """Random numbers on the device."""
        return torch.randn(*size, device=self.device, dtype=getattr(torch, self.dtype))


class Scattered(AnchorGrid):
    """A grid that says its anchors are scattered, which FlashAttention cannot read."""

    @property
    def runs(self) -> None:
        return None


def attention(shape: Shape, tokens: int, *, flash: bool = True) -> Callable[[], object]:
    """The last depth's attention at every position, forward and backward; without `flash` in slices on a GPU too."""
    keys = [
        shape.normal(1, shape.heads // GROUPS, tokens, WIDTH).requires_grad_() for _ in range(shape.depths)
    ]
    values = [torch.randn_like(key).requires_grad_() for key in keys]
    query = shape.normal(1, shape.heads, tokens, WIDTH).requires_grad_()
    grad = torch.randn_like(query)
    grid = (AnchorGrid if flash else Scattered)(
        torch.ones(1, tokens, dtype=torch.long, device=shape.device), None
    )

    def run() -> None:
        output = chain_attention(query, keys, values, grid, WIDTH**-0.5)
        torch.autograd.grad(output, [query, *keys, *values], grad)

    return run


def attention_in_slices(shape: Shape, tokens: int) -> Callable[[], object]:
    """The same without FlashAttention, which on a GPU computes what it can."""
    return attention(shape, tokens, flash=False)


def chain(shape: Shape, tokens: int) -> Callable[[], object]:
    """All depths of the head at every position, forward and backward, without a loss."""
    head = _head(shape)
    hidden = shape.normal(1, tokens, shape.hidden)
    read = [shape.normal(1, tokens, shape.hidden) for _ in range(shape.depths)]
    segments = torch.ones(1, tokens, dtype=torch.long, device=shape.device)
    positions = segments.cumsum(-1) - 1

    def run() -> None:
        states = head(hidden, read, positions, segments, shape.depths)
        torch.autograd.backward(states, [torch.ones_like(state) for state in states])
        head.zero_grad()

    return run


def step(shape: Shape, tokens: int, fraction: float = 1.0) -> Callable[[], object]:
    """A training step of the head: anchors, chain, e2e TV loss over the vocabulary, backward, AdamW."""
    trainer = _trainer(shape, fraction)
    everywhere = torch.ones(1, tokens, dtype=torch.long, device=shape.device)
    ids = torch.randint(shape.vocab, (1, tokens), device=shape.device)
    batch = HeadBatch(ids, everywhere, everywhere.bool(), shape.normal(1, tokens, shape.hidden))

    def run() -> None:
        trainer.accumulate(batch, float(tokens))
        trainer.step()
        trainer.drain()

    return run


def quarter_step(shape: Shape, tokens: int) -> Callable[[], object]:
    """The same for a quarter of the anchors."""
    return step(shape, tokens, QUARTER)


IN_SLICES = "attention, in slices"
FORMS: dict[str, Callable[[Shape, int], Callable[[], object]]] = {
    "attention": attention,
    IN_SLICES: attention_in_slices,
    "chain": chain,
    "step": step,
    "step, 1/4 anchors": quarter_step,
}
"""Name in the table -> makes the call that is timed."""


def forms_on(device: str) -> list[str]:
    """The names of the forms that differ there: a CPU always computes attention in slices."""
    return [name for name in FORMS if device == "cuda" or name != IN_SLICES]


def prepare(form: str, shape: Shape, tokens: int) -> Prepared:
    """A form in its own process, after one run on a short sequence, which loads libraries and compiles kernels."""
    torch.manual_seed(0)
    FORMS[form](shape, 64)()
    return Prepared(FORMS[form](shape, tokens), dict, shape.device)


def _head(shape: Shape) -> MTPHead:
    with torch.device(shape.device):
        head = MTPHead(HeadConfig.from_trunk(shape.config(), depths=shape.depths))
    return head.to(getattr(torch, shape.dtype))


def _trainer(shape: Shape, fraction: float) -> HeadTrainer:
    try:
        from openrlhf_mtp.config.settings.objective import ObjectiveSettings
        from openrlhf_mtp.config.settings.pretrain import HeadOptim
    except ImportError as problem:  # attention and chain go without
        raise UnavailableError(f"not installed (pip install pydantic): {problem}") from problem
    head, config = _head(shape), shape.config()
    with torch.device(shape.device):
        embedding = nn.Embedding(shape.vocab, shape.hidden, dtype=getattr(torch, shape.dtype))
    output_head = nn.Linear(shape.hidden, shape.vocab, bias=False, device="meta")
    output_head.weight = embedding.weight.requires_grad_(False)
    return HeadTrainer(
        engine=PlainEngine(head, HeadOptim()),
        head=head,
        trunk=Trunk(embedding, output_head, nn.Identity(), config),
        depths=shape.depths,
        settings=ObjectiveSettings(objective="e2e_tv", anchor_fraction=fraction, kl_warmup_steps=0),
        temperature=1.0,
    )
