# SPDX-License-Identifier: Apache-2.0
"""Debian installed on a disk, from firmware to a login: pc_debian_test.py bios|uefi [again]. SeaBIOS starts GRUB from the
disk's first sectors; OVMF starts shim and GRUB from its EFI system partition. `again`: the guest reboots in between."""

import pathlib
import sys
import tempfile

from kit import paths
from kit.boot_disk import make_boot_disk, make_efi_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 400
ARGUMENTS = "console=ttyS0 root=/dev/vda2 rw"
UEFI = sys.argv[1] == "uefi"
AGAIN = "again" in sys.argv


def login(machine, *commands):
    """GRUB, then Debian's root shell; commands that must succeed in it."""
    machine.console.wait_for("grub: starting", SECONDS)
    machine.console.wait_for(r"root@lodge:~# ", SECONDS)
    machine.console.send("stty -echo; dmesg -n 1; export TERM=dumb PAGER=cat PS1= PS2=; set +m\n")
    for command in commands:
        machine.console.check(command, 180)


def debian_comes_up_from_its_disk():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        (make_efi_disk if UEFI else make_boot_disk)(disk, kernel_arguments=ARGUMENTS, root=paths.DEBIAN)
        options = ("--firmware", "uefi") if UEFI else ()
        with Machine(Spec(kernel=None, disks=[Disk(disk)], cpus=2, memory="1G", snapshot=True, options=options)) as machine:
            login(machine, "test $(findmnt -no SOURCE /) = /dev/vda2", "systemctl is-system-running --wait",
                  "test -e /sys/firmware/efi" if UEFI else "test ! -e /sys/firmware/efi", "test $(nproc) = 2",
                  "echo kept >/root/kept; sync")
            if AGAIN:
                machine.console.send("systemctl reboot\n")
                login(machine, "test $(cat /root/kept) = kept")
            machine.console.send("systemctl poweroff\n")
            assert machine.wait_end(120) == 0


main(debian_comes_up_from_its_disk)
