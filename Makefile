# SPDX-License-Identifier: Apache-2.0
# A thin front of the CMake presets; `make help` lists what it does.
SHELL := /bin/bash
JOBS ?= $(shell nproc)

.PHONY: help run build static test test-long test-install check bench fuzz guest packages packages-test clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: build guest ## install packages, build, make the guest, boot it to a shell
	@tools/run-guest

build: packages ## the program, at build/release/lodge
	@tools/build release

static: packages ## the same without shared libraries, at build/static/lodge (libslirp is loaded when a user network starts)
	@tools/build static lodge lodge-network-helper

test: packages-test build ## install packages, build, run every test and check (30 minutes at most)
	@tools/run-tests

test-long: packages-test build ## the tests that take longer than `make test` may
	@tools/run-tests --long

test-install: packages-test build ## Debian's installer from CD-ROM, unattended, to a system on its own disk (half an hour)
	@tools/run-tests --install

check: packages-test ## format, clang-tidy, headers, include arrows, paths in the docs, licence lines
	@tools/check

bench: packages-test build guest ## Lodge against the host itself and QEMU, as a table (QUICK=1: a short one; BENCH="--rounds 3")
	@python3 bench/bench.py $(if $(QUICK),--quick) $(BENCH)
	@python3 bench/network_bench.py $(if $(QUICK),--quick)

fuzz: packages-test ## build every fuzz driver and run each for a while (SECONDS_EACH=60)
	@tools/run-fuzz $(or $(SECONDS_EACH),60)

guest: packages ## the guest's kernel, initramfs and Debian image, into the cache folder
	@tools/make-guest >/dev/null

packages:
	@tools/install-packages

packages-test:
	@tools/install-packages --test

clean: ## remove everything that was built (the guest's cache folder stays)
	@rm -rf build
