"""The Grafana dashboard of a run: which figures it shows. helm/generate.py writes it into the chart."""

from typing import Any

from openrlhf_mtp.cluster.exporter import series
from openrlhf_mtp.runlog import metrics


def gauge(metric: str) -> str:
    """The Prometheus name of a metric."""
    return series(metric)[0]


def by_depth(metric: str) -> str:
    """The Prometheus name of a metric that is logged for each depth."""
    return gauge(metrics.depth_metric(metric, 1))


def by_engine(metric: str) -> str:
    """The Prometheus name of a metric that is logged for each engine."""
    return gauge(metrics.engine_metric(metric, 0))


RUN = '{namespace="$namespace", openrlhf_mtp_io_run="$run"}'
"""Every series of the chosen run; the PodMonitor copies the pod's label."""

PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Reward",
        "none",
        ((gauge(metrics.POLICY_REWARD), "reward"), (gauge(metrics.EVAL_ACCURACY), "held out")),
    ),
    (
        "Tokens per target forward",
        "none",
        (
            (gauge(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH), "engines"),
            (gauge(metrics.MTP_EXPECTED_LENGTH), "predicted by the trainer"),
        ),
    ),
    (
        "Acceptance by depth",
        "percentunit",
        ((by_depth(metrics.SPEC_ACCEPTANCE_RATE), "depth {{depth}}"),),
    ),
    ("Overlap by depth, trainer", "percentunit", ((by_depth(metrics.MTP_ALPHA), "depth {{depth}}"),)),
    (
        "Time of a step",
        "s",
        (
            (gauge(metrics.TIME_ROLLOUT_S), "rollout"),
            (gauge(metrics.TIME_TRAIN_S), "training"),
            (gauge(metrics.TIME_SYNC_S), "weight sync"),
            (gauge(metrics.TIME_STEP_S), "whole step"),
        ),
    ),
    (
        "Rollout throughput (tokens per second)",
        "none",
        (
            (gauge(metrics.PERF_ROLLOUT_TOK_S), "all engines"),
            (by_engine(metrics.PERF_ROLLOUT_TOK_S), "engine {{engine}}"),
        ),
    ),
    (
        "Loss of the head",
        "none",
        ((gauge(metrics.MTP_LOSS), "all depths"), (by_depth(metrics.MTP_LOSS), "depth {{depth}}")),
    ),
    (
        "Policy",
        "none",
        ((gauge(metrics.POLICY_ENTROPY), "entropy (nat)"), (gauge(metrics.POLICY_KL), "KL (nat)")),
    ),
    ("Engine against trainer (nat)", "none", ((gauge(metrics.SPEC_LOGPROB_GAP), "log-prob gap"),)),
    ("Step", "none", ((gauge(metrics.STEP), "step"),)),
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
