"""Head and loss together on a real trunk: acceptance rises, and the trunk does not notice."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.heads.formats.equip import init_head
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.trunk import Trunk
from tests.unit.heads.tiny import DEPTHS, VOCAB, trunk_config


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    # a wide initialization, so that the policy's distributions are far from uniform
    return AutoModelForCausalLM.from_config(
        trunk_config("qwen2", initializer_range=0.2, tie_word_embeddings=True)
    )


@pytest.fixture(scope="module")
def tokens(trunk):
    """The policy's own samples [32, 12]: with other tokens cross-entropy would have another target than the policy."""
    torch.manual_seed(0)
    drawn = torch.randint(VOCAB, (32, 1))
    for _ in range(11):
        drawn = torch.cat([drawn, trunk(drawn).logits[:, -1].softmax(-1).multinomial(1)], 1)
    return drawn


def trainer_loss(trunk, head, tokens, objective):
    """The loss as the trainer wires it, from a trunk whose parameters all ask for gradients."""
    mask = torch.ones_like(tokens)
    hidden = trunk.model(tokens).last_hidden_state
    trainer = HeadTrainer(
        engine=None,
        head=head,
        trunk=Trunk.of(trunk),
        depths=DEPTHS,
        settings=ObjectiveSettings(objective=objective, kl_warmup_steps=0),
        temperature=1.0,
    )
    return trainer.loss(HeadBatch(tokens, mask, mask, hidden.detach()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_the_head_raises_acceptance_and_leaves_the_trunk_without_gradient(trunk, tokens, objective):
    head = init_head(
        HeadConfig.from_trunk(trunk.config, depths=DEPTHS),
        trunk.model.layers[-1].state_dict(),
        trunk.model.norm.weight.detach(),
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    alphas = []
    for _ in range(15):
        output = trainer_loss(trunk, head, tokens, objective)
        optimizer.zero_grad()
        (output.loss_sum / output.sums.loss_count).backward()
        optimizer.step()
        alphas.append((output.sums.alpha_sum / output.sums.depth_count).tolist())
    assert all(last > first + 0.05 for first, last in zip(alphas[0], alphas[-1], strict=True)), alphas
    assert [name for name, p in trunk.named_parameters() if p.grad is not None] == []
