"""Changes that OpenRLHF's validation makes in a job, and its prints about them, in a job file's words.

It prints names of flags that no longer exist (`--use_dynamic_batch`). Each of its lines is known here by a piece of it;
a line that is new is passed on as it is, and a contract test says so.

Checked on openrlhf 0.11.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openrlhf_mtp.config.reading.old_names import name_today

_NAME = re.compile(r"(?<![\w.-])(--(?=[a-z])|(?=[a-z]+_))([a-z_]+(?:\.[a-z_]+)*)")
"""A flag with dashes, or a word with an underscore in it."""

HARMLESS = {
    "data.input_template": "it has no {} where the prompt would go",
    "reward.remote_url": "train.agent_func_path is set, and the agent gives the rewards",
    "vllm.enable_sleep": "without train.colocate_all engines have GPUs of their own and never make room",
}
"""Settings that OpenRLHF drops, and says so or not, because something else in the job makes them meaningless: why."""


SAID_ELSEWHERE = ("critic.model_name_or_path",)
"""Dropped too, and reported by `config.checks.openrlhf_flags` with the critic's other settings."""


@dataclass(frozen=True)
class Remark:
    """One line that the validation may print.

    Attributes:
        piece: part of the line that no other line has.
        setting: what it is about.
        text: the same in a job file's words; what is expected and why, without the setting.
        of_change: it reports that OpenRLHF changes the setting. If the job gives that setting, the change is
            reported with its values, and the line would say it twice.
    """

    piece: str
    setting: str
    text: str
    of_change: bool


REMARKS = (
    Remark("'{}' not in args.data.input_template", "data.input_template", "OpenRLHF drops it", True),
    Remark(
        "instead of newline",
        "data.input_template",
        "got the two characters \\n, expected a line break; write it in double quotes, or as a block with |",
        False,
    ),
    Remark(
        "--ring_attn_size > 1 requires",
        "ds.packing_samples",
        "got nothing, and ds.ring_attn_size above 1 needs it: OpenRLHF takes true; set ds.packing_samples true",
        True,
    ),
    Remark(
        "when --use_dynamic_batch is enabled",
        "ds.packing_samples",
        "got nothing, and train.dynamic_batch_enable needs it: OpenRLHF takes true; set ds.packing_samples true",
        True,
    ),
    Remark(
        "Set --rollout_max_tokens_per_gpu",
        "rollout.max_tokens_per_gpu",
        "got nothing: OpenRLHF takes the value of train.max_tokens_per_gpu; set it if that is not meant",
        True,
    ),
    Remark(
        "when --packing_samples is enabled",
        "ds.attn_implementation",
        "packed samples need flash attention: OpenRLHF takes flash_attention_2",
        True,
    ),
    Remark("Set args.vllm.enable_sleep to False", "vllm.enable_sleep", "OpenRLHF drops it", True),
    Remark(
        "only colocates DeepSpeed models",
        "train.colocate_all",
        "with train.async_enable only the trainers share GPUs, the engines have their own",
        False,
    ),
    Remark(
        "when using KL as a loss",
        "algo.kl.estimator",
        "got k1 with algo.kl.use_loss, expected k2 or k3; set k2, or algo.kl.unbiased_gradient true",
        False,
    ),
    Remark(
        "when not using KL as a loss",
        "algo.kl.estimator",
        "got k2 or k3 without algo.kl.use_loss, expected k1; set k1",
        False,
    ),
)


def remark(line: str) -> Remark | None:
    """The remark that a printed line is, None for one that is not known here."""
    return next((one for one in REMARKS if one.piece in line), None)


def in_todays_names(text: str) -> str:
    """A refusal of OpenRLHF with the flags in it as a job file has them, whatever it calls them.

    >>> in_todays_names("`--eval_dataset` requires either `--remote_rm_url` or --train.agent_func_path")
    '`eval.dataset` requires either `reward.remote_url` or train.agent_func_path'
    """
    return _NAME.sub(lambda found: name_today(found[2]) or found[2], text)
