"""Small decisions of `ci.benchmark` before anything is installed."""

import pytest

from ci.benchmark import image_of
from ci.on_cluster import BenchmarkError, namespace_of

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "https://example.com"}}]
users: [{name: u, user: {}}]
contexts:
  - {name: there, context: {cluster: c, user: u, namespace: other}}
  - {name: here, context: {cluster: c, user: u%s}}
"""


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("registry.example.com/x:1", "registry.example.com/x", "1", ""),
        ("registry.example.com:5000/x:1", "registry.example.com:5000/x", "1", ""),
        ("registry.example.com:5000/x@sha256:ab", "registry.example.com:5000/x", "", "sha256:ab"),
    ],
)
def test_an_image_is_a_repository_and_a_tag_or_a_digest(text, repository, tag, digest):
    assert image_of(text) == {"repository": repository, "tag": tag, "digest": digest}


@pytest.mark.parametrize("text", ["x", "registry.example.com:5000/x"])
def test_an_image_that_could_be_another_tomorrow_is_refused(text):
    with pytest.raises(BenchmarkError, match="expected NAME:TAG or NAME@DIGEST"):
        image_of(text)


@pytest.mark.parametrize(("given", "found"), [(", namespace: team", "team"), ("", "default")])
def test_the_namespace_is_the_current_contexts(tmp_path, given, found):
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % given, encoding="utf-8")
    assert namespace_of(path) == found
