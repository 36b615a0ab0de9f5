#!/usr/bin/env bash
# Style, spelling, types, and the table of rooms. Stops at the first that fails.
set -euo pipefail
step() { printf '+ %s\n' "$*"; "$@"; }
step ruff check .
step ruff format --check .
step codespell
step mypy
step lint-imports --cache-dir .cache/import-linter --no-logo
