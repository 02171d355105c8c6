# The image holds shadowtap, the sample application, the libraries that they need and nothing else: no shell, no package manager.
#
#   docker build -t shadowtap .
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example.com/shadowtap --push .
#
# scripts/image.sh builds it with buildah, without a daemon, and tries it out in a pod.

FROM docker.io/library/rust:1-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libcap2-bin libpcap-dev \
 && rm -rf /var/lib/apt/lists/*
# Before the sources, so that it is built once.
RUN cargo install --quiet --locked cargo-cyclonedx@0.5.9
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY tests/tests.rs tests/
COPY benches benches
RUN cargo build --locked --release --bins \
 && cargo cyclonedx --quiet --format json --spec-version 1.5

# A root file system of the two programs and the libraries that they say they need.
RUN set -eu; \
    mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/tmp /image/usr/share/sbom /image/var/lib/dpkg/status.d; \
    chmod 1777 /image/tmp; \
    cp target/release/shadowtap target/release/sample-app /image/usr/local/bin/; \
    # Under this name it takes GoReplay's command line: `command: ["gor"]` in a manifest stays as it is.
    ln -s shadowtap /image/usr/local/bin/gor; \
    for library in $(ldd target/release/shadowtap target/release/sample-app | grep -o '/[^ )]*' | grep -v ':$' | sort -u); do \
        mkdir -p "/image$(dirname "$library")"; \
        cp -L "$library" "/image$library"; \
        # Where scanners look for the packages of an image without a package manager.
        package=$(dpkg -S "*/${library##*/}" | head -n 1 | cut -d: -f1); \
        dpkg -s "$package" > "/image/var/lib/dpkg/status.d/$package"; \
    done; \
    cp shadowtap.cdx.json /image/usr/share/sbom/; \
    cp /etc/os-release /image/etc/; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'root:x:0:0:root:/:/nonexistent' > /image/etc/passwd; \
    echo 'shadowtap:x:65532:65532:shadowtap:/:/nonexistent' >> /image/etc/passwd; \
    echo 'hosts: files dns' > /image/etc/nsswitch.conf; \
    # Permitted, not effective: the program raises it itself, and starts where it is not to be had as well.
    setcap cap_net_raw+p /image/usr/local/bin/shadowtap

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="shadowtap" \
      org.opencontainers.image.description="Mirrors version 1's real HTTP traffic to version 2 from captured packets" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
ENV PATH=/usr/local/bin
# The sidecar captures as uid 0 with one capability, or as 65532 with the file capability: k8s/README.md has both.
USER 0
ENTRYPOINT ["/usr/local/bin/shadowtap"]
CMD ["--help"]
