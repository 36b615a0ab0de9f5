"""The rules that a head must fit, and by which its drafts are drawn and verified: one for everybody who asks.

`openrlhf-mtp check` asks before anything starts, `rollout` asks once before it creates engines (`require`), and
the loader of a head asks with the head's own configuration (`fit.differences`). Nothing here imports torch or vLLM.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openrlhf_mtp.config.families import family_of
from openrlhf_mtp.config.head_contract.drafting import (
    WHOLE_POLICY,
    Sampling,
    caching_problems,
    drafting_problems,
    sampling_problems,
)
from openrlhf_mtp.config.head_contract.fit import Wanted, misfits
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, head_files, head_folder, policy_files
from openrlhf_mtp.config.model_files import read_json, read_model_config
from openrlhf_mtp.config.problem import Problem, require_no_errors

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import MTPSettings

__all__ = [
    "WHOLE_POLICY",
    "Sampling",
    "all_problems",
    "caching_problems",
    "drafting_problems",
    "drafts_natively",
    "head_folder",
    "head_problems",
    "policy_files",
    "require",
    "sampling_problems",
]

logger = logging.getLogger(__name__)


def head_problems(
    mtp: MTPSettings,
    policy: str,
    max_len: int | None,
    *,
    policy_config: dict[str, object] | None,
    drafts: bool,
) -> Iterator[Problem]:
    """Whether the job's head is there and fits its policy; sizes are compared, tensors are not read.

    Args:
        mtp: the job's settings.
        policy: the policy's folder or Hub name.
        max_len: longest sequence of the job in tokens, None when no limit is known.
        policy_config: the policy's `config.json`; None when it is not on this machine, and then not compared.
        drafts: whether rollouts draft with the head.
    """
    folder = head_folder(mtp.head, policy)
    absent = list(head_files(folder))
    yield from absent
    if not absent:
        wanted = Wanted(blocks=mtp.num_blocks, depths=mtp.depths, max_len=max_len, drafts=drafts)
        yield from misfits(policy_config, read_json(folder / CONFIG_FILE), wanted, folder)


def drafts_natively(folder: Path) -> bool:
    """Whether vLLM's own draft model runs the head in a folder, and not our draft class.

    Raises:
        JobError: its `config.json` is not JSON, or of an unknown family.
    """
    return family_of(read_json(folder / CONFIG_FILE)["mtp"]["trunk_model_type"]).drafts_natively


def all_problems(mtp: MTPSettings, policy: str, sampling: Sampling) -> Iterator[Problem]:
    """All that forbids drafting in a job, or makes it pointless, from the files on this machine."""
    yield from policy_files(policy)
    yield from head_problems(
        mtp,
        policy,
        sampling.max_len,
        policy_config=read_model_config(policy),
        drafts=mtp.rollout.speculate,
    )
    yield from sampling_problems(sampling, mtp)
    yield from drafting_problems(mtp)


def require(mtp: MTPSettings, policy: str, sampling: Sampling) -> None:
    """Refuse drafts that would change the rollouts' distribution, and a head that does not fit; log the rest.

    Raises:
        JobErrors: each error.
        JobError: a `config.json` is not JSON.
    """
    found = list(all_problems(mtp, policy, sampling))
    for problem in found:
        if problem.level == "warning":
            logger.warning("%s", problem)
    require_no_errors(found, f"the head cannot draft for {policy}:")
