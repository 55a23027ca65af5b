# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# apt with the host's own Debian 12 sources and proxy settings, but with lists and cache in the current folder: needs no
# root and changes nothing on the host. Sourced by the makers.

archive_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# One-line sources for the suite, its updates and its security archive, as this host has them configured.
# $1: deb or deb-src.
debian_sources() {
  local type=$1 found
  found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v type="$type" -v suite="$suite" -v keyring="$archive_keyring" '
      $2 ~ "^" suite "(-updates|-security)?$" && $3 == "main" {
        print type " [signed-by=" keyring "] " $1 " " $2 " " $3
      }' | sort -u)
  if [ -z "$found" ]; then
    echo "error: this host's apt has no sources of Debian 12 ($suite main)" >&2
    return 1
  fi
  echo "$found"
}

# The host's transport settings (proxy, retries, clock checks) as apt.conf lines.
apt_transport_options() {
  apt-config dump --no-empty --format '%F "%v";%n' Acquire::http Acquire::https Acquire::Check-Date \
    Acquire::Check-Valid-Until Acquire::Retries
}

# apt-get on private state in ./apt; call private_apt_update once before.
private_apt() {
  apt-get -q -y -o Dir::Etc::SourceList="$PWD/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State="$PWD/apt/state" -o Dir::Cache="$PWD/apt/cache" -o Dir::State::status=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Debug::NoLocking=1 "$@"
}

private_apt_update() {
  mkdir -p apt/state/lists/partial apt/cache/archives/partial
  debian_sources deb >apt/sources.list
  private_apt update
}
