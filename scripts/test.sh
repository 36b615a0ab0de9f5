#!/usr/bin/env bash
# All that `make test` runs after set-up: the tiers of small tests on all cores, then those whose tests each want the
# whole machine, one after the other. Both are run even if the first has failures.
#
#   bash scripts/test.sh [PYTEST-ARGUMENT...]     for example tests/unit: only that, in one process
set -euo pipefail
step() { printf '+ %s\n' "$*"; "$@"; }
bash scripts/lint.sh
if (($#)); then
  step pytest -q -rs --durations=10 "$@"
  exit
fi
failed=0
step pytest -q -rs --numprocesses=auto --dist=loadfile --durations=5 tests/unit tests/contract tests/chart || failed=1
step pytest -q -rs --durations=10 tests/engine tests/cluster tests/gpu || failed=1
exit "$failed"
