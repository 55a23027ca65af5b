# SPDX-License-Identifier: Apache-2.0
"""Debian reaches multi-user.target with no failed unit: debian_test.py CPUS."""

import sys

from kit.case import main
from kit.guest import BOOT_SECONDS, Debian
from kit.machine import Spec

CPUS = int(sys.argv[1])
SLOW = Spec().engine == "interpret"
# systemd's patience is for real machines: its 90 seconds for a device are too few for an interpreter beside other tests.
PATIENCE = "systemd.default_device_timeout_sec=900 systemd.default_timeout_start_sec=900" if SLOW else ""


def boots_to_multi_user():
    with Debian(cpus=CPUS, append=PATIENCE, login=False) as debian:
        debian.login(BOOT_SECONDS * (5 if SLOW else 1))
        debian.check("systemctl is-system-running --wait", 600 if SLOW else 120)
        failed = debian.check("systemctl --failed --no-legend --plain", 30)
        assert failed == "", f"failed units:\n{failed}"
        debian.check("systemctl is-active multi-user.target", 30)
        assert debian.check("nproc", 10) == str(CPUS)
        faults = debian.run(r"dmesg | grep -E 'BUG:|Oops|lockup|rcu.*stall|unchecked MSR|general protection'", 30)[1]
        assert faults == "", f"kernel faults:\n{faults}"
        address = debian.check("ip -4 -o addr show scope global", 10)
        assert "10.0.2.15/24" in address, f"no DHCP address: {address}"
        virtio = debian.check("lsmod", 10)
        for module in ("virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon"):
            assert module in virtio, f"{module} is not loaded"
        assert debian.power_off() == 0


main(boots_to_multi_user)
