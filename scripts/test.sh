#!/usr/bin/env bash
# All that `make test` runs after set-up. Tiers go one after the other in one pytest, whose last line counts them.
#
#   bash scripts/test.sh [PYTEST-ARGUMENT...]     for example tests/unit
set -euo pipefail
step() { printf '+ %s\n' "$*"; "$@"; }
bash scripts/lint.sh
step pytest -q -rs --durations=10 "$@"
