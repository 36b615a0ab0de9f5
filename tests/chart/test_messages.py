"""What a user reads when values cannot work: what was given, what is expected, what to do. Word for word."""

import pytest

from helm.engine import ChartError, ci_values, job_values, merged, render

JOB = (
    "actor: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\nreward: {remote_url: r.py}\n"
    "algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n"
)
SHARED_JOB = f"{JOB}train: {{colocate_all: true}}\n"
CRITIC_JOB = (
    "actor: {num_gpus_per_node: 4}\ncritic: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\n"
    "reward: {remote_url: r.py}\nalgo: {kl: {init_coef: 0}}\n"
)
INSTALL = (
    "helm install RUN helm/openrlhf-mtp --set image.repository=REGISTRY/openrlhf-mtp "
    "--set-file job.config=JOB.yaml"
)


def message(values, **options):
    with pytest.raises(ChartError) as refusal:
        render(values, **options)
    return str(refusal.value).strip()


def one_problem(values, **options):
    text = message(values, **options)
    title, _, problem = text.partition("\n  - ")
    assert title == "These values cannot run:"
    return problem


def test_the_two_required_values_are_asked_for_with_the_command():
    assert message({}) == (
        "These values cannot run:\n"
        "  - image.repository: got nothing, expected the registry and name of the image (docker/README.md builds it); "
        f"{INSTALL}\n"
        f"  - job.config: got nothing, expected the text of a job file; {INSTALL}"
    )


COUNTS = {
    "pods that are too many": (
        {"trainer": {"replicas": 2, "gpus": 4}},
        JOB,
        "trainer: got 2 pods of 4 GPUs, that is 8, and the job needs 4 (actor 4); change trainer.replicas or "
        "trainer.gpus, change the job, or set placement.countsFrom=groups to let the groups decide",
    ),
    "pods that cannot make it up": (
        {"rollout": {"gpus": 3}},
        JOB,
        "rollout.gpus: got 3, and the job needs 4 GPUs there (vllm.num_engines 4 x vllm.tensor_parallel_size 1), "
        "which pods of 3 cannot make up; set a number that divides 4, or leave it out",
    ),
    "replicas that do not divide": (
        {"rollout": {"replicas": 3}},
        JOB,
        "rollout.replicas: got 3, and 4 GPUs (vllm.num_engines 4 x vllm.tensor_parallel_size 1) cannot be shared "
        "evenly among 3 pods; set a number of pods that divides 4, or leave it out",
    ),
    "an engine larger than a pod": (
        {"rollout": {"gpus": 1}},
        JOB.replace("num_engines: 4", "num_engines: 2, tensor_parallel_size: 2"),
        "rollout.gpus: got 1, and an engine of 2 GPUs (vllm.tensor_parallel_size) must fit into a pod; set a multiple "
        "of 2",
    ),
    "rollout pods that nobody needs": (
        {"rollout": {"replicas": 1}},
        SHARED_JOB,
        "rollout.replicas, rollout.gpus: got 1 pods of any number of GPUs, expected neither: the engines share the "
        "trainer's GPUs (train.colocate_all). Leave them out, or change the job",
    ),
    "shared GPUs that differ": (
        {},
        SHARED_JOB.replace("num_engines: 4", "num_engines: 2"),
        "job.config: the engines have 2 GPUs and the actor 4, and train.colocate_all shares them, so both must be the "
        "same; change vllm.num_engines * vllm.tensor_parallel_size or the actor's nodes and GPUs",
    ),
    "no engines": (
        {},
        JOB.replace("vllm: {num_engines: 4}\n", ""),
        "job.config: vllm.num_engines: got nothing or 0, expected 1 or more; set it in the job file, or set "
        "placement.countsFrom=groups",
    ),
    "a number that is none": (
        {},
        JOB.replace("num_gpus_per_node: 4", "num_gpus_per_node: four"),
        "job.config: actor.num_gpus_per_node: got four, expected a whole number from 1 to 99999",
    ),
    "groups without numbers": (
        {"placement": {"countsFrom": "groups"}},
        JOB,
        "placement.countsFrom: got groups, so trainer.replicas and trainer.gpus must be given",
    ),
    "groups and a critic": (
        {"placement": {"countsFrom": "groups"}},
        CRITIC_JOB,
        "placement.countsFrom: got groups, and the job has more than one role with trainer GPUs of its own (actor, "
        "critic), so that the groups do not say how many each gets; set placement.countsFrom=job",
    ),
    "groups and both roles in one": (
        {"placement": {"countsFrom": "groups", "mode": "colocated"}, "trainer": {"replicas": 1, "gpus": 8}},
        JOB,
        "placement.countsFrom: got groups with placement.mode=colocated, and the job's engines have GPUs of their own, "
        "so that the group does not say how many train; set placement.countsFrom=job or placement.mode=separate",
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts_that_do_not_add_up(case):
    values, job, expected = COUNTS[case]
    assert one_problem(job_values(job, **values)) == expected


PROBLEMS = {
    "not YAML": (
        {"job": {"config": "actor: {"}},
        "job.config: not valid YAML: error converting YAML to JSON: yaml: line 1: did not find expected node content",
    ),
    "suspended without an operator": (
        {"backend": "statefulset", "job": {"suspend": True}},
        "job.suspend: only the rayjob backend can hold a run back; set backend=rayjob",
    ),
    "suspended pods that stay": (
        {"job": {"suspend": True, "keepPods": True}},
        "job.suspend: KubeRay suspends only runs whose pods it may delete; set job.keepPods=false",
    ),
    "deadlines in the wrong order": (
        {"job": {"deadlineSeconds": 600}},
        "job.startupDeadlineSeconds: got 3600, expected less than job.deadlineSeconds, 600",
    ),
    "a gang without an operator": (
        {"backend": "statefulset", "scheduling": {"gang": "kueue", "queue": "q"}},
        "scheduling.gang: got kueue with backend=statefulset, and only a RayJob is admitted as a whole; set "
        "backend=rayjob",
    ),
    "a queue nobody reads": (
        {"scheduling": {"queue": "q"}},
        "scheduling.queue: got q and nobody who reads it; set scheduling.gang to kueue, volcano, yunikorn or kai",
    ),
    "Kueue without a queue": (
        {"scheduling": {"gang": "kueue"}},
        "scheduling.queue: got nothing, expected the queue that kueue admits the run to",
    ),
    "topology without Kueue": (
        {"scheduling": {"topology": {"level": "rack"}}},
        "scheduling.topology.level, scheduling.kueuePriorityClass: only Kueue reads them; set scheduling.gang=kueue or "
        "leave them out",
    ),
    "a token for an old Ray": (
        {"rayVersion": "2.51.0", "auth": {"existingSecret": "t"}},
        "auth.existingSecret: token authentication needs Ray 2.52 or later, and rayVersion is 2.51.0",
    ),
    "half an InfiniBand": (
        {"network": {"nccl": {"hca": "mlx5_0"}}},
        "network.nccl.hca: got mlx5_0 without RDMA devices in the pods, and NCCL would hang on half an InfiniBand; set "
        "network.rdma.enabled=true or leave it out",
    ),
    "RDMA without GPUs": (
        {"accelerator": {"type": "cpu"}, "network": {"rdma": {"enabled": True}}},
        "network.rdma.enabled: got true with accelerator.type=cpu; RDMA is for GPU pods",
    ),
    "two volumes at once": (
        {"storage": {"checkpoints": {"existingClaim": "a", "create": True}}},
        "storage.checkpoints: got existingClaim and create, expected one of them",
    ),
    "two volumes in one place": (
        {"storage": {"data": {"mountPath": "/workspace/runs"}}},
        "storage.data.mountPath: got /workspace/runs, which storage.checkpoints has already",
    ),
    "a volume over the image": (
        {"storage": {"modelCache": {"mountPath": "/opt"}}},
        "storage.modelCache.mountPath: got /opt, which would hide the image's Python; choose another",
    ),
    "TensorBoard without run folders": (
        {"monitoring": {"tensorboard": True}},
        "monitoring.tensorboard: it reads the run folders and storage.checkpoints names no volume; give "
        "storage.checkpoints.existingClaim, create or volume",
    ),
    "a variable twice": (
        {"pods": {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        "pods.extraEnv: got two entries with the name A, expected one; leave the other out",
    ),
    "a place twice": (
        {"head": {"extraVolumeMounts": [{"name": "scratch", "mountPath": p} for p in ("/x", "/x/")]}},
        "head.extraVolumeMounts: got two entries with the mountPath /x, expected one; leave the other out",
    ),
    "a container called as Ray's": (
        {"trainer": {"extraContainers": [{"name": "ray", "image": "x"}]}},
        "trainer.extraContainers: got the name ray, which is a container of the chart's or of KubeRay's; choose "
        "another",
    ),
    "a container in both lists": (
        {
            "pods": {"initContainers": [{"name": "a", "image": "x"}]},
            "rollout": {"extraContainers": [{"name": "a", "image": "x"}]},
        },
        "rollout.extraContainers: got a, which is one of its initContainers already; choose another name",
    ),
    "a resource that the chart sets": (
        {"trainer": {"extraResources": {"nvidia.com/gpu": "1"}}},
        "trainer.extraResources: got nvidia.com/gpu, which the chart asks for itself; set trainer.gpus and "
        "rollout.gpus",
    ),
    "a volume in place of the job's": (
        {"pods": {"extraVolumes": [{"name": "job", "emptyDir": {}}]}},
        "pods.extraVolumes: got the name job, under which the run finds its own files; choose another",
    ),
    "a variable with two values": (
        {"head": {"extraEnv": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}},
        "head.extraEnv: A has a value and a valueFrom, expected one of them",
    ),
    "a mount of no volume": (
        {"trainer": {"extraVolumeMounts": [{"name": "nvme", "mountPath": "/nvme"}]}},
        "trainer.extraVolumeMounts: got nvme at /nvme, expected a volume of the pod: shm, scratch, job, checkpoints, "
        "model-cache, data; add it to extraVolumes",
    ),
    "a claim that the pod has not": (
        {"rollout": {"containerClaims": [{"name": "roce"}]}},
        "rollout.containerClaims: got roce, expected one of the pod's resourceClaims (none); add it there",
    ),
    "a key of W&B in an override": (
        {"job": {"overrides": ["logger.wandb.key=abc"]}},
        "job.config, job.overrides: logger.wandb.key is a secret, which must not be in values; name the Secret that "
        "holds it in secrets.wandb",
    ),
    "a key of W&B in the job file": (
        {"job": {"config": f"{JOB}logger: {{wandb: {{key: abc}}}}\n"}},
        "job.config, job.overrides: logger.wandb.key is a secret, which must not be in values; name the Secret that "
        "holds it in secrets.wandb",
    ),
    "shm that Ray does not start in": (
        {"head": {"shmSize": "128Mi"}},
        "head.shmSize: got 128Mi, expected 256Mi or more: Ray's object store (half of it) and NCCL do not start in "
        "less; raise it",
    ),
    "shm larger than half the memory": (
        {"trainer": {"memory": "16Gi", "shmSize": "12Gi"}},
        "trainer.shmSize: got 12Gi, expected at most half of the pod's memory, 16Gi: what is written to /dev/shm "
        "counts as memory; lower it or raise trainer.memory",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_values_that_cannot_run(case):
    values, expected = PROBLEMS[case]
    assert one_problem(merged(job_values(JOB), values)) == expected


NAME = "the name of a Kubernetes object: lower-case letters, digits, dashes and dots, a letter or digit at each end"
FOLDER = (
    "a folder of the volume as a relative path, without `..`, colons, spaces, dollar signs and a slash at its "
    "start"
)
PLACE = "an absolute path, without `..`, colons, spaces and dollar signs"
KEY = (
    "the name of a label or annotation: at most 63 letters, digits, dashes, underscores and dots, with a domain and a "
    "slash before them if need be"
)
LABEL = (
    "a label's value: at most 63 letters, digits, dashes, underscores and dots, a letter or digit at each end"
)
BYTES = "an amount of bytes above 0: 8Gi, 512Mi"
CPUS = 'a number of CPUs above 0: 4, "1.5" or 500m'
TEXTS = {
    "a negative number of CPUs": ({"head": {"cpu": -1}}, f"head.cpu: got -1, expected {CPUS}"),
    "no CPUs": ({"pods": {"cpu": 0}}, f"pods.cpu: got 0, expected {CPUS}"),
    "CPUs in words": ({"trainer": {"cpu": "abc"}}, f"trainer.cpu: got abc, expected {CPUS}"),
    "CPUs that say nothing": ({"rollout": {"cpu": ""}}, f'rollout.cpu: got "", expected {CPUS}'),
    "no quantity": ({"pods": {"memory": "lots"}}, f"pods.memory: got lots, expected {BYTES}"),
    "a quantity of nothing": ({"pods": {"shmSize": "0Gi"}}, f"pods.shmSize: got 0Gi, expected {BYTES}"),
    "a tag with a space": (
        {"image": {"tag": "1.0 "}},
        'image.tag: got "1.0 ", expected an image\'s tag: at most 128 letters, digits, underscores, dashes and dots, '
        "without a space at either end",
    ),
    "a Secret by its path": (
        {"image": {"pullSecrets": ["ok", "team/registry"]}},
        f"image.pullSecrets[1]: got team/registry, expected {NAME}",
    ),
    "a claim of no name": (
        {"storage": {"data": {"existingClaim": "-"}}},
        f"storage.data.existingClaim: got -, expected {NAME}",
    ),
    "a class of no name": (
        {"storage": {"checkpoints": {"create": True, "storageClassName": "-"}}},
        f"storage.checkpoints.storageClassName: got -, expected {NAME}",
    ),
    "a folder with a slash before it": (
        {"storage": {"checkpoints": {"existingClaim": "c", "subPath": "/a"}}},
        f"storage.checkpoints.subPath: got /a, expected {FOLDER}",
    ),
    "a folder above": (
        {"storage": {"modelCache": {"existingClaim": "c", "subPath": "a/../b"}}},
        f"storage.modelCache.subPath: got a/../b, expected {FOLDER}",
    ),
    "a mount at a relative path": (
        {"storage": {"data": {"mountPath": "data"}}},
        f"storage.data.mountPath: got data, expected {PLACE}",
    ),
    "a mount above": (
        {
            "head": {
                "extraVolumes": [{"name": "x", "emptyDir": {}}],
                "extraVolumeMounts": [{"name": "x", "mountPath": "/a/.."}],
            }
        },
        f"head.extraVolumeMounts[0].mountPath: got /a/.., expected {PLACE}",
    ),
    "a key with a comma": ({"labels": {"a,b": "c"}}, f"labels, a name: got a,b, expected {KEY}"),
    "an annotation with a comma": (
        {"pods": {"annotations": {"a,b": "c"}}},
        f"pods.annotations, a name: got a,b, expected {KEY}",
    ),
    "a label of two words": (
        {"trainer": {"labels": {"team": "a b"}}},
        f"trainer.labels, team: got a b, expected {LABEL}",
    ),
    "a variable with a space": (
        {"pods": {"extraEnv": [{"name": "A B", "value": "c"}]}},
        "pods.extraEnv[0].name: got A B, expected the name of an environment variable: letters, digits, underscores, "
        "dashes and dots, not starting with a digit",
    ),
    "an override without a value": (
        {"job": {"overrides": ["mtp.depths"]}},
        "job.overrides[0]: got mtp.depths, expected setting=value on one line, such as actor.adam.lr=1e-6",
    ),
    "a foreign NCCL variable": (
        {"network": {"nccl": {"extraEnv": {"PATH": "/x"}}}},
        "network.nccl.extraEnv, a name: got PATH, expected a variable of the network's libraries: its name starts with "
        "NCCL_, GLOO_, TORCH_NCCL_, UCX_, FI_, GDR_ or SHARP_; others go into pods.extraEnv",
    ),
    "an address that is none": (
        {"head": {"hostAliases": [{"ip": "<<", "hostnames": ["a"]}]}},
        "head.hostAliases[0].ip: got <<, expected an IP address: 10.0.0.1 or fd00::1",
    ),
    "a character that is an end of line to some": (
        {"pods": {"annotations": {"a": "b\x85c"}}},
        "values: got the character U+0085 (next line), which readers of YAML take for different things; take it out",
    ),
    "a long text": (
        {"job": {"runName": "x" * 300}},
        f'job.runName: got "{"x" * 60}"… (300 characters), expected a folder\'s name of at most 200 letters, digits, '
        "dots, underscores and dashes that starts with a letter or digit",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_cannot_be_meant(case):
    values, expected = TEXTS[case]
    assert one_problem(merged(job_values(JOB), values)) == expected


def test_a_release_name_that_leaves_no_room_for_the_hash():
    name = "a" * 39
    assert one_problem(job_values(JOB), name=name) == (
        f"release name: got {name} of 39 characters, expected at most 38, because pods carry it with a hash in their "
        "names; choose a shorter one"
    )
    render(job_values(JOB), name="a" * 38)
    one_problem(job_values(JOB, backend="statefulset"), name="a" * 35)
    render(job_values(JOB, backend="statefulset"), name="a" * 34)


def test_a_release_name_that_is_no_service_name():
    assert one_problem(job_values(JOB), name="1run") == (
        "release name: got 1run, expected lower-case letters, digits and dashes that start with a letter, because "
        "KubeRay makes a Service of it; choose another"
    )


def test_several_problems_are_said_at_once():
    text = message(merged(job_values(JOB), {"scheduling": {"queue": "q"}, "network": {"nccl": {"hca": "x"}}}))
    assert text.count("\n  - ") == 2


SCHEMA = {
    "an unknown key": ({"rollouts": {}}, "additional properties 'rollouts' not allowed"),
    "an unknown key of a group": ({"trainer": {"replica": 2}}, "additional properties 'replica' not allowed"),
    "a volume that is no map": ({"pods": {"extraVolumes": [None]}}, "got null, want object"),
    "a volume of an unknown kind": (
        {"head": {"extraVolumes": [{"name": "a", "hostPth": {"path": "/x"}}]}},
        "additional properties 'hostPth' not allowed",
    ),
    "an unknown backend": ({"backend": "deployment"}, "value must be one of 'rayjob', 'statefulset'"),
    "the tag latest": ({"image": {"tag": "latest"}}, "'not' failed"),
    "a negative number": ({"job": {"retries": -1}}, "minimum: got -1, want 0"),
    "a number as text": ({"trainer": {"gpus": "8"}}, "got string, want null or integer"),
    "a number without a limit": ({"job": {"retries": 3e9}}, "at '/job/retries': maximum: got 3×10⁰⁹"),
    "a misspelt field of an affinity": (
        {"pods": {"affinity": {"nodeAfinity": {}}}},
        "at '/pods/affinity': additional properties 'nodeAfinity' not allowed",
    ),
    "a misspelt volume source": (
        {"storage": {"data": {"volume": {"nsf": {"server": "s", "path": "/p"}}}}},
        "at '/storage/data/volume': additional properties 'nsf' not allowed",
    ),
    "two volume sources": (
        {"storage": {"data": {"volume": {"emptyDir": {}, "hostPath": {"path": "/p"}}}}},
        "at '/storage/data/volume': maxProperties: got 2, want 1",
    ),
    "a volume without a source": (
        {"pods": {"extraVolumes": [{"name": "x"}]}},
        "minProperties: got 1, want 2",
    ),
    "more CPUs than a node has": ({"pods": {"cpu": 1e6}}, "at '/pods/cpu': maximum: got 1×10⁰⁶"),
    "a peer that is a text": (
        {"networkPolicy": {"operator": [""]}},
        "at '/networkPolicy/operator/0': got string",
    ),
    "a label that is no text": (
        {"labels": {"team": True}},
        "at '/labels/team': got boolean, want null or string",
    ),
}


@pytest.mark.parametrize("case", SCHEMA)
def test_the_schema_refuses(case):
    values, words = SCHEMA[case]
    assert words in message(merged(ci_values("cpu-smoke"), values))
