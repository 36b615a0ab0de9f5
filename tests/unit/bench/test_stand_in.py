"""The stand-in computes what the small model computes; otherwise its acceptance would be made up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from openrlhf_mtp.bench.stand_in import Size, build_stand_in
from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
LARGE = Size(hidden=64, intermediate=48, layers=5)
ODD = Size(hidden=80, intermediate=48, layers=5)
"""Five times as wide: no power of two, so that norms divided by its root are rounded."""
FAMILIES = [
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen2", "tie_word_embeddings": False},
    {"model_type": "qwen3", "head_dim": 8},
    {"model_type": "llama"},
    {"model_type": "mistral", "head_dim": 4, "sliding_window": None},
]


@pytest.mark.parametrize("size", [LARGE, ODD], ids=lambda size: f"width {size.hidden}")
@pytest.mark.parametrize(
    "family", FAMILIES, ids=lambda f: f"{f['model_type']} tied={f.get('tie_word_embeddings')}"
)
def test_logits_and_drafts_are_those_of_the_small_model(
    family: dict[str, Any], size: Size, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**SMALL, **family})
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    head = MTPHead(HeadConfig.from_trunk(config, depths=2))
    with torch.no_grad():
        for parameter in [*policy.parameters(), *head.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    policy.save_pretrained(tmp_path / "small")
    save_head(tmp_path / "small" / "mtp", head)

    parameters = build_stand_in(tmp_path / "small", tmp_path / "small" / "mtp", tmp_path / "large", size)

    large = AutoModelForCausalLM.from_pretrained(tmp_path / "large", dtype=torch.float32)
    large_head = load_head(tmp_path / "large" / "mtp", large.config, dtype=torch.float32, device="cpu")
    assert parameters == sum(parameter.numel() for parameter in large.parameters())
    assert large.config.num_hidden_layers == 5
    tokens = torch.randint(0, 40, (2, 11))
    logits, drafts = compute(policy, head, tokens)
    wide_logits, wide_drafts = compute(large, large_head, tokens)
    torch.testing.assert_close(wide_logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(wide_drafts, drafts, atol=1e-4, rtol=1e-4)


def compute(policy: Any, head: MTPHead, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The policy's logits and the draft logits of both depths."""
    with torch.no_grad():
        hidden = policy.model(tokens).last_hidden_state[:, :-2]
        positions = torch.arange(hidden.shape[1]).expand(2, -1)
        embeddings = [policy.model.embed_tokens(tokens[:, j : j + hidden.shape[1]]) for j in (1, 2)]
        states = head(hidden, embeddings, positions, torch.ones_like(positions), 2)
        return policy(tokens).logits, [policy.lm_head(state) for state in states]


def test_a_model_whose_width_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a divisor of 64"):
        LARGE.factor({"hidden_size": 24, "intermediate_size": 8, "num_hidden_layers": 1})


def test_a_width_that_does_not_divide_the_stand_ins_gets_its_widest_multiple_below() -> None:
    config = {"hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 8}
    assert Size.near(config) == Size(hidden=960)
    assert Size.near(config).factor(config) == 5
    assert Size.near({**config, "hidden_size": 128}) == Size()
    too_wide = {**config, "hidden_size": 2048}
    with pytest.raises(ValueError, match="measured as it is"):
        Size.near(too_wide).factor(too_wide)


def test_a_model_that_is_larger_already_is_refused() -> None:
    with pytest.raises(ValueError, match="measured as it is"):
        LARGE.factor({"hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 6})
