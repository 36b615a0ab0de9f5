"""The KubeRay version that made this pod, from the environment of its head (pod.go, 1.5 to 1.7)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

TAGS = "RAY_USAGE_STATS_EXTRA_TAGS"
"""Environment: "kuberay_version=v1.6.2;kuberay_crd=RayJob"."""
OLDEST = (1, 6)
NEWEST = (1, 7)
"""Its source was read when this was written."""
_TAG = re.compile(r"(?:^|;)kuberay_version=v?([^;]*)")


class OldOperatorError(RuntimeError):
    """The operator does not know what the chart asks of it; the message says what to do."""


def operator_version(environment: Mapping[str, str] = os.environ) -> str | None:
    """As its operator says: "1.6.2", "nightly"; None without KubeRay."""
    found = _TAG.search(environment.get(TAGS, ""))
    return found[1] if found else None


def check_operator(version: str) -> str:
    """A remark about a version, in a few words; "" for a version that is known.

    Raises:
        OldOperatorError: it is too old. A version that is no number is taken for a new one.
    """
    number = re.match(r"(\d+)\.(\d+)", version)
    if number is None:
        return f", which has no number; {_known()} are known"
    found = (int(number[1]), int(number[2]))
    if found < OLDEST:
        raise OldOperatorError(
            f"KubeRay {version} runs this job, and the chart needs 1.6 or later: an older one does not know the "
            "RayJob's preRunningDeadlineSeconds, so that pods that never come hold the others for ever, nor the Secret "
            "of auth.existingSecret. Upgrade the operator and its CRDs (`helm upgrade` leaves CRDs as they are: "
            "kubectl replace), or set backend=statefulset"
        )
    return f", which is newer than {_known()}, which are known" if found > NEWEST else ""


def _known() -> str:
    oldest, newest = (".".join(map(str, one)) for one in (OLDEST, NEWEST))
    return f"{oldest} to {newest}"
