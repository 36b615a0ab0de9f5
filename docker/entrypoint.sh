#!/usr/bin/env bash
# Starts what the container was given as the container's first process, so that signals reach it.
set -euo pipefail
# Kubernetes may run the image under any uid; libraries want a home they can write to.
[[ -w "${HOME:-/nonexistent}" ]] || export HOME=/tmp
# Ray, vLLM and NCCL hold many sockets
ulimit -n 65536 2>/dev/null || true
exec "$@"
