#!/usr/bin/env bash
# Build an image with the versions of versions.env.
#
#   docker/build.sh gpu|cpu|tools REPOSITORY [BUILD-ARGUMENT...]     for example docker/build.sh cpu registry.example.com/mtp
#
# Prints the name that the chart expects: REPOSITORY:VERSION-gpu, -cpu or -tools. DOCKER=podman uses another builder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 2)) || [[ ! "$1" =~ ^(gpu|cpu|tools)$ ]]; then
  sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed -n '3,6p' >&2
  exit 2
fi
target=$1 repository=$2
shift 2
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' openrlhf_mtp/__init__.py)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
for argument in PYTHON_VERSION CUDA_IMAGE DEBIAN_IMAGE; do
  arguments+=(--build-arg "$argument=$(sed -n "s/^$argument=//p" docker/versions.env)")
done
name="$repository:$version-$target"
"${DOCKER:-docker}" build --file docker/Dockerfile --target "$target" --tag "$name" "${arguments[@]}" "$@" .
echo "$name"
