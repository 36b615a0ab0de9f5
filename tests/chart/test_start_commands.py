"""`startCommands`, run: in the shell that starts Ray, as each backend makes it, with a `ray` that says what it sees."""

import os
import subprocess

import pytest

from helm.engine import ChartError, ci_values, merged, render
from tests.chart.test_backends import templates

BACKENDS = ("rayjob", "statefulset")


def start(tmp_path, backend, commands):
    """What the head's container does: the output, with a line of `ray` when it was started, and the exit code."""
    for name, text in (("ray", 'echo "ray $SEEN"'), ("python", "true")):
        command = tmp_path / name
        command.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        command.chmod(0o755)
    values = merged(ci_values("one-gpu"), {"backend": backend, "pods": {"startCommands": commands}})
    container = templates(render(values))["head"][0]["spec"]["containers"][0]
    words = [*container.get("command", []), *container["args"]]
    if backend == "rayjob":  # KubeRay 1.6.2 and 1.7.0, BuildPod
        joined = "".join(f" {word} " for word in words)
        words = ["/bin/bash", "-c", "--", f"{joined} && ulimit -n 65536; ray start --block "]
    done = subprocess.run(
        [word.replace("$$(", "$(") for word in words],
        env={"PATH": f"{tmp_path}:{os.defpath}", "POD_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split("\n")[:-1], done.returncode


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_they_export_holds_for_ray_and_they_run_in_order(tmp_path, backend):
    commands = ["SEEN=$(echo one) # a comment", "if true; then\n  SEEN=$SEEN-two\nfi", "export SEEN"]
    assert start(tmp_path, backend, commands) == (["ray one-two"], 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_that_fails_ends_the_container_and_ray_does_not_start(tmp_path, backend):
    assert start(tmp_path, backend, ["echo first", "false", "echo last"]) == (["first"], 1)


def test_kuberay_would_take_one_for_the_line_that_starts_ray():
    with pytest.raises(ChartError, match="These values cannot run") as refusal:
        render(merged(ci_values("one-gpu"), {"trainer": {"startCommands": ["ray start --head"]}}))
    assert str(refusal.value).strip().partition("\n  - ")[2] == (
        "trainer.startCommands: got ray start --head, expected no `ray start`: whoever starts the pods adds it, and "
        "KubeRay adds nothing where it finds one; leave it out"
    )
