#!/usr/bin/env bash
# Style, spelling, types, and the table of rooms. Stops at the first that fails.
#
#   bash scripts/lint.sh [text | code]    only what reads text, in seconds; or only what reads all code, in minutes
set -euo pipefail
[[ "${1:-}" =~ ^(|text|code)$ ]] || { printf 'lint.sh: got %s, expected text, code or nothing\n' "$1" >&2; exit 2; }
step() { printf '+ %s\n' "$*"; "$@"; }
if [[ "${1:-text}" == text ]]; then
  step ruff check .
  step ruff format --check .
  step codespell
fi
if [[ "${1:-code}" == code ]]; then
  step mypy
  step lint-imports --cache-dir .cache/import-linter --no-logo
fi
