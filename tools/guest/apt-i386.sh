# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# apt.sh for packages of i386. Sourced by the makers, after it.

apt_i386() { private_apt -o APT::Architecture=i386 -o APT::Architectures=i386 "$@"; }

# Leaves the sources that work in apt/sources.list: mirrors that are meant for amd64 may have the release's own packages
# for i386, but not those of the security archive.
apt_i386_update() {
  mkdir -p apt/state/lists/partial apt/cache/archives/partial
  debian_sources deb >apt/sources.list
  if ! apt_i386 update; then
    sed -i '/-security /d' apt/sources.list
    apt_i386 update
  fi
}
