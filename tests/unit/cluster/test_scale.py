"""What the submitter asks of the API server: the scale of its own StatefulSets, with its token, over checked TLS."""

import http.server
import json
import ssl
import subprocess
import threading

import pytest

from openrlhf_mtp.cluster.scale import StatefulSets

GROUPS = {"run-head": 1, "run-trainer": 2}


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Keeps the replicas that it is told."""

    replicas: dict[str, int]
    seen: list[tuple[str, str, str]]

    def do_GET(self):
        self._answer()

    def do_PATCH(self):
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.replicas[self.path.split("/")[-2]] = body["spec"]["replicas"]
        self._answer()

    def _answer(self):
        self.seen.append((self.command, self.path, self.headers["Authorization"]))
        count = self.replicas[self.path.split("/")[-2]]
        # Kubernetes leaves out a number that is zero
        text = json.dumps({"spec": {"replicas": count} if count else {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A TLS server whose certificate is the pod's CA."""
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    new += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "ca.crt"]
    subprocess.run(["openssl", *new], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    (tmp_path / "namespace").write_text("team", encoding="utf-8")
    handler = type("Handler", (ApiServer,), {"replicas": dict(GROUPS), "seen": []})
    made = http.server.HTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(made.server_port))
    yield handler
    made.shutdown()
    made.server_close()
    thread.join()


def test_pods_are_given_back_and_asked_for_again(server, tmp_path):
    sets = StatefulSets(GROUPS, account=tmp_path)
    assert not sets.released()
    sets.release()
    assert server.replicas == {"run-head": 0, "run-trainer": 0}
    assert sets.released()
    sets.restore()
    assert server.replicas == GROUPS
    assert not sets.released()


def test_only_the_scale_of_its_own_sets_is_asked_for_with_its_token(server, tmp_path):
    StatefulSets(GROUPS, account=tmp_path).release()
    assert server.seen == [
        ("PATCH", f"/apis/apps/v1/namespaces/team/statefulsets/{name}/scale", "Bearer secret")
        for name in GROUPS
    ]


def test_a_server_with_another_certificate_is_not_trusted(server, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("token", "namespace"):
        (other / name).write_text("x", encoding="utf-8")
    new = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=y",
        "-keyout",
        "key",
        "-out",
        "ca.crt",
    ]
    subprocess.run(["openssl", *new], cwd=other, check=True, capture_output=True)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        StatefulSets(GROUPS, account=other).release()
    assert server.replicas == GROUPS
