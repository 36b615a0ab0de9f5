"""What the head's environment says of KubeRay's operator, and which versions are refused."""

import pytest

from openrlhf_mtp.cluster import preflight
from openrlhf_mtp.cluster.operator_version import TAGS, OldOperatorError, check_operator, operator_version


@pytest.mark.parametrize(
    ("tags", "version"),
    [
        ("kuberay_version=v1.6.2;kuberay_crd=RayJob", "1.6.2"),
        ("other=1;kuberay_version=v1.7.0", "1.7.0"),
        ("kuberay_version=nightly;kuberay_crd=RayJob", "nightly"),
        ("not_kuberay_version=v1.5.2", None),
        ("", None),
    ],
)
def test_the_operators_version_is_read_from_what_it_tells_ray(tags, version):
    assert operator_version({TAGS: tags}) == version


def test_without_kuberay_there_is_none():
    assert operator_version({}) is None


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.6.0", ""),
        ("1.6.2", ""),
        ("1.7.0-rc.0", ""),
        ("1.8.0", ", which is newer than 1.6 to 1.7, which are known"),
        ("1.10.1", ", which is newer than 1.6 to 1.7, which are known"),
        ("2.0", ", which is newer than 1.6 to 1.7, which are known"),
        ("nightly", ", which has no number; 1.6 to 1.7 are known"),
    ],
)
def test_versions_that_are_taken(version, words):
    assert check_operator(version) == words


@pytest.mark.parametrize("version", ["1.5.2", "1.5.0", "1.4.2", "0.6.0"])
def test_versions_that_are_refused_in_words(version):
    with pytest.raises(OldOperatorError) as refusal:
        check_operator(version)
    assert str(refusal.value) == (
        f"KubeRay {version} runs this job, and the chart needs 1.6 or later: an older one does not know the RayJob's "
        "preRunningDeadlineSeconds, so that pods that never come hold the others for ever, nor the Secret of "
        "auth.existingSecret. Upgrade the operator and its CRDs (`helm upgrade` leaves CRDs as they are: kubectl "
        "replace), or set backend=statefulset"
    )


def test_the_preflight_refuses_one_before_it_looks_at_anything(monkeypatch, capsys):
    monkeypatch.setenv(TAGS, "kuberay_version=v1.5.2;kuberay_crd=RayJob")
    assert preflight.main(["--run", "/nowhere", "--trainer", "1x1", "--rollout", "1x1"]) == 2
    assert "preflight: error: KubeRay 1.5.2 runs this job" in capsys.readouterr().err
