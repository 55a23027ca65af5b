# SPDX-License-Identifier: Apache-2.0
"""Hosts that lack or forbid what the engines like to have: features switched off, a seccomp filter as containers have it,
limits of address space. The busybox guest must come up under each."""

import pathlib
import sys

from kit.case import main
from kit.guest import run_busybox

SECONDS = 300
SCRIPT = "nproc\necho sum $(seq 1 1000 | sha256sum)\n"
SUM = "sum 67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f -"
LAUNCHER = pathlib.Path(__file__).resolve().parent / "restricted_host.py"
# As in lodge run --help.
FEATURES = ["bmi1", "bmi2", "fsgsbase", "membarrier", "memfd", "userfaultfd", "avx512"]


def boots(prefix=(), cpus=1, engine="translate", options=()):
    status, output = run_busybox(SCRIPT, SECONDS, cpus=cpus, engine=engine, options=options, prefix=prefix)
    assert status == 0, output
    assert output.splitlines() == [str(cpus), SUM], output


def without_each_feature():
    for feature in FEATURES:
        boots(options=("--trace", f"host-without={feature}"))


def without_all_features():
    boots(cpus=2, options=("--trace", "host-without=" + "+".join(FEATURES)))


def with_few_mappings():
    """Without userfaultfd, each page of code that is watched may be a mapping of its own; what is beyond is interpreted."""
    for executors in ("", "executors,executors-native,"):  # whose pages are watched, too, and longer
        boots(options=("--trace", f"{executors}host-without=userfaultfd+mappings"))


def in_a_filtered_container():
    """The system calls answer EPERM, and glibc's and Lodge's own must do."""
    boots(prefix=(sys.executable, str(LAUNCHER)), cpus=2)


def with_little_address_space():
    """The translator cannot work; `auto` takes the interpreter."""
    boots(prefix=("prlimit", f"--as={16 << 30}"), engine="auto")


def without_reservations():
    boots(engine="auto", options=("--trace", "host-without=reservation"))


if len(sys.argv) > 1 and sys.argv[1] == "slow":
    main(with_little_address_space, without_reservations)
else:
    main(without_each_feature, without_all_features, with_few_mappings, in_a_filtered_container)
