"""Who has the Role of docs/kubernetes_admin.md and nothing else can install, upgrade and remove a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import demands, engine
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, OLD_SERVER, Cluster
from tests.cluster.rayjob import define
from tests.cluster.runs import values, volume

NAME = "openrlhf-mtp-installer"


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Path:
    """Of a service account with the page's Role."""
    role = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", demands.PAGE.read_text(encoding="utf-8"), re.S)[0])
    api = cluster.plane.api
    api.create("ServiceAccount", NAMESPACE, {"metadata": {"name": NAME}})
    api.create("Role", NAMESPACE, role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    api.create(
        "RoleBinding", NAMESPACE, {"metadata": {"name": NAME}, "roleRef": reference, "subjects": [subject]}
    )
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = api.request("POST", f"{api.path('ServiceAccount', NAMESPACE, NAME)}/token", asked)
    config: dict[str, Any] = yaml.safe_load(cluster.plane.kubeconfig.read_text(encoding="utf-8"))
    config["users"] = [{"name": "admin", "user": {"token": answer["status"]["token"]}}]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_role_of_the_docs_is_enough_to_install_upgrade_and_remove_a_run(
    cluster: Cluster, assets: Path, kubeconfig: Path
) -> None:
    helm = engine.Releases(kubeconfig, NAMESPACE)
    define(cluster.plane.api, ["RayJob"])  # RayJobs, which no operator looks at here
    nowhere = {"pods": {"nodeSelector": {"pool": "no-such"}}, "preflight": {"checkJob": False}}
    tensorboard = {"monitoring": {"tensorboard": True, "dashboard": True}}
    for backend in ("statefulset", "rayjob"):
        name = f"by-role-{backend}"
        volume(cluster, assets, name)
        asked = engine.merged(values(cluster, {"backend": backend}), OLD_SERVER)
        # the check of the job file runs; what is installed after it waits for a node
        helm.install(cluster.chart(), name, asked, 300)
        helm.upgrade(cluster.chart(), name, engine.merged(asked, {**nowhere, **tensorboard}), 300)
        assert {"Deployment", "ConfigMap", "NetworkPolicy"} <= {
            one.split()[0] for one in cluster.left_of(name)
        }
        helm.uninstall(name)
        cluster.finish(name)
    with pytest.raises(engine.ReleaseError, match="forbidden"):
        engine.Releases(kubeconfig, "kube-system").install(cluster.chart(), "elsewhere", asked, 60)
    cluster.plane.api.delete("CustomResourceDefinition", None, "rayjobs.ray.io")
    until(
        "no RayJobs",
        lambda: cluster.plane.api.get("CustomResourceDefinition", None, "rayjobs.ray.io") is None,
        60,
    )
