#!/usr/bin/env bash
# The chart's whole life on kind, with KubeRay's own operator and without one; what is tried is in ci/e2e.py.
#
#   ci/kind-e2e.sh [CELL]...     default: statefulset helm-1.6.2 helm-1.7.0 kustomize-1.6.2
#
# A cell is `statefulset`, or how KubeRay is installed and its version. Each has a cluster `openrlhf-mtp` of its own, with a
# namespace that takes restricted pods only; it is deleted also when the cell fails or is cancelled; KEEP=1 leaves it.
# Needs docker, kubectl, helm, kind 0.24 or later (whose network enforces NetworkPolicies), and a Python with what
# ci/requirements.txt names (PYTHON=.venv/bin/python). 4 CPUs, 16 GB, 40 GB of disk. .github/workflows/kind.yml runs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=openrlhf-mtp
NAMESPACE=e2e
PYTHON=${PYTHON:-python3}
read -r -a CELLS <<< "${*:-statefulset helm-1.6.2 helm-1.7.0 kustomize-1.6.2}"

fail() { echo "kind-e2e: $*" >&2; exit 2; }
step() { printf '\n+ %s\n' "$*"; "$@"; }

for cell in "${CELLS[@]}"; do
  [[ "$cell" =~ ^(statefulset|(helm|kustomize)-[0-9]+\.[0-9]+\.[0-9]+)$ ]] \
    || fail "got $cell, expected statefulset, helm-VERSION or kustomize-VERSION"
done
for tool in docker kind kubectl helm "$PYTHON"; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
version=$(kind version | sed -n 's/^kind v\([0-9.]*\).*/\1/p')
[[ "$(printf '%s\n' 0.24 "$version" | sort -V | head -1)" == 0.24 ]] \
  || fail "got kind $version, expected 0.24 or later: an older one enforces no NetworkPolicy"
KUBECONFIG=$(mktemp)
export KUBECONFIG

finish() {
  local code=$?
  trap - EXIT INT TERM
  ((code == 0)) || kubectl get pods,jobs,events --all-namespaces 2>/dev/null || true
  [[ -n "${KEEP:-}" ]] || kind delete cluster --name "$CLUSTER"
  rm -f "$KUBECONFIG"
  exit "$code"
}

operator() {
  local how=${1%%-*} version=${1#*-}
  if [[ "$how" == helm ]]; then
    step helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ \
      --version "$version" --namespace kuberay --create-namespace --wait --timeout 5m
  else # its pods carry other labels than Helm's, and it lives in the namespace `default`
    step kubectl create -k "github.com/ray-project/kuberay/ray-operator/config/default?ref=v$version&timeout=90s"
    step kubectl rollout status deployment/kuberay-operator --namespace default --timeout 5m
  fi
}

run_cell() {
  local cell=$1 backend=rayjob
  step kind create cluster --name "$CLUSTER" --wait 3m
  # now, so that what a namespace always has is there before it is looked at
  step kubectl create namespace "$NAMESPACE"
  step kubectl label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted
  step kind load docker-image --name "$CLUSTER" "$image" "$tools"
  if [[ "$cell" == statefulset ]]; then backend=statefulset; else operator "$cell"; fi
  # three times the quickstart's steps: `helm test` and the loss of a pod come before the last
  step "$PYTHON" -m ci.e2e --backend "$backend" --image "$image" --tools-image "$tools" \
    --job examples/arithmetic/job.yaml --set train.num_episodes=3 \
    --values helm/openrlhf-mtp/ci/cpu-smoke-values.yaml --kubeconfig "$KUBECONFIG" --namespace "$NAMESPACE"
  [[ -n "${KEEP:-}" ]] || step kind delete cluster --name "$CLUSTER"
}

trap finish EXIT INT TERM
step kind version
step kubectl version --client
step helm version
printf '\n+ docker/build.sh cpu, tools\n'
image=$(docker/build.sh cpu localhost/openrlhf-mtp | tail -n 1)
tools=$(docker/build.sh tools localhost/openrlhf-mtp | tail -n 1)
for cell in "${CELLS[@]}"; do run_cell "$cell"; done
echo "kind-e2e: ${CELLS[*]} passed"
