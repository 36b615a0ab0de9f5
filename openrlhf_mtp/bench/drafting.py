"""The arms of a whole rollout: nothing drafts, a head does, or one of vLLM's methods that need no head.

`ngram` proposes what followed the last few tokens where they stood before in the same sequence. `suffix` (Suffix
Decoding, arXiv 2411.04975) looks in a tree of the prompt and of all responses of this engine, those that are being
written included. Both propose tokens and no distribution, so rejection sampling accepts a token with the policy's own
probability of it: they are as lossless as a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import Sampling
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.engine import engine_overrides

Method = Literal["none", "head", "ngram", "suffix"]

NONE = "none"
"""The arm that all others are compared with."""
NGRAM_WINDOW = (2, 4)
"""Shortest and longest run of tokens that n-gram drafts are looked up by; vLLM's own default is (5, 5)."""
SUFFIX_LIMIT = 24
"""Longest suffix draft, vLLM's own default; most are shorter, because the method drafts no longer than it matched."""

SUFFIX_BUILD = (
    "pip install nanobind==2.9.2, then pip install --no-build-isolation --no-deps arctic-inference==0.3.0 "
    "(PyPI has it as source alone; the build needs cmake, ninja and a C++ compiler)"
)


@dataclass(frozen=True)
class Drafting:
    """One arm of a whole rollout.

    Attributes:
        name: in tables and results.
        method: what drafts.
        head: the folder of a head that drafts; None for the other methods.
        window: of n-gram drafts, see `NGRAM_WINDOW`.
    """

    name: str
    method: Method
    head: Path | None = None
    window: tuple[int, int] = NGRAM_WINDOW

    @property
    def needs_v1_runner(self) -> bool:
        """Whether vLLM's V2 model runner lacks the method, so that vLLM would take V1 for this arm."""
        return self.method in ("ngram", "suffix")

    def longest_draft(self, depths: int) -> int:
        """Tokens of its longest draft, where a head drafts `depths`."""
        return {"none": 0, "head": depths, "ngram": depths, "suffix": SUFFIX_LIMIT}[self.method]

    def overrides(self, mtp: MTPSettings, policy_dir: str, sampling: Sampling) -> dict[str, Any]:
        """Arguments of vLLM's engine, as a job's rollout engines get them, with this arm's drafts.

        Args:
            mtp: settings of a head's drafts; n-gram drafts are as long.
            policy_dir: the policy's folder.
            sampling: how the responses are sampled.

        Raises:
            JobErrors: the head does not fit the policy.
        """
        if self.method == "head":
            return engine_overrides(mtp.model_copy(update={"head": str(self.head)}), policy_dir, sampling)
        plain = mtp.model_copy(update={"rollout": mtp.rollout.model_copy(update={"speculate": False})})
        ours = engine_overrides(plain, policy_dir, sampling)
        if self.method == "none":
            return ours
        own = {"prompt_lookup_min": self.window[0], "prompt_lookup_max": self.window[1]}
        speculation = {
            "method": self.method,
            "num_speculative_tokens": self.longest_draft(mtp.depths),
            "rejection_sample_method": "standard",
            **(own if self.method == "ngram" else {}),
        }
        return {**ours, "speculative_config": speculation, "per_request_spec_decode_metrics": "detailed"}


def parse_arms(text: str, head: Path) -> tuple[Drafting, ...]:
    """The arms of `--arms`, in its order.

    Args:
        text: names with commas between: `none`, `head`, `ngram` or `ngram:MIN:MAX`, `suffix`, and `NAME=DIR` for a
            further head.
        head: the folder that `head` stands for.

    Raises:
        JobError: an arm that is none of these, twice the same name, or no `none`.
    """
    arms = tuple(_parse(word.strip(), head) for word in text.split(","))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise JobError(f"--arms: got {text}, expected each name once")
    if NONE not in names:
        raise JobError(f"--arms: got {text}, expected {NONE} among them: the others are compared with it")
    return arms


def _parse(word: str, head: Path) -> Drafting:
    name, is_head, folder = word.partition("=")
    if is_head and name and folder:
        return Drafting(name, "head", Path(folder))
    if word == "head":
        return Drafting("head", "head", head)
    if word == NONE:
        return Drafting(NONE, "none")
    if word == "suffix":
        return Drafting("suffix", "suffix")
    method, *window = word.split(":")
    if method == "ngram" and len(window) in (0, 2) and all(part.isdecimal() for part in window):
        low, high = map(int, window) if window else NGRAM_WINDOW
        if 1 <= low <= high:
            return Drafting(word, "ngram", window=(low, high))
    raise JobError(
        f"--arms: got {word!r}, expected none, head, ngram, ngram:MIN:MAX with 1 <= MIN <= MAX, suffix, or NAME=DIR "
        "with the folder of a head"
    )


def require(arms: Sequence[Drafting]) -> None:
    """See that what the arms need is installed, before anything is started.

    Raises:
        JobError: the package of suffix drafts is missing or broken.
    """
    if not any(arm.method == "suffix" for arm in arms):
        return
    try:
        from arctic_inference.suffix_decoding import SuffixDecodingCache  # noqa: F401
    except ImportError as problem:
        raise JobError(
            f"--arms: got suffix, but its package arctic-inference cannot be imported ({problem}); leave the arm out, "
            f"or install it: {SUFFIX_BUILD}"
        ) from problem
