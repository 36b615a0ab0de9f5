"""Both backends start the same pods: only the line that starts Ray is a backend's own."""

import copy

import pytest

from helm.engine import ci_values, merged, render

CASES = ("one-gpu", "one-node-colocated", "four-nodes", "infiniband", "statefulset")


def rendered(name, backend):
    # a token reaches the pods by KubeRay in one backend and by the chart in the other
    return render(merged(ci_values(name), {"backend": backend, "auth": {"existingSecret": ""}}))


def templates(made):
    """Role -> pod template, parameters of `ray start`."""
    if ray_jobs := made.of_kind("RayJob"):
        cluster = ray_jobs[0]["spec"]["rayClusterSpec"]
        groups = [("head", cluster["headGroupSpec"])]
        groups += [(group["groupName"], group) for group in cluster["workerGroupSpecs"]]
        return {role: (group["template"], group["rayStartParams"], group["labels"]) for role, group in groups}
    return {
        one["metadata"]["labels"]["openrlhf-mtp.io/role"]: (one["spec"]["template"], None, None)
        for one in made.of_kind("StatefulSet")
    }


def neutral(template):
    """A template without what starts Ray and without the run's hash, which covers the backend."""
    result = copy.deepcopy(template)
    container = result["spec"]["containers"][0]
    started = (container.pop("command", None), container.pop("args", None))
    run = result["metadata"]["labels"]["openrlhf-mtp.io/run"]
    return _replaced(result, run), started


def _replaced(tree, run):
    if isinstance(tree, dict):
        return {key: _replaced(value, run) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_replaced(value, run) for value in tree]
    return tree.replace(run, "RUN") if isinstance(tree, str) else tree


@pytest.mark.parametrize("name", CASES)
def test_the_pods_are_the_same_apart_from_the_line_that_starts_ray(name):
    by_operator, by_chart = (templates(rendered(name, backend)) for backend in ("rayjob", "statefulset"))
    assert set(by_operator) == set(by_chart)
    for role, (template, parameters, labels) in by_operator.items():
        mine, started_by_operator = neutral(template)
        theirs, (command, arguments) = neutral(by_chart[role][0])
        assert mine == theirs
        assert command == ["/bin/bash", "-c"]
        lines = arguments[0].splitlines()
        line = lines[-1]
        # KubeRay writes the line that starts Ray behind these lines: the compile cache's and the logs'
        beside_ray = [words for words in lines if "python -m openrlhf_mtp.cluster." in words]
        assert beside_ray == lines[1 : 1 + len(beside_ray)]
        assert started_by_operator == (None, ["\n".join(beside_ray)])
        for parameter, value in parameters.items():
            assert (f"--{parameter}" if value == "true" else f"--{parameter}={value}") in line.split()
        assert f"--labels=openrlhf-mtp.io/role={labels['openrlhf-mtp.io/role']}" in line.split()


@pytest.mark.parametrize("name", CASES)
def test_both_have_the_same_number_of_pods(name):
    ray_job = rendered(name, "rayjob").one("RayJob")["spec"]["rayClusterSpec"]
    sets = {
        one["metadata"]["labels"]["openrlhf-mtp.io/role"]: one
        for one in rendered(name, "statefulset").of_kind("StatefulSet")
    }
    for group in ray_job["workerGroupSpecs"]:
        assert sets[group["groupName"]]["spec"]["replicas"] == group["replicas"]
    assert len(sets) == 1 + len(ray_job["workerGroupSpecs"])


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_both_run_the_same_script(backend):
    made = rendered("one-gpu", backend)
    if backend == "rayjob":
        assert made.one("RayJob")["spec"]["entrypoint"] == "bash /etc/openrlhf-mtp/run.sh"
    else:
        command = made.one("Job", "-submitter")["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command[command.index("--") + 1 :] == ["bash", "/etc/openrlhf-mtp/run.sh"]
