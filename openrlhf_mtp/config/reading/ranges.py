"""Ranges of the numbers in OpenRLHF's flags. Its parser takes any number; a senseless one fails hours later.

One table, `RANGES`, is the owner; a contract test holds it to the flags of the installed OpenRLHF.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.flag_spec import FlagValue
from openrlhf_mtp.config.reading.values import LARGEST_WHOLE, digits


@dataclass(frozen=True)
class Range:
    """The numbers that a flag may have. NaN is in no range.

    Attributes:
        low: least number, None for no bound.
        high: greatest number, None for no bound.
        above: `low` itself is outside.
        below: `high` itself is outside.
        infinite: infinity is a number too, where it means "no limit".
        or_off: a number outside that switches the thing off.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    infinite: bool = False
    or_off: int | None = None

    def __contains__(self, number: float) -> bool:
        if number == self.or_off:
            return True
        if math.isnan(number) or (math.isinf(number) and not self.infinite):
            return False
        too_low = self.low is not None and (number < self.low or (self.above and number == self.low))
        too_high = self.high is not None and (number > self.high or (self.below and number == self.high))
        return not too_low and not too_high

    def __str__(self) -> str:
        """The range in words, to continue "expected": `1 or more`, `above 0 and at most 1`."""
        if self.low is not None and self.high is not None and not (self.above or self.below):
            return f"{self.low:g} to {self.high:g}"
        bounds = []
        if self.low is not None:
            bounds.append(f"above {self.low:g}" if self.above else f"{self.low:g} or more")
        if self.high is not None:
            bounds.append(f"below {self.high:g}" if self.below else f"at most {self.high:g}")
        words = " and ".join(bounds) or "a number"
        if not self.infinite:
            words = words.replace("a number", "a finite number")
        return words if self.or_off is None else f"{words}, or {self.or_off} for never"


_COUNT = Range(1)
_COUNT_OR_NONE = Range(0)
_ABOVE_0 = Range(0, above=True)
_AT_LEAST_0 = Range(0)
_AT_LEAST_0_OR_INFINITE = Range(0, infinite=True)
_SHARE = Range(0, 1)
_POSITIVE_SHARE = Range(0, 1, above=True)
_DECAY = Range(0, 1, below=True)
_FINITE = Range()
_ANY = Range(infinite=True)
_EVERY_N_STEPS = Range(1, or_off=-1)

_OF_TRAINED_ROLES = {
    "num_nodes": _COUNT,
    "num_gpus_per_node": _COUNT,
}
_OF_OPTIMIZERS = {
    "adam.lr": _ABOVE_0,
    "adam.betas": _DECAY,
    "adam.eps": _ABOVE_0,
    "adam.weight_decay": _AT_LEAST_0,
    "muon.lr": _ABOVE_0,
    "muon.momentum": _DECAY,
    "muon.ns_steps": _COUNT,
    "lr_warmup_ratio": _SHARE,
    "min_lr_ratio": _SHARE,
    "max_norm": _AT_LEAST_0,  # 0 clips nothing
}

RANGES = MappingProxyType(
    {
        f"{role}.{name}": r
        for role in ("actor", "ref", "critic", "reward")
        for name, r in _OF_TRAINED_ROLES.items()
    }
    | {f"{role}.{name}": r for role in ("actor", "critic") for name, r in _OF_OPTIMIZERS.items()}
    | {
        "actor.aux_loss_coef": _AT_LEAST_0,
        "actor.dual_clip": Range(1, above=True, infinite=True),
        "actor.entropy_coef": _FINITE,
        "actor.eps_clip": _AT_LEAST_0_OR_INFINITE,
        "actor.eps_clip_low_high": _AT_LEAST_0_OR_INFINITE,
        "algo.advantage.gamma": _SHARE,
        "algo.advantage.is_correction_threshold": _AT_LEAST_0_OR_INFINITE,
        "algo.advantage.lambd": _SHARE,
        "algo.dynamic_filtering_range": _ANY,
        "algo.kl.horizon": _COUNT,
        "algo.kl.init_coef": _AT_LEAST_0,
        "algo.kl.target": _AT_LEAST_0,
        "ckpt.max_mem": Range(0, above=True, infinite=True),
        "ckpt.max_num": _COUNT,
        "ckpt.save_steps": _EVERY_N_STEPS,
        "critic.freezing_steps": Range(-1),
        "critic.value_clip": Range(0, above=True, infinite=True),
        "data.dataloader_num_workers": _COUNT_OR_NONE,
        "data.max_images_per_prompt": _COUNT_OR_NONE,
        "data.max_len": _COUNT,
        "data.max_samples": _COUNT,
        "ds.lora.alpha": _COUNT,
        "ds.lora.dropout": _DECAY,
        "ds.lora.rank": _COUNT_OR_NONE,
        "ds.ring_attn_head_stride": _COUNT,
        "ds.ring_attn_size": _COUNT,
        "ds.tensor_parallel_size": _COUNT,
        "ds.zero_stage": Range(0, 3),
        "ds.zpg": _COUNT,
        "eval.n_samples_per_prompt": _COUNT,
        "eval.steps": _EVERY_N_STEPS,
        "eval.temperature": _AT_LEAST_0,
        "local_rank": Range(-1),
        "logger.logging_steps": _COUNT,
        "reward.clip_range": _ANY,
        "reward.overlong_buffer_len": _AT_LEAST_0,
        "reward.overlong_penalty_factor": _AT_LEAST_0,
        "reward.stop_properly_penalty_coef": Range(high=1),
        "rollout.batch_size": _COUNT,
        "rollout.max_new_tokens": _COUNT,
        "rollout.max_tokens_per_gpu": _COUNT,
        "rollout.micro_batch_size": _COUNT,
        "rollout.n_samples_per_prompt": _COUNT,
        "rollout.temperature": _AT_LEAST_0,
        "rollout.top_p": _POSITIVE_SHARE,
        "rollout.vllm_generate_batch_size": _COUNT,
        "train.async_queue_size": _COUNT,
        "train.batch_size": _COUNT,
        "train.ema_beta": _SHARE,
        "train.max_epochs": _COUNT,
        "train.max_tokens_per_gpu": _COUNT,
        "train.micro_batch_size": _COUNT,
        "train.num_episodes": _COUNT,
        "train.seed": _COUNT_OR_NONE,
        "vllm.gpu_memory_utilization": _POSITIVE_SHARE,
        "vllm.num_engines": _COUNT_OR_NONE,
        "vllm.tensor_parallel_size": _COUNT,
    }
)
"""Flag -> what each of its numbers may be."""

ORDERED = ("algo.advantage.is_correction_threshold", "algo.dynamic_filtering_range", "reward.clip_range")
"""Flags of two numbers, the lower one first."""


def in_range(name: str, value: FlagValue) -> FlagValue:
    """`value` as it is, if each of its numbers is one that the flag may have; text and switches always are.

    Raises:
        JobError: got, expected; the first number that is outside.
    """
    numbers = [
        item
        for item in (value if isinstance(value, tuple) else (value,))
        if isinstance(item, int | float) and not isinstance(item, bool)
    ]
    allowed = RANGES.get(name, _ANY)
    for number in numbers:
        if isinstance(number, int) and abs(number) > LARGEST_WHOLE:
            raise JobError(
                f"{name}: got {digits(number)}, expected {allowed}, and no more than {LARGEST_WHOLE}"
            )
        if number not in allowed:
            raise JobError(f"{name}: got {_yaml(number)}, expected {allowed}")
    if name in ORDERED and len(numbers) == 2 and not numbers[0] < numbers[1]:
        raise JobError(
            f"{name}: got [{', '.join(map(_yaml, numbers))}], expected two numbers, the lower one first"
        )
    return value


def _yaml(number: float) -> str:
    """A number as a job file has it: `.inf`, `.nan`, 1e-06, 8."""
    if isinstance(number, float) and not math.isfinite(number):
        return f"{number}".replace("inf", ".inf").replace("nan", ".nan")
    return f"{number:g}" if isinstance(number, float) else str(number)
