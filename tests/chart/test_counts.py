"""The chart counts GPUs as the package does, and says in words what does not add up."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helm.engine import (
    CI_NAMES,
    JOBS,
    ROOT,
    ChartError,
    ci_values,
    job_values,
    merged,
    render,
    render_ci,
)
from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.roles import roles, total_gpus
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

ENGINES = "rollout engines"


def situation(path: Path, overrides=()):
    return JobContext(
        load_job(path, list(overrides), flag_specs()), Host(8), cluster_gpus=64, look_at_files=False
    )


def expected(made):
    """GPUs of the trainer's pods and of the rollout's, by openrlhf_mtp/config/roles.py."""
    own = {role.name: role.gpus for role in roles(made) if role.shares is None}
    return total_gpus(made) - own.get(ENGINES, 0), own.get(ENGINES, 0)


def gpus(rendered):
    """GPUs of each group of a rendered RayJob: (pods x GPUs of trainer, of rollout)."""
    groups = rendered.one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    counted = {
        group["groupName"]: group["replicas"] * int(group["rayStartParams"]["num-gpus"]) for group in groups
    }
    return counted.get("trainer", 0), counted.get("rollout", 0)


@pytest.mark.parametrize(
    "job", JOBS, ids=lambda path: "/".join(path.parts[path.parts.index("examples") + 1 :])
)
def test_pods_hold_the_gpus_that_the_package_counts(job, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert gpus(render(job_values(job))) == expected(situation(job))


@pytest.mark.parametrize("name", CI_NAMES)
def test_a_values_file_leaves_its_job_without_conflicts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = ci_values(name)
    job = tmp_path / "job.yaml"
    job.write_text(values["job"]["config"], encoding="utf-8")
    words = render_ci(name).train_line.partition("--resume")[2].split()
    made = situation(job, [word.strip("'") for word in words])
    assert [str(conflict) for conflict in check(made)] == []


FLAGS = st.fixed_dictionaries(
    {
        "actor.num_nodes": st.integers(1, 2),
        "actor.num_gpus_per_node": st.sampled_from([1, 2, 4, 8]),
        "vllm.num_engines": st.integers(1, 4),
    },
    optional={
        "vllm.tensor_parallel_size": st.sampled_from([1, 2]),
        "ref.num_nodes": st.integers(1, 2),
        "ref.num_gpus_per_node": st.sampled_from([1, 4]),
        "critic.num_nodes": st.integers(1, 2),
        "critic.num_gpus_per_node": st.sampled_from([2, 8]),
        "reward.num_gpus_per_node": st.sampled_from([1, 2]),
        "reward.remote_url": st.just("r.py"),
        "train.agent_func_path": st.just("a.py"),
        "train.colocate_all": st.booleans(),
        "train.colocate_actor_ref": st.booleans(),
        "train.colocate_critic_reward": st.booleans(),
        "train.async_enable": st.booleans(),
        "algo.kl.init_coef": st.sampled_from([0.0, 0.01, None]),
        "algo.advantage.estimator": st.sampled_from(["gae", "group_norm"]),
    },
)


@settings(max_examples=40)
@given(FLAGS)
def test_every_combination_of_roles_is_counted_alike(tmp_path_factory, flags):
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(yaml.safe_dump(flags), encoding="utf-8")
    made = situation(path)
    try:
        counted = gpus(render(job_values(path)))
    except ChartError as refusal:
        counted, words = None, str(refusal)
    if counted is None:
        assert made.colocates_engines
        assert made.engine_gpus != made.ranks("actor")
        assert "train.colocate_all shares them" in words
    else:
        assert counted == expected(made)


def test_nested_and_dotted_settings_and_overrides_count_alike():
    nested = "actor: {num_gpus_per_node: 2}\nvllm: {num_engines: 3}\nreward.remote_url: r.py\n"
    rest = "algo.kl.init_coef: 0\nalgo.advantage: {estimator: group_norm}\n"
    assert gpus(render(job_values(nested + rest))) == (2, 3)
    overrides = ["actor.num_nodes=2", "vllm.num_engines=1"]
    assert gpus(render(merged(job_values(nested + rest), {"job": {"overrides": overrides}}))) == (4, 1)


SEPARATE = (
    "actor: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\nreward: {remote_url: r.py}\n"
    "algo: {kl: {init_coef: 0}, advantage: {estimator: group_norm}}\n"
)


def shapes(**values):
    groups = render(job_values(SEPARATE, **values)).one("RayJob")["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ]
    return {g["groupName"]: (g["replicas"], int(g["rayStartParams"]["num-gpus"])) for g in groups}


def test_replicas_follow_from_the_gpus_of_a_pod_and_the_other_way_round():
    assert shapes() == {"trainer": (1, 4), "rollout": (1, 4)}
    assert shapes(trainer={"gpus": 2}) == {"trainer": (2, 2), "rollout": (1, 4)}
    assert shapes(rollout={"replicas": 4}) == {"trainer": (1, 4), "rollout": (4, 1)}
    assert shapes(placement={"mode": "colocated"}) == {"trainer": (1, 8)}


def test_more_than_eight_gpus_go_into_equal_pods_of_eight_at_most():
    job = SEPARATE.replace("num_engines: 4", "num_engines: 12")
    groups = render(job_values(job)).one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (groups[1]["replicas"], groups[1]["rayStartParams"]["num-gpus"]) == (2, "6")


def test_an_engine_of_several_gpus_stays_in_one_pod():
    job = SEPARATE.replace("num_engines: 4", "num_engines: 3, tensor_parallel_size: 4")
    groups = render(job_values(job)).one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (groups[1]["replicas"], groups[1]["rayStartParams"]["num-gpus"]) == (3, "4")


def test_groups_can_decide_and_the_jobs_numbers_follow():
    values = job_values(
        SEPARATE.replace("num_engines: 4", "tensor_parallel_size: 2"),
        placement={"countsFrom": "groups"},
        trainer={"replicas": 2, "gpus": 8},
        rollout={"replicas": 3, "gpus": 4},
    )
    rendered = render(values)
    assert gpus(rendered) == (16, 12)
    last = rendered.train_line
    assert last.endswith("--resume 'vllm.num_engines=6' 'actor.num_nodes=2' 'actor.num_gpus_per_node=8'")


def test_roles_that_share_the_trainers_gpus_follow_the_groups_too():
    job = "train: {colocate_all: true}\nreward: {remote_url: r.py}\nvllm: {tensor_parallel_size: 2}\n"
    values = job_values(job, placement={"countsFrom": "groups"}, trainer={"replicas": 2, "gpus": 4})
    last = render(values).train_line
    for setting in ("vllm.num_engines=4", "ref.num_nodes=2", "critic.num_gpus_per_node=4"):
        assert f"'{setting}'" in last
