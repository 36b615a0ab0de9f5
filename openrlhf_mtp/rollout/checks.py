"""What must hold before an engine starts: the sampling distribution stays the policy's, and the head fits the policy.

The rules are those of `config.checks`, which `openrlhf-mtp check` asks too; nothing here imports vLLM or torch.
"""

from __future__ import annotations

import logging
from pathlib import Path

from openrlhf_mtp.config.checks.fit import misfits
from openrlhf_mtp.config.checks.problem import require_no_errors
from openrlhf_mtp.config.checks.sampling import drafting
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import read_json
from openrlhf_mtp.config.settings.mtp import MTPSettings

logger = logging.getLogger(__name__)


def require_head_fits(policy_dir: Path, head_dir: Path, mtp: MTPSettings) -> None:
    """Refuse a head that was made for another model, before any process is started.

    Raises:
        JobErrors: every mismatch with both values.
        JobError: one of the folders has no `config.json`.
    """
    for folder, what in ((policy_dir, "the policy"), (head_dir, "the MTP head")):
        if not (folder / "config.json").is_file():
            raise JobError(
                f"{what}: {folder / 'config.json'} does not exist; run `openrlhf-mtp equip` to add a head to a "
                "checkpoint, or point actor.model_name_or_path and mtp.head at folders that exist"
            )
    policy, head = (read_json(folder / "config.json") for folder in (policy_dir, head_dir))
    found = misfits(policy, head, mtp, head_dir)
    require_no_errors(found, f"the head in {head_dir} does not fit the policy in {policy_dir}:")


def require_lossless(mtp: MTPSettings) -> None:
    """Refuse settings under which speculative rollouts would not follow the policy's distribution, or waste the head.

    What only costs speed is logged.

    Raises:
        JobErrors: every such setting.
    """
    found = list(drafting(mtp))
    for conflict in found:
        if conflict.level == "warning":
            logger.warning("%s", conflict)
    require_no_errors(found, "these drafts cannot be used:")
