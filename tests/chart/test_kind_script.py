"""ci/kind-e2e.sh with stand-ins for the tools that this machine lacks: what it calls, and that it always cleans up.

Whether the chart runs on kind is not tested here; that is what the script is for. What it has a cluster go through
(`python -m ci.e2e`) runs in tests/cluster/test_e2e.py.
"""

import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from ci import e2e
from helm.engine import ROOT
from openrlhf_mtp import __version__
from tests.patience import seconds

SCRIPT = ROOT / "ci" / "kind-e2e.sh"
IMAGE = f"localhost/openrlhf-mtp:{__version__}-cpu"
TOOLS = IMAGE.replace("-cpu", "-tools")
CELLS = ["statefulset", "helm-1.6.2", "helm-1.7.0", "kustomize-1.6.2"]
STAND_IN = """#!/bin/bash
echo "{name} $*" >> "$CALLS"
[[ "{name} $*" == $BROKEN ]] && exit 1
[[ "{name} $*" == "kind version" ]] && echo "kind v$KIND go1.26 linux/amd64"
exit 0
"""
DELETED = "kind delete cluster --name openrlhf-mtp"


@pytest.fixture
def kind(tmp_path):
    """Run the script; its exit code, its output, and the calls it made."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("docker", "kind", "kubectl", "helm", "python3"):
        (tools / name).write_text(STAND_IN.format(name=name), encoding="utf-8")
        (tools / name).chmod(0o755)

    def run(*words, broken="nothing", kind="0.32.0", path=f"{tools}:{os.defpath}"):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            [shutil.which("bash"), SCRIPT, *words],
            env={"PATH": path, "HOME": str(tmp_path), "CALLS": str(calls), "BROKEN": broken, "KIND": kind},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds(60),
        )
        made = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
        return done.returncode, done.stdout, made

    return run


def of(calls, beginning):
    return [call for call in calls if call.startswith(beginning)]


def test_every_cell_has_a_cluster_of_its_own_and_its_own_operator(kind):
    code, output, calls = kind()
    assert code == 0, output
    assert output.splitlines()[-1] == f"kind-e2e: {' '.join(CELLS)} passed"
    operators = [
        (call.split()[0], word)
        for call in [*of(calls, "helm install kuberay-operator"), *of(calls, "kubectl create -k")]
        for word in call.split()
        if word in ("1.6.2", "1.7.0") or "?ref=v1.6.2&" in word
    ]
    at = "github.com/ray-project/kuberay/ray-operator/config/default?ref=v1.6.2&timeout=90s"
    assert operators == [("helm", "1.6.2"), ("helm", "1.7.0"), ("kubectl", at)]
    clusters = [call for call in calls if " cluster --name" in call]
    assert clusters == ["kind create cluster --name openrlhf-mtp --wait 3m", DELETED] * 4 + [DELETED]
    backends = [call.split("--backend ")[1].split()[0] for call in of(calls, "python3 -m ci.e2e")]
    assert backends == ["statefulset", "rayjob", "rayjob", "rayjob"]


def test_the_workflow_runs_the_same_cells():
    workflow = yaml.safe_load((ROOT / ".github/workflows/kind.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["chart"]["strategy"]["matrix"]["cell"] == CELLS


def test_what_is_called_with_its_words_is_there(kind, monkeypatch):
    _, _, calls = kind("helm-1.7.0")
    (call,) = of(calls, "python3 -m ci.e2e")
    arguments = e2e.parser().parse_args(shlex.split(call)[3:])
    monkeypatch.chdir(ROOT)
    values = e2e.chart_values(arguments)
    assert values["backend"] == "rayjob"
    assert values["image"] == {
        "repository": "localhost/openrlhf-mtp",
        "tag": f"{__version__}-cpu",
        "digest": "",
    }
    assert values["tools"]["image"]["tag"] == f"{__version__}-tools"
    assert values["job"]["overrides"][-2:] == ["train.num_episodes=3", f"ckpt.save_steps={e2e.SAVE_STEPS}"]
    (namespace,) = of(calls, "kubectl create namespace")
    assert namespace.split()[-1] == arguments.namespace


def test_no_operator_is_installed_where_none_is_needed(kind):
    code, output, calls = kind("statefulset")
    assert code == 0, output
    assert not [call for call in calls if "kuberay" in call]


def test_the_namespace_takes_restricted_pods_only(kind):
    _, _, calls = kind("statefulset")
    assert "kubectl label namespace e2e pod-security.kubernetes.io/enforce=restricted" in calls


def test_the_images_that_are_loaded_and_run_are_those_that_were_built(kind):
    _, _, calls = kind("statefulset")
    built = of(calls, "docker build")
    (loaded,) = of(calls, "kind load docker-image")
    (lived,) = of(calls, "python3 -m ci.e2e")
    assert [re.search(r"--tag (\S+)", call)[1] for call in built] == [IMAGE, TOOLS]
    assert loaded.endswith(f"{IMAGE} {TOOLS}")
    assert f"--image {IMAGE} --tools-image {TOOLS} " in lived


@pytest.mark.parametrize("broken", ["*ci.e2e*", "docker*", "kind load*", "helm install*", "kubectl rollout*"])
def test_a_step_that_fails_ends_it_and_the_cluster_is_deleted(kind, broken):
    code, _, calls = kind("kustomize-1.6.2" if "rollout" in broken else "helm-1.6.2", broken=broken)
    assert code == 1
    assert calls[-1] == DELETED


@pytest.mark.parametrize(
    ("words", "given", "told"),
    [
        (["minikube"], {}, "got minikube, expected statefulset, helm-VERSION or kustomize-VERSION"),
        (
            [],
            {"kind": "0.23.0"},
            "got kind 0.23.0, expected 0.24 or later: an older one enforces no NetworkPolicy",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(kind, words, given, told):
    code, output, calls = kind(*words, **given)
    assert (code, output) == (2, f"kind-e2e: {told}\n")
    assert calls == of(calls, "kind version")


def test_a_missing_tool_is_named_before_anything_is_made(kind, tmp_path):
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    code, output, calls = kind(path=str(tmp_path))
    assert code == 2
    assert "is missing" in output
    assert calls == []
