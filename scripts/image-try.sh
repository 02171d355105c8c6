#!/bin/sh
# Tries the image out: version 1 and the sidecar in one network namespace, version 2 in another, each in a container as the
# manifests have it. Called by image.sh, which says where the storage and the image are.
set -eu
WORK=$1
IMAGE=$2

say() { echo "image: $*"; }
fail() { echo "image: $*" >&2; exit 1; }

containers=''
finish() {
    for container in $containers; do podman rm -f -t 0 "$container" >/dev/null 2>&1 || :; done
    [ -z "${folder:-}" ] || rm -r "$folder"
    ip netns del shadowtap-v1 2>/dev/null || :
    ip netns del shadowtap-v2 2>/dev/null || :
}
trap finish EXIT
trap 'exit 1' INT TERM

ip netns add shadowtap-v1
ip netns add shadowtap-v2
ip -n shadowtap-v1 link add eth0 type veth peer name eth0 netns shadowtap-v2
for one in 1 2; do
    ip -n shadowtap-v$one address add 10.81.0.$one/24 dev eth0
    ip -n shadowtap-v$one link set eth0 up
    ip -n shadowtap-v$one link set lo up
done

# run NAMESPACE FLAGS...: starts a container and notes it.
run() {
    namespace=$1
    shift
    started=$(podman run -d --pull never --network "ns:/run/netns/$namespace" --add-host my-app-v2:10.81.0.2 \
        --read-only --cap-drop all --security-opt no-new-privileges "$@")
    containers="$containers $started"
}
at() { nsenter --net="/run/netns/$1" curl -sS --fail --retry 30 --retry-connrefused --retry-delay 1 --max-time 60 "$2"; }

run shadowtap-v2 --user 65532 --entrypoint sample-app "$IMAGE" --app-version v2.0.0
v2=$started
run shadowtap-v1 --user 65532 --entrypoint sample-app "$IMAGE" --app-version v1.0.0
run shadowtap-v1 --user 0 --cap-add net_raw "$IMAGE" mirror --port=8080 --to=http://my-app-v2:8080 --admin=0.0.0.0:9471
sidecar=$started
at shadowtap-v1 http://127.0.0.1:9471/readyz >/dev/null
pid=$(podman inspect --format '{{.State.Pid}}' "$sidecar")
say "the sidecar's capabilities: $(grep CapEff "/proc/$pid/status" | tr '\t' ' ') of user $(awk '/^Uid/ {print $2}' "/proc/$pid/status")"
at shadowtap-v2 'http://10.81.0.1:8080/?n=[1-50]' | sort | uniq -c
tries=0
while [ "$(podman logs "$v2" | grep -c 'GET /?n=')" -lt 50 ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "version 2 got $(podman logs "$v2" | grep -c 'GET /?n=') of 50 requests"
    sleep 0.1
done
say "version 2 got $(podman logs "$v2" | grep -c 'GET /?n=') of 50 requests"
podman stop -t 10 "$sidecar" >/dev/null
podman logs "$sidecar" 2>&1 | tail -n 25

# What Kubernetes gives user 65532 who adds NET_RAW: nothing but the bounding set. podman would give more.
mounted=$(buildah mount "$(buildah from --pull-never "$IMAGE")")
folder=$(mktemp -d)
chmod 755 "$folder"
program=$folder/shadowtap
cp --preserve=all "$mounted/usr/local/bin/shadowtap" "$program"
# Privileges are given up by one exec, before the next: the kernel compares the two.
as_nonroot() { nsenter --net=/run/netns/shadowtap-v1 setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all "$@"; }
said=$(timeout -s TERM 2 nsenter --net=/run/netns/shadowtap-v1 setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all \
    --bounding-set=-all,+net_raw "$program" mirror --port 80 --to http://10.81.0.2 2>&1 || :)
case $said in
*'every capability is given up'*) say "as user 65532 with the file capability: captures" ;;
*) fail "as user 65532 with the file capability: $said" ;;
esac
said=$(as_nonroot --bounding-set=-all,+net_raw timeout 10 setpriv --no-new-privs "$program" mirror --port 80 --to http://10.81.0.2 2>&1 || :)
case $said in
*'no permission to capture'*) say "the same without privilege escalation: refused, and says so" ;;
*) fail "the same without privilege escalation: $said" ;;
esac
as_nonroot --bounding-set=-all "$program" --version | sed 's/^/image: without NET_RAW it starts all the same: /'
buildah rm --all >/dev/null
