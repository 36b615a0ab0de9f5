"""A null means the default, wherever it is: in a value, a section or a map, given with `--set` or in a file."""

import pytest

from helm import generate
from helm.engine import CHART, job_values, merged, render

JOB = (
    "actor: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\nreward: {remote_url: r.py}\n"
    "algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n"
)
REQUIRED = ("image", "image.repository", "job", "job.config")
VALUES = generate.read_values()
SECTIONS = [value.path for value in VALUES if value.is_section and value.path not in REQUIRED]
GROUPS = [value for value in VALUES if "extends" in value.extra]


def at(path, value):
    """The values of a chart in which one path has a value."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def without_hash(rendered):
    run = rendered.one("RayJob")["metadata"]["name"]
    return {name: text.replace(run, "RUN") for name, text in rendered.files.items()}


def test_every_value_may_be_null():
    values = job_values(JOB)
    for value in VALUES:
        if not value.is_section and value.path not in REQUIRED:
            values = merged(values, at(value.path, None))
    assert render(values).files == render(job_values(JOB)).files


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_may_be_null(section):
    assert render(job_values(JOB, **at(section, None))).files == render(job_values(JOB)).files


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.path)
def test_a_group_may_have_null_for_everything_that_all_pods_have(group):
    keys = [
        value.path.removeprefix(f"{group.parent}.")
        for value in VALUES
        if value.path.startswith(f"{group.parent}.")
    ]
    own = {key: None for key in group.extra.get("only", keys) if "." not in key}
    given = render(job_values(JOB, **{group.path: own}))
    assert without_hash(given) == without_hash(render(job_values(JOB)))


def test_a_null_takes_a_key_of_a_map_away_also_where_the_chart_has_none():
    values = {
        "labels": {"team": None},
        "pods": {"nodeSelector": {"a": None, "b": "c"}, "podSecurityContext": {"runAsUser": None}},
        "storage": {"data": {"volume": {"nfs": {"server": "s", "path": "/p", "readOnly": None}}}},
    }
    head = render(job_values(JOB, **values)).one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]
    pod = head["template"]["spec"]
    assert pod["nodeSelector"] == {"b": "c"}
    assert "runAsUser" not in pod["securityContext"]
    assert {"name": "data", "nfs": {"server": "s", "path": "/p"}} in pod["volumes"]


def test_every_file_that_makes_an_object_fills_in_and_checks_the_values_first():
    templates = CHART / "templates"
    files = [*templates.glob("*.yaml"), *templates.glob("tests/*.yaml"), templates / "NOTES.txt"]
    assert len(files) > 10
    for path in files:
        assert path.read_text(encoding="utf-8").startswith('{{- include "mtp.init" . -}}'), path.name
