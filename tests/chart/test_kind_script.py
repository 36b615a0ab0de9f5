"""ci/kind-e2e.sh with stand-ins for the tools that this machine lacks: what it calls, and that it always cleans up.

Whether the chart runs on kind is not tested here; that is what the script is for.
"""

import os
import shutil
import subprocess

import pytest

from helm.engine import ROOT
from openrlhf_mtp import __version__
from tests.patience import seconds

SCRIPT = ROOT / "ci" / "kind-e2e.sh"
STAND_IN = """#!/bin/bash
echo "{name} $*" >> "$CALLS"
[[ "{name} $*" == $BROKEN ]] && exit 1
case "{name} $*" in
  *jsonpath*networkpolicy*|*networkpolicy*jsonpath*) echo e2e-run ;;
  *rayjob*jsonpath*) echo "Complete $JOB_STATUS" ;;
  *"get job"*jsonpath*) echo Complete ;;
esac
exit 0
"""


@pytest.fixture
def kind(tmp_path):
    """Run the script; its exit code, its output, and the calls it made."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("docker", "kind", "kubectl", "helm"):
        (tools / name).write_text(STAND_IN.format(name=name), encoding="utf-8")
        (tools / name).chmod(0o755)

    def run(*words, broken="nothing", path=f"{tools}:{os.defpath}", job_status="SUCCEEDED"):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            [shutil.which("bash"), SCRIPT, *words],
            env={
                "PATH": path,
                "HOME": str(tmp_path),
                "CALLS": str(calls),
                "BROKEN": broken,
                "JOB_STATUS": job_status,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds(60),
        )
        made = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
        return done.returncode, done.stdout, made

    return run


def test_both_backends_are_installed_awaited_and_removed(kind):
    code, output, calls = kind()
    assert code == 0, output
    assert output.splitlines()[-1] == "kind-e2e: statefulset rayjob passed"
    installs = [call for call in calls if call.startswith("helm") and " install e2e-" in call]
    assert ["--set backend=statefulset" in call for call in installs] == [True, False]
    assert [call.split()[-1] for call in calls if " uninstall " in call] == ["e2e-statefulset", "e2e-rayjob"]
    assert calls[-1] == "kind delete cluster --name openrlhf-mtp"


def test_a_run_that_ended_itself_has_failed(kind):
    code, output, _ = kind("rayjob", job_status="STOPPED")
    assert code == 1
    assert "kind-e2e: rayjob ended as Complete STOPPED" in output


def test_the_operator_is_installed_only_for_its_backend(kind):
    code, output, calls = kind("statefulset")
    assert code == 0, output
    assert not [call for call in calls if "kuberay-operator" in call]


def test_the_image_that_is_loaded_is_the_one_that_was_built(kind):
    _, _, calls = kind("statefulset")
    (built,) = [call for call in calls if call.startswith("docker") and " build " in call]
    (loaded,) = [call for call in calls if "load docker-image" in call]
    image = f"localhost/openrlhf-mtp:{__version__}-cpu"
    assert image in built
    assert loaded.endswith(image)


@pytest.mark.parametrize("broken", ["*install e2e-*", "docker*", "kind load*"])
def test_a_step_that_fails_ends_it_and_the_cluster_is_deleted(kind, broken):
    code, _, calls = kind(broken=broken)
    assert code == 1
    assert calls[-1] == "kind delete cluster --name openrlhf-mtp"


def test_a_missing_tool_is_named_before_anything_is_made(kind, tmp_path):
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    code, output, calls = kind(path=str(tmp_path))
    assert code == 2
    assert "is missing" in output
    assert calls == []
