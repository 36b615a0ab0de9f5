"""The Grafana dashboard of a run: which figures it shows. helm/generate.py writes it into the chart."""

from typing import Any

RUN = '{namespace="$namespace", openrlhf_mtp_io_run="$run"}'
"""Every series of the chosen run; the PodMonitor copies the pod's label."""

PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Reward",
        "none",
        (("openrlhf_mtp_policy_reward", "reward"), ("openrlhf_mtp_eval_accuracy", "held out")),
    ),
    (
        "Tokens per target forward",
        "none",
        (
            ("openrlhf_mtp_spec_mean_acceptance_length", "engines"),
            ("openrlhf_mtp_mtp_expected_length", "promised by the trainer"),
        ),
    ),
    (
        "Acceptance by depth",
        "percentunit",
        (("openrlhf_mtp_spec_acceptance_rate_by_depth", "depth {{depth}}"),),
    ),
    ("Overlap by depth, trainer", "percentunit", (("openrlhf_mtp_mtp_alpha_by_depth", "depth {{depth}}"),)),
    (
        "Time of a step",
        "s",
        (
            ("openrlhf_mtp_time_rollout_s", "rollout"),
            ("openrlhf_mtp_time_train_s", "training"),
            ("openrlhf_mtp_time_sync_s", "weight sync"),
            ("openrlhf_mtp_time_step_s", "whole step"),
        ),
    ),
    (
        "Rollout throughput (tokens per second)",
        "none",
        (
            ("openrlhf_mtp_perf_rollout_tok_s", "all engines"),
            ("openrlhf_mtp_perf_rollout_tok_s_by_engine", "engine {{engine}}"),
        ),
    ),
    (
        "Loss of the head",
        "none",
        (("openrlhf_mtp_mtp_loss", "all depths"), ("openrlhf_mtp_mtp_loss_by_depth", "depth {{depth}}")),
    ),
    (
        "Policy",
        "none",
        (("openrlhf_mtp_policy_entropy", "entropy (nat)"), ("openrlhf_mtp_policy_kl", "KL (nat)")),
    ),
    ("Engine against trainer (nat)", "none", (("openrlhf_mtp_spec_logprob_gap", "log-prob gap"),)),
    ("Step", "none", (("openrlhf_mtp_step", "step"),)),
    ("Free GPUs as Ray counts them", "none", (("ray_resources", "{{Name}} {{State}}"),)),
    ("Object store", "bytes", (("ray_object_store_memory", "{{Location}}"),)),
)


def dashboard() -> dict[str, Any]:
    """Grafana's JSON: two panels a row, the run chosen by a variable."""
    return {
        "title": "openrlhf-mtp run",
        "uid": "openrlhf-mtp-run",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_datasource(), _variable("namespace", "namespace"), _run()]},
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _variable(name: str, label: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values(openrlhf_mtp_step, {label})",
        "refresh": 2,
    }


def _run() -> dict[str, Any]:
    made = _variable("run", "openrlhf_mtp_io_run")
    return {**made, "query": 'label_values(openrlhf_mtp_step{namespace="$namespace"}, openrlhf_mtp_io_run)'}


def _panel(number: int, title: str, unit: str, series: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": f"{name}{RUN}", "legendFormat": legend}
            for index, (name, legend) in enumerate(series)
        ],
    }
