"""The trainer reads a policy's states where the head wants them, behind adapters too, through OpenRLHF's own actor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.processes import in_fresh_process


def states(folder: str) -> dict[str, bool]:
    """What `ObservedPolicy` hands over before and after the final norm, without and with LoRA."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
    from openrlhf_mtp.training.pretrain.frozen_policy import FrozenPolicy

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1))
    with torch.no_grad():
        model.model.norm.weight.normal_()
    model.save_pretrained(folder)
    tokens, mask = torch.arange(10).view(2, 5), torch.ones(2, 5, dtype=torch.long)
    found = {}
    for rank in (0, 4):
        actor = ObservedPolicy(
            folder, attn_implementation="sdpa", lora_rank=rank, target_modules="all-linear"
        )
        seen: list[torch.Tensor] = []

        def keep(observation: Observation, seen: list[torch.Tensor] = seen) -> None:
            seen.append(observation.batch.hidden)

        for unnormed in (False, True):
            if unnormed:
                actor.read_unnormed()
            frozen: Any = SimpleNamespace(actor=actor, trunk=actor.trunk())
            with torch.no_grad():
                read, normed = actor.hidden_states(tokens, mask)
                renormed, stored = actor.trunk().final_norm(read), FrozenPolicy.normed(frozen, read)
                with actor.observed(keep):
                    actor(tokens, mask[:, :-1], attention_mask=mask, return_output=True)
            found[f"{rank} {unnormed} as observed"] = torch.equal(seen[-1], read)
            found[f"{rank} {unnormed} norm"] = torch.equal(
                normed, renormed if unnormed else read
            ) and torch.equal(normed, stored)
        found[f"{rank} differ"] = not torch.allclose(seen[0], seen[1])
    return found


def test_states_before_and_after_the_final_norm(tmp_path: Path) -> None:
    found = in_fresh_process(states, str(tmp_path))
    assert len(found) == 10
    assert all(found.values()), found
