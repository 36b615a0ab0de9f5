"""Every command that the chart writes is one that the package understands."""

import shlex

import pytest
from typer.testing import CliRunner

from helm.engine import CI_NAMES, render_ci
from openrlhf_mtp.cli.main import app
from openrlhf_mtp.cluster import exporter, operator_watch, preflight, request_checkpoint, submit
from openrlhf_mtp.cluster.pod_logs import __main__ as pod_logs
from tests.chart.schemas import containers, pod_templates

PARSERS = {
    "openrlhf_mtp.cluster.exporter": exporter.parser,
    "openrlhf_mtp.cluster.pod_logs": pod_logs.parser,
    "openrlhf_mtp.cluster.operator_watch": operator_watch.parser,
    "openrlhf_mtp.cluster.preflight": preflight.parser,
    "openrlhf_mtp.cluster.request_checkpoint": request_checkpoint.parser,
    "openrlhf_mtp.cluster.submit": submit.parser,
}
NOT_WORDS = {"&", ">"}


def modules_run(words):
    """(module, its arguments) of `python -m MODULE ARGUMENTS`, and of the commands in a `-- bash -c TEXT`."""
    if words[:2] == ["python", "-m"]:
        yield words[2], [word for word in words[3:] if word not in NOT_WORDS]
    if "-c" in words[:-1]:
        yield from modules_run(shlex.split(words[words.index("-c") + 1]))


def commands(name):
    rendered = render_ci(name)
    for made in rendered.objects:
        for template in [] if made["kind"] == "ReplicaSet" else pod_templates(made):
            for container in containers(template):
                yield container.get("command", [])
                for line in "\n".join(container.get("args", [])).splitlines():
                    if line.startswith("(python -m"):
                        yield shlex.split(line[1:].partition(" </dev/null")[0])
                yield container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        for line in made.get("data", {}).get("run.sh", "").splitlines():
            if line.startswith("python -m"):
                yield shlex.split(line)


@pytest.mark.parametrize("name", CI_NAMES)
def test_the_arguments_of_our_own_modules_are_understood(name):
    found = [one for words in commands(name) for one in modules_run(words)]
    for module, arguments in found:
        PARSERS[module]().parse_args(arguments)
    assert {module for module, _ in found} >= {
        f"openrlhf_mtp.cluster.{module}" for module in ("preflight", "exporter", "pod_logs")
    }


def test_the_submitter_gets_every_group_of_the_run():
    (command,) = [
        words
        for words in commands("cpu-smoke")
        if "openrlhf_mtp.cluster.submit" in words and "--group" in words
    ]
    parsed = submit.parser().parse_args(command[3:])
    run = parsed.name
    assert parsed.group == [f"{run}-head=1", f"{run}-trainer=1", f"{run}-rollout=1"]
    assert parsed.entrypoint == ["bash", "/etc/openrlhf-mtp/run.sh"]


def test_the_check_before_an_install_accepts_the_job(tmp_path):
    (container,) = render_ci("four-nodes").one("Pod", "-check")["spec"]["containers"]
    (config,) = [one["value"] for one in container["env"] if one["name"] == "JOB_CONFIG"]
    job = tmp_path / "job.yaml"
    job.write_text(config, encoding="utf-8")
    words = shlex.split(container["command"][2].partition("exec openrlhf-mtp ")[2])
    assert words[:2] == ["check", "/tmp/job.yaml"]
    done = CliRunner().invoke(app, ["check", str(job), *words[2:]])
    assert done.exit_code == 0, done.output
    assert "32 GPU(s)" in done.output
