"""`python -m openrlhf_mtp.cluster.exporter RUN`: the run's last row for Prometheus, read at every scrape.

policy/reward                -> openrlhf_mtp_policy_reward
spec/acceptance_rate/depth_2 -> openrlhf_mtp_spec_acceptance_rate_by_depth{depth="2"}
perf/rollout_tok_s/engine_0  -> openrlhf_mtp_perf_rollout_tok_s_by_engine{engine="0"}
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.run_files import METRICS

_NUMBERED = re.compile(r"(.*)/(depth|engine)_(\d+)")
_TAIL_BYTES = 1 << 16


def series(name: str) -> tuple[str, dict[str, str]]:
    """A metric's name and labels for Prometheus."""
    match = _NUMBERED.fullmatch(name)
    labels = {match[2]: match[3]} if match else {}
    plain = f"{match[1]}_by_{match[2]}" if match else name
    return "openrlhf_mtp_" + re.sub(r"[^a-zA-Z0-9_]", "_", plain), labels


def last_row(path: Path) -> dict[str, float | None]:
    """The last complete row of a metrics.jsonl; empty before the first step."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # being written
        if isinstance(row, dict):
            return row
    return {}


class RunCollector:
    """A prometheus_client collector of one run folder."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def collect(self) -> Iterator[Any]:
        """One gauge a name, one sample a label set; what is not finite is left out."""
        from prometheus_client.core import GaugeMetricFamily

        gauges: dict[str, Any] = {}
        for name, value in last_row(self.run / METRICS).items():
            if value is None:
                continue
            prometheus_name, labels = series(name)
            gauge = gauges.setdefault(
                prometheus_name,
                GaugeMetricFamily(prometheus_name, f"last step's {name}", labels=list(labels)),
            )
            gauge.add_metric(list(labels.values()), float(value))
        yield from gauges.values()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.exporter", description=__doc__)
    made.add_argument("run", type=Path, help="the run folder")
    made.add_argument("--port", type=int, default=9400, help="where to serve /metrics")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until ended."""
    arguments = parser().parse_args(argv)
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(RunCollector(arguments.run))
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # a cluster's addresses may be IPv6
    start_http_server(arguments.port, addr=everywhere, registry=registry)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
