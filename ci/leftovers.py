"""What a namespace holds, of every kind that its API server knows; what was not there before is left of a release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

FLEETING = ("events", "leases", "endpoints", "endpointslices", "controllerrevisions")
"""Kinds that the server's own controllers write and remove, some time after what they belong to."""


def listed(api: Any, namespace: str) -> set[str]:
    """`Kind name` of everything in a namespace.

    Args:
        api: a `kubernetes.client.ApiClient`.
        namespace: its name.
    """
    found = set()
    for path, resource in _kinds(api):
        answer = _get(api, f"{path}/namespaces/{namespace}/{resource['name']}")
        found |= {f"{resource['kind']} {made['metadata']['name']}" for made in answer.get("items") or []}
    return found


def _kinds(api: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The path of its group, and the description of each kind that can be listed in a namespace."""
    groups = _get(api, "/apis").get("groups") or []
    paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    for path in paths:
        for resource in _get(api, path).get("resources") or []:
            is_object = "/" not in resource["name"] and {"list", "delete"} <= set(resource["verbs"])
            if resource["namespaced"] and is_object and resource["name"] not in FLEETING:
                yield path, resource


def _get(api: Any, path: str) -> dict[str, Any]:
    """An answer as JSON; empty for a kind that is being removed, or that this user may not list."""
    from kubernetes.client import ApiException

    asked = api.param_serialize(
        method="GET",
        resource_path=path,
        header_params={"Accept": "application/json"},
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*asked)
    text = answer.read()
    if answer.status in (403, 404, 405, 503):  # 503: an aggregated API whose server is away
        return {}
    if answer.status != 200:
        raise ApiException(http_resp=answer)
    return dict(json.loads(text))
