"""One control plane for the tier, with a node that runs pods; skipped visibly where it cannot be had.

bash tests/cluster/build_kube.sh          once; or KUBE_BUILD=1, which has the tests do it
pytest tests/cluster                      a run, an error, a missing pod, benchmarks
pytest tests/cluster --nightly            all faults, and the emulation of KubeRay
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ROOT, ControlPlane
from tests.cluster.installed import Cluster
from tests.cluster.kubelet import Kubelet
from tests.engine import rl_jobs
from tests.processes import in_fresh_process

BINARIES = Path(os.environ.get("KUBE_CACHE", ROOT / ".cache" / "kube")) / "bin"
NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def _obstacle() -> str | None:
    """Why this machine cannot run the tier."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    missing = [
        tool for tool in ("unshare", "nsenter", "ip", "setpriv", "openssl") if shutil.which(tool) is None
    ]
    if missing:
        return f"needs {', '.join(missing)}"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        return "needs the right to make namespaces, which most containers do not have"
    if not all((BINARIES / name).exists() for name in NEEDED) and "KUBE_BUILD" not in os.environ:
        return "no control plane yet: bash tests/cluster/build_kube.sh builds it once (3 minutes), as KUBE_BUILD=1 does"
    return None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster, a fresh folder that its volumes lie in, and what it takes to install the chart."""
    obstacle = _obstacle()
    if obstacle:
        pytest.skip(obstacle)
    if not all((BINARIES / name).exists() for name in NEEDED):
        subprocess.run(["bash", str(Path(__file__).parent / "build_kube.sh")], check=True)
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o755)
    pods = folder / "pods"
    pods.mkdir()
    with ControlPlane(folder, BINARIES) as plane, Kubelet(plane, pods) as kubelet:
        yield Cluster(plane, kubelet, folder)
    for problem in sorted(set(kubelet.problems)):
        warnings.warn(f"kubelet: {problem}", stacklevel=1)


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny policy with a head, prompts and a reward; made once."""
    folder = tmp_path_factory.mktemp("assets")
    in_fresh_process(rl_jobs.write_assets, folder, timeout_s=300)
    return folder
