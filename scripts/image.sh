#!/bin/sh
# Builds the Dockerfile with buildah, without a daemon and without pulling an image: the base images are made from Debian's
# packages under the names that the Dockerfile gives. Then tries the image out in a pod of two containers.
#
#   sh scripts/image.sh build    the image shadowtap:latest, in local storage
#   sh scripts/image.sh try      version 1 and the sidecar in one pod, version 2 beside it
#
# Needs root and, from Debian: podman buildah runc debootstrap netavark nftables curl. Takes minutes: it compiles for release.
set -eu
cd "$(dirname "$0")/.."

WORK=${IMAGE_WORK:-${TMPDIR:-/tmp}/shadowtap-image}
RUST_BASE=docker.io/library/rust:1-slim-bookworm
IMAGE=localhost/shadowtap:latest
mkdir -p "$WORK"

say() { echo "image: $*"; }
fail() { echo "image: $*" >&2; exit 1; }

for tool in buildah podman runc debootstrap; do
    command -v $tool >/dev/null || fail "$tool is missing: apt-get install podman buildah runc debootstrap netavark"
done
[ "$(id -u)" = 0 ] || fail "this makes namespaces and file systems: run it as root"

export CONTAINERS_CONF="$WORK/containers.conf"
export CONTAINERS_STORAGE_CONF="$WORK/storage.conf"
cat > "$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
cat > "$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "vfs"
graphroot = "$WORK/storage"
runroot = "$WORK/run"
CONF

# A stand-in for the official Rust image: Debian, and this machine's toolchain mounted into it.
base() {
    buildah images --format '{{.Name}}:{{.Tag}}' | grep -qx "$RUST_BASE" && return
    if ! [ -x "$WORK/base/bin/sh" ]; then
        say "debootstrap"
        debootstrap --variant=minbase --include=ca-certificates bookworm "$WORK/base" >"$WORK/debootstrap.log"
    fi
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$WORK/base" / >/dev/null
    buildah config --env PATH=/usr/local/rust-toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --rm "$container" "$RUST_BASE" >/dev/null
}

build() {
    base
    toolchain=$(rustc --print sysroot)
    say "building (release, this takes minutes)"
    nice buildah bud --isolation chroot --pull-never --layers \
        -v "$toolchain:/usr/local/rust-toolchain:ro" -v /etc/ssl/certs:/etc/ssl/certs:ro -v /etc/resolv.conf:/etc/resolv.conf:ro \
        --build-arg REVISION="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
        -t "$IMAGE" .
    mounted=$(buildah mount "$(buildah from --pull-never "$IMAGE")")
    say "$(du -sm "$mounted" | cut -f1) MB: $(find "$mounted" -type f | wc -l) files"
    getcap "$mounted/usr/local/bin/shadowtap"
    say "bill of materials: $(grep -c '"bom-ref"' "$mounted/usr/share/sbom/shadowtap.cdx.json") crates, Debian's $(ls "$mounted/var/lib/dpkg/status.d" | tr '\n' ' ')"
    buildah rm --all >/dev/null
}

case ${1:-} in
build) build ;;
try) exec sh scripts/image-try.sh "$WORK" "$IMAGE" ;;
*) fail "build or try?" ;;
esac
