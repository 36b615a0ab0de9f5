"""OpenRLHF's flags by the names they had from 0.6.0 to 0.10.1, when 0.10.2 gave all of them dotted ones.

The table is `old_names.tsv`: a row a name, with today's (0.11.2), a second one where the old flag set two roles at
once (actor and critic, or reference and reward model), and the first and the last version whose parser had it. It was
made from the parsers of every release tag. `convert` and the "did you mean" of job files both read it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

Version = tuple[int, ...]
"""`(0, 8, 11)`; post releases count as their release."""


@dataclass(frozen=True)
class OldName:
    """One old flag.

    Attributes:
        name: without dashes, as in `--micro_train_batch_size`.
        now: today's dotted name.
        also: today's name for the second role that the old flag set, None when it set one.
        since: first release whose parser had it; 0.6.0 is the first one looked at.
        until: last one.
    """

    name: str
    now: str
    also: str | None
    since: Version
    until: Version


LAST_OLD: Version = (0, 10, 1)
"""The last release with the old names."""

IS_CORRECTION_SCHEMES: Mapping[str, tuple[str, str]] = {
    "tis": ("token", "clip"),
    "icepop": ("token", "mask"),
    "seq-mask-tis": ("seq", "mask"),
    "mis": ("seq", "mask"),  # 0.9.3's name for seq-mask-tis
}
"""A named importance-sampling correction up to 0.11.0, as today's (level, mode); both read the ratio itself."""

DROPPED: Mapping[str, str] = {
    "actor_init_on_gpu": "OpenRLHF did nothing with it",
    "perf": "OpenRLHF always measures times now",
    "ptx_coef": "the loss on pre-training data was removed in OpenRLHF 0.7.1",
    "pretrain_data": "the loss on pre-training data was removed in OpenRLHF 0.7.1",
    "pretrain_data_probs": "the loss on pre-training data was removed in OpenRLHF 0.7.1",
    "pretrain_split": "the loss on pre-training data was removed in OpenRLHF 0.7.1",
    "torch_compile": "OpenRLHF has ds.deepcompile now, which is not the same",
}
"""Old flags that no flag of today replaces, each with the reason."""

DID_NOTHING = frozenset({"actor_init_on_gpu", "perf"})
"""Those of them that can be left out without a change."""

_SCHEMES = "tis is level token with mode clip, icepop is token with mask, seq-mask-tis is seq with mask"
_ADVICE: Mapping[str, str] = {
    "bf16": "bf16: true is ds.param_dtype: bf16",
    "flash_attn": "flash_attn: true is ds.attn_implementation: flash_attention_2",
    "prompt_max_len": "data.max_len holds prompt and response together: prompt_max_len + generate_max_len",
    "enable_vllm_is_correction": _SCHEMES,
    "vllm_is_correction_type": _SCHEMES,
    "algo.advantage.is_correction_enable": _SCHEMES,
    "algo.advantage.is_correction_type": _SCHEMES,
}
SHORT_LIVED: Mapping[str, str] = {
    "algo.advantage.is_correction_enable": "algo.advantage.is_correction_level",
    "algo.advantage.is_correction_type": "algo.advantage.is_correction_mode",
    "use_icepop": "algo.advantage.is_correction_mode",
    "use_kl_estimator_k3": "algo.kl.estimator",
    "universal_ckpt": "ds.use_universal_ckpt",
}
"""Names beside the table's: those that 0.11.2 dropped again, and three of single early releases."""

RENAMED: Mapping[str, str] = {"mtp.num_layers": "mtp.num_blocks"}
"""Settings of this project by their old names."""


@cache
def old_names() -> Mapping[str, OldName]:
    """The table, by old name."""
    text = files("openrlhf_mtp.config.reading").joinpath("old_names.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    return {
        name: OldName(name, now, also or None, version(since), version(until))
        for name, now, also, since, until in rows
    }


def name_today(name: str) -> str | None:
    """Today's name of an old flag, None when it is none.

    >>> name_today("temperature")
    'rollout.temperature'
    """
    row = old_names().get(name)
    return SHORT_LIVED.get(name) if row is None else row.now


def advice(name: str) -> str:
    """A remark beside today's name, "" if the value keeps its form."""
    row = old_names().get(name)
    if row is not None and row.also is not None:
        return f"and {row.also}: the old name set both"
    return _ADVICE.get(name, "")


def version(text: str) -> Version:
    """`0.8.11` as numbers, for comparing."""
    return tuple(map(int, text.split(".")))
