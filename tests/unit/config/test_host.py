"""What a driver believes to have: its own GPUs, or those of the pods it drives."""

import shutil

from openrlhf_mtp.config.host import CLUSTER_GPUS, Host, detect_host


def test_a_driver_on_a_pod_without_gpus_counts_those_of_the_run():
    assert detect_host({CLUSTER_GPUS: "16"}) == Host(16)


def test_without_the_driver_tool_and_the_variable_there_is_none(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert detect_host({}) == Host(0)
    assert detect_host({CLUSTER_GPUS: ""}) == Host(0)
