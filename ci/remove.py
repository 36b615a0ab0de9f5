"""Remove a benchmark's release, for CI's last step: a cancelled job may have been ended before it could.

    python -m ci.remove RELEASE [--namespace NAME] [--kubeconfig FILE]

Nothing there is as good as removed. Exit code 0, or 2 when something could not be removed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ci.benchmark import cluster_options
from ci.cluster import BenchmarkError, Cluster


def main(argv: Sequence[str] | None = None) -> int:
    """Remove it."""
    made = argparse.ArgumentParser(prog="python -m ci.remove", description=__doc__)
    made.add_argument("release", help="what the benchmark was given as --release")
    cluster_options(made)
    arguments = made.parse_args(argv)
    try:
        Cluster(arguments.kubeconfig, arguments.namespace).remove(arguments.release)
    except BenchmarkError as problem:
        made.error(str(problem))
    return 0


if __name__ == "__main__":
    sys.exit(main())
