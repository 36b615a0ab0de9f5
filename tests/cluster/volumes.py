"""A pod's volumes and environment, made from what the API server says."""

from __future__ import annotations

import base64
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.cluster.api import Api
from tests.cluster.control_plane import ROOT
from tests.cluster.network import SERVER_IP

Mount = tuple[str, str, str]
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def mounts_of(
    api: Api, pod: dict[str, Any], folder: Path, *, hosts: Path, certificates: Path
) -> list[Mount] | None:
    """What to mount where: the "image" (this checkout, examples in /workspace), then volumes, outer ones first.

    Returns None while a claim is not bound yet.
    """
    (container,) = pod["spec"]["containers"]
    user = int(pod["spec"].get("securityContext", {}).get("runAsUser", 0))
    sources = {}
    for volume in pod["spec"].get("volumes", []):
        source = _source(api, pod, volume, folder, user)
        if source is None:
            return None
        sources[volume["name"]] = source
    given = []
    for mount in container.get("volumeMounts", []):
        source = sources[mount["name"]]
        if mount.get("subPath"):
            source = str(_made(Path(source) / mount["subPath"], user))
        given.append((source, mount["mountPath"], "ro" if mount.get("readOnly") else "rw"))
    image = [(str(ROOT / "examples"), "/workspace/examples", "ro")]
    image += [(one, one, "ro") for one in {str(ROOT), sys.prefix, sys.base_prefix} if _is_elsewhere(one)]
    system = [(str(hosts), "/etc/hosts", "ro"), *_account(api, pod, folder, certificates)]
    return sorted([*image, *system, *given], key=lambda mount: mount[1].count("/"))


def _is_elsewhere(folder: str) -> bool:
    """Whether a pod does not have it yet, see container.sh."""
    return not folder.startswith(("/usr", "/opt"))


def _source(api: Api, pod: dict[str, Any], volume: dict[str, Any], folder: Path, user: int) -> str | None:
    place = folder / f"volume-{volume['name']}"
    namespace = pod["metadata"]["namespace"]
    if "emptyDir" in volume:
        limit = volume["emptyDir"].get("sizeLimit", "1Gi")
        if volume["emptyDir"].get("medium") == "Memory":
            return f"tmpfs:{limit.replace('Gi', 'g').replace('Mi', 'm')}"
        return str(_made(place, user))
    if "hostPath" in volume:
        return str(volume["hostPath"]["path"])
    if "configMap" in volume:
        found = api.get("ConfigMap", namespace, volume["configMap"]["name"])
        if found is None:
            return None
        place.mkdir(exist_ok=True)
        for name, text in found.get("data", {}).items():
            (place / name).write_text(text, encoding="utf-8")
        return str(place)
    if "persistentVolumeClaim" in volume:
        claim = api.get("PersistentVolumeClaim", namespace, volume["persistentVolumeClaim"]["claimName"])
        bound = claim and api.get("PersistentVolume", None, claim["spec"].get("volumeName", "-"))
        return str(bound["spec"]["hostPath"]["path"]) if bound else None
    raise ValueError(f"volume {volume['name']}: a kind that this kubelet does not know")


def _made(place: Path, user: int) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    shutil.chown(place, user, user)
    return place


def _account(api: Api, pod: dict[str, Any], folder: Path, certificates: Path) -> list[Mount]:
    """The service account's token, where the pod asks for it."""
    if not pod["spec"].get("automountServiceAccountToken"):
        return []
    namespace, name = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = api.request("POST", f"{api.path('ServiceAccount', namespace, name)}/token", asked)
    place = folder / "account"
    place.mkdir(exist_ok=True)
    (place / "token").write_text(answer["status"]["token"], encoding="utf-8")
    (place / "namespace").write_text(namespace, encoding="utf-8")
    shutil.copy(certificates / "apiserver.crt", place / "ca.crt")
    return [(str(place), ACCOUNT, "ro")]


def environment_of(api: Api, pod: dict[str, Any], ip: str) -> dict[str, str]:
    """The image's environment and the container's own."""
    found = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        # the package as it is checked out here
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOSTNAME": pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": SERVER_IP,
        "KUBERNETES_SERVICE_PORT": "6443",
        # names come from /etc/hosts; gRPC's own resolver would ask a name server
        "GRPC_DNS_RESOLVER": "native",
    }
    fields = {
        "status.podIP": ip,
        "metadata.name": pod["metadata"]["name"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
    }
    (container,) = pod["spec"]["containers"]
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            found[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            secret = api.get("Secret", pod["metadata"]["namespace"], reference["name"])
            if secret is not None:
                found[variable["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        else:
            found[variable["name"]] = _expanded(variable.get("value", ""), found)
    return found


def _expanded(text: str, known: dict[str, str]) -> str:
    """With `$(NAME)` of the variables before it replaced, as Kubernetes does; others stay."""
    return re.sub(r"\$\((\w+)\)", lambda match: known.get(match[1], match[0]), text)
