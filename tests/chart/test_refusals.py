"""Values that Kubernetes takes and no run survives, or that the API server refuses later: said at once, in words."""

import pytest

from helm.engine import ChartError, job_values, merged, render
from tests.chart.test_messages import JOB, one_problem

IMAGES = {
    "reg.io/x:1.0": "a name without a tag; set image.repository=reg.io/x and image.tag=1.0",
    "reg:5000/team/x:1.0": "a name without a tag; set image.repository=reg:5000/team/x and image.tag=1.0",
    "x:latest": "a name without a tag; set image.repository=x and image.tag=latest",
    f"reg.io/x@sha256:{'0' * 64}": "a name without a digest; set image.repository=reg.io/x and "
    f"image.digest=sha256:{'0' * 64}",
    f"reg.io/x:1@sha256:{'0' * 64}": "a name without a digest; set image.repository=reg.io/x and "
    f"image.digest=sha256:{'0' * 64}",
    "https://reg.io/x": "a name without https://; set image.repository=reg.io/x",
    "oci://reg.io/x": "a name without oci://; set image.repository=reg.io/x",
    "reg.io/x ": "a name without spaces around it; set image.repository=reg.io/x",
    " reg.io/x\n": "a name without spaces around it; set image.repository=reg.io/x",
}
NAMES = [
    "reg.io/Team/x",
    "reg.io//x",
    "reg.io/x/",
    "reg.io/-x",
    "reg.io/a b",
    "reg.io/" + "x" * 260,
    "/x",
    "ä",
]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_with_more_than_its_name(name):
    problem = one_problem(merged(job_values(JOB), {"image": {"repository": name}}))
    assert problem.startswith("image.repository: got ")
    assert problem.endswith(f", expected {IMAGES[name]}")


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_no_registry_has(name):
    problem = one_problem(merged(job_values(JOB), {"image": {"repository": name}}))
    assert problem.endswith("between them, such as registry.example.com/team/openrlhf-mtp")


@pytest.mark.parametrize(
    "name", ["localhost:5000/x", "REG.io/a/b", "x", "team/x_y__z-1", "[::1]:5000/x", "10.0.0.1:5000/a.b"]
)
def test_an_image_with_a_port_or_without_a_registry_is_none_of_it(name):
    rendered = render(merged(job_values(JOB), {"image": {"repository": name}}))
    head = rendered.one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["image"] == f"{name}:0.1.0-gpu"


OTHERS = ["amd.com/gpu", "google.com/tpu", "habana.ai/gaudi", "huawei.com/Ascend910", "gpu.intel.com/i915"]
OTHERS += ["aws.amazon.com/neuron", "vpc.amazonaws.com/efa", "cloud.google.com/tpu"]


@pytest.mark.parametrize("resource", OTHERS)
def test_devices_that_are_not_nvidias(resource):
    assert one_problem(job_values(JOB, accelerator={"resource": resource})) == (
        f"accelerator.resource: got {resource}, expected one of NVIDIA's, nvidia.com/gpu, nvidia.com/gpu.shared or a "
        "MIG slice nvidia.com/mig-…: the image holds CUDA and NCCL, which no other vendor's devices run"
    )


def test_a_domain_that_nvidias_plug_in_was_told_to_use():
    rendered = render(job_values(JOB, accelerator={"resource": "gpus.example.com/h100"}))
    (group, *_) = rendered.one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert "gpus.example.com/h100" in group["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_devices_where_none_is_asked_for():
    given = {"type": "cpu", "resource": "nvidia.com/mig-1g.5gb"}
    assert one_problem(job_values(JOB, accelerator=given)) == (
        "accelerator.resource: got nvidia.com/mig-1g.5gb with accelerator.type=cpu, which asks for no GPU; leave it "
        "out or set accelerator.type=nvidia"
    )


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        (
            "nvidia.com/mig-3g.40gb",
            "a process sees one MIG slice, and NCCL (2.29 here) takes no two ranks on slices of one GPU",
        ),
        ("nvidia.com/gpu.shared", "two shares can be of one GPU, and NCCL takes no two ranks on one"),
        (
            "nvidia.com/mig-1g.10gb.shared",
            "a process sees one MIG slice, and NCCL (2.29 here) takes no two ranks on slices of one GPU",
        ),
    ],
)
def test_parts_of_gpus(resource, why):
    values = job_values(JOB, accelerator={"resource": resource}, rollout={"gpus": 1})
    assert one_problem(values) == (
        f"accelerator.resource: got {resource}, and pods of trainer with 4 of it: {why}; set trainer.gpus=1, or take "
        "whole GPUs"
    )
    groups = render(merged(values, {"trainer": {"gpus": 1}})).one("RayJob")["spec"]["rayClusterSpec"]
    for group in groups["workerGroupSpecs"]:
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"][resource] == "1"


def test_no_device_at_all():
    problem = "accelerator.resource: got nothing, and trainer.containerClaims claims no GPUs either; set one of them"
    claims = {
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}],
        "containerClaims": [{"name": "gpu"}],
    }
    values = job_values(JOB, accelerator={"resource": ""}, rollout=claims)
    assert one_problem(values) == problem
    render(merged(values, {"trainer": claims}))


RESERVED = {
    "labels.app.kubernetes.io/name": ({"labels": {"app.kubernetes.io/name": "x"}}, "the chart or Helm sets"),
    "labels.helm.sh/chart": ({"labels": {"helm.sh/chart": "x"}}, "the chart or Helm sets"),
    "pods.labels.openrlhf-mtp.io/role": (
        {"pods": {"labels": {"openrlhf-mtp.io/role": "x"}}},
        "the chart or Helm sets",
    ),
    "trainer.labels.ray.io/group": ({"trainer": {"labels": {"ray.io/group": "x"}}}, "belongs to ray.io"),
    "pods.annotations.ray.io/overwrite-container-cmd": (
        {"pods": {"annotations": {"ray.io/overwrite-container-cmd": "true"}}},
        "belongs to ray.io",
    ),
    "labels.kueue.x-k8s.io/queue-name": (
        {"scheduling": {"gang": "kueue", "queue": "q"}, "labels": {"kueue.x-k8s.io/queue-name": "p"}},
        "belongs to kueue.x-k8s.io",
    ),
    "monitoring.podMonitorLabels.app.kubernetes.io/instance": (
        {"monitoring": {"podMonitor": True, "podMonitorLabels": {"app.kubernetes.io/instance": "x"}}},
        "the chart or Helm sets",
    ),
}


@pytest.mark.parametrize("case", RESERVED)
def test_labels_that_are_others(case):
    values, why = RESERVED[case]
    path = (
        case.split("labels.")[0] + "labels"
        if "labels." in case
        else case.split("annotations.")[0] + "annotations"
    )
    path = "monitoring.podMonitorLabels" if case.startswith("monitoring") else path
    key = case.removeprefix(f"{path}.")
    assert one_problem(job_values(JOB, **values)) == f"{path}: got {key}, which {why}; leave it out"


def test_the_most_special_label_wins_and_is_there_once():
    values = {
        "labels": {"team": "a"},
        "pods": {"labels": {"team": "b"}},
        "monitoring": {"podMonitor": True, "podMonitorLabels": {"team": "c"}, "dashboard": True},
    }
    rendered = render(job_values(JOB, **values))
    assert rendered.one("PodMonitor")["metadata"]["labels"]["team"] == "c"
    assert rendered.one("ConfigMap", "-dashboard")["metadata"]["labels"]["team"] == "a"
    head = rendered.one("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["metadata"]["labels"]["team"] == "b"


HIDDEN = {
    "/usr": "the system",
    "/usr/": "the system",
    "/lib": "the system",
    "/usr/bin": "the system",
    "/opt": "the image's Python",
    "/opt/venv": "the image's Python",
    "/opt/venv/lib/python3.11/site-packages/torch": "the image's Python",
    "/etc": "the job file",
    "/etc/openrlhf-mtp/more": "the job file",
    "/proc": "the kernel's files",
    "/sys/fs": "the kernel's files",
    "/dev": "the kernel's files",
    "/dev/shm": "the chart's shared memory",
    "/tmp": "the chart's scratch space",
    "/var/run": "what Kubernetes mounts",
    "/run/secrets": "what Kubernetes mounts",
    "/workspace": "the image's examples",
    "/workspace/examples": "the image's examples",
    "/workspace/files": "the files of job.files",
}


@pytest.mark.parametrize("path", HIDDEN)
def test_a_mount_over_what_a_run_needs(path):
    shown = path.rstrip("/")
    assert one_problem(job_values(JOB, storage={"data": {"mountPath": path}})).endswith(
        f"storage.data.mountPath: got {shown}, which would hide {HIDDEN[path]}; choose another"
    )
    if path in ("/tmp", "/dev/shm"):
        return
    mounts = {
        "extraVolumes": [{"name": "x", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "x", "mountPath": path}],
    }
    assert one_problem(job_values(JOB, trainer=mounts)) == (
        f"trainer.extraVolumeMounts: got the mount path {shown}, which would hide {HIDDEN[path]}; choose another"
    )


def test_a_file_within_what_a_run_needs_and_folders_of_others_may_be_mounted():
    mounts = [
        {"name": "x", "mountPath": "/etc/ssl/certs/ca.crt", "subPath": "ca.crt"},
        {
            "name": "x",
            "mountPath": "/opt/venv/lib/python3.11/site-packages/sitecustomize.py",
            "subPath": "s.py",
        },
        {"name": "x", "mountPath": "/usr/local/nvidia"},
        {"name": "x", "mountPath": "/usr/local/gib"},
        {"name": "x", "mountPath": "/var/run/gcp"},
        {"name": "x", "mountPath": "/dev/infiniband"},
        {"name": "x", "mountPath": "/mnt/nvme"},
        {"name": "x", "mountPath": "/tmp"},
    ]
    given = {"extraVolumes": [{"name": "x", "emptyDir": {}}], "extraVolumeMounts": mounts}
    render(job_values(JOB, pods=given, storage={"data": {"mountPath": "/data"}}))


def test_one_storage_within_another():
    assert one_problem(job_values(JOB, storage={"data": {"mountPath": "/workspace/runs/data"}})) == (
        "storage.data.mountPath: got /workspace/runs/data, and storage.checkpoints is at /workspace/runs: one volume "
        "within another; choose a path beside it"
    )
    render(job_values(JOB, storage={"data": {"mountPath": "/workspace/runs-data"}}))


PARTS = {
    "a container without an image": (
        {"pods": {"initContainers": [{"name": "a"}]}, "rollout": {"gpus": 4}},
        "head.initContainers: got a without an image; give its image",
    ),
    "a claim of nothing": (
        {"head": {"resourceClaims": [{"name": "a"}]}},
        "head.resourceClaims: a: expected one of resourceClaimName and resourceClaimTemplateName",
    ),
    "variables of nothing": (
        {"head": {"envFrom": [{"prefix": "A_"}]}},
        "head.envFrom[0]: expected one of secretRef and configMapRef",
    ),
    "a sidecar's volume that is not there": (
        {
            "head": {
                "extraContainers": [
                    {"name": "a", "image": "x", "volumeMounts": [{"name": "y", "mountPath": "/y"}]}
                ]
            }
        },
        "head.extraContainers: a: got the volume y, expected one of shm, scratch, job, checkpoints, model-cache, data; "
        "add it to extraVolumes",
    ),
    "the beginning of an interface": (
        {"network": {"nccl": {"socketInterface": "eth"}}},
        "network.nccl.socketInterface: got eth, which NCCL reads as the beginning of a name and gloo as a whole one; "
        "give whole names, for example eth0",
    ),
    "RDMA by the GPU's name": (
        {"network": {"rdma": {"enabled": True, "resource": "nvidia.com/gpu"}}},
        "network.rdma.resource: got nvidia.com/gpu, which is accelerator.resource; give the resource that the RDMA "
        "device plug-in offers, for example rdma/hca",
    ),
    "RoCE without RDMA": (
        {"network": {"nccl": {"gidIndex": 3}}},
        "network.nccl.gidIndex: got 3, which NCCL reads with RDMA only; set network.rdma.enabled=true or leave it out",
    ),
    "a claim that nobody may mount": (
        {"storage": {"data": {"create": True, "accessModes": []}}},
        "storage.data.accessModes: got none, expected ReadWriteMany, or ReadWriteOnce where all pods are on one node",
    ),
    "an object that is none": (
        {"extraObjects": ["just a text"]},
        "extraObjects[0]: got just a text, expected an object with apiVersion, kind and metadata.name",
    ),
    "an object without a name": (
        {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap"}]},
        'extraObjects[0]: got "apiVersion: v1\\nkind: ConfigMap", expected an object with apiVersion, kind and '
        "metadata.name",
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_do_not_make_a_pod(case):
    values, expected = PARTS[case]
    assert one_problem(job_values(JOB, **values)).split("\n")[0] == expected


SIZES = {
    "an engine of no GPU": (
        JOB.replace("num_engines: 4", "num_engines: 4, tensor_parallel_size: 0"),
        "job.config: vllm.tensor_parallel_size: got 0, expected a whole number from 1 to 99999",
    ),
    "no nodes": (
        JOB.replace("num_gpus_per_node: 4", "num_nodes: 0"),
        "job.config: actor.num_nodes: got 0, expected a whole number from 1 to 99999",
    ),
    "a number with too many digits": (
        JOB.replace("num_gpus_per_node: 4", "num_nodes: 123456789012345678901234567890"),
        "job.config: actor.num_nodes: got 1.2345678901234568e+29, expected a whole number from 1 to 99999",
    ),
    "an engine larger than a node": (
        JOB.replace("num_engines: 4", "num_engines: 1, tensor_parallel_size: 16"),
        "rollout.gpus: got nothing, and an engine of 16 GPUs (vllm.tensor_parallel_size) must fit into a pod, which "
        "has 8 at most unless told otherwise; lower vllm.tensor_parallel_size, or set rollout.gpus to the GPUs of a "
        "node that has so many",
    ),
}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("check_job", [True, False])
def test_sizes_that_no_cluster_has(case, check_job):
    job, expected = SIZES[case]
    assert one_problem(job_values(job, preflight={"checkJob": check_job})) == expected


def test_a_node_with_more_than_eight_gpus_must_be_asked_for():
    job = SIZES["an engine larger than a node"][0]
    (_, rollout) = render(job_values(job, rollout={"gpus": 16})).one("RayJob")["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ]
    assert (rollout["replicas"], rollout["rayStartParams"]["num-gpus"]) == (1, "16")
    wide = JOB.replace("num_engines: 4", "num_engines: 16")
    assert one_problem(job_values(wide, rollout={"replicas": 1})) == (
        "rollout.replicas: got 1, which makes pods of 16 GPUs (vllm.num_engines 16 x vllm.tensor_parallel_size 1), "
        "expected 8 at most; set more replicas, or rollout.gpus=16 where nodes have so many"
    )
    render(job_values(wide, rollout={"replicas": 1, "gpus": 16}))


def test_counts_are_said_with_everything_else():
    with pytest.raises(ChartError) as refusal:
        render(job_values(JOB, trainer={"gpus": 3}, scheduling={"queue": "q"}, head={"cpu": -1}))
    assert [line.split(":")[0] for line in str(refusal.value).strip().splitlines()[1:]] == [
        "  - head.cpu",
        "  - scheduling.queue",
        "  - trainer.gpus",
    ]


FILES = {
    "indented": "  actor: {num_gpus_per_node: 4}\n  vllm: {num_engines: 4}\n  reward: {remote_url: r.py}\n"
    "  algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n",
    "Windows": JOB.replace("\n", "\r\n"),
    "a byte order mark": f"\ufeff{JOB}",
    "empty lines around": f"\n\n{JOB}\n\n\n",
    "blanks at ends": JOB.replace("\n", "  \n"),
    "no line at the end": JOB.rstrip(),
    "a tab in a comment": f"#\ta\n{JOB}",
    "a marker": f"---\n{JOB}",
    "a comment before a marker": f"# job\n\n---\n{JOB}",
    "an end": f"{JOB}...\n",
    "dashes in a text": f"{JOB}note: |\n  a\n  ---\n  b\n",
    "dollars": f"# $(HOME) $$(HOME) $HOME $$\n{JOB}",
    "other letters": f"# ä 語 🎉 \u2028 \x85\n{JOB}",
}


@pytest.mark.parametrize("case", FILES)
def test_a_job_file_arrives_as_it_is(case):
    text = FILES[case]
    rendered = render(job_values(text, job={"files": {"a.txt": text, "B": " x\n y\n"}}))
    job = next(made["data"] for made in rendered.of_kind("ConfigMap") if "run.sh" in made["data"])
    assert job["job.yaml"] == text
    files = next(made["data"] for made in rendered.of_kind("ConfigMap") if "a.txt" in made["data"])
    assert files == {"a.txt": text, "B": " x\n y\n"}
    variables = rendered.one("Pod", "-check")["spec"]["containers"][0]["env"]
    (given,) = [one["value"] for one in variables if one["name"] == "JOB_CONFIG"]
    assert given.replace("$$", "$") == text  # as Kubernetes reads it


BAD_FILES = {
    "two documents": (f"{JOB}---\n{JOB}", "got more than one YAML document, expected one"),
    "an empty second document": (f"{JOB}---\n", "got more than one YAML document, expected one"),
    "a document after an end": (f"{JOB}...\nmore: 1\n", "got more than one YAML document, expected one"),
    "a list": ("- a\n", "got a list or a single text, expected sections such as `actor:` and `mtp:`"),
    "a text": ("just words", "got a list or a single text, expected sections such as `actor:` and `mtp:`"),
    "a tab": ("actor:\n\tnum_nodes: 1\n", "not valid YAML: "),
    "only comments": (
        "# nothing\n",
        "got no section, expected a job file with sections such as `actor:` and `mtp:`",
    ),
    "a megabyte": (
        f"{JOB}# {'x' * 1_000_000}\n",
        "got 1000154 bytes, expected at most 900000, because Kubernetes keeps",
    ),
    "more than a variable holds": (
        f"{JOB}# {'x' * 140_000}\n",
        "got 140154 bytes, expected at most 130000, because the",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_job_file_that_cannot_arrive(case):
    text, expected = BAD_FILES[case]
    assert one_problem(job_values(text)).startswith(f"job.config: {expected}")


def test_files_that_no_config_map_holds():
    assert one_problem(job_values(JOB, job={"files": {"a": "x" * 600_000, "b": "y" * 600_000}})) == (
        "job.files: got 1200002 bytes, expected at most 1000000, because Kubernetes keeps 1 MiB in a ConfigMap; put "
        "what is large on a volume"
    )


def test_a_release_called_like_a_yaml_word_is_a_text():
    for name in ("true", "null", "no", "on", "y"):
        for made in render(
            job_values(JOB, serviceAccount={"name": "2024"}), name=name, namespace="1"
        ).objects:
            assert made["metadata"]["labels"]["app.kubernetes.io/instance"] == name


def test_large_whole_numbers_are_written_as_such_in_commands_too():
    seconds = {
        "deadlineSeconds": 2_000_000_000,
        "startupDeadlineSeconds": 1_500_000,
        "gracePeriodSeconds": 1_200_000,
    }
    seconds |= {"releaseAfterSeconds": 1_300_000}
    for backend in ("rayjob", "statefulset"):
        for name, text in render(job_values(JOB, backend=backend, job=seconds)).files.items():
            assert "e+0" not in text, name
