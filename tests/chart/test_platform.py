"""Which nodes the image runs on, and how it comes to them before a run."""

import re

import pytest
import yaml

from helm.engine import ROOT, job_values, merged, render
from tests.chart import schemas
from tests.chart.test_caches import JOB

ARM = {"nodeSelector": {"kubernetes.io/arch": "arm64"}}
INTEL = {"pods": {"nodeSelector": {"kubernetes.io/arch": "amd64"}}}


def warnings(values):
    return [line for line in render(merged(job_values(JOB), values)).notes.splitlines() if "x86-64" in line]


def test_arm_nodes_are_warned_of_where_the_image_is_named():
    (line,) = warnings({"trainer": ARM, "rollout": ARM})
    assert "trainer.nodeSelector, rollout.nodeSelector: nodes that are not x86-64" in line
    assert 'image.repository must name one of your own, else its pods end with "exec format error"' in line


@pytest.mark.parametrize("given", [{}, INTEL], ids=["none", "amd64"])
def test_other_nodes_are_not(given):
    assert warnings(given) == []


def test_the_documented_daemon_set_pulls_the_runs_image():
    text = (ROOT / "docs/kubernetes_values.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: DaemonSet" in one)
    made = render(merged(job_values(JOB), yaml.safe_load(block)))
    pulls = made.one("DaemonSet")
    assert list(schemas.problems(pulls, "1.32")) == []
    head = made.one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = pulls["spec"]["template"]["spec"]["containers"]
    assert container["image"] == head["containers"][0]["image"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
