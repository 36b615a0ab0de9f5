#!/usr/bin/env bash
# Build a Kubernetes control plane from Debian's source package, once: etcd, kube-apiserver, kube-controller-manager and
# kube-scheduler, in .cache/kube (or $KUBE_CACHE). Nothing is installed on the machine; a second run returns at once.
#
#   bash tests/cluster/build_kube.sh        about 3 minutes on two free cores (250 s of CPU), 2 GB while it builds, 180 MB after
#
# Debian 12 packages Kubernetes 1.20 with all its dependencies, and Go 1.19, which builds it. A build that was interrupted
# continues where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
CACHE=$(realpath -m "${KUBE_CACHE:-.cache/kube}")
VERSION=v1.20.2
REFLECT=github.com/modern-go/reflect2
BINARIES=(etcd kube-apiserver kube-controller-manager kube-scheduler)

have_all() { for one in "${BINARIES[@]}"; do [[ -x "$CACHE/bin/$one" ]] || return 1; done; }
say() { printf 'kube: %s\n' "$*"; }

todo() { [[ ! -e "$CACHE/$1" ]] && say "$2"; } # STAMP WORDS

# Packages come from wherever apt is set up to look; its lists are kept apart, with the source packages in them.
fetch() {
  mkdir -p "$CACHE/apt/lists/partial" "$CACHE/deb" "$CACHE/bin"
  local sources="$CACHE/apt/debian.sources" apt
  sed 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources > "$sources"
  apt=(-o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$CACHE/apt" -o "Dir::State::Lists=$CACHE/apt/lists"
    -o "APT::Sandbox::User=root")
  apt-get -qq "${apt[@]}" update
  (cd "$CACHE/deb" && apt-get -qq "${apt[@]}" download etcd-server golang-1.19-go golang-1.19-src \
      golang-github-modern-go-reflect2-dev \
    && apt-get -qq "${apt[@]}" source --download-only kubernetes)
}

unpack() {
  local package
  rm -rf "$CACHE/root" "$CACHE/source"
  for package in "$CACHE"/deb/golang-*.deb "$CACHE"/deb/etcd-server_*.deb; do dpkg-deb -x "$package" "$CACHE/root"; done
  cp "$CACHE/root/usr/bin/etcd" "$CACHE/bin/etcd"
  # Go's own sources lie in another package and are linked by absolute paths
  find "$CACHE/root/usr/lib/go-1.19" -maxdepth 2 -type l -delete
  cp -r "$CACHE/root/usr/share/go-1.19/." "$CACHE/root/usr/lib/go-1.19/"
  dpkg-source --no-check -x "$CACHE"/deb/kubernetes_*.dsc "$CACHE/source" >/dev/null
  # Its own copy iterates over maps as Go did before 1.18, and crashes on custom resources
  rm -r "$CACHE/source/vendor/$REFLECT"
  cp -r "$CACHE/root/usr/share/gocode/src/$REFLECT" "$CACHE/source/vendor/$REFLECT"
}

# One source file is left out of the package and generated from annotations in the others.
generate_openapi() {
  local go=$CACHE/gopath/src/k8s.io/kubernetes inputs
  mkdir -p "$CACHE/gopath/src/k8s.io"
  ln -sfn "$CACHE/source" "$go"
  cd "$go"
  export GO111MODULE=off
  go build -o "$CACHE/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  inputs=$({
    grep -rl --include='*.go' --exclude-dir=testdata -e '+k8s:openapi-gen=' staging/src/k8s.io \
      | grep -Ev 'code-generator|sample-apiserver|sample-controller' | xargs -n1 dirname \
      | sed 's#^staging/src/#k8s.io/kubernetes/vendor/#'
    grep -rl --include='*.go' -e '^// +k8s:openapi-gen=' pkg cmd plugin 2>/dev/null | xargs -n1 dirname \
      | sed 's#^#k8s.io/kubernetes/#'
  } | grep -v pkg/generated/openapi | sort -u | paste -sd,)
  : > "$CACHE/boilerplate.txt"
  "$CACHE/openapi-gen" -h "$CACHE/boilerplate.txt" -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -r "$CACHE/violations.txt"
}

# In a GOPATH, as Debian builds it: this Go refuses the package's go.mod.
build() {
  local vendored=k8s.io/kubernetes/vendor/k8s.io flags="-s -w" package one
  for package in "$vendored/component-base/version" "$vendored/client-go/pkg/version"; do
    flags+=" -X $package.gitVersion=$VERSION -X $package.gitMajor=1 -X $package.gitMinor=20"
  done
  cd "$CACHE/gopath/src/k8s.io/kubernetes"
  export GO111MODULE=off
  for one in "${BINARIES[@]:1}"; do
    [[ -x "$CACHE/bin/$one" ]] && continue
    say "building $one"
    # without the clients of all clouds, which nothing here asks for
    go build -o "$CACHE/bin/$one.new" -tags providerless -ldflags "$flags" "./cmd/$one"
    mv "$CACHE/bin/$one.new" "$CACHE/bin/$one"
  done
}

main() {
  have_all && return
  local started=$SECONDS
  mkdir -p "$CACHE"
  if todo fetched "fetching Debian's etcd, Go and Kubernetes source into $CACHE"; then fetch; touch "$CACHE/fetched"; fi
  if todo unpacked "unpacking"; then unpack; touch "$CACHE/unpacked"; fi
  export GOROOT="$CACHE/root/usr/lib/go-1.19" GOCACHE="$CACHE/gocache" GOPATH="$CACHE/gopath" GOPROXY=off CGO_ENABLED=0
  export PATH="$GOROOT/bin:$PATH" GOGC=400
  if todo generated "generating the one source file that the package leaves out"; then
    (generate_openapi)
    touch "$CACHE/generated"
  fi
  (build)
  chmod -R u+w "$CACHE/gopath"
  rm -rf "$CACHE"/{apt,deb,gocache,gopath,source,root,openapi-gen,boilerplate.txt,violations.txt,fetched,unpacked,generated} \
    "$CACHE"/kubernetes_*
  say "built in $((SECONDS - started)) s"
}

main; exit # in one line: this file may be changed while it runs
