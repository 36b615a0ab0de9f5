"""Runs the pods of one node as processes in namespaces of their own: what a kubelet and a container engine would do.

Each pod gets its own network namespace and address, its own /dev/shm, its volumes, its user and its environment; its
command runs as it stands in the pod. Probes, preStop hooks, grace periods, restarts and service names are carried out.
Not carried out: resource limits, images (a pod sees this machine's own Python and this checkout), NetworkPolicies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.container import Container, attach, entered, inner_process
from tests.cluster.control_plane import HOST_IP, NODE, SERVER_IP, SUBNET, ControlPlane
from tests.cluster.logs import LogServer
from tests.cluster.volumes import environment_of, mounts_of

SCRIPT = Path(__file__).parent / "container.sh"
Key = tuple[str, str]


class Kubelet:
    """Use as a context manager beside a `ControlPlane`."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.api, self.folder = plane, plane.api, folder
        self.pods: dict[Key, Container] = {}
        self.logs: dict[str, Path] = {}
        self._next = 10
        self._done = threading.Event()
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n", encoding="utf-8")
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._log_server = LogServer(HOST_IP, folder, self._read_log)
        self.problems: list[str] = []

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._log_server.stop()
        for running in list(self.pods.values()):
            self._kill(running)

    def log_of(self, ending: str) -> str:
        """Output of the pod whose name starts or ends so, also after it has gone."""
        found = [path for name, path in self.logs.items() if name.endswith(ending) or name.startswith(ending)]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in found)

    def _read_log(self, namespace: str, name: str) -> bytes | None:
        known = self.pods.get((namespace, name))
        return None if known is None else known.log().encode()

    def kill(self, ending: str) -> None:
        """SIGKILL a pod's container, as a node's fault or the memory killer would."""
        running = next(one for (_, name), one in list(self.pods.items()) if name.endswith(ending))
        self._kill(running)

    # the loop

    def _loop(self) -> None:
        while not self._done.wait(0.5):
            try:
                self._round()
            except (OSError, urllib.error.URLError) as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}")

    def _round(self) -> None:
        listed = {}
        for pod in self.api.list("Pod"):
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            if pod["spec"].get("nodeName") != NODE:
                continue
            listed[key] = pod
            known = self.pods.get(key)
            if known is not None and known.pod["metadata"]["uid"] != pod["metadata"]["uid"]:
                self._kill(self.pods.pop(key))
                known = None
            if pod["metadata"].get("deletionTimestamp"):
                self._stop(key, known)
            elif known is None and pod["status"].get("phase") == "Pending":
                self._start(key, pod)
            elif known is not None:
                self._look(key, known)
        for key in set(self.pods) - set(listed):
            self._kill(self.pods.pop(key))
        self._write_hosts()

    # a pod's life

    def _start(self, key: Key, pod: dict[str, Any]) -> None:
        folder = self.folder / f"{key[1]}-{pod['metadata']['uid'][:6]}"
        if folder.exists():  # its volumes were not there yet
            shutil.rmtree(folder)
        folder.mkdir()
        running = Container(pod, folder, f"{SUBNET}.{self._next}", self._next)
        mounts = mounts_of(
            self.api, pod, folder, hosts=self._hosts, certificates=self.plane.folder / "certificates"
        )
        if mounts is None:
            shutil.rmtree(folder)
            return
        self._next += 1
        (folder / "mounts").write_text("".join("\t".join(line) + "\n" for line in mounts), encoding="utf-8")
        running.environment = environment_of(self.api, pod, running.ip)
        self.pods[key] = running
        self.logs[f"{key[1]} {pod['metadata']['uid']}"] = folder / "log"
        self._run(running)

    def _run(self, running: Container) -> None:
        """Start the container; also after it has exited."""
        name = running.pod["metadata"]["name"]
        root = running.folder / "root"
        root.mkdir(exist_ok=True)
        command = [*running.container.get("command", []), *running.container.get("args", [])]
        log = (running.folder / "log").open("ab")
        running.process = subprocess.Popen(
            self.plane.inside(
                *(
                    [
                        "unshare",
                        "--net",
                        "--mount",
                        "--uts",
                        "--ipc",
                        "--pid",
                        "--fork",
                        "--kill-child",
                        "bash",
                    ]
                ),
                *(str(SCRIPT), str(root), name, running.user, running.container.get("workingDir", "/")),
                str(running.folder / "mounts"),
                *command,
            ),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=running.environment,
            start_new_session=True,
        )
        running.inner = inner_process(running.process, self.plane.holder)
        attach(self.plane, running)
        self._report(running, "Running", {"running": {}})

    def _look(self, key: Key, running: Container) -> None:
        assert running.process is not None
        code = running.process.poll()
        if code is None:
            if not running.ready and self._probe(running):
                running.ready = True
                self._report(running, "Running", {"running": {}})
            return
        if running.ended or running.stopping:
            return
        exit_code = 137 if code == -signal.SIGKILL else code
        if running.pod["spec"].get("restartPolicy", "Always") == "Always":
            running.restarts += 1
            running.ready = False
            self._report(running, "Running", {"terminated": {"exitCode": exit_code}})
            self._run(running)
        else:
            running.ended, running.ready = True, False
            self._report(running, "Failed" if code else "Succeeded", {"terminated": {"exitCode": exit_code}})

    def _probe(self, running: Container) -> bool:
        probe = running.container.get("readinessProbe", {}).get("httpGet")
        if probe is None:
            return True
        try:
            with urllib.request.urlopen(
                f"http://{running.ip}:{probe['port']}{probe['path']}", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _stop(self, key: Key, running: Container | None) -> None:
        if running is None:
            self.api.delete("Pod", *key, now=True)
        elif not running.stopping:
            running.stopping = True
            threading.Thread(target=self._end, args=(key, running), daemon=True).start()

    def _end(self, key: Key, running: Container) -> None:
        """preStop, SIGTERM, the grace period, SIGKILL, and the pod is gone."""
        assert running.process is not None
        spec = running.pod["spec"]
        deadline = time.monotonic() + float(spec.get("terminationGracePeriodSeconds", 30))
        hook = running.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook and running.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    entered(running, hook), timeout=max(1, deadline - time.monotonic()), check=False
                )
        if running.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.inner, signal.SIGTERM)
            while running.process.poll() is None and time.monotonic() < deadline and not self._done.is_set():
                time.sleep(0.2)
        self._kill(running)
        self.pods.pop(key, None)
        self.api.delete("Pod", *key, now=True)

    @staticmethod
    def _kill(running: Container) -> None:
        """The first process of a PID namespace takes all others with it."""
        if running.process is not None and running.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.inner, signal.SIGKILL)
            running.process.wait()

    # what others see

    def _report(self, running: Container, phase: str, state: dict[str, Any]) -> None:
        meta, container = running.pod["metadata"], running.container
        ready = "True" if running.ready else "False"
        status = {
            "phase": phase,
            "podIP": running.ip,
            "podIPs": [{"ip": running.ip}],
            "conditions": [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": running.ready,
                    "started": True,
                    "restartCount": running.restarts,
                    "state": state,
                }
            ],
        }
        self.api.patch("Pod", meta["namespace"], meta["name"], {"status": status}, status=True)

    def _write_hosts(self) -> None:
        """Names of pods and services; the file is one, mounted into every pod, so it is rewritten in place."""
        lines = ["127.0.0.1 localhost", f"{SERVER_IP} kubernetes kubernetes.default.svc"]
        living = {key: one for key, one in list(self.pods.items()) if not one.ended}
        lines += [f"{one.ip} {name}" for (_, name), one in living.items()]
        for service in self.api.list("Service"):
            selector, namespace = service["spec"].get("selector"), service["metadata"]["namespace"]
            for key, one in living.items():
                labels = one.pod["metadata"].get("labels", {})
                if selector and key[0] == namespace and selector.items() <= labels.items():
                    name = service["metadata"]["name"]
                    lines.append(f"{one.ip} {name} {name}.{namespace} {name}.{namespace}.svc")
        text = "\n".join(lines) + "\n"
        if self._hosts.read_text(encoding="utf-8") != text:
            with self._hosts.open("r+", encoding="utf-8") as file:
                file.truncate(0)
                file.write(text)
