"""The patches and the environment that every worker gets."""

import importlib

import pytest

from openrlhf_mtp.config.threads import PASSIVE
from openrlhf_mtp.upstream import processes
from openrlhf_mtp.upstream.processes import ray_runtime_env


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (*processes._RAY_ENV, *processes._WORKER_DEFAULTS, "OMP_NUM_THREADS", *PASSIVE):
        monkeypatch.delenv(name, raising=False)


def test_every_worker_runs_the_function_that_installs_the_patches():
    module, _, function = ray_runtime_env()["worker_process_setup_hook"].rpartition(".")
    assert getattr(importlib.import_module(module), function) is processes.prepare_process


def worker(**node):
    """The environment of a worker whose node sets these variables."""
    environ = {**node, **ray_runtime_env()["env_vars"]}
    processes.fill_in_defaults(environ)
    return environ


def test_a_setting_of_the_user_wins_over_ours(monkeypatch):
    assert worker()["VLLM_LOGGING_LEVEL"] == "WARNING"
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    assert worker()["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_what_a_workers_node_sets_wins_over_the_drivers(monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "WARN")  # the chart sets it on every pod, the head's too
    assert worker(NCCL_DEBUG="INFO", TOKENIZERS_PARALLELISM="false").items() >= {
        ("NCCL_DEBUG", "INFO"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("VLLM_LOGGING_LEVEL", "WARNING"),
    }


def test_the_user_can_drop_a_setting_by_emptying_it(monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "")
    assert "NCCL_DEBUG" not in worker()


def test_a_process_that_was_sent_nothing_keeps_its_environment():
    environ = {"A": "1"}
    processes.fill_in_defaults(environ)
    assert environ == {"A": "1"}


def test_workers_get_their_threads_and_wait_asleep(monkeypatch):
    assert not {"OMP_NUM_THREADS", *PASSIVE} & set(ray_runtime_env()["env_vars"]), "left to Ray"
    assert {"OMP_NUM_THREADS": "3", **PASSIVE}.items() <= ray_runtime_env(3)["env_vars"].items()
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert ray_runtime_env(3)["env_vars"]["OMP_WAIT_POLICY"] == "ACTIVE"
