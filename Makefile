# Everything that a person or CI runs. `make` alone lists it.

CARGO ?= $(shell command -v cargo 2>/dev/null || echo "$$HOME/.cargo/bin/cargo")
FUZZ_SECONDS ?= 600
SOAK_SECONDS ?= 1800
FUZZ_TARGETS = decode_frame reassemble parse_http read_gor read_capture read_har read_jsonl parse_filter read_middleware inject_manifest

.PHONY: help setup setup-build demo test bench counts trust soak lint deny doc conformance regenerate fuzz image

help:
	@echo 'make demo         show the main job, live, on this machine'
	@echo 'make test         install what is missing, then run every test'
	@echo 'make setup        install what is missing to build and to test'
	@echo 'make bench        what the benchmarks in benches/ measure on this machine'
	@echo 'make counts       instructions for each packet read and request replayed'
	@echo 'make trust        version 1 beside a sidecar in trouble, lost packets, floods: writes docs/trust.md'
	@echo 'make soak         half an hour of load (SOAK_SECONDS): writes docs/soak.md'
	@echo 'make lint         formatting and lints'
	@echo 'make deny         licences, sources and advisories of every dependency (installs cargo-deny if it is missing)'
	@echo 'make doc          the API documentation, warnings are errors'
	@echo 'make conformance  score every capture and write docs/conformance.md'
	@echo 'make regenerate   write the golden files beside the fixtures again'
	@echo 'make image        build the container image without a daemon, and try it out (root, Debian, minutes)'
	@echo 'make fuzz         run each fuzz target for FUZZ_SECONDS ($(FUZZ_SECONDS))'

setup:
	@sh scripts/setup.sh build test

setup-build:
	@sh scripts/setup.sh build

demo: setup-build
	@$(CARGO) run --quiet --release --locked -- demo

test: setup
	$(CARGO) test --locked

bench:
	@sh scripts/setup.sh build bench
	$(CARGO) bench --locked --bench compare --bench judge --bench lateness --bench performance

counts:
	@sh scripts/setup.sh build bench
	@$(CARGO) bench --quiet --locked --bench performance -- counts

trust: setup
	@$(CARGO) bench --quiet --locked --bench trust

soak: setup
	@$(CARGO) bench --quiet --locked --bench trust -- soak $(SOAK_SECONDS)

lint: setup-build
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

deny: setup-build
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check licenses bans sources
	@$(CARGO) deny --locked check advisories || \
		{ echo 'deny: an advisory, or no way to the database of advisories (github.com/rustsec/advisory-db); see above' >&2; exit 1; }

doc: setup-build
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

conformance: setup
	SHADOWTAP_REPORT=docs/conformance.md $(CARGO) test --locked --test tests conformance:: -- --nocapture

regenerate: setup-build
	SHADOWTAP_REGENERATE=1 $(CARGO) test --locked --test tests fixtures::

image:
	sh scripts/image.sh build
	sh scripts/image.sh try

fuzz: setup-build
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		sh fuzz/seed.sh $$target && \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -rss_limit_mb=1024 || exit 1; \
	done
