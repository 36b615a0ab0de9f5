"""What ships: the chart as an archive, the files made from others, the plain manifests, the dashboard."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from helm import generate
from helm.dashboard import PANELS
from helm.engine import CHART, CI_NAMES, ROOT, ci_values, files_of, lint, package
from k8s import render as manifests
from openrlhf_mtp.cluster.exporter import series
from openrlhf_mtp.runlog import metrics
from tests.chart import schemas


@pytest.mark.parametrize("name", CI_NAMES)
def test_helm_lint_finds_nothing(name):
    assert lint(ci_values(name)) == []


def test_a_package_holds_the_chart_and_not_its_test_values(tmp_path):
    archive = package(tmp_path)
    assert archive.name == "openrlhf-mtp-0.1.0.tgz"
    names = files_of(archive)
    assert {"files/dashboard.json", "versions.env", "templates/rayjob.yaml", "templates/NOTES.txt"} <= names
    assert not [name for name in names if name.startswith("ci/")]


def test_generated_files_are_up_to_date():
    assert generate.main(["--check"]) == 0, "run python -m helm.generate"


def test_every_value_is_documented_and_a_default_fits_its_own_schema():
    values = generate.read_values()
    assert len(values) > 100
    schema = json.loads(generate.SCHEMA.read_text(encoding="utf-8"))
    defaults = yaml.safe_load(generate.VALUES.read_text(encoding="utf-8"))
    schemas.Draft7Validator(schema).validate(defaults)
    for value in values:
        node = schema
        for key in value.path.split("."):
            node = node["properties"][key]
        assert not value.text or node["description"] == value.text


def test_the_schema_is_closed_except_where_keys_are_the_users():
    def walk(node, path):
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False, path
            for key, inner in node["properties"].items():
                walk(inner, f"{path}.{key}")

    walk(json.loads(generate.SCHEMA.read_text(encoding="utf-8")), "values")


def test_the_table_says_which_sections_take_the_keys_of_another():
    table = generate.table(generate.read_values())
    for section in ("storage.modelCache", "storage.data"):
        assert re.search(
            rf"^\| `{section}\.\*` \| \| .* Takes every key of `storage.checkpoints`\. \|$", table, re.M
        )
    assert "It has no GPU. Takes every key of `pods`." in table


def test_a_value_without_a_comment_is_refused(tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("# Documented.\none: 1\ntwo: 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="two has no comment"):
        generate.read_values(path)


def test_the_plain_manifests_are_the_charts():
    assert manifests.main(["--check"]) == 0, "run python -m k8s.render"


@pytest.mark.parametrize("topology", manifests.TOPOLOGIES)
def test_a_plain_manifest_is_valid_and_needs_no_helm(topology):
    text = (manifests.FOLDER / f"{topology}.yaml").read_text(encoding="utf-8")
    objects = [made for made in yaml.safe_load_all(text) if made]
    assert [problem for made in objects for problem in schemas.problems(made, "1.32")] == []
    assert not re.search(r"helm\.sh|managed-by|\{\{|run1-[0-9a-f]{8}\b", text)
    (job,) = [made for made in objects if made["kind"] == "ConfigMap" and "job.yaml" in made.get("data", {})]
    assert "immutable" not in job
    assert yaml.safe_load(job["data"]["job.yaml"])["mtp"]["depths"] == 3


def test_the_readme_lists_every_plain_manifest():
    readme = (manifests.FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| \[([\w-]+)\.yaml\]", readme)) == set(manifests.TOPOLOGIES)


@pytest.mark.parametrize("topology", manifests.TOPOLOGIES)
def test_a_second_run_is_the_first_with_its_name_replaced_as_the_readme_says(topology):
    first, second = manifests.manifests(topology), manifests.manifests(topology, "run2")
    assert {file: text.replace("run1", "run2") for file, text in first.items()} == second


def test_deleting_a_run_keeps_what_it_has_made():
    kinds = {
        path.name: {made["kind"] for made in yaml.safe_load_all(path.read_text(encoding="utf-8")) if made}
        for path in manifests.FOLDER.glob("*.yaml")
    }
    claims = {name: found for name, found in kinds.items() if "PersistentVolumeClaim" in found}
    assert claims == {"cpu-volume.yaml": {"PersistentVolumeClaim"}}


def test_the_dashboard_shows_only_metrics_that_are_declared():
    declared = set()
    for metric in metrics.METRICS:
        name = metric.name.replace("{j}", "1").replace("{i}", "0")
        declared.add(series(name)[0])
    shown = {name for _, _, panel in PANELS for name, _ in panel}
    assert {name for name in shown if name.startswith("openrlhf_mtp_")} <= declared
    assert len(shown) >= 15


def test_generators_can_be_run_as_the_readme_says():
    for module in ("helm.generate", "k8s.render"):
        subprocess.run([sys.executable, "-m", module, "--check"], cwd=ROOT, check=True, capture_output=True)


def test_every_template_file_is_reached_by_some_values_file():
    golden = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/chart/golden").glob("*.txt"))
    for template in (CHART / "templates").rglob("*.yaml"):
        assert f"# {template.relative_to(CHART / 'templates')}\n" in golden
