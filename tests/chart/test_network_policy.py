"""Who may connect: peers that Kubernetes takes, KubeRay's operator however it was installed, names on every cluster."""

import pytest

from helm.engine import ChartError, ci_values, job_values, merged, render, render_ci
from tests.chart import schemas
from tests.chart.test_messages import JOB, one_problem

OPERATOR = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
}
ADDRESSES = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
NAMESPACE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ray"}}}
EXPRESSIONS = {
    "podSelector": {
        "matchExpressions": [
            {"key": "app", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ]
    }
}


def policy(**given):
    rendered = render(job_values(JOB, networkPolicy=given))
    made = rendered.one("NetworkPolicy")
    assert [problem for version in schemas.VERSIONS for problem in schemas.problems(made, version)] == []
    return made["spec"]


def callers(spec, port):
    """Peers that may reach a port, the run's own pods left out."""
    rules = [rule for rule in spec["ingress"] if any(one["port"] == port for one in rule.get("ports", []))]
    return [peer for rule in rules for peer in rule["from"]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [OPERATOR]),
        (None, [OPERATOR]),
        ([], [OPERATOR]),
        (ADDRESSES, [ADDRESSES]),
        (NAMESPACE, [NAMESPACE]),
        ({"podSelector": {}}, [{"podSelector": {}}]),
        ({"podSelector": None}, [OPERATOR]),
        ({**NAMESPACE, "podSelector": None}, [NAMESPACE]),
        ([ADDRESSES, NAMESPACE, EXPRESSIONS], [ADDRESSES, NAMESPACE, EXPRESSIONS]),
        ({"ipBlock": {"cidr": "fd00:10::/64"}}, [{"ipBlock": {"cidr": "fd00:10::/64"}}]),
    ],
)
def test_the_operator_is_the_peer_that_is_given_and_nothing_else(given, expected):
    assert callers(policy(operator=given), 8265) == expected
    assert callers(policy(operator=given), 52365) == expected


# what KubeRay 1.6.2 and 1.7.0 put on the operator's pods
INSTALLS = {
    "Helm": {
        "app.kubernetes.io/name": "kuberay-operator",
        "app.kubernetes.io/instance": "kuberay-operator",
        "app.kubernetes.io/component": "kuberay-operator",
    },
    "kustomize": {
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/component": "kuberay-operator",
    },
}


@pytest.mark.parametrize("install", INSTALLS)
def test_both_ways_to_install_the_operator_are_let_in(install):
    (peer,) = callers(policy(), 8265)
    assert peer["namespaceSelector"] == {}
    assert peer["podSelector"]["matchLabels"].items() <= INSTALLS[install].items()


def test_without_an_operator_nobody_is_let_in():
    assert callers(render(job_values(JOB, backend="statefulset")).one("NetworkPolicy")["spec"], 8265) == []


HALF = "podSelector, namespaceSelector or ipBlock"
SELECTOR = (
    "a selector with matchLabels (name to text) or matchExpressions (key, operator In, NotIn, Exists or DoesNotExist, "
    "values)"
)
BLOCK = "ipBlock to have cidr (and except, a list) with ranges of addresses such as 10.0.0.0/8"
BOTH = "ipBlock or selectors: Kubernetes refuses a peer that has both. Give two peers, or leave one out"
NONE = f"{HALF}: Kubernetes refuses a peer without any. Every pod of this namespace is {{podSelector: {{}}}}"
WRONG = {
    "addresses and pods": (
        {"operator": {**ADDRESSES, "podSelector": {}}},
        'operator: got {"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]},"podSelector":{}}, expected '
        + BOTH,
    ),
    "nothing in it": ({"metricsFrom": [{}]}, f"metricsFrom[0]: got {{}}, expected {NONE}"),
    "nothing but a null in it": (
        {"metricsFrom": [{"podSelector": None}]},
        f"metricsFrom[0]: got {{}}, expected {NONE}",
    ),
    "a misspelt key": (
        {"dashboardFrom": [{"podSelector": {}}, {"podselector": {}}]},
        f'dashboardFrom[1]: got {{"podselector":{{}}}}, expected {HALF} in place of podselector',
    ),
    "no range": (
        {"metricsFrom": [{"ipBlock": {"cidr": "10.0.0.1"}}]},
        f'metricsFrom[0]: got {{"ipBlock":{{"cidr":"10.0.0.1"}}}}, expected {BLOCK}',
    ),
    "a range that is none": (
        {"operator": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]},
        f'operator[0]: got {{"ipBlock":{{"cidr":"10.0.0.0/40"}}}}, expected {BLOCK}',
    ),
    "labels without a selector": (
        {"operator": {"podSelector": {"app": "x"}}},
        f'operator: got {{"podSelector":{{"app":"x"}}}}, expected podSelector to be {SELECTOR}',
    ),
    "a number as label": (
        {"operator": {"namespaceSelector": {"matchLabels": {"team": 7}}}},
        'operator: got {"namespaceSelector":{"matchLabels":{"team":7}}}, expected namespaceSelector to be '
        + SELECTOR,
    ),
    "an expression without values": (
        {"operator": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
        'operator: got {"podSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}, expected podSelector to be '
        + SELECTOR,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_peer_that_kubernetes_would_refuse_is_refused_in_words(case):
    given, expected = WRONG[case]
    assert one_problem(job_values(JOB, networkPolicy=given)) == f"networkPolicy.{expected}"


ODD = [1, 1.5, "x", "", True, [], [None], ["x"], {"cidr": 1}, {"cidr": "10.0.0.0/8", "except": "x"}]
ODD += [{"matchLabels": "x"}, {"matchExpressions": [None]}, {"matchExpressions": {"a": 1}}]


@pytest.mark.parametrize("key", ["ipBlock", "podSelector", "namespaceSelector", "x"])
@pytest.mark.parametrize("place", ["operator", "metricsFrom", "dashboardFrom", "egressTo"])
def test_nothing_odd_in_a_peer_ends_in_a_traceback(key, place):
    for odd in ODD:
        peer = {key: odd}
        values = job_values(JOB, networkPolicy={place: peer if place == "operator" else [peer]})
        with pytest.raises(ChartError) as refusal:
            render(values)
        assert f"networkPolicy.{place}" in str(refusal.value), odd
        assert "executing" not in str(refusal.value)


def test_names_are_found_where_dns_pods_listen_on_a_port_of_their_own():
    (names,) = [rule for rule in policy(egress="dns")["egress"] if "to" not in rule]
    assert {(one["port"], one["protocol"]) for one in names["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
    }


def test_pods_without_the_internet_reach_what_is_named_besides():
    spec = policy(egress="dns", egressTo=[ADDRESSES, NAMESPACE])
    assert {"to": [ADDRESSES, NAMESPACE]} in spec["egress"]
    assert one_problem(job_values(JOB, networkPolicy={"egressTo": [ADDRESSES]})) == (
        "networkPolicy.egressTo: got peers with egress=all, which lets pods connect anywhere; set "
        "networkPolicy.egress=dns, or leave them out"
    )


def test_only_the_submitter_reaches_the_api_server():
    rendered = render_ci("statefulset")
    api = rendered.one("NetworkPolicy", "-submitter")["spec"]
    submitter = rendered.one("Job", "-submitter")["spec"]["template"]["metadata"]["labels"]
    assert api["podSelector"]["matchLabels"].items() <= submitter.items()
    assert api["podSelector"]["matchLabels"]["openrlhf-mtp.io/role"] == "submitter"
    assert [one["port"] for one in api["egress"][0]["ports"]] == [443, 6443, 8443, 16443]
    kept = render(merged(ci_values("statefulset"), {"job": {"keepPods": True}}))
    assert len(kept.of_kind("NetworkPolicy")) == 1
