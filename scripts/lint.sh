#!/usr/bin/env bash
# Style, spelling, types of the pure rooms, and the table of rooms. Stops at the first that fails.
set -euo pipefail
step() { printf '+ %s\n' "$*"; "$@"; }
step ruff check .
step ruff format --check .
step codespell
step mypy
step lint-imports --cache-dir .cache/import-linter --no-logo
