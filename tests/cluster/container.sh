#!/usr/bin/env bash
# The inside of a container without a container engine: a root folder of this machine's own directories, the pod's volumes,
# then the command as the pod's user. Runs in fresh mount, network, process, IPC and host name namespaces.
#
#   container.sh ROOT NAME USER WORKDIR MOUNTS COMMAND...      MOUNTS: a file of lines SOURCE<tab>TARGET<tab>ro|rw
set -euo pipefail
root=$1 name=$2 user=$3 workdir=$4 mounts=$5
shift 5
path=$PATH # the container's, not this script's
PATH=/usr/sbin:/usr/bin:/sbin:/bin
hostname "$name"
mount --make-rprivate /
mount -t tmpfs -o size=64m,mode=755 tmpfs "$root"
for folder in bin sbin lib lib32 lib64 libx32 usr opt; do
  if [[ -L "/$folder" ]]; then cp -a "/$folder" "$root/$folder"
  elif [[ -d "/$folder" ]]; then mkdir "$root/$folder" && mount --bind -o ro "/$folder" "$root/$folder"
  fi
done
mkdir -p "$root"/{etc,proc,dev,sys,tmp,run,var/run,root}
install -d -m 755 -o "$user" -g "$user" "$root/workspace"
cp -a /etc/{passwd,group,nsswitch.conf,ssl,ld.so.conf,ld.so.conf.d,ld.so.cache,alternatives,localtime} "$root/etc/" 2>/dev/null || true
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
while IFS=$'\t' read -r source target mode; do
  if [[ "$source" == tmpfs:* ]]; then
    mkdir -p "$root$target"
    mount -t tmpfs -o "size=${source#tmpfs:},mode=1777" tmpfs "$root$target"
    continue
  fi
  if [[ -d "$source" ]]; then mkdir -p "$root$target"
  elif [[ ! -e "$root$target" ]]; then mkdir -p "$(dirname "$root$target")" && touch "$root$target"
  fi
  mount --bind "$source" "$root$target"
  [[ "$mode" == rw ]] || mount -o remount,bind,ro "$root$target"
done < "$mounts"
ip link set lo up
for ((tries = 0; tries < 300; tries++)); do
  ip -4 -o address show dev eth0 2>/dev/null | grep -q inet && break
  sleep 0.1
done
cd "$root"
# shellcheck disable=SC2016  # the words are for the inner shell
# --pdeathsig again, because a change of user clears it: the command ends with the process that waits for it outside
exec chroot "$root" /usr/bin/env "PATH=$path" /usr/bin/setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs --bounding-set=-all \
  --pdeathsig KILL \
  /bin/sh -c 'cd "$0" && exec "$@"' "$workdir" "$@"
