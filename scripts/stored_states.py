"""Time a head step of the stage before RL with hidden states that are stored, against computing them.

    python scripts/stored_states.py POLICY [HEAD] [--threads 1]

The forms take turns; times are seconds of the processor, so that other work on the machine counts for little. Tokens
are random: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

DEPTHS = 3
RESPONSES, PROMPT, LONGEST = 2, (30, 90), (40, 130)
"""Responses of a micro-batch; the lengths of a prompt and of a response are drawn from these ranges."""


def processor_seconds(run: Callable[[], object]) -> float:
    """Seconds of this process, all its threads added up."""
    start = time.process_time()
    run()
    return time.process_time() - start


class Plain:
    """A head's engine without DeepSpeed, whose update costs the same in every form."""

    def __init__(self, head: Any) -> None:
        import torch

        self.head, self.optimizer = head, torch.optim.AdamW(head.parameters(), lr=1e-4)

    def __call__(self, *inputs: Any) -> Any:
        return self.head(*inputs)

    def managed_gradient_accumulation(self) -> bool:
        return False

    def backward(self, loss: Any) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def forms_of(policy: Path, head_folder: Path, folder: Path) -> tuple[dict[str, Callable[[], float]], float]:
    """What is timed, by name, and the bytes that are stored of a token."""
    import torch

    from openrlhf_mtp.config.settings.objective import ObjectiveSettings
    from openrlhf_mtp.heads.formats.head_folder import load_head
    from openrlhf_mtp.losses.targets import from_hidden
    from openrlhf_mtp.training.head_batch import HeadBatch
    from openrlhf_mtp.training.head_trainer import HeadTrainer
    from openrlhf_mtp.training.observed_policy import ObservedPolicy
    from openrlhf_mtp.training.pretrain import state_store
    from openrlhf_mtp.training.pretrain.batches import collate
    from openrlhf_mtp.training.pretrain.responses import Response

    actor = ObservedPolicy(str(policy), attn_implementation="sdpa", param_dtype="fp32")
    actor.requires_grad_(False).eval()
    trunk = actor.trunk()
    weight, size = trunk.output_head.weight.detach(), trunk.config.vocab_size
    head = load_head(str(head_folder), trunk.config, dtype=torch.float32, device="cpu")
    draw = random.Random(0)

    def tokens(lengths: tuple[int, int]) -> tuple[int, ...]:
        return tuple(draw.randrange(size) for _ in range(draw.randrange(*lengths)))

    responses = [Response(number, tokens(PROMPT), tokens(LONGEST)) for number in range(RESPONSES)]
    batch = collate(responses, 0)

    def compute() -> Any:
        with torch.no_grad():
            return actor.hidden_states(batch.sequences, batch.attention_mask)[0]

    state_store.prepare(folder, {})
    store = state_store.StateStore(folder, responses, trunk.config.hidden_size, weight.dtype)
    for row, response in enumerate(responses):
        store.write(response, compute()[row, : state_store.length(response)])

    def step(states: Callable[[], Any], fraction: float) -> None:
        settings = ObjectiveSettings(anchor_fraction=fraction, kl_warmup_steps=0)
        trainer = HeadTrainer(
            engine=Plain(head), head=head, trunk=trunk, depths=DEPTHS, settings=settings, temperature=1.0
        )
        hidden = states()
        targets = from_hidden(hidden, weight, 1.0, size)
        trainer.accumulate(
            HeadBatch(batch.sequences, batch.attention_mask, batch.action_mask, hidden, targets), 1000.0
        )
        trainer.step()

    read = partial(store.read, responses)
    forms: dict[str, Callable[[], object]] = {
        "forward pass of the policy": compute,
        "reading the states": read,
    }
    for fraction in (1.0, 0.25):
        for name, states in (("computed", compute), ("stored", read)):
            forms[f"step, {name}, {fraction:g} of the anchors"] = partial(step, states, fraction)
    written = sum(map(state_store.length, responses))
    nbytes = state_store.stored_bytes(responses, trunk.config.hidden_size, weight.dtype) / written
    return {name: partial(processor_seconds, run) for name, run in forms.items()}, nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("head", type=Path, nargs="?", help="its head; a fresh one if it is left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    import torch

    from openrlhf_mtp.bench.harness import take_turns
    from openrlhf_mtp.heads.formats.equip import equip

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        head = given.head
        if head is None:
            equip(given.policy, Path(scratch) / "policy", depths=DEPTHS)
            head = Path(scratch) / "policy" / "mtp"
        forms, nbytes = forms_of(given.policy, head, Path(scratch) / "states")
        runs = take_turns(forms, given.repeats, there_and_back=True)
    least = {name: min(form.counted) for name, form in runs.items()}
    for name, seconds in least.items():
        print(f"{name:38s} {seconds:8.4f} s")
    for fraction in ("1", "0.25"):
        stored, computed = (
            least[f"step, {form}, {fraction} of the anchors"] for form in ("stored", "computed")
        )
        print(f"stored over computed, {fraction} of the anchors: {stored / computed:.2f}")
    print(f"stored: {nbytes:.0f} bytes a token")


if __name__ == "__main__":
    main()
