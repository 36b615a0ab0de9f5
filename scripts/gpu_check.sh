#!/usr/bin/env bash
# The first thing to run on a machine with a GPU: is what a CPU cannot show true there, and how fast is it?
# At most nine minutes, no network, no set-up: what is not installed is skipped and said. `--help` lists the options.
#
#   bash scripts/gpu_check.sh [--policy FOLDER_WITH_A_HEAD] [--out runs/gpu_check]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh
python=python3
[[ -x .venv/bin/python ]] && python=.venv/bin/python
exec "$python" scripts/gpu_check.py "$@"
