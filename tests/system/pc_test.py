# SPDX-License-Identifier: Apache-2.0
"""The pc board: firmware starts what lies on disks."""

import contextlib
import pathlib
import tempfile
import time

from kit.boot_disk import make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240


@contextlib.contextmanager
def boot_disk(**options):
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        path = pathlib.Path(folder) / "disk.img"
        make_boot_disk(path, **options)
        yield path


def pc(*disks, **options):
    return Machine(Spec(kernel=None, disks=list(disks), **options))


def check_boot(machine, *commands):
    """GRUB on the serial console, then the kernel, then the shell of the initramfs."""
    machine.console.wait_for("grub: starting", SECONDS)
    machine.console.wait_for("lodge-guest: ready", SECONDS)
    for number, command in enumerate(commands):
        machine.console.send(f"{command}; echo done-{number}-$?\n")
        machine.console.wait_for(rf"^done-{number}-0\r?$", 60)


def firmware_starts_a_disk_on_virtio():
    with boot_disk() as disk:
        with pc(Disk(disk), cpus=2, snapshot=True, options=("--trace", "firmware")) as machine:
            check_boot(machine, "grep -q 1237 /sys/bus/pci/devices/0000:00:00.0/device",
                       "test $(grep -c ^processor /proc/cpuinfo) = 2", "test -e /dev/vda1",
                       "test -e /sys/firmware/acpi/tables/FACP",
                       "test $(cat /sys/class/dmi/id/sys_vendor) = Lodge")
            machine.reset()
            check_boot(machine)
            assert "Booting from Hard Disk" in machine.errors, machine.errors
            machine.console.send("poweroff -f\n")
            assert machine.wait_end(60) == 0


def an_empty_disk_is_no_system():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        with pc(Disk(disk), options=("--trace", "firmware")) as machine:
            end = time.monotonic() + 60
            while "No bootable device" not in machine.errors:
                assert time.monotonic() < end, machine.errors
                time.sleep(0.2)


main(firmware_starts_a_disk_on_virtio, an_empty_disk_is_no_system)
