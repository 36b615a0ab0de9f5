"""The last row of a run as Prometheus reads it."""

import http.client
import socket

import pytest

from openrlhf_mtp.cluster import exporter
from openrlhf_mtp.cluster.exporter import RunCollector, last_row, series
from tests.patience import seconds


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy/reward", ("openrlhf_mtp_policy_reward", {})),
        ("step", ("openrlhf_mtp_step", {})),
        ("mtp/alpha/depth_2", ("openrlhf_mtp_mtp_alpha_by_depth", {"depth": "2"})),
        ("perf/rollout_tok_s/engine_0", ("openrlhf_mtp_perf_rollout_tok_s_by_engine", {"engine": "0"})),
        ("eval/pass_at_k", ("openrlhf_mtp_eval_pass_at_k", {})),
    ],
)
def test_a_metric_gets_a_name_and_labels(name, expected):
    assert series(name) == expected


def test_a_row_that_is_being_written_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) == {}
    path.write_text('{"step": 1, "policy/reward": 0.5}\n{"step": 2, "pol', encoding="utf-8")
    assert last_row(path) == {"step": 1, "policy/reward": 0.5}


def test_a_long_file_is_read_from_its_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {n}, "x": "{"y" * 100}"}}\n' for n in range(2000)), encoding="utf-8")
    assert last_row(path)["step"] == 1999


def test_depths_share_a_gauge_and_what_is_not_finite_is_left_out(tmp_path):
    row = '{"step": 3, "mtp/alpha/depth_1": 0.9, "mtp/alpha/depth_2": 0.7, "policy/kl": null}\n'
    (tmp_path / "metrics.jsonl").write_text(row, encoding="utf-8")
    samples = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for gauge in RunCollector(tmp_path).collect()
        for sample in gauge.samples
    }
    assert samples == {
        ("openrlhf_mtp_step", ()): 3.0,
        ("openrlhf_mtp_mtp_alpha_by_depth", (("depth", "1"),)): 0.9,
        ("openrlhf_mtp_mtp_alpha_by_depth", (("depth", "2"),)): 0.7,
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_figures_are_served_to_callers_of_either_family(host, tmp_path, monkeypatch):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n', encoding="utf-8")
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]

    class Served(Exception):
        pass

    def ask(_):
        connection = http.client.HTTPConnection(host, port, timeout=seconds(10))
        connection.request("GET", "/metrics")
        assert b"openrlhf_mtp_step 3.0" in connection.getresponse().read()
        raise Served

    monkeypatch.setattr(exporter.time, "sleep", ask)
    with pytest.raises(Served):
        exporter.main([str(tmp_path), "--port", str(port)])
