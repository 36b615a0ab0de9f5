# shellcheck shell=bash
# What set-up needs to know of a host with NVIDIA GPUs. Sourced by scripts/setup.sh, which has `say`, `fail` and the
# versions.

# gpu, none, or what is wrong with the driver.
gpu_state() {
  command -v nvidia-smi >/dev/null || { echo none; return; }
  local listing status=0
  listing=$(timeout 10 nvidia-smi -L 2>&1) || status=$?
  if ((status == 124)); then echo "nvidia-smi did not answer within 10 s"
  elif ((status != 0)); then echo "nvidia-smi ended with code $status: $(head -n 1 <<<"$listing")"
  elif grep -q '^GPU ' <<<"$listing"; then echo gpu
  else echo none
  fi
}

# torch's own order: CUDA_HOME, the PATH, /usr/local/cuda.
find_nvcc() {
  local place
  for place in "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [[ -n "$place" && -x "$place" ]] && { echo "$place"; return; }
  done
  return 1
}

# DeepSpeed compiles its optimizers at first use, and flash-attention is compiled here unless a wheel is given. torch
# compiles with nothing but the CUDA that it was built for, up to the minor version.
require_nvcc() {
  local wanted nvcc found
  wanted=$(sed -n 's|.*/cuda:\([0-9]*\.[0-9]*\).*|\1|p' <<<"$CUDA_IMAGE")
  nvcc=$(find_nvcc) || fail "no nvcc found (CUDA_HOME, PATH, /usr/local/cuda): flash-attention and DeepSpeed compile \
kernels with it. Install NVIDIA's CUDA toolkit $wanted (the driver alone is not enough), or use docker/build.sh gpu"
  found=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p')
  [[ "${found%.*}" == "${wanted%.*}" ]] || fail "$nvcc is CUDA ${found:-of unknown version}, and torch $TORCH_VERSION \
is built for CUDA ${wanted%.*}: install toolkit $wanted beside it and set CUDA_HOME=/usr/local/cuda-$wanted"
  say "nvcc $found at $nvcc"
}

# Compilers at once: each takes about 10 GiB for flash-attention, and half the cores keep all busy.
max_jobs() {  # MEMORY_GIB CORES
  local by_memory=$(($1 / 10)) by_cores=$(($2 / 2))
  local jobs=$((by_memory < by_cores ? by_memory : by_cores))
  echo $((jobs > 0 ? jobs : 1))
}

available_gib() { awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo; }
