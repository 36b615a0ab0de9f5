#!/usr/bin/env bash
# All that `make test` runs after set-up: lint, the small tests and then the engines side by side, what starts Ray one after
# the other. All parts are run even if one has failures; at the end stand the slowest tests and the time by tier. See
# tests/README.md.
#
#   bash scripts/test.sh [--nightly] [PYTEST-ARGUMENT...]     for example tests/unit: only that, in one process
set -euo pipefail
nightly=()
[[ "${1:-}" == --nightly ]] && { nightly=(--nightly); shift; }
step() { printf '+ %s\n' "$*"; "$@"; }
began=$SECONDS failed=0
bash scripts/lint.sh
if (($#)); then
  step pytest -q -rs --durations=10 "${nightly[@]}" "$@" || failed=1
  exit "$failed"
fi

results=.cache/test-results
rm -rf "$results"
part() {  # NAME PYTEST-ARGUMENT...
  step pytest -q -rs "${nightly[@]}" --junitxml="$results/$1.xml" "${@:2}" || failed=1
}
side_by_side=(--numprocesses=logical --dist=loadfile)
part small "${side_by_side[@]}" tests/unit tests/contract tests/chart
part engine "${side_by_side[@]}" --maxprocesses=4 -m "not alone" tests/engine  # 3 GB each
part alone -m "alone or not engine" tests/engine tests/cluster tests/gpu
python scripts/test_times.py "$results"/{small,engine,alone}.xml
printf 'all of it: %d s\n' $((SECONDS - began))
exit "$failed"
