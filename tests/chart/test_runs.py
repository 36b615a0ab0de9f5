"""What makes a run what it is: its name, its script, its pods, and what a user is told."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import pytest

from helm.engine import ci_values, job_values, merged, render, render_ci
from openrlhf_mtp.runlog import checkpoint_request
from tests.patience import seconds

JOB = (
    "actor: {num_gpus_per_node: 2}\nvllm: {num_engines: 2}\nreward: {remote_url: r.py}\n"
    "algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n"
)


def names(values, **options):
    return {made["metadata"]["name"] for made in render(values, **options).of_kind("RayJob")}


@pytest.mark.parametrize(
    "change",
    [
        {"job": {"config": f"{JOB}rollout: {{batch_size: 3}}\n"}},
        {"job": {"overrides": ["rollout.batch_size=3"]}},
        {"rollout": {"memory": "100Gi"}},
        {"image": {"tag": "0.2.0-gpu"}},
        {"network": {"nccl": {"debug": "INFO"}}},
    ],
    ids=["job", "overrides", "memory", "image", "network"],
)
def test_a_run_with_another_configuration_is_another_run(change):
    first, second = job_values(JOB), merged(job_values(JOB), change)
    assert names(first) == names(first, upgrade=True)
    assert not names(first) & names(second)


@pytest.mark.parametrize(
    "change",
    [
        {"networkPolicy": {"enabled": False}},
        {"pdb": {"enabled": False}},
        {"monitoring": {"podMonitor": True}},
        {"job": {"suspend": True}},
        {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}]},
    ],
    ids=["networkPolicy", "pdb", "monitoring", "suspend", "extraObjects"],
)
def test_what_stands_beside_a_run_changes_without_restarting_it(change):
    assert names(job_values(JOB)) == names(merged(job_values(JOB), change))


def run_folder(values):
    return re.search("RUN='(.*)'", render(values).one("ConfigMap")["data"]["run.sh"])[1]


def test_more_memory_continues_in_the_same_run_folder_and_another_job_does_not():
    plain = job_values(JOB)
    assert run_folder(plain) == run_folder(merged(plain, {"trainer": {"memory": "100Gi"}}))
    assert run_folder(plain) != run_folder(merged(plain, {"job": {"overrides": ["rollout.batch_size=3"]}}))
    named = merged(plain, {"job": {"runName": "mine"}})
    assert run_folder(named) == "/workspace/runs/mine"


def test_a_config_map_cannot_change_under_a_run():
    of_the_run = [
        made
        for made in render_ci("statefulset").of_kind("ConfigMap")
        if "openrlhf-mtp.io/run" in made["metadata"].get("labels", {})
    ]
    assert len(of_the_run) == 2
    assert all(made["immutable"] is True for made in of_the_run)


def test_values_given_to_all_pods_and_to_one_group_are_merged():
    values = job_values(
        JOB,
        pods={"nodeSelector": {"pool": "a"}, "labels": {"team": "x"}},
        rollout={"nodeSelector": {"gpu": "h200"}, "cpu": 30},
    )
    cluster = render(values).one("RayJob")["spec"]["rayClusterSpec"]
    trainer, rollout = (group["template"]["spec"] for group in cluster["workerGroupSpecs"])
    assert trainer["nodeSelector"] == {"pool": "a"}
    assert rollout["nodeSelector"] == {"pool": "a", "gpu": "h200"}
    assert trainer["containers"][0]["resources"]["limits"]["cpu"] == "12"
    assert rollout["containers"][0]["resources"]["limits"]["cpu"] == "30"
    assert cluster["headGroupSpec"]["template"]["metadata"]["labels"]["team"] == "x"


def test_shell_words_of_overrides_survive_quotes_and_spaces():
    values = merged(job_values(JOB), {"job": {"overrides": ["data.input_template=it's {} $HOME"]}})
    last = render(values).train_line
    assert last.endswith(" 'data.input_template=it'\\''s {} $HOME'")


def test_naming_the_secret_turns_wandb_on_and_shows_no_key():
    rendered = render(job_values(JOB, secrets={"wandb": {"name": "wandb"}}))
    assert rendered.train_line.endswith("'logger.wandb.key=in-WANDB_API_KEY'")
    group = rendered.one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    (variable,) = [
        one for one in group["template"]["spec"]["containers"][0]["env"] if one["name"] == "WANDB_API_KEY"
    ]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "api-key"}
    assert "logger.wandb.key" not in render(job_values(JOB)).train_line


def test_a_retry_resumes_and_a_preparation_is_not_repeated():
    script = render_ci("cpu-smoke").of_kind("ConfigMap")[0]["data"]["run.sh"]
    assert 'openrlhf-mtp train "$JOB" --out "$RUN" --resume' in script
    steps = ci_values("cpu-smoke")["job"]["prepare"]
    assert len(re.findall(r"^prepare [0-9a-f]{8} '", script, re.MULTILINE)) == len(steps) > 1


def test_a_stopping_pod_asks_for_a_checkpoint_where_it_outlives_the_pod():
    with_storage = render_ci("one-gpu").one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]
    container = with_storage["template"]["spec"]["containers"][0]
    assert (
        container["lifecycle"]["preStop"]["exec"]["command"][2] == "openrlhf_mtp.cluster.request_checkpoint"
    )
    # Ray, which KubeRay has end the job before it stops the pods, must not kill the driver while it waits
    given = {one["name"]: one.get("value") for one in container["env"]}
    wait = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert given[checkpoint_request.WAIT] == wait
    assert (
        int(given["RAY_JOB_STOP_WAIT_TIME_S"])
        == with_storage["template"]["spec"]["terminationGracePeriodSeconds"]
    )
    assert int(given["RAY_JOB_STOP_WAIT_TIME_S"]) > int(wait)
    without = render(job_values(JOB)).one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert "lifecycle" not in without["template"]["spec"]["containers"][0]
    assert checkpoint_request.WAIT not in [
        one["name"] for one in without["template"]["spec"]["containers"][0]["env"]
    ]


def test_pods_with_rdma_are_checked_for_it():
    def checked(name):
        return " --rdma" in render_ci(name).of_kind("ConfigMap")[0]["data"]["run.sh"]

    assert checked("infiniband")
    assert not checked("four-nodes")


def waiting_worker():
    spec = render_ci("statefulset").one("StatefulSet", "-trainer")["spec"]["template"]["spec"]
    return spec["containers"][0]


def test_a_worker_that_waits_for_the_head_stops_when_it_is_told_to():
    line = re.sub(r"/dev/tcp/[^/]+", "/dev/tcp/127.0.0.1", waiting_worker()["args"][0].replace("/6379", "/1"))
    # the follower of the pod's logs, which the line starts first, would outlive the shell as it does not in a container
    waiting = subprocess.Popen(["bash", "-c", line], start_new_session=True)
    try:
        time.sleep(seconds(0.5))
        waiting.terminate()
        # its own choice: -15 would be a signal that a first process ignores
        assert waiting.wait(timeout=seconds(5)) == 143
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(waiting.pid, signal.SIGKILL)


def test_a_worker_may_wait_for_the_head_as_long_as_the_run_may_take_to_start():
    probe = waiting_worker()["startupProbe"]
    deadline = ci_values("statefulset").get("job", {}).get("startupDeadlineSeconds", 3600)
    assert probe["periodSeconds"] * probe["failureThreshold"] >= deadline


def test_without_rdma_nccl_does_not_look_for_it():
    def environment(rendered):
        group = rendered.one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
        return {one["name"]: one.get("value") for one in group["template"]["spec"]["containers"][0]["env"]}

    assert environment(render_ci("four-nodes"))["NCCL_IB_DISABLE"] == "1"
    with_rdma = environment(render_ci("infiniband"))
    assert "NCCL_IB_DISABLE" not in with_rdma
    assert with_rdma["NCCL_IB_HCA"] == "mlx5_0,mlx5_1,mlx5_4,mlx5_5"
    assert (with_rdma["NCCL_SOCKET_IFNAME"], with_rdma["GLOO_SOCKET_IFNAME"]) == ("eth0", "eth0")
    assert with_rdma["NCCL_CROSS_NIC"] == "0"


def test_the_job_check_runs_first_and_needs_nothing_of_the_release():
    pod = render_ci("one-gpu").one("Pod", "-check")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    spec = pod["spec"]
    assert "serviceAccountName" not in spec
    assert [volume for volume in spec["volumes"] if "configMap" in volume] == []
    assert not json.dumps(spec).count('nvidia.com/gpu": "')


def test_the_notes_warn_of_what_was_left_open_and_only_then():
    open_ended = render(job_values(JOB, networkPolicy={"enabled": False})).notes
    for words in (
        "storage.checkpoints names no volume",
        "saves no checkpoints",
        "every pod of the cluster can run code",
    ):
        assert words in open_ended
    shared = {"storage": {"checkpoints": {"accessModes": ["ReadWriteMany"]}}}
    assert "Left open" not in render(merged(ci_values("cpu-smoke"), shared)).notes
    one_node = render_ci("cpu-smoke").notes.partition("Left open")[2].strip()
    assert one_node.startswith("- storage.checkpoints.accessModes has no ReadWriteMany")
    assert len(one_node.splitlines()) == 1
    unshared = render(job_values(JOB, job={"prepare": ["python get.py --out data/set"]})).notes
    assert "storage.data names no volume: what job.prepare writes" in unshared
    assert "storage.modelCache names no volume" not in unshared
    storage = {"checkpoints": {"create": True, "accessModes": ["ReadWriteOnce"]}}
    assert "can mount it on one node only" in render(job_values(JOB, storage=storage)).notes
    assert "Prometheus cannot read" in render(job_values(JOB, monitoring={"podMonitor": True})).notes
    assert "network policies do not hold" in render(job_values(JOB, network={"hostNetwork": True})).notes


def test_a_variable_of_nccl_is_there_once():
    network = {"nccl": {"debug": "WARN", "socketInterface": "^docker0", "extraEnv": {"NCCL_DEBUG": "INFO"}}}
    group = render(job_values(JOB, network=network)).one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]
    environment = group["template"]["spec"]["containers"][0]["env"]
    assert [one["value"] for one in environment if one["name"] == "NCCL_DEBUG"] == ["INFO"]
    assert "GLOO_SOCKET_IFNAME" not in [one["name"] for one in environment]


def test_the_test_pod_has_rays_token_with_either_backend():
    for backend in ("rayjob", "statefulset"):
        made = render(job_values(JOB, backend=backend, auth={"existingSecret": "ray-token"}))
        pod = made.one("Pod", "-test")
        names = [one["name"] for one in pod["spec"]["containers"][0]["env"]]
        assert "RAY_AUTH_TOKEN" in names
    assert "it is a new one" in render(job_values(JOB), upgrade=True).notes


def test_an_environment_variable_of_the_user_takes_the_place_of_the_charts():
    given = {"pods": {"extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "MINE", "value": "1"}]}}
    group = render(merged(job_values(JOB), given)).one("RayJob")["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ][0]
    environment = group["template"]["spec"]["containers"][0]["env"]
    assert [one["value"] for one in environment if one["name"] == "NCCL_DEBUG"] == ["INFO"]
    assert environment[-1] == {"name": "MINE", "value": "1"}
