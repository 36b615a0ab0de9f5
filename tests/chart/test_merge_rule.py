"""The rule by which a group's settings are laid over those of all pods, on values drawn at random, beside the same rule
in Python."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from helm.engine import evaluate
from tests.chart.test_merge import DEFAULT_CONTAINER, DEFAULT_POD

GROUP = 'include "mtp.podSettings" (dict "root" . "over" (list "trainer"))'
SETTINGS = f'{{{{ include "mtp.complete" . }}}}{{{{ {GROUP} }}}}'
PLACES = (
    f'{{{{ include "mtp.complete" . }}}}{{{{ $group := {GROUP} | fromJson }}}}'
    '{{ $context := dict "root" . "group" (merge (dict "shmSize" "2Gi") $group) }}'
    '{{ $volumes := include "mtp.volumes" $context | fromYamlArray }}'
    '{{ dict "volumes" $volumes "mounts" (include "mtp.mounts" $context | fromYamlArray) | toJson }}'
)
BY_KEY = {
    "extraEnv": "name",
    "extraVolumes": "name",
    "initContainers": "name",
    "extraContainers": "name",
    "resourceClaims": "name",
    "containerClaims": "name",
    "extraVolumeMounts": "mountPath",
    "hostAliases": "ip",
}
ONCE = ("tolerations", "topologySpread", "envFrom", "startCommands")
CONTEXTS = {"podSecurityContext": DEFAULT_POD, "securityContext": DEFAULT_CONTAINER}
DEFAULTS = {
    **dict.fromkeys(("memory", "shmSize", "ephemeralStorage", "priorityClassName", "runtimeClassName"), ""),
    **{
        key: {}
        for key in ("extraResources", "nodeSelector", "affinity", "labels", "annotations", "dnsConfig")
    },
    **{key: [] for key in (*BY_KEY, *ONCE)},
    **CONTEXTS,
    "scratch": {"sizeLimit": "20Gi", "volume": {}},
}

names = st.sampled_from(["a", "b", "c", "runAsUser", "fsGroup", "scratch", "shm"])
scalars = st.sampled_from(["x", "1000", "yes", "2024-01-01", True, False, 0, 7, 1209600, "$(A)", "a: b"])
trees = st.recursive(
    scalars | st.none(), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6
)
maps = st.dictionaries(names, trees, max_size=4)
paths = st.sampled_from(
    ["/tmp", "/tmp/", "/dev/shm", "/dev/shm/", "/workspace/runs", "/mnt/x", "/mnt/x/", "/etc/y"]
)


def entries(key, values):
    entry = st.tuples(values, maps).map(lambda pair: {**pair[1], "name": "v", key: pair[0]})
    return st.lists(entry, max_size=3, unique_by=lambda one: one[key].rstrip("/"))


def section(rename=None):
    fields = {
        **{key: st.sampled_from(["", "1Gi", "high", None]) for key in DEFAULTS if DEFAULTS[key] == ""},
        **{key: maps | st.none() for key in DEFAULTS if isinstance(DEFAULTS[key], dict)},
        **{key: entries(at, paths if at == "mountPath" else names) | st.none() for key, at in BY_KEY.items()},
        **{key: st.lists(maps, max_size=2) | st.none() for key in ONCE},
        "scratch": st.none()
        | st.fixed_dictionaries(
            {}, optional={"sizeLimit": st.sampled_from(["1Gi", "", None]), "volume": maps | st.none()}
        ),
    }
    return st.fixed_dictionaries({}, optional=fields)


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value if one is not None]
    return value


def over(below, above):
    made = dict(below)
    for key, value in above.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = over(made[key] if isinstance(made.get(key), dict) else {}, value)
        else:
            made[key] = value
    return made


def gives(tree):
    return any(
        (value == {} or gives(value)) if isinstance(value, dict) else value is not None
        for value in tree.values()
    )


def added(below, above, key):
    made = {}
    for entry in [*below, *above]:
        made[entry[key].rstrip("/") if key else json.dumps(entry, sort_keys=True)] = entry
    return list(made.values())


def laid_over(key, below, above):
    """One setting of a group over that of all pods, as the head of `pods` in values.yaml says."""
    if above is None:
        return DEFAULTS[key]
    if key in BY_KEY or key in ONCE:
        return added(below, above, BY_KEY.get(key))
    if key in CONTEXTS:
        return over({} if gives(above) else below, above)
    if key == "scratch":
        made = over(below, above)
        if volume := over({}, above.get("volume") or {}):
            made["volume"] = volume
        return {**DEFAULTS["scratch"], **made}
    return over(below, above) if isinstance(above, dict) else above


def expected(pods, group):
    made = {}
    for key, default in DEFAULTS.items():
        below = default
        if pods.get(key) is not None:
            below = without_nulls(
                pods[key] if isinstance(default, list) else laid_over(key, default, pods[key])
            )
        made[key] = laid_over(key, below, group[key]) if key in group else below
    return without_nulls(made)


def evaluated(template, pods, group):
    return json.loads(evaluate(template, {"pods": pods, "trainer": group}))


def nulls(value):
    if isinstance(value, dict | list):
        return sum(map(nulls, value.values() if isinstance(value, dict) else value))
    return value is None


@given(section(), section())
@settings(max_examples=60)
def test_the_chart_and_the_rule_agree_and_no_null_is_left(pods, group):
    made = evaluated(SETTINGS, pods, group)
    assert nulls(made) == 0
    assert {key: made.get(key) for key in DEFAULTS} == expected(pods, group)


@given(section(), section())
@settings(max_examples=40)
def test_no_two_volumes_have_a_name_and_no_two_mounts_a_place(pods, group):
    made = evaluated(PLACES, pods, group)
    names_made = [one["name"] for one in made["volumes"]]
    places = [one["mountPath"].rstrip("/") for one in made["mounts"]]
    assert len(names_made) == len(set(names_made))
    assert len(places) == len(set(places))
    for entry in group.get("extraVolumeMounts") or []:
        assert without_nulls(entry) in made["mounts"]
