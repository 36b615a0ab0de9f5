#!/usr/bin/env bash
# Create .venv with everything this project needs; a second run with nothing changed returns at once.
#
#   bash scripts/setup.sh           what runs need
#   bash scripts/setup.sh tests     and what the tests need
#   bash scripts/setup.sh examples/NAME   and what that example needs: its requirements.txt
#
# With a CUDA GPU (nvidia-smi lists one) it installs requirements/gpu.txt, else the CPU stack.
#   PYTHON=...           the interpreter (3.11 or later)
#   STACK=cpu|gpu        overrides the detection
#   INSTALLER=pip        does without uv
#   FLASH_ATTN_WHEEL=... file or address of a wheel of flash-attention, which is compiled otherwise (GPU)
#   MAX_JOBS=...         compilers at once (GPU); default by memory and cores
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh
. docker/versions.env
. scripts/gpu_host.sh

PYTHON="${PYTHON:-python$PYTHON_VERSION}"
VENV=.venv
STAMP="$VENV/.setup-stamp"
WHEELS=.cache/wheels

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }
step() { bash docker/install.sh "$@"; }

stack() {
  [[ -z "${STACK:-}" ]] || { echo "$STACK"; return; }
  local state
  state=$(gpu_state)
  case "$state" in
    gpu) echo gpu ;;
    none) echo cpu ;;
    *) fail "the NVIDIA driver has a problem: $state. Mend it (a reboot after an update of the driver often does), or \
take the CPU stack: STACK=cpu bash scripts/setup.sh" ;;
  esac
}

# What the scripts need from the system: Python with venv and headers, and a C++ compiler (DeepSpeed builds its
# shared-memory op and torch.compile its kernels at first use).
system_packages() {
  local missing=()
  command -v "$PYTHON" >/dev/null || missing+=(python3.11)
  { command -v "$PYTHON" >/dev/null && "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; } || missing+=(python3.11-venv)
  { command -v "$PYTHON" >/dev/null && "$PYTHON" - <<'PY'
import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
PY
  } || missing+=(python3.11-dev)
  command -v g++ >/dev/null || missing+=(g++)
  command -v make >/dev/null || missing+=(make)
  command -v git >/dev/null || missing+=(git)
  [[ -e /usr/lib/$(uname -m)-linux-gnu/libnuma.so.1 ]] || missing+=(libnuma1)
  ((${#missing[@]} == 0)) && return
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    fail "missing: ${missing[*]}. Install them (Debian: sudo apt-get install ${missing[*]}) and run this again"
  fi
}

install_cpu() {
  say "installing the CPU stack into $VENV (1 to 2 minutes and 4 GB the first time)"
  step packages cpu "$VENV" "$PYTHON"
}

install_gpu() {
  require_nvcc
  say "installing the GPU stack into $VENV (CUDA's libraries are most of it: more than 10 GB)"
  step packages gpu "$VENV" "$PYTHON"
  if ! compgen -G "$WHEELS/flash_attn-$FLASH_ATTN_VERSION*.whl" >/dev/null; then
    export MAX_JOBS="${MAX_JOBS:-$(max_jobs "$(available_gib)" "$(nproc)")}"
    [[ -n "${FLASH_ATTN_WHEEL:-}" ]] || say "compiling flash-attention $FLASH_ATTN_VERSION, which has no wheel for torch \
$TORCH_VERSION: $MAX_JOBS compilers at once (MAX_JOBS), about 10 GiB of memory each, an hour or more with 4. Once: the \
wheel stays in $WHEELS. FLASH_ATTN_WHEEL=FILE-OR-ADDRESS takes one that was built elsewhere"
    step flash-attn "$VENV" "${FLASH_ATTN_WHEEL:-}" "$WHEELS"
  fi
  step wheels "$VENV" "$WHEELS"
}

# Bring one part in unless its stamp says that it is there and nothing changed since.
bring() {  # PART FINGERPRINT COMMAND...
  local stamp="$STAMP-$1" wanted="$2"
  shift 2
  [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]] && return
  fresh=yes
  "$@"
  echo "$wanted" > "$stamp"
}

install_stack() {  # STACK
  system_packages
  "install_$1"
  step project "$VENV" -e
}

install_tests() {
  say "installing what the tests need"
  step tests "$VENV"
}

install_example() {  # FOLDER
  say "installing what $1 needs"
  step example "$VENV" "$1/requirements.txt"
}

# The example whose folder was named, if one was.
bring_example() {  # FOLDER
  [[ -f "$1/requirements.txt" ]] || fail "got $1, expected tests or an example's folder with a requirements.txt"
  bring "$(basename "$1")" "$(sources "$1/requirements.txt")" install_example "$1"
}

main() {
  local chosen fresh="" started=$SECONDS
  chosen=$(stack)
  [[ "$chosen" == cpu || "$chosen" == gpu ]] || fail "STACK: got $chosen, expected cpu or gpu"
  bring stack "$chosen $(sources requirements/{cpu,gpu}.txt pyproject.toml)" install_stack "$chosen"
  case "${1:-}" in
    "") ;;
    tests) bring tests "$chosen $(sources requirements/test.txt)" install_tests ;;
    *) bring_example "${1%/}" ;;
  esac
  if [[ -n "$fresh" ]]; then say "done in $((SECONDS - started)) s"; else say "up to date"; fi
}

# A fingerprint of what decides the result.
sources() { cat "$@" setup.py docker/install.sh docker/versions.env scripts/{setup,gpu_host}.sh | sha256sum | cut -c 1-16; }

main "$@"
