# The commands of the README. Each works from a fresh clone on Debian or Ubuntu with git and Rust.

CARGO ?= cargo
JOBS ?= $(shell nproc)
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

.PHONY: demo test test-guest test-service release bench check clean needs-rust needs-test

# A daemon of its own, a real program in a container, nothing left behind. Offline once the dependencies are fetched.
demo: needs-rust
	$(CARGO) build --profile demo --package rorqual
	demo/run target/$(TARGET)/demo/rorqual

# All tests, as root, after installing what they need.
test: needs-rust needs-test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --jobs $(JOBS) -- --deny warnings
	$(CARGO) test --workspace --jobs $(JOBS)

# The product in virtual machines: Debian's kernel with control groups version 2, alone and with systemd and AppArmor.
# Emulated, so it takes minutes.
test-guest: needs-rust
	tests/install --guest
	$(CARGO) build --release --package rorqual
	tests/guest/cgroup2 target/$(TARGET)/release/rorqual
	tests/guest/systemd target/$(TARGET)/release/rorqual

# redis and nginx of Debian under load while the daemon is killed again and again: two minutes, and one for the image,
# which is downloaded once. PostgreSQL on volumes that travel. An image of a million entries. Then the scenarios that take too long for every run.
test-service: needs-rust
	tests/install --service
	$(CARGO) build --release --package rorqual
	tests/service/run target/$(TARGET)/release/rorqual $(or $(SECONDS),120) $(or $(KILLS),8)
	tests/service/volumes target/$(TARGET)/release/rorqual
	tests/service/entries target/$(TARGET)/release/rorqual
	$(CARGO) test --release --package rorqual --test e2e -- --ignored --nocapture

# The static binary at dist/rorqual, with its short name and the names of Docker's programs beside it; its manual pages and
# completions below dist/man and dist/completion.
release: needs-rust
	$(CARGO) build --release --package rorqual
	mkdir -p dist
	install -m 0755 target/$(TARGET)/release/rorqual dist/rorqual
	for name in rq docker dockerd; do ln -sf rorqual dist/$$name; done
	rm -rf dist/man dist/completion && mkdir -p dist/completion
	dist/rorqual __manual dist/man/man1
	for shell in bash zsh fish; do dist/rorqual completion $$shell > dist/completion/rorqual.$$shell; done

# Paired runs against the peers that are installed; prints a table of ratios and leaves it in bench/results/.
bench: release
	$(CARGO) run --release --package rorqual-bench -- dist/rorqual

check: needs-rust
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) test --package rorqual-xtask

clean:
	$(CARGO) clean
	rm -rf dist

needs-rust:
	@command -v $(CARGO) >/dev/null || { echo "rorqual needs Rust: install it from https://rustup.rs or with your distribution's packages (rustc 1.91 or newer)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "rorqual needs a C compiler for SQLite and the TLS library: apt-get install gcc libc6-dev" >&2; exit 1; }

needs-test:
	tests/install
