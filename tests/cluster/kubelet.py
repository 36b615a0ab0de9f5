"""Runs the pods of one node as processes in namespaces of their own: what a kubelet and a container engine would do.

Each pod gets its own network namespace and address, its own /dev/shm, its volumes, its user and its environment; its
command runs as the pod has it. Readiness, preStop hooks, grace periods, restarts and service names are carried
out. Not carried out: resource limits, liveness probes, images (a pod sees this machine's own Python and this
checkout), seccomp, NetworkPolicies.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import names
from tests.cluster.container import Container
from tests.cluster.control_plane import NODE, ControlPlane
from tests.cluster.logs import LogServer
from tests.cluster.loop import Loop
from tests.cluster.network import HOST_IP
from tests.cluster.status import is_ready, report
from tests.cluster.volumes import environment_of, mounts_of

Key = tuple[str, str]


class Kubelet:
    """Use as a context manager beside a `ControlPlane`."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.api, self.folder = plane, plane.api, folder
        self.pods: dict[Key, Container] = {}
        self.logs: dict[str, Path] = {}
        self._next = 10
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n", encoding="utf-8")
        self._loop = Loop(self._round, every_s=0.5)
        self.problems = self._loop.problems
        self._log_server = LogServer(HOST_IP, folder, self._read_log)

    def __enter__(self) -> Self:
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.end()
        for running in list(self.pods.values()):
            running.kill()
        self._loop.join()
        self._log_server.stop()

    def log_of(self, beginning: str) -> str:
        """Output of all pods whose names begin so, also of those that have gone, oldest first."""
        found = [path for name, path in self.logs.items() if name.startswith(beginning)]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in found)

    def find(self, beginning: str) -> Container:
        """The only pod that runs and whose name begins so."""
        (running,) = [
            one
            for (_, name), one in list(self.pods.items())
            if name.startswith(beginning) and not one.ended and not one.stopping
        ]
        return running

    def kill(self, beginning: str) -> None:
        """SIGKILL a pod's container, as a node's fault or the memory killer would."""
        self.find(beginning).kill()

    def _read_log(self, namespace: str, name: str) -> bytes | None:
        known = self.pods.get((namespace, name))
        return None if known is None else known.log().encode()

    def _round(self) -> None:
        """Bring what runs in line with what the API server lists for this node."""
        listed = {_key(pod): pod for pod in self.api.list("Pod") if pod["spec"].get("nodeName") == NODE}
        for key, pod in listed.items():
            known = self.pods.get(key)
            if known is not None and known.pod["metadata"]["uid"] != pod["metadata"]["uid"]:
                self._forget(key)
                known = None
            if pod["metadata"].get("deletionTimestamp"):
                self._stop(key, known)
            elif known is not None:
                self._look(known)
            elif pod["status"].get("phase") == "Pending":
                self._start(key, pod)
        for key in set(self.pods) - set(listed):
            self._forget(key)
        names.rewrite(self._hosts, names.lines(self.api.list("Service"), self.pods.values()))

    def _start(self, key: Key, pod: dict[str, Any]) -> None:
        folder = self.folder / f"{key[1]}-{pod['metadata']['uid'][:6]}"
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was given up
        folder.mkdir()
        running = Container(pod, folder, self._next)
        certificates = self.plane.folder / "certificates"
        mounts = mounts_of(self.api, pod, folder, hosts=self._hosts, certificates=certificates)
        if mounts is None:  # a volume is not there yet
            return
        self._next += 1
        (folder / "mounts").write_text("".join("\t".join(line) + "\n" for line in mounts), encoding="utf-8")
        (folder / "log").touch()
        running.environment = environment_of(self.api, pod, running.ip)
        self.pods[key] = running
        self.logs[f"{key[1]} {pod['metadata']['uid']}"] = folder / "log"
        running.start(self.plane.network)
        report(self.api, running, "Running")

    def _look(self, running: Container) -> None:
        """A pod that runs, or ran: ready, ended, to be started again."""
        if running.ended or running.stopping:
            return
        code = running.exit_code()
        if code is None:
            if not running.ready and is_ready(running):
                running.ready = True
                report(self.api, running, "Running")
        elif running.restarts_always:
            self._start_again(running, code)
        else:
            running.ended, running.ready = True, False
            report(self.api, running, "Failed" if code else "Succeeded", exit_code=code)

    def _start_again(self, running: Container, code: int) -> None:
        """At once the first time, then after a pause that grows, as a kubelet does."""
        now = time.monotonic()
        if running.restart_at == 0.0:
            pause = 0.0 if running.restarts == 0 else min(10.0 * 2 ** (running.restarts - 1), 300.0)
            running.restart_at, running.ready = now + pause, False
            report(self.api, running, "Running", exit_code=code)
        if now >= running.restart_at:
            running.restarts, running.restart_at = running.restarts + 1, 0.0
            running.start(self.plane.network)
            report(self.api, running, "Running")

    def _stop(self, key: Key, running: Container | None) -> None:
        if running is None:
            self.api.delete("Pod", *key, now=True)
        elif not running.stopping:
            running.stopping = True
            threading.Thread(target=self._end, args=(running,), daemon=True).start()

    def _end(self, running: Container) -> None:
        """preStop, SIGTERM, the grace period, SIGKILL, and the pod is gone."""
        deadline = time.monotonic() + float(running.pod["metadata"].get("deletionGracePeriodSeconds", 30))
        hook = running.spec.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook and running.exit_code() is None:
            with contextlib.suppress(subprocess.TimeoutExpired), (running.folder / "hook").open("ab") as log:
                left = max(1.0, deadline - time.monotonic())
                subprocess.run(running.entered(hook), timeout=left, check=False, stdout=log, stderr=log)
        running.signal(signal.SIGTERM)
        while running.exit_code() is None and time.monotonic() < deadline and not self._loop.ending.is_set():
            time.sleep(0.2)
        running.kill()
        self.pods.pop(running.key, None)
        with contextlib.suppress(OSError):  # the server may be going down as well
            self.api.delete("Pod", *running.key, now=True)

    def _forget(self, key: Key) -> None:
        gone = self.pods.pop(key, None)
        if gone is not None:
            gone.kill()


def _key(pod: dict[str, Any]) -> Key:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]
