# SPDX-License-Identifier: Apache-2.0
"""Reboot from inside, reset from outside, and the power button."""

import re

from kit.case import main
from kit.guest import Debian

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def reboots_from_inside():
    with Debian() as debian:
        first = debian.check(BOOT_ID, 10)
        debian.check("echo kept >/root/kept && sync", 30)
        debian.machine.console.send("reboot\n")
        debian.machine.console.wait_for("reboot: Restarting system", 60)
        debian.login()
        assert debian.check(BOOT_ID, 10) != first
        assert debian.check("cat /root/kept", 10) == "kept"
        assert debian.check("systemctl --failed --no-legend --plain", 30) == ""
        assert debian.power_off() == 0


def resets_from_outside():
    with Debian() as debian:
        first = debian.check(BOOT_ID, 10)
        debian.machine.reset()
        debian.login()
        assert debian.check(BOOT_ID, 10) != first


def power_button_shuts_down():
    with Debian() as debian:
        debian.check("systemctl is-system-running --wait", 120)
        debian.machine.power_button()
        assert debian.machine.wait_end(120) == 0
        text = debian.machine.console.text
        for line in ("Reached target.*Unmount All Filesystems", "reboot: Power down"):
            assert re.search(line, text), f"the shutdown did not say '{line}':\n{debian.machine.console.tail()}"


main(reboots_from_inside, resets_from_outside, power_button_shuts_down)
