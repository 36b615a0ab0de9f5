"""The one module that knows helm-python-sdk: Helm's own Go engine, so that tests see what `helm` would make.

The package is young, so nothing else imports it. Each render loads the chart again, because a handle keeps values.
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "openrlhf-mtp"
EXAMPLES = ROOT / "examples"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same loader, ten times as fast
IMAGE = {"repository": "registry.example.com/openrlhf-mtp"}


class ChartError(Exception):
    """Helm refused to render; the message is what the user sees."""


@dataclass(frozen=True)
class Rendered:
    """What one `helm template` gives: objects in the order of their files, and the notes."""

    files: dict[str, str]

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """Every object."""
        return [
            made
            for name, text in sorted(self.files.items())
            if name.endswith(".yaml")
            for made in yaml.load_all(text, Loader=LOADER)
            if made
        ]

    @property
    def notes(self) -> str:
        """NOTES.txt."""
        return next(text for name, text in self.files.items() if name.endswith("NOTES.txt"))

    @property
    def train_line(self) -> str:
        """The line of the run's script that trains."""
        (script,) = (
            made["data"]["run.sh"] for made in self.of_kind("ConfigMap") if "run.sh" in made.get("data", {})
        )
        return next(line for line in script.splitlines() if line.startswith("openrlhf-mtp train"))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Every object of a kind."""
        return [made for made in self.objects if made["kind"] == kind]

    def one(self, kind: str, ending: str = "") -> dict[str, Any]:
        """The only object of a kind whose name ends so."""
        (made,) = [found for found in self.of_kind(kind) if found["metadata"]["name"].endswith(ending)]
        return made


def render(
    values: dict[str, Any], *, name: str = "run1", namespace: str = "team", upgrade: bool = False
) -> Rendered:
    """Render the chart with values on top of its own.

    Raises:
        ChartError: the schema or a check refuses the values.
    """
    chart = helm_python.Chart.load(CHART)
    try:
        return Rendered(
            chart.render(values, name=name, namespace=namespace, is_install=not upgrade, is_upgrade=upgrade)
        )
    except helm_python.HelmError as problem:
        raise ChartError(_message(str(problem))) from problem
    finally:
        chart.close()


def evaluate(template: str, values: dict[str, Any]) -> str:
    """What a text in the language of templates makes of values, with the chart's helpers and defaults but without its
    schema and objects: one helper in milliseconds.

    Raises:
        ChartError: the text or a helper fails.
    """
    chart = helm_python.Chart.load_archive(_helpers_with(template))
    try:
        (made,) = chart.render(values, name="run1", namespace="team").values()
    except helm_python.HelmError as problem:
        raise ChartError(_message(str(problem))) from problem
    finally:
        chart.close()
    return made


@cache
def _helpers_with(template: str) -> bytes:
    """A packaged chart of that template, the chart's helpers and what they read."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in [CHART / name for name in ("Chart.yaml", "values.yaml", "versions.env")]:
            archive.add(path, f"{CHART.name}/{path.name}")
        for path in [*CHART.glob("files/*"), *CHART.glob("templates/*.tpl")]:
            archive.add(path, f"{CHART.name}/{path.relative_to(CHART)}")
        member = tarfile.TarInfo(f"{CHART.name}/templates/evaluated.yaml")
        member.size = len(template.encode())
        archive.addfile(member, io.BytesIO(template.encode()))
    return packed.getvalue()


def job_values(config: Path | str, **more: Any) -> dict[str, Any]:
    """The least values of a run: an image and a job file, as `--set-file job.config=` gives it."""
    text = config.read_text(encoding="utf-8") if isinstance(config, Path) else config
    return merged({"image": IMAGE, "job": {"config": text}}, more)


def set_values(expression: str) -> dict[str, Any]:
    """Values as `--set` reads them: `pods.tolerations=null,job.retries=3`."""
    return dict(helm_python.parse_set_string(expression))


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Values laid over values, as Helm does with `-f`: maps are merged, everything else is replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


@cache
def render_ci(name: str) -> Rendered:
    """The chart with `ci/<name>-values.yaml`, rendered once for all tests."""
    return render(ci_values(name))


def ci_values(name: str) -> dict[str, Any]:
    """Values of `ci/<name>-values.yaml`, with the job file that its first line names."""
    text = (CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8")
    job = ROOT / text.splitlines()[0].removeprefix("# Job: ")
    return merged(job_values(job), yaml.safe_load(text))


CI_NAMES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
JOBS = sorted(path for path in EXAMPLES.rglob("*.yaml") if "actor:" in path.read_text(encoding="utf-8"))


def lint(values: dict[str, Any]) -> list[str]:
    """Findings of `helm lint --strict` above "info"."""
    report = helm_python.lint(CHART, values, strict=True)
    return [finding["error"] for finding in report["messages"] if finding["severity"] >= 2] + report["errors"]


def package(folder: Path) -> Path:
    """`helm package` into a folder; returns the archive."""
    return Path(helm_python.package(CHART, destination=folder))


def files_of(archive: Path) -> set[str]:
    """Names of the files in a packaged chart, seen by Helm."""
    chart = helm_python.Chart.load_archive(archive.read_bytes())
    try:
        return {file["name"] for file in chart.files} | {file["name"] for file in chart.templates}
    finally:
        chart.close()


def _message(text: str) -> str:
    """The words of a `fail` or of the schema, without the line of the template that Helm puts before them."""
    return re.sub(r"^execution error at \([^)]*\): ", "", text)


class ReleaseError(Exception):
    """Helm could not do what was asked on a cluster."""


class NameTakenError(ReleaseError):
    """A release of this name is there already; nothing was done to it."""


TAKEN = ("cannot reuse a name", "release: already exists")
"""Helm's words for it: when it looks, and when another install was quicker after that."""


class Releases:
    """Releases on a cluster, as `helm install` and `helm uninstall` handle them."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._config = helm_python.Config(kubeconfig_path=kubeconfig, namespace=namespace)

    def install(self, chart: Path, name: str, values: dict[str, Any], timeout_s: int) -> None:
        """Install a chart; its hooks have ended when this returns.

        Raises:
            NameTakenError: there is such a release.
            ReleaseError: it was refused, or a hook failed.
        """
        try:
            self._config.install(str(chart), name, values, timeout=timeout_s, wait="hookOnly")
        except helm_python.HelmError as problem:
            kind = NameTakenError if any(words in str(problem) for words in TAKEN) else ReleaseError
            raise kind(str(problem)) from problem

    def has(self, name: str) -> bool:
        """Whether there is a release of this name, in whichever state.

        Raises:
            ReleaseError: the API server did not say.
        """
        try:
            return bool(self._config.list(all_states=True, name_filter=f"^{re.escape(name)}$"))
        except helm_python.HelmError as problem:
            raise ReleaseError(str(problem)) from problem

    def upgrade(self, chart: Path, name: str, values: dict[str, Any], timeout_s: int) -> None:
        """Upgrade a release to other values."""
        self._config.upgrade(str(chart), name, values, timeout=timeout_s, wait="hookOnly")

    def test(self, name: str, timeout_s: int) -> None:
        """`helm test`.

        Raises:
            ReleaseError: the test failed.
        """
        try:
            self._config.test(name, timeout=timeout_s)
        except helm_python.HelmError as problem:
            raise ReleaseError(str(problem)) from problem

    def uninstall(self, name: str) -> None:
        """Remove a release; none is as good as removed.

        Raises:
            ReleaseError: it could not be removed.
        """
        try:
            self._config.uninstall(name, ignore_not_found=True)
        except helm_python.HelmError as problem:
            raise ReleaseError(str(problem)) from problem
