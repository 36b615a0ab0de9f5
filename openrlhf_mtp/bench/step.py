"""One optimizer step of the policy with the head in each regime, side by side; see `bench.step_table`.

The real trainer: OpenRLHF's training step, DeepSpeed, bfloat16; a random policy of the given size, made-up rollouts.
One process holds one policy and all forms, which take turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from openrlhf_mtp.config.settings.mtp import MTPSettings

PARTS = ("forward", "backward", "update", "head")
"""Where a step's time goes: the policy's forward pass, its backward with the joint term's, its update, and the head
with a forward pass, loss, backward and update of its own."""
PLAIN = "no head"
FIXED, OCC = "joint_policy, fixed", "joint_policy, occ"
DETACH = "detach"


@dataclass(frozen=True)
class Workload:
    """What every form trains on.

    Attributes:
        layers, hidden, vocab: size of the trunk (Qwen2, four times as wide inside, 64 to a head).
        sequences: in a micro-batch.
        prompt, response: tokens of each sequence.
        micro_batches: in an optimizer step.
        depths: depths k.
        fraction: share of the anchors in the forms that name none.
        repeats: timed steps of each form.
    """

    layers: int = 24
    hidden: int = 1024
    vocab: int = 32_768
    sequences: int = 4
    prompt: int = 32
    response: int = 128
    micro_batches: int = 1
    depths: int = 3
    fraction: float = 0.25
    repeats: int = 5

    def forms(self) -> dict[str, dict[str, Any] | None]:
        """Name -> `mtp:` section; None has no head."""
        common = {"depths": self.depths, "anchor_fraction": self.fraction}
        joint = {**common, "regime": "joint_policy"}
        return {
            PLAIN: None,
            "frozen": {**common, "regime": "frozen"},
            DETACH: {**common, "regime": "detach"},
            "detach, all anchors": {"depths": self.depths, "regime": "detach"},
            FIXED: {**joint, "coefficient": {"kind": "fixed", "value": 0.1}},
            OCC: {**joint, "coefficient": {"kind": "occ"}},
        }


@dataclass(frozen=True)
class Result:
    """One form's measurement.

    Attributes:
        form: its name.
        seconds: of each timed step.
        parts: of them, by part of the step (`PARTS`), each step; what is left is moving and logging.
    """

    form: str
    seconds: tuple[float, ...]
    parts: dict[str, tuple[float, ...]]

    def over(self, other: Result) -> tuple[float, float, float]:
        """Time over another form's, step by step as they took turns: median, least, greatest."""
        ratios = [mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)]
        return median(ratios), min(ratios), max(ratios)


Report = Callable[[str, float], None]
"""Called with the form and its seconds after each step."""


def measure(workload: Workload, report: Report) -> list[Result]:
    """Build the policy, and let the forms take turns, in changing order; the first turn of each is not counted."""
    with tempfile.TemporaryDirectory(prefix="bench_step_") as scratch:
        folder = _write_policy(Path(scratch) / "policy", workload)
        actor = _build_actor(folder, Path(scratch), workload)
        forms = {name: _head_parts(actor, mtp) for name, mtp in workload.forms().items()}
        experiences = list(_experiences(actor, workload))
        watch = _Stopwatch()
        watch.watch(actor.trainer.actor, "forward", "forward")
        watch.watch(actor.trainer.actor.model, "backward", "backward")  # the DeepSpeed engine's
        watch.watch(actor.trainer.strategy, "optimizer_step", "update")
        for _, _, step in forms.values():
            for call in ("begin", "observe", "end") if step is not None else ():
                watch.watch(step, call, "head")
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        parts: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
        for turn in range(workload.repeats + 1):
            # there and back: whoever always came after the same one would always find the machine as that one left it
            order = list(forms) if turn % 2 else list(reversed(forms))
            for name in order:
                took, by_part = _timed_step(actor, forms[name], experiences, watch)
                report(name, took)
                if turn > 0:
                    seconds[name].append(took)
                    parts[name].append(by_part)
    return [
        Result(name, tuple(seconds[name]), {part: tuple(row[part] for row in parts[name]) for part in PARTS})
        for name in forms
    ]


class _Stopwatch:
    """Time inside calls, by part; a call within another one's counts for its own part alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]

    def watch(self, owner: Any, call: str, part: str) -> None:
        """Have a method of an object timed from now on."""
        untimed = getattr(owner, call)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = _now()
            try:
                return untimed(*args, **kwargs)
            finally:
                took = _now() - start
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took

        setattr(owner, call, timed)

    def drain(self) -> dict[str, float]:
        """Seconds by part since the last call."""
        seconds, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return seconds


def _now() -> float:
    """Seconds, with all that a GPU was asked for done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _write_policy(folder: Path, workload: Workload) -> Path:
    """A random policy with a fresh head; its tokenizer is never asked for anything but two special tokens."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from openrlhf_mtp.config.head_contract.folder import HEAD_FOLDER
    from openrlhf_mtp.heads.formats.equip import init_head
    from openrlhf_mtp.heads.formats.head_folder import save_head
    from openrlhf_mtp.heads.head_config import HeadConfig

    heads = max(1, workload.hidden // 64)
    config = Qwen2Config(
        vocab_size=workload.vocab,
        hidden_size=workload.hidden,
        intermediate_size=4 * workload.hidden,
        num_hidden_layers=workload.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=workload.prompt + workload.response,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    policy: Any = Qwen2ForCausalLM(config)
    policy.to(torch.bfloat16)
    policy.save_pretrained(folder)
    head = init_head(
        HeadConfig.from_trunk(config, depths=workload.depths),
        policy.model.layers[-1].state_dict(),
        policy.model.norm.weight.detach(),
    )
    save_head(folder / HEAD_FOLDER, head)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )
    return folder


def _build_actor(folder: Path, scratch: Path, workload: Workload) -> Any:
    """The policy worker of a job with one trainer rank and no engines."""
    from tqdm import tqdm

    from openrlhf_mtp.training.driver.context import RunContext
    from openrlhf_mtp.upstream.openrlhf.flags import parse
    from openrlhf_mtp.upstream.processes import prepare_process

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update(WORLD_SIZE="1", RANK="0", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    prepare_process()
    from openrlhf.trainer.ray import ppo_actor

    # a bar for each step would hide the seconds
    ppo_actor.tqdm = lambda steps, **_: tqdm(steps, disable=True)
    batch = workload.sequences * workload.micro_batches
    flags = {
        "actor.model_name_or_path": folder,
        "actor.num_gpus_per_node": 1,
        "algo.advantage.estimator": "reinforce",
        "algo.kl.init_coef": 0,
        "ckpt.path": scratch / "checkpoints",
        "data.prompt_dataset": "none",
        "ds.param_dtype": "bf16",
        "ds.attn_implementation": "sdpa",
        "ds.zero_stage": 2,
        "reward.remote_url": "none",
        "rollout.batch_size": batch,
        "rollout.n_samples_per_prompt": 1,
        "train.batch_size": batch,
        "train.micro_batch_size": workload.sequences,
        "vllm.num_engines": 1,
        "vllm.sync_backend": "gloo",
    }
    args: Any = parse([text for name, value in flags.items() for text in (f"--{name}", str(value))])
    args.mtp = None
    args.run = RunContext(run_folder=str(scratch), monitor_factory=_no_engines)
    from openrlhf.utils import get_strategy

    from openrlhf_mtp.training.observed_policy import ObservedPolicy
    from openrlhf_mtp.training.ray_actor import PolicyActor

    class ActorOfAllForms(PolicyActor):
        """One policy for every form, so that their steps differ in the head alone."""

        def model_class(self, mtp: MTPSettings | None) -> type[ObservedPolicy]:
            return ObservedPolicy

    actor = ActorOfAllForms(1, 0, "127.0.0.1", port)
    actor.init_model_from_pretrained(get_strategy(args), str(folder), max_steps=10_000)
    return actor


def _no_engines(engines: list[Any]) -> Any:
    raise AssertionError("this measurement has no engines")


def _head_parts(actor: Any, section: dict[str, Any] | None) -> tuple[Any, Any, Any]:
    """What the trainer holds in a form: settings, head's trainer, and the head's part of a step."""
    from openrlhf_mtp.training.head_step import HeadStep
    from openrlhf_mtp.training.policy_trainer import build_head_trainer

    class LaterStep(HeadStep):
        """Takes no update for the first one after a rollout, at which OCC's coefficient is 0 and costs nothing."""

        def begin_rollout_batch(self) -> None:
            self._policy_has_moved = True

    if section is None:
        return None, None, None
    mtp, trainer = MTPSettings.model_validate(section), actor.trainer
    head = build_head_trainer(trainer.strategy, trainer.actor, mtp)
    return mtp, head, LaterStep(mtp, head, trainer.actor, trainer.actor_loss_fn)


def _experiences(actor: Any, workload: Workload) -> Iterator[Any]:
    """Made-up rollouts, one sequence each, scored by the policy as it is."""
    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    draw = torch.Generator().manual_seed(0)
    length = workload.prompt + workload.response
    for _ in range(workload.sequences * workload.micro_batches):
        tokens = torch.randint(3, workload.vocab, (1, length), generator=draw)
        action_mask = torch.zeros(1, length - 1, dtype=torch.bool)
        action_mask[:, workload.prompt - 1 :] = True
        attention_mask = torch.ones_like(tokens)
        log_probs = actor.forward(tokens, action_mask, attention_mask)
        advantage = torch.randn(1, 1, generator=draw)
        yield Experience(
            sequences=tokens,
            attention_mask=attention_mask,
            action_mask=action_mask,
            action_log_probs=log_probs,
            rollout_log_probs=log_probs.clone(),
            advantages=advantage * action_mask,
            rewards=advantage[0],
            response_length=torch.tensor([float(workload.response)]),
            total_length=torch.tensor([float(length)]),
            truncated=torch.tensor([0.0]),
            info={"reward": advantage[0]},
        )


def _timed_step(
    actor: Any, parts: tuple[Any, Any, Any], experiences: list[Any], watch: _Stopwatch
) -> tuple[float, dict[str, float]]:
    """Seconds of one optimizer step in a form, and of its parts."""
    trainer = actor.trainer
    trainer.mtp, trainer.head, trainer.mtp_step = parts
    for experience in experiences:
        trainer.replay_buffer.append(experience)
    start = _now()
    trainer.ppo_train(0.0)
    seconds = _now() - start
    trainer.replay_buffer.clear()
    return seconds, watch.drain()
