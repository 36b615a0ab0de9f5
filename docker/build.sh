#!/usr/bin/env bash
# Build an image with the versions of versions.env.
#
#   docker/build.sh gpu|cpu|tools REPOSITORY [BUILD-ARGUMENT...]     for example docker/build.sh cpu registry.example.com/mtp
#
# Prints the name that the chart expects: REPOSITORY:VERSION-gpu, -cpu or -tools. DOCKER=podman uses another builder.
# Build arguments go to it: --build-arg FLASH_ATTN_CUDA_ARCHS=90, --build-arg MAX_JOBS=8 (docker/README.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 2)) || [[ ! "$1" =~ ^(gpu|cpu|tools)$ ]]; then
  sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed -n '3,6p' >&2
  exit 2
fi
target=$1 repository=$2
shift 2
# OpenRLHF is published for x86-64 only: elsewhere pip would say, after minutes, that there is no such version of it.
platform=""
for word; do [[ "$word" != --platform=* ]] || platform=${word#*=}; done
for ((i = 1; i < $#; i++)); do [[ "${!i}" != --platform ]] || { next=$((i + 1)); platform=${!next}; }; done
if [[ "$target" != tools && "${platform:-$(uname -m)}" != @(linux/amd64|linux/amd64/*|x86_64|amd64) ]]; then
  echo "docker/build.sh: got ${platform:-a machine of $(uname -m)}, expected x86-64: openrlhf has no wheel for another, so" \
    "there is no image for GB200, GH200 and other ARM nodes; build on x86-64, or add --platform linux/amd64 (emulated, slow)" >&2
  exit 2
fi
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' openrlhf_mtp/__init__.py)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
for argument in PYTHON_VERSION CUDA_IMAGE CUDA_BUILD_IMAGE DEBIAN_IMAGE; do
  arguments+=(--build-arg "$argument=$(sed -n "s/^$argument=//p" docker/versions.env)")
done
name="$repository:$version-$target"
"${DOCKER:-docker}" build --file docker/Dockerfile --target "$target" --tag "$name" "${arguments[@]}" "$@" .
echo "$name"
