"""What the submitter asks of the API server: its StatefulSets' scales and its memory, with its token, over TLS."""

import http.server
import json
import ssl
import subprocess
import threading

import pytest

from openrlhf_mtp.cluster.scale import Progress, RunPods

GROUPS = {"run-head": 1, "run-trainer": 2}
SCALES = {f"/apis/apps/v1/namespaces/team/statefulsets/{name}/scale": count for name, count in GROUPS.items()}
MEMORY = "/api/v1/namespaces/team/configmaps/run-submitter"


def replicas(server):
    return {path: server.kept[path]["spec"]["replicas"] for path in SCALES}


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Keeps what it is told, by path."""

    kept: dict[str, dict]
    seen: list[tuple[str, str, str]]

    def do_GET(self):
        self._answer()

    def do_PATCH(self):
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.kept[self.path].update(body)
        self._answer()

    def _answer(self):
        self.seen.append((self.command, self.path, self.headers["Authorization"]))
        text = json.dumps(self.kept[self.path]).encode()
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
    kept = {path: {"spec": {"replicas": count}} for path, count in SCALES.items()}
    handler = type("Handler", (ApiServer,), {"kept": {**kept, MEMORY: {"metadata": {}}}, "seen": []})
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
    pods = RunPods(GROUPS, "run-submitter", account=tmp_path)
    pods.release()
    assert set(replicas(server).values()) == {0}
    pods.restore()
    assert replicas(server) == SCALES


def test_progress_is_kept(server, tmp_path):
    pods = RunPods(GROUPS, "run-submitter", account=tmp_path)
    assert pods.recall() is None
    progress = Progress(started=1.5, attempt=2, clearing=True)
    pods.remember(progress)
    assert RunPods(GROUPS, "run-submitter", account=tmp_path).recall() == progress


def test_only_its_own_objects_are_asked_for_with_its_token(server, tmp_path):
    pods = RunPods(GROUPS, "run-submitter", account=tmp_path)
    pods.release()
    pods.recall()
    expected = [*(("PATCH", path) for path in SCALES), ("GET", MEMORY)]
    assert server.seen == [(method, path, "Bearer secret") for method, path in expected]


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
        RunPods(GROUPS, "run-submitter", account=other).release()
    assert replicas(server) == SCALES
