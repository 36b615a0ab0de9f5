"""What Helm's own engine answers where a release is there already, from an API server that knows nothing else."""

import base64
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from helm.engine import CHART, NameTakenError, ReleaseError, Releases, ci_values

STORED = {
    "name": "mine",
    "namespace": "team",
    "version": 1,
    "info": {"status": "deployed"},
    "chart": {"metadata": {"name": "other", "version": "1.0.0", "apiVersion": "v2"}},
}
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:%d"}}]
users: [{name: u, user: {}}]
contexts: [{name: here, context: {cluster: c, user: u, namespace: team}}]
"""


def record():
    """A release as Helm 3 and 4 store it, in a Secret."""
    packed = base64.b64encode(gzip.compress(json.dumps(STORED).encode()))
    labels = {"owner": "helm", "name": "mine", "status": "deployed", "version": "1"}
    return {
        "metadata": {"name": "sh.helm.release.v1.mine.v1", "namespace": "team", "labels": labels},
        "type": "helm.sh/release.v1",
        "data": {"release": base64.b64encode(packed).decode()},
    }


class Stub(BaseHTTPRequestHandler):
    """Its version and a list of one Secret; it takes note of everything that would change something."""

    changes: ClassVar[list[str]] = []

    def do_GET(self):
        self.answer({"kind": "SecretList", "apiVersion": "v1", "items": [record()]})

    def answer(self, listed):
        made = listed if "/secrets" in self.path else {"major": "1", "minor": "30", "gitVersion": "v1.30.0"}
        body = json.dumps(made).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self):
        self.changes.append(f"{self.command} {self.path}")
        self.send_error(403)

    do_POST = do_PUT = do_PATCH = do_DELETE = refuse

    def log_message(self, *_):
        pass


@pytest.fixture
def releases(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % server.server_port, encoding="utf-8")
    Stub.changes.clear()
    yield Releases(path, "team")
    server.shutdown()
    server.server_close()


def test_a_release_is_found_by_its_whole_name(releases):
    assert [releases.has(name) for name in ("mine", "min", "other")] == [True, False, False]


def test_a_name_in_use_is_an_error_of_its_own_and_nothing_is_changed(releases):
    with pytest.raises(NameTakenError, match="still in use"):
        releases.install(CHART, "mine", ci_values("cpu-smoke"), 5)
    assert Stub.changes == []


def test_an_api_server_that_is_away_is_an_error_that_callers_know(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % 9, encoding="utf-8")  # port 9: nobody listens
    for ask in (Releases(path, "team").has, Releases(path, "team").uninstall):
        with pytest.raises(ReleaseError, match=r"unreachable|refused"):
            ask("mine")
