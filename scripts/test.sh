#!/usr/bin/env bash
# All that `make test` runs after set-up. What reads text comes first, and ends it all if it finds something. Then the
# small tests and the engines run side by side, and beside them, one after the other, mypy and what starts Ray. All of
# these are run even if one has failures; at the end it prints the slowest tests and the time by tier. See tests/README.md.
#
#   bash scripts/test.sh [--nightly] [PYTEST-ARGUMENT...]     for example tests/unit: only that, in one process
set -euo pipefail
nightly=()
[[ "${1:-}" == --nightly ]] && { nightly=(--nightly); shift; }
step() { printf '+ %s\n' "$*"; "$@"; }
began=$SECONDS failed=0
if (($#)); then
  bash scripts/lint.sh
  step pytest -q -rs --durations=10 "${nightly[@]}" "$@" || failed=1
  exit "$failed"
fi
bash scripts/lint.sh text

results=.cache/test-results
rm -rf "$results"
mkdir -p "$results"
run() {  # NAME PYTEST-ARGUMENT...
  step pytest -q -rs "${nightly[@]}" --junitxml="$results/$1.xml" "${@:2}"
}
one_by_one() {
  local failed=0
  trap 'exit 130' INT  # mypy takes the signal for itself and exits as if it had found something
  bash scripts/lint.sh code || failed=1
  printf 'lint: %d s\n' $((SECONDS - began))
  run alone -m "alone or not engine" tests/engine tests/cluster tests/gpu || failed=1
  return "$failed"
}
# mypy needs one core, and what starts Ray waits as much as it computes: they run beside the others, and their output is
# shown when they have ended. In a process group of its own, because bash starts what is in the background deaf to Ctrl-C.
set -m
one_by_one >"$results/alone.log" 2>&1 </dev/null &
alone=$!
set +m
trap 'kill -INT -- "-$alone" 2>/dev/null && wait "$alone"' EXIT
side_by_side=(--numprocesses=logical --dist=loadfile)
run small "${side_by_side[@]}" tests/unit tests/contract tests/chart || failed=1
run engine "${side_by_side[@]}" --maxprocesses=4 -m "not alone" tests/engine || failed=1  # 3 GB each
wait "$alone" || failed=1
cat "$results/alone.log"
python scripts/test_times.py "$results"/{small,engine,alone}.xml
printf 'all of it: %d s\n' $((SECONDS - began))
exit "$failed"
