"""The part of a kubelet that the API server asks for a pod's output: `kubectl logs`, `helm test`, client libraries."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PORT = 10250


class LogServer:
    """Serves /containerLogs/NAMESPACE/POD/CONTAINER over TLS; the API server does not check the certificate."""

    def __init__(self, address: str, folder: Path, read: Callable[[str, str], bytes | None]) -> None:
        key, certificate = folder / "kubelet.key", folder / "kubelet.crt"
        new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=node-0"]
        subprocess.run(
            ["openssl", *new, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
        )

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                words = urlsplit(self.path).path.strip("/").split("/")
                found = read(words[1], words[2]) if words[0] == "containerLogs" and len(words) == 4 else None
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer((address, PORT), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
