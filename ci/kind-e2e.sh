#!/usr/bin/env bash
# Install the chart on a kind cluster and wait for the CPU job to end, with and without KubeRay's operator.
#
#   ci/kind-e2e.sh [statefulset|rayjob]...      default: both; 20 minutes, 8 CPUs, 24 GB, 30 GB of disk
#
# Needs docker, kind, kubectl, helm. Makes a cluster `openrlhf-mtp` and deletes it, also when it fails or is cancelled;
# KEEP=1 leaves it. This project's own CI has none of these tools and does not run it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=openrlhf-mtp
KUBERAY=1.6.2
IMAGE=localhost/openrlhf-mtp
JOB=examples/arithmetic/job.yaml
read -r -a BACKENDS <<< "${*:-statefulset rayjob}"

for tool in docker kind kubectl helm; do
  command -v "$tool" >/dev/null || { echo "kind-e2e: $tool is missing" >&2; exit 2; }
done
step() { printf '\n+ %s\n' "$*"; "$@"; }
k() { kubectl --context "kind-$CLUSTER" "$@"; }
h() { helm --kube-context "kind-$CLUSTER" "$@"; }

finish() {
  local code=$?
  ((code == 0)) || k get pods,rayjobs,events --all-namespaces 2>/dev/null || true
  [[ -n "${KEEP:-}" ]] || kind delete cluster --name "$CLUSTER"
  exit "$code"
}

run_backend() {
  local backend=$1 release="e2e-$1" run status=""
  step h install "$release" helm/openrlhf-mtp --values helm/openrlhf-mtp/ci/cpu-smoke-values.yaml \
    --set "image.repository=$IMAGE" --set "backend=$backend" --set-file "job.config=$JOB" --timeout 15m
  run=$(k get networkpolicy --selector "app.kubernetes.io/instance=$release" --output jsonpath='{.items[0].metadata.name}')
  for ((minute = 0; minute < 60; minute++)); do
    if [[ "$backend" == rayjob ]]; then
      # Complete and STOPPED: the run has failed for good, and KubeRay does not repeat it
      status=$(k get rayjob "$run" --output jsonpath='{.status.jobDeploymentStatus} {.status.jobStatus}')
    else
      status=$(k get job "$run-submitter" --output jsonpath='{.status.conditions[?(@.status=="True")].type}')
    fi
    echo "minute $minute: ${status:-waiting}"
    [[ "$status" =~ Complete|Failed ]] && break
    sleep 60
  done
  k logs --selector "openrlhf-mtp.io/run=$run,openrlhf-mtp.io/role=submitter" --tail 30
  [[ "$status" == *Complete* && "$status" != *STOPPED* ]] || { echo "kind-e2e: $backend ended as ${status:-not at all}" >&2; return 1; }
  step h uninstall "$release"
  k delete pvc --selector "app.kubernetes.io/instance=$release"
  k wait --for=delete pod --selector "app.kubernetes.io/instance=$release" --timeout 5m
  [[ -z "$(k get all,cm,sa,role,rolebinding,netpol,pdb --selector "app.kubernetes.io/instance=$release" --output name)" ]]
}

trap finish EXIT INT TERM
step kind create cluster --name "$CLUSTER" --wait 3m
step docker/build.sh cpu "$IMAGE"
step kind load docker-image --name "$CLUSTER" "$IMAGE:0.1.0-cpu"
if [[ " ${BACKENDS[*]} " == *" rayjob "* ]]; then
  step h install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ \
    --version "$KUBERAY" --namespace kuberay --create-namespace --wait
fi
for backend in "${BACKENDS[@]}"; do run_backend "$backend"; done
echo "kind-e2e: ${BACKENDS[*]} passed"
