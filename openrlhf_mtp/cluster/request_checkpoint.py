"""`python -m openrlhf_mtp.cluster.request_checkpoint RUN`: a pod's preStop hook, run when it is told to stop."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from openrlhf_mtp.cluster.pod_logs.flush import flush, memory_folder
from openrlhf_mtp.runlog.checkpoint_request import ask


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m openrlhf_mtp.cluster.request_checkpoint", description=__doc__
    )
    made.add_argument("run", type=Path, help="the run folder")
    made.add_argument("--timeout-s", type=float, required=True, help="how long to wait for the checkpoint")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Always 0: the pod stops with or without a checkpoint, and with its logs as far as they could be kept."""
    arguments = parser().parse_args(argv)
    ask(arguments.run, arguments.timeout_s)
    flush(memory_folder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
