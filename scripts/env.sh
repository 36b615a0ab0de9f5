# shellcheck shell=bash
# Environment of every script here; source it from the checkout's root.
# Caches stay inside the checkout's .cache, so that nothing is left in HOME and `make clean` removes all of it.
_cache="$PWD/.cache"
export HF_HOME="${HF_HOME:-$_cache/huggingface}"
export VLLM_CACHE_ROOT="${VLLM_CACHE_ROOT:-$_cache/vllm}"
export VLLM_CONFIG_ROOT="${VLLM_CONFIG_ROOT:-$_cache/vllm-config}"
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-$_cache/torch-extensions}"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$_cache/torchinductor}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$_cache/triton}"
export MPLCONFIGDIR="${MPLCONFIGDIR:-$_cache/matplotlib}"
export HYPOTHESIS_STORAGE_DIRECTORY="$_cache/hypothesis"
# A module is compiled once, not in each of the many processes of a run: with this variable set (containers often do) a
# start of Ray, vLLM and DeepSpeed takes minutes.
unset PYTHONDONTWRITEBYTECODE
# No usage reports from tests and examples.
export VLLM_NO_USAGE_STATS="${VLLM_NO_USAGE_STATS:-1}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
export HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}"
# Ray starts its workers at nice 15, where they starve beside anything else on a small machine.
export RAY_worker_niceness="${RAY_worker_niceness:-0}"
