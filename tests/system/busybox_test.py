# SPDX-License-Identifier: Apache-2.0
"""The unmodified cloud kernel with the busybox initramfs: busybox_test.py CPUS, on $LODGE_TEST_ENGINE."""

import sys

from kit import cpu_check
from kit.case import main
from kit.guest import run_busybox

CPUS, TURNS = int(sys.argv[1]), 2000
SECONDS = 600


def boots():
    status, output = run_busybox(cpu_check.script(TURNS), SECONDS, cpus=CPUS)
    cpu_check.check(status, output, CPUS, TURNS)


main(boots)
