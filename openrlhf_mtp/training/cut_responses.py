"""Responses that were cut at their limit before they ended: when a user is told, and in which words.

A cut response is trained on as it is: every sampled token is an action, there is no end token among them, and nothing
stands in for it. Its reward judges an unfinished answer.
"""

from collections.abc import Sequence
from typing import Any

WORTH_A_NOTICE = 0.5
"""Share of cut responses from which a run says so: then most rewards judge the limit and not the answer."""


def cut_notice(share: float, setting: str, limit: int) -> str:
    """Say that most of the responses were cut.

    Args:
        share: of the responses that ended at their limit.
        setting: that sets the limit.
        limit: in tokens.

    >>> cut_notice(0.87, "rollout.max_new_tokens", 64).split(":")[0]
    '87 % of the responses were cut at rollout.max_new_tokens = 64'
    """
    return (
        f"{100 * share:.0f} % of the responses were cut at {setting} = {limit}: their rewards judge unfinished "
        f"answers, and no end token is learned from them; raise {setting}, or ask for shorter answers in the prompt"
    )


def rollout_limit(args: Any) -> tuple[str, int]:
    """The setting that limits a rollout's responses, and its tokens.

    Args:
        args: OpenRLHF's arguments.
    """
    own = args.rollout.max_new_tokens
    return ("rollout.max_new_tokens", own) if own else ("data.max_len", args.data.max_len)


def pretrain_limit(args: Any) -> tuple[str, int]:
    """The same for the responses of the stage before RL."""
    own = args.mtp.pretrain.max_new_tokens
    return ("mtp.pretrain.max_new_tokens", own) if own else rollout_limit(args)


def share_cut(cut: Sequence[bool | None]) -> float | None:
    """Share of the responses that were cut; None when that is not known of all, or there are none."""
    known = [each for each in cut if each is not None]
    return sum(known) / len(known) if known and len(known) == len(cut) else None
