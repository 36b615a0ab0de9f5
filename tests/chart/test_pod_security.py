"""The notes say which Pod Security level the run's pods need, where it is not the strictest."""

import re

import pytest

from helm.demands import level
from helm.engine import CI_NAMES, ci_values, job_values, merged, render, render_ci
from tests.chart.test_messages import JOB

VALUES = {
    "as it is": {},
    "RDMA": {"network": {"rdma": {"enabled": True}}},
    "the nodes' network": {"network": {"hostNetwork": True}},
    "a folder of the node": {"storage": {"data": {"volume": {"hostPath": {"path": "/data"}}}}},
    "NFS": {"storage": {"data": {"volume": {"nfs": {"server": "s", "path": "/p"}}}}},
    "a scratch disk of the node": {"pods": {"scratch": {"volume": {"hostPath": {"path": "/mnt/nvme"}}}}},
    "privileged": {"trainer": {"securityContext": {"privileged": True}}},
    "root": {"pods": {"podSecurityContext": {"runAsUser": 0}}},
    "a sidecar of one's own": {"head": {"extraContainers": [{"name": "proxy", "image": "x"}]}},
    "an init container of one's own": {
        "rollout": {
            "initContainers": [{"name": "sysctl", "image": "x", "securityContext": {"privileged": True}}]
        }
    },
    "uid chosen by the cluster": {
        "pods": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    },
}


def said(rendered):
    """(level, reasons) as the notes say them; the strictest needs no word."""
    match = re.search(r"Pod Security: the pods need the level (\w+) \((.*?)\)\. A namespace", rendered.notes)
    return (match[1], match[2]) if match else ("restricted", "")


@pytest.mark.parametrize("case", VALUES)
def test_the_notes_say_the_level_of_the_pods_that_are_made(case):
    rendered = render(job_values(JOB, **VALUES[case]))
    assert said(rendered)[0] == level(rendered)


@pytest.mark.parametrize("name", CI_NAMES)
def test_the_notes_of_a_values_file_say_its_level(name):
    assert said(render_ci(name))[0] == level(render_ci(name))


def test_the_reasons_and_the_command_are_named():
    rendered = render(
        merged(
            job_values(JOB, **VALUES["RDMA"]),
            {"storage": {"data": {"volume": {"hostPath": {"path": "/data"}}}}},
        )
    )
    assert said(rendered) == (
        "privileged",
        "the hostPath volume data; ray of trainer: capability IPC_LOCK; ray of rollout: capability IPC_LOCK",
    )
    assert (
        "`kubectl label --overwrite namespace team pod-security.kubernetes.io/enforce=privileged`"
        in rendered.notes
    )
    assert said(render(ci_values("one-gpu"))) == ("restricted", "")
