"""Where compiled kernels lie: on a volume of their own, beside the models, or with the pod."""

import pytest

from helm.engine import job_values, merged, render
from openrlhf_mtp.cluster.caches import FOLDER, VARIABLES
from tests.chart.test_messages import one_problem

JOB = (
    "actor: {num_gpus_per_node: 2}\nvllm: {num_engines: 2}\nreward: {remote_url: r.py}\n"
    "algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n"
)
MODELS = {"modelCache": {"existingClaim": "models"}}
LINE = ". <(python -m openrlhf_mtp.cluster.caches)"


def pods(storage, **values):
    """Role -> pod of a run with this storage."""
    made = render(merged(job_values(JOB), {"storage": storage, **values}))
    cluster = made.one("RayJob")["spec"]["rayClusterSpec"] if made.of_kind("RayJob") else None
    if cluster is None:
        return {
            one["spec"]["template"]["metadata"]["labels"]["openrlhf-mtp.io/role"]: one["spec"]["template"][
                "spec"
            ]
            for one in made.of_kind("StatefulSet")
        }
    groups = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **groups}


def env(pod):
    return {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}


def folder(storage, **values):
    """The folder, which every pod has the same."""
    (found,) = {env(pod).get(FOLDER) for pod in pods(storage, **values).values()}
    return found


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_kernels_are_kept_beside_the_models_by_image_and_node(backend):
    for pod in pods(MODELS, backend=backend).values():
        given = env(pod)
        start, _, node = given[FOLDER].rpartition("/")
        assert node == "$(NODE_NAME)"
        assert start.startswith("/workspace/models/compile-cache/0.1.0-nvidia-")
        assert all(given[name].startswith(f"{given[FOLDER]}/") for name in VARIABLES)
        assert len({given[name] for name in VARIABLES}) == len(VARIABLES)
        # a lock that a killed pod leaves there would hang every later one
        assert given["TORCH_EXTENSIONS_DIR"].startswith("/tmp/")
        names = [one["name"] for one in pod["containers"][0]["env"]]
        assert names.index("NODE_NAME") < names.index(FOLDER)  # Kubernetes replaces what came before alone
        lines = pod["containers"][0]["args"][0].splitlines()
        ray = [at for at, line in enumerate(lines) if "ray start" in line]
        assert lines.index(LINE) < (ray[0] if ray else len(lines))


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"modelCache": {"existingClaim": "models"}, "compileCache": {"enabled": False}},
        {"modelCache": {"volume": {"nfs": {"server": "s", "path": "/p", "readOnly": True}}}},
        {"modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "m", "readOnly": True}}}},
    ],
    ids=["no volume", "off", "read-only NFS", "read-only claim"],
)
def test_without_a_volume_that_can_be_written_each_pod_compiles_for_itself(storage):
    for pod in pods(storage).values():
        assert not {FOLDER, "NODE_NAME", *VARIABLES} & set(env(pod))
        assert LINE not in str(pod["containers"][0].get("args"))


def test_a_volume_of_its_own_is_mounted_in_every_pod_and_made_when_asked():
    disk = {"hostPath": {"path": "/var/cache/kernels", "type": "Directory"}}
    for pod in pods({**MODELS, "compileCache": {"volume": disk}}).values():
        assert {"name": "compile-cache", **disk} in pod["volumes"]
        assert {"name": "compile-cache", "mountPath": "/workspace/cache"} in pod["containers"][0][
            "volumeMounts"
        ]
        assert env(pod)[FOLDER].startswith("/workspace/cache/0.1.0-")
    made = render(merged(job_values(JOB), {"storage": {"compileCache": {"create": True, "size": "20Gi"}}}))
    claims = {
        one["metadata"]["name"].removeprefix("run1-"): one for one in made.of_kind("PersistentVolumeClaim")
    }
    assert claims["compile-cache"]["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_a_cache_folder_is_of_one_image_accelerator_and_node():
    plain = folder(MODELS)
    assert folder(MODELS, image={"tag": "mine"}) != plain
    assert folder(MODELS, image={"digest": f"sha256:{'0' * 64}"}) != plain
    assert folder(MODELS, trainer={"memory": "100Gi"}) == plain
    together = folder({**MODELS, "compileCache": {"perNode": False}})
    assert f"{together}/$(NODE_NAME)" == plain


def test_a_variable_of_the_user_comes_in_place_of_the_charts():
    given = [{"name": "TRITON_CACHE_DIR", "value": "/mine"}]
    assert env(pods(MODELS, pods={"extraEnv": given})["trainer"])["TRITON_CACHE_DIR"] == "/mine"


def test_a_volume_that_would_not_be_used_is_refused():
    values = merged(
        job_values(JOB), {"storage": {"compileCache": {"existingClaim": "kernels", "enabled": False}}}
    )
    assert one_problem(values) == (
        "storage.compileCache: got a volume, and enabled=false; set enabled=true, or leave the volume out"
    )
