# make dev    everything on this machine, with a live table; Ctrl-C leaves nothing running
# make demo   the main job once, start to finish
# make check  the most important tests, in a few minutes
# make test   all tests and checks
# make bench  speed and memory, with ratios; fails if a target is missed (BENCH_REPORT_ONLY=1: only tells it)
CARGO ?= cargo

.PHONY: dev demo check test bench docs fmt lint style generate prerequisites python

# `tenant-operator-dev` starts the `tenant-operator` beside it.
dev: prerequisites
	$(CARGO) build --quiet --workspace --bins
	$(CARGO) run --quiet --package tenant-operator-dev

demo: prerequisites
	$(CARGO) build --quiet --workspace --bins
	$(CARGO) run --quiet --package tenant-operator-dev -- --demo

check: prerequisites python
	./tests/check

# Installs what the tests need, or prints the command.
test:
	./tests/run

bench: prerequisites
	@# A missed target fails the first one only after all of it was measured, and the second one is measured all the same.
	$(CARGO) bench --bench onboarding; missed=$$?; $(CARGO) bench --bench pods && exit $$missed

# The documentation as a site in target/site.
docs: python
	tests/docs

fmt:
	$(CARGO) fmt --all

lint: style
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# What needs no build: format, licences and second versions of crates, typing errors.
style: python
	$(CARGO) fmt --all --check
	tests/deny
	tests/typos

# crds/, docs/crds.md and charts/tenant-operator/files follow the Rust types; a test fails when they drift.
generate: python
	$(CARGO) run --quiet -- crds --out crds
	$(CARGO) run --quiet -- crds --reference > docs/crds.md
	$(CARGO) run --quiet -- crds --chart charts/tenant-operator/files
	$(CARGO) run --quiet -- preflight --reference > docs/preflight.md
	$(CARGO) run --quiet --package tenant-operator-dev -- --reference > docs/dev.md
	for page in cli metrics http lifecycle milestones; do $(CARGO) run --quiet -- manual $$page > docs/$$page.md || exit 1; done
	charts/generate

prerequisites:
	@command -v $(CARGO) >/dev/null || { echo "Rust is needed: install it from https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is needed: on Debian, apt-get install build-essential"; exit 1; }

python:
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "Python 3 with venv is needed: on Debian, apt-get install python3-venv"; exit 1; }
